"""
Ways to a backend: what a client hears when there is none, and when the next one helps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.net.memory import Network
from tests.net.world import BACKEND_PORT, SECOND_PORT, Backend, Client, World, world
from tests.support.legacy import Legacy
from tlsgate.net.proxy_protocol.values import V2_SIGNATURE

DOWN = b"421 4.3.2 The mail server is not available, try again later\r\n"
UNREACHABLE = b"451 4.4.1 The mail server cannot be reached, try again later\r\n"
GREETING = b"220 legacy.example ESMTP\r\n"


def greeting(words: bytes) -> Callable[[Backend], None]:
    return lambda backend: setattr(backend, "legacy", Legacy(greeting=words))


def dying(backend: Backend) -> None:
    backend.said_max = 0


BROKEN: dict[str, Callable[[Backend], None] | None] = {
    "refused": None,
    "closed at once": dying,
    "greets with 554": greeting(b"554 go away\r\n"),
    "greets with 421": greeting(b"421 busy\r\n"),
    "greets with rubbish": greeting(b"HTTP/1.1 400 Bad Request\r\n"),
    "greets twice": greeting(GREETING + GREETING),
    "greets without end": greeting(b"220-x\r\n" * 100_000),
}


def break_it(w: World, how: str, port: int) -> None:
    """
    Have the backend on *port* broken from now on.
    """
    prepare = BROKEN[how]
    if prepare is None:
        w.network.answers[port] = "refuse"
    else:
        w.new_backend = lambda backend: prepare(backend) if backend.port == port else None


class TestNoBackend:
    @pytest.mark.parametrize("how", BROKEN)
    def test_where_tls_is_offered_421_comes_instead_of_a_greeting(self, how: str) -> None:
        with world("offered") as w:
            break_it(w, how, BACKEND_PORT)
            client = w.connect()
            assert client.heard() == DOWN
            w.settle(6)
            assert client.closed
            assert all(backend.end.closed for backend in w.backends)

    @pytest.mark.parametrize("how", BROKEN)
    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_where_tls_is_required_451_comes_inside_it(self, how: str, tls: str) -> None:
        """In the open nothing is said of it; inside, the client may try and QUIT."""
        with world(tls=tls) as w:
            break_it(w, how, BACKEND_PORT)
            client = w.connect()
            if tls == "starttls":
                client.starttls()
                client.heard()
                client.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
                assert client.heard() == UNREACHABLE.replace(b"4.4.1 ", b"") + UNREACHABLE
                assert client.send(b"QUIT\r\n").codes() == [221]
            else:
                client.handshake()
                assert client.heard() == DOWN
            w.settle(6)
            assert client.closed
            assert all(backend.end.closed for backend in w.backends)

    def test_while_it_is_known_to_be_down_nobody_waits_for_it(self) -> None:
        with world() as w:
            w.network.answers[BACKEND_PORT] = "refuse"
            w.connect().starttls().lose()
            dials = len(w.network.tcpClients)
            client = w.connect()
            assert client.heard() == DOWN
            assert client.closed
            assert len(w.network.tcpClients) == dials

    def test_it_is_taken_back_when_it_is_well_again(self) -> None:
        with world() as w:
            w.network.answers[BACKEND_PORT] = "refuse"
            w.connect().starttls().lose()
            w.settle(600)
            assert w.connect().heard() == DOWN
            w.network.answers[BACKEND_PORT] = "accept"
            for _ in range(61):
                w.settle(1)
            w.inside()


OFFERS_XCLIENT = (b"XCLIENT NAME ADDR", b"SIZE 0")


def xclient_gets(answer: bytes) -> Callable[[Backend], None]:
    """
    Return what makes a backend answer XCLIENT so; with nothing, it hangs up.
    """

    def prepare(backend: Backend) -> None:
        backend.legacy = Legacy(keywords=OFFERS_XCLIENT, answers={b"XCLI": answer})
        if not answer:
            backend.heard_max = len(b"EHLO mx.example.org\r\nXCLIENT ")

    return prepare


def heeding(words: bytes) -> Callable[[Backend], None]:
    """
    Return what makes a backend greet so, whoever it is told of.
    """
    answers = {b"PROX": b"", b"XCLI": b"220 well\r\n"}
    return lambda backend: setattr(backend, "legacy", Legacy(greeting=words, keywords=OFFERS_XCLIENT, answers=answers))


def greets_nobody(backend: Backend) -> None:
    backend.silent = True


class TestAClientThatTheBackendWillNotHave:
    """A backend that knows who the client is may not want, or not understand, this one; others it serves."""

    @pytest.mark.parametrize(
        ("client_address", "prepare"),
        [
            ("proxy-v1", dying),
            ("proxy-v1", heeding(b"554 go away\r\n")),
            ("xclient", xclient_gets(b"554 go away\r\n")),
            # So does a Postfix without IPv6 to an IPv6 address.
            ("xclient", xclient_gets(b"501 5.5.4 Bad ADDR syntax\r\n")),
            ("xclient", xclient_gets(b"")),
        ],
        ids=["closes", "greets with 554", "XCLIENT gets 554", "XCLIENT gets 501", "XCLIENT gets nothing"],
    )
    @pytest.mark.parametrize("level", ["offered", "required"])
    def test_it_stays_up_for_others(self, level: str, client_address: str, prepare: Callable[[Backend], None]) -> None:
        with conveying(client_address, level) as w:
            w.new_backend = prepare
            client = w.connect()
            if level == "required":
                client.starttls()
            assert client.send(b"EHLO x\r\n").codes()[-1] in {421, 451, 554}
            assert w.records("backend-failed")
            assert w.records("backend-down") == []
            w.new_backend = heeding(GREETING)
            w.inside()

    def test_the_gate_asks_for_itself_whether_it_is_up(self) -> None:
        """A second later, and even where backends that are up are not asked otherwise."""
        with conveying("proxy-v1") as w:
            w.new_backend = dying
            w.connect().starttls()
            assert w.records("backend-down") == []
            w.settle(1)
            assert len(w.records("backend-down")) == 1
            assert w.connect().heard() == DOWN
            w.new_backend = heeding(GREETING)
            w.settle(1)
            w.settle(1)
            w.inside()

    @pytest.mark.parametrize(
        ("client_address", "prepare"),
        [
            ("proxy-v1", greets_nobody),
            ("proxy-v1", heeding(b"HTTP/1.1 400 Bad Request\r\n")),
            ("xclient", dying),
            ("xclient", xclient_gets(b"550 5.7.0 not you\r\n")),
            ("none", dying),
            ("none", greeting(b"554 go away\r\n")),
        ],
        ids=["says nothing", "talks rubbish", "closes untold", "takes no XCLIENT", "never told", "never told, 554"],
    )
    def test_what_is_not_about_the_client_is_held_against_it(
        self, client_address: str, prepare: Callable[[Backend], None]
    ) -> None:
        with conveying(client_address) as w:
            w.new_backend = prepare
            w.connect().starttls()
            w.settle(301)
            assert w.records("backend-down")


@contextmanager
def conveying(
    client_address: str, level: str = "required", prepare: Callable[[Backend], None] | None = None
) -> Iterator[World]:
    """
    Have a gate whose backend is told of the client in that way.
    """
    with world(level) as w:
        w.config = w.config.replace("probe_seconds = 0", f'probe_seconds = 0\nclient_address = "{client_address}"')
        w.new_backend = prepare or heeding(GREETING)
        w.service.reload()
        w.settle(1)
        assert w.records("backend-down") == []
        w.backends.clear()
        yield w


class TestNextBackend:
    @pytest.mark.parametrize("how", BROKEN)
    @pytest.mark.parametrize("level", ["offered", "required"])
    def test_the_second_serves_when_the_first_does_not(self, how: str, level: str) -> None:
        with world(level, second=True) as w:
            break_it(w, how, BACKEND_PORT)
            client = w.connect()
            if level == "required":
                client.starttls()
                client.heard()
            assert client.send(b"EHLO x\r\n").codes()[-1] == 250
            assert w.backend.port == SECOND_PORT
            assert w.backend.heard == b"EHLO x\r\n"

    def test_the_first_is_the_first_choice(self) -> None:
        with world(second=True) as w:
            for _ in range(3):
                w.inside()
                assert w.backend.port == BACKEND_PORT

    def test_one_lost_in_a_session_is_not_replaced_within_it(self) -> None:
        """Nobody knows what the other one did with what it was told."""
        with world(second=True) as w:
            client = w.inside().send(b"MAIL FROM:<a@example.org>\r\n")
            client.heard()
            w.backend.end.reset()
            w.settle()
            assert client.heard() == b"421 4.4.2 Lost the connection to the mail server\r\n"
            assert len(w.backends) == 1


class TestAClientWithoutAddress:
    """It has come by a UNIX socket. A backend that is told nothing takes it for the gate, which it may trust."""

    @pytest.mark.parametrize("how", ["proxy-v1", "proxy-v2", "transparent"])
    def test_it_has_no_backend_that_must_be_told(self, how: str) -> None:
        with conveying(how, prepare=greets_nobody) as w:
            client = w.connect(None).starttls()
            assert client.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n").codes()[-2:] == [451, 451]
            assert w.backends == []
            (failure,) = w.records("backend-failed")
            assert "the client's address is not known, but must be told" in failure
            assert w.records("backend-down") == []

    def test_xclient_says_that_it_is_not_known(self) -> None:
        with conveying("xclient") as w:
            w.connect(None).starttls()
            assert b"ADDR=[UNAVAILABLE]" in w.backend.heard


class TestDialling:
    def test_the_dial_runs_beside_the_handshake(self) -> None:
        with world() as w:
            client = w.connect().send(b"EHLO x\r\n")
            assert w.backends == []
            client.send(b"STARTTLS\r\n")
            assert len(w.backends) == 1
            assert w.backend.said == GREETING

    @pytest.mark.parametrize(("how", "told"), [("xclient", b"XCLIENT "), ("proxy-v1", b"PROXY TCP4 ")])
    def test_one_that_is_told_of_the_client_is_told_beside_the_handshake(self, how: str, told: bytes) -> None:
        """A client waits for no round trip more than without it: the backend is the session's when TLS is there."""
        with conveying(how) as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            assert told in w.backend.heard
            assert w.backend.said.endswith(b"220 well\r\n" if how == "xclient" else GREETING)
            before = len(w.backend.heard)
            assert client.handshake().send(b"NOOP\r\n").codes()[-1] == 250
            assert w.backend.heard[before:] == b"NOOP\r\n"

    def test_one_that_is_told_of_the_handshake_is_dialled_behind_it(self) -> None:
        """It waits a few seconds for what it is told, and a client may take longer."""
        with conveying("proxy-v2", prepare=greets_nobody) as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            assert w.backends == []
            client.handshake()
            assert w.backend.heard.startswith(V2_SIGNATURE)
            assert b"TLSv1.3" in w.backend.heard

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_a_client_that_gives_up_leaves_no_connection(self, tls: str) -> None:
        with world(tls=tls) as w:
            w.network.answers[BACKEND_PORT] = "silence"
            client = w.connect()
            if tls == "starttls":
                client.send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            client.lose()
            assert w.network.connectors[-1].stoppedConnecting

    def test_a_client_that_gives_up_while_the_backend_thinks(self) -> None:
        with world("offered", new_backend=lambda backend: setattr(backend, "silent", True)) as w:
            client = w.connect()
            assert client.heard() == b""
            client.lose()
            w.settle(6)
            assert w.backend.end.closed

    def test_what_a_client_says_too_early_waits(self) -> None:
        """5321-13: its commands are answered after the greeting, in order."""
        with world("offered", new_backend=lambda backend: setattr(backend, "silent", True)) as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"NOOP\r\n")
            assert client.heard() == b""
            assert w.backend.heard == b""
            w.backend.silent = False
            w.settle()
            assert client.codes() == [220, 250, 250]

    def test_insufficient_tls_hangs_it_up_unheard(self) -> None:
        """3207-12: and the client's words never reached it."""
        with world("verified_like", levels=WEAK) as w:
            client: Client = w.connect().starttls()
            client.heard()
            assert client.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nNOOP\r\nQUIT\r\n").codes() == [554] * 3 + [221]
            w.settle(6)
            assert w.backend.heard in {b"", b"QUIT\r\n"}
            assert w.backend.end.closed


# More than any handshake achieves.
WEAK = '[[level]]\nname = "verified_like"\ngroups = ["secp521r1"]\n'


def test_the_kernel_of_these_tests_takes_what_it_has_room_for() -> None:
    """The network in memory is itself to be trusted: what does not fit stays with the sender."""
    with world() as w:
        assert isinstance(w.network, Network)
        client = w.connect()
        client.heard()
        client.end.room = 3
        client.send(b"NOOP\r\n")
        assert client.heard() == b"250"
        client.end.room = 100
        w.settle()
        assert client.heard() == b" 2.0.0 OK\r\n"


class TestWhatIsToldOfIt:
    def up(self, w: World, port: int = BACKEND_PORT) -> float | None:
        registry = w.service._witness.metrics.registry
        value: float | None = registry.get_sample_value("tlsgate_backend_up", {"backend": f"tcp:127.0.0.1:{port}"})
        return value

    def test_after_a_reload_all_are_in_rotation_again(self) -> None:
        """And an alarm for one that was down before ends, if it answers now."""
        with world() as w:
            w.network.answers[BACKEND_PORT] = "refuse"
            w.connect().starttls().lose()
            assert self.up(w) == 0
            w.network.answers[BACKEND_PORT] = "accept"
            w.service.reload()
            w.settle(1)
            w.inside()
            assert self.up(w) == 1

    def test_one_that_a_reload_brings_is_out_of_it_until_it_was_asked(self) -> None:
        with world() as w:
            w.config = w.config.replace(str(BACKEND_PORT), str(SECOND_PORT)).replace("accept_open_relay = true", "")
            w.new_backend = lambda backend: setattr(backend, "silent", True)
            w.service.reload()
            w.settle(1)
            assert w.connect().heard() == DOWN
            assert self.up(w, SECOND_PORT) == 0

    def test_news_from_before_a_reload_is_no_news(self) -> None:
        """It is of a time before whatever was mended, and nothing would ever contradict it."""
        with world() as w:
            w.new_backend = greets_nobody
            w.service.reload()
            w.settle(1)
            w.new_backend = lambda _: None
            w.service.reload()
            w.settle(301)
            assert w.records("backend-down") == []
            assert self.up(w) == 1
