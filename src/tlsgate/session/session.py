# ruff: noqa: SLF001 - the table at the end names methods of the class above it
"""
One SMTP session (RFC 5321 section 3.1), from greeting to close: told what arrived, it returns what to do.

What the whole looks like, where the level demands TLS:

1. `opened`: our own greeting; the backend is not dialled.
2. The client may say EHLO, NOOP, STARTTLS, QUIT (RFC 3207 section 4); anything else is 530.
3. STARTTLS: 220, `StartTls` and `DialBackend`. What was said so far is forgotten (section 4.2).
4. `tls_established`: the verdict. Insufficient: the backend is hung up, all commands but QUIT are 554 (section 4.1).
5. Sufficient: commands are forwarded and their replies relayed, in order, until QUIT.

Where the level offers TLS, the backend is dialled on opening and greets the client itself; a STARTTLS hangs it up.
With implicit TLS (RFC 8314), the session waits for `tls_established` before anybody says anything.

Three things are its state: the *phase*, what the next octets of the client's are; the TLS facts (in the gatekeeper);
and the expectations, the replies owed (in the conversation). No method calls out, and none raises on what either side
sends.
The layers below: `state`, `answers` (the backend's side), `inflow` (messages), `commands` (the client's side).
"""

from collections.abc import Callable, Mapping

from attrs import define

from tlsgate.policy.facts import TlsFacts
from tlsgate.session.actions import Action, Record
from tlsgate.session.commands import Commands
from tlsgate.session.endings import Ending
from tlsgate.session.gatekeeper import tls_fields
from tlsgate.session.phases import Leg, Phase, Waiting
from tlsgate.session.verbs import What
from tlsgate.smtp import reply as replies
from tlsgate.smtp.framing import ReplyError
from tlsgate.smtp.reply import BackendReply, Reply


@define
class Session(Commands):
    """
    A session. Each method is an event; each returns the actions to perform, in order, after it returned.

    After `CloseClient` nothing more is owed; after `HangUpBackend` events of that connection are not told any more.
    """

    _draining: bool = False

    # -- events

    def opened(self) -> list[Action]:
        """
        The client has connected.
        """
        if self.terms.implicit:
            self._handshaking = True
            self.phase = Phase.DISCARDED
            self._dial()
        elif self._gate.demands_tls:
            self._greet_ourselves()
        else:
            self._dial()
        return self._settle()

    def client_data(self, data: bytes) -> list[Action]:
        """
        The client has sent *data*.
        """
        self._asked = True
        if self.phase is Phase.ENDED:
            return []
        if not self._input:
            # The byte path: message data is not copied into the input buffer.
            if self.phase is Phase.MESSAGE:
                data = data[self._on_message(data) :]
            elif self.phase is Phase.CHUNK:
                data = data[self._on_chunk(data) :]
        if data:
            self._input.feed(data)
        return self._settle()

    def client_lost(self) -> list[Action]:
        """
        The client's connection is gone.
        """
        lost = Ending.QUIT if self._quitting else Ending.CLIENT_LOST  # Exim does not wait for the reply
        lost = Ending.HANDSHAKE_FAILED if self._handshaking else lost
        self._end_by(Ending.SHUTDOWN if self._draining else lost)
        self._abandon_transaction()
        self._hang_up()
        self.phase = Phase.ENDED
        self._talk.ended = True
        return self._talk.take()

    def tls_established(self, facts: TlsFacts) -> list[Action]:
        """
        The client's handshake is done: decide, and say so, before anything else (RFC 3207 section 4.1).
        """
        if self._talk.ended:
            return []
        self._handshaking = False
        self.phase = Phase.COMMANDS
        self._gate.handshake_done(facts)
        if self._gate.refuses:
            self._refuse_all(self._gate.refusal())
            if not self.greeted and self._gate.defers:
                self._fail(self._refusal)
            elif not self.greeted:
                self._greet_ourselves()
        elif self.leg is Leg.FAILED:
            self._give_backend_up()
        return self._settle()

    def backend_ready(self, greeting: BackendReply) -> list[Action]:
        """
        The backend has greeted, with 220.
        """
        self.leg = Leg.READY
        self._greeting = greeting
        return self._settle()

    def backend_failed(self, failure: Reply = replies.BACKEND_UNREACHABLE) -> list[Action]:
        """
        No connection to the backend could be had. *failure* is what every command that needs it gets.
        """
        self.leg = Leg.FAILED
        self._failure = failure
        if not self._handshaking:
            self._give_backend_up()
        return self._settle()

    def backend_data(self, data: bytes) -> list[Action]:
        """
        The backend, greeted, has sent *data*.
        """
        if self._handshaking:
            # Nobody has asked it anything yet.
            self._talk.hang_up(politely=False)
            return self._backend_failed_meanwhile()
        broken: ReplyError | None = None
        try:
            arrived = self._replies.feed(data)
        except ReplyError as error:
            arrived, broken = error.replies, error
        for reply in arrived:
            if not self._talk.ended:
                self._on_reply(reply)
        if broken is not None and not self._talk.ended:
            self._talk.record(Record("backend-broken", {"reason": str(broken)}))
            self._fail(replies.BACKEND_BROKEN)
        return self._settle()

    def backend_lost(self) -> list[Action]:
        """
        The backend, greeted, has closed the connection.
        """
        if self._handshaking:
            return self._backend_failed_meanwhile()
        self.leg = Leg.NONE
        if self._quitting:
            self._end_by(Ending.QUIT)
            self._talk.answer(replies.CLOSING.encode())
            self._talk.close()
        else:
            self._fail(replies.BACKEND_LOST)
        return self._settle()

    def timed_out(self) -> list[Action]:
        """
        Whom the session waits for (see `waiting`) was silent for too long.
        """
        waiting = self.waiting
        if waiting is Waiting.HANDSHAKE:
            self._end_by(Ending.HANDSHAKE_FAILED)
            self._talk.close()
        elif waiting is Waiting.CLIENT:
            self._fail(replies.CLIENT_SILENT)
        elif waiting is not Waiting.NOBODY:
            self._fail(replies.BACKEND_SILENT)
        return self._settle()

    def refuse(self, reply: Reply) -> list[Action]:
        """
        End the session now with *reply*, a 421.
        """
        self._fail(reply)
        return self._settle()

    def drain(self) -> list[Action]:
        """
        The service is stopping: end with 421 as soon as no mail transaction is under way (RFC 5321 section 3.8).
        """
        self._draining = True
        return self._settle()

    # -- what others may ask

    @property
    def waiting(self) -> Waiting:
        """
        Whom the session waits for.
        """
        if self._talk.ended:
            return Waiting.NOBODY
        if self._handshaking:
            return Waiting.HANDSHAKE
        head = self._talk.expectations.head()
        if head is not None:
            if self.phase is Phase.CHUNK and len(self._talk.expectations) == 1:
                return Waiting.CLIENT  # for the rest of the chunk that is to be answered
            return Waiting.END_OF_DATA if head.what in _WHOLE_MESSAGE else Waiting.BACKEND
        return Waiting.BACKEND if self.leg is Leg.DIALLING else Waiting.CLIENT

    @property
    def owed(self) -> bool:
        """
        Whether the client has said something that the backend has still to answer. One that says no more waits for it.
        """
        return self._asked and self.waiting in _OF_BACKEND

    def summary(self) -> Mapping[str, object]:
        """
        Return what the journal says of the session as a whole.
        """
        circumstances = self._gate.circumstances
        decision = self._gate.decision
        return {
            "helo": circumstances.helo,
            "level": decision.level.name,
            "verdict": decision.outcome.name.lower(),
            "outcome": None if self.ending is None else self.ending.value,
            "authenticated": self.authenticated,
            "transactions": self.transactions,
            "delivered": self.delivered,
            "octets": self.octets,
            **tls_fields(self._gate.tls),
        }

    # -- inside

    def _settle(self) -> list[Action]:
        """
        Read on as far as possible, then say what is to be done.
        """
        talk = self._talk
        self._greet_client()
        while not talk.ended and _READERS[self.phase](self):
            pass
        if talk.tls_due and not talk.ended:
            self._begin_tls()
        if self._draining and self._idle():
            self._fail(replies.SHUTTING_DOWN)
        self._press()
        if talk.ended:
            self._abandon_transaction()
            self._hang_up()
            self.phase = Phase.ENDED
        if self._gate.records:
            talk.record(*self._gate.records)
            self._gate.records.clear()
        return talk.take()

    def _backend_failed_meanwhile(self) -> list[Action]:
        """
        The backend is of no use, and the client still busy with its handshake: it is told after that.
        """
        self.leg = Leg.FAILED
        return self._settle()

    def _idle(self) -> bool:
        resting = self.phase in {Phase.COMMANDS, Phase.REFUSING} and self.leg is not Leg.DIALLING
        under_way = self._transaction is not None and self._transaction.open
        return resting and not len(self._talk.expectations) and not under_way

    def _read_nothing(self) -> bool:
        return False


_OF_BACKEND = frozenset({Waiting.BACKEND, Waiting.END_OF_DATA})
_WHOLE_MESSAGE = frozenset({What.END_OF_DATA, What.LAST_CHUNK})

_READERS: dict[Phase, Callable[[Session], bool]] = {
    Phase.COMMANDS: Session._read_command,
    Phase.HELD: Session._read_nothing,
    Phase.MESSAGE: Session._read_message,
    Phase.CHUNK: Session._read_chunk,
    Phase.SASL: Session._read_sasl,
    Phase.REFUSING: Session._read_refused,
    Phase.DISCARDED: Session._read_discarded,
    Phase.ENDED: Session._read_nothing,
}
