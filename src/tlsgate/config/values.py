"""
What a single value may be. Each check takes a value, returns it (in its one canonical form), or raises `Fault`.
"""

import re
from datetime import UTC, date, datetime, time
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import idna
from attrs import frozen

from tlsgate.config.faults import Fault, shown

Network = IPv4Network | IPv6Network

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]{0,63}")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")
_URL = re.compile(r"(https?://|mailto:)[!-~]+")
_MAILBOX = re.compile(r"[!#-'*+./-9=?A-Z^-~-]{1,64}@(?P<domain>[^@]+)")
_BELOW = re.compile(r"\A\*?\.")  # "*.example.org" and ".example.org" are the same
_SHA256_DIGITS = 64
_DNS_NAME_MAX = 253
_URL_MAX = 100
_MAPPED_BITS = 96

# What tlsgate itself answers, strips or refuses: letting one through would open a way around the gate.
_NEVER_LET_THROUGH = frozenset({"STARTTLS", "XCLIENT", "XFORWARD", "TURN", "XEXCH50", "X-ANONYMOUSTLS", "X-EXPS"})


@frozen
class Between:
    """
    A whole number from *least* to *most*; *why* tells where the bound comes from.
    """

    least: int
    most: int
    why: str = ""

    def __call__(self, number: int) -> int:
        """
        Return *number*, or raise `Fault`.
        """
        if self.least <= number <= self.most:
            return number
        reason = f" ({self.why})" if self.why else ""
        raise Fault(f"{shown(number)} is not between {self.least} and {self.most}{reason}")


@frozen
class AtLeastOne:
    """
    A list that must not be empty.
    """

    what: str

    def __call__(self, entries: tuple[object, ...]) -> tuple[object, ...]:
        """
        Return *entries*, or raise `Fault`.
        """
        if not entries:
            raise Fault(f"at least one {self.what} is needed")
        return entries


def name(text: str) -> str:
    """
    Check the name of a listener, level or backend group: it stands in metrics, logs and refusals.
    """
    if not _NAME.fullmatch(text):
        raise Fault(f"{shown(text)} is not a name: up to 40 letters, digits, dots, hyphens and underscores")
    return text


def is_dns_name(text: str) -> bool:
    """
    Whether *text* is a DNS name in its ASCII form. An IP address, or a mistyped one, is none.
    """
    labels = text.split(".")
    return len(text) <= _DNS_NAME_MAX and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def is_ip_address(text: str) -> bool:
    """
    Whether *text* is an IP address, without brackets.
    """
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def host_name(text: str) -> str:
    """
    Check a host name as it goes over the wire: ASCII, no dot at its end.
    """
    if not text.isascii():
        raise Fault(f"{shown(text)} is not ASCII; write {_a_label_hint(text)}")
    if not is_dns_name(text):
        raise Fault(f'{shown(text)} is not a host name, such as "mx.example.org"')
    return text


def domain_pattern(text: str) -> str:
    """
    Check a domain a rule looks for: "example.org", "*.example.org" for all below it, an address literal, "*" for any.
    """
    if "@" in text:
        raise Fault(f"{shown(text)} is a mailbox, rules look at domains; write {shown(text.rpartition('@')[2])}")
    if text.startswith("["):
        return _address_literal(text)
    if text != "*" and not _is_name(_BELOW.sub("", text)):
        raise Fault(f'{shown(text)} is not a domain, such as "example.org" or "*.example.org"')
    return text


def helo_pattern(text: str) -> str:
    """
    Check what a rule looks for in EHLO and HELO: a domain, or an IPv4 address without brackets, as printers give it.
    """
    return text if is_ip_address(text) and "." in text else domain_pattern(text)


def sender_pattern(text: str) -> str:
    """
    Check what a rule looks for in a sender: a domain, or "<>" for the null sender.
    """
    return text if text == "<>" else domain_pattern(text)


def sni_pattern(text: str) -> str:
    """
    Check what a rule looks for in the name of the TLS handshake: a domain, or "<>" for a client that gives none.
    """
    if text.startswith("[") or is_ip_address(text):
        raise Fault(f"{shown(text)} is an address; the name in a TLS handshake never is one (RFC 6066 section 3)")
    return text if text == "<>" else domain_pattern(text)


def certificate_name(text: str) -> str:
    """
    Check a name that a certificate must show: a DNS name or an IP address.
    """
    if text.startswith("*"):
        raise Fault(f"{shown(text)} is a pattern; write each name out (a wildcard in the certificate does match)")
    if not is_ip_address(text) and not _is_name(text):
        raise Fault(f'{shown(text)} is neither a DNS name, such as "mail.partner.example", nor an IP address')
    return text


def fingerprint(text: str) -> str:
    """
    Check a SHA-256 fingerprint, with colons or without.

    Returns:
        Its 64 digits in lower case.
    """
    digits = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]*", digits):
        raise Fault(f"{shown(text)} is not a fingerprint: {_SHA256_DIGITS} hexadecimal digits (SHA-256)")
    if len(digits) != _SHA256_DIGITS:
        raise Fault(f"{shown(text)} has {len(digits)} hexadecimal digits; a SHA-256 fingerprint has {_SHA256_DIGITS}")
    return digits


def exempt_recipient(text: str) -> str:
    """
    Check a recipient whose mail is taken in any case: "postmaster", or a whole mailbox.
    """
    if text.lower() == "postmaster":
        return text
    mailbox = _MAILBOX.fullmatch(text)
    if mailbox is None or not _is_name(mailbox["domain"]):
        raise Fault(f'{shown(text)} is neither "postmaster" nor a mailbox, such as "tlsrpt@example.org"')
    return text


def ehlo_keyword(text: str) -> str:
    """
    Check an EHLO keyword (RFC 5321 section 4.1.1.1) the operator vouches for.

    Returns:
        The keyword in upper case.
    """
    keyword = text.upper()
    if not _KEYWORD.fullmatch(keyword):
        raise Fault(f'{shown(text)} is not an EHLO keyword, such as "X-QUEUE"')
    if keyword in _NEVER_LET_THROUGH:
        raise Fault(f"{shown(text)} is never let through: it would lead around the gate")
    return keyword


def key_exchange_group(text: str) -> str:
    """
    Check the form of the name of a key exchange group.
    """
    if not _GROUP.fullmatch(text):
        raise Fault(f'{shown(text)} is not the name of a key exchange group, such as "X25519MLKEM768"')
    return text


def help_url(text: str) -> str:
    """
    Check a URL that goes into refusals: short enough to leave room for the reason within 512 octets.
    """
    if not _URL.fullmatch(text):
        raise Fault(f"{shown(text)} is not a URL of printable ASCII that begins with https://, http:// or mailto:")
    if len(text) > _URL_MAX:
        raise Fault(f"{shown(text)} has {len(text)} characters; a refusal has room for {_URL_MAX}")
    return text


def network(value: object) -> Network:
    """
    Read a network, or a single address.
    """
    example = 'is not an IP network, such as "192.0.2.0/24" or "2001:db8::/32"'
    if not isinstance(value, str):
        raise Fault(f"{shown(value)} {example}")
    try:
        found = ip_network(value)
    except ValueError:
        raise Fault(f"{shown(value)} {_network_hint(value) or example}") from None
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped and found.prefixlen >= _MAPPED_BITS:
        plain = ip_network((found.network_address.ipv4_mapped, found.prefixlen - _MAPPED_BITS))
        raise Fault(f"{shown(value)} is IPv4 in the clothes of IPv6 and never matches; write {shown(str(plain))}")
    return found


def moment(value: object) -> datetime:
    """
    Read a date (its midnight in UTC), or a date and time with its offset from UTC.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Fault(f"{shown(value)} does not say its offset from UTC; write {shown(value)}Z, or the date alone")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise Fault(f"{shown(value)} lies outside the calendar") from None
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    quotes = ", without quotes" if isinstance(value, str) else ""
    raise Fault(f"{shown(value)} is not a date; write it so{quotes}: 2027-01-31")


def _network_hint(text: str) -> str:
    try:
        wider = ip_network(text, strict=False)
    except ValueError:
        return ""
    return f"names a host within a network; write {shown(str(wider))}"


def _address_literal(text: str) -> str:
    try:
        ip_address(re.sub(r"^\[(?:IPv6:)?(.*)\]$", r"\1", text, flags=re.IGNORECASE))
    except ValueError:
        raise Fault(f'{shown(text)} is not an address literal, such as "[192.0.2.1]" or "[IPv6:2001:db8::1]"') from None
    return text


def _is_name(text: str) -> bool:
    return is_dns_name(text if text.isascii() else _to_a_label(text))


def _to_a_label(text: str) -> str:
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return ""


def _a_label_hint(text: str) -> str:
    return shown(_to_a_label(text)) if _to_a_label(text) else "a name of letters, digits, hyphens and dots"
