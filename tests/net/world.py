"""
A whole gate in memory, with clients before it and backends behind it: the service as configured, its real TLS, and a
clock that only the test moves.
"""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import twisted.protocols.tls
from attrs import define, field
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.net.memory import ROUNDS_MAX, End, Network
from tests.support.certificates import Authority
from tests.support.handshake import client_context
from tests.support.legacy import Legacy
from tlsgate.config import parse
from tlsgate.service import GateService

BACKEND_PORT = 2526
SECOND_PORT = 2527
CLIENT = "192.0.2.7"

CONFIG = """
hostname = "mx.example.org"
[[listener]]
name = "mx"
endpoint = "tcp:25"
level = "{level}"
tls = "{tls}"
acknowledge_rfc3207 = true
[tls]
certificates = [{{ chain = "mx.pem", key = "mx.key" }}]
reload_seconds = 0
[backend]
endpoints = [{endpoints}]
probe_seconds = 0
{backend}
[message]
bare_newlines = "{bare_newlines}"
[limits]
{limits}
{levels}
[observe]
journal = "./journal"
"""


@cache
def _folder() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    kept = tempfile.TemporaryDirectory(prefix="tlsgate-world-")
    folder = Path(kept.name)
    Authority.root().issue("mx.example.org").write(folder)
    return kept, folder


@cache
def _context() -> SSL.Context:
    return client_context(ciphers=b"DEFAULT")


@define(eq=False)
class Client:
    """
    One client: octets to the gate, and what the gate answered, in plaintext and then in TLS.
    """

    end: End
    _settle: Callable[[], None]
    said: bytes = b""
    tls: SSL.Connection | None = None
    tls_over: bool = False  # the gate has said close_notify
    _read: int = 0

    def send(self, data: bytes) -> "Client":
        """
        Send *data*, and let happen what it brings about.
        """
        self.push(data)
        self._settle()
        self._hear()
        return self

    def push(self, data: bytes) -> None:
        """
        Put *data* on its way.
        """
        if self.tls is None:
            self.end.sending += data
        elif data:
            self.tls.sendall(data)
            self._flush()

    def heard(self) -> bytes:
        """
        Return what the gate has said since this was asked last.
        """
        self._hear()
        news = self.said[self._read :]
        self._read = len(self.said)
        return news

    def codes(self) -> list[int]:
        """
        Return the codes of the replies since this was asked last.
        """
        return [int(line[:3]) for line in self.heard().splitlines() if line[3:4] != b"-"]

    def handshake(self, context: SSL.Context | None = None) -> "Client":
        """
        Do the TLS handshake.
        """
        self._hear()
        self.tls = SSL.Connection(context or _context(), None)
        self.tls.set_connect_state()
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self._flush()
                self._settle()
                self._absorb()
            else:
                self._flush()
                self._settle()
                self._hear()
                return self
        raise AssertionError("no handshake")

    def starttls(self, context: SSL.Context | None = None) -> "Client":
        """
        Say EHLO and STARTTLS, and do the handshake.
        """
        self.send(b"EHLO client.example\r\n").send(b"STARTTLS\r\n")
        assert self.said.endswith(b"220 2.0.0 Ready to start TLS\r\n"), self.said
        return self.handshake(context)

    def lose(self) -> None:
        """
        Close the connection.
        """
        self.end.close()
        self._settle()
        self._hear()

    @property
    def closed(self) -> bool:
        """
        Whether the gate has closed the connection.
        """
        return self.end.closed

    def _flush(self) -> None:
        assert self.tls is not None
        try:
            while True:
                self.end.sending += self.tls.bio_read(1 << 16)
        except SSL.WantReadError:
            pass

    def _absorb(self) -> None:
        assert self.tls is not None
        if self.end.heard:
            self.tls.bio_write(bytes(self.end.heard))
            self.end.heard.clear()

    def _hear(self) -> None:
        if self.tls is None:
            self.said += self.end.heard
            self.end.heard.clear()
            return
        while True:
            self._absorb()
            try:
                self.said += self.tls.recv(1 << 16)
            except SSL.WantReadError:
                return
            except SSL.ZeroReturnError:
                self.tls_over = True
                return


@define(eq=False)
class Backend:
    """
    One connection to a backend, answered by a `Legacy` server unless that is told to be silent.

    It dies when it has taken *heard_max* octets, or sent *said_max*. What it hears while *silent* it answers later.
    """

    port: int
    end: End
    legacy: Legacy
    heard_max: int | None = None
    said_max: int | None = None
    silent: bool = False
    heard: bytes = b""
    said: bytes = b""
    greeted: bool = False
    _unanswered: bytes = b""

    def work(self) -> bool:
        """
        Answer what has arrived; return whether there was anything.
        """
        if self.end.closing is not None:
            return False
        news = bytes(self.end.heard)
        self.end.heard.clear()
        if self.heard_max is not None:
            news = news[: self.heard_max - len(self.heard)]
        self.heard += news
        self._unanswered += news
        answer = b""
        if not self.silent:
            answer = self.legacy.feed(self._unanswered)
            self._unanswered = b""
            if not self.greeted:
                self.greeted = True
                answer = self.legacy.greeting + answer
        died = self.say(answer) or (self.heard_max is not None and len(self.heard) >= self.heard_max)
        if died or self.legacy.over:
            self.end.close()
        return bool(news or answer or died)

    def say(self, data: bytes) -> bool:
        """
        Send *data*; return whether that was the end.
        """
        if self.said_max is not None:
            data = data[: self.said_max - len(self.said)]
        self.said += data
        self.end.sending += data
        return self.said_max is not None and len(self.said) >= self.said_max


@define(eq=False)
class World:
    """
    A gate with its surroundings. *new_backend* prepares each new connection to a backend.
    """

    config: str
    network: Network = field(factory=Network)
    new_backend: Callable[[Backend], None] = field(default=lambda _: None)
    backends: list[Backend] = field(factory=list)
    service: GateService = field(init=False)
    _clients: list[Client] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        network = self.network
        network.advance(time.time())  # noqa: TID251 - certificates are valid on the real clock
        network.answers = {BACKEND_PORT: "accept", SECOND_PORT: "accept"}
        folder = _folder()[1]
        self.service = GateService(lambda: parse(self.config, folder), network)  # type: ignore[arg-type]
        self.service.privilegedStartService()
        self.service.startService()
        self.settle(1)
        self.backends.clear()

    def settle(self, seconds: float = 0) -> None:
        """
        Let gate and backends talk until they have nothing to say; then let *seconds* pass, and them talk again.
        """
        for passing in (0, seconds) if seconds else (0,):
            self.network.settle(passing)
            for _ in range(ROUNDS_MAX):
                if not self._backends_work():
                    break
                self.network.settle()
            else:
                raise AssertionError("it goes on and on")

    def connect(self, address: str | None = CLIENT, port: int = 40001) -> Client:
        """
        Return a client that has connected to the gate; without an address, it has come by a UNIX socket.
        """
        peer: IPv4Address | IPv6Address | UNIXAddress
        if address is None:
            peer = UNIXAddress(None)
        else:
            peer = (IPv6Address if ":" in address else IPv4Address)("TCP", address, port)
        factory = self.network.tcpServers[0][1]
        client = Client(self.network.accept(factory, peer), self.settle)
        self._clients.append(client)
        self.settle()
        client._hear()
        return client

    def inside(self, address: str = CLIENT) -> Client:
        """
        Return a client that has said EHLO inside TLS, and read the reply.
        """
        client = self.connect(address)
        client.starttls().send(b"EHLO client.example\r\n")
        assert client.heard().endswith(b"\r\n250 SIZE 0\r\n"), client.said
        return client

    @property
    def backend(self) -> Backend:
        """
        The backend connection made last.
        """
        return self.backends[-1]

    def records(self, event: str) -> list[str]:
        """
        Return the lines of the journal about *event*.
        """
        lines = (_folder()[1] / "journal").read_text().splitlines()
        return [line for line in lines if f'"event":"{event}"' in line]

    def _backends_work(self) -> bool:
        for port, end in self.network.dialled:
            backend = Backend(port, end, Legacy())
            self.new_backend(backend)
            self.backends.append(backend)
        self.network.dialled.clear()
        return any([backend.work() for backend in self.backends])  # noqa: C419 - all of them work


@contextmanager
def world(
    level: str = "required", *, tls: str = "starttls", bare_newlines: str = "normalize", second: bool = False,
    limits: str = "", levels: str = "", backend: str = "accept_open_relay = true", **more: Any,
) -> Iterator[World]:  # fmt: skip
    """
    Have a gate of that *level*, *limits* and *backend* being lines of those tables, before one backend or two.
    """
    ports = [BACKEND_PORT, SECOND_PORT] if second else [BACKEND_PORT]
    endpoints = ", ".join(f'"tcp:127.0.0.1:{port}"' for port in ports)
    config = CONFIG.format(
        level=level, tls=tls, endpoints=endpoints, bare_newlines=bare_newlines, limits=limits, levels=levels,
        backend=backend,
    )  # fmt: skip
    (_folder()[1] / "journal").unlink(missing_ok=True)
    network = Network()
    usual_handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    usual_clock = twisted.protocols.tls._get_default_clock
    # Small writes are gathered until the reactor's next turn, and that is this one's.
    twisted.protocols.tls._get_default_clock = lambda: network
    try:
        yield World(config, network, **more)
    finally:
        twisted.protocols.tls._get_default_clock = usual_clock
        for number, handler in usual_handlers.items():
            signal.signal(number, handler)
