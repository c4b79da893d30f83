"""
What of a backend's EHLO reply a client may see (RFC 5321 section 4.1.1.1).

The list is the backend's own, taken anew from each of its replies, less what the gate does not relay. A keyword stands
for a protocol extension: one that we do not know may change how commands and replies are framed, so it is hidden unless
the operator lists it. AUTH is shown only where it may be used, and only with mechanisms that survive a TLS terminator.
"""

from attrs import frozen

from tlsgate.smtp.reply import BackendReply

# EHLO keywords whose framing is known: none changes what a line, a message or a reply is, but for AUTH and CHUNKING,
# which the session follows.
RELAYED = frozenset(
    {
        b"8BITMIME",  # RFC 6152
        b"AUTH",  # RFC 4954
        b"BINARYMIME",  # RFC 3030
        b"CHUNKING",  # RFC 3030
        b"CONNEG",  # RFC 4141
        b"CONPERM",  # RFC 4141
        b"DELIVERBY",  # RFC 2852
        b"DSN",  # RFC 3461
        b"ENHANCEDSTATUSCODES",  # RFC 2034
        b"ETRN",  # RFC 1985
        b"EXPN",  # RFC 5321
        b"FUTURERELEASE",  # RFC 4865
        b"HELP",  # RFC 5321
        b"LIMITS",  # RFC 9422
        b"MT-PRIORITY",  # RFC 6710
        b"MTRK",  # RFC 3885
        b"NO-SOLICITING",  # RFC 3865
        b"PIPELINING",  # RFC 2920
        b"RRVS",  # RFC 7293
        b"SIZE",  # RFC 1870
        b"SMTPUTF8",  # RFC 6531
        b"SUBMITTER",  # RFC 4405
        b"VRFY",  # RFC 5321
    }
)

# Never relayed, whatever the operator lists: they are the gate's own business, or a way around it.
NEVER = frozenset({b"STARTTLS", b"XCLIENT", b"XFORWARD", b"TURN", b"ATRN", b"X-ANONYMOUSTLS", b"X-EXPS", b"XEXCH50"})


def mechanism_usable(mechanism: bytes) -> bool:
    """
    Return whether a SASL mechanism works through a TLS terminator.

    Channel bindings (`-PLUS`, RFC 5802) bind to a TLS channel that the backend does not see, and EXTERNAL (RFC 4422
    appendix A) to a client certificate that it does not see.
    """
    name = mechanism.upper()
    return not name.endswith(b"-PLUS") and name != b"EXTERNAL"


@frozen
class Offer:
    """
    What may be shown beside the backend's own keywords.

    *starttls*: add STARTTLS. *auth*: show AUTH. *requiretls*: the way onward is verified TLS, so that the promise of
    RFC 8689 can be kept. *keywords*: further EHLO keywords that the operator lets through, in upper case.
    """

    starttls: bool = False
    auth: bool = True
    requiretls: bool = False
    keywords: frozenset[bytes] = frozenset()

    def keyword(self, text: bytes) -> bytes | None:
        """
        Return the EHLO line to show for the backend's line *text*, `None` for none.
        """
        name, *parameters = text.upper().split(b" ")
        if name.startswith(b"AUTH="):
            # The form of some servers older than RFC 2554, "AUTH=LOGIN PLAIN"; some clients still look for it.
            usable = [m for m in (name[5:], *parameters) if m and mechanism_usable(m)]
            return b"AUTH=" + b" ".join(usable) if self.auth and usable else None
        if name == b"AUTH":
            usable = [m for m in parameters if m and mechanism_usable(m)]
            return b"AUTH " + b" ".join(usable) if self.auth and usable else None
        if name == b"REQUIRETLS":
            return text if self.requiretls else None
        known = name in RELAYED or name in self.keywords
        return text if known and name not in NEVER else None


@frozen
class Offered:
    """
    An EHLO reply ready for the client, and what the backend can do.
    """

    raw: bytes
    keywords: frozenset[bytes]


def ehlo_reply(first: bytes, lines: list[bytes]) -> bytes:
    """
    Return the positive EHLO reply with the text *first* and one keyword a line.
    """
    texts = [first, *lines]
    return b"".join(b"250-" + text + b"\r\n" for text in texts[:-1]) + b"250 " + texts[-1] + b"\r\n"


def filtered(reply: BackendReply, offer: Offer) -> Offered:
    """
    Return the EHLO reply to show for the backend's positive *reply*.
    """
    first, *texts = reply.lines()
    shown = [line for text in texts if (line := offer.keyword(text)) is not None]
    keywords = frozenset(line.split(b" ", 1)[0].upper() for line in shown)
    if offer.starttls:
        shown.append(b"STARTTLS")
    return Offered(ehlo_reply(first, shown), keywords)
