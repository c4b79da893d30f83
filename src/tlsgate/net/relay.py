# ruff: noqa: SLF001 - the table at the end names methods of the class above it
"""
Performs what a session decides: the one place where a client's connection, a backend's, the session and time meet.

The session is never called while it is running, and its actions are performed after it returned, one list at a time:
what performing one brings about (a connection lost, a dial that fails at once) is told to it when the list is done.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from tlsgate.net.deadlines import DataRate, Deadline, Timeouts
from tlsgate.net.identity import ClientIdentity
from tlsgate.net.link import Link
from tlsgate.net.routes import Routes
from tlsgate.net.throttle import Buffer, Throttle
from tlsgate.net.wire import Client, send
from tlsgate.policy.facts import TlsFacts
from tlsgate.session.actions import (
    Action,
    CloseClient,
    DialBackend,
    HangUpBackend,
    PauseClient,
    Record,
    ResumeClient,
    SendBackend,
    SendClient,
    StartTls,
)
from tlsgate.session.phases import Leg, Phase, Waiting
from tlsgate.session.session import Session
from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import BackendReply, Reply

Journal = Callable[[str, Mapping[str, object]], None]

CLIENT_FULL = "client's buffer is full"
BACKEND_FULL = "backend's buffer is full"

_CLIENTS = frozenset({Waiting.CLIENT})
_BACKENDS = frozenset({Waiting.BACKEND, Waiting.END_OF_DATA})


@define(eq=False)
class Relay:
    """
    One session at work.
    """

    _session: Session
    _client: Client
    _who: ClientIdentity
    _routes: Routes
    _clock: IReactorTime
    _timeouts: Timeouts
    _journal: Journal
    _throttle: Throttle = field(init=False)
    _deadline: Deadline = field(init=False)
    _rate: DataRate = field(init=False)
    _link: Link | None = None
    _facts: TlsFacts | None = None
    _dial_put_off: bool = False
    _due: deque[Action] = field(factory=deque)
    _performing: bool = False
    _watched: Waiting = Waiting.NOBODY
    _began: float = field(init=False)
    _marked: float = field(init=False)  # when the last transaction ended, or mail could begin
    _over: bool = False
    _finished: bool = False  # the client says no more

    def __attrs_post_init__(self) -> None:
        self._throttle = Throttle(self._client.transport, self._watch)
        self._deadline = Deadline(self._clock, self._timed_out)
        self._rate = DataRate(self._timeouts.data_rate_octets_per_second_min)
        self._began = self._marked = self._clock.seconds()

    # -- the client's side

    def opened(self) -> None:
        """
        The client has connected.
        """
        # Our own replies fill the client's buffer, too: who does not read them is not read from.
        self._client.transport.registerProducer(Buffer(CLIENT_FULL, [self._throttle]), True)
        self._do(self._session.opened())

    def client_data(self, data: bytes) -> None:
        """
        The client has sent *data*.
        """
        session = self._session
        in_message = session.phase is Phase.MESSAGE or session.phase is Phase.CHUNK
        if in_message and self._rate.took(len(data), self._clock.seconds()):
            self._do(session.refuse(replies.TOO_SLOW))
            return
        actions = session.client_data(data)
        # A command has five minutes as a whole (RFC 5321 section 4.5.3.2.7), however many octets it comes in.
        self._do(actions, _CLIENTS if actions or in_message else frozenset())

    def tls_established(self, facts: TlsFacts) -> None:
        """
        The client's handshake is done.
        """
        self._marked = self._clock.seconds()
        self._facts = facts
        self._do(self._session.tls_established(facts))
        if self._dial_put_off:
            self._dial()

    def client_finished(self) -> None:
        """
        The client says no more. All that it has said is answered first, as it may be waiting for that: Exim is.
        """
        self._finished = True
        self._do([])

    def client_lost(self, reason: str) -> None:
        """
        The client's connection is gone.
        """
        self._finished = False  # there is nothing left to close
        if self._session.waiting is Waiting.HANDSHAKE:
            self._journal("handshake-failed", {"reason": reason})
        self._do(self._session.client_lost())
        self._deadline.clear()
        if not self._over:
            self._over = True
            seconds = round(self._clock.seconds() - self._began, 3)
            self._journal("session", {**self._session.summary(), "duration_seconds": seconds})

    def drain(self) -> None:
        """
        The service is stopping.
        """
        self._do(self._session.drain())

    # -- the backend's side

    def link_ready(self, greeting: BackendReply) -> None:
        """
        The backend has greeted, and is the session's.
        """
        assert self._link is not None  # noqa: S101 - who else would be ready
        backend = Throttle(self._link.transport, self._watch)
        self._link.transport.registerProducer(Buffer(BACKEND_FULL, [self._throttle]), True)
        client = self._client.transport
        client.unregisterProducer()
        client.registerProducer(Buffer(CLIENT_FULL, [self._throttle, backend]), True)
        self._do(self._session.backend_ready(greeting), _BACKENDS)

    def link_failed(self, reply: Reply, log_reason: str) -> None:
        """
        No backend is to be had.
        """
        self._link = None
        self._journal("backend-failed", {"reason": log_reason})
        self._do(self._session.backend_failed(reply))

    def link_data(self, data: bytes) -> None:
        """
        The backend has sent *data*.
        """
        self._do(self._session.backend_data(data), _BACKENDS)

    def link_lost(self) -> None:
        """
        The backend has closed the connection.
        """
        self._link = None
        self._throttle.resume(BACKEND_FULL)
        self._do(self._session.backend_lost())

    # -- inside

    def _timed_out(self) -> None:
        if self._watched is Waiting.HANDSHAKE:
            self._journal("handshake-failed", {"reason": "no handshake in time"})
        if self._watched is self._session.waiting:
            self._do(self._session.timed_out())
        else:
            # The session waits for the client, who may not speak: the backend does not take what it has said.
            self._do(self._session.refuse(replies.BACKEND_SILENT))

    def _do(self, actions: list[Action], heard: frozenset[Waiting] = frozenset()) -> None:
        """
        Perform *actions*; *heard* is what was waited for, and is not silent any more.
        """
        self._due.extend(actions)
        if self._performing:
            return
        self._performing = True
        try:
            while self._due:
                action = self._due.popleft()
                _PERFORM[type(action)](self, action)
        finally:
            self._performing = False
        if self._finished and not self._session.owed:
            self._finished = False
            self._client.close()
        self._watch(heard)

    def _watch(self, heard: frozenset[Waiting] = frozenset()) -> None:
        """
        Set the deadline: for another side, if that is waited for now, or anew for one that was just heard. What the
        other side says gives it no more time.
        """
        if self._over or self._performing:
            return
        session = self._session
        waiting = session.waiting
        if waiting is Waiting.CLIENT and self._throttle.paused_for(BACKEND_FULL):
            waiting = Waiting.BACKEND
        if waiting is not Waiting.CLIENT or (session.phase is not Phase.MESSAGE and session.phase is not Phase.CHUNK):
            self._rate.rest()
        if waiting is not self._watched or waiting in heard:
            self._watched = waiting
            # A link that dials has deadlines of its own, one for each candidate.
            dialling = waiting is Waiting.BACKEND and session.leg is Leg.DIALLING
            self._deadline.set(None if dialling else self._timeouts.of(waiting))

    def _send_client(self, action: SendClient) -> None:
        send(self._client.transport, action.data)

    def _send_backend(self, action: SendBackend) -> None:
        if self._link is not None:
            self._link.write(action.data)

    def _start_tls(self, _: StartTls) -> None:
        self._client.start_tls()

    def _dial_backend(self, _: DialBackend) -> None:
        if self._session.waiting is Waiting.HANDSHAKE and self._routes.after_tls:
            self._dial_put_off = True
        else:
            self._dial()

    def _dial(self) -> None:
        self._dial_put_off = False
        dialler = self._routes.dialler(None if self._facts is None else self._facts.sni)
        self._session.terms = dialler.terms(self._session.terms)
        self._link = dialler.link(self, self._who, self._facts)
        self._link.dial()

    def _hang_up_backend(self, action: HangUpBackend) -> None:
        self._dial_put_off = False
        if self._link is not None:
            self._link.hang_up(politely=action.politely)
            self._link = None
            self._throttle.resume(BACKEND_FULL)

    def _close_client(self, _: CloseClient) -> None:
        self._client.close()

    def _pause_client(self, _: PauseClient) -> None:
        self._throttle.pause("a reply decides what comes next")

    def _resume_client(self, _: ResumeClient) -> None:
        self._throttle.resume("a reply decides what comes next")

    def _record(self, action: Record) -> None:
        fields = dict(action.fields)
        if action.event == "transaction":
            now = self._clock.seconds()
            fields["duration_seconds"] = round(now - self._marked, 3)
            self._marked = now
        self._journal(action.event, fields)


_PERFORM: Mapping[type, Callable[[Relay, Any], None]] = {
    SendClient: Relay._send_client,
    SendBackend: Relay._send_backend,
    StartTls: Relay._start_tls,
    DialBackend: Relay._dial_backend,
    HangUpBackend: Relay._hang_up_backend,
    CloseClient: Relay._close_client,
    PauseClient: Relay._pause_client,
    ResumeClient: Relay._resume_client,
    Record: Relay._record,
}
