"""
A TLS connection that remembers what its callbacks have seen.
"""

from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from tlsgate.tls.native import verification_phrase

VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


class GateConnection(SSL.Connection):
    """
    A connection over memory buffers.

    *verified* becomes true when OpenSSL has checked a chain down to the peer's own certificate in this very handshake;
    *fault* is then the first thing it found wrong, if any. *alpn_offered* is what the client proposed.
    """

    verified = False
    fault = ""
    alpn_offered: tuple[bytes, ...] = ()

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)


def noting_faults(anchors: frozenset[bytes] = frozenset()) -> VerifyCallback:
    """
    Return a callback that accepts every chain and notes what is wrong with it.

    Args:
        anchors: The DER of certificates trusted by themselves: whether their own issuer revoked them is not asked.
    """

    def note(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
        if isinstance(connection, GateConnection):
            missing_list = code == SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_CRL
            if not ok and not (missing_list and depth > 0 and _der(certificate) in anchors):
                connection.fault = connection.fault or verification_phrase(code)
            connection.verified = connection.verified or depth == 0
        return True

    return note


def _der(certificate: crypto.X509) -> bytes:
    try:
        return certificate.to_cryptography().public_bytes(Encoding.DER)
    except ValueError:
        return b""
