"""
Whose client certificates count: certificate authorities and their revocation lists.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from tlsgate.tls.connection import noting_faults
from tlsgate.tls.files import UNREADABLE, CertificateError, first_line, read_certificates, read_revocation_lists
from tlsgate.tls.names import printable

# A longer chain than any authority makes is somebody wasting our time.
CHAIN_DEPTH_MAX = 8

# A CertificateRequest larger than one TLS record is more than some clients read; without names, the client chooses.
AUTHORITY_NAMES_OCTETS_MAX = 16_000

SUBJECT_OCTETS_MAX = 100


@frozen
class ClientTrust:
    """
    What a client certificate is verified against. Each authority is trusted by itself, root or not.
    """

    authorities: tuple[x509.Certificate, ...] = ()
    revocation_lists: tuple[x509.CertificateRevocationList, ...] = ()
    warnings: tuple[str, ...] = ()

    def request_certificates(self, context: SSL.Context) -> None:
        """
        Make *context* ask clients for a certificate, and note what is wrong with the one shown.
        """
        try:
            self._fill(context)
        except (SSL.Error, crypto.Error, *UNREADABLE) as error:
            raise CertificateError(f"client CA or revocation list: OpenSSL refuses it: {first_line(error)}") from error
        context.set_verify_depth(CHAIN_DEPTH_MAX)
        anchors = frozenset(authority.public_bytes(Encoding.DER) for authority in self.authorities)
        context.set_verify(SSL.VERIFY_PEER, noting_faults(anchors))

    def _fill(self, context: SSL.Context) -> None:
        store = context.get_cert_store()
        assert store is not None  # noqa: S101 - every context has one
        flags = crypto.X509StoreFlags.PARTIAL_CHAIN
        if self.revocation_lists:
            flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
        store.set_flags(flags)
        for authority in self.authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        for revocation_list in self.revocation_lists:
            store.add_crl(revocation_list)
        if sum(len(authority.subject.public_bytes()) for authority in self.authorities) <= AUTHORITY_NAMES_OCTETS_MAX:
            for authority in self.authorities:
                context.add_client_ca(authority)


def load_client_trust(client_ca: Path | None, client_crls: tuple[Path, ...], now: datetime) -> ClientTrust:
    """
    Read the authorities and revocation lists; an expired one is a warning: OpenSSL refuses what depends on it.

    Raises:
        CertificateError: With every file that cannot be read.
    """
    problems: list[str] = []
    warnings: list[str] = []
    authorities: list[x509.Certificate] = []
    lists: list[x509.CertificateRevocationList] = []
    try:
        if client_ca is not None:
            authorities.extend(read_certificates(client_ca))
            warnings.extend(f"{client_ca}: {complaint}" for complaint in _authority_complaints(authorities, now))
    except CertificateError as error:
        problems.extend(error.problems)
    except UNREADABLE as error:
        problems.append(f"{client_ca}: a certificate cannot be read: {first_line(error)}")
    for path in client_crls:
        try:
            found = read_revocation_lists(path)
            warnings.extend(f"{path}: {complaint}" for complaint in _list_complaints(found, now))
            lists.extend(found)
        except CertificateError as error:
            problems.extend(error.problems)
        except UNREADABLE as error:
            problems.append(f"{path}: a revocation list cannot be read: {first_line(error)}")
    if problems:
        raise CertificateError(*problems)
    if client_crls:
        warnings.extend(f"{client_ca}: {complaint}" for complaint in _uncovered(authorities, lists))
    return ClientTrust(tuple(authorities), tuple(lists), tuple(warnings))


def _authority_complaints(authorities: list[x509.Certificate], now: datetime) -> Iterator[str]:
    for authority in authorities:
        name = _name(authority.subject)
        if authority.not_valid_after_utc <= now:
            yield f"{name} expired on {authority.not_valid_after_utc.astimezone(UTC):%Y-%m-%d}"


def _list_complaints(lists: tuple[x509.CertificateRevocationList, ...], now: datetime) -> Iterator[str]:
    for revocation_list in lists:
        name, next_update = _name(revocation_list.issuer), revocation_list.next_update_utc
        if next_update is not None and next_update <= now:
            yield (
                f"the list of {name} expired on {next_update.astimezone(UTC):%Y-%m-%d}; "
                "its certificates will not verify"
            )


def _uncovered(authorities: list[x509.Certificate], lists: list[x509.CertificateRevocationList]) -> Iterator[str]:
    issuers = {revocation_list.issuer for revocation_list in lists}
    for authority in authorities:
        if authority.subject not in issuers:
            yield f"no revocation list for {_name(authority.subject)}; its certificates will not verify"


def _name(name: x509.Name) -> str:
    return printable(name.rfc4514_string(), SUBJECT_OCTETS_MAX)
