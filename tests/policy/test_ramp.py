"""
Audit, then 4xx for a share, then 5xx for all; the same client always alike.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.samples import CLIENT, CLIENT6, NOW
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.ramp import Enforcement, Ramp, enforcement

START = datetime(2027, 1, 1, tzinfo=UTC)
REJECT = datetime(2027, 3, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
Address = IPv4Address | IPv6Address
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))

# As different as 10 000 client networks are: half of them IPv4, half IPv6, neighbours.
NETWORKS: list[Address] = [IPv4Address(0x0A000000 + n) for n in range(5_000)] + [
    IPv6Address((0x20010DB8 << 96) + (n << 64) + 1) for n in range(5_000)
]


@cache
def refused(share: int, name: str = "strong") -> list[Address]:
    ramp = Ramp(START, share)
    return [client for client in NETWORKS if enforcement(ramp, client, NOW, name) is not Enforcement.AUDITED]


@pytest.mark.parametrize("client", [CLIENT, CLIENT6, None])
def test_true_enforces_and_false_audits(client: Address | None) -> None:
    assert enforcement(True, client, NOW, "strong") is Enforcement.ENFORCED
    assert enforcement(False, client, NOW, "strong") is Enforcement.AUDITED


@pytest.mark.parametrize("client", [CLIENT, CLIENT6, None])
@pytest.mark.parametrize(
    ("now", "stage"),
    [
        (START - TICK, Enforcement.AUDITED),
        (START, Enforcement.DEFERRED),
        (REJECT - TICK, Enforcement.DEFERRED),
        (REJECT, Enforcement.ENFORCED),
        (REJECT + timedelta(days=10_000), Enforcement.ENFORCED),
    ],
)
def test_each_date_begins_a_stage_and_the_second_turns_4xx_into_5xx(
    client: Address | None, now: datetime, stage: Enforcement
) -> None:
    assert enforcement(Ramp(START, 100, REJECT), client, now, "strong") is stage


def test_without_a_second_date_it_stays_4xx() -> None:
    assert enforcement(Ramp(START), CLIENT, REJECT + timedelta(days=10_000), "strong") is Enforcement.DEFERRED


def test_after_the_second_date_it_is_5xx_for_all() -> None:
    ramp = Ramp(START, 25, NOW)
    assert {enforcement(ramp, client, NOW, "strong") for client in NETWORKS} == {Enforcement.ENFORCED}


def test_before_the_first_date_nobody_is_refused() -> None:
    ramp = Ramp(NOW + TICK, 100)
    assert {enforcement(ramp, client, NOW, "strong") for client in NETWORKS} == {Enforcement.AUDITED}


@pytest.mark.parametrize("share", [1, 10, 25, 50, 75, 99])
@pytest.mark.parametrize("half", [NETWORKS[:5_000], NETWORKS[5_000:], NETWORKS], ids=["IPv4", "IPv6", "both"])
def test_a_share_of_the_networks_is_refused(share: int, half: Sequence[Address]) -> None:
    among = len(set(refused(share)) & set(half)) / len(half)
    assert abs(among - share / 100) <= (0.015 if half is NETWORKS else 0.025)


def test_share_0_refuses_nobody_and_100_everybody() -> None:
    assert refused(0) == []
    assert refused(100) == NETWORKS


def test_a_growing_share_keeps_refusing_the_same_clients() -> None:
    shares = [set(refused(share)) for share in (0, 1, 10, 25, 50, 75, 99, 100)]
    assert all(smaller < larger for smaller, larger in pairwise(shares))


def test_two_levels_choose_different_clients() -> None:
    """
    Else the same unlucky quarter would meet every change first.
    """
    both = set(refused(25)) & set(refused(25, "partner"))
    assert len(both) / len(NETWORKS) == pytest.approx(0.25 * 0.25, abs=0.015)


def test_the_choice_outlives_the_process() -> None:
    """
    Restarts, other machines and other Python versions must not choose anew: the choice is written down here.
    """
    assert list(map(str, refused(10)[:4])) == ["10.0.0.6", "10.0.0.9", "10.0.0.10", "10.0.0.16"]
    assert list(map(str, refused(10)[-2:])) == ["2001:db8:0:1363::1", "2001:db8:0:137e::1"]


@settings(derandomize=True, deadline=None)
@given(ADDRESSES, st.integers(0, 100), st.integers(0, 100), st.text(max_size=20))
def test_for_each_client_refusal_is_monotone_in_the_share(client: Address, one: int, other: int, name: str) -> None:
    smaller, larger = (enforcement(Ramp(START, share), client, NOW, name) for share in sorted((one, other)))
    assert (smaller, larger) != (Enforcement.DEFERRED, Enforcement.AUDITED)


@settings(derandomize=True, deadline=None)
@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1), st.integers(0, 100))
def test_all_addresses_of_an_ipv6_64_are_one_client(client: IPv6Address, host: int, share: int) -> None:
    neighbour = IPv6Address((int(client) >> 64 << 64) + host)
    if client.ipv4_mapped is None and neighbour.ipv4_mapped is None:
        ramp = Ramp(START, share)
        assert enforcement(ramp, client, NOW, "strong") is enforcement(ramp, neighbour, NOW, "strong")


@settings(derandomize=True, deadline=None)
@given(st.ip_addresses(v=4), st.integers(0, 100))
def test_an_ipv4_client_on_a_dual_stack_socket_is_the_same_client(client: IPv4Address, share: int) -> None:
    mapped = IPv6Address(f"::ffff:{client}")
    ramp = Ramp(START, share)
    assert enforcement(ramp, client, NOW, "strong") is enforcement(ramp, mapped, NOW, "strong")


def test_a_client_without_an_address_is_the_last_to_be_refused() -> None:
    assert enforcement(Ramp(START, 99), None, NOW, "strong") is Enforcement.AUDITED
    assert enforcement(Ramp(START, 100), None, NOW, "strong") is Enforcement.DEFERRED


def test_dates_and_times_without_a_zone_are_utc() -> None:
    ramp = Ramp(date(2027, 1, 1), reject_from=datetime(2027, 3, 1))  # noqa: DTZ001  # TOML has such times
    assert ramp == Ramp(START, reject_from=REJECT)
    assert enforcement(ramp, CLIENT, datetime(2027, 3, 1), "strong") is Enforcement.ENFORCED  # noqa: DTZ001


def test_a_time_with_a_zone_is_that_instant() -> None:
    east = timezone(timedelta(hours=2))
    ramp = Ramp(datetime(2027, 1, 1, 2, tzinfo=east))
    assert enforcement(ramp, CLIENT, START, "strong") is Enforcement.DEFERRED
    assert enforcement(ramp, CLIENT, START - TICK, "strong") is Enforcement.AUDITED


def test_a_ramp_may_be_changed() -> None:
    assert evolve(Ramp(START, 10), share=25) == Ramp(START, 25)


@pytest.mark.parametrize("share", [-1, 101])
def test_what_is_no_percentage_is_refused(share: int) -> None:
    with pytest.raises(PolicyError) as caught:
        Ramp(REJECT, share, START)
    assert caught.value.problems == {
        "share": f"{share} is not a percentage (0 to 100)",
        "reject_from": "lies before the start of the ramp",
    }
    assert str(caught.value).startswith("share: ")


def test_both_dates_may_be_the_same() -> None:
    assert enforcement(Ramp(START, 10, START), CLIENT, START, "strong") is Enforcement.ENFORCED
