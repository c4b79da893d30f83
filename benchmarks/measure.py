"""
Start a gate, put a load on it, and read what that cost.

The costs are those of the gate's whole process tree, read around the measured sessions only: the load generator waits
between its warm-up and its start.
"""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import peers
import prepare
import processes

ANSWER_SECONDS_MAX = 15
LOAD_SECONDS_MAX = 120
HELD_UNCOUNTED = 20


class MeasurementError(Exception):
    """
    A gate could not be measured; the text says why, with what it said itself.
    """


@attrs.frozen
class Measurement:
    """
    One load on one gate.

    *load* is what the load generator says, see `tally.c`.
    """

    load: dict[str, Any]
    gate_cpu_seconds: float
    sink_cpu_seconds: float
    sink_messages: int
    sink_octets: int

    def faults(self, *, transparent: bool) -> list[str]:
        """
        Return whatever makes the numbers worthless, in words; a *transparent* gate relays every octet as it came.
        """
        found = []
        if self.load["failures"]:
            found.append(f"{self.load['failures']} sessions failed, the first at {self.load['first_failure']}")
        if not self.load["sessions"]:
            found.append("no session was finished")
        if self.load["messages"] != self.sink_messages:
            found.append(f"{self.load['messages']} messages were accepted but {self.sink_messages} arrived")
        elif transparent and self.load["octets"] != self.sink_octets:
            found.append(f"{self.load['octets']} octets were sent but {self.sink_octets} arrived")
        return found

    @property
    def load_core_share(self) -> float:
        """
        How busy the core of the load generator and the sink was. Near 1, it was they who set the pace.
        """
        return float((self.load["cpu_seconds"] + self.sink_cpu_seconds) / self.load["seconds"])


@attrs.frozen
class Memory:
    """
    What a gate keeps, in KiB: with no session, and for each of many idle ones.
    """

    base_kib: float
    session_kib: float


@attrs.frozen
class Gate:
    """
    A running gate.
    """

    peer: peers.Peer
    pid: int
    port: int


def free_port() -> int:
    """
    Return a loopback port nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"220 "
    except OSError:
        return False


def _wait_for_greeting(peer: peers.Peer, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while not _greets(port):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-1500:].strip()
            raise MeasurementError(f"{peer.name} does not start. It says:\n{said}")
        time.sleep(0.05)


@attrs.frozen
class Bench:
    """
    What stays the same from one measurement to the next.
    """

    tools: prepare.Tools
    cores: prepare.Cores
    certificate: prepare.Certificate
    sink: processes.Helper
    sink_port: int
    auth_port: int

    @contextlib.contextmanager
    def running_gate(self, peer: peers.Peer, folder: Path) -> Iterator[Gate]:
        """
        Run a gate as long as the block lasts; the block begins when it greets.

        Raises:
            MeasurementError: it ended, or did not greet in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        setup = peers.Setup(folder, port, self.sink_port, self.auth_port, self.certificate)
        command = self.cores.pinned(peer.command(setup), self.cores.gate)
        log = folder / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder)
        try:
            _wait_for_greeting(peer, process, port, log)
            yield Gate(peer, process.pid, port)
        finally:
            processes.end(process)

    @contextlib.contextmanager
    def _warmed_up_load(self, gate: Gate, options: list[str]) -> Iterator[processes.Helper]:
        command = [str(self.tools.load), "--port", str(gate.port), *options]
        with processes.running_helper("the load generator", self.cores.pinned(command, self.cores.load)) as load:
            load.hear(LOAD_SECONDS_MAX)
            yield load

    def measure(self, gate: Gate, options: list[str]) -> Measurement:
        """
        Put one load on *gate*.
        """
        with self._warmed_up_load(gate, options) as load:
            sink_before = self.sink.ask(ANSWER_SECONDS_MAX)
            cpu_before = processes.cpu_seconds(gate.pid)
            told = load.ask(LOAD_SECONDS_MAX)
            cpu = processes.cpu_seconds(gate.pid) - cpu_before
            sink = self.sink.ask(ANSWER_SECONDS_MAX)
        return Measurement(
            load=told,
            gate_cpu_seconds=cpu,
            sink_cpu_seconds=sink["cpu_seconds"] - sink_before["cpu_seconds"],
            sink_messages=sink["messages"] - sink_before["messages"],
            sink_octets=sink["octets"] - sink_before["octets"],
        )

    def measure_memory(self, gate: Gate, where: str, sessions: int) -> Memory:
        """
        Hold idle sessions on a fresh *gate*: *where* is `ehlo` or `message`, whatever they did last.

        Some are held already before the first reading: they pay for what a gate allocates once, and the load generator,
        which shares library pages with some gates, is there in both readings.
        """
        self.measure(gate, ["--sessions", "20", "--connections", "2"])
        base_kib = processes.pss_kib(gate.pid)
        options = [
            "--hold",
            where,
            "--connections",
            "20",
            "--warm-up",
            str(HELD_UNCOUNTED),
            "--sessions",
            str(sessions),
        ]
        with self._warmed_up_load(gate, options) as load:
            before_kib = processes.pss_kib(gate.pid)
            held = load.ask(LOAD_SECONDS_MAX)["held"]
            after_kib = processes.pss_kib(gate.pid)
            told = load.ask(LOAD_SECONDS_MAX)
        if told["failures"] or held != sessions + HELD_UNCOUNTED:
            raise MeasurementError(f"it holds {held} sessions, then: {told['first_failure']}")
        return Memory(base_kib, (after_kib - before_kib) / sessions)


@contextlib.contextmanager
def running_bench(tools: prepare.Tools, cores: prepare.Cores, certificate: prepare.Certificate) -> Iterator[Bench]:
    """
    Run the sink as long as the block lasts, and measure before it.
    """
    with processes.running_helper("the sink", cores.pinned([str(tools.sink)], cores.load)) as sink:
        ports = json.loads(sink.hear(ANSWER_SECONDS_MAX))
        yield Bench(tools, cores, certificate, sink, ports["smtp"], ports["auth"])
