"""
What a mail server delivered: the message as it was accepted, and the trace header it put before it.
"""

import os
import re
from pathlib import Path

import pytest
from attrs import define, frozen

from tests.integration.processes import wait_until

DELIVERY_SECONDS = 60.0
HEAD_OCTETS = 16384
TRACE_FIELDS = {"return-path", "x-original-to", "delivered-to", "received", "envelope-to"}
FIELD = re.compile(rb"([!-9;-~]+):[^\n]*\n(?:[ \t][^\n]*\n)*")


@frozen
class Arrival:
    """
    One delivered copy. *trace* is what the server prepended, *message* everything behind it, with CRLF line ends.
    """

    recipient: str
    trace: str
    message: bytes


@define
class Mailbox:
    """
    A Maildir a server delivers into, its files with LF line ends, each telling its recipient in a trace field.

    A message is known by its first line, which therefore must be unique.
    """

    folder: Path
    _heads: dict[Path, bytes]

    @classmethod
    def made(cls, folder: Path, uid: int) -> "Mailbox":
        """
        Create the Maildir, writable by *uid*.
        """
        for path in (folder, *(folder / name for name in ("tmp", "new", "cur"))):
            path.mkdir()
            os.chown(path, uid, -1)
        return cls(folder, {})

    def collect(self, sent: bytes, copies: int = 1) -> list[Arrival]:
        """
        Wait until *copies* of the message *sent* are there, and take them out, sorted by recipient.
        """
        mark = sent[: sent.index(b"\r\n")] + b"\n"
        found: list[Path] = []

        def look() -> bool:
            found[:] = [path for path in self.unread() if mark in self._head(path)]
            return len(found) >= copies

        wait_until(look, DELIVERY_SECONDS, lambda: f"{len(found)} of {copies} copies of {mark!r} have arrived")
        arrivals = [arrival(path.read_bytes(), mark) for path in found]
        for path in found:
            path.unlink()
            del self._heads[path]
        return sorted(arrivals, key=lambda one: one.recipient)

    def unread(self) -> list[Path]:
        """
        The messages delivered and not collected.
        """
        return list((self.folder / "new").iterdir())

    def _head(self, path: Path) -> bytes:
        if path not in self._heads:
            with path.open("rb") as file:
                self._heads[path] = file.read(HEAD_OCTETS)
        return self._heads[path]


def arrival(stored: bytes, mark: bytes) -> Arrival:
    """
    Split the file *stored* before the line *mark*.

    What stands before it must be whole trace fields and nothing else, the recipient among them.
    """
    start = 0 if stored.startswith(mark) else stored.index(b"\n" + mark) + 1
    trace = stored[:start]
    fields = {found.group(1).decode().lower(): found.group() for found in FIELD.finditer(trace)}
    if FIELD.sub(b"", trace) or not fields.keys() <= TRACE_FIELDS:
        pytest.fail(f"more than trace fields was prepended: {trace!r}")
    recipient = fields.get("delivered-to") or fields["envelope-to"]
    return Arrival(
        recipient.split(b":", 1)[1].strip().decode(),
        trace.decode(errors="replace"),
        stored[start:].replace(b"\n", b"\r\n"),
    )
