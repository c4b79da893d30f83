"""
Connect to a backend from the client's own address, so that the backend needs no protocol to be told who the client is.

Linux lets a socket have a foreign address if it is made transparent (IP_TRANSPARENT, IPV6_TRANSPARENT), which takes
CAP_NET_ADMIN or CAP_NET_RAW; that the backend's answers come back here is a matter of routing (docs/transparent.md).

Whatever is missing for that, there is no connection: one from our own address would be taken for a client of ours.
"""

import errno
import os
import socket
from collections.abc import Generator
from ipaddress import IPv4Network, ip_address
from typing import Any

from attrs import define, field, frozen
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.tcp import Client, Connector
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.net.proxy_protocol import Address, normalized

# Of linux/in.h and linux/in6.h; Python knows the first one from 3.11 on, if the C library does.
IP_TRANSPARENT = 19
IP_BIND_ADDRESS_NO_PORT = 24
IPV6_TRANSPARENT = 75

_BROADCAST = IPv4Network("0.0.0.0/0").broadcast_address
_TIMED_OUT = "no answer; see that what the backend sends to clients is routed back through this machine"
_REASONS = {
    errno.EPERM: "a connection from the client's address needs CAP_NET_ADMIN or CAP_NET_RAW",
    errno.EADDRNOTAVAIL: "nobody can connect from the client's address, or all its ports to the backend are taken",
    errno.ENOPROTOOPT: "this system cannot connect from a client's address",
}


class _TransparentClient(Client):
    """
    A transport whose socket has a foreign address.
    """

    def createInternetSocket(self) -> socket.socket:
        """
        Return a socket bound to the address of the client.
        """
        created: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        try:
            self._become(created, str(self.connector.source))
        except OSError as refused:
            created.close()
            raise OSError(refused.errno, _reason(refused)) from refused
        return created

    def _become(self, created: socket.socket, source: str) -> None:
        if created.family == socket.AF_INET6:
            created.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            created.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        # The port is chosen when the backend's address is known: otherwise each of the client's ports could be used
        # for one backend only.
        created.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        created.bind((source, 0))


class _TransparentConnector(Connector):
    """
    Makes such a transport, and hands it on only if it has come from that address.
    """

    source: Address

    # Private in name, but what Twisted's own connectors override.
    def _makeTransport(self) -> Client:
        return _TransparentClient(self.host, self.port, None, self, self.reactor)  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """
        Return the protocol of a connection just made, `None` to close it.
        """
        # Linux takes "bind" to an address that is none (a broadcast address, say) for a wish to come from any of ours.
        assert self.transport is not None  # noqa: S101 - it has just connected
        ours = normalized(ip_address(self.transport.getHost().host))
        if ours == self.source:
            return super().buildProtocol(addr)
        self.cancelTimeout()
        self.factory.clientConnectionFailed(
            self, Failure(error.ConnectError(string=f"the connection came from {ours}, not from {self.source}"))
        )
        return None


@frozen
class _TransparentTcp:
    """
    The part of a reactor that Twisted's TCP endpoints use.
    """

    reactor: Any
    source: Address

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: None = None,
    ) -> Connector:
        """
        Connect, as `IReactorTCP.connectTCP` does.
        """
        connector = _TransparentConnector(host, port, factory, timeout, bindAddress, self.reactor)
        connector.source = self.source
        connector.connect()
        return connector


@implementer(IResolutionReceiver)
@define
class _Addresses:
    """
    Collects the addresses of a name.
    """

    done: "Deferred[list[str]]" = field(factory=Deferred)
    _found: list[str] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        A lookup begins.
        """

    def addressResolved(self, address: IAddress) -> None:
        """
        One more address is known.
        """
        assert isinstance(address, IPv4Address | IPv6Address)  # noqa: S101 - no others are asked for
        self._found.append(address.host)

    def resolutionComplete(self) -> None:
        """
        There are no more.
        """
        self.done.callback(self._found)


@implementer(IStreamClientEndpoint)
@frozen
class TransparentEndpoint:
    """
    A backend at *host* (an address, or a name with some) and *port*, connected to from the address *source*.
    """

    reactor: Any
    host: str
    port: int
    source: Address = field(converter=normalized)
    timeout_seconds: float = 30

    @inlineCallbacks
    def connect(self, protocolFactory: IProtocolFactory) -> "Generator[Deferred[Any], Any, IProtocol]":
        """
        Connect at the first of the backend's addresses, of the client's family, that answers.

        Raises:
            ConnectError: There is no such address, none answers, or nobody may connect from the client's.
        """
        if not _can_be_a_source(self.source):
            raise error.ConnectError(string=f"nobody can connect from {self.source}")
        hosts = yield self._hosts()
        failure: Exception = error.ConnectError(
            string=f"{self.host} has no IPv{self.source.version} address, as the client has"
        )
        for host in hosts:
            try:
                protocol: IProtocol = yield self._endpoint(host).connect(protocolFactory)
            except (error.TimeoutError, error.TCPTimedOutError):
                failure = error.TimeoutError(string=_TIMED_OUT)
            except error.ConnectBindError:
                raise  # the same would happen at the next address
            except error.ConnectError as unreachable:
                failure = unreachable
            else:
                return protocol
        raise failure

    def _hosts(self) -> "Deferred[list[str]]":
        try:
            literal = normalized(ip_address(self.host))
        except ValueError:
            wanted = IPv4Address if self.source.version == 4 else IPv6Address
            addresses = _Addresses()
            self.reactor.nameResolver.resolveHostName(addresses, self.host, self.port, [wanted])
            return addresses.done
        return succeed([str(literal)] if literal.version == self.source.version else [])

    def _endpoint(self, host: str) -> IStreamClientEndpoint:
        kind = TCP4ClientEndpoint if self.source.version == 4 else TCP6ClientEndpoint
        return kind(_TransparentTcp(self.reactor, self.source), host, self.port, self.timeout_seconds)


def _can_be_a_source(address: Address) -> bool:
    # What a balancer says of a client may be anything.
    return not (address.is_multicast or address.is_unspecified or address == _BROADCAST)


def _reason(refused: OSError) -> str:
    return _REASONS.get(refused.errno or 0, os.strerror(refused.errno or 0))
