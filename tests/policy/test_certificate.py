"""
Known by a name on a verified certificate, or by a fingerprint on any.
"""

from collections.abc import Iterable

import pytest
from attrs import evolve

from tests.policy.samples import CERTIFICATE_SHA256, PUBLIC_KEY_SHA256, SELF_SIGNED, VERIFIED
from tlsgate.policy.certificate import (
    SHOWN_FAULT_OCTETS_MAX,
    SHOWN_NAMES_OCTETS_MAX,
    KnownClients,
    fingerprints,
    identifier,
)
from tlsgate.policy.facts import CertificateFacts


def unmet(certificate: CertificateFacts | None, names: Iterable[str] = (), pins: Iterable[str] = ()) -> str:
    """
    Return what speaks against *certificate* where *names* and *pins* are known.
    """
    return KnownClients.of(names, fingerprints(pins)).unmet(certificate)


@pytest.mark.parametrize(
    ("known", "dns_names", "ip_addresses"),
    [
        ("mail.partner.example", ("mail.partner.example",), ()),
        ("MAIL.Partner.Example.", ("mail.partner.example",), ()),
        ("mail.partner.example", ("MAIL.PARTNER.EXAMPLE",), ()),
        ("mail.partner.example", ("*.partner.example",), ()),
        ("mail.partner.example", ("first.example", "mail.partner.example"), ()),
        ("Bücher.example", ("xn--bcher-kva.example",), ()),
        ("192.0.2.7", (), ("192.0.2.7",)),
        ("2001:db8::7", (), ("2001:0db8:0:0::7",)),
        ("mail.partner.example", ("bücher.example", "1.2.3.4", "*", "a.*.example", "", "mail.partner.example"), ("x",)),
    ],
)
def test_a_verified_certificate_for_a_known_name_is_known(
    known: str, dns_names: tuple[str, ...], ip_addresses: tuple[str, ...]
) -> None:
    """
    7817-02, 9525: also when other names on it are no names at all.
    """
    certificate = evolve(VERIFIED, dns_names=dns_names, ip_addresses=ip_addresses)
    assert unmet(certificate, ["never.seen.example", known]) == ""


@pytest.mark.parametrize(
    ("known", "dns_names", "ip_addresses"),
    [
        ("mail.partner.example", ("partner.example",), ()),
        ("mail.partner.example", ("*.example",), ()),
        ("mail.partner.example", ("m*.partner.example",), ()),
        ("a.mail.partner.example", ("*.partner.example",), ()),
        ("xn--bcher-kva.partner.example", ("*.partner.example",), ()),
        ("mail.partner.example", ("mail.partner.example.evil.example",), ()),
        ("mail.partner.example", ("mail.partner.example\0.evil.example",), ()),
        ("192.0.2.7", ("192.0.2.7",), ()),
        ("mail.partner.example", (), ("192.0.2.7",)),
        ("192.0.2.7", (), ("192.0.2.8", "not an address")),
        ("mail.partner.example", (), ()),
    ],
)
def test_a_certificate_for_another_name_is_unknown(
    known: str, dns_names: tuple[str, ...], ip_addresses: tuple[str, ...]
) -> None:
    """
    7817-02, 7817-03, 7817-04: the subject's common name counts for nothing, wildcards are one whole left-most label.
    """
    certificate = evolve(VERIFIED, dns_names=dns_names, ip_addresses=ip_addresses)
    assert unmet(certificate, [known]).startswith("a client certificate for ")


@pytest.mark.parametrize("certificate", [VERIFIED, SELF_SIGNED], ids=["verified", "self-signed"])
@pytest.mark.parametrize(
    "pin",
    [CERTIFICATE_SHA256, PUBLIC_KEY_SHA256, CERTIFICATE_SHA256.upper(), ":".join(["4B"] * 32)],
    ids=["certificate", "key", "upper", "colons"],
)
def test_a_pinned_certificate_or_key_is_known_whatever_its_chain(certificate: CertificateFacts, pin: str) -> None:
    assert unmet(certificate, pins=["00" * 32, pin]) == ""
    assert unmet(certificate, ["never.seen.example"], [pin]) == ""


def test_a_name_never_vouches_for_a_chain_that_does_not_verify() -> None:
    expected = "a client certificate that does not verify (self-signed certificate)"
    assert unmet(SELF_SIGNED, ["mail.partner.example"]) == expected
    assert unmet(SELF_SIGNED, ["mail.partner.example"], ["00" * 32]) == expected
    assert unmet(SELF_SIGNED) == expected


def test_a_verified_chain_does_not_stand_in_for_a_pin() -> None:
    assert unmet(VERIFIED, pins=["00" * 32]) == "an unknown client certificate"


def test_names_and_pins_are_alternatives() -> None:
    assert unmet(VERIFIED, ["mail.partner.example"], ["00" * 32]) == ""


def test_without_names_and_pins_a_verified_chain_is_enough() -> None:
    assert unmet(VERIFIED) == ""


@pytest.mark.parametrize(("names", "pins"), [((), ()), (["a.example"], ()), ((), ["00" * 32])])
def test_no_certificate_is_never_enough(names: list[str], pins: list[str]) -> None:
    assert unmet(None, names, pins) == "no client certificate"


def test_a_certificate_without_names_is_described_as_such() -> None:
    certificate = evolve(VERIFIED, dns_names=(), ip_addresses=())
    assert unmet(certificate, ["a.example"]) == "a client certificate for no name"


def test_names_and_faults_are_shown_within_bounds() -> None:
    many = evolve(VERIFIED, dns_names=tuple(f"host{n}.example" for n in range(10_000)))
    assert len(unmet(many, ["a.example"])) <= len("a client certificate for ") + SHOWN_NAMES_OCTETS_MAX
    faulty = evolve(VERIFIED, fault="x" * 10_000)
    assert len(unmet(faulty)) <= len("a client certificate that does not verify ()") + SHOWN_FAULT_OCTETS_MAX


@pytest.mark.parametrize("name", ["", ".", "*.partner.example", "joe@partner.example", "a b", "10", "ü" * 64, "[::1]"])
def test_what_is_no_host_is_no_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="neither the DNS name nor the IP address"):
        identifier(name)


@pytest.mark.parametrize("pin", ["", "ab", "g" * 64, "a" * 63, "a" * 65, "sha256//" + "a" * 64])
def test_what_is_no_sha256_is_no_fingerprint(pin: str) -> None:
    with pytest.raises(ValueError, match="is not a SHA-256 fingerprint"):
        KnownClients.of((), [pin])
