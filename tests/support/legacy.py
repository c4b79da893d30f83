"""
A legacy mail server: one that knows no TLS, believes what it reads, and, on demand, takes any newline for a line end.
"""

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from attrs import define, field

KEYWORDS = (b"PIPELINING", b"8BITMIME", b"CHUNKING", b"SIZE 0")
NAME = b"legacy.example"

_STRICT_LINE = re.compile(rb"\r\n")
_STRICT_END = re.compile(rb"(?:\A|\r\n)\.\r\n")
# What such servers really did: "LF . LF" and its cousins end a message (CVE-2023-51764 and those after it).
_LENIENT_LINE = re.compile(rb"\r\n|\n|\r")
_LENIENT_END = re.compile(rb"(?:\A|\r\n|\n|\r)\.(?:\r\n|\n|\r)")


@define
class Legacy:
    """
    One session of such a server, octets in and octets out.

    *lenient*: bare CR and bare LF end lines, too. *keywords* `None`: EHLO is not known. *commands* are the lines it
    took for commands, *messages* the texts it took for messages, each answered with a 250 that tells its number.
    """

    lenient: bool = False
    keywords: tuple[bytes, ...] | None = KEYWORDS
    greeting: bytes = b"220 " + NAME + b" ESMTP\r\n"
    answers: dict[bytes, bytes] = field(factory=dict)
    commands: list[bytes] = field(factory=list)
    messages: list[bytes] = field(factory=list)
    over: bool = False
    _buffer: bytes = b""
    _reader: "Callable[[], bytes | None] | None" = None
    _chunk_left: int = 0
    _last: bool = False
    _chunks: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """
        Take in *data*; return what is answered.
        """
        self._buffer += data
        said = b""
        while not self.over:
            answer = (self._reader or self._command)()
            if answer is None:
                break
            said += answer
        return said

    def _command(self) -> bytes | None:
        end = (_LENIENT_LINE if self.lenient else _STRICT_LINE).search(self._buffer)
        if end is None:
            return None
        line, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
        self.commands.append(line)
        verb = line[:4].upper()
        if verb in self.answers:
            return self.answers[verb]
        if verb == b"EHLO":
            return self._hello()
        if verb == b"DATA":
            self._reader = self._data
            return b"354 Go ahead\r\n"
        if verb == b"BDAT":
            words = line.split()
            self._chunk_left, self._last = int(words[1]), len(words) > 2
            self._reader = self._chunk
            return b""
        self.over = verb == b"QUIT"
        return b"221 Bye\r\n" if self.over else b"250 OK to " + verb + b"\r\n"

    def _hello(self) -> bytes:
        if self.keywords is None:
            return b"500 What?\r\n"
        lines = (NAME, *self.keywords)
        return b"".join(b"250" + (b" " if line is lines[-1] else b"-") + line + b"\r\n" for line in lines)

    def _data(self) -> bytes | None:
        end = (_LENIENT_END if self.lenient else _STRICT_END).search(self._buffer)
        if end is None:
            return None
        message, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
        self._reader = None
        return self._taken(message)

    def _chunk(self) -> bytes | None:
        data, self._buffer = self._buffer[: self._chunk_left], self._buffer[self._chunk_left :]
        self._chunk_left -= len(data)
        self._chunks += data
        if self._chunk_left:
            return None
        self._reader = None
        if not self._last:
            return b"250 chunk taken\r\n"
        chunks, self._chunks = self._chunks, b""
        return self._taken(chunks)

    def _taken(self, message: bytes) -> bytes:
        self.messages.append(message)
        return b"250 message %d taken\r\n" % len(self.messages)


@define(eq=False)
class Connection:
    """
    One real connection to a `LegacyPort`, and all that was heard and said on it.
    """

    legacy: Legacy
    heard: bytes = b""
    said: bytes = b""
    over: threading.Event = field(factory=threading.Event)


@define(eq=False)
class LegacyPort:
    """
    A legacy server on a real port, in threads of this process, from the beginning of its context to the end.

    Each connection is served by what *serve* returns. It dies when it has taken *heard_max* octets, or sent *said_max*.
    """

    serve: Callable[[], Legacy] = Legacy
    heard_max: int | None = None
    said_max: int | None = None
    connections: list[Connection] = field(factory=list)
    _server: socket.socket = field(init=False)
    _threads: list[threading.Thread] = field(factory=list)

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def port(self) -> int:
        """
        Where it listens.
        """
        port: int = self._server.getsockname()[1]
        return port

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                wire, _ = self._server.accept()
                connection = Connection(self.serve())
                self.connections.append(connection)
                self._start(self._work, wire, connection, self.heard_max, self.said_max)

    @staticmethod
    def _work(wire: socket.socket, connection: Connection, heard_max: int | None, said_max: int | None) -> None:
        wire.settimeout(30)
        answer = connection.legacy.greeting
        with wire, suppress(OSError):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                if said_max is not None:
                    answer = answer[: said_max - len(connection.said)]
                wire.sendall(answer)
                connection.said += answer
                wanted = 65_536 if heard_max is None else heard_max - len(connection.heard)
                spent = said_max is not None and len(connection.said) >= said_max
                if connection.legacy.over or spent or not wanted:
                    break
                data = wire.recv(wanted)
                if not data:
                    break
                connection.heard += data
                answer = connection.legacy.feed(data)
        connection.over.set()
