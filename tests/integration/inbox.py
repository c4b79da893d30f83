"""
A backend that accepts everything: a legacy mail server on loopback, each session a thread.
"""

import socketserver
import threading
from types import TracebackType
from typing import Self

from attrs import define, field

from tests.integration.processes import wait_until
from tests.support.legacy import Legacy

SESSION_SECONDS = 60.0


class _Session(socketserver.BaseRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        legacy = Legacy()
        self.server.sessions.append(legacy)
        try:
            self.request.sendall(legacy.greeting)
            while not legacy.over and (octets := self.request.recv(65536)):
                self.request.sendall(legacy.feed(octets))
        except ConnectionError:
            pass


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.sessions: list[Legacy] = []
        super().__init__(("127.0.0.1", 0), _Session)


@define
class Inbox:
    """
    The accepting backend, listening from the beginning of its context to the end.
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

    @property
    def messages(self) -> list[bytes]:
        """
        Every message taken so far.
        """
        return [message for session in list(self._server.sessions) for message in session.messages]

    def session_with(self, message: bytes) -> Legacy:
        """
        Return the session in which *message* came.
        """
        return wait_until(
            lambda: next((each for each in list(self._server.sessions) if message in each.messages), None),
            SESSION_SECONDS,
            lambda: f"no such message: {message!r}",
        )
