"""
A backend and a client that know SMTP, as values without wires, to drive sessions with.

The backend is strict: lines end with CRLF, a message with CRLF.CRLF (RFC 5321), a chunk after its octets (RFC 3030); it
never reads more than it may. Every reply of its own says what it answers, so that a client can tell whose reply it got.
"""

import re
from collections.abc import Callable

from attrs import define, field

MARK = b"\r\n.\r\n"
SASL_LINE = re.compile(rb"[A-Za-z0-9+/]*={0,2}|\*")  # base64, or the end of the exchange (RFC 4954 section 4)

FORBIDDEN = (b"XCLIENT", b"XFORWARD", b"PROXY", b"TURN", b"ATRN", b"XEXCH50", b"X-ANONYMOUSTLS", b"X-EXPS", b"STARTTLS")


@define
class ModelBackend:
    """
    A backend: octets in, replies out, in the order of the commands.

    *choose* says which of several codes it answers with. *commands* are the lines it took for commands, *messages* the
    messages it took, *queued* the replies with which it took responsibility for one.
    """

    choose: Callable[[tuple[int, ...]], int] = max
    pipelining: bool = True
    chunking: bool = True
    auth: bool = True
    knows_ehlo: bool = True
    commands: list[bytes] = field(factory=list)
    messages: list[bytes] = field(factory=list)
    queued: list[bytes] = field(factory=list)
    quit: bool = False
    _data: bytes = b""
    _mode: str = "command"  # "data", "sasl", "chunk"
    _chunk: tuple[int, bytes, bool] = (0, b"", False)
    _chunks: bytes = b""

    def feed(self, data: bytes) -> None:
        """
        Take in *data*; `reply` answers it.
        """
        self._data += data

    def reply(self) -> bytes:
        """
        Return the next reply, nothing if there is no whole command to answer.
        """
        if self._mode == "data":
            return self._end_of_data()
        if self._mode == "chunk":
            return self._end_of_chunk()
        line, newline, rest = self._data.partition(b"\r\n")
        if not newline or self.quit:
            return b""
        assert not set(line) & {0, 10, 13}, f"not one line: {line!r}"
        self._data = rest
        if self._mode == "sasl":
            assert SASL_LINE.fullmatch(line), line
            self._mode = "command"
            return self._say(235 if line != b"*" else 501, b"SASL " + line)
        self.commands.append(line)
        assert line.isascii() or line[:1].isalpha()
        assert line.split(b" ")[0].upper() not in FORBIDDEN, line
        return self._answer(line)

    def _say(self, code: int, text: bytes) -> bytes:
        return b"%d " % code + text + b"\r\n"

    def _answer(self, line: bytes) -> bytes:
        verb = line.partition(b" ")[0].upper()
        known = {b"EHLO": self._ehlo, b"DATA": self._on_data, b"QUIT": self._on_quit}
        known |= {b"BDAT": self._on_bdat} if self.chunking else {}
        known |= {b"AUTH": self._on_auth} if self.auth else {}
        if verb in known:
            return known[verb](line)
        if verb in {b"RSET", b"HELO"}:
            self._chunks = b""
            return self._say(250, line)
        codes = {b"MAIL": (250, 451, 550), b"RCPT": (250, 251, 450, 550), b"NOOP": (250,), b"VRFY": (252, 550)}
        return self._say(self.choose(codes.get(verb, (500,))), line)

    def _on_data(self, line: bytes) -> bytes:
        code = self.choose((354, 503, 554))
        if code == 354:
            self._mode, self._data = "data", b"\r\n" + self._data
        return self._say(code, line)

    def _on_quit(self, line: bytes) -> bytes:
        self.quit = True
        return self._say(221, line)

    def _on_auth(self, line: bytes) -> bytes:
        code = self.choose((235, 334, 504, 535))
        self._mode = "sasl" if code == 334 else "command"
        return self._say(code, line)

    def _on_bdat(self, line: bytes) -> bytes:
        _, size, *last = line.split()
        self._chunk = int(size), line, bool(last)
        self._mode = "chunk"
        return self._end_of_chunk()

    def _ehlo(self, line: bytes) -> bytes:
        if not self.knows_ehlo:
            return self._say(500, line)
        keywords = [b"PIPELINING"] * self.pipelining + [b"CHUNKING"] * self.chunking + [b"AUTH PLAIN LOGIN"] * self.auth
        lines = [line, b"STARTTLS", b"XCLIENT ADDR", *keywords, b"8BITMIME"]
        self._chunks = b""
        return b"".join(b"250-" + text + b"\r\n" for text in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"

    def _end_of_data(self) -> bytes:
        message, mark, rest = self._data.partition(MARK)
        if not mark:
            return b""
        self._mode, self._data = "command", rest
        return self._take((message + MARK)[2:])

    def _end_of_chunk(self) -> bytes:
        size, line, last = self._chunk
        if len(self._data) < size:
            return b""
        self._mode, chunk, self._data = "command", self._data[:size], self._data[size:]
        self._chunks += chunk
        if not last:
            return self._say(250, line)
        message, self._chunks = self._chunks, b""
        return self._take(message)

    def _take(self, message: bytes) -> bytes:
        self.messages.append(message)
        reply = self._say(self.choose((250, 451, 554)), b"message %d" % len(self.messages))
        if reply.startswith(b"2"):
            self.queued.append(reply)
        return reply


@define
class Item:
    """
    What a client has to say: a command *line* with what belongs to it, and the replies that it may get.

    *message* follows a 354, *sasl* a 334, *chunk* the line itself, whatever is answered. *own* is how the gate's reply
    starts if the gate answers; empty if the backend must.
    """

    line: bytes
    message: bytes = b""
    sasl: bytes = b"AGEAYg==\r\n"
    chunk: bytes = b""
    own: bytes = b""
    ends_group: bool = False
    replies: list[bytes] = field(factory=list)
    started: bool = False
    done: bool = False

    def heard(self, reply: bytes) -> bytes:
        """
        Take in a reply to the command; return what is to be said next because of it.
        """
        self.replies.append(reply)
        if self.own and reply.startswith(self.own):
            self.done = True
            return b""
        if len(self.replies) == 1:
            # Our own HELO to a backend that knows no EHLO is answered for it.
            echo = self.line.strip(b"\r\n").removeprefix(b"EHLO ")
            expected = b"message " if self.line.endswith(b" LAST\r\n") else echo
            assert expected in reply, f"{self.line!r} was answered with {reply!r}"
            if reply.startswith(b"354"):
                return self.message
            if reply.startswith(b"334"):
                return self.sasl
        else:
            assert b"message " in reply or b"SASL " in reply, reply
        self.done = True
        return b""


@define
class ModelClient:
    """
    A client that pipelines as RFC 2920 allows, and checks that every reply it gets is to the command it is due to.
    """

    items: list[Item]
    pipelining: bool = True
    closing: bytes = b""
    _sent: int = 0
    _heard: int = 0

    def may_say(self) -> bytes:
        """
        Return what the client may say now, nothing if it has to wait, or is done.
        """
        outstanding = self.items[self._heard : self._sent]
        if self._sent == len(self.items) or (outstanding and (outstanding[-1].ends_group or not self.pipelining)):
            return b""
        item = self.items[self._sent]
        self._sent += 1
        return item.line + item.chunk

    def hear(self, reply: bytes) -> bytes:
        """
        Take in one reply; return what is to be said because of it.
        """
        if reply.startswith(b"421"):
            self.closing = reply
            return b""
        assert self._heard < self._sent, f"law 1: a reply to nothing: {reply!r}"
        item = self.items[self._heard]
        then = item.heard(reply)
        self._heard += item.done
        return then

    @property
    def answered(self) -> bool:
        """
        Whether everything has been said and answered.
        """
        return self._heard == len(self.items)
