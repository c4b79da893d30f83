"""
A certificate chain and its key, loaded and validated together: what is served has passed every check here.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlsgate.tls.files import UNREADABLE, CertificateError, first_line, read_certificates, read_private_key
from tlsgate.tls.names import covered, dns_names, printable
from tlsgate.tls.staple import Staple, read_staple
from tlsgate.tls.strength import key_fault, signature_fault

__all__ = ["CertificateError", "CertificateFiles", "Credential", "load_credential"]

EXPIRY_WARNING = timedelta(days=14)
SUBJECT_OCTETS_MAX = 100


@frozen
class CertificateFiles:
    """
    Where a chain (PEM, the server's own certificate first), its private key, and an OCSP response (DER) lie.
    """

    chain: Path
    key: Path
    ocsp: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """
        All files that a reload reads.
        """
        return (self.chain, self.key) if self.ocsp is None else (self.chain, self.key, self.ocsp)


@frozen
class Credential:
    """
    A validated chain and the key that fits it. *names* are lower-case DNS names, wildcards included.

    *kind* is "RSA", "ECDSA", or what the key calls itself. *not_after* is when the first certificate of the chain
    ends. Fingerprints are lower-case hexadecimal SHA-256. *staple* is the OCSP response to send, if there is one.
    """

    files: CertificateFiles
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False, eq=False)
    names: tuple[str, ...]
    not_after: datetime
    kind: str
    certificate_sha256: str
    public_key_sha256: str
    staple: Staple | None = None
    warnings: tuple[str, ...] = ()

    @property
    def leaf(self) -> x509.Certificate:
        """
        The server's own certificate.
        """
        return self.chain[0]


def load_credential(files: CertificateFiles, now: datetime, *, hostname: str | None = None) -> Credential:
    """
    Read and validate *files* as of *now*, which must know its time zone.

    What an operator should hear of without being stopped (soon to expire, *hostname* not among the names, an unusable
    OCSP response) is in the credential's *warnings*.

    Raises:
        CertificateError: With every fault found in both files.
    """
    problems: list[str] = []
    chain: tuple[x509.Certificate, ...] = ()
    key: PrivateKeyTypes | None = None
    try:
        chain = read_certificates(files.chain)
    except CertificateError as error:
        problems.extend(error.problems)
    try:
        key = read_private_key(files.key)
    except CertificateError as error:
        problems.extend(error.problems)
    if key is not None:
        problems.extend(f"{files.key}: {fault}" for fault in _key_faults(key.public_key(), "the key"))
    if chain:
        problems.extend(f"{files.chain}: {fault}" for fault in _chain_faults(chain, now))
    if chain and key is not None and not problems and _spki(chain[0].public_key()) != _spki(key.public_key()):
        problems.append(_mismatch(files, chain, key))
    if problems or key is None:
        raise CertificateError(*problems)
    return _credential(files, chain, key, now, hostname)


def _credential(
    files: CertificateFiles,
    chain: tuple[x509.Certificate, ...],
    key: PrivateKeyTypes,
    now: datetime,
    hostname: str | None,
) -> Credential:
    names = dns_names(chain[0])
    not_after = min(certificate.not_valid_after_utc for certificate in _relied_on(chain))
    warnings = []
    if not_after - now < EXPIRY_WARNING:
        warnings.append(f"{files.chain}: expires on {_day(not_after)}, in {(not_after - now).days} days; renew it")
    if hostname is not None and not covered(hostname, names):
        warnings.append(f"{files.chain}: {hostname} is not among its names ({', '.join(names)})")
    staple = None
    if files.ocsp is not None:
        staple, complaint = read_staple(files.ocsp, chain, now)
        warnings.extend([complaint] if complaint else [])
    return Credential(
        files=files,
        chain=chain,
        key=key,
        names=names,
        not_after=not_after,
        kind=_kind(key),
        certificate_sha256=hashlib.sha256(chain[0].public_bytes(Encoding.DER)).hexdigest(),
        public_key_sha256=hashlib.sha256(_spki(key.public_key())).hexdigest(),
        staple=staple,
        warnings=tuple(warnings),
    )


def _chain_faults(chain: tuple[x509.Certificate, ...], now: datetime) -> Iterator[str]:
    for number, certificate in enumerate(chain, 1):
        # A root above the others is only carried along: clients have their own copy and look at nothing of this one.
        if number > 1 and _is_root(certificate):
            continue
        try:
            yield from _certificate_faults(certificate, f"certificate {number} ({_subject(certificate)})", now)
        except UNREADABLE as error:
            yield f"certificate {number} cannot be read: {first_line(error)}"
    yield from _order_faults(chain)
    try:
        yield from _leaf_faults(chain[0])
    except UNREADABLE as error:
        yield f"certificate 1 has an extension that cannot be read: {first_line(error)}"


def _certificate_faults(certificate: x509.Certificate, what: str, now: datetime) -> Iterator[str]:
    if certificate.not_valid_after_utc <= now:
        yield f"{what} expired on {_day(certificate.not_valid_after_utc)}; renew it"
    if certificate.not_valid_before_utc > now:
        yield f"{what} is not valid before {_day(certificate.not_valid_before_utc)}; is the clock right?"
    if fault := signature_fault(certificate):
        yield f"{what} {fault}"
    yield from _key_faults(certificate.public_key(), what)


def _key_faults(key: object, what: str) -> Iterator[str]:
    if isinstance(key, dsa.DSAPublicKey):
        yield f"{what} is DSA; TLS needs RSA or ECDSA"
    elif fault := key_fault(key):
        yield f"{what} {fault}"


def _order_faults(chain: tuple[x509.Certificate, ...]) -> Iterator[str]:
    for number, (certificate, issuer) in enumerate(pairwise(chain), 1):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, *UNREADABLE):
            yield (
                f"certificate {number + 1} ({_subject(issuer)}) did not issue certificate {number} "
                f"({_subject(certificate)}); the server's own comes first, each next one issued the one before"
            )


def _leaf_faults(leaf: x509.Certificate) -> Iterator[str]:
    if not dns_names(leaf):
        yield "certificate 1 has no DNS name in subjectAltName; clients look nowhere else (RFC 7817, RFC 9525)"
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
        yield "certificate 1 is not meant for servers; its extended key usage lacks serverAuth"


def _mismatch(files: CertificateFiles, chain: tuple[x509.Certificate, ...], key: PrivateKeyTypes) -> str:
    ours = _spki(key.public_key())
    for number, certificate in enumerate(chain[1:], 2):
        if not _is_root(certificate) and _spki(certificate.public_key()) == ours:
            return f"{files.chain}: the key in {files.key} fits certificate {number}; that one must come first"
    return f"{files.key}: is not the key of the certificate in {files.chain}; give the key it was issued for"


def _relied_on(chain: tuple[x509.Certificate, ...]) -> Iterator[x509.Certificate]:
    yield chain[0]
    yield from (certificate for certificate in chain[1:] if not _is_root(certificate))


def _is_root(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        own_issuer = certificate.subject == certificate.issuer
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False
    return constraints.ca and own_issuer


def _kind(key: PrivateKeyTypes) -> str:
    match key:
        case rsa.RSAPrivateKey():
            return "RSA"
        case ec.EllipticCurvePrivateKey():
            return "ECDSA"
    return type(key).__name__.removesuffix("PrivateKey").lstrip("_")


def _spki(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _subject(certificate: x509.Certificate) -> str:
    try:
        return printable(certificate.subject.rfc4514_string(), SUBJECT_OCTETS_MAX) or "without subject"
    except UNREADABLE:
        return "unreadable subject"


def _day(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d")
