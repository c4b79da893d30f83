"""
The PROXY protocol: every header we accept, every cut of it, and everything we must not take for one.
"""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.net.proxy_protocol import (
    Endpoint,
    HeaderReader,
    ProxyHeader,
    ProxyProtocolError,
    header_v1,
    header_v2,
    normalized,
)
from tlsgate.net.proxy_protocol.values import V1_OCTETS_MAX, V2_SIGNATURE, crc32c
from tlsgate.policy.facts import CertificateFacts, TlsFacts

V4: Endpoint = (IPv4Address("192.0.2.7"), 40001)
V4_HERE: Endpoint = (IPv4Address("198.51.100.1"), 25)
V6: Endpoint = (IPv6Address("2001:db8::7"), 40001)
V6_HERE: Endpoint = (IPv6Address("2001:db8::1"), 25)
V4_BLOCK = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + b"\x9c\x41\x00\x19"
V6_BLOCK = V6[0].packed + V6_HERE[0].packed + b"\x9c\x41\x00\x19"
FIRST_COMMAND = b"EHLO client.example\r\n"


def v2(command: int, family: int, body: bytes = b"", length: int | None = None) -> bytes:
    octets = len(body) if length is None else length
    return V2_SIGNATURE + bytes((command, family)) + octets.to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def with_checksum(family: int, block: bytes, behind: bytes = b"") -> bytes:
    header = bytearray(v2(0x21, family, block + tlv(0x03, bytes(4)) + behind))
    position = 16 + len(block) + 3
    header[position : position + 4] = crc32c(bytes(header)).to_bytes(4, "big")
    return bytes(header)


def plain(version: int, *, local: bool = False) -> ProxyHeader:
    return ProxyHeader(version=version, local=local)


GOOD: dict[str, tuple[bytes, ProxyHeader]] = {
    "v1 TCP4": (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\r\n",
        ProxyHeader(version=1, source=V4, destination=V4_HERE),
    ),
    "v1 TCP6": (
        b"PROXY TCP6 2001:db8::7 2001:db8::1 40001 25\r\n",
        ProxyHeader(version=1, source=V6, destination=V6_HERE),
    ),
    "v1 TCP6 upper case, in full": (
        b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 2001:DB8::1 40001 25\r\n",
        ProxyHeader(version=1, source=V6, destination=V6_HERE),
    ),
    "v1 TCP6 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c633:6401 40001 25\r\n",
        ProxyHeader(version=1, source=V4, destination=V4_HERE),
    ),
    "v1 least and greatest port": (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n",
        ProxyHeader(version=1, source=(V4[0], 0), destination=(V4_HERE[0], 65535)),
    ),
    "v1 the longest line": (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        ProxyHeader(
            version=1,
            source=(IPv6Address("ffff:" * 7 + "ffff"), 65535),
            destination=(IPv6Address("ffff:" * 7 + "ffff"), 65535),
        ),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", plain(1)),
    "v1 UNKNOWN with anything": (b"PROXY UNKNOWN ffff::1  x y z\xff 99999999\r\n", plain(1)),
    "v1 UNKNOWN, 107 octets": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", plain(1)),
    "v2 TCP4": (v2(0x21, 0x11, V4_BLOCK), ProxyHeader(version=2, source=V4, destination=V4_HERE)),
    "v2 TCP6": (v2(0x21, 0x21, V6_BLOCK), ProxyHeader(version=2, source=V6, destination=V6_HERE)),
    "v2 TCP6 mapped": (
        v2(
            0x21,
            0x21,
            bytes(10) + b"\xff\xff" + V4[0].packed + bytes(10) + b"\xff\xff" + V4_HERE[0].packed + V4_BLOCK[8:],
        ),
        ProxyHeader(version=2, source=V4, destination=V4_HERE),
    ),
    "v2 UNIX": (v2(0x21, 0x31, bytes(216)), plain(2)),
    "v2 datagrams name no session": (v2(0x21, 0x12, V4_BLOCK), plain(2)),
    "v2 UNSPEC": (v2(0x21, 0x00), plain(2)),
    "v2 UNSPEC with a block": (v2(0x21, 0x00, b"\x01\xff\xff"), plain(2)),
    "v2 UNSPEC transport": (v2(0x21, 0x10), plain(2)),
    "v2 LOCAL": (v2(0x20, 0x00), plain(2, local=True)),
    "v2 LOCAL with addresses": (v2(0x20, 0x11, V4_BLOCK), plain(2, local=True)),
    "v2 LOCAL, family ignored": (v2(0x20, 0xFF, b"junk"), plain(2, local=True)),
    "v2 with vectors": (
        v2(0x21, 0x11, V4_BLOCK + tlv(0x01, b"smtp") + tlv(0x04, b"") + tlv(0xE0, b"x" * 300)),
        ProxyHeader(version=2, source=V4, destination=V4_HERE),
    ),
    "v2 TCP4 with a checksum": (with_checksum(0x11, V4_BLOCK), ProxyHeader(version=2, source=V4, destination=V4_HERE)),
    "v2 TCP6 with a checksum": (
        with_checksum(0x21, V6_BLOCK, tlv(0x05, b"id")),
        ProxyHeader(version=2, source=V6, destination=V6_HERE),
    ),
    "v2 as long as we allow": (
        v2(0x21, 0x11, V4_BLOCK + tlv(0x04, bytes(4096 - 12 - 3))),
        ProxyHeader(version=2, source=V4, destination=V4_HERE),
    ),
}


@pytest.fixture(params=GOOD, ids=str)
def good(request: pytest.FixtureRequest) -> tuple[bytes, ProxyHeader]:
    return GOOD[request.param]


def read(*parts: bytes) -> tuple[ProxyHeader | None, bytes]:
    """
    Feed *parts*; the header must be returned once, by the part that completes it.
    """
    reader = HeaderReader()
    headers = [header for part in parts if (header := reader.feed(part)) is not None]
    assert len(headers) <= 1
    return (headers[0] if headers else None), reader.rest


@pytest.mark.parametrize("behind", [b"", FIRST_COMMAND, b"\r\n", V2_SIGNATURE], ids=repr)
def test_a_header_is_understood_and_what_follows_is_kept(good: tuple[bytes, ProxyHeader], behind: bytes) -> None:
    octets, header = good
    assert read(octets + behind) == (header, behind)


@pytest.mark.parametrize("behind", [b"", FIRST_COMMAND], ids=["alone", "with a command"])
def test_every_cut_in_two(good: tuple[bytes, ProxyHeader], behind: bytes) -> None:
    octets, header = good
    for cut in range(len(octets) + len(behind) + 1):
        whole = octets + behind
        assert read(whole[:cut], whole[cut:]) == (header, behind), f"cut at {cut}"


def test_octet_by_octet(good: tuple[bytes, ProxyHeader]) -> None:
    octets, header = good
    reader = HeaderReader()
    for position, octet in enumerate(octets):
        expected = header if position == len(octets) - 1 else None
        assert reader.feed(bytes((octet,))) == expected, f"after {position + 1} octets"
    assert reader.rest == b""


def test_empty_reads_change_nothing(good: tuple[bytes, ProxyHeader]) -> None:
    octets, header = good
    assert read(b"", octets[:3], b"", octets[3:], b"") == (header, b"")


def test_octets_that_come_after_the_header_are_the_sessions() -> None:
    assert read(GOOD["v1 TCP4"][0] + b"EH", b"LO") == (GOOD["v1 TCP4"][1], b"EHLO")


# What is wrong -> how many octets must be enough to know it.
NOT_A_HEADER = {
    b"EHLO client.example\r\n": 1,
    b"\x16\x03\x01\x02\x00\x01": 1,
    b"GET / HTTP/1.1\r\n": 1,
    b"QUIT\r\n": 1,
    b"proxy TCP4 192.0.2.7 198.51.100.1 40001 25\r\n": 1,
    b" PROXY": 1,
    b"PROXZ": 5,
    b"PROXY\tTCP4": 6,
    b"PROXY\r\n": 6,
    b"\nPROXY": 1,
    b"\r\n\r\nPROXY": 5,
    b"\r\n\r\n\0\r\nQUIT\r": 12,
    # version 1
    b"PROXY  TCP4": 7,
    b"PROXY TCP5 ": 10,
    b"PROXY tcp4 ": 7,
    b"PROXY TCP4X": 11,
    b"PROXY TCP ": 10,
    b"PROXY UNKNOWNX": 14,
    b"PROXY UNKNOWN\n": 14,
    b"PROXY UNKNOWN \0\r\n": 15,
    b"PROXY UNKNOWN\rX": 15,
    b"PROXY UNKNOWN\r\r\n": 15,
    b"PROXY TCP4\r\n": 12,
    b"PROXY TCP4 \r\n": 13,
    b"PROXY \r\n": 8,
    b"PROXY TCP4  198": 12,
    b"PROXY TCP4 192.0.2.7\r\n": 22,
    b"PROXY TCP4 192.0.2.7,": 21,
    b"PROXY TCP4 192.0.2 ": 19,
    b"PROXY TCP4 192.0.2.07 ": 22,
    b"PROXY TCP4 192.0.2.256 ": 23,
    b"PROXY TCP4 3232235777 ": 22,
    b"PROXY TCP4 0xC0000207 ": 13,
    b"PROXY TCP4 localhost": 12,
    b"PROXY TCP4 2001:db8::7 ": 16,
    b"PROXY TCP4 192.0.2.7 2001:db8::1 40001 25\r\n": 26,
    b"PROXY TCP6 192.0.2.7 ": 21,
    b"PROXY TCP6 2001:db8::7%eth0 ": 23,
    b"PROXY TCP6 2001:db8::7::1 ": 26,
    b"PROXY TCP6 [2001:db8::7] ": 12,
    b"PROXY TCP6 2001:db8::00007 ": 27,
    b"PROXY TCP4 192.0.2.7 198.51.100.1  25": 35,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 \r\n": 36,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001\r\n": 41,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 \r\n": 42,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 04001": 36,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 00": 36,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 +1": 35,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1": 35,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 ": 40,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 400011 ": 40,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 65536\r\n": 47,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25 ": 43,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\n": 43,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\rX": 44,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\0": 43,
    "PROXY TCP4 192.0.2.7 198.51.100.1 ٣".encode(): 35,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n": V1_OCTETS_MAX,
    # version 2
    v2(0x11, 0x11, V4_BLOCK): 13,
    v2(0x31, 0x11, V4_BLOCK): 13,
    v2(0x01, 0x11, V4_BLOCK): 13,
    v2(0x22, 0x11, V4_BLOCK): 13,
    v2(0x2F, 0x11, V4_BLOCK): 13,
    v2(0x21, 0x41, V4_BLOCK): 14,
    v2(0x21, 0x13, V4_BLOCK): 14,
    v2(0x21, 0xFF, V4_BLOCK): 14,
    v2(0x21, 0x11, V4_BLOCK, length=11): 16,
    v2(0x21, 0x12, V4_BLOCK, length=0): 16,
    v2(0x21, 0x21, V6_BLOCK, length=35): 16,
    v2(0x21, 0x31, bytes(216), length=215): 16,
    v2(0x21, 0x11, V4_BLOCK, length=4097): 16,
    v2(0x20, 0x00, b"", length=65535): 16,
    v2(0x21, 0x11, V4_BLOCK + b"\x04"): 29,
    v2(0x21, 0x11, V4_BLOCK + b"\x04\x00"): 30,
    v2(0x21, 0x11, V4_BLOCK + b"\x04\x00\x01"): 31,
    v2(0x21, 0x21, V6_BLOCK + tlv(0x01, b"smtp") + b"\x04\xff\xff"): 62,
    v2(0x21, 0x11, V4_BLOCK + tlv(0x03, b"\0\0\0")): 34,
    v2(0x21, 0x11, V4_BLOCK + tlv(0x03, b"\0\0\0\0\0")): 36,
    v2(0x21, 0x11, V4_BLOCK + tlv(0x03, b"\0\0\0\0")): 35,
}


@pytest.mark.parametrize("octets", NOT_A_HEADER, ids=lambda octets: repr(octets)[:70])
def test_what_is_no_header_fails_at_the_first_octet_that_shows_it(octets: bytes) -> None:
    """
    Not one octet earlier, or a header could be refused; not one later, or a client waits for a timeout.
    """
    enough = NOT_A_HEADER[octets]
    reader = HeaderReader()
    for position in range(enough - 1):
        assert reader.feed(octets[position : position + 1]) is None
    with pytest.raises(ProxyProtocolError):
        reader.feed(octets[enough - 1 : enough])
    with pytest.raises(ProxyProtocolError):
        HeaderReader().feed(octets)


@pytest.mark.parametrize("octets", [b"", b"P", b"PROX", b"PROXY", b"\r", b"\r\n\r\n\0", V2_SIGNATURE], ids=repr)
def test_an_ambiguous_beginning_waits(octets: bytes) -> None:
    assert read(octets) == (None, b"")


def test_a_checksum_guards_every_octet() -> None:
    header = with_checksum(0x11, V4_BLOCK, tlv(0x01, b"smtp"))
    for position in range(16, 28):
        broken = bytearray(header)
        broken[position] ^= 1
        with pytest.raises(ProxyProtocolError, match="checksum"):
            HeaderReader().feed(bytes(broken))


def test_two_checksums_are_one_too_many() -> None:
    header = with_checksum(0x11, V4_BLOCK, tlv(0x03, bytes(4)))
    with pytest.raises(ProxyProtocolError, match="checksum"):
        HeaderReader().feed(header)


def test_the_checksum_is_castagnolis() -> None:
    """
    The check value every catalogue of CRCs gives, and the first of RFC 3720 appendix B.4.
    """
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_an_error_repeats_nothing_that_was_sent() -> None:
    with pytest.raises(ProxyProtocolError) as caught:
        HeaderReader().feed(b"PROXY TCP4 secret.example ")
    assert "secret" not in caught.value.reason
    assert str(caught.value) == caught.value.reason


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_octets_raise_anything_else(parts: list[bytes]) -> None:
    feed_all(parts)


@given(
    st.sampled_from(
        [V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11", V2_SIGNATURE + b"\x20", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 "]
    ),
    st.binary(max_size=300),
    st.integers(0, 300),
)
def test_nor_do_octets_behind_a_good_beginning(start: bytes, octets: bytes, cut: int) -> None:
    feed_all([start + octets[:cut], octets[cut:]])


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 400), st.integers(0, 255))
def test_nor_does_one_wrong_octet(name: str, position: int, octet: int) -> None:
    header = bytearray(GOOD[name][0])
    header[position % len(header)] = octet
    feed_all([bytes(header)])


def feed_all(parts: list[bytes]) -> None:
    reader = HeaderReader()
    with suppress(ProxyProtocolError):
        for part in parts:
            reader.feed(part)


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
endpoints = st.tuples(addresses, st.integers(0, 65535))
texts = st.text(max_size=300)
facts = st.none() | st.builds(
    TlsFacts,
    version=texts,
    cipher=texts,
    bits=st.just(128),
    sni=texts,
    alpn=texts,
    resumed=st.booleans(),
    certificate=st.none()
    | st.builds(
        CertificateFacts,
        subject=texts,
        dns_names=st.just(()),
        ip_addresses=st.just(()),
        certificate_sha256=st.just(""),
        public_key_sha256=st.just(""),
        fault=st.sampled_from(["", "certificate has expired"]),
    ),
)


@given(endpoints, endpoints, facts, st.integers(0, 1500))
def test_what_we_write_is_what_we_read_in_version_2(
    source: Endpoint, destination: Endpoint, tls: TlsFacts | None, cut: int
) -> None:
    whole = header_v2(source, destination, tls) + FIRST_COMMAND
    header, rest = read(whole[:cut], whole[cut:])
    assert rest == FIRST_COMMAND
    assert header == expected(2, source, destination)


@given(endpoints, endpoints, st.integers(0, 120))
def test_what_we_write_is_what_we_read_in_version_1(source: Endpoint, destination: Endpoint, cut: int) -> None:
    whole = header_v1(source, destination)
    assert len(whole) <= V1_OCTETS_MAX
    assert read(whole[:cut], whole[cut:]) == (expected(1, source, destination), b"")


def expected(version: int, source: Endpoint, destination: Endpoint) -> ProxyHeader:
    return ProxyHeader(
        version=version,
        source=(normalized(source[0]), source[1]),
        destination=(normalized(destination[0]), destination[1]),
    )


class TestWriting:
    MAPPED: Endpoint = (IPv6Address("::ffff:192.0.2.7"), 40001)
    MAPPED_HERE: Endpoint = (IPv6Address("::ffff:198.51.100.1"), 25)

    @pytest.mark.parametrize(
        ("source", "destination", "line"),
        [
            (V4, V4_HERE, b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\r\n"),
            (V6, V6_HERE, b"PROXY TCP6 2001:db8::7 2001:db8::1 40001 25\r\n"),
            (MAPPED, MAPPED_HERE, b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\r\n"),
            (V4, MAPPED_HERE, b"PROXY TCP4 192.0.2.7 198.51.100.1 40001 25\r\n"),
            (V4, V6_HERE, b"PROXY TCP6 ::ffff:c000:207 2001:db8::1 40001 25\r\n"),
            (V6, V4_HERE, b"PROXY TCP6 2001:db8::7 ::ffff:c633:6401 40001 25\r\n"),
            (None, V4_HERE, b"PROXY UNKNOWN\r\n"),
            (V4, None, b"PROXY UNKNOWN\r\n"),
        ],
        ids=str,
    )
    def test_version_1(self, source: Endpoint | None, destination: Endpoint | None, line: bytes) -> None:
        assert header_v1(source, destination) == line

    @pytest.mark.parametrize(
        ("source", "destination", "octets"),
        [
            (V4, V4_HERE, v2(0x21, 0x11, V4_BLOCK)),
            (V6, V6_HERE, v2(0x21, 0x21, V6_BLOCK)),
            (MAPPED, MAPPED_HERE, v2(0x21, 0x11, V4_BLOCK)),
            (V4, V6_HERE, v2(0x21, 0x21, bytes(10) + b"\xff\xff" + V4[0].packed + V6_HERE[0].packed + V4_BLOCK[8:])),
            (None, None, v2(0x20, 0x00)),
        ],
        ids=str,
    )
    def test_version_2(self, source: Endpoint | None, destination: Endpoint | None, octets: bytes) -> None:
        assert header_v2(source, destination) == octets

    def test_a_zone_is_left_out(self) -> None:
        """
        A zone means something on one machine only, and is no part of what a header can say.
        """
        source: Endpoint = (IPv6Address("fe80::7%eth0"), 40001)
        assert header_v1(source, V6_HERE).startswith(b"PROXY TCP6 fe80::7 ")
        assert normalized(source[0]) == IPv6Address("fe80::7")


class TestVectors:
    """
    What a backend learns of the client's TLS (section 2.2).
    """

    VERIFIED = CertificateFacts("CN=mail.partner.example,O=Partner\\, Ltd", (), (), "00", "00")

    def vectors(self, tls: TlsFacts) -> dict[int, bytes]:
        header = header_v2(V4, V4_HERE, tls)
        return dict(split(header[16 + 12 :]))

    def ssl(self, tls: TlsFacts) -> tuple[int, int, dict[int, bytes]]:
        value = self.vectors(tls)[0x20]
        return value[0], int.from_bytes(value[1:5], "big"), dict(split(value[5:]))

    def test_no_tls_no_vectors(self) -> None:
        assert header_v2(V4, V4_HERE, None) == v2(0x21, 0x11, V4_BLOCK)

    def test_alpn_and_sni(self) -> None:
        tls = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, sni="mx.example", alpn="smtp")
        vectors = self.vectors(tls)
        assert vectors[0x01] == b"smtp"
        assert vectors[0x02] == b"mx.example"

    def test_without_alpn_and_sni(self) -> None:
        assert set(self.vectors(TlsFacts("TLSv1.2", "AES128-SHA", 128))) == {0x20}

    def test_version_and_cipher(self) -> None:
        client, verify, inside = self.ssl(TlsFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128))
        assert (client, verify) == (0x01, 1)
        assert inside == {0x21: b"TLSv1.2", 0x23: b"ECDHE-RSA-AES128-GCM-SHA256"}

    def test_a_verified_certificate(self) -> None:
        client, verify, inside = self.ssl(TlsFacts("TLSv1.3", "X", 128, certificate=self.VERIFIED))
        assert (client, verify) == (0x07, 0)
        assert inside[0x22] == b"mail.partner.example"

    def test_a_resumed_session_showed_no_certificate_on_this_connection(self) -> None:
        client, verify, inside = self.ssl(TlsFacts("TLSv1.3", "X", 128, resumed=True, certificate=self.VERIFIED))
        assert (client, verify) == (0x05, 0)
        assert inside[0x22] == b"mail.partner.example"

    def test_an_unverified_certificate_gives_no_name(self) -> None:
        """
        A backend that lets a certificate name relay must never see one that nobody vouches for.
        """
        certificate = CertificateFacts("CN=mail.partner.example", (), (), "00", "00", fault="self-signed certificate")
        client, verify, inside = self.ssl(TlsFacts("TLSv1.3", "X", 128, certificate=certificate))
        assert (client, verify) == (0x07, 1)
        assert 0x22 not in inside

    @pytest.mark.parametrize(
        ("subject", "name"),
        [
            ("CN=a.example", b"a.example"),
            ("cn=a.example", b"a.example"),
            ("O=Partner,CN=a.example", b"a.example"),
            ("O=Partner+CN=a.example,C=DE", b"a.example"),
            ("CN=a.example,CN=b.example", b"a.example"),
            ("O=x\\,CN=evil.example", None),
            ("O=x\\\\,CN=a.example", b"a.example"),
            ("OU=CN\\=evil.example", None),
            ("CN=a\\, b", b"a, b"),
            ("CN=caf\\c3\\a9.example", "café.example".encode()),
            ("CN=café.example", "café.example".encode()),
            ("CN=evil.example\\00.partner.example", None),
            ("CN=\\ff\\fe", None),
            ("CN=caf\\xe9.example", None),
            ("CN=caf\\u00e9.example", None),
            ("CN=a\\nb", None),
            ("CN=a\\\\xe9", b"a\\xe9"),
            ("CN=a.example,O=" + "x" * 238 + "...", b"a.example"),
            ("O=Partner,CN=" + "x" * 40 + "...", None),
            ("CN=", None),
            ("O=Partner", None),
            ("", None),
            ("no attribute at all", None),
            ("CN=" + "a" * 256, None),
        ],
    )
    def test_the_common_name(self, subject: str, name: bytes | None) -> None:
        certificate = CertificateFacts(subject, (), (), "00", "00")
        _, _, inside = self.ssl(TlsFacts("TLSv1.3", "X", 128, certificate=certificate))
        assert inside.get(0x22) == name

    @pytest.mark.parametrize("sni", ["x" * 256, "evil.example\0.example", "a\r\nb", "\ud800"], ids=repr)
    def test_a_hostile_sni_is_left_out(self, sni: str) -> None:
        assert set(self.vectors(TlsFacts("TLSv1.3", "X", 128, sni=sni))) == {0x20}


def split(octets: bytes) -> list[tuple[int, bytes]]:
    """
    Return the vectors in *octets*, which they fill exactly.
    """
    found = []
    while octets:
        length = int.from_bytes(octets[1:3], "big")
        assert len(octets) >= 3 + length
        found.append((octets[0], octets[3 : 3 + length]))
        octets = octets[3 + length :]
    return found
