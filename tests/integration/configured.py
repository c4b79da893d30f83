"""
A gate run by a configuration file of the test's own making, which may be changed while it runs.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.integration.processes import STOP_SECONDS, Daemon, wait_until
from tests.integration.routes import Mode, Route

EVENT_SECONDS = 60.0

Entry = dict[str, Any]


@define
class ConfiguredGate:
    """
    `twistd tlsgate --config`, in a process of its own. Whatever path *config* names is below *folder*.
    """

    folder: Path
    config: str
    authority: Path | None = None
    _daemon: Daemon = field(init=False)
    _entries: list[Entry] = field(factory=list)
    _read_octets: int = 0
    _terminated: bool = False

    def __attrs_post_init__(self) -> None:
        twistd = str(Path(sys.executable).with_name("twistd"))
        argv = [twistd, "--nodaemon", "--pidfile=", "tlsgate", "--config", str(self._file)]
        self._daemon = Daemon(argv, self.folder / "gate.log")
        self.write(self.config)

    @property
    def _file(self) -> Path:
        return self.folder / "gate.toml"

    def write(self, config: str) -> None:
        """
        Put another configuration in the place of the present one; the gate does not know yet.
        """
        self.config = config
        self._file.write_text(config)

    def hang_up(self) -> None:
        """
        Send HUP.
        """
        self._signal(signal.SIGHUP)

    def terminate(self) -> None:
        """
        Send TERM, and do not wait for what comes of it.
        """
        self._terminated = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        assert self._daemon._process is not None
        os.kill(self._daemon._process.pid, number)

    def reload(self, config: str | None = None) -> Entry:
        """
        Send HUP, after writing *config* if there is any, and return what the journal says of it.
        """
        if config is not None:
            self.write(config)
        before = len(self.journal("reloaded", "reload-refused"))
        self.hang_up()
        return self.wait_for(before + 1, "reloaded", "reload-refused")[before]

    def route(self, port: int, mode: Mode) -> Route:
        """
        Where a client of that *mode* connects.
        """
        return Route(port, mode, self.authority)

    def journal(self, *events: str) -> list[Entry]:
        """
        Return the entries of these kinds so far; of every kind, if none is named.
        """
        with (self.folder / "gate.log").open("rb") as log:
            log.seek(self._read_octets)
            news = log.read()
        # The last line may still be written.
        news = news[: news.rfind(b"\n") + 1]
        self._read_octets += len(news)
        self._entries += [json.loads(line) for line in news.splitlines() if line[:1] == b"{" and line[-1:] == b"}"]
        return [entry for entry in self._entries if not events or entry["event"] in events]

    def wait_for(self, count: int, *events: str) -> list[Entry]:
        """
        Return the entries of these kinds when there are *count* at least.
        """

        def look() -> list[Entry] | None:
            found = self.journal(*events)
            return found if len(found) >= count else None

        return wait_until(look, EVENT_SECONDS, lambda: f"no {count} of {events}:\n{self._daemon.said()[-5000:]}")

    def wait_until(self, holds: Callable[[Entry], bool], *events: str, since: int = 0) -> Entry:
        """
        Return the first entry of these kinds that *holds*, the first *since* of them apart.
        """
        return wait_until(
            lambda: next((entry for entry in self.journal(*events)[since:] if holds(entry)), None),
            EVENT_SECONDS,
            lambda: f"none of {events} is as expected:\n{self._daemon.said()[-5000:]}",
        )

    def start(self) -> None:
        """
        Start the gate; return when it listens wherever it is told to.
        """
        listeners = self.config.count("[[listener]]")
        self._daemon.start(lambda: len(self.journal("listening")) == listeners)

    def stop(self) -> None:
        """
        Send TERM, if that was not done; the gate must shut down in order, having logged no traceback.
        """
        if self._terminated and self._daemon._process is not None:
            self._daemon._process.wait(STOP_SECONDS)
        status = self._daemon.stop()
        said = self._daemon.said()
        assert status in {0, -signal.SIGTERM}, f"status {status}\n{said[-20000:]}"
        assert "Server Shut Down." in said, said[-20000:]
        assert "Traceback" not in said, said[said.find("Traceback") - 2000 :][:20000]
        assert "Unhandled" not in said, said[-20000:]


@contextmanager
def configured(folder: Path, config: str, authority: Path | None = None) -> Iterator[ConfiguredGate]:
    """
    Have a gate running by *config*, and stop it however the tests end.
    """
    gate = ConfiguredGate(folder, config, authority)
    gate.start()
    try:
        yield gate
    finally:
        gate.stop()


def quoted(values: Sequence[object]) -> str:
    """
    Return *values* as a TOML array of strings.
    """
    return json.dumps([str(value) for value in values])
