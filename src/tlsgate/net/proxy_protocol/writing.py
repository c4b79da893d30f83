"""
Write the PROXY header that tells a backend who the client is, and in version 2 what TLS the client came over.

No value of the client's can break out of version 2: every TLV carries its length. Version 1 holds nothing but numbers.
"""

import re
from ipaddress import IPv4Address, IPv6Address

from tlsgate.policy.facts import CertificateFacts, TlsFacts

from .values import (
    V2_LOCAL,
    V2_PROXY,
    V2_SIGNATURE,
    V2_VERSION,
    Address,
    Endpoint,
    Family,
    Tlv,
    Transport,
    normalized,
)

# Section 2.2.6, the <client> field.
CLIENT_SSL = 0x01
CLIENT_CERT_CONN = 0x02
CLIENT_CERT_SESS = 0x04

# Host names, protocol names, cipher names and common names (RFC 5280: ub-common-name 64) are all shorter. What is
# longer is left out: half a name is another name.
TLV_TEXT_OCTETS_MAX = 255

# One attribute of an RFC 4514 string, up to the "," or "+" that ends it.
_ATTRIBUTE = re.compile(r"\s*([A-Za-z0-9.-]+)=((?:\\.|[^\\,+])*)(?:[,+]|$)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{2})|([ \"#+,;<=>\\])|)")


def header_v1(source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """
    Return the version 1 header (section 2.1) for a client at *source* that connected to *destination*.

    Without both endpoints it is UNKNOWN: the backend then sees our own address. That is right for a connection we make
    on our own behalf, and never for a client's.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    family, source_address, destination_address = _same_family(source[0], destination[0])
    word = "TCP4" if family is Family.INET else "TCP6"
    line = f"PROXY {word} {_text(source_address)} {_text(destination_address)} {source[1]} {destination[1]}\r\n"
    return line.encode("ascii")


def header_v2(source: Endpoint | None, destination: Endpoint | None, tls: TlsFacts | None = None) -> bytes:
    """
    Return the version 2 header (section 2.2), with what *tls* says as TLVs.

    Without both endpoints it is LOCAL: a connection on our own behalf, never a client's.
    """
    if source is None or destination is None:
        return _v2(V2_LOCAL, 0, b"")
    family, source_address, destination_address = _same_family(source[0], destination[0])
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    block = source_address.packed + destination_address.packed + ports
    return _v2(V2_PROXY, family << 4 | Transport.STREAM, block + _tls_tlvs(tls))


def _v2(command: int, family: int, body: bytes) -> bytes:
    return V2_SIGNATURE + bytes((V2_VERSION | command, family)) + len(body).to_bytes(2, "big") + body


def _same_family(source: Address, destination: Address) -> tuple[Family, Address, Address]:
    """
    Return both addresses in one family, which is all a header can name: IPv4 if both are, else IPv6.
    """
    source, destination = normalized(source), normalized(destination)
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        return Family.INET, source, destination
    return Family.INET6, _as_ipv6(source), _as_ipv6(destination)


def _as_ipv6(address: Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(0xFFFF << 32 | int(address))


def _text(address: Address) -> str:
    # Python 3.13 writes a mapped address with dots; version 1 allows hexadecimal groups only.
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        low = int(address) & 0xFFFFFFFF
        return f"::ffff:{low >> 16:x}:{low & 0xFFFF:x}"
    return str(address)


def _tls_tlvs(tls: TlsFacts | None) -> bytes:
    if tls is None:
        return b""
    return _text_tlv(Tlv.ALPN, tls.alpn) + _text_tlv(Tlv.AUTHORITY, tls.sni) + _tlv(Tlv.SSL, _ssl(tls))


def _ssl(tls: TlsFacts) -> bytes:
    """
    Return the value of the SSL vector (section 2.2.6): <client>, <verify>, and the vectors inside.
    """
    certificate = tls.certificate
    client = CLIENT_SSL
    if certificate is not None:
        # A resumed session carries the certificate over; on this very connection none was shown.
        client |= CLIENT_CERT_SESS if tls.resumed else CLIENT_CERT_SESS | CLIENT_CERT_CONN
    verified = certificate is not None and not certificate.fault
    return b"".join(
        (
            bytes((client,)),
            (0 if verified else 1).to_bytes(4, "big"),
            _text_tlv(Tlv.SSL_VERSION, tls.version),
            _text_tlv(Tlv.SSL_CN, _common_name(certificate)),
            _text_tlv(Tlv.SSL_CIPHER, tls.cipher),
        )
    )


def _common_name(certificate: CertificateFacts | None) -> str:
    """
    Return the CN of a verified certificate, or "": a name nobody vouches for must not reach the backend's rules.

    The first CN of the RFC 4514 string counts, which is the last and most specific one of the certificate.
    """
    if certificate is None or certificate.fault:
        return ""
    subject = certificate.subject
    position = 0
    while attribute := _ATTRIBUTE.match(subject, position):
        position = attribute.end()
        if attribute[1].upper() == "CN":
            # Facts hold long subjects cut, with dots at the end; the name may be what was cut.
            cut = position == len(subject) and subject.endswith("...")
            return "" if cut else _unescaped(attribute[2])
    return ""


def _unescaped(value: str) -> str:
    """
    Undo the escapes of RFC 4514 section 2.4; hexadecimal pairs are octets of UTF-8. Return "" for what is no text.

    Any other escape was put in to make the subject printable, and does not say unambiguously what stood there.
    """
    octets = b""
    position = 0
    for escape in _ESCAPE.finditer(value):
        if escape[1] is None and escape[2] is None:
            return ""
        octets += value[position : escape.start()].encode("utf-8", "surrogatepass")
        octets += bytes.fromhex(escape[1]) if escape[1] else escape[2].encode()
        position = escape.end()
    try:
        return (octets + value[position:].encode("utf-8", "surrogatepass")).decode()
    except UnicodeDecodeError:
        return ""


def _text_tlv(kind: Tlv, text: str) -> bytes:
    value = text.encode("utf-8", "replace")
    # A backend written in C would take a NUL for the end of the name.
    return _tlv(kind, value) if text.isprintable() and 0 < len(value) <= TLV_TEXT_OCTETS_MAX else b""


def _tlv(kind: Tlv, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value
