"""
Find where a message ends, and keep bare CR and LF from an old backend.

A message is never looked at by lines. It is relayed in the chunks it came in; only the end-of-data mark, CRLF . CRLF
(RFC 5321 section 4.1.1.4), must be noticed, however it is cut. A CR or LF that is not part of CRLF (section 2.3.8) may
be a line end to an old backend, and then "LF . LF" ends the message there and not here: what follows would be commands
("SMTP smuggling"). So bare newlines are made CRLF, or the message is refused, as the operator chose.
"""

import re
from enum import Enum
from io import IncrementalNewlineDecoder

from attrs import define

CRLF = b"\r\n"
MARK = b"\r\n.\r\n"

# A lone dot that is cut off by a bare newline would become the mark: it is stuffed (RFC 5321 section 4.5.2).
_LONE_DOT = re.compile(rb"\r\n\.(?=\r(?!\n)|\n)")
# What newlines a text holds, learnt in one pass in C: three counts of bytes.count() take four times as long.
_NEWLINES = IncrementalNewlineDecoder(None, translate=False)
_STRICT = (None, "\r\n")
# What cannot be judged before the next octets are known.
_UNDECIDED = re.compile(rb"(?:\r\n\.?[\r\n]?|\r|\n)\Z")


class BareNewlines(Enum):
    """
    What happens to a CR or LF that is not part of CRLF.
    """

    NORMALIZE = "normalize"
    REJECT = "reject"
    PASS = "pass"  # noqa: S105 - not a password


@define
class EndOfData:
    """
    Scanner for the end-of-data mark of one message.
    """

    # The mark may start with the CRLF that ended the DATA command: an empty message is just ".CRLF".
    _tail: bytes = CRLF

    def feed(self, data: bytes) -> int | None:
        """
        Return how many octets of *data* belong to the message, mark included.

        Returns:
            `None` while the message goes on. Octets beyond the returned number are the next commands.
        """
        reach = len(MARK) - 1
        seam = (self._tail + data[:reach]).find(MARK)
        if seam >= 0:
            return seam + len(MARK) - len(self._tail)
        found = data.find(MARK)
        if found >= 0:
            return found + len(MARK)
        self._tail = data[-reach:] if len(data) >= reach else (self._tail + data)[-reach:]
        return None


@define
class Newlines:
    """
    Judges the newlines of one message; octets that cannot be judged yet stay here (at most four).

    *bare* is set once a bare CR or LF has been seen.
    """

    bare: bool = False
    _kept: bytes = CRLF
    _before: int = len(CRLF)  # octets in front of *_kept* that are not of the message: the CRLF of DATA

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """
        Return what may go on now, its newlines made CRLF. *last* says that the message ends with *data*.
        """
        data = self._kept + data
        undecided = None if last else _UNDECIDED.search(data, max(0, len(data) - 4))
        if undecided is None:
            self._kept = b""
        else:
            self._kept = undecided[0]
            data = data[: undecided.start()]
        if _holds_bare(data):
            self.bare = True
            data = _normalized(data)
        if self._before and data:
            data = data[self._before :]
            self._before = 0
        return data


def _holds_bare(data: bytes) -> bool:
    """
    Return whether a CR or LF in *data* is not part of CRLF.
    """
    _NEWLINES.reset()
    _NEWLINES.decode(data.decode("latin-1"), final=True)
    return _NEWLINES.newlines not in _STRICT


def _normalized(data: bytes) -> bytes:
    """
    Return *data* with every newline made CRLF, and the text that it stands for unchanged.
    """
    data = _LONE_DOT.sub(CRLF + b"..", data)
    # A dot behind a bare newline was text; now it starts a line, and the receiver will take one off: so it gets one.
    data = data.replace(b"\n.", b"\n..").replace(b"\r\n..", b"\r\n.").replace(b"\r.", b"\r..")
    return data.replace(CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", CRLF)
