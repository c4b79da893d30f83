"""
The demo as its user meets it: a process that says what to do, and it works.
"""

import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define

SECONDS = 60.0
READY = "Ctrl-C ends it."
BIN = Path(sys.executable).parent


def within_bounds(look: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not look():
        if time.monotonic() > deadline:
            pytest.fail(what())
        time.sleep(0.02)


@define
class Running:
    """
    A demo that runs, in a folder of its own.
    """

    process: subprocess.Popen[bytes]
    folder: Path

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def await_words(self, words: str) -> None:
        within_bounds(
            lambda: words in self.said() or self.process.poll() is not None, lambda: f"no {words!r} in: {self.said()}"
        )
        assert words in self.said(), self.said()

    def port(self, kind: str) -> int:
        found = re.search(rf"127\.0\.0\.1:(\d+) \({kind}\)", self.said())
        assert found is not None
        return int(found[1])

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def messages(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.folder / "run" / "Maildir" / "new").iterdir()]

    def gate(self) -> int:
        """
        Return the process id of the gate: the demo's only child.
        """
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1
        return int(children[0])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """
    A demo on free ports that has said all it has to say.
    """
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tlsgate.operator.main", "demo", "--port=0", "--tls-port=0", "--folder=run"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    demo = Running(process, tmp_path)
    try:
        demo.await_words(READY)
        yield demo
    finally:
        if process.poll() is None:
            demo.end(signal.SIGTERM)


def closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_command_that_is_printed_delivers_a_mail(running: Running) -> None:
    (command,) = re.findall(r"^  (python3 -c .*)$", running.said(), re.MULTILINE)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(command, shell=True, check=True, timeout=SECONDS, env=environment, cwd="/")
    (message,) = running.messages()
    assert message.startswith(b"Return-Path: <me@example.org>\r\nDelivered-To: you@example.org\r\n")
    assert message.endswith(b"\r\nSubject: Hello\r\n\r\nThrough the gate.\r\n")
    running.await_words("stored: 37 octets from <me@example.org> to <you@example.org>")


def test_implicit_tls_delivers_and_plaintext_is_refused(running: Running) -> None:
    context = ssl.create_default_context(cafile=str(running.folder / "run" / "certificate.pem"))
    with smtplib.SMTP_SSL("localhost", running.port("implicit TLS"), "localhost", context=context) as client:
        client.sendmail("me@example.org", ["you@example.org"], "Subject: x\n\nx\n")
    assert len(running.messages()) == 1
    with smtplib.SMTP("localhost", running.port("STARTTLS"), "localhost") as client:
        assert client.docmd("MAIL FROM:<me@example.org>") == (530, b"5.7.0 Must issue a STARTTLS command first")
    assert len(running.messages()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_gate_and_mailbox_quietly(running: Running, number: signal.Signals) -> None:
    ports = [running.port("STARTTLS"), running.port("implicit TLS")]
    assert running.end(number) == 0
    assert all(closed(port) for port in ports)
    assert running.said().endswith(READY + "\n")
    assert "Traceback" not in (running.folder / "run" / "gate.log").read_text()


@pytest.mark.skipif(not Path("/proc/thread-self/children").exists(), reason="needs /proc")
def test_a_gate_that_dies_ends_the_demo_with_its_last_words(running: Running) -> None:
    os.kill(running.gate(), signal.SIGKILL)
    assert running.process.wait(SECONDS) == 1
    assert "Error: the gate has ended:\n" in running.said()
    assert '"event":"listening"' in running.said()
