"""
A legacy mail server: one that knows no TLS, believes what it reads, and, on demand, takes any newline for a line end.
"""

import re
from collections.abc import Callable

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
