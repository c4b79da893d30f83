"""
A backend that writes down what it hears: the witness that a refused client's words went nowhere.
"""

import socket
import socketserver
import threading
from types import TracebackType
from typing import Any, Self

from attrs import define, field

from tests.integration.processes import wait_until

SESSION_SECONDS = 60.0
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
    One connection: the port it came from, the lines that came, and whether it is over.
    """

    port: int
    lines: list[bytes] = field(factory=list)
    over: threading.Event = field(factory=threading.Event)


class _Session(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        heard = self.server.of(self.client_address)
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

    def __init__(self) -> None:
        self.connections: list[Heard] = []
        super().__init__(("127.0.0.1", 0), _Session)

    def process_request(self, request: Any, client_address: Any) -> None:
        """
        Note the connection here, in the thread that accepts, so that the list is in the order of the connections.
        """
        self.connections.append(Heard(client_address[1]))
        super().process_request(request, client_address)

    def of(self, client_address: tuple[str, int]) -> Heard:
        """
        Return what is known of the newest connection from there.
        """
        return next(heard for heard in reversed(self.connections) if heard.port == client_address[1])


@define
class Recorder:
    """
    The recording backend, listening from the beginning of its context to the end.
    """

    _server: _Server = field(factory=_Server)
    _passed: int = 0

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

    def heard(self) -> list[Heard]:
        """
        Return every connection made since this was asked the last time, when it is over.

        They come in order: what was dialled before this was asked is known when our own connection is.
        """
        with socket.create_connection(("127.0.0.1", self.port)) as own:
            port = own.getsockname()[1]
            wait_until(
                lambda: any(one.port == port for one in self._server.connections[self._passed :]),
                SESSION_SECONDS,
                lambda: "the recorder accepts no connections",
            )
        new = self._server.connections[self._passed :]
        self._passed += len(new)
        for one in new:
            assert one.over.wait(SESSION_SECONDS), f"still open after {one.lines}"
        return [one for one in new if one.port != port]
