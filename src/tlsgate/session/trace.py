"""
The trace line the gate adds before a message, where it is told to (RFC 5321 section 4.4). Pure: values in, octets out.

    Received: from client.example ([192.0.2.7])
     by mx.example with ESMTPS (TLSv1.3) id 7f3a9c
     tls TLS_AES_128_GCM_SHA256 group x25519;
     Thu, 1 Jan 2026 00:00:00 +0000

Every reader of mail takes it at its word, so nothing that a client says gets in but a well-formed name: no way to open
a comment, end the line, or write a clause of its own.
"""

import re
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from attrs import frozen

from tlsgate.policy.facts import TlsFacts

# RFC 5321 section 4.1.2, Domain, and the underscore that some hosts have in their names.
_DOMAIN = re.compile(r"(?=.{1,255}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
_ATOM = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VERSION = re.compile(r"TLSv1(?:\.[0-9])?")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# OpenSSL's names of key exchange and authentication -> those of the IANA registry.
_KEY_EXCHANGES = {
    "": "RSA",
    "ADH": "DH_anon",
    "AECDH": "ECDH_anon",
    "DHE-DSS": "DHE_DSS",
    "DHE-RSA": "DHE_RSA",
    "ECDHE": "ECDHE_RSA",  # OpenSSL leaves the RSA out of two ARIA suites
    "ECDHE-ECDSA": "ECDHE_ECDSA",
    "ECDHE-RSA": "ECDHE_RSA",
}
_CIPHER = re.compile(
    r"(?:(?P<exchange>[A-Z]+(?:-[A-Z]+)?)-)?"
    r"(?:(?P<block>AES|CAMELLIA|ARIA)(?P<bits>128|256)-(?P<mode>GCM-|)(?P<digest>SHA(?:256|384)?)"
    r"|AES(?P<ccm_bits>128|256)-CCM(?P<short>8?)"
    r"|(?P<stream>CHACHA20-POLY1305|SEED-SHA|NULL-(?:MD5|SHA(?:256)?)|DES-CBC3-SHA|RC4-(?:MD5|SHA)|IDEA-CBC-SHA))"
)
_STREAMS = {
    "CHACHA20-POLY1305": "CHACHA20_POLY1305_SHA256",
    "SEED-SHA": "SEED_CBC_SHA",
    "DES-CBC3-SHA": "3DES_EDE_CBC_SHA",
    "RC4-MD5": "RC4_128_MD5",
    "RC4-SHA": "RC4_128_SHA",
}
_TLS13_CIPHER = re.compile(r"TLS_[A-Z0-9_]{1,60}")

# Names of groups that OpenSSL has beside those of the IANA registry.
_GROUPS = {
    "X25519": "x25519",
    "X448": "x448",
    "prime256v1": "secp256r1",
    "P-256": "secp256r1",
    "P-384": "secp384r1",
    "P-521": "secp521r1",
}
_GROUP = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")  # RFC 8314 section 4.3, dh-group


@frozen
class Trace:
    """
    What is known of a message when its transaction starts.

    *gate* is our host name, *helo* what the client said in EHLO (*esmtp*) or HELO, *client* its address; *now* has a
    time zone.
    """

    gate: str
    helo: str
    client: IPv4Address | IPv6Address | None
    session_id: str
    now: datetime
    esmtp: bool = True
    smtputf8: bool = False
    authenticated: bool = False
    tls: TlsFacts | None = None


def received_line(trace: Trace) -> bytes:
    """
    Return the Received header field for a message, folded, with its CRLF.
    """
    literal = _literal(trace.client)
    name = _domain(trace.helo) or literal or "unknown"
    lines = [
        f"Received: from {name} ({literal})" if literal else f"Received: from {name}",
        f" by {_domain(trace.gate) or 'unknown'} with {_protocol(trace)}{_version(trace.tls)}{_id(trace.session_id)}",
        *_tls_clause(trace.tls),
    ]
    lines[-1] += ";"
    return "\r\n".join([*lines, f" {_date(trace.now)}", ""]).encode("ascii")


def _domain(name: str) -> str:
    """
    Return a Domain or address literal as it may stand in a trace line, "" for what is neither.
    """
    if _DOMAIN.fullmatch(name):
        return name
    if not (name.startswith("[") and name.endswith("]")) or "%" in name:
        return ""  # a zone is no part of an address literal, and may be any text
    tag, address = name[1:6], name[6:-1]
    try:
        return _literal(IPv6Address(address) if tag.upper() == "IPV6:" else IPv4Address(name[1:-1]))
    except AddressValueError:
        return ""


def _literal(address: IPv4Address | IPv6Address | None) -> str:
    """
    Return an address literal (RFC 5321 section 4.1.3).
    """
    if address is None:
        return ""
    if isinstance(address, IPv4Address):
        return f"[{address}]"
    return f"[{address.ipv4_mapped}]" if address.ipv4_mapped else f"[IPv6:{IPv6Address(int(address))}]"


def _protocol(trace: Trace) -> str:
    """
    Return the "with" protocol type (RFC 3848; RFC 6531 section 4.3 for SMTPUTF8).
    """
    if not trace.esmtp:
        return "SMTP"
    start = "UTF8SMTP" if trace.smtputf8 else "ESMTP"
    return start + ("S" if trace.tls is not None else "") + ("A" if trace.authenticated else "")


def _version(tls: TlsFacts | None) -> str:
    return f" ({tls.version})" if tls is not None and _VERSION.fullmatch(tls.version) else ""


def _id(session_id: str) -> str:
    return f" id {session_id}" if _ATOM.fullmatch(session_id) else ""


def _tls_clause(tls: TlsFacts | None) -> list[str]:
    """
    Return the "tls" clause (RFC 8314 section 4.3), on a line of its own; nothing for a suite without a registered name.
    """
    cipher = iana_cipher(tls.cipher) if tls is not None else ""
    if tls is None or not cipher:
        return []
    group = _iana_group(tls.group)
    return [f" tls {cipher} group {group}" if group else f" tls {cipher}"]


def iana_cipher(name: str) -> str:
    """
    Return the name in the IANA registry of the suite that OpenSSL calls *name*, "" if there is none we know of.
    """
    if _TLS13_CIPHER.fullmatch(name):
        return name  # TLS 1.3: the same names
    match = _CIPHER.fullmatch(name)
    exchange = _KEY_EXCHANGES.get(match["exchange"] or "") if match is not None else None
    if match is None or exchange is None:
        return ""
    if match["block"]:
        mode = "GCM" if match["mode"] else "CBC"
        return f"TLS_{exchange}_WITH_{match['block']}_{match['bits']}_{mode}_{match['digest']}"
    if match["ccm_bits"]:
        return f"TLS_{exchange}_WITH_AES_{match['ccm_bits']}_CCM" + ("_8" if match["short"] else "")
    stream = match["stream"]
    return f"TLS_{exchange}_WITH_{_STREAMS.get(stream) or stream.replace('-', '_')}"


def _iana_group(name: str) -> str:
    return _GROUPS.get(name, name) if _GROUP.fullmatch(name) else ""


def _date(now: datetime) -> str:
    """
    Return a date-time of RFC 5322 section 3.3, in English whatever the locale.
    """
    utc = now.astimezone(UTC)
    return f"{_DAYS[utc.weekday()]}, {utc.day} {_MONTHS[utc.month - 1]} {utc:%Y %H:%M:%S} +0000"
