"""
What is sent at once, what waits for room, and what is never sent: on Twisted's transport over a real socket.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import main
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport

from tlsgate.net.wire import send

LARGE = bytes(range(256)) * 40_000  # more than a socket takes


class Reactor(Clock):
    """
    A reactor that knows who wants to write, and asks nobody.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.writers: set[object] = set()

    def addWriter(self, writer: object) -> None:
        """
        Take note.
        """
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        """
        Forget.
        """
        self.writers.discard(writer)

    def removeReader(self, reader: object) -> None:
        """
        Nobody reads here.
        """


@define(eq=False)
class Pair:
    """
    Our end of a connection, and the socket at the far end.
    """

    reactor: Reactor
    wire: Any
    far: socket.socket
    paused: list[bool] = field(factory=list)

    def heard(self, octets: int) -> bytes:
        """
        Return so many octets that have arrived, while our end writes whenever it wants to.
        """
        heard = b""
        for _ in range(100_000):
            if len(heard) >= octets:
                break
            if self.wire in self.reactor.writers:
                assert self.wire.doWrite() is None
            heard += self.far.recv(1 << 20)
        return heard

    def silent(self) -> bool:
        """
        Return whether nothing has arrived.
        """
        self.far.setblocking(False)
        try:
            return self.far.recv(1) == b""
        except BlockingIOError:
            return True

    # A producer, as Twisted knows them.

    def pauseProducing(self) -> None:
        self.paused.append(True)

    def resumeProducing(self) -> None:
        self.paused.append(False)

    def stopProducing(self) -> None:
        pass


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        far.settimeout(20)
        reactor = Reactor()
        wire = Connection(near, Protocol(), reactor)  # type: ignore[arg-type]
        wire.connected = 1
        yield Pair(reactor, wire, far)


def test_it_goes_out_at_once(pair: Pair) -> None:
    send(pair.wire, b"220 mx\r\n")
    assert not pair.reactor.writers
    assert pair.far.recv(100) == b"220 mx\r\n"


def test_nothing_overtakes_what_waits_for_room(pair: Pair) -> None:
    pair.wire.registerProducer(pair, True)
    for data in (b"first", LARGE, b"in between", LARGE, b"last"):
        send(pair.wire, data)
    assert pair.paused == [True, True, True, True], "who says more is told that there is no room"
    everything = b"first" + LARGE + b"in between" + LARGE + b"last"
    assert pair.heard(len(everything)) == everything
    assert not pair.reactor.writers
    assert pair.paused[-1] is False
    send(pair.wire, b"and more")
    assert not pair.reactor.writers
    assert pair.heard(8) == b"and more"


def test_who_is_gone_is_met_by_the_reactor(pair: Pair) -> None:
    """
    It ends connections; nobody else is told so in the middle of a write.
    """
    pair.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.far.close()
    send(pair.wire, b"250 OK\r\n")
    assert pair.reactor.writers == {pair.wire}
    assert pair.wire.doWrite() is main.CONNECTION_LOST


def test_nothing_goes_to_whom_is_dropped(pair: Pair) -> None:
    """
    Half a message must not become a whole one by what is said behind it.
    """
    pair.wire.abortConnection()
    send(pair.wire, b".\r\n")
    assert pair.silent()


@pytest.mark.parametrize("state", ["gone", "not there yet"])
def test_nothing_goes_where_there_is_no_connection(pair: Pair, state: str) -> None:
    pair.wire.connected = 0
    pair.wire.disconnected = state == "gone"
    send(pair.wire, b"250 OK\r\n")
    assert pair.silent()


def test_a_last_word_is_sent_before_the_end(pair: Pair) -> None:
    """
    Closing in order: what is said until the reactor's next turn still goes out, as with Twisted's own write().
    """
    pair.wire.loseConnection()
    send(pair.wire, b"221 Bye\r\n")
    assert pair.far.recv(100) == b"221 Bye\r\n"
    assert pair.reactor.writers == {pair.wire}
    assert pair.wire.doWrite() is main.CONNECTION_DONE


def test_nothing_is_nothing(pair: Pair) -> None:
    send(pair.wire, b"")
    assert not pair.reactor.writers
    assert pair.silent()


def test_other_transports_send_in_their_own_way() -> None:
    """
    One with TLS has its own connection beneath.
    """
    transport = StringTransport()
    send(transport, b"220 ")  # type: ignore[arg-type]
    send(transport, b"mx\r\n")  # type: ignore[arg-type]
    assert transport.value() == b"220 mx\r\n"
