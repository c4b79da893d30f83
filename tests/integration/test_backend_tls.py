"""
TLS toward the backend: verified, at the level demanded, or nothing of the client's is said at all.
"""

import socketserver
import ssl
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pytest
from attrs import define, evolve, field, frozen

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.messages import RECIPIENT, SENDER, stuffed
from tests.integration.processes import free_port, wait_until
from tests.integration.wire import CLIENT_NAME, Reply, Wire
from tests.support.certificates import CLIENT_AUTH, DAY, NOW, Authority, Issued, pem, self_signed

SESSION_SECONDS = 60.0
NAME = "backend.example"
REQUIRETLS = (b"PIPELINING", b"8BITMIME", b"CHUNKING", b"REQUIRETLS")
# What a probe of the gate's own may say to a backend in plaintext, and no client's command looks like.
OUR_OWN = {b"EHLO gate.example", b"STARTTLS", b"QUIT"}

Start = Literal["none", "starttls", "implicit"]

CONFIG = """
hostname = "gate.example"

[[listener]]
name = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
{listener}

[tls]
certificates = [{{ chain = "{identity.certificate}", key = "{identity.key}" }}]
reload_seconds = 0

[backend]
{backend}

{rest}
"""


def config(identity: Identity, port: int, backend: str, *, listener: str = "", rest: str = "") -> str:
    """
    Return a configuration; *backend*, *listener* are lines of those tables, *rest* is whole tables.
    """
    return CONFIG.format(identity=identity, port=port, backend=backend, listener=listener, rest=rest)


@define
class Heard:
    """
    One connection to a scripted backend: the lines it heard in plaintext, and inside TLS; the messages it took; why
    its handshake failed; when it began; whether it is over.
    """

    peer: Any
    plain: list[bytes] = field(factory=list)
    inside: list[bytes] = field(factory=list)
    messages: list[bytes] = field(factory=list)
    version: str | None = None
    fault: str = ""
    began: float = field(factory=time.monotonic)
    over: threading.Event = field(factory=threading.Event)

    @property
    def lines(self) -> list[bytes]:
        return self.plain + self.inside


@frozen
class Part:
    """
    What a scripted backend does.

    *answers*: verb -> reply, `None` to hang up instead. *keywords* are offered beside STARTTLS. *injected* comes in one
    piece with the 220 to STARTTLS, in plaintext. *taken* is what it says to a message, *leaves* whether it then goes,
    and how.
    """

    start: Start = "none"
    context: ssl.SSLContext | None = None
    greeting: bytes = b"220 scripted.example ESMTP\r\n"
    keywords: tuple[bytes, ...] = (b"PIPELINING", b"8BITMIME", b"CHUNKING")
    answers: Mapping[bytes, bytes | None] = field(factory=dict)
    injected: bytes = b""
    taken: bytes = b"250 Taken\r\n"
    leaves: Literal["", "close_notify", "cut"] = ""


class _Session(socketserver.BaseRequestHandler):
    server: "_Server | _UnixServer"

    def handle(self) -> None:
        self.heard = Heard(self.client_address)
        self.part = self.server.part
        self.chunks = b""
        self.server.connections.append(self.heard)
        self.request.settimeout(SESSION_SECONDS)
        try:
            if self.part.start == "implicit":
                self._handshake()
            self._serve()
        except OSError as error:
            self.heard.fault = str(error)
        finally:
            self.request.close()
            self.heard.over.set()

    def _handshake(self) -> None:
        assert self.part.context is not None
        self.request = self.part.context.wrap_socket(self.request, server_side=True)
        self.heard.version = self.request.version()

    def _serve(self) -> None:
        self.request.sendall(self.part.greeting)
        while True:
            lines = self.request.makefile("rb", buffering=65536)
            if not self._dialogue(lines):
                return
            self._handshake()

    def _dialogue(self, lines: Any) -> bool:
        """
        Answer line by line; return whether a handshake comes next.
        """
        while line := lines.readline(65536):
            command = line.rstrip(b"\r\n")
            (self.heard.inside if self.heard.version else self.heard.plain).append(command)
            verb = command[:4].upper()
            answer = self.part.answers.get(verb, self._usual(verb))
            if answer is None:
                return False
            starts = verb == b"STAR" and answer.startswith(b"220")
            if verb == b"BDAT":
                self._chunk(lines, command)
            if verb == b"RSET":
                self.chunks = b""
            self.request.sendall(answer + (self.part.injected if starts else b""))
            if verb == b"DATA" and answer.startswith(b"354"):
                self._message(lines)
                if self.part.leaves:
                    return False
            if starts or verb == b"QUIT":
                return starts
        return False

    def _usual(self, verb: bytes) -> bytes:
        offered = self.part.start == "starttls" and not self.heard.version
        keywords = [b"scripted.example", *self.part.keywords, *([b"STARTTLS"] if offered else [])]
        return {
            b"EHLO": b"".join(b"250-" + word + b"\r\n" for word in keywords[:-1]) + b"250 " + keywords[-1] + b"\r\n",
            b"DATA": b"354 Go ahead\r\n",
            b"STAR": b"220 Go ahead\r\n" if offered else b"502 No\r\n",
            b"QUIT": b"221 Bye\r\n",
        }.get(verb, b"250 OK\r\n")

    def _chunk(self, lines: Any, command: bytes) -> None:
        words = command.split()
        self.chunks += lines.read(int(words[1]))
        if len(words) > 2:
            self.heard.messages.append(self.chunks)
            self.chunks = b""

    def _message(self, lines: Any) -> None:
        taken = b""
        while (line := lines.readline(65536)) != b".\r\n":
            assert line
            taken += line
        self.heard.messages.append(taken)
        self.request.sendall(self.part.taken)
        if self.part.leaves == "close_notify":
            self.request.unwrap()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    part: Part
    connections: list[Heard]


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    part: Part
    connections: list[Heard]


@define
class Scripted:
    """
    A backend that plays its *part*, from the beginning of its context to the end: on *path* if it is given, else on
    loopback.
    """

    part: Part = field(factory=Part)
    path: Path | None = None
    port: int = 0
    _server: _Server | _UnixServer = field(init=False)

    def __enter__(self) -> Self:
        if self.path is None:
            self.port = self.port or free_port()
            self._server = _Server(("127.0.0.1", self.port), _Session)
        else:
            self._server = _UnixServer(str(self.path), _Session)
        self.play(self.part)
        self._server.connections = []
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def play(self, part: Part) -> None:
        """
        Play another part, with connections from now on.
        """
        self.part = self._server.part = part

    @property
    def endpoint(self) -> str:
        """
        How the gate's configuration names it.
        """
        return f"tcp:127.0.0.1:{self.port}" if self.path is None else f"unix:{self.path}"

    def heard(self, since: int = 0) -> list[Heard]:
        """
        Return the connections but for the first *since*, when they are over.
        """
        news = self._server.connections[since:]
        for one in news:
            assert one.over.wait(SESSION_SECONDS), f"still open after {one.lines}"
        return news

    def wait(self, count: int) -> list[Heard]:
        """
        Return the connections when there are *count*, and they are over.
        """
        wait_until(lambda: len(self._server.connections) >= count, SESSION_SECONDS, lambda: "nobody has called")
        return self.heard()


ROOT = Authority.root("Backend root", number=110)
STRANGER = Authority.root("Another root", number=111)


def context(issued: Issued, folder: Path, most: ssl.TLSVersion | None = None, ciphers: str = "") -> ssl.SSLContext:
    """
    Return the server side of a TLS that shows that certificate, of version *most* at most.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = issued.write(folder, "shown")
    made.load_cert_chain(files.chain, files.key)
    if ciphers:
        made.set_ciphers(ciphers)
    with warnings.catch_warnings():
        # Old versions are deprecated, and the point here.
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        made.maximum_version = most or ssl.TLSVersion.MAXIMUM_SUPPORTED
    return made


CERTIFICATES = {
    "another name": (ROOT.issue("other.example"), "certificate is for another name"),
    "a name in the subject only": (ROOT.issue(common_name=NAME), "certificate has no usable name"),
    "expired": (ROOT.issue(NAME, not_before=NOW - 9 * DAY, not_after=NOW - DAY), "certificate has expired"),
    "of tomorrow": (ROOT.issue(NAME, not_before=NOW + DAY), "certificate is not yet valid"),
    "self-signed": (self_signed(NAME), "self-signed certificate"),
    "of another authority": (STRANGER.issue(NAME), "unable to get local issuer certificate"),
    "for clients only": (ROOT.issue(NAME, usage=CLIENT_AUTH), "unsuitable certificate purpose"),
}
GOOD = ROOT.issue(NAME)


@define
class Leg:
    """
    A gate, and behind it a scripted backend whose TLS is in order until it is told otherwise.
    """

    gate: ConfiguredGate
    backend: Scripted
    good: Part
    port: int

    def begin_anew(self) -> int:
        """
        Have a backend that is up, and was probed once; return how many connections it has had.
        """
        self.backend.play(self.good)
        calls = len(self.backend.heard())
        # After a reload every backend is held to be up.
        self.gate.reload()
        return len(self.backend.wait(calls + 1))

    def refuses(self, part: Part) -> tuple[list[Heard], str]:
        """
        Have the backend play *part*, and a client meet it: the client must get 451 4.7.5.

        Returns:
            What the backend heard of this, and the reason in the journal.
        """
        calls, failures = self.begin_anew(), len(self.gate.journal("backend-failed"))
        self.backend.play(part)
        with Wire(self.gate.route(self.port, "starttls")) as wire:
            assert wire.reply().code == 220
            assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
            assert wire.command("STARTTLS").code == 220
            wire.handshake()
            # A reply to EHLO has no enhanced code (RFC 2034 section 4).
            assert wire.command(f"EHLO {CLIENT_NAME}") == Reply(451, ("No secure connection to the mail server",))
            for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "DATA"):
                refused = wire.command(command)
                assert (refused.code, refused.lines[0][:5]) == (451, "4.7.5"), refused
            wire.quit()
        reason: str = self.gate.wait_for(failures + 1, "backend-failed")[failures]["reason"]
        return self.backend.heard(calls), reason


@contextmanager
def leg(identity: Identity, folder: Path, start: Start, keys: str = "", level: str = "required") -> Iterator[Leg]:
    """
    Have a gate that demands a TLS that starts so, before such a backend; *level* is demanded of clients.
    """
    trusted = folder / "root.pem"
    trusted.write_bytes(pem(ROOT.certificate))
    good = Part(start, context(GOOD, folder), keywords=REQUIRETLS)
    with Scripted(good) as backend:
        port = free_port()
        lines = f"""
            endpoints = ["{backend.endpoint}"]
            tls = "{start}"
            tls_ca = "{trusted}"
            tls_name = "{NAME}"
            accept_open_relay = true
            probe_seconds = 0
            {keys}
        """
        told = config(identity, port, lines, listener=f'level = "{level}"')
        with configured(folder, told, identity.authority) as gate:
            backend.wait(1)
            yield Leg(gate, backend, good, port)


@pytest.fixture(scope="module", params=["starttls", "implicit"])
def strict(
    request: pytest.FixtureRequest, identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Leg]:
    """
    Each way to start TLS in turn, with the level `strong`.
    """
    with leg(identity, tmp_path_factory.mktemp("strict"), request.param, 'tls_level = "strong"') as made:
        yield made


def only_ours(heard: list[Heard]) -> bool:
    """
    Whether there was a connection, and none on which more was said than what the gate itself says to get to TLS.
    """
    return bool(heard) and all(set(one.plain) <= OUR_OWN and set(one.inside) <= {b"QUIT"} for one in heard)


@pytest.mark.parametrize("which", CERTIFICATES)
def test_a_backend_that_does_not_prove_who_it_is_hears_nothing(strict: Leg, tmp_path: Path, which: str) -> None:
    """
    7817-01: whatever is wrong with the certificate, the handshake ends, and nothing is said in plaintext instead.
    """
    shown, reason = CERTIFICATES[which]
    heard, told = strict.refuses(evolve(strict.good, context=context(shown, tmp_path)))
    assert only_ours(heard)
    assert all(one.fault for one in heard), heard
    assert reason in told


def test_a_backend_with_an_old_tls_hears_nothing(strict: Leg, tmp_path: Path) -> None:
    """
    9325-01: TLS 1.0 and 1.1 are not negotiated.
    """
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        part = evolve(strict.good, context=context(GOOD, tmp_path, old, "ALL:@SECLEVEL=0"))
        heard, _ = strict.refuses(part)
        assert only_ours(heard)
        assert all(one.fault for one in heard), heard


def test_a_backend_below_the_level_gets_quit_at_once(strict: Leg, tmp_path: Path) -> None:
    """
    3207-11: the handshake is a good one, and so is the certificate, but not the cipher.
    """
    weak = context(GOOD, tmp_path, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    [heard], reason = strict.refuses(evolve(strict.good, context=weak))
    assert heard.version == "TLSv1.2"
    assert set(heard.plain) <= OUR_OWN
    assert heard.inside == [b"QUIT"]
    assert "has no AEAD" in reason


def test_a_backend_that_speaks_no_tls_hears_nothing(strict: Leg) -> None:
    """
    No STARTTLS to be had, or plaintext where TLS should be: not an occasion to go on in plaintext.
    """
    heard, _ = strict.refuses(Part("none"))
    if strict.good.start == "implicit":
        # What it took for a line is a ClientHello.
        assert all(one.plain[0].startswith(b"\x16\x03") for one in heard)
        assert not any(CLIENT_NAME.encode() in line for one in heard for line in one.lines)
    else:
        assert only_ours(heard)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Part("starttls", answers={b"STAR": b"454 4.7.0 Not now\r\n"}), "answered STARTTLS with 454 4.7.0 Not now"),
        (Part("starttls", answers={b"STAR": b"250 Sure\r\n"}), "answered STARTTLS with 250 Sure"),
        (Part("starttls", answers={b"STAR": None}), "while the reply to STARTTLS was awaited"),
        (Part("starttls", answers={b"EHLO": b"502 What?\r\n"}), "answered EHLO with 502 What?"),
        (Part("starttls", injected=b"250-x\r\n250 AUTH PLAIN\r\n"), "octets nobody asked for"),
    ],
    ids=["454", "250", "hangs up", "no EHLO", "injects"],
)
@pytest.mark.parametrize("strict", ["starttls"], indirect=True)
def test_a_backend_that_does_not_start_tls_hears_nothing(strict: Leg, part: Part, reason: str) -> None:
    """
    What is injected behind the 220 in plaintext ends the connection, too: it could only be meant to be taken for
    something said inside TLS (RFC 3207 section 4.2).
    """
    heard, told = strict.refuses(evolve(part, context=strict.good.context))
    assert only_ours(heard)
    assert not any(one.inside for one in heard)
    assert reason in told


def send(wire: Wire, sent: bytes, parameters: str = "") -> None:
    """
    Send one message, every step acknowledged.
    """
    assert wire.command(f"MAIL FROM:<{SENDER}>{parameters}").code == 250
    assert wire.command(f"RCPT TO:<{RECIPIENT}>").code == 250
    assert wire.command("DATA").code == 354
    wire.send(stuffed(sent))
    assert wire.reply().code == 250


def test_a_backend_in_order_gets_the_mail_inside_tls(strict: Leg) -> None:
    """
    The control of all the above. REQUIRETLS (RFC 8689) is passed on: the way onward is what it asks for (8689-01).
    """
    sent = messages.tiny()
    calls = strict.begin_anew()
    with Wire(strict.gate.route(strict.port, "starttls")) as wire:
        assert "REQUIRETLS" in wire.greeted().keywords
        send(wire, sent, " REQUIRETLS")
        wire.quit()
    [heard] = [one for one in strict.backend.wait(calls + 1)[calls:] if one.messages]
    assert heard.messages == [sent]
    assert set(heard.plain) <= OUR_OWN
    assert heard.version == "TLSv1.3"
    assert f"MAIL FROM:<{SENDER}> REQUIRETLS".encode() in heard.inside


@pytest.mark.parametrize("leaves", ["close_notify", "cut"])
@pytest.mark.parametrize("taken", [b"", b"250 Taken", b"250-Taken\r\n", b"250 Taken\r\n"])
def test_a_backend_that_leaves_in_its_reply_has_not_taken_the_mail(
    strict: Leg, taken: bytes, leaves: Literal["close_notify", "cut"]
) -> None:
    """
    5321-23: however its TLS ends, half a 250 is none; a whole one is.
    """
    strict.begin_anew()
    strict.backend.play(evolve(strict.good, taken=taken, leaves=leaves))
    with Wire(strict.gate.route(strict.port, "starttls")) as wire:
        wire.greeted()
        for command, code in ((f"MAIL FROM:<{SENDER}>", 250), (f"RCPT TO:<{RECIPIENT}>", 250), ("DATA", 354)):
            assert wire.command(command).code == code
        wire.send(stuffed(messages.tiny()))
        if taken == b"250 Taken\r\n":
            assert wire.reply().code == 250
        lost = wire.reply()
        assert (lost.code, lost.lines[0][:5]) == (421, "4.4.2")


def test_requiretls_is_not_offered_in_plaintext(identity: Identity, tmp_path: Path) -> None:
    """
    8689-01: the client's side must be inside TLS as well.
    """
    with (
        leg(identity, tmp_path, "starttls", level="offered") as made,
        Wire(made.gate.route(made.port, "plain")) as wire,
    ):
        plain = wire.greeted().keywords
        assert "STARTTLS" in plain
        assert "REQUIRETLS" not in plain
        send(wire, messages.tiny())
        wire.quit()


def test_requiretls_is_not_offered_over_a_plaintext_leg(identity: Identity, tmp_path: Path) -> None:
    """
    8689-01: whatever the backend says it would do, the way to it is not secure.
    """
    port = free_port()
    with Scripted(Part(keywords=REQUIRETLS)) as backend:
        lines = f'endpoints = ["{backend.endpoint}"]\naccept_open_relay = true'
        with (
            configured(tmp_path, config(identity, port, lines), identity.authority) as gate,
            Wire(gate.route(port, "starttls")) as wire,
        ):
            assert "REQUIRETLS" not in wire.greeted().keywords
            wire.quit()


def test_while_no_backend_has_the_tls_demanded_clients_are_told_at_once(identity: Identity, tmp_path: Path) -> None:
    """
    A backend whose certificate is wrong from the start is down; nobody's session is begun only to fail.
    """
    with leg(identity, tmp_path, "starttls") as made:
        calls = len(made.backend.heard())
        made.backend.play(evolve(made.good, context=context(CERTIFICATES["expired"][0], tmp_path)))
        made.gate.reload()
        assert "certificate has expired" in made.gate.wait_for(1, "backend-down")[0]["reason"]
        with Wire(made.gate.route(made.port, "plain")) as wire:
            assert wire.reply().code == 421
            assert wire.line() == ""
        assert only_ours(made.backend.heard(calls))
