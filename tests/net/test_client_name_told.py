"""
A session whose client's host name is looked up: what waits for that, for how long, and what does not wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred

from tests.net.test_backend import WEAK
from tests.net.world import BACKEND_PORT, SECOND_PORT, Backend, World, world
from tests.support.legacy import Legacy
from tlsgate.net.client_name import ClientName, ClientNames, Found

TOLD = 'client_address = "xclient"\nclient_name = "dns"'
SECONDS = 5
EHLO = b"EHLO mx.example.org\r\n"


def xclient(name: bytes, port: int = 40001) -> bytes:
    return b"XCLIENT NAME=%s ADDR=192.0.2.7 PORT=%d\r\n" % (name, port)


def taking_xclient(backend: Backend) -> None:
    backend.legacy = Legacy(
        keywords=(b"PIPELINING", b"XCLIENT NAME ADDR PORT"), answers={b"XCLI": b"220 legacy.example ESMTP\r\n"}
    )


@define
class Late:
    """
    A DNS that answers when the test says so.
    """

    open: list["Deferred[Found]"] = field(factory=list)
    asked: list[str] = field(factory=list)
    names: ClientNames | None = None

    def ask(self, name: str, kind: str) -> "Deferred[Found]":
        self.asked.append(f"{kind} {name}")
        answer: Deferred[Found] = Deferred(self.open.remove)
        self.open.append(answer)
        return answer

    def waiting(self) -> list[list["Deferred[ClientName]"]]:
        """
        Return who waits for each lookup under way.
        """
        assert self.names is not None
        return list(self.names._under_way.values())

    def say(self, *values: str) -> None:
        self.open.pop(0).callback(Found(values, 60))


@contextmanager
def looking_up(level: str = "required", *, backend: str = TOLD, **more: Any) -> Iterator[tuple[World, Late]]:
    dns = Late()
    with world(level, backend=backend, new_backend=taking_xclient, **more) as w:
        dialler = w.service._assembly.diallers["default"]
        if dialler.names is not None:
            dialler.names = dns.names = ClientNames(dns.ask, w.network, SECONDS)
        yield w, dns


def test_a_client_that_never_starts_tls_is_not_looked_up() -> None:
    with looking_up() as (w, dns):
        client = w.connect()
        client.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nQUIT\r\n")
        assert dns.asked == []


def test_the_lookup_runs_beside_the_handshake_and_the_backends_greeting() -> None:
    """Only XCLIENT waits; and so does the client, who may say what it likes meanwhile."""
    with looking_up() as (w, dns):
        client = w.connect()
        client.send(b"EHLO client.example\r\n").send(b"STARTTLS\r\n")
        assert dns.asked == ["PTR 7.2.0.192.in-addr.arpa"]
        assert w.backend.heard == EHLO
        client.handshake().heard()
        assert client.send(b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n").codes() == []
        dns.say("mx.client.example")
        assert dns.asked[1:] == ["A mx.client.example"]
        dns.say("192.0.2.7")
        w.settle()
        assert w.backend.heard.startswith(EHLO + xclient(b"mx.client.example") + b"EHLO client.example\r\n")
        assert client.codes() == [250, 250]


def test_a_name_that_is_known_by_then_delays_nothing() -> None:
    with looking_up() as (w, dns):
        client = w.connect()
        w.new_backend = lambda backend: (taking_xclient(backend), setattr(backend, "silent", True))  # type: ignore[assignment,return-value]
        client.send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
        dns.say("mx.client.example")
        dns.say("192.0.2.7")
        assert w.backend.heard == b""
        w.backend.silent = False
        w.settle()
        assert w.backend.heard == EHLO + xclient(b"mx.client.example")
        assert client.handshake().send(b"EHLO x\r\n").codes()[-1] == 250


@pytest.mark.parametrize("level", ["offered", "required"])
def test_a_dns_that_never_answers_holds_a_session_up_for_its_time_and_no_longer(level: str) -> None:
    with looking_up(level) as (w, dns):
        client = w.connect()
        if level == "required":
            client.starttls().heard()
        client.send(b"EHLO x\r\n")
        assert client.codes() == []
        w.settle(SECONDS - 0.5)
        assert client.codes() == []
        w.settle(0.5)
        assert w.backend.heard == EHLO + xclient(b"[TEMPUNAVAIL]") + b"EHLO x\r\n"
        assert client.codes()[-1] == 250
        assert dns.open == []
        if level == "offered":
            # The second dial of the session has its answer at once: that there is none.
            client.starttls().send(b"EHLO x\r\n")
            assert client.codes()[-1] == 250
            assert w.backend.heard == EHLO + xclient(b"[TEMPUNAVAIL]") + b"EHLO x\r\n"


@pytest.mark.parametrize("when", ["before the handshake", "after it"])
def test_a_client_that_goes_away_leaves_nothing(when: str) -> None:
    with looking_up() as (w, dns):
        before = len(w.network.getDelayedCalls())
        client = w.connect()
        client.send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
        if when == "after it":
            client.handshake().send(b"EHLO x\r\n")
        [waiting] = dns.waiting()
        assert len(waiting) == 1
        client.lose()
        assert w.backend.end.closed
        assert waiting == []
        dns.say()  # it is remembered, and nobody is told
        w.settle()
        assert w.backend.heard == EHLO
        assert len(w.network.getDelayedCalls()) == before


def test_insufficient_tls_ends_the_wait() -> None:
    with looking_up("verified_like", levels=WEAK) as (w, dns):
        client = w.connect()
        client.starttls()
        assert w.backend.end.closed
        dns.say()
        assert client.send(b"EHLO x\r\n").codes()[-1] == 554
        assert w.backend.heard == EHLO


def test_the_next_backend_is_told_what_was_found_for_the_first() -> None:
    with looking_up(second=True) as (w, dns):
        client = w.connect()
        client.starttls().heard()
        assert w.backend.port == BACKEND_PORT
        w.backend.end.close()
        w.settle()
        assert w.backend.port == SECOND_PORT
        assert w.backend.heard == EHLO
        dns.say()
        w.settle()
        assert w.backend.heard == EHLO + xclient(b"[UNAVAILABLE]")
        assert client.send(b"EHLO x\r\n").codes() == [250]
        assert len(dns.asked) == 1


def test_a_backend_that_hangs_up_on_the_wait_is_one_that_cannot_be_reached() -> None:
    with looking_up() as (w, dns):
        client = w.connect()
        client.starttls().heard()
        w.backend.say(b"421 4.4.2 timeout\r\n")
        w.settle()
        dns.say()
        assert client.send(b"EHLO x\r\n").codes() == [451]
        assert w.backend.heard == EHLO


@pytest.mark.parametrize("end", ["421", "close", "no answer"])
def test_a_backend_that_does_not_wait_so_long_is_not_down_for_others(end: str) -> None:
    """How long the wait is, is in the client's hands: its DNS is its own."""
    with looking_up(limits=f"backend_timeout_seconds = {SECONDS - 2}") as (w, _dns):
        client = w.connect()
        client.starttls().heard()
        if end == "421":
            w.backend.say(b"421 4.4.2 timeout\r\n")
        elif end == "close":
            w.backend.end.close()
        w.settle(SECONDS - 2)
        assert client.send(b"EHLO x\r\n").codes() == [451]
        assert w.records("backend-down") == []
        assert w.connect("192.0.2.8").codes() == [220]


def test_where_no_name_is_wanted_nobody_is_asked() -> None:
    with looking_up(backend='client_address = "xclient"') as (w, dns):
        client = w.connect()
        client.starttls().send(b"EHLO x\r\n")
        assert w.backend.heard == EHLO + xclient(b"[UNAVAILABLE]") + b"EHLO x\r\n"
        assert dns.asked == []
