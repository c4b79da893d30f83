"""
The Received field: what RFC 5321 section 4.4 asks for, and nothing that a client could write into it.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.policy.facts import TlsFacts
from tlsgate.session.trace import Trace, iana_cipher, received_line

NOW = datetime(2026, 1, 1, 9, 5, 7, tzinfo=UTC)
TLS = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, group="x25519")
TRACE = Trace(
    gate="mx.example",
    helo="client.example",
    client=IPv4Address("192.0.2.7"),
    session_id="7f3a9c",
    now=NOW,
    tls=TLS,
)

# The whole grammar of what we write.
DOMAIN = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}|\[(?:IPv6:)?[0-9a-f:.]+\])"
FIELD = re.compile(
    rf"Received: from {DOMAIN}(?: \(\[(?:IPv6:)?[0-9a-f:.]+\]\))?\r\n"
    rf" by {DOMAIN} with (?:SMTP|(?:ESMTP|UTF8SMTP)S?A?)(?: \(TLSv1(?:\.\d)?\))?(?: id [A-Za-z0-9_-]+)?"
    r"(?:\r\n tls TLS_[A-Za-z0-9_]+(?: group [A-Za-z][A-Za-z0-9_-]*)?)?;\r\n"
    r" (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d? [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)


def text(trace: Trace) -> str:
    line = received_line(trace).decode("ascii")
    assert FIELD.fullmatch(line), line
    assert all(len(part) <= 998 for part in line.split("\r\n"))
    return line


def test_the_whole_field() -> None:
    """
    8314-05: the cipher suite by its IANA name, in a "tls" clause.
    """
    assert received_line(TRACE) == (
        b"Received: from client.example ([192.0.2.7])\r\n"
        b" by mx.example with ESMTPS (TLSv1.3) id 7f3a9c\r\n"
        b" tls TLS_AES_128_GCM_SHA256 group x25519;\r\n"
        b" Thu, 1 Jan 2026 09:05:07 +0000\r\n"
    )


def test_without_tls() -> None:
    assert received_line(evolve(TRACE, tls=None)) == (
        b"Received: from client.example ([192.0.2.7])\r\n"
        b" by mx.example with ESMTP id 7f3a9c;\r\n"
        b" Thu, 1 Jan 2026 09:05:07 +0000\r\n"
    )


@pytest.mark.parametrize("tls", [None, TLS], ids=["plaintext", "TLS"])
@pytest.mark.parametrize("authenticated", [False, True], ids=["", "AUTH"])
@pytest.mark.parametrize(
    ("esmtp", "smtputf8"), [(False, False), (True, False), (True, True)], ids=["HELO", "EHLO", "SMTPUTF8"]
)
def test_the_protocol_types_of_rfc_3848(
    tls: TlsFacts | None, *, authenticated: bool, esmtp: bool, smtputf8: bool
) -> None:
    """3848-01: S for TLS, A for AUTH, and what RFC 6531 makes of them."""
    expected = {
        (False, False): "SMTP",
        (True, False): "ESMTP",
        (True, True): "UTF8SMTP",
    }[esmtp, smtputf8]
    if esmtp:
        expected += ("S" if tls else "") + ("A" if authenticated else "")
    trace = evolve(TRACE, tls=tls, authenticated=authenticated, esmtp=esmtp, smtputf8=smtputf8)
    assert re.search(r" with (\S+)", text(trace).replace(";", " "))[1] == expected  # type: ignore[index]


@pytest.mark.parametrize(
    ("helo", "written"),
    [
        ("client.example", "client.example"),
        ("localhost", "localhost"),
        ("my_host.example", "my_host.example"),
        ("3com.example", "3com.example"),
        ("[192.0.2.9]", "[192.0.2.9]"),
        ("[IPv6:2001:DB8::9]", "[IPv6:2001:db8::9]"),
        ("[ipv6:2001:db8::9]", "[IPv6:2001:db8::9]"),
        ("[IPv6:::ffff:192.0.2.9]", "[192.0.2.9]"),
        ("[IPv6:fe80::1%a) evil]", "[192.0.2.7]"),
        ("[2001:db8::9]", "[192.0.2.7]"),
        ("[192.0.2.999]", "[192.0.2.7]"),
        ("[]", "[192.0.2.7]"),
        ("[", "[192.0.2.7]"),
        ("", "[192.0.2.7]"),
        ("a b", "[192.0.2.7]"),
        ("a..example", "[192.0.2.7]"),
        (".", "[192.0.2.7]"),
        ("-a.example", "[192.0.2.7]"),
        ("a.example.", "[192.0.2.7]"),
        ("bücher.example", "[192.0.2.7]"),
        ("a.example\r\nSubject: evil", "[192.0.2.7]"),
        ("a.example\n", "[192.0.2.7]"),
        ("a.example\0", "[192.0.2.7]"),
        ("a.example (evil", "[192.0.2.7]"),
        ("a.example;Thu", "[192.0.2.7]"),
        ("x" * 64 + ".example", "[192.0.2.7]"),
        ("x." * 128 + "xx", "[192.0.2.7]"),
        ("x." * 127 + "x", "x." * 127 + "x"),
        ("\ud800", "[192.0.2.7]"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_name_is_well_formed_or_the_address_stands_in_its_place(helo: str, written: str) -> None:
    assert text(evolve(TRACE, helo=helo)).startswith(f"Received: from {written} ([192.0.2.7])\r\n")


@pytest.mark.parametrize(
    ("client", "written"),
    [
        ("192.0.2.7", "client.example ([192.0.2.7])"),
        ("2001:db8::7", "client.example ([IPv6:2001:db8::7])"),
        ("::ffff:192.0.2.7", "client.example ([192.0.2.7])"),
        ("fe80::7%eth0", "client.example ([IPv6:fe80::7])"),
        (None, "client.example"),
    ],
)
def test_the_address_is_the_one_of_the_connection(client: str | None, written: str) -> None:
    trace = evolve(TRACE, client=None if client is None else ip_address(client))
    assert text(trace).startswith(f"Received: from {written}\r\n")


def test_a_client_of_which_nothing_is_known() -> None:
    assert text(evolve(TRACE, client=None, helo="?")).startswith("Received: from unknown\r\n")


@pytest.mark.parametrize("session_id", ["", "a b", "a;b", "a\r\nb", "x" * 65, "<a@b>"], ids=repr)
def test_an_id_that_is_no_atom_is_left_out(session_id: str) -> None:
    assert " id " not in text(evolve(TRACE, session_id=session_id))


@pytest.mark.parametrize(
    ("now", "written"),
    [
        (NOW, "Thu, 1 Jan 2026 09:05:07 +0000"),
        (datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC), "Thu, 29 Feb 2024 23:59:59 +0000"),
        (datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), "Wed, 31 Dec 2025 23:30:00 +0000"),
    ],
    ids=str,
)
def test_the_date(now: datetime, written: str) -> None:
    line = text(evolve(TRACE, now=now))
    assert line.endswith(f";\r\n {written}\r\n")
    assert parsedate_to_datetime(line.rpartition(";")[2].strip()) == now.replace(microsecond=0)


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_is_read_back(month: int) -> None:
    now = datetime(2026, month, 28, 12, 0, 0, tzinfo=UTC)
    assert parsedate_to_datetime(text(evolve(TRACE, now=now)).rpartition(";")[2].strip()) == now


# `openssl ciphers -stdname ALL:COMPLEMENTOFALL:@SECLEVEL=0`, without PSK and SRP, and what older OpenSSLs had besides.
CIPHERS = """
ADH-AES128-GCM-SHA256 TLS_DH_anon_WITH_AES_128_GCM_SHA256
ADH-AES128-SHA TLS_DH_anon_WITH_AES_128_CBC_SHA
ADH-AES128-SHA256 TLS_DH_anon_WITH_AES_128_CBC_SHA256
ADH-AES256-GCM-SHA384 TLS_DH_anon_WITH_AES_256_GCM_SHA384
ADH-AES256-SHA TLS_DH_anon_WITH_AES_256_CBC_SHA
ADH-AES256-SHA256 TLS_DH_anon_WITH_AES_256_CBC_SHA256
ADH-CAMELLIA128-SHA TLS_DH_anon_WITH_CAMELLIA_128_CBC_SHA
ADH-CAMELLIA128-SHA256 TLS_DH_anon_WITH_CAMELLIA_128_CBC_SHA256
ADH-CAMELLIA256-SHA TLS_DH_anon_WITH_CAMELLIA_256_CBC_SHA
ADH-CAMELLIA256-SHA256 TLS_DH_anon_WITH_CAMELLIA_256_CBC_SHA256
AECDH-AES128-SHA TLS_ECDH_anon_WITH_AES_128_CBC_SHA
AECDH-AES256-SHA TLS_ECDH_anon_WITH_AES_256_CBC_SHA
AECDH-NULL-SHA TLS_ECDH_anon_WITH_NULL_SHA
AES128-CCM TLS_RSA_WITH_AES_128_CCM
AES128-CCM8 TLS_RSA_WITH_AES_128_CCM_8
AES128-GCM-SHA256 TLS_RSA_WITH_AES_128_GCM_SHA256
AES128-SHA TLS_RSA_WITH_AES_128_CBC_SHA
AES128-SHA256 TLS_RSA_WITH_AES_128_CBC_SHA256
AES256-CCM TLS_RSA_WITH_AES_256_CCM
AES256-CCM8 TLS_RSA_WITH_AES_256_CCM_8
AES256-GCM-SHA384 TLS_RSA_WITH_AES_256_GCM_SHA384
AES256-SHA TLS_RSA_WITH_AES_256_CBC_SHA
AES256-SHA256 TLS_RSA_WITH_AES_256_CBC_SHA256
ARIA128-GCM-SHA256 TLS_RSA_WITH_ARIA_128_GCM_SHA256
ARIA256-GCM-SHA384 TLS_RSA_WITH_ARIA_256_GCM_SHA384
CAMELLIA128-SHA TLS_RSA_WITH_CAMELLIA_128_CBC_SHA
CAMELLIA128-SHA256 TLS_RSA_WITH_CAMELLIA_128_CBC_SHA256
CAMELLIA256-SHA TLS_RSA_WITH_CAMELLIA_256_CBC_SHA
CAMELLIA256-SHA256 TLS_RSA_WITH_CAMELLIA_256_CBC_SHA256
DHE-DSS-AES128-GCM-SHA256 TLS_DHE_DSS_WITH_AES_128_GCM_SHA256
DHE-DSS-AES128-SHA TLS_DHE_DSS_WITH_AES_128_CBC_SHA
DHE-DSS-AES128-SHA256 TLS_DHE_DSS_WITH_AES_128_CBC_SHA256
DHE-DSS-AES256-GCM-SHA384 TLS_DHE_DSS_WITH_AES_256_GCM_SHA384
DHE-DSS-AES256-SHA TLS_DHE_DSS_WITH_AES_256_CBC_SHA
DHE-DSS-AES256-SHA256 TLS_DHE_DSS_WITH_AES_256_CBC_SHA256
DHE-DSS-ARIA128-GCM-SHA256 TLS_DHE_DSS_WITH_ARIA_128_GCM_SHA256
DHE-DSS-ARIA256-GCM-SHA384 TLS_DHE_DSS_WITH_ARIA_256_GCM_SHA384
DHE-DSS-CAMELLIA128-SHA TLS_DHE_DSS_WITH_CAMELLIA_128_CBC_SHA
DHE-DSS-CAMELLIA128-SHA256 TLS_DHE_DSS_WITH_CAMELLIA_128_CBC_SHA256
DHE-DSS-CAMELLIA256-SHA TLS_DHE_DSS_WITH_CAMELLIA_256_CBC_SHA
DHE-DSS-CAMELLIA256-SHA256 TLS_DHE_DSS_WITH_CAMELLIA_256_CBC_SHA256
DHE-RSA-AES128-CCM TLS_DHE_RSA_WITH_AES_128_CCM
DHE-RSA-AES128-CCM8 TLS_DHE_RSA_WITH_AES_128_CCM_8
DHE-RSA-AES128-GCM-SHA256 TLS_DHE_RSA_WITH_AES_128_GCM_SHA256
DHE-RSA-AES128-SHA TLS_DHE_RSA_WITH_AES_128_CBC_SHA
DHE-RSA-AES128-SHA256 TLS_DHE_RSA_WITH_AES_128_CBC_SHA256
DHE-RSA-AES256-CCM TLS_DHE_RSA_WITH_AES_256_CCM
DHE-RSA-AES256-CCM8 TLS_DHE_RSA_WITH_AES_256_CCM_8
DHE-RSA-AES256-GCM-SHA384 TLS_DHE_RSA_WITH_AES_256_GCM_SHA384
DHE-RSA-AES256-SHA TLS_DHE_RSA_WITH_AES_256_CBC_SHA
DHE-RSA-AES256-SHA256 TLS_DHE_RSA_WITH_AES_256_CBC_SHA256
DHE-RSA-ARIA128-GCM-SHA256 TLS_DHE_RSA_WITH_ARIA_128_GCM_SHA256
DHE-RSA-ARIA256-GCM-SHA384 TLS_DHE_RSA_WITH_ARIA_256_GCM_SHA384
DHE-RSA-CAMELLIA128-SHA TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA
DHE-RSA-CAMELLIA128-SHA256 TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA256
DHE-RSA-CAMELLIA256-SHA TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA
DHE-RSA-CAMELLIA256-SHA256 TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA256
DHE-RSA-CHACHA20-POLY1305 TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256
ECDHE-ARIA128-GCM-SHA256 TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256
ECDHE-ARIA256-GCM-SHA384 TLS_ECDHE_RSA_WITH_ARIA_256_GCM_SHA384
ECDHE-ECDSA-AES128-CCM TLS_ECDHE_ECDSA_WITH_AES_128_CCM
ECDHE-ECDSA-AES128-CCM8 TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8
ECDHE-ECDSA-AES128-GCM-SHA256 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
ECDHE-ECDSA-AES128-SHA TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
ECDHE-ECDSA-AES128-SHA256 TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256
ECDHE-ECDSA-AES256-CCM TLS_ECDHE_ECDSA_WITH_AES_256_CCM
ECDHE-ECDSA-AES256-CCM8 TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8
ECDHE-ECDSA-AES256-GCM-SHA384 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
ECDHE-ECDSA-AES256-SHA TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA
ECDHE-ECDSA-AES256-SHA384 TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384
ECDHE-ECDSA-ARIA128-GCM-SHA256 TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256
ECDHE-ECDSA-ARIA256-GCM-SHA384 TLS_ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384
ECDHE-ECDSA-CAMELLIA128-SHA256 TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_CBC_SHA256
ECDHE-ECDSA-CAMELLIA256-SHA384 TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_CBC_SHA384
ECDHE-ECDSA-CHACHA20-POLY1305 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
ECDHE-ECDSA-NULL-SHA TLS_ECDHE_ECDSA_WITH_NULL_SHA
ECDHE-RSA-AES128-GCM-SHA256 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
ECDHE-RSA-AES128-SHA TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA
ECDHE-RSA-AES128-SHA256 TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256
ECDHE-RSA-AES256-GCM-SHA384 TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
ECDHE-RSA-AES256-SHA TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA
ECDHE-RSA-AES256-SHA384 TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384
ECDHE-RSA-CAMELLIA128-SHA256 TLS_ECDHE_RSA_WITH_CAMELLIA_128_CBC_SHA256
ECDHE-RSA-CAMELLIA256-SHA384 TLS_ECDHE_RSA_WITH_CAMELLIA_256_CBC_SHA384
ECDHE-RSA-CHACHA20-POLY1305 TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
ECDHE-RSA-NULL-SHA TLS_ECDHE_RSA_WITH_NULL_SHA
NULL-MD5 TLS_RSA_WITH_NULL_MD5
NULL-SHA TLS_RSA_WITH_NULL_SHA
NULL-SHA256 TLS_RSA_WITH_NULL_SHA256
TLS_AES_128_GCM_SHA256 TLS_AES_128_GCM_SHA256
TLS_AES_256_GCM_SHA384 TLS_AES_256_GCM_SHA384
TLS_CHACHA20_POLY1305_SHA256 TLS_CHACHA20_POLY1305_SHA256
SEED-SHA TLS_RSA_WITH_SEED_CBC_SHA
DHE-RSA-SEED-SHA TLS_DHE_RSA_WITH_SEED_CBC_SHA
DES-CBC3-SHA TLS_RSA_WITH_3DES_EDE_CBC_SHA
ECDHE-RSA-DES-CBC3-SHA TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA
RC4-SHA TLS_RSA_WITH_RC4_128_SHA
RC4-MD5 TLS_RSA_WITH_RC4_128_MD5
IDEA-CBC-SHA TLS_RSA_WITH_IDEA_CBC_SHA
"""


@pytest.mark.parametrize("names", CIPHERS.split("\n")[1:-1], ids=lambda names: names.split()[0])
def test_cipher_suites_have_their_registered_names(names: str) -> None:
    openssl, iana = names.split()
    assert iana_cipher(openssl) == iana


@pytest.mark.parametrize(
    "name",
    ["", "AES", "AES128", "FOO-AES128-SHA", "-AES128-SHA", "AES128-SHA\r\n", "TLS_X\r\n", "PSK-AES128-CCM", "(NONE)"],
    ids=repr,
)
def test_a_suite_without_a_registered_name_gets_no_clause(name: str) -> None:
    assert iana_cipher(name) == ""
    assert " tls " not in text(evolve(TRACE, tls=evolve(TLS, cipher=name)))


@pytest.mark.parametrize(
    ("group", "clause"),
    [
        ("", ""),
        ("x25519", " group x25519"),
        ("X25519", " group x25519"),
        ("prime256v1", " group secp256r1"),
        ("secp384r1", " group secp384r1"),
        ("ffdhe2048", " group ffdhe2048"),
        ("X25519MLKEM768", " group X25519MLKEM768"),
        ("x\r\n", ""),
        ("0x11ec", ""),
    ],
)
def test_groups(group: str, clause: str) -> None:
    assert f" tls TLS_AES_128_GCM_SHA256{clause};" in text(evolve(TRACE, tls=evolve(TLS, group=group)))


hostile = st.text(st.sampled_from('ab1.-_ ()[]<>;:,\r\n\0\\"IPv6:é\ud800'), max_size=40)
texts = st.text(max_size=300) | hostile


@given(
    st.builds(
        Trace,
        gate=texts,
        helo=texts,
        client=st.none() | st.ip_addresses(),
        session_id=texts,
        now=st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants them naive
        esmtp=st.booleans(),
        smtputf8=st.booleans(),
        authenticated=st.booleans(),
        tls=st.none() | st.builds(TlsFacts, version=texts, cipher=texts, bits=st.just(0), group=texts),
    )
)
def test_no_value_breaks_out(trace: Trace) -> None:
    """
    Whatever anybody says, it is one field of exactly the shape we mean.
    """
    text(trace)


def test_an_ipv6_helo_is_written_as_everywhere_else() -> None:
    trace = evolve(TRACE, helo="[IPv6:2001:0db8:0:0:0:0:0:9]", client=IPv6Address("2001:db8::9"))
    assert text(trace).startswith("Received: from [IPv6:2001:db8::9] ([IPv6:2001:db8::9])\r\n")
