"""
A TLS connection that remembers what its callbacks have seen.
"""

from collections.abc import Callable

from OpenSSL import SSL, crypto

from tlsgate.tls.native import verification_phrase
from tlsgate.tls.strength import key_fault, signature_fault

# X509_V_ERR_..., which pyOpenSSL has no names for.
EE_KEY_TOO_SMALL, CA_KEY_TOO_SMALL, CA_MD_TOO_WEAK = 66, 67, 68

UNREADABLE = "certificate cannot be read"

VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


class AlpnMismatchError(SSL.Error):
    """
    The client speaks another protocol than SMTP, and was sent the alert no_application_protocol (RFC 7301 section 3.2).
    """


class UnknownNameError(SSL.Error):
    """
    The client asked for a name that is not served, and was sent the alert unrecognized_name (RFC 6066 section 3).
    """


class GateConnection(SSL.Connection):
    """
    A connection over memory buffers.

    *verified* becomes true when OpenSSL has checked a chain down to the peer's own certificate in this very handshake;
    *fault* is then the first thing it found wrong, if any. *alpn_offered* is what the client proposed,
    *name_refused* whether the name it asked for ended the handshake.
    """

    verified = False
    fault = ""
    alpn_offered: tuple[bytes, ...] = ()
    name_refused = False

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        # OpenSSL calls back through the first context even after another was chosen by name, and the callbacks live
        # only as long as that context's Python object, which a reload lets go.
        self._first_context = context

    def do_handshake(self) -> None:
        """
        Go on with the handshake, as far as what has arrived allows.

        Raises:
            SSL.WantReadError: More is needed.
            SSL.Error: The handshake has failed; see the two subclasses above for what is ours.
        """
        try:
            super().do_handshake()
        except SSL.Error as error:
            if self.name_refused:
                raise UnknownNameError([("tlsgate", "", "unrecognized name")]) from error
            raise


def noting_faults(anchors: frozenset[bytes] = frozenset()) -> VerifyCallback:
    """
    Return a callback that accepts every chain and notes what is wrong with it.

    Args:
        anchors: The DER of certificates trusted by themselves: whether their own issuer revoked them is not asked, nor
            how it signed.
    """

    def note(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
        if isinstance(connection, GateConnection):
            anchor = _der(certificate) in anchors
            if ok:
                connection.fault = connection.fault or _weakness(certificate, depth, anchor)
            elif not (code == SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_CRL and depth > 0 and anchor):
                connection.fault = connection.fault or verification_phrase(code)
            connection.verified = connection.verified or depth == 0
        return True

    return note


def _weakness(shown: crypto.X509, depth: int, anchor: bool) -> str:  # noqa: FBT001 - a fact about the certificate
    """
    Return what OpenSSL would say of a certificate that is too weak, had its own bar not gone down with a lowered floor.
    """
    try:
        certificate = shown.to_cryptography()
        if key_fault(certificate.public_key()):
            return verification_phrase(CA_KEY_TOO_SMALL if depth else EE_KEY_TOO_SMALL)
        if not anchor and signature_fault(certificate):
            return verification_phrase(CA_MD_TOO_WEAK)
    # The client wrote it: the library's parsers find more ways to complain than it names, and each means the same.
    except Exception:  # noqa: BLE001 - see above
        return UNREADABLE
    return ""


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
