"""
What both directions of the PROXY protocol share: the header as a value, the numbers on the wire, the checksum.
"""

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]

V1_START = b"PROXY "
V1_OCTETS_MAX = 107  # section 2.1: the longest line there can be, CRLF included

V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED_OCTETS = 16
V2_VERSION = 0x20  # the high half of the 13th octet
V2_LOCAL = 0x0
V2_PROXY = 0x1


class Family(IntEnum):
    """
    The high half of the 14th octet of a version 2 header: the address family.
    """

    UNSPEC = 0x0
    INET = 0x1
    INET6 = 0x2
    UNIX = 0x3


class Transport(IntEnum):
    """
    The low half of the 14th octet of a version 2 header.
    """

    UNSPEC = 0x0
    STREAM = 0x1
    DGRAM = 0x2


# Section 2.2: octets of source address, destination address and the two ports.
ADDRESS_BLOCK_OCTETS = {Family.UNSPEC: 0, Family.INET: 12, Family.INET6: 36, Family.UNIX: 216}


class Tlv(IntEnum):
    """
    Types of the type-length-value vectors behind the addresses (section 2.2, "PP2_TYPE_..." and "PP2_SUBTYPE_...").
    """

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23


class ProxyProtocolError(Exception):
    """
    What arrived is no PROXY header. *reason* is a short ASCII phrase that holds nothing of what was sent.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class ProxyHeader:
    """
    What a PROXY header says. Addresses are normalized: IPv4-mapped IPv6 is IPv4.

    *source* and *destination* are `None` where the header names no TCP endpoints (LOCAL, UNKNOWN, UNSPEC, UNIX): the
    endpoints of the connection itself then hold. *local*: the balancer speaks for itself, as in a health check.
    """

    version: int
    source: Endpoint | None = None
    destination: Endpoint | None = None
    local: bool = False


def normalized(address: Address) -> Address:
    """
    Return *address*, as IPv4 if it is IPv4-mapped IPv6, and without a zone: a network must match in either notation.
    """
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        remainder = octet
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """
    Return the CRC32c checksum of *data* (RFC 9260 appendix A; the Castagnoli polynomial, not that of `zlib.crc32`).
    """
    remainder = 0xFFFFFFFF
    for octet in data:
        remainder = remainder >> 8 ^ _CRC32C[(remainder ^ octet) & 0xFF]
    return remainder ^ 0xFFFFFFFF
