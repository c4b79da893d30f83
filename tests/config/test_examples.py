"""
The worked examples of docs/policy.md do what the text above them says.
"""

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from tests.config.corpus import BASE
from tests.config.test_documented import EXAMPLES
from tlsgate.config import parse
from tlsgate.policy.facts import Circumstances, TlsFacts
from tlsgate.policy.rules import Outcome, Rulebook
from tlsgate.translation import rulebook

NOW = datetime(2026, 12, 1, tzinfo=UTC)
STRANGER = "203.0.113.5"
GOOD = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, "x25519")
OLD = TlsFacts("TLSv1", "ECDHE-RSA-AES128-SHA", 128, "x25519")


def law(name: str) -> Rulebook:
    """
    Return the law of an example.
    """
    return rulebook(parse(dict(EXAMPLES)[name], BASE))


def at(listener: str, client: str = STRANGER, now: datetime = NOW, **more: str) -> Circumstances:
    """
    Return circumstances of a session.
    """
    return Circumstances(listener, ip_address(client), now, **more)


@pytest.mark.parametrize("name", [name for name, _ in EXAMPLES])
def test_each_example_is_a_law(name: str) -> None:
    law(name)


@pytest.mark.parametrize("name", ["S1", "S2", "S3", "S5", "S7", "S8"])
def test_a_public_mx_takes_mail_from_everybody(name: str) -> None:
    """
    3207-03: nobody unknown is refused, in plaintext or whatever TLS.
    """
    for tls in (None, GOOD, OLD):
        circumstances = at("mx", recipient="user@example.org", sender="a@stranger.example")
        assert law(name).session(at("mx"), tls).outcome in {Outcome.PASS, Outcome.WOULD_REFUSE}
        assert law(name).recipient(circumstances, tls).outcome in {Outcome.PASS, Outcome.WOULD_REFUSE}


@pytest.mark.parametrize(
    ("name", "listener"),
    [("S1", "submission"), ("S1", "submissions"), ("S4", "submission"), ("S4", "submissions"), ("S7", "submissions")],
)
def test_users_need_strong_tls(name: str, listener: str) -> None:
    assert law(name).session(at(listener), GOOD).outcome is Outcome.PASS
    assert law(name).session(at(listener), OLD).outcome is Outcome.REFUSE
    assert law(name).session(at(listener), None).verdict.must_start_tls


def test_s3_demands_modern_tls_from_its_date_on() -> None:
    later = datetime(2027, 3, 1, tzinfo=UTC)
    assert law("S3").session(at("relay"), OLD).outcome is Outcome.WOULD_REFUSE
    assert law("S3").session(at("relay", now=later), OLD).outcome is Outcome.DEFER


def test_s5_puts_its_demand_to_one_tenant_alone() -> None:
    outcomes = [
        law("S5").recipient(at("mx", recipient=recipient), None).outcome
        for recipient in ("a@tenant-a.example", "b@tenant-b.example", "b@x.tenant-b.example", "postmaster")
    ]
    assert outcomes == [Outcome.PASS, Outcome.REFUSE, Outcome.REFUSE, Outcome.PASS]


def test_s6_is_mild_to_devices_alone() -> None:
    book = law("S6")
    device = at("devices", "10.20.3.4")
    assert [book.session(device, tls).outcome for tls in (None, OLD, GOOD)] == [Outcome.PASS] * 3
    assert book.session(at("devices"), OLD).outcome is Outcome.REFUSE
    assert book.session(at("submission", "10.20.3.4"), OLD).outcome is Outcome.WOULD_REFUSE


def test_s6_refuses_a_tenth_for_now_and_then_all_for_good() -> None:
    book = law("S6")
    clients = [f"203.0.{number // 250}.{number % 250 + 1}" for number in range(2_000)]
    ramp, end = datetime(2027, 1, 11, tzinfo=UTC), datetime(2027, 4, 1, tzinfo=UTC)
    deferred = [book.session(at("submission", client, ramp), OLD).outcome for client in clients].count(Outcome.DEFER)
    assert 150 <= deferred <= 250
    assert {book.session(at("submission", client, end), OLD).outcome for client in clients} == {Outcome.REFUSE}


def test_s7_demands_tls_of_one_network_by_the_conveyed_address() -> None:
    assert law("S7").session(at("mx", "198.51.100.7"), None).outcome is Outcome.REFUSE


def test_s8_demands_the_agreed_certificate_of_a_partner() -> None:
    book = law("S8")
    partner = at("mx", "198.51.100.7", recipient="user@example.org")
    assert book.recipient(partner, None).verdict.must_start_tls
    assert book.recipient(partner, GOOD).outcome is Outcome.REFUSE
    assert book.sender(at("mx", sender="a@partner.example"), GOOD).outcome is Outcome.REFUSE


def test_s8_lets_postmaster_and_tlsrpt_be_reached() -> None:
    book = law("S8")
    for client in (STRANGER, "198.51.100.7"):
        for recipient in ("postmaster", "Postmaster@health.example", "tlsrpt@example.org"):
            assert book.recipient(at("mx", client, recipient=recipient), None).outcome is Outcome.PASS, recipient
    assert book.recipient(at("mx", recipient="doctor@health.example"), None).outcome is Outcome.REFUSE
    assert book.recipient(at("mx", recipient="doctor@health.example"), GOOD).outcome is Outcome.PASS
