"""
Where a line of the client's ends, and where a reply of the backend's does; both bounded.

A line ends with LF here, whatever stands before it: a line with a bare LF or CR is then refused as a whole (see
`command.parse`), so that nothing behind it can be hidden in it.
"""

import re

from attrs import define, field

from tlsgate.smtp.reply import BackendReply

VERB_OCTETS = 5  # a verb and what ends it
OVERLONG = b""  # no line is empty: the LF is part of it

_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])[^\x00\r\n]*)?\r\n")


@define
class InputBuffer:
    """
    Octets of the client's that wait for their meaning, taken off as lines or as raw octets.

    *overlong*: how the last line began that was too long, as much of it as a verb takes.
    """

    overlong: bytes = b""
    _data: bytearray = field(factory=bytearray)
    _searched: int = 0
    _in_overlong: bool = False

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """
        Add *data* at the end.
        """
        self._data += data

    def line(self, octets_max: int) -> bytes | None:
        """
        Take one line, its LF included.

        Returns:
            `None` while there is no LF yet; `OVERLONG` when a line of more than *octets_max* octets has ended, of which
            nothing was kept.
        """
        end = self._data.find(b"\n", self._searched) + 1
        if (end or len(self._data)) > octets_max and not self._in_overlong:
            self._in_overlong = True
            self.overlong = bytes(self._data[:VERB_OCTETS])
        if not end:
            if self._in_overlong:
                self._data.clear()
            self._searched = len(self._data)
            return None
        line = OVERLONG if self._in_overlong else bytes(self._data[:end])
        del self._data[:end]
        self._searched = 0
        self._in_overlong = False
        return line

    def peek(self) -> bytes:
        """
        Return the first octet, nothing if there is none; it stays.
        """
        return bytes(self._data[:1])

    def take(self, octets: int | None = None) -> bytes:
        """
        Take up to that many octets, all of them by default.
        """
        taken = bytes(self._data[:octets])
        del self._data[:octets]
        self._searched = 0
        return taken


class ReplyError(Exception):
    """
    The backend sent what is not a reply, or too much of it. The text is for the journal, never for a client.

    *replies* came whole before it, in the same octets: they count, as they would have if they had come alone.
    """

    def __init__(self, reason: str, replies: list[BackendReply]) -> None:
        super().__init__(reason)
        self.replies = replies


@define
class ReplyReader:
    """
    Reads replies (RFC 5321 section 4.2), single and multi-line; strict, because a misread reply shifts all later ones.
    """

    octets_max: int
    lines_max: int = 500
    _data: bytes = b""
    _searched: int = 0
    _scanned: int = 0
    _code: bytes = b""
    _lines: int = 0

    def feed(self, data: bytes) -> list[BackendReply]:
        """
        Return the replies that *data* completes.

        Raises:
            ReplyError: not a reply line, another code on a later line (section 4.2.1), or over *octets_max*
                octets or *lines_max* lines.
        """
        self._data = self._data + data if self._data else data
        replies: list[BackendReply] = []
        while True:
            end = self._data.find(b"\n", self._searched) + 1
            if (end or len(self._data)) > self.octets_max:
                raise ReplyError(f"a reply of more than {self.octets_max} octets", replies)
            if not end:
                self._searched = len(self._data)
                return replies
            match = _REPLY_LINE.fullmatch(self._data, self._scanned, end)
            if match is None or (self._code and match[1] != self._code):
                raise ReplyError("not a reply line: " + repr(self._data[self._scanned : end][:80]), replies)
            self._scanned = self._searched = end
            if match[2] == b"-":
                self._code = match[1]
                self._lines += 1
                if self._lines >= self.lines_max:
                    raise ReplyError(f"a reply of more than {self.lines_max} lines", replies)
                continue
            replies.append(BackendReply(int(match[1]), self._data[:end]))
            self._data = self._data[end:]
            self._searched = self._scanned = self._lines = 0
            self._code = b""

    @property
    def pending(self) -> bool:
        """
        Whether a part of a reply has arrived.
        """
        return bool(self._data)
