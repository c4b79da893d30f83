"""
The verbs the gate knows, and what each means for framing. The table is the relay's whole grammar.
"""

from enum import Enum

from attrs import frozen


class What(Enum):
    """
    What the backend's reply to a forwarded command will mean.
    """

    __hash__ = object.__hash__  # as in `phases`

    RELAYED = "nothing to us"
    RESETTING = "2yz: there is no mail transaction any more"
    EHLO = "2yz: the backend's keywords"
    HELO = "2yz: the backend offers no extension"
    HELO_FALLBACK = "the answer to our own HELO, for a backend that knows no EHLO"
    MAIL = "2yz: a mail transaction is open"
    RCPT = "2yz: one more recipient"
    DATA = "354: message data follows"
    END_OF_DATA = "2yz: the backend has taken the message"
    CHUNK = "2yz: the chunk is taken"
    LAST_CHUNK = "2yz: the backend has taken the message in chunks"
    AUTH = "334: one line of the client's follows"
    QUIT = "2yz: the session is over"


@frozen
class Verb:
    """
    What is done with a verb.

    *ends_group*: what follows it is not read before it is answered (RFC 2920 section 3.1: its reply may change what the
    next octets are, or who reads them). *relayed*: false if it never reaches the backend.
    """

    what: What = What.RELAYED
    ends_group: bool = False
    relayed: bool = True


_NEVER = Verb(relayed=False)

# A verb we do not know may change the framing: it ends the group.
UNKNOWN = Verb(ends_group=True)

VERBS = {
    b"EHLO": Verb(What.EHLO, ends_group=True),
    b"HELO": Verb(What.HELO, ends_group=True),
    b"MAIL": Verb(What.MAIL),
    b"RCPT": Verb(What.RCPT),
    b"DATA": Verb(What.DATA, ends_group=True),
    b"BDAT": Verb(What.CHUNK),
    b"RSET": Verb(What.RESETTING, ends_group=True),
    b"NOOP": Verb(),
    b"HELP": Verb(),
    b"VRFY": Verb(),
    b"EXPN": Verb(),
    b"ETRN": Verb(),
    b"AUTH": Verb(What.AUTH, ends_group=True),
    b"QUIT": Verb(What.QUIT, ends_group=True),
    # Who the client is, is for the gate to say, not for the client.
    b"XCLIENT": _NEVER,
    b"XFORWARD": _NEVER,
    b"PROXY": _NEVER,
    # These turn the session round: the backend would become the client (RFC 821, RFC 2645).
    b"TURN": _NEVER,
    b"ATRN": _NEVER,
    # Transactions that no sender rule would see (RFC 821; obsolete since RFC 5321 appendix F.6).
    b"SEND": _NEVER,
    b"SOML": _NEVER,
    b"SAML": _NEVER,
}

# RFC 821 knows verbs of four letters, and some servers still compare no more: RCPTX would be a recipient to them.
_FOUR_LETTERS = frozenset(name[:4] for name in (*VERBS, b"STARTTLS"))


def verb(name: bytes) -> Verb:
    """
    Return what is done with the verb *name* (upper case). Private verbs (X...) do not pass: they are made for trusted
    neighbours, and the gate is one (XCLIENT, XEXCH50, X-EXPS, X-ANONYMOUSTLS and their like). Nor does what begins like
    another verb.
    """
    known = VERBS.get(name)
    if known is not None:
        return known
    return _NEVER if name.startswith(b"X") or name[:4] in _FOUR_LETTERS else UNKNOWN
