"""
What a handshake has achieved, as the law wants to see it.

A client's certificate is anything a client can put into ASN.1. Whatever it is, `facts_of` returns facts.
"""

import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto

from tlsgate.policy.facts import CertificateFacts, TlsFacts
from tlsgate.tls.connection import UNREADABLE, GateConnection
from tlsgate.tls.names import normalized, printable
from tlsgate.tls.native import session_reused

SUBJECT_OCTETS_MAX = 256
NAME_OCTETS_MAX = 255
ALPN_OCTETS_MAX = 64

# More than any public authority puts into one certificate; OpenSSL itself stops reading a chain at 100 KiB.
NAMES_MAX = 1000

NOT_VERIFIED = "certificate was not verified"

# What is no host name is left out, not escaped or cut: it must never come to look like somebody else's name.
_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def facts_of(connection: SSL.Connection) -> TlsFacts:
    """
    Return the facts of an established connection, seen from either side.
    """
    cipher = connection.get_cipher_name()
    return TlsFacts(
        version=connection.get_protocol_version_name(),
        cipher=cipher or "",
        bits=connection.get_cipher_bits() or 0,
        group=(connection.get_group_name() or "") if cipher else "",
        sni=printable((connection.get_servername() or b"").decode("latin-1"), NAME_OCTETS_MAX),
        alpn=_alpn(connection),
        resumed=session_reused(connection),
        certificate=_certificate_facts(connection),
    )


def _alpn(connection: SSL.Connection) -> str:
    # Where nothing was agreed on, what the client proposed says whom it took us for.
    agreed = connection.get_alpn_proto_negotiated()
    offered = connection.alpn_offered if isinstance(connection, GateConnection) else ()
    return printable((agreed or b",".join(offered)).decode("latin-1"), ALPN_OCTETS_MAX)


def _certificate_facts(connection: SSL.Connection) -> CertificateFacts | None:
    shown = connection.get_peer_certificate()
    if shown is None:
        return None
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)
    fault = _fault(connection)
    sha256 = hashlib.sha256(der).hexdigest()
    try:
        return _read(der, sha256, fault)
    # The client wrote it: the library's parsers find more ways to complain than it names, and each means the same.
    except Exception:  # noqa: BLE001 - see above
        return CertificateFacts("", (), (), sha256, "", fault or UNREADABLE)


def _fault(connection: SSL.Connection) -> str:
    # Only this handshake's own verification counts: a resumed session has none.
    if isinstance(connection, GateConnection) and (connection.fault or connection.verified):
        return connection.fault
    return NOT_VERIFIED


def _read(der: bytes, sha256: str, fault: str) -> CertificateFacts:
    certificate = x509.load_der_x509_certificate(der)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    hosts = (normalized(name) for name in names.get_values_for_type(x509.DNSName))
    return CertificateFacts(
        subject=printable(certificate.subject.rfc4514_string(), SUBJECT_OCTETS_MAX),
        dns_names=tuple(host for host in hosts if len(host) <= NAME_OCTETS_MAX and _HOST_PATTERN.fullmatch(host))[
            :NAMES_MAX
        ],
        ip_addresses=tuple(str(address) for address in names.get_values_for_type(x509.IPAddress))[:NAMES_MAX],
        certificate_sha256=sha256,
        public_key_sha256=hashlib.sha256(key).hexdigest(),
        fault=fault,
    )
