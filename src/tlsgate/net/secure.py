"""
TLS from now on, over a connection that is there already.

Twisted's `startTLS()` keeps every write back until the reactor's next turn, to join small ones, passes all that a
transport does through two layers more, and delivers each record by itself. Here what is written goes out at once, as a
session has already joined what belongs together; and what has arrived is delivered in one piece.
"""

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.net.wire import Wire, send

RECEIVED_OCTETS_MAX = 2**14  # in a record (RFC 8446 section 5.1)
SENT_OCTETS_MAX = 2**15  # more than a record, with its header

Creator = IOpenSSLClientConnectionCreator | IOpenSSLServerConnectionCreator


@implementer(IHalfCloseableProtocol)
class TlsWire(TLSMemoryBIOProtocol):
    """
    A connection with TLS, as its protocol's transport.

    A protocol that is told of half-closed connections hears of close_notify, and may go on sending (RFC 8446 section
    6.1); the end of the connection beneath, without one, is the end of both halves, as anybody could have cut it there.
    """

    _heard_all = False

    def dataReceived(self: Any, data: bytes) -> None:
        """
        Take in *data*; what follows close_notify would not be read by anybody, and is not kept.
        """
        if not self._heard_all:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def readConnectionLost(self: Any) -> None:
        """
        The other side sends no more on the connection beneath.
        """
        if not self._heard_all:
            self.transport.connectionLost(connectionDone)

    def writeConnectionLost(self) -> None:
        """
        We never close our half alone.
        """

    def _flushReceiveBIO(self: Any) -> None:  # Twisted is typed in part
        """
        Deliver what has arrived, in one piece: a small one costs a session as much as a large one.

        What was said before the end of TLS is delivered first, so that it can still be answered; what was said before a
        fault, so that it counts: OpenSSL sends nothing after one.
        """
        pieces: list[bytes] = []
        end: SSL.Error | None = None
        try:
            while not self._lostTLSConnection:
                pieces.append(self._tlsConnection.recv(RECEIVED_OCTETS_MAX))
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            # Its traceback knows this frame, and so would keep the connection until the garbage is collected.
            end = error.with_traceback(None)
        if pieces and not self._aborted:
            self.wrappedProtocol.dataReceived(b"".join(pieces))
        if isinstance(end, SSL.ZeroReturnError) and not self._lostTLSConnection:
            if IHalfCloseableProtocol.providedBy(self.wrappedProtocol) and not self.disconnecting:
                self._heard_all = True
                self.wrappedProtocol.readConnectionLost()
            else:
                self._shutdownTLS()
                self._tlsShutdownFinished(None)
        elif end is not None and not self._lostTLSConnection:
            self._tlsShutdownFinished(Failure(end))
        self._flushSendBIO()

    def _flushSendBIO(self: Any) -> None:
        """
        Pass on all that TLS has to say. Twisted passes on one piece: whoever asks for more in one read (by KeyUpdate,
        RFC 8446 section 4.6.3) would have the rest pile up, where nobody counts it.
        """
        octets = None
        while octets is None or len(octets) == SENT_OCTETS_MAX:
            try:
                octets = self._tlsConnection.bio_read(SENT_OCTETS_MAX)
            except SSL.WantReadError:
                return
            self.transport.write(octets)

    def abortConnection(self: Any) -> None:
        """
        Drop the connection; one that is gone stays so.
        """
        if self.connected:
            # First, so that TLS has no last word.
            self.transport.abortConnection()
            super().abortConnection()  # type: ignore[no-untyped-call]


def why_lost(reason: Failure) -> str:
    """
    Return why a connection is lost, in words; what OpenSSL has to say if it was TLS that failed.
    """
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0] if entry) or "TLS error"
    return reason.getErrorMessage() or type(error).__name__


class _Beneath:
    """
    The connection that TLS lies on, with its way of sending. It shows no interfaces: Twisted would copy them, one by
    one, to whatever lies on it.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def write(self, data: bytes) -> None:
        send(self._wire, data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # so does zope ask for interfaces
        return getattr(self._wire, name)


def start_tls(protocol: Protocol, creator: Creator, *, client: bool) -> None:
    """
    Start a handshake on the connection of *protocol*, as client or server, which is TLS for it from then on.
    """
    wire: Any = protocol.transport  # no interface of Twisted's says that a transport has all these
    producer = wire.producer
    wire.unregisterProducer()
    factory = TLSMemoryBIOFactory(creator, client, Factory())
    tls: Any = TlsWire(factory, protocol, _connectWrapped=False)  # type: ignore[no-untyped-call]
    wire.protocol = protocol.transport = tls
    tls.makeConnection(_Beneath(wire))
    if producer is not None:
        # One that was paused would stay so: its pause is not known to what stands between it and the connection now. If
        # the buffer is still full, it is paused again at the next write.
        producer.resumeProducing()
        tls.registerProducer(producer, streaming=True)
