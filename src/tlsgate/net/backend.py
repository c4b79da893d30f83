"""
One connection to one backend: opened in the gate's own words, then raw octets both ways.
"""

from collections.abc import Callable, Iterable
from typing import Protocol as Interface

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.net.secure import start_tls
from tlsgate.net.wire import Wire, cancel, close, send, set_no_delay
from tlsgate.policy.level import Level
from tlsgate.session.opening import Opening
from tlsgate.session.steps import Failed, Ready, Send, StartTls, Step
from tlsgate.smtp.reply import BackendReply
from tlsgate.tls.client import BackendTlsError, BackendTrust


@frozen
class Candidate:
    """
    One backend to try: where, how to talk to it first, what its TLS must be, and whom to tell how it went.

    *tried* is called once: with `None` when the backend was ready, else with what it failed with. *over* is called
    once, when the connection, or the attempt, is.
    """

    endpoint: Callable[[], IStreamClientEndpoint]
    opening: Callable[[], Opening]
    trust: BackendTrust | None
    level: Level | None
    tried: Callable[[Failed | None], None]
    over: Callable[[], None]


class Quiet(Factory):
    """
    A factory that does not log that it starts and stops: there is one for each connection.
    """

    noisy = False


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Trusting:
    trust: BackendTrust

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002
        return self.trust.connection()


class Owner(Interface):
    """
    Whose connection it is.
    """

    def connected(self, protocol: "BackendProtocol") -> None:
        """
        The connection is there.
        """

    def ready(self, greeting: BackendReply) -> None:
        """
        The opening is over, and well.
        """

    def failed(self, failure: Failed) -> None:
        """
        The opening is over, and the connection of no use.
        """

    def close(self, protocol: "BackendProtocol") -> None:
        """
        Have a connection that is of no use closed in time.
        """

    def data(self, data: bytes) -> None:
        """
        The backend, ready, has sent *data*.
        """

    def lost(self) -> None:
        """
        The connection, ready before, is gone.
        """


@implementer(IHandshakeListener)
class BackendProtocol(Protocol):
    """
    One connection to one backend: its opening, then raw octets both ways.
    """

    transport: Wire  # type: ignore[assignment]  # Twisted says ITransport or None

    def __init__(self, link: Owner, candidate: Candidate) -> None:
        self._link = link
        self._candidate = candidate
        self._opening = candidate.opening()
        self._ready = False
        self._gone = False
        self._closing: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """
        The connection is there.
        """
        set_no_delay(self.transport)
        self._link.connected(self)
        self._take(self._opening.connected())

    def dataReceived(self, data: bytes) -> None:
        """
        Give *data* to whom the connection belongs.
        """
        if self._ready:
            self._link.data(data)
        else:
            self._take(self._opening.received(data))

    def handshakeCompleted(self) -> None:
        """
        Check whom the handshake has reached.
        """
        fault = None
        trust = self._candidate.trust
        if trust is not None:
            try:
                facts = trust.verify(self.transport.getHandle())
                level = self._candidate.level
                fault = None if level is None else level.judge(facts).reason or None
            except BackendTlsError as error:
                fault = error.reason
        self._take(self._opening.tls_established(fault))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell whom the connection belongs to.
        """
        self._gone = True
        if self._ready:
            self._link.lost()
        else:
            self._take(self._opening.lost(self._why(reason)))
        cancel(self._closing)
        self._candidate.over()

    def identified(self) -> None:
        """
        It is known now who the client is.
        """
        self._take(self._opening.identified())

    def close(self, clock: IReactorTime, closing_seconds: float) -> None:
        """
        Close once all is sent.
        """
        self._closing = close(self.transport, clock, closing_seconds)

    def give_up(self) -> None:
        """
        End an opening that takes too long.
        """
        self._take(self._opening.overdue())

    def _why(self, reason: Failure) -> str:
        trust = self._candidate.trust
        if trust is not None and isinstance(reason.value, SSL.Error):
            return trust.reason(self.transport.getHandle(), f"TLS handshake failed: {reason.value}")
        return reason.getErrorMessage()

    def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Send(data):
                    send(self.transport, data)
                case StartTls():
                    assert self._candidate.trust is not None  # noqa: S101 - a plan with TLS is made with trust
                    start_tls(self, _Trusting(self._candidate.trust), client=True)
                case Ready(greeting):
                    self._ready = True
                    self._link.ready(greeting)
                case Failed():
                    if not self._gone:
                        # Under TLS, a backend that does not answer the end of it would keep the connection for good.
                        self._link.close(self)
                    self._link.failed(step)
