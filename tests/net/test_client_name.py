"""
The host name of a client: what Postfix would find, in bounded time, whatever the DNS says or does not say.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tlsgate.net import client_name
from tlsgate.net.client_name import (
    CACHE_ENTRIES_MAX,
    DEFERRED,
    KNOWN_SECONDS_MAX,
    LOOKUPS_MAX,
    NAMES_MAX,
    SECONDS_MIN,
    UNKNOWN_SECONDS_MAX,
    ClientName,
    ClientNames,
    Found,
    Naming,
    NoAnswerError,
)
from tlsgate.net.identity import ClientIdentity, xclient_commands

CLIENT = IPv4Address("192.0.2.7")
CLIENT6 = IPv6Address("2001:db8::7")
GOOD = ClientName("mx.client.example", reverse_name="mx.client.example")
NONE = ClientName()

Says = Sequence[str] | None | Exception


@define
class Dns:
    """
    A DNS that says what it is told to: (name, type) -> values; an exception; `None`, nothing at all.

    What it is not told about it does not have. *asked* are the questions so far, *open* those it has not answered.
    """

    says: dict[tuple[str, str], Says] = field(factory=dict)
    seconds: float = 60
    asked: list[tuple[str, str]] = field(factory=list)
    open: list["Deferred[Found]"] = field(factory=list)
    clock: Clock = field(factory=Clock)
    names: ClientNames = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.names = ClientNames(self.ask, self.clock, 5)

    def ask(self, name: str, kind: str) -> "Deferred[Found]":
        self.asked.append((name, kind))
        said = self.says.get((name, kind), [])
        if isinstance(said, Exception):
            return fail(said)
        if said is None:
            answer: Deferred[Found] = Deferred(self.open.remove)
            self.open.append(answer)
            return answer
        return succeed(Found(said, self.seconds))

    def find(self, address: IPv4Address | IPv6Address = CLIENT) -> list[ClientName]:
        """
        Return a list that will have the name.
        """
        heard: list[ClientName] = []
        self.names.find(address).addCallback(heard.append)
        return heard


def dns(pointers: Says, **addresses: Says) -> Dns:
    """
    Return a DNS that has *pointers* for the client, and for the names below client.example these *addresses*.
    """
    forward = {(f"{name}.client.example", "A"): said for name, said in addresses.items()}
    return Dns({(CLIENT.reverse_pointer, "PTR"): pointers, **forward})


def test_a_name_that_has_the_address_is_the_clients() -> None:
    world = dns(["mx.client.example"], mx=["192.0.2.6", "192.0.2.7"])
    assert world.find() == [GOOD]
    assert world.asked == [("7.2.0.192.in-addr.arpa", "PTR"), ("mx.client.example", "A")]


def test_ipv6() -> None:
    world = Dns(
        {(CLIENT6.reverse_pointer, "PTR"): ["mx.client.example."], ("mx.client.example", "AAAA"): ["2001:db8::7"]}
    )
    assert world.find(CLIENT6) == [GOOD]


@pytest.mark.parametrize(
    ("world", "name"),
    [
        (dns([]), NONE),
        (dns(["mx.client.example"]), ClientName(reverse_name="mx.client.example")),
        (dns(["mx.client.example"], mx=["192.0.2.8"]), ClientName(reverse_name="mx.client.example")),
        (dns(["localhost"]), ClientName(reverse_name="localhost")),
        (dns([CLIENT.reverse_pointer]), ClientName(reverse_name=CLIENT.reverse_pointer)),
        (dns(NoAnswerError()), DEFERRED),
        (dns(["mx.client.example"], mx=NoAnswerError()), ClientName(None, True, "mx.client.example")),
        (dns(["a.client.example", "mx.client.example"], mx=["192.0.2.7"]), GOOD),
        (dns(["a.client.example", "mx.client.example"], a=NoAnswerError(), mx=["192.0.2.7"]), GOOD),
        (dns(["no name", "mx.client.example"], mx=["192.0.2.7"]), GOOD),
        (dns(["192.0.2.7"]), NONE),
    ],
    ids=["no PTR", "no address", "another's", "localhost", "PTR loop", "no answer", "half an answer", "second of two",
         "the first does not answer", "first is no name", "an address"],
)  # fmt: skip
def test_what_the_dns_says(world: Dns, name: ClientName) -> None:
    assert world.find() == [name]
    assert world.clock.getDelayedCalls() == []


INJECTED = [
    "a.example ADDR=127.0.0.1",
    "a.example\r\nMAIL FROM:<root@inside.example>",
    "a.example\nXCLIENT ADDR=127.0.0.1",
    "a.example+0D+0AQUIT",
    "a.example LOGIN=admin",
    "a.example\0",
    "[UNAVAILABLE] ADDR=127.0.0.1",
    "a\u2028b.example",
    "*.example",
    "x" * 300,
    "",
]


@pytest.mark.parametrize("name", INJECTED, ids=repr)
def test_nothing_but_a_name_gets_into_xclient(name: str) -> None:
    """
    Whoever has an address writes its PTR record; nginx copied it into XCLIENT (CVE-2026-28753). A name that is none is
    not even looked up.
    """
    world = dns([name])
    world.says[name, "A"] = ["192.0.2.7"]
    naming = Naming.begun(ClientIdentity(CLIENT), world.names)
    [command] = xclient_commands(frozenset({"NAME", "REVERSE_NAME", "ADDR"}), naming.who)
    assert command == b"XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] ADDR=192.0.2.7\r\n"
    assert [kind for _, kind in world.asked] == ["PTR"]


@given(st.lists(st.text(max_size=80) | st.sampled_from(["a.example", "b.example."]), max_size=5), st.booleans())
def test_whatever_the_dns_says_there_is_one_command(pointers: list[str], confirmed: bool) -> None:  # noqa: FBT001
    world = dns(pointers)
    for name in ("a.example", "b.example"):
        world.says[name, "A"] = ["192.0.2.7"] if confirmed else []
    naming = Naming.begun(ClientIdentity(CLIENT), world.names)
    [command] = xclient_commands(frozenset({"NAME", "ADDR"}), naming.who)
    head, name, tail = command.split(b" ")
    assert (head, tail) == (b"XCLIENT", b"ADDR=192.0.2.7\r\n")
    assert name in {b"NAME=[UNAVAILABLE]", b"NAME=a.example", b"NAME=b.example"}


def test_an_address_with_a_thousand_names_makes_few_questions() -> None:
    world = dns([f"n{number}.client.example" for number in range(1000)])
    assert world.find() == [ClientName(reverse_name="n0.client.example")]
    assert len(world.asked) == 1 + NAMES_MAX


def test_a_name_with_a_thousand_addresses_is_searched() -> None:
    world = dns(["mx.client.example"], mx=[f"10.0.{n // 256}.{n % 256}" for n in range(1000)] + ["192.0.2.7"])
    assert world.find() == [GOOD]


@pytest.mark.parametrize("silent", ["PTR", "A"])
def test_a_dns_that_never_answers_ends_in_time(silent: str) -> None:
    world = dns(None) if silent == "PTR" else dns(["mx.client.example"], mx=None)
    heard = world.find()
    world.clock.advance(4.9)
    assert heard == []
    world.clock.advance(0.1)
    assert heard == [DEFERRED if silent == "PTR" else ClientName(None, True, "mx.client.example")]
    assert world.open == []
    assert world.clock.getDelayedCalls() == []


def test_the_time_is_that_of_the_whole_lookup() -> None:
    """
    However many names there are, and however slow each answer: five seconds in all.
    """
    world = dns(None, **dict.fromkeys("abc", None))
    heard = world.find()
    world.clock.advance(3)
    world.open.pop().callback(Found([f"{name}.client.example" for name in "abc"], 60))
    world.clock.advance(1.5)
    world.open.pop().callback(Found([], 60))
    world.clock.advance(0.5)
    assert heard == [ClientName(None, True, "a.client.example")]
    assert [name for name, _ in world.asked[1:]] == ["a.client.example", "b.client.example"]
    assert world.clock.getDelayedCalls() == []


def test_sessions_of_one_client_share_a_lookup_and_what_it_found() -> None:
    world = dns(None)
    first, second = world.find(), world.find()
    world.open.pop().callback(Found([], 60))
    assert first == second == world.find() == [NONE]
    assert len(world.asked) == 1


def test_one_session_that_goes_away_takes_nothing_from_the_others() -> None:
    world = dns(None, mx=["192.0.2.7"])
    gone: list[object] = []
    one = world.names.find(CLIENT).addErrback(lambda failure: gone.append(failure.type))
    other = world.find()
    one.cancel()
    assert gone == [CancelledError]
    world.open.pop().callback(Found(["mx.client.example"], 60))
    assert other == [GOOD]


def test_a_session_may_be_ended_by_what_another_hears() -> None:
    world = dns(None)
    heard: list[object] = []
    first, second = world.names.find(CLIENT), world.names.find(CLIENT)
    third = world.find()
    first.addCallback(lambda _: second.cancel())
    second.addCallbacks(heard.append, lambda failure: heard.append(failure.type))
    world.open.pop().callback(Found([], 60))
    assert heard == [CancelledError]
    assert third == [NONE]


def test_what_nobody_waits_for_any_more_is_remembered() -> None:
    world = dns(None)
    world.names.find(CLIENT).addErrback(lambda _: None).cancel()
    world.open.pop().callback(Found([], 60))
    assert world.find() == [NONE]
    assert len(world.asked) == 1
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("world", "seconds", "held"),
    [
        (dns(["mx.client.example"], mx=["192.0.2.7"]), 60, 60),
        (dns(["mx.client.example"], mx=["192.0.2.7"]), 10**9, KNOWN_SECONDS_MAX),
        (dns([]), 60, 60),
        (dns([]), 10**9, UNKNOWN_SECONDS_MAX),
        (dns(["mx.client.example"]), 10**9, UNKNOWN_SECONDS_MAX),
        (dns(NoAnswerError()), 60, SECONDS_MIN),
        (dns(["mx.client.example"], mx=NoAnswerError()), 60, SECONDS_MIN),
    ],
)
def test_what_is_found_holds_as_long_as_the_dns_says_within_reason(world: Dns, seconds: float, held: float) -> None:
    world.seconds = seconds
    world.find()
    questions = len(world.asked)
    world.clock.advance(held - 1)
    world.find()
    assert len(world.asked) == questions
    world.clock.advance(1)
    world.find()
    assert len(world.asked) == 2 * questions


def test_what_holds_for_no_time_at_all_holds_for_one_session() -> None:
    """
    Or one client could have everything asked anew with each of its connections.
    """
    world = evolve(dns(["mx.client.example"], mx=["192.0.2.7"]), seconds=0)
    assert world.find() == world.find() == [GOOD]
    world.clock.advance(SECONDS_MIN)
    assert world.find() == [GOOD]
    assert len(world.asked) == 4


def test_lookups_at_once_are_bounded() -> None:
    """
    Beyond that a name is deferred at once; whom the others wait for is still known, and there is room again in time.
    """
    world = Dns()
    addresses = [IPv4Address("10.0.0.0") + number for number in range(LOOKUPS_MAX + 1)]
    for address in addresses:
        world.says[address.reverse_pointer, "PTR"] = None
    heard = [world.find(address) for address in addresses[:-1]]
    assert world.find(addresses[-1]) == [DEFERRED]
    assert world.find(addresses[0]) == []
    assert len(world.open) == LOOKUPS_MAX
    world.clock.advance(5)
    assert heard == [[DEFERRED]] * LOOKUPS_MAX
    assert world.find(addresses[-1]) == []
    world.clock.advance(5)
    assert world.open == []


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CACHE_ENTRIES_MAX <= 10_000
    monkeypatch.setattr(client_name, "CACHE_ENTRIES_MAX", 3)
    world = Dns()
    for number in range(5):
        world.find(CLIENT + number)
    assert list(world.names._known) == [CLIENT + 2, CLIENT + 3, CLIENT + 4]


def test_a_fault_of_our_own_ends_no_session() -> None:
    logged: list[object] = []
    world = dns(ZeroDivisionError())
    globalLogPublisher.addObserver(logged.append)
    try:
        assert world.find() == [DEFERRED]
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert "ZeroDivisionError" in str(logged)


class TestNaming:
    def test_without_a_search_all_is_known(self) -> None:
        heard: list[str] = []
        naming = Naming.begun(ClientIdentity(CLIENT), None)
        naming.then(lambda: heard.append("known"))
        assert naming.known
        assert heard == ["known"]
        naming.give_up()

    def test_a_client_without_an_address_is_not_looked_up(self) -> None:
        world = Dns()
        assert Naming.begun(ClientIdentity(None), world.names).known
        assert world.asked == []

    def test_what_is_found_is_added(self) -> None:
        world = dns(None, mx=["192.0.2.7"])
        who = ClientIdentity(CLIENT, 40001)
        naming = Naming.begun(who, world.names)
        heard: list[str | None] = []
        naming.then(lambda: heard.append(naming.who.name))
        assert (naming.who, naming.known, heard) == (who, False, [])
        world.open.pop().callback(Found(["mx.client.example"], 60))
        assert naming.who == evolve(who, name="mx.client.example", reverse_name="mx.client.example")
        assert naming.known
        assert heard == ["mx.client.example"]

    def test_a_search_given_up_calls_nobody(self) -> None:
        world = dns(None)
        naming = Naming.begun(ClientIdentity(CLIENT), world.names)
        heard: list[None] = []
        naming.then(lambda: heard.append(None))
        naming.give_up()
        world.clock.advance(5)
        assert heard == []
        assert world.clock.getDelayedCalls() == []
