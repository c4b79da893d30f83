"""
The side that faces clients: one protocol per connection, one factory per listener.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network

from attrs import define, evolve, field
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.net.deadlines import Deadline, Timeouts
from tlsgate.net.identity import ClientIdentity, endpoint_of
from tlsgate.net.limits import Address, Limits
from tlsgate.net.proxy_protocol import HeaderReader, ProxyProtocolError
from tlsgate.net.relay import Relay
from tlsgate.net.routes import Routes
from tlsgate.net.secure import TlsWire, start_tls, why_lost
from tlsgate.net.wire import Wire, cancel, close, send, set_no_delay
from tlsgate.policy.facts import Circumstances
from tlsgate.policy.rules import Rulebook
from tlsgate.session.bounds import Bounds
from tlsgate.session.session import Session
from tlsgate.session.state import Terms
from tlsgate.smtp import reply as replies
from tlsgate.smtp.message import BareNewlines
from tlsgate.tls.keeper import IdentityKeeper
from tlsgate.tls.peer import facts_of

Journal = Callable[[str, Mapping[str, object]], None]


@define(eq=False)
class Gate:
    """
    What all listeners share: the law, the bounds, the clock, the journal. Replaced whole on reload, for new sessions.
    """

    clock: IReactorTime
    rulebook: Rulebook
    journal: Journal
    limits: Limits = field(factory=Limits)
    timeouts: Timeouts = field(factory=Timeouts)
    bounds: Bounds = field(factory=Bounds)
    hostname: str | None = None
    fallback_hostname: str = "localhost"
    bare_newlines: BareNewlines = BareNewlines.NORMALIZE

    def now(self) -> datetime:
        """
        Return the clock's time as a date.
        """
        return datetime.fromtimestamp(self.clock.seconds(), UTC)


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class Frontend(Factory):
    """
    One listener: its name, its way of starting TLS, its certificates and its backends.
    """

    name: str
    gate: Gate
    keeper: IdentityKeeper
    routes: Routes
    implicit: bool = False
    proxy_protocol_from: Sequence[IPv4Network | IPv6Network] = ()
    protocols: set["FrontendProtocol"] = field(factory=set)

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> "FrontendProtocol":  # noqa: ARG002
        """
        Return the protocol of a new client connection. A reload changes this listener, and not what it is to them.
        """
        return FrontendProtocol(evolve(self))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002
        """
        Return our side of a new handshake.
        """
        assert self.keeper.identity is not None  # noqa: S101 - no handshake begins without one
        return self.keeper.identity.connection()

    def tls_available(self) -> bool:
        """
        Return whether a handshake could be served now.
        """
        return self.keeper.identity is not None and self.gate.limits.handshake_possible()

    def expects_proxy_header(self, peer: Address | None) -> bool:
        """
        Return whether whoever connects from there must say first who the client is (see `HeaderReader`).
        """
        return peer is not None and any(peer in network for network in self.proxy_protocol_from)

    def drain(self) -> None:
        """
        Let every session end as soon as it may.
        """
        for protocol in list(self.protocols):
            protocol.drain()

    def abort(self) -> None:
        """
        Drop every connection.
        """
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class FrontendProtocol(Protocol):
    """
    One client connection.
    """

    transport: Wire  # type: ignore[assignment]  # Twisted says ITransport or None

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._gate = frontend.gate
        self._relay: Relay | None = None
        self._handshaking = False
        self._who = ClientIdentity(None)
        self._admitted = False
        self._header: HeaderReader | None = None
        self._deadline = Deadline(frontend.gate.clock, lambda: self._no_header("no header in time"))
        self._closing: IDelayedCall | None = None
        self.session_id = secrets.token_hex(6)

    def connectionMade(self) -> None:
        """
        Begin a session, if there may be one more.
        """
        set_no_delay(self.transport)
        self._who = ClientIdentity(*endpoint_of(self.transport.getPeer()), *endpoint_of(self.transport.getHost()))
        if self._frontend.expects_proxy_header(self._who.address):
            self._header = HeaderReader()
            self._frontend.protocols.add(self)
            self._deadline.set(self._gate.timeouts.handshake_seconds)
        else:
            self._open()

    def dataReceived(self, data: bytes) -> None:
        """
        Give *data* to the session.
        """
        if self._relay is not None:
            self._relay.client_data(data)
        elif self._header is not None:
            self._read_header(self._header, data)

    def handshakeCompleted(self) -> None:
        """
        Tell the session what the handshake has achieved.
        """
        self._handshake_over()
        if self._relay is not None:
            self._relay.tls_established(facts_of(self.transport.getHandle()))

    def readConnectionLost(self) -> None:
        """
        Tell the session that the client says no more.
        """
        if self._relay is not None:
            self._relay.client_finished()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        We never close our half alone.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell the session that the client is gone.
        """
        self._handshake_over()
        self._deadline.clear()
        cancel(self._closing)
        self._frontend.protocols.discard(self)
        if self._relay is not None:
            self._relay.client_lost(why_lost(reason))
        if self._admitted:
            self._gate.limits.leave(self._who.address)

    def drain(self) -> None:
        """
        The service is stopping: no session begins any more.
        """
        if self._relay is not None:
            self._relay.drain()
        elif self._header is not None:
            self.transport.abortConnection()

    # -- for the relay

    def start_tls(self) -> None:
        """
        Start the server side of a handshake.
        """
        if not self._frontend.tls_available():
            self.transport.abortConnection()
            return
        self._handshaking = True
        self._gate.limits.handshakes += 1
        start_tls(self, self._frontend, client=False)

    def close(self) -> None:
        """
        Close once all is sent.
        """
        cancel(self._closing)
        self._closing = close(self.transport, self._gate.clock, self._gate.timeouts.closing_seconds)

    # -- inside

    def _read_header(self, reader: HeaderReader, data: bytes) -> None:
        """
        Learn who the client is from the balancer before us; drop a connection that does not say it.
        """
        try:
            header = reader.feed(data)
        except ProxyProtocolError as error:
            self._no_header(error.reason)
            return
        if header is None:
            return
        self._header = None
        self._deadline.clear()
        if header.source is not None:
            self._who = ClientIdentity(*header.source, *(header.destination or (None, None)))
        self._open()
        # What follows the header is the client's: if the session is to begin with TLS, that sees it, or nobody does.
        if reader.rest and isinstance(self.transport, TlsWire):
            self.transport.dataReceived(reader.rest)
        elif reader.rest and not self._frontend.implicit:
            self.dataReceived(reader.rest)

    def _no_header(self, reason: str) -> None:
        self._header = None
        self._record("proxy-header-invalid", {"reason": reason})
        self.transport.abortConnection()

    def _open(self) -> None:
        gate, frontend = self._gate, self._frontend
        refusal = None if any(dialler.any_up for dialler in frontend.routes.diallers) else replies.BACKEND_DOWN
        refusal = refusal or gate.limits.admit(self._who.address, gate.clock.seconds())
        if refusal is not None:
            self._record("refused", {"reason": refusal.text})
            if not frontend.implicit:
                send(self.transport, refusal.encode())
            self.close()
            return
        self._admitted = True
        frontend.protocols.add(self)
        dialler = frontend.routes.default
        terms = Terms(
            rulebook=gate.rulebook,
            circumstances=Circumstances(frontend.name, self._who.address, gate.now()),
            session_id=self.session_id,
            hostname=gate.hostname or dialler.hostname or gate.fallback_hostname,
            implicit=frontend.implicit,
            tls_available=frontend.tls_available,
            bare_newlines=gate.bare_newlines,
            bounds=gate.bounds,
        )
        self._relay = Relay(Session(terms), self, self._who, frontend.routes, gate.clock, gate.timeouts, self._record)
        self._relay.opened()
        if frontend.implicit:
            self.start_tls()

    def _handshake_over(self) -> None:
        if self._handshaking:
            self._handshaking = False
            self._gate.limits.handshakes -= 1

    def _record(self, event: str, fields: Mapping[str, object]) -> None:
        listener, who = self._frontend.name, self._who
        known = {"session": self.session_id, "listener": listener, "client": who.address, "port": who.port}
        self._gate.journal(event, {**known, **fields})
