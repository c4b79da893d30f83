"""
The connection to a backend: dialled, opened in the gate's own words, then the session's.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol as Interface

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.net.deadlines import Deadline, Timeouts
from tlsgate.net.identity import ClientIdentity
from tlsgate.net.wire import Wire, close, set_no_delay
from tlsgate.session.opening import Failed, Opening, OpeningPlan, Ready, Send, StartTls, Step
from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import BackendReply, Reply
from tlsgate.tls.client import BackendTlsError, BackendTrust

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")


class Listener(Interface):
    """
    Who is told of one connection to a backend. After a `Link.hang_up`, nobody is.
    """

    def link_ready(self, greeting: BackendReply) -> None:
        """
        The backend is the session's.
        """

    def link_failed(self, reply: Reply, log_reason: str) -> None:
        """
        There is no connection to be had. *reply* is for the client.
        """

    def link_data(self, data: bytes) -> None:
        """
        The backend has sent *data*.
        """

    def link_lost(self) -> None:
        """
        The connection, ready before, is gone.
        """


class _Quiet(Factory):
    noisy = False


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Trusting:
    trust: BackendTrust

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002
        return self.trust.connection()


@implementer(IHandshakeListener)
class BackendProtocol(Protocol):
    """
    One TCP (or UNIX) connection to one backend: its opening, then raw octets both ways.
    """

    transport: Wire  # type: ignore[assignment]  # Twisted says ITransport or None

    def __init__(self, link: "Link", opening: Opening, trust: BackendTrust | None) -> None:
        self._link = link
        self._opening = opening
        self._trust = trust
        self._open = False

    def connectionMade(self) -> None:
        """
        Begin the opening.
        """
        set_no_delay(self.transport)
        self._link.opened(self)
        self._take(self._opening.connected())

    def dataReceived(self, data: bytes) -> None:
        """
        Give *data* to whom the connection belongs.
        """
        if self._open:
            self._link.data(data)
        else:
            self._take(self._opening.received(data))

    def handshakeCompleted(self) -> None:
        """
        Check whom the handshake has reached.
        """
        fault = None
        if self._trust is not None:
            try:
                self._trust.verify(self.transport.getHandle())
            except BackendTlsError as error:
                fault = error.reason
        self._take(self._opening.tls_established(fault))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell whom the connection belongs to.
        """
        if self._open:
            self._link.lost()
        else:
            self._take(self._opening.lost(reason.getErrorMessage()))

    def give_up(self) -> None:
        """
        End an opening that takes too long.
        """
        self._take(self._opening.lost("no answer in time"))

    def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Send(data):
                    self.transport.write(data)
                case StartTls():
                    assert self._trust is not None  # noqa: S101 - a plan with TLS is made with trust
                    self.transport.startTLS(_Trusting(self._trust))
                case Ready(greeting):
                    self._open = True
                    self._link.ready(greeting)
                case Failed(reply, log_reason):
                    self.transport.loseConnection()
                    self._link.failed(reply, log_reason)


@define(eq=False)
class Link:
    """
    A session's way to a backend: the candidates are tried in order until one is ready.
    """

    _dialler: "Dialler"
    _listener: Listener
    _opening: Callable[[], Opening]
    _candidates: list[IStreamClientEndpoint]
    _attempt: Deferred[IProtocol] | None = None
    _protocol: BackendProtocol | None = None
    _deadline: Deadline = field(init=False)
    _given_up: bool = False
    _failure: tuple[Reply, str] = (replies.BACKEND_UNREACHABLE, "no backend is configured")

    def __attrs_post_init__(self) -> None:
        self._deadline = Deadline(self._dialler.clock, self._timed_out)

    # -- for the session

    def dial(self) -> None:
        """
        Try the next candidate.
        """
        if not self._candidates:
            self._listener.link_failed(*self._failure)
            return
        endpoint = self._candidates.pop(0)
        self._deadline.set(self._dialler.timeouts.connect_seconds)
        protocol = BackendProtocol(self, self._opening(), self._dialler.trust)
        attempt = self._attempt = endpoint.connect(_Quiet.forProtocol(lambda: protocol))
        attempt.addCallbacks(lambda _: self._connected(protocol), self._unreachable)

    def write(self, data: bytes) -> None:
        """
        Send *data* to the backend, which is ready.
        """
        if self._protocol is not None:
            self._protocol.transport.write(data)

    @property
    def transport(self) -> Wire:
        """
        The transport of a link that is ready.
        """
        assert self._protocol is not None  # noqa: S101 - asked from link_ready() on only
        return self._protocol.transport

    def hang_up(self, *, politely: bool) -> None:
        """
        Close the connection: once all is sent, or at once. Nobody is told of it any more.
        """
        self._given_up = True
        self._deadline.clear()
        if self._protocol is None:
            if self._attempt is not None:
                self._attempt.cancel()
        elif politely:
            close(self._protocol.transport, self._dialler.clock, self._dialler.timeouts.closing_seconds)
        else:
            self._protocol.transport.abortConnection()

    # -- for the protocol

    def ready(self, greeting: BackendReply) -> None:
        """
        The opening is over, and well.
        """
        self._deadline.clear()
        self._dialler.met(greeting)
        if not self._given_up:
            self._listener.link_ready(greeting)

    def failed(self, reply: Reply, log_reason: str) -> None:
        """
        The opening is over, and the connection of no use.
        """
        if self._given_up:
            return
        self._deadline.clear()
        self._failure = (reply, log_reason)
        self._protocol = self._attempt = None
        self.dial()

    def data(self, data: bytes) -> None:
        """
        The backend, ready, has sent *data*.
        """
        if not self._given_up:
            self._listener.link_data(data)

    def lost(self) -> None:
        """
        The connection, ready before, is gone.
        """
        if not self._given_up:
            self._listener.link_lost()

    # -- inside

    def _connected(self, protocol: BackendProtocol) -> None:
        self._attempt = None
        if self._given_up:
            protocol.transport.abortConnection()

    def opened(self, protocol: BackendProtocol) -> None:
        """
        The TCP connection is there: the backend has its own time for the greeting.
        """
        self._protocol = protocol
        self._deadline.set(self._dialler.timeouts.backend_seconds)

    def _unreachable(self, reason: Failure) -> None:
        self.failed(replies.BACKEND_UNREACHABLE, reason.getErrorMessage())

    def _timed_out(self) -> None:
        if self._protocol is not None:
            protocol, self._protocol = self._protocol, None
            protocol.give_up()
        elif self._attempt is not None:
            self._attempt.cancel()


@define(eq=False)
class Dialler:
    """
    The way to a group of backends: where they are, and how a connection to one is opened.

    *hostname*: the name in the greeting of the backend met last, `None` before the first.
    """

    clock: IReactorTime
    endpoints: Sequence[IStreamClientEndpoint]
    plan: OpeningPlan
    timeouts: Timeouts
    trust: BackendTrust | None = None
    hostname: str | None = None

    def link(self, listener: Listener, who: ClientIdentity) -> Link:  # noqa: ARG002
        """
        Return a link for the session of *who*, to be dialled.
        """
        return Link(self, listener, lambda: Opening(self.plan), list(self.endpoints))

    def met(self, greeting: BackendReply) -> None:
        """
        Learn the backend's name from its greeting (RFC 5321 section 4.2: the domain is its first word).
        """
        words = greeting.lines()[0].split()
        name = words[0].decode("latin-1") if words else ""
        if _HOST_NAME.fullmatch(name):
            self.hostname = name
