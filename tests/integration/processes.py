"""
Real processes for tests: found or missed loudly, started, awaited within bounds, and stopped by their own pid.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

import pytest
from attrs import define, field

SERVERS_FOLDER = Path(os.environ.get("TLSGATE_SERVERS", "/opt/tlsgate-servers"))
START_SECONDS = 60.0
STOP_SECONDS = 40.0  # a gate drains for half a minute
POLL_SECONDS = 0.01
PORTS = range(15_000, 32_000)

Found = TypeVar("Found")


def need(what: str | Path, *, root: bool = False) -> str:
    """
    Return the path of a program or folder these tests cannot do without.

    A name is looked up on the PATH, a relative path below `SERVERS_FOLDER`. With *root*, being root is needed as well.
    What is missing skips the test on a laptop and fails it where the environment says CI.
    """
    path = shutil.which(what, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") if isinstance(what, str) else None
    if isinstance(what, Path) and (SERVERS_FOLDER / what).exists():
        path = str(SERVERS_FOLDER / what)
    if path is None:
        lack = f"{what} is missing: run .ci/install-servers"
    elif root and os.geteuid() != 0:
        lack = f"{what} must be run as root"
    else:
        return path
    if os.environ.get("CI"):
        pytest.fail(lack)
    pytest.skip(lack)


def free_ports(count: int) -> list[int]:
    """
    Return *count* TCP ports of loopback that nobody listens on, and that were not returned before.

    They lie below those that the system gives to outgoing connections: nobody gets one between this look and its use.
    """
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if port in _given_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        _given_out.add(port)
        if len(ports) == count:
            break
    return ports


_given_out: set[int] = set()


def free_port() -> int:
    """
    Return one such port.
    """
    [port] = free_ports(1)
    return port


def wait_until(look: Callable[[], Found | None], seconds: float, what: Callable[[], str]) -> Found:
    """
    Return what *look* returns as soon as it is true; fail with *what* when it is not within *seconds*.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(what())
        time.sleep(POLL_SECONDS)


def accepts(port: int) -> bool:
    """
    Whether somebody listens on the loopback *port*.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def greets(port: int) -> bool:
    """
    Whether an SMTP server answers on the loopback *port* with 220; the session is ended with QUIT.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as probe, probe.makefile("rwb") as wire:
            ready = wire.readline(1000).startswith(b"220")
            wire.write(b"QUIT\r\n")
            wire.flush()
            wire.readline(1000)
            return ready
    except OSError:
        return False


@contextmanager
def private_folder(name: str) -> Iterator[Path]:
    """
    A folder that daemons with dropped privileges can enter (pytest's own cannot be), removed afterwards.
    """
    folder = Path(mkdtemp(prefix=f"tlsgate-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@define
class Daemon:
    """
    One process of a test, leader of its own process group, with everything it says in one file.
    """

    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        """
        Start and return once *ready*; fail if the process ends before, or takes longer than `START_SECONDS`.
        """
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: process.poll() is not None or ready(),
                START_SECONDS,
                lambda: f"{self.argv[0]} is not ready:\n{self.said()}",
            )
            if process.poll() is not None:
                pytest.fail(f"{self.argv[0]} ended with status {process.returncode}:\n{self.said()}")
        except BaseException:
            self.stop()
            raise

    def said(self) -> str:
        """
        Everything the process wrote to its standard output and error so far.
        """
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self) -> int:
        """
        Send TERM, and KILL to whatever of the process group outlives it; return the exit status.
        """
        process = self._process
        if process is None:
            return 0
        self._process = None
        process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
