"""
Octets of the client's that are not command lines: message data (RFC 5321 section 4.1.1.4) and BDAT chunks (RFC 3030).

They go on as they come, in chunks. Message data is watched for its end, and for bare newlines; a chunk is counted. And
a client who sends ahead of what can be judged is not read from for a while.
"""

from attrs import define, field

from tlsgate.session.actions import PauseClient, Record, ResumeClient
from tlsgate.session.answers import Answers
from tlsgate.session.expectations import Awaited
from tlsgate.session.phases import Leg, Phase
from tlsgate.session.trace import Trace, received_line
from tlsgate.session.verbs import What
from tlsgate.smtp import reply as replies
from tlsgate.smtp.message import BareNewlines, EndOfData, Newlines
from tlsgate.smtp.reply import Reply


@define
class Inflow(Answers):
    """
    The session's side that takes in messages.
    """

    octets: int = 0  # of message data, in the whole session
    _end_of_data: EndOfData = field(factory=EndOfData)
    _newlines: Newlines | None = None
    _after_chunk: Phase = Phase.COMMANDS
    _paused: bool = False

    def _begin_message(self) -> None:
        self.phase = Phase.MESSAGE
        self._end_of_data = EndOfData()
        self._newlines = None if self.terms.bare_newlines is BareNewlines.PASS else Newlines()
        self._traced = False

    def _read_message(self) -> bool:
        data = self._input.take()
        if data:
            self._input.feed(data[self._on_message(data) :])
        return bool(self._input)

    def _read_chunk(self) -> bool:
        data = self._input.take(self._chunk_left)
        self._on_chunk(data)
        return bool(data)

    def _on_message(self, data: bytes) -> int:
        """
        Take in message data; return how many octets were of the message.
        """
        used = self._end_of_data.feed(data)
        ours = data if used is None else data[:used]
        self._count(len(ours))
        if self._newlines is not None:
            ours = self._newlines.feed(ours, last=used is not None)
            if self._newlines.bare and self.terms.bare_newlines is BareNewlines.REJECT:
                # Only a lost connection keeps a backend from taking what it was sent of the message so far.
                self._hang_up()
                ours = b""
        if ours and self.leg is Leg.READY:
            self._talk.to_backend(self._trace_line(ours))
            self._talk.to_backend(ours)
        if used is None:
            return len(data)
        self._end_message()
        return used

    def _end_message(self) -> None:
        if self.leg is Leg.READY:
            self._talk.forward(b"", Awaited(What.END_OF_DATA))
            self.phase = Phase.COMMANDS if self._pipelining else Phase.HELD
            return
        self._talk.record(Record("message-refused", {"reason": "bare CR or LF"}))
        self._complete_transaction("refused", None)
        self._refuse_all(replies.BACKEND_SPENT)
        self._own(replies.BARE_NEWLINE)

    @property
    def _trace_due(self) -> bool:
        return self.terms.trace_clock is not None and not self._traced

    def _trace_line(self, beginning: bytes) -> bytes:
        """
        Return the trace line of a message with this *beginning*, nothing if there is none to put, or it is sent.

        A message that begins with a blank would go on with it, as a folded part of it (RFC 5322 section 2.2.3): so an
        empty line follows then, as the message has no header anyway.
        """
        clock, circumstances = self.terms.trace_clock, self._gate.circumstances
        if clock is None or self._traced:
            return b""
        self._traced = True
        line = received_line(
            Trace(
                self.terms.hostname,
                circumstances.helo or "",
                circumstances.client,
                self.terms.session_id,
                clock(),
                esmtp=self._esmtp,
                smtputf8=self._smtputf8,
                authenticated=self.authenticated,
                tls=self._gate.tls,
            )
        )
        return line + b"\r\n" if beginning.startswith((b" ", b"\t")) else line

    def _begin_chunk(self, octets: int, swallowing: Reply | None = None) -> None:
        """
        Take the next *octets* as a chunk; *swallowing* is the refusal to give once they are swallowed.
        """
        self._chunk_left = octets
        self._swallowing = swallowing
        self._after_chunk = self.phase
        self.phase = Phase.CHUNK
        self._on_chunk(b"")

    def _on_chunk(self, data: bytes) -> int:
        """
        Take in octets of a chunk; return how many were of it.
        """
        ours = data[: self._chunk_left]
        self._chunk_left -= len(ours)
        if self._swallowing is None:
            self._count(len(ours))
            if ours:
                self._talk.to_backend(ours)
        if not self._chunk_left:
            self._end_chunk()
        return len(ours)

    def _end_chunk(self) -> None:
        refusal, self._swallowing = self._swallowing, None
        if refusal is not None:
            self.phase = self._after_chunk
            self._own(refusal)
        else:
            self.phase = self._after_chunk if self._talk.expectations.awaited else Phase.COMMANDS

    def _count(self, octets: int) -> None:
        self.octets += octets
        if self._transaction is not None:
            self._transaction.octets += octets
        else:
            self._octets_ahead += octets

    def _press(self) -> None:
        """
        Stop reading a client who sends ahead of what can be judged, and bound what it has sent.
        """
        if not self._input and not self._paused:
            return
        bounds = self.terms.bounds
        full = self.leg is Leg.DIALLING or len(self._talk.expectations) >= bounds.pipeline_max
        blocked = (self.phase is Phase.HELD or (self.phase is Phase.COMMANDS and full)) and not self._talk.ended
        if blocked and len(self._input) > bounds.held_octets_max:
            self._fail(replies.TOO_MUCH_INPUT)
        elif blocked and not self._paused and len(self._input) > bounds.pause_above_octets:
            self._paused = True
            self._talk.last(PauseClient())
        elif self._paused and not blocked:
            self._paused = False
            self._talk.last(ResumeClient())
