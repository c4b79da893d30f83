"""
An SMTP client that does what it is told: exact octets, in exact order, in one piece or several.
"""

import socket
import ssl
from types import TracebackType
from typing import Self

from attrs import define, field, frozen

from tests.integration.routes import Route

REPLY_SECONDS = 60.0
LINE_OCTETS_MAX = 4096
CLIENT_NAME = "client.example"


@frozen
class Reply:
    """
    One reply: the code, and the text of each line.
    """

    code: int
    lines: tuple[str, ...]

    @property
    def keywords(self) -> frozenset[str]:
        """
        The EHLO keywords, if this is a reply to EHLO.
        """
        return frozenset(line.split()[0].upper() for line in self.lines[1:])


@define
class Wire:
    """
    One client connection. Closed without QUIT when its context ends.
    """

    route: Route
    context: ssl.SSLContext = field()
    _socket: socket.socket = field(init=False)
    _received: bytes = b""

    @context.default
    def _verifying(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.route.authority)

    def __attrs_post_init__(self) -> None:
        self._socket = socket.create_connection((self.route.host, self.route.port), timeout=REPLY_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.route.mode == "implicit":
            self.handshake()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def handshake(self) -> None:
        """
        Do the TLS handshake now; nothing that was received before it may be left unread.
        """
        assert not self._received, self._received
        self._socket = self.context.wrap_socket(self._socket, server_hostname=self.route.host)

    def send(self, octets: bytes) -> None:
        """
        Send *octets* as they are.
        """
        self._socket.sendall(octets)

    def line(self) -> str:
        """
        Return the next line, without CRLF; the empty string when the connection was closed.
        """
        while b"\r\n" not in self._received:
            octets = self._socket.recv(65536)
            if not octets:
                assert not self._received, self._received
                return ""
            self._received += octets
            assert len(self._received) < 1_000_000
        line, self._received = self._received.split(b"\r\n", 1)
        assert len(line) <= LINE_OCTETS_MAX
        return line.decode()

    def reply(self) -> Reply:
        """
        Return the next reply; code 0 stands for a closed connection.
        """
        lines: list[str] = []
        while True:
            line = self.line()
            if not line:
                return Reply(0, tuple(lines))
            assert line[:3].isdigit(), line
            assert line[3:4] in {"", " ", "-"}, line
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), tuple(lines))

    def replies(self, count: int) -> list[int]:
        """
        Return the codes of the next *count* replies.
        """
        return [self.reply().code for _ in range(count)]

    def command(self, line: str) -> Reply:
        """
        Send one command line and return its reply.
        """
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def greeted(self) -> Reply:
        """
        Go through greeting, EHLO, STARTTLS where the route says so, and EHLO again; return the last EHLO's reply.
        """
        greeting = self.reply()
        assert greeting.code == 220, greeting
        hello = self.command(f"EHLO {CLIENT_NAME}")
        if self.route.mode == "starttls":
            assert "STARTTLS" in hello.keywords, hello
            assert self.command("STARTTLS").code == 220
            self.handshake()
            hello = self.command(f"EHLO {CLIENT_NAME}")
        assert hello.code == 250, hello
        return hello

    def rest(self) -> bytes:
        """
        Return everything up to the end of the connection, however it ends.
        """
        octets = self._received
        try:
            while more := self._socket.recv(65536):
                octets += more
                assert len(octets) < 1_000_000
        except ConnectionResetError:
            pass
        return octets

    def quit(self) -> None:
        """
        End the session, and see the server close the connection.
        """
        assert self.command("QUIT").code == 221
        assert self.line() == ""
