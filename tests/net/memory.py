"""
A network in memory: Twisted's own transports, its TLS among them, with everything below the system call replaced.

Buffers, producers, the order of closing: all of that is Twisted's. What is ours here is a kernel that takes as many
octets as the far end has room for, and a reactor whose time is the test's.
"""

from typing import Any

from attrs import define, field
from twisted.internet import main
from twisted.internet._newtls import ClientMixin, ConnectionMixin, ServerMixin
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import deferLater
from twisted.internet.tcp import _AbortingMixin
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

ROUNDS_MAX = 20_000
READ_OCTETS = 65_536  # what one read of Twisted's takes

UNLIMITED = 1 << 62


@define(eq=False)
class End:
    """
    The far end of a connection: what arrived there, what is on its way from there, and how much more it takes.
    """

    heard: bytearray = field(factory=bytearray)
    sending: bytearray = field(factory=bytearray)
    room: int = UNLIMITED  # octets that the network takes before it is full
    closing: Failure | None = None  # closed by the far end, once all that it sends has arrived
    closed: bool = False  # closed by our end
    aborted: bool = False

    def close(self) -> None:
        """
        Close in order: for both directions or one, which is the same from afar.
        """
        self.closing = Failure(main.CONNECTION_DONE)

    def reset(self) -> None:
        """
        Be gone.
        """
        self.closing = Failure(ConnectionLost())


class _Wire(_AbortingMixin, ConnectionMixin, FileDescriptor):  # type: ignore[misc]  # as in twisted.internet.tcp
    """
    Our end of a connection.
    """

    def __init__(self, reactor: "Network", peer: IPv4Address | IPv6Address | UNIXAddress, end: End) -> None:
        super().__init__(reactor)  # type: ignore[arg-type]
        self.connected = 1
        self.protocol: Any = None
        self.end = end
        self._peer = peer

    def begin(self, protocol: Any) -> None:
        self.protocol = protocol
        self.startReading()
        protocol.makeConnection(self)

    def writeSomeData(self, data: bytes) -> int:
        taken = min(len(data), self.end.room)
        self.end.heard += data[:taken]
        self.end.room -= taken
        return taken

    def doRead(self) -> Failure | None:
        data = bytes(self.end.sending[:READ_OCTETS])
        del self.end.sending[:READ_OCTETS]
        if data:
            self.protocol.dataReceived(data)
            return None
        return self.end.closing

    def connectionLost(self, reason: Failure) -> None:
        if self.disconnected:
            return
        super().connectionLost(reason)
        self.end.closed = True
        self.end.aborted = reason.check(ConnectionAborted) is not None
        protocol, self.protocol = self.protocol, None
        protocol.connectionLost(reason)

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 - Twisted's signature
        """
        Nothing waits here.
        """

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        return self._peer

    def getHost(self) -> IPv4Address | IPv6Address:
        return IPv4Address("TCP", "198.51.100.1", 25)


class _Accepted(ServerMixin, _Wire):
    pass


class _Dialled(ClientMixin, _Wire):
    pass


class Network(MemoryReactorClock):  # type: ignore[misc]
    """
    A reactor whose sockets are in memory and whose clock is the test's.

    Who listens where is in *answers*: port -> whether and how a connection is to be had; *dialled* has the far ends of
    the connections made, and *ports* the port of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wires: list[_Wire] = []
        self.answers: dict[int, str] = {}  # "accept", "refuse"; anything else: no answer at all
        self.dialled: list[tuple[int, End]] = []
        self.bound: set[int] = set()
        self._asked = 0

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """
        Listen; as with a real socket, the port is free again in the turn after it was closed.
        """
        if port in self.bound:
            raise CannotListenError(interface, port, OSError("Address already in use"))
        self.bound.add(port)
        listening = super().listenTCP(port, factory, backlog, interface)
        listening.stopListening = lambda: deferLater(self, 0, self.bound.discard, port)
        return listening

    def accept(self, factory: Any, peer: IPv4Address | IPv6Address | UNIXAddress) -> End:
        """
        Connect to the listening *factory*; return the far end.
        """
        end = End()
        wire = _Accepted(self, peer, end)
        self.wires.append(wire)
        wire.begin(factory.buildProtocol(peer))
        return end

    def settle(self, seconds: float = 0) -> None:
        """
        Let *seconds* pass, then let everything happen that happens without more time passing.
        """
        self.advance(seconds)
        for _ in range(ROUNDS_MAX):
            if not (self._dial() | self._move()):
                due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
                if not due:
                    return
                self.advance(0)
        raise AssertionError("it goes on and on")

    def _dial(self) -> bool:
        news = self.tcpClients[self._asked :]
        connectors = self.connectors[self._asked :]
        self._asked += len(news)
        for (_, port, factory, _timeout, _bind), connector in zip(news, connectors, strict=True):
            answer = self.answers.get(port, "silence")
            if answer == "refuse":
                factory.clientConnectionFailed(connector, Failure(main.CONNECTION_LOST))
            elif answer == "accept" and not connector.stoppedConnecting:
                end = End()
                peer = IPv4Address("TCP", "127.0.0.1", port)
                wire = _Dialled(self, peer, end)
                self.wires.append(wire)
                self.dialled.append((port, end))
                wire.begin(factory.buildProtocol(peer))
        return bool(news)

    def _move(self) -> bool:
        moved = False
        for wire in list(self.wires):
            if wire.disconnected:
                self.wires.remove(wire)
                continue
            moved |= self._write(wire) | self._read(wire)
        return moved

    def _write(self, wire: _Wire) -> bool:
        if wire not in self.writers or (not wire.end.room and (wire.dataBuffer or wire._tempDataLen)):
            return False
        why = wire.doWrite()
        if why is not None:
            wire.connectionLost(Failure(why))
        return True

    def _read(self, wire: _Wire) -> bool:
        if wire not in self.readers or not (wire.end.sending or wire.end.closing):
            return False
        why = wire.doRead()
        if why is not None:
            self.removeReader(wire)
            half = IHalfCloseableProtocol(wire.protocol, None)
            if half is not None and why.check(ConnectionDone):
                half.readConnectionLost()
            else:
                wire.connectionLost(why)
        return True
