"""
A connection as this package uses it: what Twisted's TCP, UNIX and TLS transports have in common.

Twisted's interfaces split it into five (ITransport, ITCPTransport, ITLSTransport, IConsumer, IPushProducer).
"""

from collections.abc import Callable
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime


class Wire(Protocol):
    """
    A stream transport.
    """

    def write(self, data: bytes) -> None:
        """
        Send *data*.
        """

    def loseConnection(self) -> None:
        """
        Close once all is sent.
        """

    def abortConnection(self) -> None:
        """
        Drop the connection.
        """

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: FBT001 - Twisted's signature
        """
        Have *producer* told when the write buffer is full.
        """

    def unregisterProducer(self) -> None:
        """
        Have nobody told.
        """

    def pauseProducing(self) -> None:
        """
        Read no more.
        """

    def resumeProducing(self) -> None:
        """
        Read again.
        """

    def getHandle(self) -> SSL.Connection:
        """
        Return the TLS connection, once there is one.
        """

    def getPeer(self) -> IAddress:
        """
        Return the other side's address.
        """

    def getHost(self) -> IAddress:
        """
        Return our side's address.
        """


class Client(Protocol):
    """
    The client's connection, as far as a relay needs it.
    """

    transport: Wire

    def start_tls(self) -> None:
        """
        Start the server side of a handshake.
        """

    def close(self) -> None:
        """
        Close once all is sent.
        """


def send(wire: Wire, data: bytes) -> None:
    """
    Send *data* now, as far as the system takes it; what is left goes as soon as there is room.

    Twisted keeps what is written until the reactor has asked whether there is room: two system calls, and a turn, for
    an answer that is nearly always yes.
    """
    if isinstance(wire, FileDescriptor) and _free(wire):
        sent = wire.writeSomeData(data)
        # Else it is an error, which the reactor is to meet, as it ends connections.
        if isinstance(sent, int):
            data = data[sent:]
    if data:
        wire.write(data)


def _free(wire: Any) -> bool:
    """
    Return whether nothing is to be sent before, on a connection that is there and not to be dropped.
    """
    return wire.connected and not (wire.dataBuffer or wire._tempDataLen or getattr(wire, "_aborting", False))  # noqa: SLF001


def set_no_delay(wire: Wire) -> None:
    """
    Send small writes at once: SMTP is ping-pong, and Nagle's algorithm makes it wait for acknowledgements.
    """
    setter: Callable[[bool], None] | None = getattr(wire, "setTcpNoDelay", None)  # UNIX sockets have none
    if setter is not None:
        setter(True)


def close(wire: Wire, clock: IReactorTime, closing_seconds: float) -> IDelayedCall:
    """
    Close a connection once everything written is out; drop it if the other side does not take it in time.

    Returns:
        What will drop it, to be cancelled when the connection is gone: else it would keep all that it knows of alive.
    """
    # Under TLS, loseConnection() waits for the producer to leave.
    wire.unregisterProducer()
    wire.loseConnection()
    return clock.callLater(closing_seconds, wire.abortConnection)


def cancel(call: IDelayedCall | None) -> None:
    """
    Cancel what is still to come.
    """
    if call is not None and call.active():
        call.cancel()
