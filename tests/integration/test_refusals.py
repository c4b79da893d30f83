"""
Whoever does not reach the level is refused in SMTP's own words, and the backend hears none of theirs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from attrs import frozen

from tests.integration.gate import Gate, Identity, running
from tests.integration.openssl import SClient
from tests.integration.recorder import Recorder
from tests.integration.routes import TLS_MODES, Mode
from tests.integration.wire import CLIENT_NAME, Reply, Wire

NAME = "gate.example"
UNPROBED = "probe_seconds = 0"

modes = pytest.mark.parametrize("mode", TLS_MODES)

# Every verb there is, an unknown one, and a line that is no command.
COMMANDS = {
    "EHLO": b"EHLO client.example\r\n",
    "HELO": b"HELO client.example\r\n",
    "LHLO": b"LHLO client.example\r\n",
    "MAIL": b"MAIL FROM:<sender@client.example>\r\n",
    "RCPT": b"RCPT TO:<bob@inbox.example>\r\n",
    "DATA": b"DATA\r\n",
    "BDAT": b"BDAT 12 LAST\r\nMAIL FROM:\r\n",
    "RSET": b"RSET\r\n",
    "NOOP": b"NOOP\r\n",
    "VRFY": b"VRFY bob\r\n",
    "EXPN": b"EXPN all\r\n",
    "HELP": b"HELP\r\n",
    "ETRN": b"ETRN inbox.example\r\n",
    "AUTH": b"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n",
    "unknown": b"XYZZY now\r\n",
}
BEFORE_TLS = {"EHLO", "NOOP"}


@frozen
class Shape:
    """
    A TLS client: what s_client is told, what the handshake comes to, and the reason for which `strong` refuses it.
    """

    options: tuple[str, ...]
    version: str
    cipher: str
    reason: str


# RFC 9325 does not forbid these, so the default floor lets them in; the level does not.
WEAK = {
    "CBC": Shape(("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"), "TLSv1.2", "ECDHE-RSA-AES128-SHA", "has no AEAD"),
    "static-RSA": Shape(
        ("-tls1_2", "-cipher", "AES128-GCM-SHA256"), "TLSv1.2", "AES128-GCM-SHA256", "has no forward secrecy"
    ),
    "static-RSA-CBC": Shape(("-tls1_2", "-cipher", "AES128-SHA"), "TLSv1.2", "AES128-SHA", "has no forward secrecy"),
}
ANCIENT = {
    "TLSv1.0": Shape(
        ("-tls1", "-cipher", "ECDHE-RSA-AES256-SHA:@SECLEVEL=0"), "TLSv1", "ECDHE-RSA-AES256-SHA", "is too old"
    ),
    "TLSv1.1": Shape(("-tls1_1", "-cipher", "AES256-SHA:@SECLEVEL=0"), "TLSv1.1", "AES256-SHA", "is too old"),
    "anonymous-DH": Shape(
        ("-tls1_2", "-cipher", "ADH-AES128-GCM-SHA256:@SECLEVEL=0"), "TLSv1.2", "ADH-AES128-GCM-SHA256", "is anonymous"
    ),
}


def shapes(table: Mapping[str, Shape]) -> pytest.MarkDecorator:
    """
    Run the test with each of these TLS clients.
    """
    return pytest.mark.parametrize("shape", table.values(), ids=table)


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """
    The backend that hears nothing.
    """
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(autouse=True)
def silence(recorder: Recorder) -> Iterator[None]:
    """
    Whatever a test does here, not one of the client's words may have reached the backend.

    A gate that ends a session it has begun with the backend may say QUIT.
    """
    recorder.heard()
    yield
    assert {line for one in recorder.heard() for line in one.lines} <= {b"QUIT\r\n"}


@pytest.fixture(scope="module")
def required(recorder: Recorder, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """
    A gate of level `required`.
    """
    with before(
        recorder,
        Gate(tmp_path_factory.mktemp("required"), identity, recorder.port, hostname=NAME, backend_keys=UNPROBED),
    ) as gate:
        yield gate


@pytest.fixture(scope="module")
def strong(recorder: Recorder, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """
    A gate of level `strong`, with the default floor.
    """
    folder = tmp_path_factory.mktemp("strong")
    with before(
        recorder, Gate(folder, identity, recorder.port, level="strong", hostname=NAME, backend_keys=UNPROBED)
    ) as gate:
        yield gate


@pytest.fixture(scope="module")
def legacy(recorder: Recorder, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """
    A gate of level `strong` whose floor lets everything in, to be refused in words.
    """
    folder = tmp_path_factory.mktemp("legacy")
    with running(
        Gate(
            folder,
            identity,
            recorder.port,
            level="strong",
            tls_keys="legacy = true",
            hostname=NAME,
            backend_keys=UNPROBED,
        )
    ) as gate:
        yield gate


@contextmanager
def before(recorder: Recorder, gate: Gate) -> Iterator[Gate]:
    """
    Have *gate* running before *recorder*, which has then heard the one client that is served.

    When that session is over, so is what the gate asked for itself when it started.
    """
    with running(gate):
        with Wire(gate.route("starttls")) as wire:
            hello = wire.greeted()
            wire.quit()
        assert "CHUNKING" in hello.keywords
        assert f"EHLO {CLIENT_NAME}\r\n".encode() in [line for one in recorder.heard() for line in one.lines]
        yield gate


def assert_refusal(reply: Reply, code: int, verb: str, said: str) -> None:
    """
    It is that refusal, with an enhanced code unless it answers EHLO or HELO (2034-01), in printable ASCII.
    """
    assert reply.code == code, (verb, reply)
    text = " ".join(reply.lines)
    assert said in text, (verb, reply)
    assert text.isascii()
    assert text.isprintable()
    assert all(len(line) <= 506 for line in reply.lines)
    if verb in {"EHLO", "HELO"}:
        assert not text[:1].isdigit(), (verb, reply)
    else:
        assert text.startswith("5.7."), (verb, reply)


class TestPlaintext:
    """
    Level `required`, before TLS.
    """

    @pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb not in BEFORE_TLS])
    def test_every_other_command_gets_530(self, required: Gate, recorder: Recorder, verb: str) -> None:
        """
        3207-05, 3207-06: whatever the command, known or not; and the backend is not even dialled.
        """
        with Wire(required.route("plain")) as wire:
            wire.greeted()
            wire.send(COMMANDS[verb])
            assert_refusal(wire.reply(), 530, verb, "Must issue a STARTTLS command first")
            assert wire.command("NOOP").code == 250
            wire.quit()
        assert recorder.heard() == []

    def test_the_four_commands_of_the_rfc_are_answered(self, required: Gate, recorder: Recorder) -> None:
        """
        3207-05: NOOP, EHLO, QUIT, and STARTTLS, which EHLO offers without parameters (3207-01).
        """
        with Wire(required.route("plain")) as wire:
            assert wire.reply().code == 220
            assert wire.command("NOOP").code == 250
            hello = wire.command("EHLO client.example")
            assert hello.code == 250
            assert "STARTTLS" in hello.lines
            assert wire.command("STARTTLS now").code == 501
            wire.quit()
        assert recorder.heard() == []

    def test_pipelined_refusals_come_in_order(self, required: Gate, recorder: Recorder) -> None:
        """
        2920-01, 3030-04: one reply per command, in order, and the octets of a refused BDAT are swallowed.
        """
        group = ["MAIL", "RCPT", "NOOP", "DATA", "BDAT", "RSET", "NOOP", "unknown", "EHLO", "HELO"]
        with Wire(required.route("plain")) as wire:
            wire.greeted()
            wire.send(b"".join(COMMANDS[verb] for verb in group) + b"QUIT\r\n")
            codes = wire.replies(len(group) + 1)
            assert wire.line() == ""
        assert codes == [250 if verb in BEFORE_TLS else 530 for verb in group] + [221]
        assert recorder.heard() == []

    @pytest.mark.parametrize("pieces", [1, 2], ids=["in-one-packet", "in-two"])
    def test_commands_behind_starttls_are_never_executed(self, required: Gate, recorder: Recorder, pieces: int) -> None:
        """
        3207-07, 3207-14: they came in plaintext, from whom nobody knows. The client is told, and the session is over.
        """
        injected = COMMANDS["MAIL"] + COMMANDS["RCPT"]
        with Wire(required.route("plain")) as wire:
            wire.greeted()
            if pieces == 1:
                wire.send(b"STARTTLS\r\n" + injected)
                assert wire.reply().code == 554
                assert wire.line() == ""
            else:
                wire.send(b"STARTTLS\r\nMAIL FR")
                # What reaches a closed socket resets the connection, and the reply may be lost with it.
                with suppress(ConnectionError):
                    wire.send(injected[len(b"MAIL FR") :])
                assert wire.rest()[:4] in {b"554 ", b""}

    def test_commands_behind_the_220_are_never_executed(self, required: Gate) -> None:
        """
        3207-07: what is not a TLS handshake ends the session.
        """
        with Wire(required.route("plain")) as wire:
            wire.greeted()
            assert wire.command("STARTTLS").code == 220
            wire.send(COMMANDS["MAIL"] + COMMANDS["RCPT"])
            assert b"250" not in wire.rest()


class TestInsufficientTls:
    """
    Level `strong`, after a handshake that does not reach it.
    """

    @modes
    @shapes(WEAK)
    def test_every_command_but_quit_gets_554(self, strong: Gate, tmp_path: Path, mode: Mode, shape: Shape) -> None:
        """
        3207-12: let in by the floor, refused by the level, on both ports, with the reason.
        """
        self._refused(strong, tmp_path, mode, shape)

    @modes
    @pytest.mark.parametrize("verb", COMMANDS)
    def test_whichever_comes_first(self, strong: Gate, tmp_path: Path, mode: Mode, verb: str) -> None:
        """
        3207-12: no EHLO is needed before it is known that the TLS is not enough.
        """
        shape = WEAK["CBC"]
        with SClient(strong.route(mode), tmp_path, shape.options) as client:
            if mode == "implicit":
                assert client.reply().code in {220, 554}, client.said()
            assert_refusal(client.command(COMMANDS[verb]), 554, verb, f"{shape.cipher} {shape.reason}")
            assert client.command(b"QUIT\r\n").code == 221

    @modes
    @shapes(ANCIENT)
    def test_a_lowered_floor_lets_ancient_clients_read_why(
        self, legacy: Gate, tmp_path: Path, mode: Mode, shape: Shape
    ) -> None:
        """
        3207-12 with `legacy`: clients that would only meet an alert get a reply they can log.
        """
        self._refused(legacy, tmp_path, mode, shape)

    @modes
    @shapes(ANCIENT)
    def test_the_default_floor_is_an_alert(self, strong: Gate, tmp_path: Path, mode: Mode, shape: Shape) -> None:
        """
        9325-01, 9325-03: what must not be negotiated is not.
        """
        with SClient(strong.route(mode), tmp_path, shape.options) as client:
            assert client.reply().code == 0
            assert client.status() != 0
            assert "alert" in client.said()

    @modes
    def test_pipelined_refusals_come_in_order(self, strong: Gate, tmp_path: Path, mode: Mode) -> None:
        """
        2920-01, 3030-04: one 554 each, in one piece, the octets of BDAT swallowed, and 221 for QUIT.
        """
        with SClient(strong.route(mode), tmp_path, WEAK["CBC"].options) as client:
            if mode == "implicit":
                assert client.reply().code in {220, 554}
            first = client.command(b"".join(COMMANDS.values()) + b"QUIT\r\n")
            codes = [first.code] + [client.reply().code for _ in COMMANDS]
            assert codes == [554] * len(COMMANDS) + [221]

    @staticmethod
    def _refused(gate: Gate, folder: Path, mode: Mode, shape: Shape) -> None:
        with SClient(gate.route(mode), folder, shape.options) as client:
            if mode == "implicit":
                assert client.reply().code in {220, 554}, client.said()
            for verb, octets in COMMANDS.items():
                reply = client.command(octets)
                assert_refusal(reply, 554, verb, f"lack of security: {shape.version} {shape.cipher} {shape.reason}")
                # 3207-10: decided, and written down, before anything is answered.
                verdict = gate.journal("verdict")[-1]
                assert (verdict["outcome"], verdict["tls"], verdict["cipher"]) == (
                    "refuse",
                    shape.version,
                    shape.cipher,
                )
            assert client.command(b"QUIT\r\n").code == 221
            assert client.status() == 0
