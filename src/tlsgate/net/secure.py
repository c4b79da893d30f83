"""
TLS from now on, over a connection that is there already.

Twisted's `startTLS()` keeps every write back until the reactor's next turn, to join small ones, and passes all that a
transport does through two layers more. Here what is written goes out at once: a session has already joined what belongs
together.
"""

from typing import Any

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

Creator = IOpenSSLClientConnectionCreator | IOpenSSLServerConnectionCreator


class TlsWire(TLSMemoryBIOProtocol):
    """
    A connection with TLS, as its protocol's transport.
    """

    def abortConnection(self) -> None:
        """
        Drop the connection; one that is gone stays so.
        """
        if self.connected:
            super().abortConnection()  # type: ignore[no-untyped-call]  # Twisted is typed in part


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
    tls.makeConnection(wire)
    if producer is not None:
        # One that was paused would stay so: its pause is not known to what stands between it and the connection now. If
        # the buffer is still full, it is paused again at the next write.
        producer.resumeProducing()
        tls.registerProducer(producer, streaming=True)
