"""
A message larger than any memory for it, through a gate before a backend that is slow; and many sessions that do nothing.
"""

import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pytest
from attrs import define, field

from tests.integration.gate import Gate, Identity, running
from tests.integration.wire import Wire

CHUNK_OCTETS = 65_536
CHUNKS = 16_384  # 1 GiB in all
SLOW_SECONDS = 5.0
SLOW_OCTETS_PER_SECOND = 1_000_000
GROWTH_MAX_KIB = 20 * 1024
SESSIONS = 200
END = b"\r\n.\r\n"


def chunks() -> Iterator[bytes]:
    """
    Yield the message: numbered, so that none can be lost, doubled, or take the place of another.
    """
    body = (b"x" * 998 + b"\r\n") * 66
    for number in range(CHUNKS):
        yield b"%012d\r\n" % number + body[: CHUNK_OCTETS - 16] + b"\r\n"


def memory_kib(pid: int, name: str, file: str) -> int:
    """
    Return one line of what the kernel tells of a process's memory.
    """
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@define(eq=False)
class Sink:
    """
    A backend that reads a message slowly for a while, then as fast as it comes, and keeps only its hash.

    *taken* tells how much it has read.
    """

    taken: int = 0
    slow_until: float = 0.0
    hashed: hashlib.blake2b = field(factory=hashlib.blake2b)
    _server: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        # What the kernel holds for a slow reader is not the gate's merit.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @property
    def port(self) -> int:
        port: int = self._server.getsockname()[1]
        return port

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                wire, _ = self._server.accept()
                threading.Thread(target=self._serve, args=[wire], daemon=True).start()

    def _serve(self, wire: socket.socket) -> None:
        with wire, suppress(OSError):
            wire.sendall(b"220 sink.example ESMTP\r\n")
            pending = b""
            while True:
                while b"\n" not in pending:
                    data = wire.recv(1000)
                    if not data:
                        return
                    pending += data
                line, _, pending = pending.partition(b"\n")
                verb = line[:4].upper()
                if verb == b"DATA":
                    wire.sendall(b"354 go\r\n")
                    self._take_message(wire)
                wire.sendall({b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))

    def _take_message(self, wire: socket.socket) -> None:
        self.slow_until = time.monotonic() + SLOW_SECONDS
        total = CHUNK_OCTETS * CHUNKS + len(END) - 2
        buffer = bytearray(1 << 20)
        view = memoryview(buffer)
        while self.taken < total:
            slow = time.monotonic() < self.slow_until
            octets = wire.recv_into(view[: CHUNK_OCTETS if slow else len(buffer)])
            if not octets:
                return
            self.hashed.update(view[:octets])
            self.taken += octets
            if slow:
                time.sleep(octets / SLOW_OCTETS_PER_SECOND)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def gate(sink: Sink, identity: Identity, tmp_path: Path) -> Iterator[Gate]:
    keys = "accept_open_relay = true\n[limits]\nsessions_per_client = 1000"
    with running(Gate(tmp_path, identity, sink.port, backend_keys=keys)) as gate:
        yield gate


def pid_of(gate: Gate) -> int:
    process = gate._daemon._process
    assert process is not None
    return process.pid


def sent_whole(wire: Wire) -> Callable[[], bytes]:
    """
    Begin to send the message in a thread; return what waits for that, and returns its hash.
    """
    hashed = hashlib.blake2b()
    errors: list[OSError] = []

    def work() -> None:
        try:
            for chunk in chunks():
                hashed.update(chunk)
                wire.send(chunk)
            hashed.update(END[2:])
            wire.send(END[2:])
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def wait() -> bytes:
        thread.join(60)
        assert not errors, errors
        assert not thread.is_alive()
        return hashed.digest()

    return wait


def test_a_gibibyte_before_a_slow_backend(
    gate: Gate, sink: Sink, record_property: Callable[[str, object], None]
) -> None:
    """
    However large the message and however slow the backend: the gate holds a bounded piece of it.
    """
    pid = pid_of(gate)
    with Wire(gate.route("starttls")) as warm:
        warm.greeted()
        warm.quit()
    idle = memory_kib(pid, "VmRSS", "status")
    with Wire(gate.route("starttls")) as wire:
        wire.greeted()
        for command in ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>"):
            assert wire.command(command).code == 250
        assert wire.command("DATA").code == 354
        begun = time.monotonic()
        wait = sent_whole(wire)
        most, taken_slowly = idle, 0
        while sink.taken < CHUNK_OCTETS * CHUNKS and time.monotonic() < begun + 300:
            most = max(most, memory_kib(pid, "VmRSS", "status"))
            if time.monotonic() < sink.slow_until:
                taken_slowly = sink.taken
            time.sleep(0.02)
        expected = wait()
        assert wire.reply().code == 250
        seconds = time.monotonic() - begun
        wire.quit()
    assert sink.hashed.digest() == expected
    assert taken_slowly <= (SLOW_SECONDS + 1) * SLOW_OCTETS_PER_SECOND, "the backend was not slow"
    print(  # noqa: T201 - shown with -s
        f"\n1 GiB in {seconds:.1f} s, {(most - idle) / 1024:.1f} MiB above {idle / 1024:.1f} MiB idle"
    )
    record_property("growth_kib", most - idle)
    assert most - idle < GROWTH_MAX_KIB


def test_what_an_idle_session_costs(gate: Gate, record_property: Callable[[str, object], None]) -> None:
    """
    Two hundred sessions inside TLS, each with its backend, all in service at once.
    """
    pid = pid_of(gate)
    route = gate.route("starttls")
    context = ssl.create_default_context(cafile=route.authority)
    with ExitStack() as stack:
        stack.enter_context(Wire(route, context)).greeted()
        before = memory_kib(pid, "Pss", "smaps_rollup")
        wires = [stack.enter_context(Wire(route, context)) for _ in range(SESSIONS)]
        for wire in wires:
            wire.greeted()
        each = (memory_kib(pid, "Pss", "smaps_rollup") - before) / SESSIONS
        for wire in wires:
            assert wire.command("NOOP").code == 250
    print(f"\n{each:.0f} KiB for each of {SESSIONS} idle sessions")  # noqa: T201 - shown with -s
    record_property("session_kib", each)
    assert each < 1000
