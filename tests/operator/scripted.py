"""
A mail server that answers what it was told to, over real sockets: one thread, one connection at a time.
"""

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, field

from tlsgate.net.proxy_protocol import HeaderReader, ProxyHeader
from tlsgate.tls.certificates import CertificateFiles

CONNECTION_SECONDS = 20.0

POLITE: Mapping[bytes, bytes] = {
    b"": b"220 mail.example ESMTP\r\n",
    b"EHLO": b"250-mail.example greets you\r\n250-PIPELINING\r\n250 SIZE 1000\r\n",
    b"HELO": b"250 mail.example\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"554 5.7.1 Relay access denied\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"STARTTLS": b"220 2.0.0 Ready\r\n",
    b"XCLIENT": b"220 mail.example ESMTP\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


@define
class ScriptedServer:
    """
    Answers each line with the reply to the longest of its beginnings in *replies*; b"" is the greeting.

    An empty reply is silence, `None` closes the connection. *heard* is every line of every connection, in order. If
    *proxied*, each connection must begin with a PROXY header.
    """

    replies: Mapping[bytes, bytes | None]
    tls: str = "none"
    files: CertificateFiles | None = None
    proxied: bool = False
    heard: list[bytes] = field(factory=list)
    proxy_headers: list[ProxyHeader] = field(factory=list)
    callers: list[str] = field(factory=list)
    endpoint: str = ""

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, caller = listening.accept()
            except OSError:
                return
            self.callers.append(caller[0] if caller else "")
            connection.settimeout(CONNECTION_SECONDS)
            with connection, suppress(OSError):
                self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        if self.proxied and not self._read_proxy_header(connection):
            return
        if self.tls == "implicit":
            connection = self._inside_tls(connection)
        if not self._answer(connection, b""):
            return
        pending = b""
        while data := connection.recv(4096):
            pending += data
            while b"\r\n" in pending:
                line, _, pending = pending.partition(b"\r\n")
                self.heard.append(line)
                if not self._answer(connection, line) or line == b"QUIT":
                    return
                if line == b"STARTTLS" and self.tls == "starttls":
                    connection = self._inside_tls(connection)

    def _read_proxy_header(self, connection: socket.socket) -> bool:
        reader = HeaderReader()
        while data := connection.recv(1):
            if header := reader.feed(data):
                self.proxy_headers.append(header)
                return True
        return False

    def _answer(self, connection: socket.socket, line: bytes) -> bool:
        known = [beginning for beginning in self.replies if beginning and line.startswith(beginning)]
        reply = self.replies[max(known, key=len) if known and line else b""] if known or not line else b"500 What?\r\n"
        if reply is None:
            return False
        connection.sendall(reply)
        return True

    def _inside_tls(self, connection: socket.socket) -> ssl.SSLSocket:
        assert self.files is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.chain, self.files.key)
        return context.wrap_socket(connection, server_side=True)


@contextmanager
def running(
    replies: Mapping[bytes, bytes | None] = POLITE,
    *,
    tls: str = "none",
    files: CertificateFiles | None = None,
    host: str = "127.0.0.1",
    path: Path | None = None,
    proxied: bool = False,
) -> Iterator[ScriptedServer]:
    """
    Run a server with the *replies* of `POLITE` and those given; on a UNIX socket if there is a *path*.
    """
    server = ScriptedServer({**POLITE, **replies}, tls, files, proxied)
    if path is None:
        listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        server.endpoint = f"tcp:{host.replace(':', chr(92) + ':')}:{listening.getsockname()[1]}"
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        server.endpoint = f"unix:{path}"
    thread = threading.Thread(target=server.serve, args=(listening,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        # close() alone does not wake up a thread within accept().
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(CONNECTION_SECONDS)
