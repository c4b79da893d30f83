"""
A gate as started by an operator, before a legacy server that dies, believes everything, or takes any newline for a line
end. Real sockets and real TLS, for what the tests in memory show at every octet and every cut.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.integration.gate import Gate, Identity, running
from tests.integration.processes import wait_until
from tests.integration.routes import TLS_MODES, Mode
from tests.integration.wire import Wire
from tests.support.legacy import Connection, Legacy, LegacyPort

SECONDS = 60.0
INJECTED = b"MAIL FROM:<injected@example.org>\r\nRCPT TO:<b@example.org>\r\n"
TRANSACTION = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
MESSAGE = b"Subject: one\r\n\r\n..dots\r\nlast line\r\n.\r\n"
VERBS = (
    *("HELO", "MAIL", "RCPT", "DATA", "RSET", "VRFY", "EXPN", "HELP", "AUTH", "ETRN", "TURN", "ATRN", "BURL"),
    *("XCLIENT", "XFORWARD", "PROXY", "SEND", "SOML", "SAML", "X-ANONYMOUSTLS", "FROBNICATE"),
)


@contextmanager
def before(legacy: LegacyPort, identity: Identity, folder: Path, **more: str) -> Iterator[Gate]:
    """
    Have a gate running, and *legacy* forget what the gate itself has asked it at the start.
    """
    keys = "accept_open_relay = true\nprobe_seconds = 0\n" + more.pop("keys", "")
    with running(Gate(folder, identity, legacy.port, backend_keys=keys, **more)) as gate:
        wait_until(lambda: legacy.connections, SECONDS, lambda: "the gate asked for no name")
        for connection in list(legacy.connections):
            assert connection.over.wait(SECONDS)
            assert connection.heard in {b"", b"QUIT\r\n"}
        legacy.connections.clear()
        yield gate


@pytest.fixture(scope="module")
def legacy() -> Iterator[LegacyPort]:
    with LegacyPort() as legacy:
        yield legacy


@pytest.fixture(scope="module")
def required(legacy: LegacyPort, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with before(legacy, identity, tmp_path_factory.mktemp("required")) as gate:
        yield gate


@pytest.fixture(scope="module")
def offered(legacy: LegacyPort, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with before(legacy, identity, tmp_path_factory.mktemp("offered"), level="offered") as gate:
        yield gate


@pytest.fixture(autouse=True)
def forget(legacy: LegacyPort) -> Iterator[None]:
    legacy.connections.clear()
    legacy.heard_max = legacy.said_max = None
    legacy.serve = Legacy
    yield
    assert all(connection.over.wait(SECONDS) for connection in list(legacy.connections)), "left alone"


def test_a_client_without_tls_is_not_heard_of(required: Gate, legacy: LegacyPort) -> None:
    """
    3207-05: every verb, in one group and in plaintext; the backend sees no connection at all.
    """
    with Wire(required.route("plain")) as wire:
        assert wire.reply().code == 220
        wire.send("".join(f"{verb} x\r\n" for verb in VERBS).encode() + b"BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n")
        assert wire.replies(len(VERBS) + 2) == [530] * (len(VERBS) + 1) + [250]
        wire.quit()
    with Wire(required.route("starttls")) as wire:
        # Whoever comes next is heard: the listener was there all the time.
        wire.greeted()
        wire.quit()
    assert [connection.heard for connection in legacy.connections] == [b"EHLO client.example\r\nQUIT\r\n"]


@pytest.mark.parametrize("level", ["required", "offered"])
@pytest.mark.parametrize(
    "packets",
    [
        [b"STARTTLS\r\n" + INJECTED],
        [b"STARTTLS\r\nMAIL FR", INJECTED[7:]],
        [b"STARTTLS\r\n", INJECTED],
        [b"STARTTLS\r", b"\n" + INJECTED],
        [b"NOOP\r\nSTARTTLS\r\n" + INJECTED + b"STARTTLS\r\n"],
        # The beginning of a ClientHello.
        [b"STARTTLS\r\n\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    ],
    ids=["one", "two", "behind the CRLF", "within the CRLF", "twice", "ClientHello"],
)
def test_what_comes_behind_starttls_in_plaintext_is_never_executed(
    level: str, packets: list[bytes], legacy: LegacyPort, request: pytest.FixtureRequest
) -> None:
    """
    3207-07, 3207-14: neither before TLS nor inside it, whatever way it is cut.
    """
    gate: Gate = request.getfixturevalue(level)
    with Wire(gate.route("plain")) as wire:
        wire.greeted()
        for packet in packets:
            wire.send(packet)
        said = wire.rest()
    assert b"OK to MAIL" not in said
    assert said.count(b"220") + said.count(b"554") >= 1
    assert all(connection.over.wait(SECONDS) for connection in list(legacy.connections))
    assert all(b"injected" not in connection.heard for connection in legacy.connections)


def test_what_comes_behind_the_220_is_never_executed(offered: Gate, legacy: LegacyPort) -> None:
    """
    3207-07: what is not a TLS handshake ends the session.
    """
    with Wire(offered.route("plain")) as wire:
        wire.greeted()
        assert wire.command("STARTTLS").code == 220
        wire.send(INJECTED * 20)
        assert b"250" not in wire.rest()
    assert all(b"injected" not in connection.heard for connection in legacy.connections)


def test_the_session_inside_tls_is_a_fresh_one(offered: Gate, legacy: LegacyPort) -> None:
    """
    3207-14, 3207-26: the transaction begun in plaintext is gone, and the connection it was begun on.
    """
    with Wire(offered.route("plain")) as wire:
        wire.greeted()
        wire.send(TRANSACTION)
        assert wire.replies(2) == [250, 250]
        assert wire.command("STARTTLS").code == 220
        wire.handshake()
        assert wire.command("EHLO client.example").code == 250
        wire.quit()
    # A dial of the test before, given up when the client's handshake failed, may be accepted only now: it says nothing.
    assert [connection.heard for connection in legacy.connections if connection.heard] == [
        b"EHLO client.example\r\n" + TRANSACTION + b"QUIT\r\n",
        b"EHLO client.example\r\nQUIT\r\n",
    ]


def whole_session(gate: Gate) -> list[bytes]:
    """
    Go through a session with one message; return the lines that the client got inside TLS, up to the close.
    """
    heard: list[bytes] = []
    with Wire(gate.route("plain")) as wire:
        for words in (b"EHLO client.example\r\n", b"STARTTLS\r\n"):
            wire.reply()
            wire.send(words)
        assert wire.reply().code == 220
        wire.handshake()
        for words, count in (
            (b"EHLO client.example\r\n", 1),
            (TRANSACTION + b"DATA\r\n", 3),
            (MESSAGE, 1),
            (b"QUIT\r\n", 1),
        ):
            wire.send(words)
            for _ in range(count):
                reply = wire.reply()
                heard.append(b"%d %b" % (reply.code, " ".join(reply.lines).encode()))
                if reply.code == 451:
                    # There was no backend to be had; the client may hear so as often as it likes.
                    wire.quit()
                    return heard
                if reply.code in {221, 421}:
                    assert wire.line() == "", "not closed"
                    return heard
                assert reply.code, f"closed without a word behind {heard}"
    raise AssertionError(heard)


@pytest.mark.parametrize("bound", ["said_max", "heard_max"])
def test_a_backend_that_dies_gives_no_250(bound: str, legacy: LegacyPort, identity: Identity, tmp_path: Path) -> None:
    """
    5321-06, 5321-23: killed here and there; at every octet in `tests/net/test_relay.py`.
    """
    with before(legacy, identity, tmp_path) as gate:
        assert whole_session(gate)[-2:] == [b"250 message 1 taken", b"221 Bye"]
        whole: Connection = legacy.connections[0]
        octets = len(whole.said if bound == "said_max" else whole.heard)
        for k in range(1, octets, octets // 12):
            legacy.connections.clear()
            setattr(legacy, bound, k)
            heard = whole_session(gate)
            victim = legacy.connections[0]
            assert victim.over.wait(SECONDS)
            if b"250 message 1 taken" in heard:
                assert b"250 message 1 taken\r\n" in victim.said, k
            assert heard[-1][:3] in {b"421", b"451", b"221"}, k
            setattr(legacy, bound, None)
            wait_until(lambda: not_down(gate), SECONDS, lambda: "the backend is not taken back")


def not_down(gate: Gate) -> bool:
    with Wire(gate.route("plain")) as wire:
        if wire.reply().code != 220:
            return False
        wire.quit()
        return True


def test_a_client_that_dies_leaves_no_message(required: Gate, legacy: LegacyPort) -> None:
    """
    5321-06: no end of data that the client did not send; and the backend is hung up.
    """
    words = MESSAGE[:-1]
    for k in range(1, len(words), len(words) // 8):
        with Wire(required.route("starttls")) as wire:
            wire.greeted()
            wire.send(TRANSACTION + b"DATA\r\n")
            assert wire.replies(3) == [250, 250, 354]
            wire.send(words[:k])
        victim = legacy.connections[-1]
        assert victim.over.wait(SECONDS)
        assert victim.legacy.messages == [], k


FORMS = (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r.\r\n")


@pytest.mark.parametrize("bare_newlines", ["normalize", "reject"])
def test_one_message_is_never_two(bare_newlines: str, legacy: LegacyPort, identity: Identity, tmp_path: Path) -> None:
    """
    5321-03: before a backend that takes every newline for a line end, the five forms of smuggling, whichever way in.
    """
    legacy.serve = lambda: Legacy(lenient=True)
    smuggled = b"MAIL FROM:<smuggled@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nboo\r\n.\r\n"
    keys = f'[message]\nbare_newlines = "{bare_newlines}"'
    modes: tuple[Mode, ...] = ("plain", *TLS_MODES)
    with before(legacy, identity, tmp_path, keys=keys, level="offered") as gate:
        for mode, form in product(modes, FORMS):
            with Wire(gate.route(mode)) as wire:
                wire.greeted()
                wire.send(TRANSACTION + b"DATA\r\n")
                assert wire.replies(3) == [250, 250, 354]
                wire.send(b"Subject: x\r\n\r\ntext" + form + smuggled)
                assert wire.reply().code == (554 if bare_newlines == "reject" else 250), form
                heard = legacy.connections[-1].legacy
                assert b"smuggled" not in b"".join(heard.commands), form
                assert len(heard.messages) == (0 if bare_newlines == "reject" else 1), form


def test_a_backend_that_talks_garbage_ends_the_session(required: Gate, legacy: LegacyPort) -> None:
    """
    5321-13, 5321-14: what is not the answer to a command is not passed on as one.
    """
    garbage: list[Callable[[], Legacy]] = [
        lambda: Legacy(answers={b"NOOP": b"garbage\r\n"}),
        lambda: Legacy(answers={b"NOOP": b"250 one\r\n250 two\r\n"}),
        lambda: Legacy(answers={b"NOOP": b"250-one\r\n251 two\r\n"}),
        lambda: Legacy(answers={b"NOOP": b"354 go\r\n"}),
        lambda: Legacy(answers={b"NOOP": b"250 " + b"x" * 100_000 + b"\r\n"}),
        lambda: Legacy(answers={b"NOOP": b"250 \x00\r\n"}),
    ]
    for serve in garbage:
        legacy.serve = serve
        with Wire(required.route("starttls")) as wire:
            wire.greeted()
            codes = [wire.command("NOOP").code]
            while codes[-1] and codes[-1] != 421:
                codes.append(wire.reply().code)
            assert codes[-1] == 421
            assert wire.line() == ""
