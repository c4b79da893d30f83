"""
Read the PROXY header at the start of a connection, however it is cut.

Octets go in as they come; out comes the header once it is whole. What cannot become a header any more fails at the
first octet that shows it: a client that speaks SMTP or TLS where a balancer should is not kept waiting.

Strict on purpose. Whoever may send a header decides who a client is, so nothing is guessed, repaired or skipped that
the specification does not tell a receiver to skip.
"""

import re
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from attrs import define

from .values import (
    ADDRESS_BLOCK_OCTETS,
    V1_OCTETS_MAX,
    V1_START,
    V2_FIXED_OCTETS,
    V2_LOCAL,
    V2_PROXY,
    V2_SIGNATURE,
    V2_VERSION,
    Address,
    Endpoint,
    Family,
    ProxyHeader,
    ProxyProtocolError,
    Tlv,
    Transport,
    crc32c,
    normalized,
)

# Octets behind the fixed 16. Addresses take 216 at most; the rest are vectors, of which the largest we know of (AWS,
# Azure, a client certificate's names) stay under 1 KiB. The specification's own bound is 65535, but also "always
# smaller than an MSS". A connection costs us no more than this before it has said who it is.
V2_LENGTH_MAX = 4096

_V1_FAMILIES = (b"TCP4", b"TCP6", b"UNKNOWN")
_V1_ADDRESS_OCTETS = {b"TCP4": re.compile(rb"[0-9.]*"), b"TCP6": re.compile(rb"[0-9A-Fa-f:.]*")}
_V1_PORT_BEGINNING = re.compile(rb"0?|[1-9][0-9]{0,4}")  # no leading zeros
_V1_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_V1_FIELDS = 6

_NOT_A_HEADER = "the connection does not start with a PROXY header"
_WRONG_ADDRESS = "a wrong address in the version 1 line"
_WRONG_PORT = "a wrong port in the version 1 line"


class Part(Enum):
    """
    What the next octets are.
    """

    START = "the signature, of either version"
    V1_LINE = "the rest of a version 1 line"
    V2_FIXED = "the rest of the 16 octets every version 2 header has"
    V2_BODY = "addresses and vectors, as many octets as the header said"
    DONE = "no longer ours"


@define
class HeaderReader:
    """
    Reader of one PROXY header, version 1 or 2, whichever comes.

    *rest* holds the octets behind the header once `feed` has returned it.
    """

    rest: bytes = b""
    _part: Part = Part.START
    _held: bytes = b""
    _octets_wanted: int = 0

    def feed(self, data: bytes) -> ProxyHeader | None:
        """
        Return the header as soon as it is whole, or `None` while octets are missing.

        Octets that come later than the header are only added to *rest*.

        Raises:
            ProxyProtocolError: No octets to come could make this a header.
        """
        if self._part is Part.DONE:
            self.rest += data
            return None
        self._held += data
        if self._part is Part.START:
            self._start()
        if self._part is Part.V2_FIXED:
            self._v2_fixed()
        if self._part is Part.V1_LINE:
            return self._v1_line()
        if self._part is Part.V2_BODY and len(self._held) >= self._octets_wanted:
            return self._done(self._octets_wanted, _v2_header(self._held[: self._octets_wanted]))
        return None

    def _done(self, octets: int, header: ProxyHeader) -> ProxyHeader:
        self._part = Part.DONE
        self.rest = self._held[octets:]
        self._held = b""
        return header

    def _start(self) -> None:
        for signature, part in ((V1_START, Part.V1_LINE), (V2_SIGNATURE, Part.V2_FIXED)):
            if self._held.startswith(signature):
                self._part = part
                return
            if signature.startswith(self._held):
                return
        raise ProxyProtocolError(_NOT_A_HEADER)

    def _v1_line(self) -> ProxyHeader | None:
        window = self._held[:V1_OCTETS_MAX]
        end = window.find(b"\r\n")
        if end >= 0:
            line = window[:end]
            _check_v1_beginning(line)
            return self._done(end + 2, _v1_header(line.split(b" ")))
        if len(window) == V1_OCTETS_MAX:
            raise ProxyProtocolError("the version 1 line is longer than 107 octets")
        # A CR that came last may be the first half of CRLF.
        _check_v1_beginning(window.removesuffix(b"\r"))
        return None

    def _v2_fixed(self) -> None:
        fixed = self._held[:V2_FIXED_OCTETS]
        if len(fixed) > len(V2_SIGNATURE):
            _check_version_and_command(fixed[12])
        if len(fixed) > 13:
            _check_family(fixed[12], fixed[13])
        if len(fixed) < V2_FIXED_OCTETS:
            return
        length = int.from_bytes(fixed[14:16], "big")
        if length > V2_LENGTH_MAX:
            raise ProxyProtocolError(f"the version 2 header is longer than {V2_LENGTH_MAX} octets")
        if length < _address_block_octets(fixed):
            raise ProxyProtocolError("the version 2 header is too short for its addresses")
        self._octets_wanted = V2_FIXED_OCTETS + length
        self._part = Part.V2_BODY


def _check_v1_beginning(line: bytes) -> None:
    """
    Check that *line* is the beginning of a version 1 line, or the whole of one without its CRLF.
    """
    if _V1_CONTROLS.search(line):
        raise ProxyProtocolError("a control character in the version 1 line")
    _, family, *fields = line.split(b" ")
    if family == b"UNKNOWN":
        return  # section 2.1: whatever stands between UNKNOWN and CRLF is ignored
    if family not in _V1_ADDRESS_OCTETS and (fields or not any(known.startswith(family) for known in _V1_FAMILIES)):
        raise ProxyProtocolError("an unknown family in the version 1 line")
    if len(fields) > _V1_FIELDS - 2:
        raise ProxyProtocolError("too many fields in the version 1 line")
    _check_v1_fields(family, fields)


def _check_v1_fields(family: bytes, fields: list[bytes]) -> None:
    """
    Check addresses and ports as far as they are there: the last field may still grow, those before it are whole.
    """
    for position, field in enumerate(fields):
        whole = position + 1 < len(fields)
        if position < 2:
            if not _V1_ADDRESS_OCTETS[family].fullmatch(field):
                raise ProxyProtocolError(_WRONG_ADDRESS)
            if whole:
                _v1_address(family, field)
        else:
            if not _V1_PORT_BEGINNING.fullmatch(field):
                raise ProxyProtocolError(_WRONG_PORT)
            if whole:
                _v1_port(field)


def _v1_header(fields: list[bytes]) -> ProxyHeader:
    """
    Return what a line says that `_check_v1_beginning` let through.
    """
    if fields[1] == b"UNKNOWN":
        return ProxyHeader(version=1)
    if len(fields) != _V1_FIELDS:
        raise ProxyProtocolError("too few fields in the version 1 line")
    _, family, source, destination, source_port, destination_port = fields
    return ProxyHeader(
        version=1,
        source=(_v1_address(family, source), _v1_port(source_port)),
        destination=(_v1_address(family, destination), _v1_port(destination_port)),
    )


def _v1_address(family: bytes, field: bytes) -> Address:
    # The two classes refuse leading zeros and anything but the full dotted quad, as section 2.1 does.
    kind = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        return normalized(kind(field.decode("ascii")))
    except AddressValueError:
        raise ProxyProtocolError(_WRONG_ADDRESS) from None


def _v1_port(field: bytes) -> int:
    if not field or int(field) > 0xFFFF:
        raise ProxyProtocolError(_WRONG_PORT)
    return int(field)


def _check_version_and_command(octet: int) -> None:
    if octet & 0xF0 != V2_VERSION:
        raise ProxyProtocolError("neither version 1 nor version 2")
    if octet & 0x0F not in (V2_LOCAL, V2_PROXY):
        raise ProxyProtocolError("an unknown version 2 command")


def _check_family(command: int, octet: int) -> None:
    if command & 0x0F == V2_LOCAL:
        return  # section 2.2: discarded, "including the family which is ignored"
    if octet >> 4 > max(Family) or octet & 0x0F > max(Transport):
        raise ProxyProtocolError("an unknown version 2 family or transport")


def _names_endpoints(fixed: bytes) -> bool:
    """
    Whether a version 2 header holds addresses we use: those of a TCP connection relayed for somebody else.
    """
    tcp = (Family.INET << 4 | Transport.STREAM, Family.INET6 << 4 | Transport.STREAM)
    return fixed[12] & 0x0F == V2_PROXY and fixed[13] in tcp


def _address_block_octets(fixed: bytes) -> int:
    if fixed[12] & 0x0F == V2_LOCAL or fixed[13] & 0x0F == Transport.UNSPEC:
        return 0
    return ADDRESS_BLOCK_OCTETS[Family(fixed[13] >> 4)]


def _v2_header(header: bytes) -> ProxyHeader:
    """
    Return what a whole version 2 header says.

    Vectors are walked only where the addresses count: of LOCAL and UNSPEC a receiver uses nothing, and is told to
    discard the block without looking.
    """
    if not _names_endpoints(header):
        return ProxyHeader(version=2, local=header[12] & 0x0F == V2_LOCAL)
    size = 4 if header[13] >> 4 == Family.INET else 16
    source, destination = header[16 : 16 + size], header[16 + size : 16 + 2 * size]
    ports = header[16 + 2 * size : 20 + 2 * size]
    _check_vectors(header, 20 + 2 * size)
    return ProxyHeader(
        version=2,
        source=_v2_endpoint(source, ports[:2]),
        destination=_v2_endpoint(destination, ports[2:]),
    )


def _v2_endpoint(address: bytes, port: bytes) -> Endpoint:
    kind = IPv4Address if len(address) == 4 else IPv6Address
    return normalized(kind(address)), int.from_bytes(port, "big")


def _check_vectors(header: bytes, position: int) -> None:
    """
    Check that the vectors fill the header exactly, and the checksum if there is one (section 2.2.3).
    """
    checked = False
    while position < len(header):
        value = position + 3
        end = value + int.from_bytes(header[position + 1 : value], "big")
        if value > len(header) or end > len(header):
            raise ProxyProtocolError("a version 2 vector reaches beyond the header")
        if header[position] == Tlv.CRC32C:
            if checked or end - value != 4:
                raise ProxyProtocolError("a malformed checksum in the version 2 header")
            if int.from_bytes(header[value:end], "big") != crc32c(header[:value] + bytes(4) + header[end:]):
                raise ProxyProtocolError("the checksum of the version 2 header is wrong")
            checked = True
        position = end
