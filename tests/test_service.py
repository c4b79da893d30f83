"""
The service as `twistd` starts it: the command line, what it says of a configuration it cannot use, how it ends.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import define

from tests.integration.processes import free_port
from tests.support.certificates import DAY, NOW, Authority, self_signed
from tests.support.legacy import LegacyPort
from tlsgate.options import Options
from tlsgate.service import makeService

ROOT = Path(__file__).parent.parent
TWISTD = Path(sys.executable).with_name("twistd")
SECONDS = 60.0
OPTIONS = [
    *["config", "level", "client-address", "hostname", "listen", "listen-tls", "backend", "certificate", "key"],
    "accept-open-relay",
]
# A gate before a port that nobody listens on.
NO_BACKEND = ["--backend", "tcp:127.0.0.1:9", "--certificate", "mx.pem", "--key", "mx.key"]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run `twistd tlsgate` in *folder* until it ends by itself.
    """
    command = [str(TWISTD), "--nodaemon", "--pidfile=", "tlsgate", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)


def said_at(port: int) -> bytes:
    """
    Return what whoever listens on *port* says first; empty if nobody does.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            return client.recv(1000)
    except OSError:
        return b""


@define
class Running:
    """
    A gate that runs, with what it says in a file.
    """

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def said(self) -> str:
        return self.log.read_text()

    def await_greeting(self) -> bytes:
        deadline = time.monotonic() + SECONDS
        while not (greeting := said_at(self.port)):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
        return greeting

    def await_words(self, words: str) -> None:
        deadline = time.monotonic() + SECONDS
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    A folder with a certificate in it.
    """
    Authority.root().issue("mx.example.org").write(tmp_path)
    return tmp_path


@pytest.fixture
def backend() -> Iterator[int]:
    """
    The port of a mail server.
    """
    with LegacyPort() as server:
        yield server.port


@pytest.fixture
def start(folder: Path, backend: int) -> Iterator["Starter"]:
    starter = Starter(folder, backend, [])
    yield starter
    for process in starter.started:
        if process.poll() is None:
            process.kill()
            process.wait(SECONDS)


@define
class Starter:
    folder: Path
    backend: int
    started: list[subprocess.Popen[bytes]]

    def short(self, port: int) -> list[str]:
        """
        Return the shortest command line that makes a gate of level `required`.
        """
        return [
            *["--listen", f"tcp:{port}:interface=127.0.0.1", "--backend", f"tcp:127.0.0.1:{self.backend}"],
            *["--certificate", "mx.pem", "--key", "mx.key", "--hostname", "mx.example.org", "--accept-open-relay"],
        ]

    def __call__(self, *arguments: str, port: int) -> Running:
        log = self.folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(TWISTD), "--nodaemon", "--pidfile=", "tlsgate", *arguments],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.started.append(process)
        return Running(process, log, port)


def problems_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """
    Return what is said of *arguments* that cannot be used, line by line.
    """
    options = Options()
    options.parseOptions(list(arguments))
    with pytest.raises(SystemExit) as exit_:
        makeService(options)
    assert exit_.value.code == 1
    return capsys.readouterr().err.splitlines()


class TestCommandLine:
    def test_help_lists_every_option(self, folder: Path) -> None:
        ended = run(folder, "--help")
        assert ended.returncode == 0
        found = re.findall(r"^ .*?--([a-z-]+)", ended.stdout, re.MULTILINE)
        assert sorted(set(found) - {"help", "version"}) == sorted(OPTIONS)

    def test_twistd_lists_the_plugin(self, folder: Path) -> None:
        ended = subprocess.run(
            [str(TWISTD), "--help"], cwd=folder, capture_output=True, text=True, timeout=60, check=True
        )
        assert re.search(r"^ +tlsgate ", ended.stdout, re.MULTILINE)

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            Options().parseOptions(["--version"])
        assert exit_.value.code == 0
        assert re.fullmatch(r"tlsgate [0-9.]+\S*\n", capsys.readouterr().out)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ([], "--backend"),
            (["--backend", "tcp:127.0.0.1:25", "--level", "strict"], "--level"),
            (["--backend", "tcp:127.0.0.1:25", "--certificate", "mx.pem"], "--key"),
            (["--backend", "tcp:127.0.0.1:25", "--config", "x.toml"], "--config"),
            (["--config", "missing.toml"], "missing.toml: No such file"),
            (["--config", ""], "--config: needs the path of a file"),
            (["--backend", "tcp:127.0.0.1:25", "--level", ""], '--level: "" is not one of'),
            (["--backend", "tcp:127.0.0.1:25", "--client-address", ""], '--client-address: "" is not one of'),
            (["--backend", "nonsense:1", "--certificate", "mx.pem", "--key", "mx.key"], "--backend"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_what_cannot_be_used_is_said(
        self, arguments: list[str], problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.chdir(folder)
        lines = problems_of(*arguments, capsys=capsys)
        assert all(line.startswith("tlsgate: ") for line in lines)
        assert any(problem in line for line in lines), lines

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["--listne", "tcp:25"], "option --listne not recognized"),
            (["--backend"], "option --backend requires argument"),
            (["gate.toml"], "'gate.toml' is no option; a configuration file is given as --config FILE"),
        ],
    )
    def test_what_is_no_option_is_said_in_one_line(
        self, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        And not below the list of all there are.
        """
        with pytest.raises(SystemExit) as exit_:
            Options().parseOptions(arguments)
        assert exit_.value.code == 1
        assert capsys.readouterr() == ("", f"tlsgate: {problem}; `twistd tlsgate --help` lists all options\n")


class TestConfiguration:
    def test_all_faults_of_a_file_are_told_at_once(self, folder: Path) -> None:
        (folder / "gate.toml").write_text(
            """
            hostnam = "mx.example.org"
            [[listener]]
            endpoint = "tcp:25"
            level = "strict"
            [backend]
            endpoints = []
            [limits]
            sessions = 0
            """
        )
        ended = run(folder, "--config", "gate.toml")
        assert ended.returncode == 1
        assert ended.stdout == ""
        said = [line.split(": ")[:2] for line in ended.stderr.splitlines()]
        keys = ["hostnam", "backend.endpoints", "limits.sessions", "listener[0].level"]
        assert sorted(said) == sorted(["tlsgate", key] for key in keys), ended.stderr

    @pytest.mark.parametrize("fault", ["missing", "of another key", "expired", "empty", "no certificate"])
    def test_a_certificate_that_cannot_be_used(
        self, folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(folder)
        match fault:
            case "missing":
                (folder / "mx.pem").unlink()
            case "of another key":
                (folder / "mx.key").write_bytes(self_signed("mx.example.org", number=7).key_pem)
            case "expired":
                Authority.root().issue("mx.example.org", not_before=NOW - 9 * DAY, not_after=NOW - DAY).write(folder)
            case "empty":
                (folder / "mx.pem").write_text("")
            case "no certificate":
                (folder / "mx.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        (line,) = problems_of(
            *["--backend", "tcp:127.0.0.1:25", "--certificate", "mx.pem", "--key", "mx.key"], capsys=capsys
        )
        assert ("mx.key" if fault == "of another key" else "mx.pem") in line

    def test_a_key_exchange_group_that_nobody_knows(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        Misspelt, it would refuse whoever meets the level.
        """
        monkeypatch.chdir(folder)
        (folder / "gate.toml").write_text(
            """
            [[level]]
            name = "hybrid"
            tls = "required"
            groups = ["X25519MLKEM786"]
            [[listener]]
            name = "mx"
            endpoint = "tcp:2525:interface=127.0.0.1"
            level = "hybrid"
            [tls]
            certificates = [{ chain = "mx.pem", key = "mx.key" }]
            [backend]
            endpoints = ["tcp:127.0.0.1:9"]
            """
        )
        (line,) = problems_of("--config", "gate.toml", capsys=capsys)
        assert line.startswith("tlsgate: level[0].groups[0]: OpenSSL ")
        assert line.endswith(" knows no key exchange group 'X25519MLKEM786'; the level would refuse everybody")

    @pytest.mark.parametrize(
        ("endpoint", "reason"),
        [
            ("tcp:{taken}:interface=127.0.0.1", "Address already in use; is another server, or another gate,"),
            ("tcp:{taken}:interface=192.0.2.1", "no interface of this machine has that address"),
            ("unix:/nowhere/at/all.sock", "No such file or directory"),
            ("systemd:domain=INET:index=0", "systemd has handed over no such socket"),
            ("systemd:domain=INET:name=mx", "systemd has handed over no such socket"),
        ],
    )
    def test_a_port_that_cannot_be_had(self, folder: Path, endpoint: str, reason: str) -> None:
        """
        One line on standard error, whatever the reason; and Twisted's log does not show how we came there.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = endpoint.format(taken=taken.getsockname()[1])
            ended = run(folder, *NO_BACKEND, "--listen", endpoint)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stdout + ended.stderr
        last = ended.stderr.splitlines()[-1]
        assert last.startswith("tlsgate: "), ended
        assert endpoint in last
        assert reason in last


@pytest.fixture
def daemon(folder: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """
    How `twistd tlsgate` is run without -n; the daemon is ended behind the test.
    """

    def started(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(TWISTD), "--pidfile=pid", "--logfile=log", "tlsgate", *arguments]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )

    yield started
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


class TestDaemon:
    """Without -n, twistd goes into the background once all ports are open, and has no standard error any more."""

    def test_a_port_in_use_ends_it(self, folder: Path, daemon: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        """
        twistd waits for word of its daemon: one that only exits would let it wait for ever.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            ended = daemon(*NO_BACKEND, "--listen", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")
        assert ended.returncode == 1
        assert "cannot listen on tcp:" in ended.stdout + ended.stderr
        log = (folder / "log").read_text()
        assert "tlsgate: cannot listen on tcp:" in log
        assert "Traceback" not in log

    def test_the_journal_goes_to_the_log(
        self, folder: Path, daemon: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        """
        Where no file was asked for: nothing is lost. The daemon writes on when twistd has ended.
        """
        ended = daemon(*NO_BACKEND, "--listen", f"tcp:{free_port()}:interface=127.0.0.1")
        assert ended.returncode == 0, ended
        await_words(folder / "log", '"event":"listening"')
        log = (folder / "log").read_text()
        assert re.search(r'\[tlsgate#info\] \{"time":"[^"]+","event":"listening",', log), log


class TestLife:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_serves_and_stops_when_told(self, start: Starter, number: signal.Signals) -> None:
        """Ended by a signal, twistd dies of that signal in the end, as systemd and shells expect."""
        port = free_port()
        gate = start(*start.short(port), port=port)
        assert gate.await_greeting() == b"220 mx.example.org ESMTP\r\n"
        assert gate.end(number) in {0, -number}
        assert said_at(port) == b""
        assert '"event":"stopped","sessions_cut_off":0' in gate.said()
        assert "Traceback" not in gate.said()

    def test_it_takes_a_configuration_file(self, start: Starter) -> None:
        port = free_port()
        (start.folder / "gate.toml").write_text(
            f"""
            hostname = "gate.example.org"
            [[listener]]
            endpoint = "tcp:{port}:interface=127.0.0.1"
            level = "required"
            [tls]
            certificates = [{{ chain = "mx.pem", key = "mx.key" }}]
            [backend]
            endpoints = ["tcp:127.0.0.1:{start.backend}"]
            accept_open_relay = true
            [observe]
            journal = "./journal"
            """
        )
        gate = start("--config", str(start.folder / "gate.toml"), port=port)
        assert gate.await_greeting() == b"220 gate.example.org ESMTP\r\n"
        gate.end()
        journal = (start.folder / "journal").read_text()
        assert '"event":"listening"' in journal
        assert '"event":"session"' in journal

    def test_idle_sessions_are_told_when_it_stops(self, start: Starter) -> None:
        """5321-05, section 3.8: 421, and then the close."""
        port = free_port()
        gate = start(*start.short(port), port=port)
        gate.await_greeting()
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
            assert client.recv(1000).startswith(b"220")
            begun = time.monotonic()
            gate.process.send_signal(signal.SIGTERM)
            with client.makefile("rb") as wire:
                assert wire.read() == b"421 4.3.2 Service shutting down, try again later\r\n"
        assert gate.process.wait(SECONDS) in {0, -signal.SIGTERM}
        # Nothing was waited for: it would have been half a minute.
        assert time.monotonic() - begun < 20

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_told_twice_it_waits_for_nobody(self, start: Starter, number: signal.Signals) -> None:
        """Who says it again will not wait for the mail transaction under way."""
        port = free_port()
        gate = start(*start.short(port), "--level", "offered", port=port)
        gate.await_greeting()
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
            client.sendall(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
            with client.makefile("rb") as wire:
                while not wire.readline().startswith(b"250 OK to MAIL"):
                    pass
                begun = time.monotonic()
                gate.process.send_signal(number)
                gate.await_words("Closed)")
                gate.process.send_signal(number)
                assert gate.process.wait(SECONDS) in {0, -number}
        assert time.monotonic() - begun < 20
        assert '"event":"stopped","sessions_cut_off":1' in gate.said()
        assert "Traceback" not in gate.said()

    def test_hup_reads_the_certificate_again_and_keeps_the_old_one(self, start: Starter) -> None:
        port = free_port()
        gate = start(*start.short(port), port=port)
        gate.await_greeting()
        (start.folder / "mx.pem").write_text("rubbish")
        gate.process.send_signal(signal.SIGHUP)
        gate.await_words("mx.pem")
        assert gate.await_greeting().startswith(b"220")
        assert b"STARTTLS" in ehlo(port)
        Authority.root().issue("mx.example.org").write(start.folder)
        said = gate.said()
        gate.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + SECONDS
        while "reloaded" not in gate.said()[len(said) :]:
            assert time.monotonic() < deadline, gate.said()
        assert gate.end() in {0, -signal.SIGTERM}
        assert "Traceback" not in gate.said()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_need_not_wait_for_a_backend_to_end(self, folder: Path, number: signal.Signals) -> None:
        """
        One that says nothing is waited for at the start, before anything listens.
        """
        with socket.create_server(("127.0.0.1", 0)) as silent:
            arguments = ["--backend", f"tcp:127.0.0.1:{silent.getsockname()[1]}", *NO_BACKEND[2:]]
            with subprocess.Popen(
                [str(TWISTD), "--nodaemon", "--pidfile=", "tlsgate", *arguments],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            ) as process:  # fmt: skip
                silent.settimeout(SECONDS)
                waiting, _ = silent.accept()
                begun = time.monotonic()
                process.send_signal(number)
                assert process.wait(SECONDS) in {128 + number, -number}
                assert time.monotonic() - begun < 5
                assert process.stdout is not None
                assert process.stdout.read() == b""
            waiting.close()

    def test_hup_does_not_end_a_start(self, start: Starter) -> None:
        """
        Its effect comes when there is something to read again; systemd would take this end for a wanted one.
        """
        port = free_port()
        with socket.create_server(("127.0.0.1", 0)) as late:
            backend = f"tcp:127.0.0.1:{late.getsockname()[1]}"
            listen = f"tcp:{port}:interface=127.0.0.1"
            gate = start("--listen", listen, "--backend", backend, *NO_BACKEND[2:], port=port)
            late.settimeout(SECONDS)
            guard, _ = late.accept()
            gate.process.send_signal(signal.SIGHUP)
            guard.close()
            gate.await_words('"event":"reloaded"')
        assert gate.end() in {0, -signal.SIGTERM}

    def test_hup_tells_of_a_port_and_of_a_journal_that_cannot_be_had(self, start: Starter) -> None:
        """
        All else of the new configuration holds, and what was already written is kept.
        """
        port, journal = free_port(), start.folder / "journal" / "lines"
        journal.parent.mkdir()
        lines = f"""
            hostname = "mx.example.org"
            [tls]
            certificates = [{{ chain = "mx.pem", key = "mx.key" }}]
            [backend]
            endpoints = ["tcp:127.0.0.1:{start.backend}"]
            accept_open_relay = true
            [observe]
            journal = "{journal}"
            [[listener]]
            endpoint = "tcp:{port}:interface=127.0.0.1"
            """
        config = start.folder / "gate.toml"
        config.write_text(lines)
        gate = start("--config", "gate.toml", port=port)
        gate.await_greeting()
        for endpoint in ("unix:/nowhere/at/all.sock", "systemd:domain=INET:index=0"):
            config.write_text(f'{lines}\n[[listener]]\nendpoint = "{endpoint}"\n')
            before = journal.read_text().count('"reloaded"')
            gate.process.send_signal(signal.SIGHUP)
            await_words(journal, '"reloaded"', before + 1)
            assert f'"event":"listening-failed","listener":"{endpoint}"' in journal.read_text()
        moved = start.folder / "moved"
        journal.parent.rename(moved)
        gate.process.send_signal(signal.SIGHUP)
        await_words(moved / "lines", "observe.journal: the file cannot be opened anew")
        assert gate.end() == -signal.SIGTERM
        assert "Traceback" not in gate.said()


def await_words(path: Path, words: str, times: int = 1) -> None:
    deadline = time.monotonic() + SECONDS
    while path.read_text().count(words) < times:
        assert time.monotonic() < deadline, path.read_text()


def ehlo(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client, client.makefile("rb") as wire:
        wire.readline()
        client.sendall(b"EHLO x\r\nQUIT\r\n")
        return wire.read()


class TestInstallation:
    """`twistd` finds the plugin wherever tlsgate is installed; and from any folder, not only from a checkout."""

    @pytest.mark.parametrize("kind", ["wheel", "editable"])
    def test_the_plugin_is_found(self, tmp_path: Path, kind: str) -> None:
        pytest.importorskip("hatchling", reason="builds without a network")
        source = tmp_path / "source"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "src", "twisted"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        home = tmp_path / "venv"
        venv.create(home, symlinks=True, with_pip=False)
        python, site = home / "bin" / "python", sysconfig.get_path("purelib", vars={"base": str(home)})
        self.lend_libraries(Path(site))
        arguments = ["--editable", str(source)] if kind == "editable" else [str(source)]
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
             "--no-build-isolation", "--disable-pip-version-check", *arguments],
            check=True, timeout=120, capture_output=True, env=self.environment(),
        )  # fmt: skip
        if kind == "wheel":
            shutil.rmtree(source)
        twistd = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
        command = [str(python), "-c", twistd, "--help"]
        shown = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True, env=self.environment()
        )
        assert re.search(r"^ +tlsgate ", shown.stdout, re.MULTILINE), shown.stdout + shown.stderr
        where = subprocess.run(
            [str(python), "-c", "import tlsgate.service; print(tlsgate.__file__)"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True, env=self.environment(),
        )  # fmt: skip
        assert where.stdout.startswith(str(tmp_path))

    @staticmethod
    def environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    @staticmethod
    def lend_libraries(site: Path) -> None:
        """
        Let a new environment use the libraries of this one; all but what an editable install of tlsgate has added.
        """
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if "tlsgate" not in entry.name and entry.name not in {"pip", "__pycache__"}:
                (site / entry.name).symlink_to(entry)
