"""
What happens when a side dies, or will not read: at whatever octet, and however long.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from OpenSSL import SSL

from tests.net.memory import READ_OCTETS
from tests.net.world import BACKEND_PORT, Backend, Client, World, world
from tests.support.handshake import client_connection
from tests.support.legacy import KEYWORDS, Legacy

TRANSACTION = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
MESSAGE = b"Subject: one\r\n\r\n..dots\r\nlast line\r\n.\r\n"
CHUNK = b"Subject: two\r\n\r\nin a chunk"

# What a client says inside TLS, and how many replies it then waits for.
PIPELINING: list[tuple[bytes, int]] = [
    (b"EHLO client.example\r\n", 1),
    (TRANSACTION + b"DATA\r\n", 3),
    (MESSAGE, 1),
    (TRANSACTION + b"BDAT %d LAST\r\n" % len(CHUNK) + CHUNK, 3),
    (b"RSET\r\nNOOP\r\n", 2),
    (b"QUIT\r\n", 1),
]
ONE_BY_ONE: list[tuple[bytes, int]] = [
    (line, 1)
    for line in [
        *[b"EHLO client.example\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n"],
        *[MESSAGE, b"NOOP\r\n", b"QUIT\r\n"],
    ]
]
DIALOGUES = {"pipelining": (PIPELINING, KEYWORDS), "one by one": (ONE_BY_ONE, (b"8BITMIME",))}

LIMITS = "sessions = 1\nsessions_per_client = 1\nhandshakes_in_flight = 1"


def replies(said: bytes) -> list[bytes]:
    """
    Return the whole replies in *said*.
    """
    return re.findall(rb"(?:[0-9]{3}-[^\r\n]*\r\n)*[0-9]{3}(?: [^\r\n]*)?\r\n", said)


def play(client: Client, dialogue: list[tuple[bytes, int]]) -> None:
    """
    Say everything in *dialogue* in turn, as long as the client is not told to stop.
    """
    for words, count in dialogue:
        client.send(words)
        news = replies(client.heard())
        if len(news) < count or client.closed or client.tls_over:
            return


def until_over(w: World, client: Client) -> None:
    """
    Let the session end, within the time that a close may take.
    """
    client._hear()
    w.settle(6)
    client._hear()


def assert_honest(backend: Backend, client: Client, what: str) -> None:
    """
    Law 5: the client has a 250 for a message only if the backend gave it; and otherwise it was told, and hung up.
    """
    given = replies(backend.said)
    for reply in replies(client.said):
        if b"taken" in reply:
            assert reply in given, f"{what}: {reply!r} out of nowhere"
    last = replies(client.said)[-1]
    assert last[:1] == b"4" or last[:3] == b"221", f"{what}: {client.said!r}"
    assert client.closed, f"{what}: not closed"


def healthy(keywords: tuple[bytes, ...]) -> Backend:
    """
    Return a backend connection as a whole session leaves it.
    """
    with world() as w:
        w.new_backend = lambda backend: setattr(backend, "legacy", Legacy(keywords=keywords))
        client = w.connect().starttls()
        client.heard()
        play(client, ONE_BY_ONE if b"PIPELINING" not in keywords else PIPELINING)
        until_over(w, client)
        assert client.closed
        return w.backends[0]


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("bound", ["said_max", "heard_max"])
@pytest.mark.parametrize("level", ["required", "offered"])
def test_the_backend_dies_at_every_octet(dialogue: str, bound: str, level: str) -> None:
    """
    5321-05, 5321-06, 5321-23: wherever a backend dies, behind what it has heard or within what it says, the client gets
    no 250 for a message that the backend did not give, but a 421 or 451 and a close. And the next session is served.
    """
    lines, keywords = DIALOGUES[dialogue]
    whole = healthy(keywords)
    octets = len(whole.said if bound == "said_max" else whole.heard)
    assert octets > 100
    with world(level, limits=LIMITS) as w:
        for k in range(octets):
            if bound == "heard_max" and k == 0:
                continue

            def dying(backend: Backend, k: int = k) -> None:
                backend.legacy = Legacy(keywords=keywords)
                setattr(backend, bound, k)

            w.new_backend = dying
            w.backends.clear()
            client = w.connect()
            if level == "required":
                client.starttls()
                client.heard()
            elif client.codes() == [421]:
                until_over(w, client)
                assert client.closed
                recover(w, keywords)
                continue
            play(client, lines)
            victim = w.backends[0]
            until_over(w, client)
            assert_honest(victim, client, f"{bound} {k}")
            assert victim.end.closed
            recover(w, keywords)


def recover(w: World, keywords: tuple[bytes, ...]) -> None:
    """
    Have the backend well again, and noticed to be.
    """
    w.new_backend = lambda backend: setattr(backend, "legacy", Legacy(keywords=keywords))
    w.settle(1)
    w.settle(1)
    w.settle(1)


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("tls", [True, False], ids=["inside TLS", "in plaintext"])
def test_the_client_dies_at_every_octet(dialogue: str, how: str, *, tls: bool) -> None:
    """
    5321-06: a message that the client did not end is never ended for it; and the backend is not left alone with it.
    """
    lines, keywords = DIALOGUES[dialogue]
    words = b"".join(said for said, _ in lines)
    ends = {len(b"".join(said for said, _ in lines[: number + 1])) for number in range(len(lines))}
    with world("required" if tls else "offered", limits=LIMITS) as w:
        w.new_backend = lambda backend: setattr(backend, "legacy", Legacy(keywords=keywords))
        for k in range(len(words)):
            w.backends.clear()
            client = w.connect()
            if tls:
                client.starttls()
            for part in parts(words[:k], ends):
                client.send(part)
            getattr(client.end, how)()
            w.settle(6)
            assert client.closed, k
            (backend,) = w.backends
            assert backend.end.closed, k
            whole = [message for message in (b"Subject: one\r\n\r\n..dots\r\nlast line", CHUNK) if message in words[:k]]
            assert len(backend.legacy.messages) <= len(whole), f"{k}: {backend.legacy.messages}"
            if MESSAGE not in words[:k]:
                assert backend.legacy.messages == [], k


def parts(words: bytes, ends: set[int]) -> Iterator[bytes]:
    edges = [0, *sorted(end for end in ends if end < len(words)), len(words)]
    for begin, end in pairwise(edges):
        yield words[begin:end]


class TestBackPressure:
    """2920-13: no side is read from faster than the other takes; what is held meanwhile is bounded."""

    # A chunk of TLS in Twisted's hands, the buffer that made it stop, and what is read at once.
    HELD_MAX = 3 * READ_OCTETS + 65_536

    def test_a_slow_backend_pauses_the_client(self) -> None:
        """
        2920-13: whatever a client sends ahead waits in its own TCP window.
        """
        with world() as w:
            client = w.inside().send(TRANSACTION).send(b"DATA\r\n")
            w.backend.end.room = 0
            client.push(b"x" * 998 + b"\r\n")
            client.push((b"x" * 998 + b"\r\n") * 5_000)
            w.settle()
            assert len(client.end.sending) > 5_000_000 - self.HELD_MAX
            w.backend.end.room = 1 << 40
            w.settle()
            assert not client.end.sending
            client.send(b".\r\n")
            assert client.codes()[-1] == 250
            assert w.backend.legacy.messages == [((b"x" * 998 + b"\r\n") * 5_001)[:-2]]

    def test_however_little_the_backend_takes_at_a_time(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION).send(b"DATA\r\n")
            w.backend.end.room = 0
            message = b"".join(b"%d\r\n" % number for number in range(25_000))
            client.push(message + b".\r\n")
            for _ in range(200):
                w.backend.end.room += 1_000
                w.settle()
            client._hear()
            assert w.backend.legacy.messages == [message[:-2]]
            assert client.codes()[-1] == 250

    @pytest.mark.parametrize("tls", [True, False], ids=["inside TLS", "in plaintext"])
    def test_a_client_that_reads_nothing_is_not_read_from(self, *, tls: bool) -> None:
        """Every command is answered by more octets than it has: the answers lie in the client's buffer."""
        with world("required" if tls else "offered") as w:
            client = w.inside() if tls else w.connect().send(b"EHLO x\r\n")
            client.heard()
            client.end.room = 0
            client.push(b"NOOP\r\n" * 80_000)
            w.settle()
            assert len(client.end.sending) > 480_000 - self.HELD_MAX
            client.end.room = 1 << 40
            w.settle()
            assert client.codes() == [250] * 80_000

    def test_one_that_only_gets_refusals_is_not_read_from_either(self) -> None:
        with world(limits="commands_before_tls_max = 100000\nerrors_max = 100000") as w:
            client = w.connect()
            client.end.room = 0
            client.push(b"RSET\r\n" * 50_000)
            w.settle()
            assert len(client.end.sending) > 100_000
            client.end.room = 1 << 40
            w.settle()
            assert client.codes() == [220] + [530] * 50_000

    def test_a_backend_is_not_read_from_while_the_client_does_not_read(self) -> None:
        """A HELP of a megabyte, again and again: it stays in the backend."""
        with world(limits="reply_octets_max = 1048576\nreply_lines_max = 10000") as w:
            client = w.inside()
            line = b"214-" + b"x" * 70 + b"\r\n"
            w.backend.legacy.answers[b"HELP"] = line * 5_000 + b"214 end\r\n"
            client.end.room = 0
            client.push(b"HELP\r\n" * 12)
            w.settle()
            assert len(w.backend.end.sending) > 3_500_000
            client.end.room = 1 << 40
            w.settle()
            assert client.codes() == [214] * 12

    def test_one_reason_does_not_undo_the_other(self) -> None:
        """The client's buffer empties while the backend's is full: the client is still not read from."""
        with world() as w:
            client = w.inside()
            w.backend.legacy.answers[b"HELP"] = b"214-" + b"x" * 70 + b"\r\n214 end\r\n"
            client.end.room = 0
            client.push(b"HELP\r\n" * 1_000)
            w.settle()
            client.push(TRANSACTION + b"BDAT 3000000 LAST\r\n" + b"x" * 3_000_000)
            client.end.room = 1 << 40
            w.backend.end.room = 10_000
            w.settle()
            left = len(client.end.sending)
            assert left > 2_000_000
            w.settle(10)
            assert len(client.end.sending) == left
            w.backend.end.room = 1 << 40
            w.settle()
            client.heard()
            assert not client.end.sending
            assert [len(message) for message in w.backend.legacy.messages] == [3_000_000]

    def test_a_client_that_talks_ahead_of_the_answer_is_bounded(self) -> None:
        """Behind DATA nobody knows what comes next, until the backend has answered."""
        with world() as w:
            client = w.inside().send(TRANSACTION)
            w.backend.silent = True
            client.push(b"DATA\r\n" + b"x" * 3_000_000)
            w.settle()
            assert len(client.end.sending) > 3_000_000 - self.HELD_MAX
            w.backend.silent = False
            w.settle()
            assert not client.end.sending
            client.send(b"\r\n.\r\n")
            assert client.codes()[-1] == 250
            assert [len(message) for message in w.backend.legacy.messages] == [3_000_000]

    def test_a_backend_that_dies_full_does_not_leave_the_client_paused(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION).send(b"DATA\r\n")
            client.heard()
            w.backend.end.room = 0
            client.push(b"x" * 1_000_000)
            w.settle()
            w.backend.end.reset()
            w.settle()
            assert client.codes() == [421]
            goodbye(w, client)
            assert client.closed
            assert not client.end.aborted


class TestClosing:
    """Under TLS a close waits for whoever fills the buffer: nobody must be left who does."""

    @pytest.mark.parametrize("last", [b"QUIT\r\n", b"x" * 20_000 + b"\r\n"], ids=["QUIT", "one error too many"])
    def test_a_session_in_tls_closes_at_once(self, last: bytes) -> None:
        """
        8314-08: with close_notify first.
        """
        with world(limits="errors_max = 3") as w:
            client = w.inside()
            client.push(last * 3 if len(last) > 100 else last)
            w.settle()
            assert client.codes()[-1] in {221, 421}
            assert client.tls_over, "no close_notify"
            goodbye(w, client)
            assert client.closed
            assert not client.end.aborted
            assert w.backend.end.closed

    def test_the_backend_is_closed_as_well_where_it_does_not_close(self) -> None:
        with world() as w:
            client = w.inside()
            w.backend.silent = True
            client.lose()
            w.settle(6)
            assert w.backend.end.closed

    def test_a_backend_that_will_not_take_the_quit_is_dropped(self) -> None:
        with world() as w:
            client = w.inside()
            w.backend.end.room = 0
            client.lose()
            w.settle(4.9)
            assert not w.backend.end.closed
            w.settle(0.2)
            assert w.backend.end.closed


class TestStartTls:
    """3207-07, 3207-14: nothing said in plaintext has any effect inside TLS."""

    INJECTED = b"MAIL FROM:<injected@example.org>\r\nRCPT TO:<b@example.org>\r\n"

    def assert_nothing_injected(self, w: World) -> None:
        assert all(b"injected" not in backend.heard for backend in w.backends)

    @pytest.mark.parametrize("level", ["required", "offered"])
    @pytest.mark.parametrize("cut", [0, 1, 9, 20])
    def test_one_packet_or_two(self, level: str, cut: int) -> None:
        with world(level) as w:
            client = w.connect().send(b"EHLO x\r\n")
            client.heard()
            words = b"STARTTLS\r\n" + self.INJECTED
            client.send(words[: 10 + cut])
            if client.said.endswith(b"220 2.0.0 Ready to start TLS\r\n"):
                client.end.sending += words[10 + cut :]
                w.settle()
            client._hear()
            w.settle(31)
            w.settle(6)
            client._hear()
            assert client.closed
            assert b"250 OK to MAIL" not in client.said
            self.assert_nothing_injected(w)

    @pytest.mark.parametrize("level", ["required", "offered"])
    def test_a_handshake_in_the_same_packet_is_plaintext_too(self, level: str) -> None:
        """Nobody knows who wrote the octets behind STARTTLS: not even a ClientHello is taken from there."""
        with world(level) as w:
            client = w.connect().send(b"EHLO x\r\n")
            client.heard()
            client.send(b"STARTTLS\r\n" + hello())
            assert client.heard() == b"554 5.5.0 Plaintext behind STARTTLS; nothing of it was executed\r\n"
            w.settle(6)
            assert client.closed

    def test_the_transaction_before_is_gone_and_with_it_the_connection(self) -> None:
        with world("offered") as w:
            client = w.connect().send(b"EHLO x\r\n" + TRANSACTION)
            client.starttls()
            first, second = w.backends
            assert first.heard.endswith(b"QUIT\r\n")
            assert first.end.closed
            assert second.heard == b""
            client.send(b"EHLO y\r\nDATA\r\n")
            assert second.heard == b"EHLO y\r\nDATA\r\n"

    def test_while_the_reply_to_a_command_before_it_is_outstanding(self) -> None:
        with world("offered") as w:
            client = w.connect().send(b"EHLO x\r\n")
            client.heard()
            w.backend.silent = True
            client.send(b"RSET\r\nSTARTTLS\r\n").send(self.INJECTED)
            assert client.heard() == b""
            w.backend.silent = False
            w.settle()
            assert client.codes() in ([250, 554], [250, 220, 554])
            w.settle(6)
            assert client.closed
            self.assert_nothing_injected(w)


def goodbye(w: World, client: Client) -> None:
    """
    Answer the gate's close_notify.
    """
    assert client.tls is not None
    client.tls.shutdown()
    client._flush()
    w.settle()


def hello() -> bytes:
    """
    Return a ClientHello.
    """
    connection = client_connection()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(1 << 16)


def test_the_backend_never_hears_of_a_client_before_tls() -> None:
    """3207-05: level `required`, every verb: not even a connection is made."""
    verbs = [
        *("HELO", "MAIL", "RCPT", "DATA", "RSET", "VRFY", "EXPN", "HELP", "AUTH", "BDAT", "ETRN", "TURN", "XCLIENT"),
        *("XFORWARD", "PROXY", "FOO", "NOOP", "EHLO", "QUIT"),
    ]
    with world(limits="commands_before_tls_max = 1000") as w:
        client = w.connect()
        client.heard()
        for verb in verbs:
            client.send(f"{verb} 0\r\n".encode())
            expected = {"NOOP": 250, "EHLO": 250, "QUIT": 221}.get(verb, 530)
            assert client.codes() == [expected], verb
        assert w.backends == []
        assert w.network.tcpClients[-1][1] == BACKEND_PORT
        assert len(w.network.tcpClients) == 1  # the gate's own question at the start


class TestSmuggling:
    """5321-03: to a backend that takes any newline for a line end, one message is never two."""

    FORMS = (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n\r.\n")
    SMUGGLED = b"MAIL FROM:<smuggled@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nboo\r\n.\r\n"

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("bare_newlines", ["normalize", "reject"])
    def test_every_form_at_every_cut(self, form: bytes, bare_newlines: str) -> None:
        message = b"Subject: x\r\n\r\ntext" + form + self.SMUGGLED
        body = message[: message.index(self.SMUGGLED) + 4]
        with world(bare_newlines=bare_newlines) as w:
            w.new_backend = lambda backend: setattr(backend, "legacy", Legacy(lenient=True))
            for cut in range(10, len(body)):
                client = w.inside().send(TRANSACTION).send(b"DATA\r\n")
                client.send(message[:cut]).send(message[cut:])
                (last,) = client.codes()[-1:]
                legacy = w.backend.legacy
                assert b"smuggled" not in b"".join(legacy.commands), cut
                if bare_newlines == "reject":
                    assert last == 554, cut
                    assert legacy.messages == [], cut
                else:
                    assert last == 250, cut
                    assert len(legacy.messages) == 1, cut
                    assert b"smuggled" in legacy.messages[0]
                client.lose()
                w.settle(6)


def test_a_journal_line_for_each_session_that_was_cut_off() -> None:
    """What the gate cuts off when it must stop is written down as well."""
    with world(limits="drain_timeout_seconds = 7") as w:
        w.inside().send(TRANSACTION)
        w.service.stopService()
        w.settle(8)
        w.settle(1)
        assert len(w.records("session")) == 1
