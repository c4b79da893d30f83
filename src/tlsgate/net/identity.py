"""
Who the client is, as told to a backend by XCLIENT (Postfix XCLIENT_README). Pure: values in, command lines out.

Whatever the backend is not told stays what it was: our own address, which it may trust. So an attribute that the
backend understands and we do not know is sent as [UNAVAILABLE], not left out.
"""

import re
from ipaddress import IPv6Address, ip_address

from attrs import frozen

from tlsgate.net.proxy_protocol import Address, normalized

UNAVAILABLE = b"[UNAVAILABLE]"
TEMPORARILY_UNAVAILABLE = b"[TEMPUNAVAIL]"

COMMAND_OCTETS_MAX = 512  # RFC 5321 section 4.5.3.1.4; XCLIENT_README, note 1: "must not ... exceed"
VALUE_OCTETS_MAX = 255  # XCLIENT_README, note 1; Postfix refuses more, and no mail would pass
XTEXT_OCTETS_MAX = 400  # so that one such value, ADDR and PROTO always fit into a command

_LAST = frozenset({"ADDR", "PROTO", "HELO", "LOGIN"})

# RFC 3461 section 4: xchar is "!" to "~" but "+" and "="; all else is "+" and two hexadecimal digits.
_XCHARS = frozenset(range(0x21, 0x7F)) - frozenset(b"+=")

# At least one octet that is no digit: "192.0.2.7" is no name.
_HOST_NAME = re.compile(r"(?=.{1,255}\Z)(?=[0-9.]*[A-Za-z_-])(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.|\Z))+(?<!\.)")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


@frozen
class ClientIdentity:
    """
    What is known of a client. `None` means not known.

    *address* and *port* are the client's, *destination_address* and *destination_port* those it connected to. *name* is
    its host name as found in the DNS, and *name_deferred* says that the DNS did not answer; *reverse_name* is the name
    that the DNS has for its address, be it so or not. *helo* is what it said in EHLO or HELO, *login* whom it
    authenticated as, *protocol* "SMTP" or "ESMTP".
    """

    address: Address | None
    port: int | None = None
    destination_address: Address | None = None
    destination_port: int | None = None
    name: str | None = None
    name_deferred: bool = False
    reverse_name: str | None = None
    reverse_name_deferred: bool = False
    helo: str | None = None
    login: str | None = None
    protocol: str | None = None


def xclient_commands(offered: frozenset[str], who: ClientIdentity) -> list[bytes]:
    """
    Return the XCLIENT commands that tell a backend *who* the client is.

    Args:
        offered: The attribute names in the XCLIENT line of the backend's EHLO reply, in upper case.
        who: The client.

    Returns:
        One command of at most 512 octets, or two, each to be answered with 220. Empty if the backend does not take
        ADDR: what remained would not say who the client is.
    """
    if "ADDR" not in offered:
        return []
    attributes = {name: value for name, value in _attributes(who).items() if name in offered}
    whole = _command(attributes)
    if len(whole) <= COMMAND_OCTETS_MAX:
        return [whole]
    # Once ADDR is told, Postfix takes no further XCLIENT: the client has no right to it. And with each XCLIENT it
    # forgets the PROTO, HELO and LOGIN of the one before.
    early = {name: value for name, value in attributes.items() if name not in _LAST}
    late = {name: value for name, value in attributes.items() if name in _LAST}
    if len(_command(late)) > COMMAND_OCTETS_MAX:
        del late["HELO"]  # the client's own EHLO comes next and says it
    return [_command(early), _command(late)] if early else [_command(late)]


def _command(attributes: dict[str, bytes]) -> bytes:
    return b" ".join((b"XCLIENT", *(name.encode("ascii") + b"=" + attributes[name] for name in attributes))) + b"\r\n"


def xtext(octets: bytes) -> bytes:
    """
    Return *octets* as xtext (RFC 3461 section 4): one word of printable ASCII, whatever they are.
    """
    return b"".join(bytes((octet,)) if octet in _XCHARS else b"+%02X" % octet for octet in octets)


def _attributes(who: ClientIdentity) -> dict[str, bytes]:
    """
    Return every attribute there is, encoded, in the order of XCLIENT_README.

    HELO, PROTO and LOGIN are left out while unknown: the client's own EHLO and AUTH will say them. NAME never is, or
    the backend would go on with our own name. Postfix takes a NAME for the REVERSE_NAME as well, but [UNAVAILABLE] not.
    """
    attributes = {"NAME": _name(who.name, deferred=who.name_deferred)}
    if attributes["NAME"] in (UNAVAILABLE, TEMPORARILY_UNAVAILABLE):
        attributes["REVERSE_NAME"] = _name(who.reverse_name, deferred=who.reverse_name_deferred)
    attributes["ADDR"] = _address(who.address)
    attributes["PORT"] = _port(who.port)
    if who.protocol in ("SMTP", "ESMTP"):
        attributes["PROTO"] = who.protocol.encode("ascii")
    if who.helo is not None:
        attributes["HELO"] = _text(who.helo)
    if who.login is not None:
        attributes["LOGIN"] = _text(who.login)
    attributes["DESTADDR"] = _address(who.destination_address)
    attributes["DESTPORT"] = _port(who.destination_port)
    return attributes


def host_name(text: str) -> str | None:
    """
    Return *text* if it is a host name, without the dot at its end; `None` if not.
    """
    name = text.removesuffix(".")
    return name if _HOST_NAME.fullmatch(name) else None


def _name(name: str | None, *, deferred: bool) -> bytes:
    """
    Return a host name; a backend answers 501 to what is none, so the DNS's more curious answers are not passed on.
    """
    if deferred:
        return TEMPORARILY_UNAVAILABLE
    known = None if name is None else host_name(name)
    return UNAVAILABLE if known is None else known.encode("ascii")


def _address(address: Address | None) -> bytes:
    if address is None:
        return UNAVAILABLE
    address = normalized(address)
    return (b"IPV6:" if isinstance(address, IPv6Address) else b"") + str(address).encode("ascii")


def _port(port: int | None) -> bytes:
    return UNAVAILABLE if port is None else b"%d" % port


def _text(text: str) -> bytes:
    """
    Return what a client said as xtext. What is empty, or longer than a backend takes, is unknown rather than cut.

    A control character makes it unknown too: xtext would carry it safely, and the backend decode it into its log.
    """
    octets = text.encode("utf-8", "backslashreplace")
    value = xtext(octets)
    if not 0 < len(octets) <= VALUE_OCTETS_MAX or len(value) > XTEXT_OCTETS_MAX or _CONTROLS.search(octets):
        return UNAVAILABLE
    return value


def endpoint_of(address: object) -> tuple[Address | None, int | None]:
    """
    Return IP address and port of a Twisted address; nothing of one that has none (a UNIX socket).
    """
    host = getattr(address, "host", None)
    if host is None:
        return None, None
    # A socket that listens for both shows an IPv4 client as ::ffff:192.0.2.1.
    return normalized(ip_address(host.partition("%")[0])), getattr(address, "port", None)
