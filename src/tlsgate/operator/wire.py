"""
A blocking connection to one backend, for the `tlsgate` command and for what must be asked before the reactor runs.

Everything on it is over by one deadline, whatever the other side does or fails to do. TLS runs over memory buffers, so
that OpenSSL never waits for a socket.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from attrs import define, field, frozen
from OpenSSL import SSL

from tlsgate.config.endpoints import backend_address, split
from tlsgate.policy.facts import TlsFacts
from tlsgate.tls.client import BackendTlsError, BackendTrust

# A name may have any number of addresses; a mail server has one or two of each family.
ADDRESSES_MAX = 8

# One address that swallows everything must not use up the time of the others.
CONNECT_SECONDS_MAX = 10.0

_READ_OCTETS = 16_384

Address = tuple[str, int] | tuple[str, int, int, int] | str


class CallError(Exception):
    """
    The backend cannot be talked to, or no longer. *reason* is a short phrase for the operator.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class Deadline:
    """
    The moment by which all must be over, on a monotonic clock.
    """

    at_seconds: float
    _clock: Callable[[], float] = time.monotonic

    @classmethod
    def within(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """
        Return the deadline that is *seconds* away.
        """
        return cls(clock() + seconds, clock)

    def left_seconds(self) -> float:
        """
        Return how long there is still.

        Raises:
            CallError: Nothing is left.
        """
        left = self.at_seconds - self._clock()
        if left <= 0:
            raise CallError("no answer in time")
        return left


@frozen
class Place:
    """
    Where exactly to connect to: one address of an endpoint, and the local address to come from, if that was given.
    """

    family: int
    address: Address
    come_from: str | None = None

    def __str__(self) -> str:
        return self.address if isinstance(self.address, str) else str(self.address[0])


class Wire(Protocol):
    """
    Octets to and from a backend, inside TLS once that was started. All methods raise `CallError`.
    """

    def send(self, data: bytes) -> None:
        """
        Send all of *data*.
        """

    def receive(self) -> bytes:
        """
        Return some octets, none at the end of the connection.
        """

    def start_tls(self, trust: BackendTrust) -> TlsFacts:
        """
        Run a handshake, and return its facts if the backend has proved who it is.
        """

    def ends(self) -> tuple[Address, Address]:
        """
        Return our address and the backend's.
        """


def places(endpoint: str) -> list[Place]:
    """
    Return the addresses that a checked client *endpoint* stands for, none of them twice.

    Raises:
        CallError: Its name has none.
    """
    kind, unnamed, named = split(endpoint)
    if kind == "unix":
        return [Place(socket.AF_UNIX, named["path"] if "path" in named else unnamed[0])]
    host, port = backend_address(endpoint)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CallError(f"{host} has no address: {_phrase(error)}") from error
    come_from = named.get("bindAddress")
    unique = dict.fromkeys((entry[0], entry[4]) for entry in found)
    return [Place(int(family), _address(sockaddr), come_from) for family, sockaddr in unique][:ADDRESSES_MAX]


@contextmanager
def connected(place: Place, deadline: Deadline) -> "Iterator[SocketWire]":
    """
    Connect to *place*, and close the connection at the end.

    Raises:
        CallError: Nobody is there, or not in time.
    """
    try:
        connection = socket.socket(place.family, socket.SOCK_STREAM)
    except OSError as error:
        raise CallError(_phrase(error)) from error
    with connection:
        try:
            if place.come_from is not None:
                connection.bind((place.come_from, 0))
            connection.settimeout(min(deadline.left_seconds(), CONNECT_SECONDS_MAX))
            connection.connect(place.address)
        except OSError as error:
            raise CallError(_phrase(error)) from error
        yield SocketWire(connection, deadline)


@define
class SocketWire:
    """
    The `Wire` over a connected socket.
    """

    _socket: socket.socket
    _deadline: Deadline
    _tls: SSL.Connection | None = field(default=None, init=False)

    def send(self, data: bytes) -> None:
        """
        Send all of *data*.
        """
        if self._tls is None:
            self._put(data)
            return
        try:
            self._tls.sendall(data)
        except SSL.Error as error:
            raise CallError("TLS broke") from error
        self._flush()

    def receive(self) -> bytes:
        """
        Return some octets, none at the end of the connection.
        """
        if self._tls is None:
            return self._get()
        while True:
            try:
                return self._tls.recv(_READ_OCTETS)
            except SSL.WantReadError:
                if not self._feed():
                    return b""
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as error:
                raise CallError("TLS broke") from error

    def start_tls(self, trust: BackendTrust) -> TlsFacts:
        """
        Run a handshake, and return its facts if the backend has proved who it is.
        """
        self._tls = tls = trust.connection()
        try:
            self._shake_hands(tls)
            return trust.verify(tls)
        except SSL.Error as error:
            self._flush()  # the alert that says why
            raise CallError(f"no TLS: {trust.reason(tls, _alert(error))}") from error
        except BackendTlsError as error:
            raise CallError(f"no TLS: {error.reason}") from error

    def ends(self) -> tuple[Address, Address]:
        """
        Return our address and the backend's.
        """
        try:
            return self._socket.getsockname(), self._socket.getpeername()
        except OSError as error:
            raise CallError(_phrase(error)) from error

    def _shake_hands(self, tls: SSL.Connection) -> None:
        while True:
            try:
                tls.do_handshake()
            except SSL.WantReadError:
                self._flush()
                if not self._feed():
                    raise CallError("no TLS: the connection was closed within the handshake") from None
            else:
                self._flush()
                return

    def _flush(self) -> None:
        assert self._tls is not None  # noqa: S101 - only inside TLS
        while True:
            try:
                data = self._tls.bio_read(_READ_OCTETS)
            except SSL.WantReadError:
                return
            self._put(data)

    def _feed(self) -> bool:
        assert self._tls is not None  # noqa: S101 - only inside TLS
        self._flush()
        data = self._get()
        if data:
            self._tls.bio_write(data)
        return bool(data)

    def _put(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._deadline.left_seconds())
            self._socket.sendall(data)
        except OSError as error:
            raise CallError(_phrase(error)) from error

    def _get(self) -> bytes:
        try:
            self._socket.settimeout(self._deadline.left_seconds())
            return self._socket.recv(_READ_OCTETS)
        except OSError as error:
            raise CallError(_phrase(error)) from error


def _address(sockaddr: tuple[object, ...]) -> Address:
    return sockaddr  # type: ignore[return-value]  # for TCP it is one of the two tuples


def _phrase(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _alert(error: SSL.Error) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(entry[-1]) for entry in entries) or "the handshake failed"
