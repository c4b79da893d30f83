"""
TLS toward a backend, where the gate is the client: no peer that is not verified, no name that does not fit.

Chain and name are checked inside the handshake (RFC 9525 section 6; RFC 7817 section 3): a backend that fails never
gets an established connection out of us, whatever the caller forgets.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import idna
from attrs import define, field, validators
from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError as UnusableNamesError
from service_identity import VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from tlsgate.policy.facts import TlsFacts
from tlsgate.tls.connection import GateConnection
from tlsgate.tls.context import CIPHERS, OPTIONS, VERSIONS
from tlsgate.tls.files import read_certificates
from tlsgate.tls.native import verification_phrase
from tlsgate.tls.peer import facts_of

# Whatever the backend can do but hide who it is, or what is said.
LEGACY_CIPHERS = b"ALL:!PSK:!SRP:!aNULL:!eNULL:+kRSA:@SECLEVEL=0"


class BackendTlsError(Exception):
    """
    The backend's TLS is not what was agreed on; *reason* is a short ASCII phrase for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@define
class BackendTrust:
    """
    How a backend proves who it is: *name* (a host name or an IP address) under *ca*, or the system's roots.

    Each certificate in *ca* is trusted by itself, so a self-signed backend's own certificate may stand there.
    *legacy* lets in what an old backend can do, but never one without a certificate.

    Raises:
        CertificateError: The CA file cannot be used.
        ValueError: *name* is neither a host name nor an address.
    """

    name: str
    ca: Path | None = None
    legacy: bool = False
    min_version: str = field(validator=validators.in_(VERSIONS))
    _address: IPv4Address | IPv6Address | None = field(init=False, default=None)
    _context: SSL.Context = field(init=False, repr=False)

    @min_version.default
    def _min_version_default(self) -> str:
        return "TLSv1" if self.legacy else "TLSv1.2"

    def __attrs_post_init__(self) -> None:
        try:
            self._address = ip_address(self.name)
        except ValueError:
            try:
                self.name = idna.encode(self.name.removesuffix("."), uts46=True).decode("ascii")
            except idna.IDNAError as error:
                raise ValueError(f"{self.name!a} is neither a host name nor an IP address: {error}") from error
        self._context = self._build_context()

    def connection(self) -> GateConnection:
        """
        Return our side of a new connection over memory buffers, ready to begin a handshake.
        """
        connection = GateConnection(self._context)
        if self._address is None:
            connection.set_tlsext_host_name(self.name.encode("ascii"))
        connection.set_connect_state()
        return connection

    def verify(self, connection: SSL.Connection) -> TlsFacts:
        """
        Return the facts of an established connection.

        Raises:
            BackendTlsError: The backend has not proved who it is; also when the handshake is not over.
        """
        if connection.get_peer_finished() is None:
            raise BackendTlsError(self.reason(connection, "the handshake is not over"))
        facts = facts_of(connection)
        if facts.certificate is None:
            raise BackendTlsError("the backend has shown no certificate")
        if facts.certificate.fault:
            raise BackendTlsError(facts.certificate.fault)
        return facts

    def reason(self, connection: SSL.Connection, otherwise: str) -> str:
        """
        Return why we ended the handshake on *connection*, or *otherwise* if it was not us.
        """
        return (isinstance(connection, GateConnection) and connection.fault) or otherwise

    def _build_context(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(VERSIONS[self.min_version])
        context.set_cipher_list(LEGACY_CIPHERS if self.legacy else CIPHERS)
        # A server from before RFC 5746 cannot say that it renegotiates safely; we never renegotiate.
        context.set_options(OPTIONS | (SSL.OP_LEGACY_SERVER_CONNECT if self.legacy else 0))
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_PEER, self._check)
        if self.ca is None:
            context.set_default_verify_paths()
            return context
        store = context.get_cert_store()
        assert store is not None  # noqa: S101 - every context has one
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for authority in read_certificates(self.ca):
            store.add_cert(crypto.X509.from_cryptography(authority))
        return context

    def _check(self, connection: SSL.Connection, shown: crypto.X509, code: int, depth: int, ok: int) -> bool:
        if not isinstance(connection, GateConnection):
            return False
        if not ok:
            connection.fault = connection.fault or verification_phrase(code)
        elif depth == 0:
            connection.fault = connection.fault or self._name_fault(shown)
            connection.verified = True
        return not connection.fault

    def _name_fault(self, shown: crypto.X509) -> str:
        try:
            certificate: x509.Certificate = shown.to_cryptography()
            if self._address is None:
                verify_certificate_hostname(certificate, self.name)
            else:
                verify_certificate_ip_address(certificate, self.name)
        except VerificationError:
            return "certificate is for another name"
        except UnusableNamesError:
            return "certificate has no usable name"
        # Somebody else's certificate: the parsers find more ways to complain than they name.
        except Exception:  # noqa: BLE001 - see above
            return "certificate cannot be read"
        return ""
