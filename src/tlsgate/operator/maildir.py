"""
A Maildir: messages as files, each complete or not there at all.

A message is written to a file in `tmp/` while it arrives, synced, and moved to `new/` in one step. Who looks into
`new/` never sees half a message, and what was acknowledged outlives a power failure.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from typing import BinaryIO

from attrs import define, field, frozen

from tlsgate.smtp.message import CRLF
from tlsgate.smtp.reply import printable

_FOLDERS = ("tmp", "new", "cur")


@frozen
class Envelope:
    """
    What SMTP says of a message. *helo* is the name the client gave, *client* its address, *protocol* as in RFC 3848.
    """

    helo: str
    client: str
    protocol: str
    sender: str
    recipients: tuple[str, ...]


@frozen
class Stored:
    """
    A message that lies in the Maildir; *octets* is its size as it was sent, without the trace header.
    """

    path: Path
    envelope: Envelope
    octets: int


@define
class Unstuffing:
    """
    Takes the dots off again that the sender put before lines that start with one (RFC 5321 section 4.5.2).
    """

    _tail: bytes = CRLF

    def feed(self, data: bytes) -> bytes:
        """
        Return *data* without the first dot of each line, however the lines are cut.
        """
        joined = self._tail + data
        kept = len(self._tail)
        self._tail = joined[-2:]
        return joined.replace(b"\r\n.", CRLF)[kept:]


@define
class Incoming:
    """
    A message on its way into the Maildir. Ends with `store` or `discard`.
    """

    _file: BinaryIO
    _tmp: Path
    _new: Path
    _envelope: Envelope
    _start: int

    def write(self, data: bytes) -> None:
        """
        Add *data* to the message.

        Raises:
            OSError: no room left, or worse.
        """
        self._file.write(data)

    @property
    def octets(self) -> int:
        """
        How much of the message was written so far.
        """
        return self._file.tell() - self._start

    def store(self, *, less: int = 0) -> Stored:
        """
        Put the message, its last *less* octets cut off, into `new/`, and return once it would survive a power failure.

        Raises:
            OSError: it is not there; what was written of it is gone.
        """
        try:
            octets = self.octets - less
            self._file.truncate(self._start + octets)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._tmp.rename(self._new)
            _sync_folder(self._new.parent)
        except OSError:
            self.discard()
            raise
        return Stored(self._new, self._envelope, octets)

    def discard(self) -> None:
        """
        Forget the message.
        """
        # Closing writes what is still buffered, and the disk may be full. The file goes away all the same.
        with suppress(OSError):
            self._file.close()
        for path in (self._tmp, self._new):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@define
class Maildir:
    """
    The Maildir in *folder*, made if it is not there. *hostname* stands in trace headers and file names.
    """

    folder: Path
    hostname: str
    _now: Callable[[], datetime]
    _count: int = field(default=0, init=False)

    def prepare(self) -> None:
        """
        Make the folders.

        Raises:
            OSError: that is not possible.
        """
        for name in _FOLDERS:
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def receive(self, envelope: Envelope) -> Incoming:
        """
        Begin a message: a file in `tmp/` that holds its trace header (RFC 5321 section 4.4).

        Raises:
            OSError: no file can be made.
        """
        now = self._now()
        self._count += 1
        # No other process makes the same name (https://cr.yp.to/proto/maildir.html).
        identity = f"{int(now.timestamp())}.M{now.microsecond:06}P{os.getpid()}Q{self._count}"
        name = identity + "." + self.hostname.replace("/", "\\057").replace(":", "\\072")
        trace = self._trace(envelope, identity, now)
        tmp = self.folder / "tmp" / name
        incoming = Incoming(tmp.open("xb"), tmp, self.folder / "new" / name, envelope, len(trace))
        try:
            incoming.write(trace)
        except OSError:
            incoming.discard()
            raise
        return incoming

    def _trace(self, envelope: Envelope, identity: str, now: datetime) -> bytes:
        lines = [
            f"Return-Path: <{envelope.sender}>",
            *(f"Delivered-To: {recipient}" for recipient in envelope.recipients),
            f"Received: from {printable(envelope.helo, 255)} ([{envelope.client}])",
            f"\tby {self.hostname} with {envelope.protocol} id {identity};",
            f"\t{format_datetime(now)}",
        ]
        return "".join(line + "\r\n" for line in lines).encode("utf-8")
