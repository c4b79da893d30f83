"""
A backend that writes down what it hears: the witness that a refused client's words went nowhere.
"""

import socketserver
import threading
from types import TracebackType
from typing import Self

from attrs import define, field

GREETING = b"220 recorder.example ESMTP\r\n"
REPLIES = {
    b"EHLO": b"250-recorder.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SIZE 1000000\r\n",
    # Nobody is relayed for.
    b"RCPT": b"550 5.7.1 Relaying denied\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
OTHERWISE = b"250 2.0.0 OK\r\n"


@define
class Heard:
    """
    One connection: the lines that came, and whether it is over.
    """

    lines: list[bytes] = field(factory=list)
    over: threading.Event = field(factory=threading.Event)


class _Session(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        heard = Heard()
        self.server.connections.append(heard)
        try:
            self.wfile.write(GREETING)
            while line := self.rfile.readline(65536):
                heard.lines.append(line)
                self.wfile.write(REPLIES.get(line[:4].upper(), OTHERWISE))
        except ConnectionError:
            pass
        finally:
            heard.over.set()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.connections: list[Heard] = []
        super().__init__(("127.0.0.1", 0), _Session)


@define
class Recorder:
    """
    The recording backend, listening from the beginning of its context to the end.
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
    def connections(self) -> list[Heard]:
        """
        The connections so far, in the order they came.
        """
        return self._server.connections

    def forget(self) -> None:
        """
        Begin with no connections: those before were not the clients'.
        """
        self._server.connections.clear()
