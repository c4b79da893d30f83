"""
The journal: one line for each thing that happened, to be read by programs (`json`) or by people (`text`).

Clients choose much of what is written here. Whatever they send, an entry is one line of printable ASCII of bounded
length. And the journal never stands in the way of mail: an entry that cannot be written is counted, not raised.
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TextIO, TypeAlias

from attrs import define, field

STRING_CHARACTERS_MAX = 512
LIST_ITEMS_MAX = 100

Format: TypeAlias = Literal["json", "text"]
Plain: TypeAlias = "str | int | float | bool | list[Plain] | None"

_BARE_WORD = re.compile(r"[!#-<>-~]+")  # printable ASCII but space, quote and equals sign


def plain(value: object) -> Plain:
    """
    Return *value* as JSON knows it, strings and lists bounded.

    A value of an unforeseen type is shown as its type's name: its own text might hold what must not be logged.
    """
    return _FORM_OF[type(value)](value)


def _bounded(text: str) -> str:
    return text if len(text) <= STRING_CHARACTERS_MAX else text[: STRING_CHARACTERS_MAX - 3] + "..."


def _timestamp(when: datetime) -> str:
    if when.tzinfo is None:
        return when.isoformat(timespec="milliseconds")
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _identical(value: int | None) -> Plain:
    return value


def _float(value: float) -> Plain:
    return value if math.isfinite(value) else str(value)


def _octets(value: bytes) -> Plain:
    return _bounded(value[: STRING_CHARACTERS_MAX + 1].decode("utf-8", "backslashreplace"))


def _enum(value: Enum) -> Plain:
    return _bounded(value.value if isinstance(value.value, str) else value.name)


def _list(value: Sequence[object]) -> Plain:
    return [plain(item) for item in value[:LIST_ITEMS_MAX]]


def _unforeseen(value: object) -> Plain:
    return f"<{type(value).__name__}>"


def _set(value: AbstractSet[object]) -> Plain:
    return sorted((plain(item) for item in value), key=str)[:LIST_ITEMS_MAX]


# The first that fits: an IntEnum is an Enum before it is an int.
_FORMS: tuple[tuple[tuple[type, ...], Callable[[Any], Plain]], ...] = (
    ((Enum,), _enum),
    ((str,), _bounded),
    ((int, NoneType), _identical),
    ((float,), _float),
    ((bytes,), _octets),
    ((datetime,), _timestamp),
    ((date,), date.isoformat),
    ((IPv4Address, IPv6Address), str),
    ((list, tuple), _list),
    ((set, frozenset), _set),
)


class _FormOf(dict[type, Callable[[Any], Plain]]):
    def __missing__(self, kind: type) -> Callable[[Any], Plain]:
        found = (form for kinds, form in _FORMS if issubclass(kind, kinds))
        self[kind] = form = next(found, _unforeseen)
        return form


_FORM_OF = _FormOf()

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _json(value: object) -> str:
    # DEL is the one control character that JSON lets through.
    return _ENCODER.encode(value).replace("\x7f", "\\u007f")


def json_line(entry: dict[str, Plain]) -> str:
    """
    Return *entry* as one line of JSON, in the order of its keys.
    """
    return _json(entry) + "\n"


def text_line(entry: dict[str, Plain]) -> str:
    """
    Return *entry* as one line of words: time, event, then `key=value`; what is not a bare word is quoted as in JSON.
    """
    time, event, *rest = entry.items()
    words = [_word(time[1]), _word(event[1]), *(f"{key}={_word(value)}" for key, value in rest)]
    return " ".join(words) + "\n"


def _word(value: Plain) -> str:
    if value is None:
        return "-"
    if isinstance(value, str) and value != "-" and _BARE_WORD.fullmatch(value):
        return value
    return _json(value)


@define
class _File:
    """
    A file that lines are appended to, each with one system call: another process may rotate or share the file.
    """

    _path: Path
    _descriptor: int
    _torn: bool = False

    @classmethod
    def opened(cls, path: Path) -> "_File":
        """
        Return the file at *path*, made if it is not there, readable by its owner and group only.
        """
        return cls(path, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640))

    def write(self, line: str) -> None:
        data = line.encode("ascii")
        if self._torn:
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        # A full disk takes a part of a line; the next entry must still begin on a line of its own.
        self._torn = written < len(data)
        if self._torn:
            raise OSError(f"{self._path}: wrote {written} of {len(data)} octets")

    def reopened(self) -> "_File":
        new = _File.opened(self._path)
        self.close()
        return new

    def close(self) -> None:
        # The number may be given to another file next: forget it.
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


@define
class _Stream:
    """
    A text stream that someone else opened, and closes.
    """

    _stream: TextIO

    def write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

    def reopened(self) -> "_Stream":
        return self

    def close(self) -> None:
        """
        Leave the stream as it is.
        """


@define
class Journal:
    """
    Where entries go, in which format. *dropped* counts those that could not be written.

    *clock* returns the time of an entry, aware of its zone; it is written in UTC.
    """

    _sink: _File | _Stream
    _clock: Callable[[], datetime]
    _line: Callable[[dict[str, Plain]], str]
    dropped: int = field(default=0, init=False)

    @classmethod
    def to(cls, target: TextIO | Path, clock: Callable[[], datetime], form: Format = "json") -> "Journal":
        """
        Return a journal that writes to *target*: a stream, or a file that entries are appended to.

        Raises:
            OSError: the file cannot be opened.
        """
        sink = _File.opened(target) if isinstance(target, Path) else _Stream(target)
        return cls(sink, clock, json_line if form == "json" else text_line)

    def write(self, event: str, /, **fields: object) -> None:
        """
        Write one entry: the time, the *event*, then the fields in their order. Never raises.
        """
        entry: dict[str, Plain] = {"time": _timestamp(self._clock()), "event": _bounded(event)}
        for key, value in fields.items():
            entry.setdefault(key, plain(value))
        try:
            self._sink.write(self._line(entry))
        except (OSError, ValueError):
            # ValueError: the stream has been closed.
            self.dropped += 1

    def reopen(self) -> bool:
        """
        Open the file anew, after it was renamed by a log rotation; a stream stays as it is.

        Returns:
            Whether the file could be opened. If not, entries go on to the old one.
        """
        try:
            self._sink = self._sink.reopened()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """
        Close the file; entries written later are dropped. A stream stays open.
        """
        self._sink.close()
