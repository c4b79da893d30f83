"""
Attacks on a running gate, over real sockets: clients that want a word with the backend or the gate's resources, backends
that want to be believed, and signals at bad moments.

What only the decisions of a session are asked for, at every cut, stands in tests/session/test_attacks.py.
"""

import json
import os
import re
import resource
import signal
import socket
import socketserver
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from attrs import define, field, frozen
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.processes import free_ports, private_folder, wait_until
from tests.integration.servers import Exim
from tests.integration.shapes import Hybrid, Shown
from tests.integration.wire import CLIENT_NAME, Wire
from tests.support.certificates import Authority, pem, self_signed
from tests.support.legacy import Legacy
from tlsgate.net.proxy_protocol import header_v1, header_v2

SECONDS = 60.0
NAME = "gate.example"
PIECE_SECONDS = 0.02  # so that pieces of a backend's arrive one by one

CONFIG = """
hostname = "{name}"
{listeners}

[tls]
certificates = [{{ chain = "{identity.certificate}", key = "{identity.key}" }}]
client_ca = "ca.pem"

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
probe_seconds = 0
{backend_keys}

[observe]
metrics = "tcp:{metrics}:interface=127.0.0.1"

[limits]
{limits}

{rest}
"""
LISTENER = """
[[listener]]
name = "{name}"
endpoint = "tcp:{port}:interface=127.0.0.1"
{keys}
"""
WORLD = 'level = "offered"'
CLOSED = 'level = "required"'
IMPLICIT = 'level = "required"\ntls = "implicit"'
# A balancer on 127.0.0.9, who is not always what he should be.
BALANCED = 'level = "offered"\nproxy_protocol_from = ["127.0.0.9"]'
PARTNERS = 'level = "verified"'
RULES = """
[[rule]]
listeners = ["world"]
recipients = ["clinic.example", "*.clinic.example", "b\\u00fccher.example", "[192.0.2.1]"]
level = "required"

[[rule]]
listeners = ["world"]
senders = ["bank.example"]
level = "required"

[[rule]]
listeners = ["closed"]
helo = ["printer.example"]
level = "offered"
"""

Play = Callable[[socket.socket], None]


def legacy(wire: socket.socket) -> None:
    """
    Play a mail server that believes what it reads.
    """
    serve(wire, Legacy())


def serve(wire: socket.socket, server: Legacy) -> None:
    """
    Play that server to its end.
    """
    wire.sendall(server.greeting)
    while not server.over and (octets := wire.recv(65536)):
        wire.sendall(server.feed(octets))


class _Connection(socketserver.BaseRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        self.request.settimeout(SECONDS)
        self.server.wires.append(self.request)
        with suppress(OSError):
            self.server.play(self.request)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        self.play: Play = legacy
        self.wires: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), _Connection)


@define
class Puppet:
    """
    A backend that does what the test says, on each of its connections.
    """

    _server: _Server = field(factory=_Server)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        """
        Where it listens.
        """
        port: int = self._server.server_address[1]
        return port

    def plays(self, play: Play) -> None:
        """
        Have *play* played on every connection from now on.
        """
        self._server.play = play

    def records(self) -> list[Legacy]:
        """
        Play a mail server that believes what it reads, from now on; return the list its sessions are put into.
        """
        sessions: list[Legacy] = []

        def play(wire: socket.socket) -> None:
            sessions.append(Legacy())
            serve(wire, sessions[-1])

        self.plays(play)
        return sessions


@frozen
class Scene:
    """
    A gate between us and a puppet.
    """

    gate: ConfiguredGate
    puppet: Puppet
    ports: dict[str, int]

    def wire(self, listener: str = "world", mode: str = "plain", context: Any = None) -> Wire:
        """
        Return a client at that listener.
        """
        route = self.gate.route(self.ports[listener], mode)  # type: ignore[arg-type]  # a Mode
        return Wire(route) if context is None else Wire(route, context)

    @property
    def pid(self) -> int:
        """
        The gate's process.
        """
        process = self.gate._daemon._process
        assert process is not None
        return process.pid

    def descriptors(self) -> int:
        """
        Return how many files the gate has open.
        """
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def settle(self, descriptors: int) -> None:
        """
        Wait until the gate has no more files open than that.
        """
        wait_until(
            lambda: self.descriptors() <= descriptors,
            SECONDS,
            lambda: f"{self.descriptors()} files are open, {descriptors} were before",
        )

    def cpu_seconds(self) -> float:
        """
        Return the CPU time the gate has had.
        """
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kib(self) -> int:
        """
        Return how much memory the gate has.
        """
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def metrics(self) -> str:
        """
        Return what Prometheus would be told.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=SECONDS) as page:
            text: str = page.read().decode()
            return text

    def delivers(self, listener: str = "world", mode: str = "plain") -> None:
        """
        Send a message as if nothing had happened.
        """
        sessions = self.puppet.records()
        with self.wire(listener, mode) as wire:
            wire.greeted()
            wire.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@inbox.example>\r\nDATA\r\n")
            assert wire.replies(3) == [250, 250, 354]
            wire.send(b"as ever\r\n.\r\n")
            assert wire.reply().code == 250
            wire.quit()
        assert [message for session in sessions for message in session.messages] == [b"as ever"]


LISTENERS = {
    "world": WORLD,
    "closed": CLOSED,
    "implicit": IMPLICIT,
    "balanced": BALANCED,
    "partners": PARTNERS,
}


@contextmanager
def scene(
    folder: Path, identity: Identity, *, limits: str = "", backend_keys: str = "", rest: str = RULES
) -> Iterator[Scene]:
    """
    Have a gate with a listener of each kind running.
    """
    (folder / "ca.pem").write_bytes(pem(Authority.root("Partners").certificate))
    ports = dict(zip([*LISTENERS, "metrics"], free_ports(len(LISTENERS) + 1), strict=True))
    listeners = "".join(LISTENER.format(name=name, port=ports[name], keys=keys) for name, keys in LISTENERS.items())
    with Puppet() as puppet:
        config = CONFIG.format(
            name=NAME,
            listeners=listeners,
            identity=identity,
            backend=puppet.port,
            backend_keys=backend_keys,
            metrics=ports["metrics"],
            limits=limits,
            rest=rest,
        )
        with configured(folder, config, identity.authority) as gate:
            yield Scene(gate, puppet, ports)


@pytest.fixture(scope="module")
def at(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """
    The gate under attack. In the end it must have logged no traceback.
    """
    with scene(tmp_path_factory.mktemp("gate"), identity) as there:
        yield there


@pytest.fixture(scope="module")
def hasty(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """
    A gate without patience.
    """
    limits = """
client_timeout_seconds = 3
handshake_timeout_seconds = 3
backend_timeout_seconds = 3
end_of_data_timeout_seconds = 3
"""
    with scene(tmp_path_factory.mktemp("hasty"), identity, limits=limits) as there:
        yield there


# -- a word with the backend

# Verbs that the gate does not know, or refuses, and servers that read four letters of a verb would.
LOOKALIKES = [
    "RCPTX TO:<dr@clinic.example>",
    "RCPT-TO TO:<dr@clinic.example>",
    "MAILX FROM:<x@bank.example>",
    "STARTTLSX",
    "BDATX 5",
    "DATAX",
]
SIZES = [
    b"4294967301 LAST",  # 2**32 + 5: five octets to who counts in 32 bits
    b"2147483653 LAST",
    b"18446744073709551621 LAST",
    b"00000000000000000005 LAST",
    b"010 LAST",  # eight octets to who takes it for octal
    b"+5 LAST",
    b"5LAST",
    b"0x5 LAST",
    b"5 LAST LAST",
    b"5.0 LAST",
    b"-5 LAST",
    b"LAST",
]


class TestAWordWithTheBackend:
    @pytest.mark.parametrize("lookalike", LOOKALIKES)
    def test_a_verb_that_begins_like_another(self, at: Scene, lookalike: str) -> None:
        """
        Old servers compare four letters (RFC 821 knows no longer verbs). On a broken gate this one would hear a
        recipient or sender whose rule demands TLS, or wait for octets that are commands to the gate.
        """
        sessions = at.puppet.records()
        with at.wire() as wire:
            wire.greeted()
            assert wire.command("MAIL FROM:<a@client.example>").code == 250
            assert wire.command(lookalike).code in {500, 502}
            wire.quit()
        assert sessions[-1].commands == [b"EHLO client.example", b"MAIL FROM:<a@client.example>", b"QUIT"]

    @pytest.mark.parametrize("size", SIZES)
    def test_a_chunk_of_two_sizes(self, at: Scene, size: bytes) -> None:
        """
        3030-07: a size that two readers can read differently. On a broken gate, what is a chunk to it is commands to
        the backend: XCLIENT arrives.
        """
        sessions = at.puppet.records()
        with at.wire() as wire:
            wire.greeted()
            wire.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@inbox.example>\r\n")
            assert wire.replies(2) == [250, 250]
            wire.send(b"BDAT " + size + b"\r\n ab\r\nXCLIENT ADDR=127.0.0.1\r\nRSET\r\nQUIT\r\n")
            assert wire.replies(5) == [501, 500, 502, 250, 221]
        heard = sessions[-1].commands
        assert heard[-2:] == [b"RSET", b"QUIT"]
        assert sessions[-1].messages == []
        assert not [line for line in heard if line.startswith((b"BDAT", b"XCLIENT", b" ab"))]

    def test_a_chunk_of_two_sizes_before_a_real_server(self, identity: Identity, tmp_path: Path) -> None:
        """
        3030-07: Exim takes 4294967301 for 5. On a broken gate a second message, which nobody has judged, is delivered.
        """
        chunk = b"A: b\r\n"
        with private_folder("exim") as folder:
            exim = Exim(folder)
            exim.start()
            try:
                with scene(tmp_path, identity, rest=RULES.replace("clinic", "inbox")) as there:
                    there.gate.reload(there.gate.config.replace(f":{there.puppet.port}", f":{exim.port}"))
                    smuggle(there, chunk)
                assert "secret@client.example" not in exim.said()
            finally:
                exim.stop()

    def test_every_spelling_of_a_recipient(self, at: Scene) -> None:
        """
        What servers read as dr@clinic.example is judged as that, or not passed on. On a broken gate the backend hears
        one of these in plaintext.
        """
        sessions = at.puppet.records()
        for spelling in SPELLINGS:
            with at.wire() as wire:
                wire.greeted()
                assert wire.command("MAIL FROM:<a@client.example>").code == 250
                wire.send(b"RCPT TO:" + spelling + b"\r\n")
                assert wire.reply().code in {500, 501, 530}, spelling
                wire.quit()
        assert not [line for session in sessions for line in session.commands if line.startswith(b"RCPT")]

    def test_a_mail_within_a_mail(self, at: Scene) -> None:
        """
        2920-01: whose transaction it is, is known again before the next command is judged, however they are pipelined.
        """
        sessions = at.puppet.records()
        with at.wire() as wire:
            wire.greeted()
            wire.send(
                b"MAIL FROM:<a@client.example>\r\nMAIL FROM:<x@bank.example>\r\nRSET\r\nMAIL FROM:<y@Bank.Example.>\r\n"
                b"EHLO other.example\r\nMAIL FROM:<@relay.example:z@BANK.example> SIZE=1\r\nRCPT TO:<b@inbox.example>\r\n"
                b"MAIL FROM:x@bank.example\r\nQUIT\r\n"
            )
            assert [code for code in wire.replies(9) if code not in {250, 221}] == [530] * 5
        assert not [line for line in sessions[-1].commands if b"bank" in line.lower()]

    def test_another_name_within_a_transaction(self, at: Scene) -> None:
        """
        A name for which plaintext is enough, and then another: the law of the new name holds at once, also for what
        was begun under the old one. On a broken gate the second message is delivered in plaintext.
        """
        sessions = at.puppet.records()
        with at.wire("closed") as wire:
            wire.reply()
            wire.send(
                b"EHLO printer.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@inbox.example>\r\n"
                b"EHLO other.example\r\nDATA\r\nRCPT TO:<c@inbox.example>\r\nBDAT 5 LAST\r\nQUIT\rQUIT\r\n"
            )
            assert wire.replies(8) == [250, 250, 250, 250, 530, 530, 530, 221]
        assert [session.messages for session in sessions] == [[]]
        assert b"DATA" not in sessions[-1].commands

    @pytest.mark.parametrize("listener", ["world", "closed"])
    def test_a_whole_session_behind_starttls(self, at: Scene, listener: str) -> None:
        """
        3207-26: in one packet with STARTTLS, with a ClientHello in between, and behind the 220.
        """
        sessions = at.puppet.records()
        hello = b"\x16\x03\x01\x00\x05hello"
        words = b"MAIL FROM:<injected@client.example>\r\n"
        for behind in (words, hello + words, b"\r\n", b"\0", words * 2000):
            with at.wire(listener) as wire:
                wire.reply()
                wire.command(f"EHLO {CLIENT_NAME}")
                wire.send(b"STARTTLS\r\n" + behind)
                said = wire.rest()
                assert said.startswith((b"554 5.5.0", b"220 ")), behind
        assert not [line for session in sessions for line in session.commands if b"injected" in line]

    def test_a_header_behind_the_header(self, at: Scene) -> None:
        """
        A balancer that passes on what a client took for a header of its own. On a broken gate the second one counts, or
        reaches the backend.
        """
        first = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n"
        forged = ip_address("192.0.2.66"), 4000
        for second in (header_v1(forged, forged), header_v2(forged, forged), first.replace(b".7", b".66").lower()):
            sessions = at.puppet.records()
            before = len(at.gate.journal("session"))
            with socket.socket() as wire:
                wire.settimeout(SECONDS)
                wire.bind(("127.0.0.9", 0))
                wire.connect(("127.0.0.1", at.ports["balanced"]))
                wire.sendall(first + second + b"\r\nEHLO a.example\r\nQUIT\r\n")
                said = b""
                while octets := wire.recv(65536):
                    said += octets
            assert b"\r\n221 " in said
            assert sessions[-1].commands == [b"EHLO a.example", b"QUIT"]
            at.gate.wait_until(lambda entry: entry["client"] == "192.0.2.7", "session", since=before)


def smuggle(there: Scene, chunk: bytes) -> None:
    """
    Have a chunk taken for shorter than it is, with another message behind its end.
    """
    with there.wire() as wire:
        wire.greeted()
        wire.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<postmaster@client.example>\r\n")
        wire.replies(2)
        size = b"%d" % (2**32 + len(chunk))
        wire.send(
            b"BDAT " + size + b" LAST\r\n" + chunk + b"RSET\r\nMAIL FROM:<secret@client.example>\r\n"
            b"RCPT TO:<bob@inbox.example>\r\nBDAT 6 LAST\r\n" + chunk + b"QUIT\r\n"
        )
        wire.rest()


SPELLINGS = [
    b"<dr@clinic.example>",
    b"<dr@CLINIC.example.>",
    b"dr@clinic.example",
    b" <dr@clinic.example>",
    b"<dr@ward.clinic.example>",
    b"<@a.example,@b.example:dr@clinic.example>",
    b"<@[IPv6:::1]:dr@clinic.example>",
    b'<"dr"@clinic.example>',
    b'<"dr@inbox.example"@clinic.example>',
    b"<dr@clinic.example >",
    b"< dr@clinic.example>",
    b"<dr @ clinic.example>",
    b"<dr@clinic . example>",
    b"<dr@(inbox.example)clinic.example>",
    b"<dr(a)@clinic.example(b)>",
    b'<dr@"clinic".example>',
    b"<dr@cl\\inic.example>",
    b"<dr%clinic.example@inbox.example>",
    b"<dr%clinic.example>",
    b"<clinic.example!dr@inbox.example>",
    b"<clinic.example!dr>",
    b"<dr@clinic.example@inbox.example>",
    b'<"dr@clinic.example"@inbox.example>',
    b"<x:dr@clinic.example;>",
    b"Dr <dr@clinic.example>",
    b"<dr@inbox.example,dr@clinic.example>",
    b"<dr@inbox.example>dr@clinic.example",
    b"<dr@b\xc3\xbccher.example>",
    b"<dr@B\xc3\x9cCHER.example>",
    b"<dr@xn--bcher-kva.example>",
    b"<dr@b\xfccher.example>",
    b"<dr@clinic\xe3\x80\x82example>",
    b"<dr@[192.0.2.1]>",
    b"<dr@clinic.example\0>",
    b"<dr@clinic.example\t>",
]


# -- what the gate has


def reset(wire: socket.socket) -> None:
    """
    Drop a connection with RST.
    """
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


class TestWhatTheGateHas:
    def test_more_connections_than_descriptors(self, at: Scene) -> None:
        """
        Clients use up the process's file descriptors. On a broken gate the backend counts as down for it, and who comes
        next is turned away; or it never accepts again.
        """
        at.delivers()
        before, downs = at.descriptors(), len(at.gate.journal("backend-down"))
        limits = resource.prlimit(at.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(at.pid, resource.RLIMIT_NOFILE, (before + 21, limits[1]))
        try:
            with ExitStack() as crowd:
                for _ in range(60):
                    crowd.enter_context(socket.create_connection(("127.0.0.1", at.ports["world"])))
                wait_until(lambda: at.descriptors() >= before + 20, SECONDS, lambda: "the descriptors are not used up")
            at.settle(before)
            at.delivers()
        finally:
            resource.prlimit(at.pid, resource.RLIMIT_NOFILE, limits)
        assert len(at.gate.journal("backend-down")) == downs

    def test_room_for_the_sessions_allowed(self, identity: Identity, tmp_path: Path) -> None:
        """
        Where the system gives a process few descriptors at first, the gate asks for what its bound of sessions needs.
        On a broken gate some 500 clients use up all it has.
        """
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The gate inherits it, but it has to do for these tests as well.
        few = len(list(Path("/proc/self/fd").iterdir())) + 200
        assert few < 800
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
        try:
            with scene(tmp_path, identity, limits="sessions = 400") as there:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                assert resource.prlimit(there.pid, resource.RLIMIT_NOFILE)[0] >= 800
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_connections_that_are_reset(self, at: Scene) -> None:
        """
        RST at every stage of getting in. On a broken gate descriptors, or places in the count of sessions, are lost:
        there are 100 for one client.
        """
        before = at.descriptors()
        hello = client_hello()
        for number in range(240):
            wire = socket.create_connection(("127.0.0.1", at.ports[("world", "closed", "implicit")[number % 3]]))
            if number % 4 == 1:
                wire.sendall(b"EHLO a.example\r\nSTARTTLS\r\n")
            elif number % 4 == 2:
                wire.sendall(hello[: number * 2])
            elif number % 4 == 3:
                wire.sendall(b"EHLO a.example\r\nSTARTTLS\r\n" + hello)
            reset(wire)
        at.settle(before)
        for listener, mode in (("world", "plain"), ("closed", "starttls"), ("implicit", "implicit")):
            at.delivers(listener, mode)
        at.settle(before)

    def test_clients_that_stop_in_the_middle(self, hasty: Scene) -> None:
        """
        Slow loris in every phase at once: each is told, or dropped, when its time is over, and leaves nothing behind.
        """
        hasty.delivers()
        before = hasty.descriptors()
        hasty.puppet.records()
        with ExitStack() as crowd:
            wires = [crowd.enter_context(hasty.wire(listener)) for listener, _ in STOPPED]
            for wire, (_, octets) in zip(wires, STOPPED, strict=True):
                wire.send(octets)
            # Whoever says one more octet every now and then has no more time.
            for _ in range(8):
                time.sleep(0.6)
                for wire in wires:
                    with suppress(OSError):
                        wire.send(b"x")
            hasty.settle(before)
            for wire, (_, octets) in zip(wires, STOPPED, strict=True):
                with suppress(OSError):
                    assert b"\r\n250 2.0.0" not in wire.rest(), octets
        hasty.delivers()

    def test_a_backend_that_stops_in_the_middle(self, hasty: Scene) -> None:
        """
        A backend that greets, takes, answers half, or nothing: the client hears a 4yz in the backend's time.
        """
        hasty.delivers()
        before = hasty.descriptors()
        for stops in (b"220 half of", b"220-a\r\n220-b\r\n", b"220 ok\r\n", b"220 ok\r\n250-never\r\n"):
            hasty.puppet.plays(partial(stall, stops))
            with hasty.wire() as wire:
                wire.send(b"EHLO a.example\r\n")
                said = wire.rest()
                assert said.splitlines()[-1][:3] == b"421", said
        hasty.settle(before)

    @pytest.mark.parametrize("mode", ["plain", "starttls"])
    def test_a_client_that_never_reads(self, at: Scene, mode: str) -> None:
        """
        Law 7: it asks for long answers and takes none. On a broken gate the answers pile up in memory.
        """
        answer = b"".join(b"214-" + b"x" * 500 + b"\r\n" for _ in range(100)) + b"214 end\r\n"

        def play(wire: socket.socket) -> None:
            wire.sendall(b"220 ok\r\n")
            for line in wire.makefile("rb"):
                wire.sendall(answer if line[:4] == b"HELP" else b"250-ok\r\n250 PIPELINING\r\n")

        at.puppet.plays(play)
        started = at.memory_kib()
        before = at.descriptors()
        with at.wire(mode="plain" if mode == "plain" else "starttls") as wire:
            wire.greeted()
            wire._socket.settimeout(0.5)
            # More than any buffer takes.
            with pytest.raises(TimeoutError):
                wire.send(b"HELP\r\n" * 10_000_000)
            assert at.memory_kib() - started < 8 * 1024
        at.settle(before)

    def test_noise_costs_no_more_than_it_weighs(self, at: Scene) -> None:
        """
        Newlines to be made good, octets one by one, lines that never end: twice as much of it takes about twice as long.
        On a gate that looks at what it has looked at before, four times.
        """
        at.puppet.plays(swallow)
        for name, prologue, noise in NOISES:
            costs = []
            for times in (1, 2):
                with at.wire() as wire:
                    wire.greeted()
                    wire.send(prologue)
                    started = at.cpu_seconds()
                    for _ in range(times * 2):
                        wire.send(noise)
                    # The answer to what comes behind it, or the end of the connection, says that it was read.
                    wire.send(b"\r\n.\r\nQUIT\r\n")
                    wire.rest()
                costs.append(at.cpu_seconds() - started)
            assert costs[1] < 3 * costs[0] + 0.2, (name, costs)
            assert costs[1] < 2.5, (name, costs)

    def test_a_handshake_within_the_session(self, at: Scene) -> None:
        """
        Renegotiation costs the server more than the client. On a broken gate it can be had without end, or for a weaker
        session than the one that was judged.
        """
        before = len(at.gate.journal("verdict"))
        context = SSL.Context(SSL.TLSv1_2_METHOD)
        with at.wire("implicit", "plain") as wire:
            wire._socket.settimeout(None)
            connection = SSL.Connection(context, wire._socket)
            connection.set_connect_state()
            connection.do_handshake()
            connection.renegotiate()
            with pytest.raises(SSL.Error):
                connection.do_handshake()
        at.gate.wait_for(before + 1, "verdict")
        at.delivers("implicit", "implicit")
        assert len(at.gate.journal("verdict")) == before + 2

    def test_handshakes_octet_by_octet(self, at: Scene) -> None:
        """
        A ClientHello in single octets, then records of a single octet.
        """
        at.puppet.records()
        before = at.cpu_seconds()
        with at.wire("implicit", "plain") as wire:
            context = ssl.create_default_context(cafile=wire.route.authority)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            done = False
            while not done:
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    done = True
                for octet in outgoing.read():
                    wire.send(bytes([octet]))
                if not done:
                    incoming.write(wire._socket.recv(65536))
            for octet in b"NOOP " + b"x" * 3000 + b"\r\nQUIT\r\n":
                tls.write(bytes([octet]))
            wire.send(outgoing.read())
            said = b""
            while b"\r\n221" not in said:
                received = wire._socket.recv(65536)
                assert received, said
                incoming.write(received)
                # One read returns one record at most, however many came.
                with suppress(ssl.SSLWantReadError):
                    while record := tls.read():
                        said += record
        assert at.cpu_seconds() - before < 2


def client_hello() -> bytes:
    """
    Return the first octets of a handshake.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


# Where a client stops: the listener, and what it has said by then.
STOPPED = [
    ("world", b""),
    ("world", b"EHLO a.exam"),
    ("world", b"EHLO a.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@inbox.example>\r\n"),
    ("world", b"EHLO a.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@inbox.example>\r\nBDAT 100 LAST\r\nabc"),
    ("world", b"EHLO a.example\r\nSTARTTLS\r\n"),
    ("closed", b"EHLO a.example\r\nBDAT 100 LAST\r\nabc"),
    ("closed", b"EHLO a.example\r\nSTARTTLS\r\n"),
    ("closed", b"x" * 100_000),
    ("implicit", b""),
    ("implicit", b"\x16\x03\x01\x02\x00\x01"),
    ("implicit", b"QUIT\r\n"),
]

_MAIL = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@inbox.example>\r\n"
NOISES = [
    ("clean", _MAIL + b"DATA\r\n", b"x" * 62 + b"\r\n"),
    ("LF", _MAIL + b"DATA\r\n", b"\n"),
    ("CR", _MAIL + b"DATA\r\n", b"\r"),
    ("LF .", _MAIL + b"DATA\r\n", b"\n."),
    ("CRLF . LF", _MAIL + b"DATA\r\n", b"\r\n.\n"),
    ("CRLF ..", _MAIL + b"DATA\r\n", b"\r\n.."),
    ("a line without end", b"", b"x"),
    ("quotes", b"RCPT TO:<", b'"\\'),
    ("blanks", b"RCPT TO:<", b" "),
    ("a route without end", b"RCPT TO:<", b"@a,"),
]
NOISES = [(name, prologue, (noise * 262_144)[:262_144]) for name, prologue, noise in NOISES]


def stall(octets: bytes, wire: socket.socket) -> None:
    """
    Say that, and nothing more, until the gate has had enough.
    """
    wire.sendall(octets)
    while wire.recv(65536):
        pass


def swallow(wire: socket.socket) -> None:
    """
    Take everything, and believe that it is whatever the gate says.
    """
    wire.sendall(b"220 ok\r\n")
    lines = wire.makefile("rb", buffering=1 << 20)
    while line := lines.readline(65536):
        wire.sendall(
            {b"EHLO": b"250-ok\r\n250 PIPELINING\r\n", b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(
                line[:4], b"250 ok\r\n"
            )
        )
        if line[:4] == b"DATA":
            while (octets := lines.readline(1 << 20)) != b".\r\n":
                if not octets:
                    return
            wire.sendall(b"250 taken\r\n")


# -- a backend that wants to be believed

_DATA = _MAIL + b"DATA\r\n"
_UP_TO_DATA = [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]
# Once the message is sent: what the backend says, piece by piece (`None` hangs up), and what the client may hear last.
BACKENDS: dict[str, tuple[list[bytes | None], bytes]] = {
    "the truth, in pieces": ([b"2", b"50", b" ta", b"ken\r", b"\n"], b"250 taken"),
    "half a reply": ([b"250 tak", None], b"421 4.4.2"),
    "half a line end": ([b"250 taken\r", None], b"421 4.4.2"),
    "half of many lines": ([b"250-taken\r\n", None], b"421 4.4.2"),
    "many lines, two codes": ([b"250-taken\r\n550 not\r\n"], b"421 4.4.2"),
    "a bare LF": ([b"250 taken\n"], b"421 4.4.2"),
    "a bare CR": ([b"250 taken\r250 more\r\n"], b"421 4.4.2"),
    "NUL": ([b"250 ta\0ken\r\n"], b"421 4.4.2"),
    "no code": ([b"taken\r\n"], b"421 4.4.2"),
    "a code of two digits": ([b"25 taken\r\n"], b"421 4.4.2"),
    "a code without meaning": ([b"650 taken\r\n"], b"421 4.4.2"),
    "354 once more": ([b"354 go\r\n"], b"421 4.4.2"),
    "goodbye": ([b"421 4.3.2 leaving\r\n"], b"421 4.3.2 leaving"),
    "goodbye, and more": ([b"421 4.3.2 leaving\r\n250 taken\r\n"], b"421 4.3.2 leaving"),
    "an endless reply": ([b"250-" + b"x" * 70_000 + b"\r\n"], b"421 4.4.2"),
    "a reply of endless lines": ([b"250-\r\n" * 600], b"421 4.4.2"),
    "nothing": ([None], b"421 4.4.2"),
    "TLS": ([b"\x16\x03\x03\x00\x05hello\r\n"], b"421 4.4.2"),
}


class TestABackendThatWantsToBeBelieved:
    @pytest.mark.parametrize("says", BACKENDS)
    @pytest.mark.parametrize("mode", ["plain", "starttls"])
    def test_after_the_message(self, at: Scene, says: str, mode: str) -> None:
        """
        Law 5, law 6: a 250 is the backend's own and whole, or there is none. On a broken gate the client takes the
        message for delivered, or the session goes on out of step.
        """
        pieces, last = BACKENDS[says]
        at.puppet.plays(lambda wire: act(wire, [*_UP_TO_DATA, pieces]))
        with at.wire(mode=mode) as wire:
            wire.greeted()
            wire.send(_DATA)
            assert wire.replies(3) == [250, 250, 354]
            wire.send(b"text\r\n.\r\n")
            said = wire.line().encode()
            assert said.startswith(last)
            if not last.startswith(b"250"):
                assert wire.line() == ""

    @pytest.mark.parametrize(
        "early", [b"250 taken\r\n", b"550 no\r\n", b"250 taken\r\n250 taken\r\n", b"220 hello\r\n"]
    )
    @pytest.mark.parametrize("stage", range(4))
    def test_a_reply_nobody_asked_for(self, at: Scene, early: bytes, stage: int) -> None:
        """
        Law 1, law 6: replies in advance, with the greeting, with a reply, within the message. On a broken gate they are
        given for replies to what the client says next.
        """
        replies: list[Any] = [b"250-ok\r\n250 PIPELINING\r\n", *_UP_TO_DATA]
        replies[stage] += early
        at.puppet.plays(lambda wire: act(wire, replies, hello=False))
        with at.wire() as wire:
            wire.reply()
            codes = []
            with suppress(OSError):
                for line in (b"EHLO a.example\r\n", *_DATA.splitlines(keepends=True), b"text\r\n.\r\n", b"NOOP\r\n"):
                    wire.send(line)
                    codes.append(wire.reply().code)
            assert codes[:stage] == [250, 250, 250, 354][:stage]
            assert 421 in codes[stage : stage + 2], codes
            assert set(codes[codes.index(421) + 1 :]) <= {0}

    def test_a_tls_backend_that_does_not_let_go(self, identity: Identity, tmp_path: Path) -> None:
        """
        A backend that refuses everybody, and answers neither QUIT nor the end of TLS. On a broken gate each try leaves a
        connection open for good.
        """
        files = Authority.root("Partners").issue("backend.example").write(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.chain, files.key)
        release = threading.Event()

        held: list[socket.socket] = []

        def hold(wire: socket.socket) -> None:
            held.append(wire.dup())
            with context.wrap_socket(wire, server_side=True) as inside:
                inside.sendall(b"554 nobody\r\n")
                release.wait(2 * SECONDS)

        keys = 'tls = "implicit"\ntls_ca = "ca.pem"\ntls_name = "backend.example"'
        with scene(tmp_path, identity, backend_keys=keys) as there:
            there.puppet.plays(hold)
            # Probes go on; of what they leave, nothing is older than the time for closing.
            wait_until(lambda: bool(held) and closed(held[0]), SECONDS, lambda: "the first is still open")
            release.set()


def act(wire: socket.socket, replies: list[Any], *, hello: bool = True) -> None:
    """
    Play a backend that gives one of *replies* per line, to EHLO first if it is not left to us (*hello*); a list among
    them is given piece by piece, after the message.
    """
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire.sendall(b"220 ok\r\n")
    lines = wire.makefile("rb")
    if hello:
        lines.readline()
        wire.sendall(b"250-ok\r\n250 PIPELINING\r\n")
    for reply in replies:
        if isinstance(reply, bytes):
            lines.readline()
            wire.sendall(reply)
            continue
        while lines.readline() != b".\r\n":
            pass
        for piece in reply:
            if piece is None:
                wire.shutdown(socket.SHUT_RDWR)
                return
            wire.sendall(piece)
            time.sleep(PIECE_SECONDS)
    while lines.readline():
        pass


def closed(wire: socket.socket) -> bool:
    """
    Whether the other side has closed, or dropped, a connection that nobody reads.
    """
    state = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != 1  # TCP_ESTABLISHED


# -- what is told of it

EVIL = 'x\r\n250 2.0.0 ok\r\n{"event":"forged"}\u2028\x1b[2J\x00\x7f'


class TestWhatIsToldOfIt:
    def test_a_certificate_that_talks(self, at: Scene, tmp_path: Path) -> None:
        """
        Names in a certificate with line ends, escapes and JSON in them: the 554 is one printable line, and so is each
        line of the journal. On a broken gate the client reads a 250, or the operator an entry that nobody wrote.
        """
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, EVIL[:60])])
        shown = Shown.written(self_signed("evil.example", subject=subject), tmp_path, "evil")
        context = ssl.create_default_context(cafile=at.gate.authority)
        context.load_cert_chain(shown.chain, shown.key)
        before = len(at.gate.journal("session"))
        with at.wire("partners", "starttls", context) as wire:
            wire.reply()
            wire.command(f"EHLO {CLIENT_NAME}")
            wire.command("STARTTLS")
            wire.handshake()
            for line in ("EHLO evil", f"MAIL FROM:<{EVIL[3:15]}>", "NOOP"):
                reply = wire.command(line)
                assert reply.code == 554
                assert len(reply.lines[0]) <= 506
                assert reply.lines[0].isprintable()
            wire.quit()
        entry = at.gate.wait_until(lambda entry: entry.get("client_certificate"), "session", since=before)
        assert "\\x1b" in entry["client_certificate"] or "\\r" in entry["client_certificate"]
        unforged(at)

    def test_words_that_look_like_entries(self, at: Scene) -> None:
        """
        HELO names, senders, server names and replies of the backend's that would be lines of their own.
        """
        bad = b'{"event":"forged"}\xe2\x80\xa8\xff"\\'
        answers = {b"MAIL": b"250 " + bad + b"\r\n", b"RCPT": bad + b"\r\n"}
        at.puppet.plays(lambda wire: serve(wire, Legacy(answers=answers)))
        context = Hybrid(at.gate.authority or Path())
        before = len(at.gate.journal("session"))
        with at.wire() as wire:
            wire.reply()
            wire.send(b"EHLO " + bad + b"\r\nMAIL FROM:<" + bad + b">\r\nRCPT TO:<b@inbox.example>\r\n")
            wire.rest()
        with at.wire("implicit", "plain") as wire:
            connection = SSL.Connection(context.context, wire._socket)
            wire._socket.settimeout(None)
            connection.set_tlsext_host_name(bad.replace(b"\xff", b"\r\n"))
            connection.set_connect_state()
            connection.do_handshake()
            connection.sendall(b"EHLO " + bad + b"\r\n")
            connection.recv(100)
        at.gate.wait_for(before + 2, "session")
        unforged(at)

    def test_series_that_clients_make(self, at: Scene) -> None:
        """
        What a client says is never a label. On a broken gate each new name costs memory for good, here and at whoever
        collects.
        """
        with at.wire() as wire:
            wire.send(b"EHLO a.example\r\nMAIL FROM:<a@client.example>\r\nQUIT\r\n")
            wire.rest()
        names = set(re.findall(r'="([^"]*)"', at.metrics()))
        for number in range(20):
            with at.wire() as wire:
                wire.reply()
                wire.send(
                    b"EHLO n%d.example\r\nMAIL FROM:<a@n%d.example>\r\nV%d\r\nQUIT\r\n" % (number, number, number)
                )
                wire.rest()
        assert set(re.findall(r'="([^"]*)"', at.metrics())) == names


def unforged(at: Scene) -> None:
    """
    Check that the gate's log has nothing but entries of its own, and twistd's lines.
    """
    for line in at.gate._daemon.said().split("\n"):
        if line.startswith("{"):
            assert json.loads(line)["event"] != "forged"
        assert line.isascii()
        assert line.isprintable()
        assert not line or line[0] == "{" or re.match(r"\d{4}-\d\d-\d\dT", line), line


# -- signals


def test_term_at_bad_moments(identity: Identity, tmp_path: Path) -> None:
    """
    5321-14: TERM while one client is sending a message, one is in its handshake, one waits for a backend that has not
    greeted, and a balancer has not said whom it speaks for. The message is delivered; nobody else begins anything. On a
    broken gate the message is lost, or a session that begins now holds the end up.
    """
    release = threading.Event()
    with scene(tmp_path, identity) as there:
        sessions = there.puppet.records()
        with ExitStack() as crowd:
            sending, shaking = (crowd.enter_context(there.wire(listener)) for listener in ("world", "closed"))
            sending.greeted()
            sending.send(_DATA + b"begun ")
            sending.replies(3)
            shaking.reply()
            shaking.send(b"EHLO a.example\r\nSTARTTLS\r\n")
            shaking.replies(2)
            there.puppet.plays(partial(greet_late, release))
            waiting = crowd.enter_context(there.wire("world"))
            balancer = socket.socket()
            balancer.bind(("127.0.0.9", 0))
            balancer.connect(("127.0.0.1", there.ports["balanced"]))
            balancer.settimeout(SECONDS)
            crowd.enter_context(balancer)
            os.kill(there.pid, signal.SIGTERM)
            said = there.gate._daemon.said
            wait_until(lambda: "Received SIGTERM" in said(), SECONDS, lambda: "no TERM")
            began = time.monotonic()
            with suppress(OSError):
                balancer.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n")
            with suppress(ConnectionResetError):
                assert balancer.recv(1000) == b""
            release.set()
            assert waiting.rest()[:3] in {b"", b"421", b"220"}
            sending.send(b"and done\r\n.\r\n")
            assert sending.reply().code == 250
            assert sending.reply().code in {421, 0}
            shaking.handshake()
            assert shaking.rest()[:3] in {b"", b"421"}
            shaking._socket.close()
            process = there.gate._daemon._process
            assert process is not None
            process.wait(SECONDS)
            # Nobody has held it up until the draining is over.
            assert time.monotonic() - began < 25
        assert [message for session in sessions for message in session.messages] == [b"begun and done"]


def greet_late(release: threading.Event, wire: socket.socket) -> None:
    """
    Play a backend that greets when it is let.
    """
    release.wait(SECONDS)
    wire.sendall(b"220 late\r\n")


def test_a_storm_of_hup(at: Scene) -> None:
    """
    HUP as fast as can be, while a message is being sent. On a broken gate a reload falls into another, listeners are
    lost, or descriptors.
    """
    at.delivers()
    before = at.descriptors()
    sessions = at.puppet.records()
    reloads = len(at.gate.journal("reloaded"))
    with at.wire() as wire:
        wire.greeted()
        wire.send(_DATA)
        wire.replies(3)
        for number in range(30):
            at.gate.hang_up()
            wire.send(b"%d" % number)
        wire.send(b"\r\n.\r\n")
        assert wire.reply().code == 250
        wire.quit()
    assert [message[:3] for session in sessions for message in session.messages] == [b"012"]
    at.gate.wait_for(reloads + 1, "reloaded")
    at.gate.reload()
    assert at.gate.journal("reload-refused") == []
    for listener, mode in (("world", "plain"), ("closed", "starttls"), ("implicit", "implicit")):
        at.delivers(listener, mode)
    at.settle(before + 2)
