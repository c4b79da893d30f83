"""
What is owed to the client and what is said to either side during one event, gathered into the list of actions.

Replies leave in the order of the commands (RFC 5321 section 4.2, RFC 2920 section 3.2), own ones among the backend's.
Within one event records come first: what is decided is written down before anybody is told.
"""

from attrs import define, field

from tlsgate.session.actions import Action, CloseClient, HangUpBackend, Record, SendBackend, SendClient
from tlsgate.session.expectations import Awaited, Expectations, Own, Then
from tlsgate.smtp.reply import BackendReply, Reply


@define
class Conversation:
    """
    The outgoing half of a session.

    *ended*: the last word to the client is said. *tls_due*: the 220 to STARTTLS is.
    """

    expectations: Expectations = field(factory=Expectations)
    ended: bool = False
    tls_due: bool = False
    _records: list[Record] = field(factory=list)
    _to_backend: list[bytes] = field(factory=list)
    _to_client: list[bytes] = field(factory=list)
    _last: list[Action] = field(factory=list)

    def own(self, reply: Reply, then: Then = Then.GO_ON, *, to_ehlo: bool = False) -> None:
        """
        Answer a command ourselves, in its turn.
        """
        self.own_raw(reply.encode(to_ehlo=to_ehlo), then)

    def own_raw(self, raw: bytes, then: Then = Then.GO_ON) -> None:
        """
        Answer a command ourselves with these octets, in its turn.
        """
        self.expectations.add(Own(raw, then))
        self._say_due()

    def forward(self, data: bytes, awaited: Awaited) -> None:
        """
        Send a command to the backend, which will answer it.
        """
        self._to_backend.append(data)
        self.expectations.add(awaited)

    def answer(self, raw: bytes) -> None:
        """
        Give the client the backend's answer to the oldest command, and our own ones that waited for it.
        """
        self._to_client.append(raw)
        self.expectations.answered()
        self._say_due()

    def to_backend(self, data: bytes) -> None:
        """
        Send message data, a chunk or a SASL line to the backend.
        """
        if data:
            self._to_backend.append(data)

    def to_client(self, raw: bytes) -> None:
        """
        Send what answers no command: a greeting.
        """
        self._to_client.append(raw)

    def end(self, last: bytes) -> None:
        """
        End the session with these octets, whatever is still owed.
        """
        if not self.ended:
            self.expectations.clear()
            self._to_client.append(last)
            self._close()

    def record(self, *records: Record) -> None:
        """
        Have these written down before anything is said.
        """
        self._records += records

    def last(self, action: Action) -> None:
        """
        Have this done after everything is said.
        """
        self._last.append(action)

    def hang_up(self, *, politely: bool) -> None:
        """
        Give the backend up, after what was said to it.
        """
        self._last.append(HangUpBackend(politely))

    def close(self) -> None:
        """
        Close: the last word was said.
        """
        self.expectations.clear()
        self._close()

    def take(self) -> list[Action]:
        """
        Return what is to be done, and start anew.
        """
        actions: list[Action] = []
        if self._records:
            actions += self._records
            self._records = []
        if self._to_backend:
            actions.append(SendBackend(b"".join(self._to_backend)))
            self._to_backend = []
        if self._to_client:
            actions.append(SendClient(b"".join(self._to_client)))
            self._to_client = []
        if self._last:
            actions += self._last
            self._last = []
        return actions

    def relay(self, reply: BackendReply) -> None:
        """
        Give the client the backend's answer as it came.
        """
        self.answer(reply.raw)

    def _say_due(self) -> None:
        while (own := self.expectations.due()) is not None:
            self._to_client.append(own.raw)
            if own.then is Then.CLOSE:
                self.close()
            elif own.then is Then.START_TLS:
                self.tls_due = True

    def _close(self) -> None:
        if not self.ended:
            self.ended = True
            self._last.append(CloseClient())
