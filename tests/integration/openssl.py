"""
Dialogues through `openssl s_client`: a TLS client that can be as old and as weak as it is told to be.
"""

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pytest
from attrs import define, field

from tests.integration.processes import need
from tests.integration.routes import Route
from tests.integration.wire import CLIENT_NAME, Reply

CLIENT_SECONDS = 60.0


@define
class SClient:
    """
    One run of s_client, which by itself goes as far as the handshake; *options* say what TLS it speaks.

    It takes no commands of its own from our octets (`-quiet`), and verifies the gate's certificate, if it is shown one.
    """

    route: Route
    folder: Path
    options: Sequence[str] = ()
    _process: subprocess.Popen[bytes] = field(init=False)
    _watchdog: threading.Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        argv = [need("openssl"), "s_client", "-connect", f"{self.route.host}:{self.route.port}", "-quiet"]
        argv += ["-CAfile", str(self.route.authority), "-verify_return_error", "-verify_ip", self.route.host]
        argv += ["-starttls", "smtp", "-name", CLIENT_NAME] if self.route.mode == "starttls" else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*argv, *self.options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        # Reading from a pipe knows no timeout.
        self._watchdog = threading.Timer(CLIENT_SECONDS, self._process.kill)
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()

    @property
    def _log(self) -> Path:
        return self.folder / "s_client.log"

    def said(self) -> str:
        """
        What s_client reported besides the dialogue: the chain, and why the handshake failed.
        """
        return self._log.read_text(errors="replace")

    def command(self, octets: bytes) -> Reply:
        """
        Send *octets* and return the next reply.
        """
        writer: IO[bytes] | None = self._process.stdin
        assert writer
        try:
            writer.write(octets)
            writer.flush()
        except BrokenPipeError:
            pytest.fail(f"s_client is gone:\n{self.said()}")
        return self.reply()

    def reply(self) -> Reply:
        """
        Return the next reply; code 0 stands for a closed connection.
        """
        reader: IO[bytes] | None = self._process.stdout
        assert reader
        lines: list[str] = []
        while True:
            line = reader.readline().decode()
            if not line:
                return Reply(0, tuple(lines))
            assert line.endswith("\r\n"), line
            lines.append(line[4:].rstrip("\r\n"))
            if line[3:4] != "-":
                return Reply(int(line[:3]), tuple(lines))

    def status(self) -> int:
        """
        Wait for the end of s_client, with nothing more to say to it, and return its exit status.
        """
        self._process.communicate(timeout=CLIENT_SECONDS)
        return self._process.returncode
