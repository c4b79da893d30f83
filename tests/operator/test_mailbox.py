"""
The mailbox on the wire: timeouts, bounds, and back-pressure.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from twisted.internet.address import IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tlsgate.operator.mailbox import CLOSE_SECONDS, Mailbox, MailboxFactory, Settings
from tlsgate.operator.maildir import Maildir, Stored

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GREETING = b"220 mailbox.example ESMTP mailbox\r\n"
MESSAGE = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nhello\r\n.\r\n"


class Wire(StringTransport):
    """
    A TCP transport in memory.
    """

    def setTcpNoDelay(self, enabled: object) -> None:
        self.no_delay = enabled


class House:
    """
    A mailbox, its clock, and connections to it.
    """

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.stored: list[Stored] = []
        self.maildir = Maildir(folder, "mailbox.example", lambda: NOON)
        self.maildir.prepare()
        settings = Settings(sessions_max=2, idle_timeout_seconds=300.0)
        self.factory = MailboxFactory(self.maildir, self.clock, self.stored.append, settings)

    def connect(self) -> tuple[Mailbox, Wire]:
        protocol = self.factory.buildProtocol(None)
        wire = Wire(peerAddress=IPv6Address("TCP", "::1", 4321))
        protocol.makeConnection(wire)
        return protocol, wire


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "Maildir")


def test_a_message_is_stored_and_told_of(house: House) -> None:
    protocol, wire = house.connect()
    protocol.dataReceived(MESSAGE + b"QUIT\r\n")
    assert wire.value().startswith(GREETING)
    assert wire.value().endswith(b"250 2.0.0 Message stored\r\n221 2.0.0 Closing the connection\r\n")
    assert wire.disconnecting
    (stored,) = house.stored
    assert stored.path.read_bytes().endswith(b"\r\nhello\r\n")
    assert b"Received: from x ([IPv6:::1])\r\n" in stored.path.read_bytes()


def test_an_idle_client_is_told_and_left(house: House) -> None:
    protocol, wire = house.connect()
    house.clock.advance(299)
    protocol.dataReceived(b"NOOP\r\n")
    house.clock.advance(299)
    assert not wire.disconnecting
    house.clock.advance(1)
    assert wire.value().endswith(b"421 4.4.2 Timeout, closing the connection\r\n")
    assert wire.disconnecting


def test_a_client_that_does_not_take_the_last_reply_is_cut_off(house: House) -> None:
    protocol, wire = house.connect()
    protocol.dataReceived(b"QUIT\r\n")
    house.clock.advance(CLOSE_SECONDS - 1)
    assert not wire.disconnected
    house.clock.advance(1)
    assert wire.disconnected


def test_an_idle_client_that_takes_nothing_is_cut_off(house: House) -> None:
    _protocol, wire = house.connect()
    house.clock.advance(300)
    house.clock.advance(CLOSE_SECONDS)
    assert wire.disconnected


def test_a_connection_that_is_gone_leaves_neither_timer_nor_file(house: House) -> None:
    protocol, _wire = house.connect()
    protocol.dataReceived(MESSAGE[:-3])
    protocol.connectionLost(Failure(ConnectionDone()))
    assert house.clock.getDelayedCalls() == []
    assert list((house.maildir.folder / "tmp").iterdir()) == []
    assert house.factory.sessions == set()


def test_one_session_too_many_is_turned_away_until_another_ends(house: House) -> None:
    (first, _), _second = house.connect(), house.connect()
    third, wire = house.connect()
    assert wire.value() == b"421 4.7.0 Too many sessions, try again later\r\n"
    assert wire.disconnecting
    for protocol in (first, third):
        protocol.connectionLost(Failure(ConnectionDone()))
    assert house.connect()[1].value() == GREETING


def test_a_client_that_does_not_take_its_replies_is_read_no_more(house: House) -> None:
    """
    The transport pauses its producer, which is the protocol, once the write buffer is full.
    """
    protocol, wire = house.connect()
    assert wire.producer is protocol
    assert wire.streaming
    protocol.pauseProducing()
    assert wire.producerState == "paused"
    protocol.resumeProducing()
    assert wire.producerState == "producing"


def test_the_producer_is_gone_before_the_close(house: House) -> None:
    """
    A paused producer would hold up the close.
    """
    protocol, wire = house.connect()
    protocol.dataReceived(b"QUIT\r\n")
    assert wire.producer is None


def test_what_comes_behind_the_last_reply_is_ignored(house: House) -> None:
    protocol, wire = house.connect()
    protocol.dataReceived(b"QUIT\r\n")
    wire.clear()
    protocol.dataReceived(MESSAGE)
    assert wire.value() == b""
    assert house.stored == []
