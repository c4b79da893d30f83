"""
A benchmark that counts wrongly is worse than none: these hold its tools to account.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import prepare
import processes
import pytest
import report
from measure import Measurement

SECONDS = 10
NOWHERE = prepare.Cores(None, None)

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<user@sink.example>\r\nDATA\r\n"
TRAPS = b".x\r\n..\r\n\n.\n\r.\r\n.\n.\r\nlast\r\n.\r\n"


@pytest.fixture(scope="module")
def tools() -> prepare.Tools:
    """
    The compiled programs. What is missing skips the tests on a laptop and fails them where the environment says CI.
    """
    try:
        return prepare.compile_tools()
    except prepare.NotPreparedError as lack:
        if os.environ.get("CI"):
            pytest.fail(str(lack))
        pytest.skip(str(lack))


@pytest.fixture
def sink(tools: prepare.Tools) -> Iterator[processes.Helper]:
    with processes.running_helper("the sink", [str(tools.sink), "--chunking"]) as running:
        yield running


@pytest.fixture
def port(sink: processes.Helper) -> int:
    smtp_port: int = json.loads(sink.hear(SECONDS))["smtp"]
    return smtp_port


def send_in_parts(sink: processes.Helper, port: int, *parts: bytes) -> bytes:
    """
    Send a session that ends with QUIT, each part only when the sink has seen the one before it; return the replies.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        for part in parts:
            connection.sendall(part)
            # Twice: the sink may answer the first in the same round of its loop, before it reads the part.
            sink.ask(SECONDS)
            sink.ask(SECONDS)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def load_says(tools: prepare.Tools, port: int, *options: str) -> dict[str, Any]:
    command = [str(tools.load), "--port", str(port), *options]
    with processes.running_helper("the load generator", command) as load:
        load.hear(SECONDS)
        return load.ask(SECONDS)


def test_the_sink_finds_the_end_of_a_message_however_it_is_cut(sink: processes.Helper, port: int) -> None:
    """Only CRLF . CRLF ends a message; lookalikes before it are content."""
    session = ENVELOPE + TRAPS + b"QUIT\r\n"
    for cut in range(len(ENVELOPE) - 2, len(session)):
        before = sink.ask(SECONDS)
        replies = send_in_parts(sink, port, session[:cut], session[cut:])
        after = sink.ask(SECONDS)
        assert replies.endswith(b"354 go ahead\r\n250 2.0.0 queued\r\n221 2.0.0 bye\r\n"), f"cut at {cut}"
        assert after["messages"] - before["messages"] == 1, f"cut at {cut}"
        assert after["octets"] - before["octets"] == len(TRAPS), f"cut at {cut}"


@pytest.mark.parametrize("message", [b".\r\n", b"\r\n.\r\n", b"x\r\n.\r\n"])
def test_the_sink_takes_the_smallest_messages(sink: processes.Helper, port: int, message: bytes) -> None:
    replies = send_in_parts(sink, port, ENVELOPE + message + b"QUIT\r\n")
    assert replies.endswith(b"250 2.0.0 queued\r\n221 2.0.0 bye\r\n")
    assert sink.ask(SECONDS)["octets"] == len(message)


def test_the_sink_takes_chunks(sink: processes.Helper, port: int) -> None:
    chunks = b"BDAT 5\r\nab\r\n.BDAT 4 LAST\r\n\r\n.\nBDAT 0 LAST\r\nQUIT\r\n"
    replies = send_in_parts(sink, port, ENVELOPE[: -len(b"DATA\r\n")], chunks)
    assert replies.count(b"250 2.0.0 chunk ok\r\n") == 3
    assert replies.endswith(b"221 2.0.0 bye\r\n")
    counts = sink.ask(SECONDS)
    assert (counts["messages"], counts["octets"]) == (2, 9)


def test_the_sink_does_not_relay_for_strangers(sink: processes.Helper, port: int) -> None:
    """A gate that looks whether its backend is an open relay must be content with it."""
    replies = send_in_parts(sink, port, b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@elsewhere.example>\r\nQUIT\r\n")
    assert b"550 5.7.1" in replies


@pytest.mark.parametrize("options", [(), ("--pipeline",), ("--messages", "3"), ("--rate", "400"), ("--size", "300000")])
def test_the_load_counts_what_arrives(
    tools: prepare.Tools, sink: processes.Helper, port: int, options: tuple[str, ...]
) -> None:
    told = load_says(tools, port, "--security", "plaintext", "--sessions", "40", "--connections", "8", *options)
    counts = sink.ask(SECONDS)
    assert told["failures"] == 0, told["first_failure"]
    assert told["sessions"] == 40
    assert (told["messages"], told["octets"]) == (counts["messages"], counts["octets"])
    assert 0 < told["p50_ms"] <= told["p99_ms"]


def test_warm_up_sessions_are_not_counted(tools: prepare.Tools, sink: processes.Helper, port: int) -> None:
    told = load_says(tools, port, "--security", "plaintext", "--sessions", "5", "--warm-up", "7")
    assert told["sessions"] == told["messages"] == 5
    assert sink.ask(SECONDS)["messages"] == 12


def test_a_reply_that_was_not_expected_is_a_failure(tools: prepare.Tools, port: int) -> None:
    """The sink knows no STARTTLS: a load that wants it must not claim to have had any session."""
    told = load_says(tools, port, "--sessions", "3", "--warm-up", "1")
    assert (told["sessions"], told["failures"]) == (0, 4)
    assert told["first_failure"].startswith("STARTTLS: 502")


def test_a_silent_gate_is_a_failure(tools: prepare.Tools) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = load_says(tools, silent.getsockname()[1], "--sessions", "1", "--timeout", "0.2")
    assert (told["sessions"], told["failures"]) == (0, 1)
    assert told["first_failure"] == "banner: no reply in time"


def test_a_closed_port_is_a_failure(tools: prepare.Tools) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        told = load_says(tools, unused.getsockname()[1], "--sessions", "1")
    assert (told["sessions"], told["failures"]) == (0, 1)


def test_sessions_are_held_until_they_are_released(tools: prepare.Tools, sink: processes.Helper, port: int) -> None:
    numbers = ["--connections", "4", "--warm-up", "3", "--sessions", "6"]
    command = [str(tools.load), "--port", str(port), "--security", "plaintext", "--hold", "message", *numbers]
    with processes.running_helper("the load generator", command) as load:
        load.hear(SECONDS)
        assert sink.ask(SECONDS)["messages"] == 3
        assert load.ask(SECONDS) == {"held": 9}
        assert sink.ask(SECONDS)["messages"] == 9
        assert load.ask(SECONDS)["failures"] == 0


def test_the_load_ends_when_nobody_listens_any_more(tools: prepare.Tools, sink: processes.Helper, port: int) -> None:
    """Nothing of the benchmark may outlive it."""
    command = [str(tools.load), "--port", str(port), "--security", "plaintext", "--sessions", "1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    assert done.stdout == b"ready\n"
    assert sink.ask(SECONDS)["connections"] == 0


def test_cpu_time_is_that_of_all_processes_and_threads_below() -> None:
    """A gate may fork, or start threads: what they cost is its cost."""
    burn = "import time\ndef burn():\n    while time.thread_time() < 0.1: pass\n"
    program = (
        f"{burn}import subprocess, sys, threading\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn + 'burn(); print(flush=True); input()'!r}], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(flush=True); input(); child.communicate()"
    )
    with processes.running_helper("the burner", [sys.executable, "-c", program]) as burner:
        before = processes.cpu_seconds(os.getpid())
        burner.hear(SECONDS)
        assert processes.cpu_seconds(os.getpid()) - before >= 0.1
        assert processes.cpu_seconds(os.getpid()) >= 0.2
        burner.go_on()


def test_memory_is_that_of_all_processes_below() -> None:
    program = "held = bytearray(b'x' * 20_000_000); print(flush=True); input()"
    before = processes.pss_kib(os.getpid())
    with processes.running_helper("the hoarder", [sys.executable, "-c", program]) as hoarder:
        hoarder.hear(SECONDS)
        assert processes.pss_kib(os.getpid()) - before > 19_000
        hoarder.go_on()


def measurement(messages: int = 2, arrived: int = 2, failures: int = 0, octets: int = 20) -> Measurement:
    load = {"sessions": 2, "failures": failures, "first_failure": "MAIL: 451", "messages": messages, "octets": 20}
    return Measurement(load, 1.0, 1.0, arrived, octets)


def test_a_measurement_with_all_in_order_has_no_fault() -> None:
    assert measurement().faults(transparent=True) == []


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (measurement(failures=1), "1 sessions failed, the first at MAIL: 451"),
        (measurement(arrived=1), "2 messages were accepted but 1 arrived"),
        (measurement(octets=19), "20 octets were sent but 19 arrived"),
    ],
)
def test_a_gate_that_loses_or_changes_mail_is_not_measured(faulty: Measurement, words: str) -> None:
    assert faulty.faults(transparent=True) == [words]


def test_numbers_are_told_with_median_and_range() -> None:
    assert report.cell([0.5, 12.34, 456.7]) == "12.3 [0.50..457]"
    assert report.cell([]) == "-"
    assert [report.number(value) for value in (0.01234, 0.0999, 9.999, 99.97, 1234.5)] == [
        "0.012", "0.10", "10.0", "100", "1234"
    ]  # fmt: skip


def test_a_ratio_is_taken_within_each_round() -> None:
    """Rounds in which the whole machine was slower must not make one gate look slower than another."""
    assert report.ratio([10, 2, 3], [10, 1, 1]) == "2.00"
    assert report.ratio([], [1]) == "-"


def test_a_gate_that_is_not_installed_is_reported_as_not_measured() -> None:
    results = report.Results(
        titles=["CPU"],
        values={"tlsgate": {"CPU": [1.0]}, "nginx": {}},
        versions={"tlsgate": "1", "nginx": "not measured"},
        excuses=["nginx: not measured: it is not installed"],
        busy={},
        facts={},
    )
    text = report.document(results)
    assert "- nginx: not measured\n" in text
    assert "- nginx: not measured: it is not installed" in text
    assert "| CPU | 1.00    | -     |" in text


def test_nothing_is_pinned_where_there_is_one_core_only() -> None:
    assert NOWHERE.pinned(["nginx"], NOWHERE.gate) == ["nginx"]
