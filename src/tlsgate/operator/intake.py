"""
A mail transaction of the mailbox, and the two ways its message comes in: DATA, and BDAT chunk by chunk.
"""

from attrs import define, field

from tlsgate.operator.maildir import Envelope, Incoming, Maildir, Stored, Unstuffing
from tlsgate.smtp.framing import InputBuffer
from tlsgate.smtp.message import EndOfData
from tlsgate.smtp.reply import Reply

CHUNK_OK = Reply(250, "2.0.0", "Chunk OK")
MESSAGE_STORED = Reply(250, "2.0.0", "Message stored")
TOO_BIG = Reply(552, "5.3.4", "Message too big")  # RFC 1870 section 6
NO_ROOM = Reply(452, "4.3.1", "Message could not be stored, try again later")


@define
class Transaction:
    """
    One mail transaction. *fault* is what its message will be answered with, though the octets still arrive; *finished*
    says that they all have.
    """

    sender: str
    octets_max: int
    smtputf8: bool = False
    recipients: list[str] = field(factory=list)
    fault: Reply | None = field(default=None, init=False)
    finished: bool = field(default=False, init=False)
    stored: Stored | None = field(default=None, init=False)
    _incoming: Incoming | None = field(default=None, init=False)

    @property
    def begun(self) -> bool:
        """
        Whether a part of the message has come, or was to come.
        """
        return self._incoming is not None or self.fault is not None

    def may_name(self, mailbox: str) -> bool:
        """
        Whether that address may be used: one that is not ASCII needs SMTPUTF8 (RFC 6531 section 3.4).
        """
        return self.smtputf8 or mailbox.isascii()

    def begin(self, maildir: Maildir, envelope: Envelope) -> None:
        """
        Begin the message, or note why that is not possible.
        """
        try:
            self._incoming = maildir.receive(envelope)
        except OSError:
            self.fail(NO_ROOM)

    def write(self, data: bytes) -> None:
        """
        Add *data* to the message, or note why that is not possible.
        """
        if self._incoming is None:
            return
        try:
            self._incoming.write(data)
        except OSError:
            self.fail(NO_ROOM)

    def bound(self, octets: int) -> None:
        """
        Give the message up if it has *octets* more than it may have.
        """
        if self._incoming is not None and self._incoming.octets + octets > self.octets_max:
            self.fail(TOO_BIG)

    def finish(self, *, less: int = 0) -> Reply:
        """
        Store the message, its last *less* octets cut off, and return the answer to it.
        """
        self.finished = True
        if self._incoming is not None:
            try:
                self.stored = self._incoming.store(less=less)
            except OSError:
                self.fail(NO_ROOM)
        self._incoming = None
        return self.fault or MESSAGE_STORED

    def fail(self, fault: Reply) -> None:
        """
        Give the message up.
        """
        self.fault = fault
        self.discard()

    def discard(self) -> None:
        """
        Forget what has come of the message.
        """
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None


@define
class Data:
    """
    A message behind DATA (RFC 5321 section 4.1.1.4).
    """

    _transaction: Transaction
    _end: EndOfData = field(factory=EndOfData, init=False)
    _unstuffing: Unstuffing = field(factory=Unstuffing, init=False)

    def take(self, waiting: InputBuffer) -> Reply | None:
        """
        Take what belongs to the message from *waiting*; return the answer to it once it is whole.
        """
        data = waiting.take()
        end = self._end.feed(data)
        self._transaction.write(self._unstuffing.feed(data[:end]))
        # The end-of-data mark may already be there, of which CRLF is left: it is cut off at the end.
        self._transaction.bound(-2)
        if end is None:
            return None
        waiting.feed(data[end:])
        return self._transaction.finish(less=2)


@define
class Chunk:
    """
    The octets behind one BDAT (RFC 3030 section 2); *left* are to come.
    """

    _left: int
    _last: bool
    _transaction: Transaction

    def take(self, waiting: InputBuffer) -> Reply | None:
        """
        Take what belongs to the chunk from *waiting*; return the answer to it once it is whole.
        """
        data = waiting.take(self._left)
        self._left -= len(data)
        self._transaction.write(data)
        if self._left:
            return None
        return self._transaction.finish() if self._last else self._transaction.fault or CHUNK_OK


@define
class Refused:
    """
    The octets behind a BDAT that is refused: they are no commands (RFC 3030 section 2).
    """

    _left: int
    _fault: Reply

    def take(self, waiting: InputBuffer) -> Reply | None:
        """
        Swallow what belongs to the chunk; return the refusal once it is all there.
        """
        self._left -= len(waiting.take(self._left))
        return None if self._left else self._fault
