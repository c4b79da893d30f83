"""
The gate itself: `twistd tlsgate` as an operator starts it, in a process of its own.
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.integration.processes import Daemon, free_port
from tests.integration.routes import Mode, Route


@frozen
class Identity:
    """
    The certificate and key the gate serves, and the CA certificate its clients believe, as PEM files.
    """

    certificate: Path
    key: Path
    authority: Path


CONFIG = """
{hostname}
[[listener]]
endpoint = "tcp:{starttls}:interface=127.0.0.1"
level = "{level}"

[[listener]]
endpoint = "tcp:{implicit}:interface=127.0.0.1"
tls = "implicit"
level = "{level}"

[tls]
certificates = [{{ chain = "{certificate}", key = "{key}" }}]
{tls}

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
{backend_keys}
"""


@define
class Gate:
    """
    One gate before the server on *backend_port*, with a STARTTLS port and an implicit-TLS port.

    It is told what to do on the command line, or by a configuration file if there is something for one: *tls_keys* and
    *backend_keys* are lines for those tables.
    """

    folder: Path
    identity: Identity
    backend_port: int
    level: str = "required"
    hostname: str = ""
    tls_keys: str = ""
    backend_keys: str = ""
    ports: dict[Mode, int] = field(init=False)
    _daemon: Daemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        port = free_port()
        self.ports = {"plain": port, "starttls": port, "implicit": free_port()}
        twistd = str(Path(sys.executable).with_name("twistd"))
        told = self._file() if self.tls_keys or self.backend_keys else self._options()
        self._daemon = Daemon([twistd, "--nodaemon", "--pidfile=", "tlsgate", *told], self.folder / "gate.log")

    def _options(self) -> list[str]:
        options = ["--listen", f"tcp:{self.ports['starttls']}:interface=127.0.0.1"]
        options += ["--listen-tls", f"tcp:{self.ports['implicit']}:interface=127.0.0.1"]
        options += ["--certificate", str(self.identity.certificate), "--key", str(self.identity.key)]
        options += ["--backend", f"tcp:127.0.0.1:{self.backend_port}", "--level", self.level]
        return options + (["--hostname", self.hostname] if self.hostname else [])

    def _file(self) -> list[str]:
        config = self.folder / "gate.toml"
        config.write_text(
            CONFIG.format(
                hostname=f'hostname = "{self.hostname}"' if self.hostname else "",
                starttls=self.ports["starttls"],
                implicit=self.ports["implicit"],
                level=self.level,
                certificate=self.identity.certificate,
                key=self.identity.key,
                tls=self.tls_keys,
                backend=self.backend_port,
                backend_keys=self.backend_keys,
            )
        )
        return ["--config", str(config)]

    def route(self, mode: Mode) -> Route:
        """
        Where a client of that *mode* connects.
        """
        return Route(self.ports[mode], mode, self.identity.authority)

    def start(self) -> None:
        """
        Start the gate and return when it listens on both ports.

        It is not asked by connecting: it would dial the backend for that.
        """
        self._daemon.start(lambda: len(self.journal("listening")) == len(set(self.ports.values())))

    def said(self) -> str:
        """
        The journal and the log so far.
        """
        return self._daemon.said()

    def journal(self, event: str) -> list[dict[str, Any]]:
        """
        The entries of that kind in the journal so far.
        """
        entries = [json.loads(line) for line in self.said().splitlines() if line.startswith("{") and line.endswith("}")]
        return [entry for entry in entries if entry["event"] == event]

    def stop(self) -> None:
        """
        Send TERM; the gate must shut down in order, having logged no traceback.

        In the end twistd dies of the signal it was sent, so that whoever started it knows.
        """
        status = self._daemon.stop()
        said = self.said()
        assert status in {0, -signal.SIGTERM}, f"status {status}\n{said[-20000:]}"
        assert "Server Shut Down." in said, said[-20000:]
        assert "Traceback" not in said, said[-20000:]
        assert "Unhandled" not in said, said[-20000:]


@contextmanager
def running(gate: Gate) -> Iterator[Gate]:
    """
    Have *gate* running, and stop it however the tests end.
    """
    gate.start()
    try:
        yield gate
    finally:
        gate.stop()
