"""
The endpoint that connects from a client's address: what it refuses before, and after, it has connected.

That a backend on another machine sees the client is shown in tests/integration/test_transparent.py.
"""

import os
import socket
from ipaddress import ip_address

import pytest
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tlsgate.net.transparent import IP_TRANSPARENT, TransparentEndpoint


def has_capability() -> bool:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        except OSError:
            return False
        return True


needs_capability = pytest.mark.skipif(
    not has_capability() and not os.environ.get("CI"), reason="CAP_NET_ADMIN or CAP_NET_RAW is needed"
)


@define
class Backend(Factory):
    """
    Counts its connections by where they came from.
    """

    noisy = False
    seen: list[str] = field(factory=list)
    gone: Deferred[None] = field(factory=Deferred)

    def buildProtocol(self, addr: object) -> Protocol:
        self.seen.append(addr.host)  # type: ignore[attr-defined]
        backend = self

        class Connection(Protocol):
            def connectionLost(self, reason: object = None) -> None:
                if not backend.gone.called:
                    backend.gone.callback(None)

        return Connection()


class TransparentEndpointTests(TestCase):
    def setUp(self) -> None:
        self.backend = Backend()
        self.port = IReactorTCP(reactor).listenTCP(0, self.backend, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    def connect(self, source: str, host: str = "127.0.0.1", port: int | None = None) -> "Deferred[Protocol]":
        number = self.port.getHost().port if port is None else port
        endpoint = TransparentEndpoint(reactor, host, number, ip_address(source), 30)
        return endpoint.connect(Factory.forProtocol(Protocol))

    def refused(self, reason: str, source: str, host: str = "127.0.0.1") -> "Deferred[object]":
        def check(error: Exception) -> None:
            self.assertIn(reason, str(error))
            self.assertEqual([], self.backend.seen)

        return self.assertFailure(self.connect(source, host), ConnectError).addCallback(check)

    @needs_capability
    def test_the_backend_sees_the_source(self) -> "Deferred[None]":
        def connected(protocol: Protocol) -> "Deferred[None]":
            self.assertEqual(["127.0.0.55"], self.backend.seen)
            self.assertEqual("127.0.0.55", protocol.transport.getHost().host)
            protocol.transport.loseConnection()
            return self.backend.gone

        return self.connect("127.0.0.55").addCallback(connected)

    @needs_capability
    def test_an_ipv4_client_in_ipv6_notation_is_an_ipv4_client(self) -> "Deferred[None]":
        def connected(protocol: Protocol) -> "Deferred[None]":
            self.assertEqual(["127.0.0.56"], self.backend.seen)
            protocol.transport.loseConnection()
            return self.backend.gone

        return self.connect("::ffff:127.0.0.56", "localhost").addCallback(connected)

    def test_a_client_of_the_other_family_is_refused(self) -> "Deferred[object]":
        """
        Fail closed: no connection is better than one from our own address.
        """
        return self.refused("127.0.0.1 has no IPv6 address, as the client has", "2001:db8::7")

    def test_so_is_an_ipv4_client_of_an_ipv6_backend(self) -> "Deferred[object]":
        return self.refused("::1 has no IPv4 address, as the client has", "192.0.2.7", "::1")

    def test_a_name_without_an_address_is_refused(self) -> "Deferred[object]":
        return self.refused("nowhere.invalid has no IPv4 address", "192.0.2.7", "nowhere.invalid")

    def test_what_cannot_be_a_client_is_refused(self) -> "Deferred[object]":
        """
        Linux would take each of these for "any of our own addresses".
        """
        waiting: Deferred[object] = Deferred()
        for source in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.250"):
            waiting.addCallback(lambda _, source=source: self.refused(f"nobody can connect from {source}", source))
        waiting.addCallback(lambda _: self.refused("nobody can connect from ::", "::", "::1"))
        waiting.callback(None)
        return waiting

    @needs_capability
    def test_a_connection_that_came_from_another_address_is_not_handed_on(self) -> "Deferred[None]":
        """
        The broadcast address of a network of ours cannot be told by looking at it; that the kernel took our own can.
        """

        def check(error: Exception) -> "Deferred[None]":
            self.assertIn("the connection came from 127.0.0.1, not from 127.255.255.255", str(error))
            return self.backend.gone

        return self.assertFailure(self.connect("127.255.255.255"), ConnectError).addCallback(check)

    @needs_capability
    def test_a_backend_that_is_down_is_said_so(self) -> "Deferred[object]":
        with socket.create_server(("127.0.0.1", 0)) as closed:
            number = closed.getsockname()[1]
        return self.assertFailure(self.connect("127.0.0.5", port=number), Refused)

    def test_an_attempt_can_be_cancelled(self) -> "Deferred[object]":
        attempt = self.connect("127.0.0.5", "localhost")
        attempt.cancel()
        return self.assertFailure(attempt, CancelledError)
