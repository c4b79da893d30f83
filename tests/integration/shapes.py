"""
The shapes that TLS clients come in, for handshakes over real wires.

Most are played by Python's own `ssl`, which can still be as weak as anybody; the post-quantum hybrid is beyond its
OpenSSL, and played by pyOpenSSL.
"""

import socket
import ssl
import warnings
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field, frozen
from OpenSSL import SSL

from tests.integration.wire import REPLY_SECONDS
from tests.support.certificates import Issued


@frozen
class Shape:
    """
    What a TLS client offers, and the certificate it shows when asked. *version* is both the least and the most.
    """

    version: ssl.TLSVersion
    ciphers: str = "DEFAULT"
    group: str | None = None
    certificate: str | None = None

    def context(self, authority: Path, certificates: dict[str, "Shown"]) -> ssl.SSLContext:
        """
        Return a context of this shape that believes *authority*.
        """
        context = ssl.create_default_context(cafile=authority)
        context.set_ciphers(f"{self.ciphers}:@SECLEVEL=0")
        with warnings.catch_warnings():
            # Old versions are deprecated, and the point here.
            warnings.simplefilter("ignore", DeprecationWarning)
            # In this order: the least is never above the most.
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = self.version
            context.minimum_version = self.version
        if self.group is not None:
            context.set_ecdh_curve(self.group)
        if self.certificate is not None:
            shown = certificates[self.certificate]
            context.load_cert_chain(shown.chain, shown.key)
        return context


@frozen
class Shown:
    """
    A client certificate on disk.
    """

    chain: Path
    key: Path

    @classmethod
    def written(cls, issued: Issued, folder: Path, name: str) -> "Shown":
        """
        Return *issued*, written below *folder*.
        """
        files = issued.write(folder, name)
        return cls(files.chain, files.key)


@define
class OpenedSocket:
    """
    A pyOpenSSL connection as far as a `Wire` uses a socket.
    """

    connection: SSL.Connection
    _socket: socket.socket

    def sendall(self, octets: bytes) -> None:
        self.connection.sendall(octets)

    def recv(self, octets_max: int) -> bytes:
        try:
            return self.connection.recv(octets_max)
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as error:
            raise ConnectionResetError(str(error)) from error

    def close(self) -> None:
        self._socket.close()


@define
class Hybrid:
    """
    A client with the newest OpenSSL there is, which leads with X25519MLKEM768. Stands in for an `ssl.SSLContext`.
    """

    authority: Path
    sni: Sequence[bytes] = ()
    context: SSL.Context = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.load_verify_locations(str(self.authority))
        self.context.set_verify(SSL.VERIFY_PEER, lambda *verdict: bool(verdict[-1]))

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> OpenedSocket:
        # pyOpenSSL knows no timeouts of its own, and a socket with one is not blocking to it.
        plain.settimeout(None)
        seconds = int(REPLY_SECONDS).to_bytes(8, "little") + bytes(8)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        connection = SSL.Connection(self.context, plain)
        connection.set_connect_state()
        connection.do_handshake()
        return OpenedSocket(connection, plain)
