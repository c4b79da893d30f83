"""
Certificates for tests: authorities, leaves of every kind and fault, revocation lists, OCSP responses.

Keys are made once per test run and shared: what a test looks at is the certificate around them.
"""

import functools
import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlsgate.tls.certificates import CertificateFiles

PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)

# Certificates must be valid on the real clock, because OpenSSL looks at it; tests of dates give their own.
NOW = datetime.now(UTC).replace(microsecond=0)

_MAY_SIGN = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def private_key(kind: str = "ec", number: int = 0) -> CertificateIssuerPrivateKeyTypes:
    """
    Return the test run's key of that *kind* ("ec", "p192", "p384", "rsa", "rsa1024", "ed25519"); *number* tells several apart.
    """
    return _private_key(kind, number)


@functools.cache
def _private_key(kind: str, _number: int) -> CertificateIssuerPrivateKeyTypes:
    match kind:
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case "p192":
            return ec.generate_private_key(ec.SECP192R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "rsa1024":
            return rsa.generate_private_key(public_exponent=65537, key_size=1024)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
    raise AssertionError(kind)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(PEM) for certificate in certificates)


def key_pem(key: CertificateIssuerPrivateKeyTypes, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)


@frozen
class Issued:
    """
    A leaf, its key, and the certificates between it and the root.
    """

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes
    between: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        return pem(self.certificate, *self.between)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)

    def write(self, folder: Path, stem: str = "mx") -> CertificateFiles:
        """
        Write chain and key below *folder* and return where they are.
        """
        files = CertificateFiles(chain=folder / f"{stem}.pem", key=folder / f"{stem}.key")
        files.chain.write_bytes(self.chain_pem)
        files.key.write_bytes(self.key_pem)
        return files


def general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def build(
    *names: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: x509.Name,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    common_name: str | None = None,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 90 * DAY,
    authority: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
    subject: x509.Name | None = None,
    serial: int | None = None,
) -> x509.Certificate:
    """
    Sign one certificate. *usage* is the only extended key usage, if any.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common_name or (names[0] if names else "nameless")) if subject is None else subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if authority:
        # RFC 5280 section 4.2.1.3; Python 3.13 and later insist on it.
        builder = builder.add_extension(_MAY_SIGN, critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general_name(n) for n in names]), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signs_without_hash = isinstance(issuer_key, ed25519.Ed25519PrivateKey)
    return builder.sign(issuer_key, None if signs_without_hash else (algorithm or hashes.SHA256()))


@frozen
class Authority:
    """
    A certificate authority; the root unless made by `subordinate`.
    """

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes
    between: tuple[x509.Certificate, ...] = field(default=())

    @classmethod
    def root(cls, common_name: str = "Test root", kind: str = "ec", number: int = 100) -> "Authority":
        key = private_key(kind, number)
        certificate = build(
            key=key, issuer=name(common_name), issuer_key=key, common_name=common_name, authority=True,
            not_before=NOW - 3000 * DAY, not_after=NOW + 3000 * DAY,
        )  # fmt: skip
        return cls(certificate, key)

    def subordinate(
        self,
        common_name: str = "Test intermediate",
        kind: str = "ec",
        number: int = 101,
        not_after: datetime | None = None,
    ) -> "Authority":
        key = private_key(kind, number)
        certificate = build(
            key=key, issuer=self.certificate.subject, issuer_key=self.key, common_name=common_name, authority=True,
            not_before=NOW - 2000 * DAY, not_after=not_after or NOW + 2000 * DAY,
        )  # fmt: skip
        return Authority(certificate, key, (certificate, *self.between))

    def issue(
        self,
        *names: str,
        kind: str = "ec",
        number: int = 0,
        common_name: str | None = None,
        not_before: datetime = NOW - DAY,
        not_after: datetime = NOW + 90 * DAY,
        usage: x509.ObjectIdentifier | None = None,
        algorithm: hashes.HashAlgorithm | None = None,
        extensions: tuple[x509.ExtensionType, ...] = (),
        subject: x509.Name | None = None,
        serial: int | None = None,
    ) -> Issued:
        key = private_key(kind, number)
        certificate = build(
            *names, key=key, issuer=self.certificate.subject, issuer_key=self.key, common_name=common_name,
            not_before=not_before, not_after=not_after, usage=usage, algorithm=algorithm, extensions=extensions,
            subject=subject, serial=serial,
        )  # fmt: skip
        return Issued(certificate, key, self.between)

    def crl(
        self, *revoked: x509.Certificate, next_update: datetime = NOW + 30 * DAY, last_update: datetime = NOW - DAY
    ) -> bytes:
        """
        Return a revocation list in PEM.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(last_update)
            .next_update(next_update)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(last_update).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)

    def ocsp(
        self,
        certificate: x509.Certificate,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        this_update: datetime = NOW - DAY,
        next_update: datetime | None = NOW + 3 * DAY,
    ) -> bytes:
        """
        Return an OCSP response about *certificate* in DER, signed by this authority itself.
        """
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate, issuer=self.certificate, algorithm=hashes.SHA256(), cert_status=status,
            this_update=this_update, next_update=next_update,
            revocation_time=this_update if revoked else None, revocation_reason=None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        response = builder.sign(self.key, hashes.SHA256())
        return response.public_bytes(serialization.Encoding.DER)


def self_signed(*names: str, kind: str = "ec", number: int = 0, **more: object) -> Issued:
    key = private_key(kind, number)
    issuer = name(names[0] if names else "nameless")
    return Issued(build(*names, key=key, issuer=issuer, issuer_key=key, **more), key)  # type: ignore[arg-type]


def signed_with(algorithm: hashes.SHA1 | hashes.MD5, issued: Issued, key: rsa.RSAPrivateKey) -> Issued:
    """
    Return *issued* with a signature of old, by its issuer's *key*: the library's own builder makes none any more.
    """
    old = SHA256_WITH_RSA[:-1] + (b"\x05" if isinstance(algorithm, hashes.SHA1) else b"\x04")
    signature = key.sign(
        issued.certificate.tbs_certificate_bytes.replace(SHA256_WITH_RSA, old), padding.PKCS1v15(), algorithm
    )
    der = issued.certificate.public_bytes(serialization.Encoding.DER).replace(SHA256_WITH_RSA, old)
    return evolve(issued, certificate=x509.load_der_x509_certificate(der[: -len(signature)] + signature))


SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
