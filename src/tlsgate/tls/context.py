"""
The OpenSSL contexts the gate serves with: what may be negotiated, and with which certificates.

The floor is RFC 9325's MUST NOTs, not a policy: whom it turns away gets an alert he cannot read, so what is merely
discouraged is let in here, and refused by a level in words. `TlsTerms.legacy` lowers it to all that OpenSSL can do.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tlsgate.tls.certificates import CertificateError, CertificateFiles, Credential
from tlsgate.tls.connection import AlpnMismatchError, GateConnection
from tlsgate.tls.native import set_server_name_callback
from tlsgate.tls.trust import ClientTrust

VERSIONS = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}

CIPHERS = b"DEFAULT:@SECLEVEL=2"

# The server's order counts, so a client that can do better never ends up with less: static RSA behind all that is
# forward secret, anonymous suites behind all that show a certificate, and no encryption at all (NULL) last. "DEFAULT"
# would bar the last two for good, and "ALL" alone would put anonymous AES-256 before ECDHE with AES-128.
LEGACY_CIPHERS = b"ALL:!PSK:!SRP:+kRSA:+aNULL:COMPLEMENTOFALL:!PSK:@SECLEVEL=0"

# Anonymous suites of the time before elliptic curves need a finite field group: ffdhe2048 of RFC 7919.
LEGACY_DH_GROUP = Path(__file__).with_name("ffdhe2048.pem")

# RFC 9325 section 3.4 wants a limited validity. Mail comes in bursts: what is later than this is another delivery.
TICKET_SECONDS = 7200

OPTIONS = SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION

SMTP = b"smtp"  # RFC 9325 section 3.8 asks for ALPN; "smtp" is the name registered with IANA


@frozen
class TlsTerms:
    """
    What an operator asks of the TLS side; files are named here, not read.

    *alpn*: "off", "report" (an alien protocol is noted), "reject" (it meets an alert). *unknown_sni*: "default" (the
    first certificate answers), "reject" (an alert). A client certificate is never asked for unless
    *request_client_certificate* (RFC 8314 section 4.2); sessions are then not resumed, whatever *resumption* says.
    """

    certificates: tuple[CertificateFiles, ...]
    floor: str = field(default="TLSv1.2", validator=validators.in_(VERSIONS))
    legacy: bool = False
    client_ca: Path | None = None
    client_crls: tuple[Path, ...] = ()
    request_client_certificate: bool = False
    alpn: str = field(default="report", validator=validators.in_(("off", "report", "reject")))
    unknown_sni: str = field(default="default", validator=validators.in_(("default", "reject")))
    resumption: bool = True
    hostname: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """
        Every file that these terms depend on.
        """
        own = tuple(path for files in self.certificates for path in files.paths)
        return own + (() if self.client_ca is None else (self.client_ca,)) + self.client_crls


def build_context(terms: TlsTerms, credentials: tuple[Credential, ...], trust: ClientTrust) -> SSL.Context:
    """
    Return a context that serves *credentials*, at most one of each kind of key.

    Raises:
        CertificateError: OpenSSL does not take one of them.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    if terms.legacy:
        context.set_min_proto_version(SSL.TLS1_1_VERSION if terms.floor == "TLSv1.1" else SSL.TLS1_VERSION)
        context.set_cipher_list(LEGACY_CIPHERS)
        context.load_tmp_dh(LEGACY_DH_GROUP)
    else:
        context.set_min_proto_version(max(VERSIONS[terms.floor], SSL.TLS1_2_VERSION))
        context.set_cipher_list(CIPHERS)
    context.set_options(OPTIONS)
    # An idle session needs no record buffers; there may be ten thousand.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    _set_resumption(context, terms)
    for credential in credentials:
        _use(context, credential)
    if terms.request_client_certificate:
        trust.request_certificates(context)
    if terms.alpn != "off":
        context.set_alpn_select_callback(_alpn_selector(terms.alpn))
    _set_staples(context, credentials)
    return context


def serve_names(context: SSL.Context, choose: Callable[[str], SSL.Context | None]) -> None:
    """
    Let *choose* name the context for the server name in each ClientHello ("" is none); `None` refuses.
    """

    def accept(connection: SSL.Connection) -> bool:
        # The name is the client's: it may be anything, and only what equals a name of ours matters.
        name = (connection.get_servername() or b"").decode("ascii", "replace")
        chosen = choose(name)
        if chosen is None and isinstance(connection, GateConnection):
            connection.name_refused = True
        elif chosen is not None and chosen is not connection.get_context():
            connection.set_context(chosen)
        return chosen is not None

    # Registered even where there is nothing to choose: only an accepted name is kept in a TLS 1.2 session, and so
    # still known when that is resumed.
    set_server_name_callback(context, accept)


def _set_resumption(context: SSL.Context, terms: TlsTerms) -> None:
    # Tickets only: a cache in memory would be the clients' to fill.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"tlsgate")
    context.set_timeout(TICKET_SECONDS)
    # Without tickets OpenSSL still hands out two session ids in TLS 1.3, but remembers neither.
    #
    # A ticket carries the client's certificate, but neither the chain above it nor what was wrong with it, and may
    # outlive both. A full handshake is the only one that tells the truth about a certificate.
    if terms.request_client_certificate or not terms.resumption:
        context.set_options(SSL.OP_NO_TICKET)


def _use(context: SSL.Context, credential: Credential) -> None:
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in credential.chain)
    try:
        with _readable(pem) as path:
            context.use_certificate_chain_file(path)
        context.use_privatekey(credential.key)  # type: ignore[arg-type]
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        reason = ", ".join(str(entry[-1]) for entry in reasons) or str(error)
        raise CertificateError(f"{credential.files.chain}: OpenSSL refuses it: {reason}") from error


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    # pyOpenSSL takes a chain that belongs to one certificate alone only from a file. The operator's file may have
    # changed since it was validated, so OpenSSL is given what was; in memory, as there may be no folder to write to.
    with os.fdopen(os.memfd_create("chain"), "wb") if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _alpn_selector(how: str) -> Callable[[SSL.Connection, list[bytes]], Any]:
    def select(connection: SSL.Connection, offered: list[bytes]) -> Any:
        if isinstance(connection, GateConnection):
            connection.alpn_offered = tuple(offered)
        if SMTP in offered:
            return SMTP
        if how == "reject":
            raise AlpnMismatchError([("tlsgate", "", "no application protocol")])
        return SSL.NO_OVERLAPPING_PROTOCOLS

    return select


def _set_staples(context: SSL.Context, credentials: tuple[Credential, ...]) -> None:
    staples = {credential.leaf: credential.staple.response for credential in credentials if credential.staple}

    def staple(connection: SSL.Connection, _data: object) -> bytes:
        # With several kinds of key in the context, OpenSSL has chosen the certificate by now.
        chosen = connection.get_certificate(as_cryptography=True)
        return staples.get(chosen, b"") if chosen is not None else b""

    if staples:
        context.set_ocsp_server_callback(staple)
