"""
Every timeout ends a session at its time and not before, and in the right words (RFC 5321 section 4.5.3.2).

The numbers are the defaults: what an operator gets who configures nothing.
"""

from collections.abc import Callable

import pytest

from tests.net.world import BACKEND_PORT, SECOND_PORT, Backend, Client, World, world

TRANSACTION = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
SILENT = b"421 4.4.2 Timeout, closing the connection\r\n"
NOT_ANSWERED = b"421 4.4.2 The mail server did not answer in time\r\n"
TOO_SLOW = b"421 4.4.2 Message data arrives too slowly\r\n"


def assert_ends(world: World, client: Client, seconds: float, reply: bytes) -> None:
    """
    Nothing happens for almost *seconds*; then the client gets *reply*, and is hung up.
    """
    client.heard()
    world.settle(seconds - 0.01)
    assert client.heard() == b""
    assert not client.closed
    assert not client.tls_over
    world.settle(0.02)
    assert client.heard() == reply
    world.settle(5)
    assert client.closed


def quiet(backend: Backend) -> None:
    backend.silent = True


def in_message(world: World) -> Client:
    client = world.inside()
    client.send(TRANSACTION).send(b"DATA\r\n")
    assert client.codes() == [250, 250, 354]
    return client


SITUATIONS: dict[str, Callable[[World], Client]] = {
    "just connected": lambda world: world.connect(),
    "half a command in plaintext": lambda world: world.connect().send(b"EHL"),
    "inside TLS": lambda world: world.inside(),
    "half a command inside TLS": lambda world: world.inside().send(b"MAIL FR"),
    "in a transaction": lambda world: world.inside().send(TRANSACTION),
    "in a message": lambda world: in_message(world).send(b"half a line"),
    "in a chunk": lambda world: world.inside().send(TRANSACTION + b"BDAT 10 LAST\r\n12345"),
}


class TestClient:
    """5321-22: a client has five minutes for its next command."""

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_a_silent_client_is_told_and_hung_up(self, situation: str) -> None:
        with world() as w:
            client = SITUATIONS[situation](w)
            assert_ends(w, client, 300, SILENT)
            assert all(backend.end.closed for backend in w.backends)

    def test_each_word_gives_it_five_minutes_more(self) -> None:
        with world() as w:
            client = w.inside()
            for _ in range(5):
                w.settle(290)
                client.send(b"NOOP\r\n")
                assert client.codes() == [250]
            assert_ends(w, client, 300, SILENT)

    def test_a_command_that_trickles_in_has_five_minutes_as_a_whole(self) -> None:
        """
        5321-22: the five minutes are for the next command, not for the next octet.
        """
        with world() as w:
            client = w.inside()
            for octet in b"NOO":
                client.send(bytes([octet]))
                w.settle(99)
            assert_ends(w, client, 3, SILENT)


class TestHandshake:
    def test_a_handshake_that_never_comes(self) -> None:
        """3207-08: half a minute, then a close without a word: the client waits for TLS, not for a reply."""
        with world() as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            assert_ends(w, client, 30, b"")
            assert all(backend.end.closed for backend in w.backends)
            assert len(w.records("handshake-failed")) == 1

    def test_a_handshake_that_stops_half_way(self) -> None:
        with world(tls="implicit") as w:
            client = w.connect().send(b"\x16\x03\x01\x02\x00\x01")
            assert_ends(w, client, 30, b"")

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_what_the_backend_does_gives_it_no_more_time(self, tls: str) -> None:
        with world(tls=tls, new_backend=quiet) as w:
            client = w.connect()
            if tls == "starttls":
                client.send(b"EHLO x\r\n").send(b"STARTTLS\r\n").heard()
            w.settle(20)
            w.backend.silent = False
            w.settle()
            assert w.backend.said
            assert_ends(w, client, 10, b"")


class TestBackend:
    """5321-21: a backend has as long as any server has."""

    def test_no_answer_to_a_command(self) -> None:
        with world() as w:
            client = w.inside()
            w.backend.silent = True
            client.send(b"NOOP\r\n")
            assert_ends(w, client, 300, NOT_ANSWERED)
            assert w.backend.end.closed

    def test_ten_minutes_for_a_message(self) -> None:
        """
        5321-21: a client that gave up earlier would send again what the backend has accepted.
        """
        with world() as w:
            client = in_message(w)
            w.backend.silent = True
            client.send(b"Hello\r\n.\r\n")
            assert_ends(w, client, 600, NOT_ANSWERED)
            assert w.backend.end.closed

    def test_ten_minutes_for_the_last_chunk(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION)
            w.backend.silent = True
            client.send(b"BDAT 5 LAST\r\nHello")
            assert_ends(w, client, 600, NOT_ANSWERED)

    def test_a_late_answer_is_an_answer(self) -> None:
        with world() as w:
            client = in_message(w)
            w.backend.silent = True
            client.send(b"Hello\r\n.\r\n")
            w.settle(599)
            w.backend.say(b"250 at last\r\n")
            w.settle()
            assert client.heard() == b"250 at last\r\n"
            assert_ends(w, client, 300, SILENT)

    def test_a_client_that_goes_on_talking_gives_it_no_more_time(self) -> None:
        """Else a hung backend and a patient client keep each other for ever."""
        with world() as w:
            client = w.inside()
            w.backend.silent = True
            for _ in range(3):
                client.send(b"NOOP\r\n")
                w.settle(99)
            assert_ends(w, client, 3, NOT_ANSWERED)

    def test_no_greeting_where_tls_is_offered(self) -> None:
        """The client is not greeted either: 421 comes instead of a greeting."""
        with world("offered", new_backend=quiet) as w:
            client = w.connect()
            w.settle(299)
            assert client.heard() == b""
            w.settle(2)
            assert client.codes() == [421]
            w.settle(5)
            assert client.closed
            assert w.backends[0].end.closed

    def test_no_greeting_where_tls_is_required(self) -> None:
        with world(new_backend=quiet) as w:
            client = w.connect().starttls()
            client.heard()
            client.send(b"EHLO x\r\n")
            w.settle(299)
            assert client.heard() == b""
            w.settle(2)
            (code,) = client.codes()
            assert code in {421, 451}
            assert w.backends[0].end.closed

    def test_no_connection(self) -> None:
        """Half a minute for each, then the next one is tried."""
        with world("offered", second=True) as w:
            w.network.answers = {BACKEND_PORT: "silence", SECOND_PORT: "accept"}
            client = w.connect()
            w.settle(29.9)
            assert client.heard() == b""
            w.settle(0.2)
            assert client.heard() == b"220 legacy.example ESMTP\r\n"
            assert w.backend.port == SECOND_PORT
            [down] = w.records("backend-down")
            assert '"reason":"no connection in time"' in down

    def test_a_backend_that_accepts_and_hangs_is_not_the_last_word(self) -> None:
        """A hung process still accepts connections: its neighbour is asked while the client is still there."""
        with world("offered", second=True) as w:
            w.new_backend = lambda backend: quiet(backend) if backend.port == BACKEND_PORT else None
            client = w.connect()
            w.settle(299.9)
            assert client.heard() == b""
            w.settle(0.2)
            assert client.heard() == b"220 legacy.example ESMTP\r\n"
            assert w.backend.port == SECOND_PORT


class TestSlowSides:
    """Whoever waits is not the one who is slow."""

    def test_a_client_paused_by_a_slow_backend_is_not_timed_out(self) -> None:
        with world(limits="backend_timeout_seconds = 1000") as w:
            client = in_message(w)
            w.backend.end.room = 0
            client.send(b"x" * 300_000 + b"\r\n")
            assert client.end.sending, "not paused"
            w.settle(600)
            assert client.heard() == b""
            assert not client.closed
            w.backend.end.room = 1 << 40
            w.settle()
            client.send(b".\r\n")
            assert client.codes() == [250]

    def test_its_five_minutes_begin_when_it_is_read_again(self) -> None:
        with world() as w:
            client = in_message(w)
            w.backend.end.room = 0
            # So much that it is paused, but with nothing more to read.
            client.send(b"x" * 66_000)
            assert not client.end.sending
            w.settle(290)
            w.backend.end.room = 1 << 40
            w.settle()
            assert_ends(w, client, 300, SILENT)

    def test_a_backend_that_takes_nothing_at_all_ends_the_session(self) -> None:
        with world() as w:
            client = in_message(w)
            w.backend.end.room = 0
            client.send(b"x" * 300_000)
            assert_ends(w, client, 300, NOT_ANSWERED)
            assert w.backend.end.closed
            assert w.backend.legacy.messages == []

    def test_a_client_that_does_not_take_the_last_reply_is_dropped(self) -> None:
        with world() as w:
            client = w.connect()
            client.end.room = 0
            client.send(b"QUIT\r\n")
            w.settle(4.9)
            assert not client.closed
            w.settle(0.2)
            assert client.closed
            assert client.end.aborted

    def test_a_client_that_does_not_say_goodbye_in_tls_is_dropped(self) -> None:
        with world() as w:
            client = w.inside()
            client.send(b"QUIT\r\n")
            assert client.codes() == [221]
            assert client.tls_over
            w.settle(4.9)
            assert not client.closed
            w.settle(0.2)
            assert client.closed


class TestDataRate:
    """A message must not trickle: less than 100 octets a second, over a minute, ends the session."""

    def trickle(self, w: World, client: Client, octets: int, seconds: int, each: int = 10) -> None:
        for _ in range(0, seconds, each):
            w.settle(each)
            if client.closed or client.tls_over:
                return
            client.send(b"x" * octets * each)

    def test_too_slow(self) -> None:
        with world() as w:
            client = in_message(w).send(b"x")
            self.trickle(w, client, 95, 50)
            assert client.heard() == b""
            self.trickle(w, client, 95, 10)
            assert client.heard() == TOO_SLOW
            w.settle(5)
            assert client.closed
            assert w.backend.end.aborted
            assert w.backend.legacy.messages == []

    def test_fast_enough(self) -> None:
        with world() as w:
            client = in_message(w).send(b"x")
            self.trickle(w, client, 105, 600)
            client.send(b"\r\n.\r\n")
            assert client.codes() == [250]

    def test_a_chunk_must_not_trickle_either(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION + b"BDAT 1000000 LAST\r\nx")
            client.heard()
            self.trickle(w, client, 1, 70)
            assert client.heard() == TOO_SLOW

    def test_fast_for_a_while_and_slow_then_is_too_slow(self) -> None:
        with world() as w:
            client = in_message(w).send(b"x" * 1_000_000)
            self.trickle(w, client, 1, 140)
            assert client.heard() == TOO_SLOW

    def test_off(self) -> None:
        with world(limits="data_rate_octets_per_second_min = 0") as w:
            client = in_message(w).send(b"x")
            self.trickle(w, client, 1, 1200, each=100)
            client.send(b"\r\n.\r\n")
            assert client.codes() == [250]

    def test_a_backend_that_takes_its_time_is_not_the_clients_fault(self) -> None:
        """The seconds in which nothing of the client's was wanted do not count, in the next message neither."""
        with world() as w:
            client = in_message(w)
            w.backend.silent = True
            # The end of one message and the next transaction in one chunk, as a pipelining client sends them.
            client.send(b"Hello\r\n.\r\n" + TRANSACTION + b"DATA\r\n")
            w.settle(250)
            w.backend.silent = False
            w.settle()
            assert client.codes() == [250, 250, 250, 354]
            client.send(b"The second message\r\n")
            assert client.heard() == b""

    def test_time_in_which_the_client_was_paused_does_not_count(self) -> None:
        with world() as w:
            client = in_message(w).send(b"x")
            w.backend.end.room = 0
            client.send(b"x" * 300_000)
            assert client.end.sending, "not paused"
            w.settle(250)
            w.backend.end.room = 1 << 40
            w.settle()
            client.send(b"x")
            w.settle(30)
            client.send(b"x")
            assert client.heard() == b""
            assert not client.closed


def test_nothing_is_left_to_happen_after_a_session() -> None:
    """A timer that outlives its session is a leak, and fires into the void."""
    with world() as w:
        w.settle(10)
        before = len(w.network.getDelayedCalls())
        for situation in SITUATIONS.values():
            situation(w).lose()
        w.settle(5)
        assert len(w.network.getDelayedCalls()) == before
