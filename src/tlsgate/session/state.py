"""
What a session is run under, and what it knows while it runs.
"""

from collections.abc import Callable
from datetime import datetime

from attrs import define, field, frozen

from tlsgate.policy.facts import Circumstances
from tlsgate.policy.rules import Rulebook
from tlsgate.session.actions import DialBackend
from tlsgate.session.bounds import Bounds
from tlsgate.session.conversation import Conversation
from tlsgate.session.endings import Ending, ending
from tlsgate.session.expectations import Then
from tlsgate.session.gatekeeper import Gatekeeper
from tlsgate.session.phases import Leg, Phase
from tlsgate.session.transaction import Transaction
from tlsgate.session.verbs import What
from tlsgate.smtp import reply as replies
from tlsgate.smtp.command import Command
from tlsgate.smtp.framing import InputBuffer, ReplyReader
from tlsgate.smtp.message import BareNewlines
from tlsgate.smtp.reply import BackendReply, Reply


@frozen
class Terms:
    """
    What a session is run under.

    *hostname*: our name in greetings of our own. *implicit*: TLS comes first (RFC 8314). *tls_available*: whether a
    handshake could be served now. *keywords*: EHLO keywords let through beside the known ones. *requiretls*: see
    `extensions.Offer`.
    *trace_clock*: put a trace line before each message, of the time that this returns (RFC 5321 section
    4.4); `None`: put none.
    """

    rulebook: Rulebook
    circumstances: Circumstances
    session_id: str
    hostname: str
    implicit: bool = False
    tls_available: Callable[[], bool] = field(default=lambda: True)
    bare_newlines: BareNewlines = BareNewlines.NORMALIZE
    keywords: frozenset[bytes] = frozenset()
    requiretls: bool = False
    trace_clock: Callable[[], datetime] | None = None
    bounds: Bounds = field(factory=Bounds)


_NO_COMMANDS = frozenset({Phase.MESSAGE, Phase.CHUNK, Phase.SASL})
_DECIDING = (What.DATA, What.AUTH)
_TO_GREETINGS = frozenset({What.EHLO, What.HELO, What.HELO_FALLBACK})


@define
class State:
    """
    The state of one session: the phase, the law as it stands, the replies owed, and the shadow of the backend's.
    """

    terms: Terms
    phase: Phase = Phase.COMMANDS
    leg: Leg = Leg.NONE
    greeted: bool = False
    transactions: int = 0
    delivered: int = 0
    authenticated: bool = False
    ending: Ending | None = None
    _gate: Gatekeeper = field(init=False)
    _talk: Conversation = field(factory=Conversation)
    _input: InputBuffer = field(factory=InputBuffer)
    _replies: ReplyReader = field(init=False)
    _pipelining: bool = False
    _chunking: bool = False
    _reset_needed: bool = False  # a BDAT was refused by us: the backend does not know that its chunk is missing
    _quit: bool = False  # the backend has answered QUIT
    _handshaking: bool = False
    _asked: bool = False  # the client has said something, since the handshake if there was one
    _postponed: Command | None = None
    _transaction: Transaction | None = None
    _octets_ahead: int = 0  # of the message, sent before the backend has answered MAIL
    _chunk_left: int = 0
    _swallowing: Reply | None = None
    _esmtp: bool = False
    _smtputf8: bool = False
    _traced: bool = False  # the trace line of this message is sent
    _refusal: Reply = replies.LACK_OF_SECURITY
    _errors: int = 0
    _commands_before_tls: int = 0

    def __attrs_post_init__(self) -> None:
        terms = self.terms
        self._gate = Gatekeeper(terms.rulebook, terms.circumstances, terms.session_id)
        self._replies = self._new_reader()

    def _new_reader(self) -> ReplyReader:
        return ReplyReader(self.terms.bounds.reply_octets_max, self.terms.bounds.reply_lines_max)

    def _dial(self) -> None:
        self.leg = Leg.DIALLING
        self._replies = self._new_reader()
        # A fresh backend knows nothing yet, so neither do we of it.
        self._pipelining = self._chunking = self._reset_needed = self._quit = self._traced = False
        self.authenticated = self._esmtp = self._smtputf8 = False
        self._talk.last(DialBackend())

    def _hang_up(self) -> None:
        """
        Give the backend up, if there is one; politely only where it reads commands. Half a message must not look like a
        whole one to it, nor our QUIT like message data, or like the answer in an AUTH exchange.
        """
        if self.leg in {Leg.DIALLING, Leg.READY}:
            elsewhere = self.phase in _NO_COMMANDS or self._talk.expectations.awaits(*_DECIDING)
            politely = self.leg is Leg.READY and not elsewhere
            if politely and not self._quit:
                self._talk.to_backend(b"QUIT\r\n")
            self._talk.hang_up(politely=politely)
            self.leg = Leg.NONE

    def _refuse_all(self, refusal: Reply) -> None:
        """
        Answer every command but QUIT with *refusal* from now on.
        """
        self._abandon_transaction()
        self._hang_up()
        self._refusal = refusal
        self.phase = Phase.REFUSING

    def _fail(self, reply: Reply | BackendReply) -> None:
        """
        End the session with a 421, at once; without a word while a handshake runs, as nobody could read it.
        """
        self._end_by(ending(reply))
        self._abandon_transaction()
        self._hang_up()
        if self._handshaking:
            self._talk.close()
        else:
            head = self._talk.expectations.head()
            to_ehlo = head is not None and head.what in _TO_GREETINGS
            self._talk.end(reply.raw if isinstance(reply, BackendReply) else reply.encode(to_ehlo=to_ehlo))

    def _own(self, reply: Reply, *, to_ehlo: bool = False) -> None:
        """
        Give a reply of our own; one refusal too many ends the session.
        """
        self._talk.own(reply, to_ehlo=to_ehlo)
        if reply.code >= 400:
            self._errors += 1
            if self._errors >= self.terms.bounds.errors_max:
                self._close_after(replies.TOO_MANY_ERRORS)

    def _close_after(self, reply: Reply, *, to_ehlo: bool = False) -> None:
        """
        Give the last reply of the session, in its turn; nothing the client says is read any more.
        """
        self._end_by(ending(reply))
        self._talk.own(reply, Then.CLOSE, to_ehlo=to_ehlo)
        self.phase = Phase.ENDED

    @property
    def _quitting(self) -> bool:
        """
        Whether the reply to QUIT is all that the backend still owes.
        """
        head = self._talk.expectations.head()
        return head is not None and head.what is What.QUIT

    def _end_by(self, cause: Ending) -> None:
        """
        Note what ends the session; the first cause counts.
        """
        self.ending = self.ending or cause

    def _abandon_transaction(self) -> None:
        """
        Forget the mail transaction; write it down if the backend knew of it.
        """
        if self._transaction is not None and self._transaction.open:
            self._talk.record(self._transaction.record("abandoned", None, self._gate.standing))
        self._transaction = None

    def _complete_transaction(self, outcome: str, reply: BackendReply | None) -> None:
        """
        Close the mail transaction after its message; *outcome* is "delivered" only if the backend said so.
        """
        if self._transaction is not None and self._transaction.open:
            self._talk.record(self._transaction.record(outcome, reply, self._gate.standing))
            self.transactions += 1
            self.delivered += outcome == "delivered"
        self._transaction = None
