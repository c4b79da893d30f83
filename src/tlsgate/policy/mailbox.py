"""
The mailbox of a MAIL or RCPT command taken apart, so that no spelling hides its domain.

A source route (RFC 5321 appendix F.2) is dropped, and an "@" inside a quoted string does not separate (section 4.1.2).
"""

import re
from collections.abc import Iterable

from attrs import frozen

from tlsgate.policy.names import DOMAINLESS, NOTHING, canonical, is_name

POSTMASTER = "postmaster"

# Up to the first colon that is not part of an address literal: "@a.example,@[IPv6:::1]:".
_ROUTE = re.compile(r"@(?:\[[^\]]*\]|[^:\[])*:")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@frozen
class Mailbox:
    """
    A local part, quotes resolved, and a domain in its one spelling; `None` if it has none.
    """

    local: str
    domain: str | None

    @classmethod
    def parse(cls, text: str) -> "Mailbox":
        """
        Return the mailbox *text*, as it stood between the angle brackets.
        """
        route = _ROUTE.match(text)
        if route:
            text = text[route.end() :]
        at = _separator(text)
        if at < 0:
            return cls(_local(text), None)
        return cls(_local(text[:at]), canonical(text[at + 1 :]))

    @property
    def unambiguous(self) -> bool:
        """
        Whether every server reads the same domain in it.

        One without a domain gets one of the server's own; `[3221225985]` and `[192.0.2.010]` are addresses to some;
        what is no name in any script may become one where other tables are in use; and an empty label may be dropped.
        """
        return self.domain is not None and is_name(self.domain)

    @property
    def key(self) -> str:
        """
        What patterns of domain names are matched with.
        """
        if self.domain is None:
            return DOMAINLESS if self.local else NOTHING
        return self.domain or DOMAINLESS


def _separator(text: str) -> int:
    """
    Return where the last "@" outside quoted strings is, or -1; quotes that are never closed quote nothing.
    """
    last = text.rfind("@")
    if '"' not in text:
        return last
    unquoted = -1
    quoted = escaped = False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
        elif character == "@" and not quoted:
            unquoted = position
    return last if quoted else unquoted


def _local(text: str) -> str:
    if _QUOTED.fullmatch(text):
        text = _ESCAPED.sub(r"\1", text[1:-1])
    # Local parts belong to their domain and may differ in case, all but this one (RFC 5321 sections 2.4 and 4.5.1).
    return POSTMASTER if text.lower() == POSTMASTER else text


_ANY_POSTMASTER = Mailbox(POSTMASTER, None)


@frozen
class ExemptRecipients:
    """
    Recipients that no level keeps from being written to.

    They are mailboxes, with `postmaster` standing for the postmaster of every domain and of none (RFC 5321 section
    4.5.1). Meant for those who must be reachable when TLS is what is broken: the postmaster, and the mailboxes that
    TLSRPT reports go to (RFC 8460 section 3).
    """

    mailboxes: frozenset[Mailbox]

    @classmethod
    def of(cls, recipients: Iterable[str]) -> "ExemptRecipients":
        """
        Return the exemption of *recipients*.

        Raises:
            ValueError: Some are neither mailboxes nor `postmaster`; the message names each.
        """
        mailboxes, faults = set(), []
        for recipient in recipients:
            mailbox = Mailbox.parse(recipient)
            if mailbox == _ANY_POSTMASTER or (mailbox.local and is_name(mailbox.domain or "")):
                mailboxes.add(mailbox)
            else:
                faults.append(f"{recipient!a}")
        if faults:
            raise ValueError(f"{', '.join(faults)}: neither local-part@domain nor postmaster")
        return cls(frozenset(mailboxes))

    def __bool__(self) -> bool:
        return bool(self.mailboxes)

    def __contains__(self, recipient: str) -> bool:
        mailbox = Mailbox.parse(recipient)
        if mailbox in self.mailboxes:
            return True
        return mailbox.local == POSTMASTER and _ANY_POSTMASTER in self.mailboxes
