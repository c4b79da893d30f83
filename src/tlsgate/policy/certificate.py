"""
Whether a client certificate is that of somebody known.

There are two ways to be known. By name: the chain was verified against the client CA and the certificate is for one of
the names (RFC 9525, decided by service-identity: subject alternative names only, a wildcard is the whole left-most
label). By fingerprint: certificate or public key is pinned; then the chain does not matter, nor does its fault.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address

from attrs import frozen
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, CertificatePattern, DNSPattern, IPAddress_ID, IPAddressPattern

from tlsgate.policy.facts import CertificateFacts
from tlsgate.policy.names import canonical
from tlsgate.policy.wording import printable

_FINGERPRINT = re.compile("[0-9a-f]{64}")  # SHA-256 in hexadecimal
SHOWN_NAMES_OCTETS_MAX = 60
SHOWN_FAULT_OCTETS_MAX = 80


def fingerprints(given: Iterable[str]) -> frozenset[str]:
    """
    Return the *given* SHA-256 fingerprints as the facts have them: lower-case hexadecimal without colons.
    """
    return frozenset(text.replace(":", "").lower() for text in given)


def identifier(name: str) -> DNS_ID | IPAddress_ID:
    """
    Return the DNS name or IP address *name* as an identifier that patterns in certificates are matched with.

    Raises:
        ValueError: *name* is neither. Wildcards are for certificates: an identifier is one host.
    """
    try:
        return IPAddress_ID(name)
    except ValueError:
        pass
    try:
        return DNS_ID(canonical(name))
    except ValueError as error:
        raise ValueError(f"{name!a} is neither the DNS name nor the IP address of one host") from error


@frozen
class KnownClients:
    """
    The clients a level knows, by the names and the fingerprints of their certificates.

    Without any, every client whose chain was verified is known.
    """

    identifiers: tuple[DNS_ID | IPAddress_ID, ...]
    fingerprints: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str], fingerprints: Collection[str]) -> "KnownClients":
        """
        Return the clients with *names* (DNS names, IP addresses) and *fingerprints* (of certificate or public key).

        Raises:
            ValueError: A name is none, or a fingerprint is not one of `fingerprints`.
        """
        for text in fingerprints:
            if not _FINGERPRINT.fullmatch(text):
                raise ValueError(f"{text!a} is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed")
        return cls(tuple(map(identifier, names)), frozenset(fingerprints))

    def unmet(self, certificate: CertificateFacts | None) -> str:
        """
        Return, as words fit for a reply, what speaks against *certificate*; empty when its owner is known.
        """
        if certificate is None:
            return "no client certificate"
        if self._pinned(certificate):
            return ""
        if certificate.fault:
            return f"a client certificate that does not verify ({printable(certificate.fault, SHOWN_FAULT_OCTETS_MAX)})"
        if not self.identifiers:
            return "an unknown client certificate" if self.fingerprints else ""
        if any(known.verify(shown) for shown in _patterns(certificate) for known in self.identifiers):
            return ""
        return f"a client certificate for {_shown_names(certificate)}"

    def _pinned(self, certificate: CertificateFacts) -> bool:
        return not self.fingerprints.isdisjoint((certificate.certificate_sha256, certificate.public_key_sha256))


def _patterns(certificate: CertificateFacts) -> Iterator[CertificatePattern]:
    for name in certificate.dns_names:
        try:
            yield DNSPattern.from_bytes(name.encode("ascii"))
        except (UnicodeEncodeError, CertificateError):
            continue  # A name that is no DNS name is nobody's; the certificate's other names still count.
    for address in certificate.ip_addresses:
        try:
            yield IPAddressPattern(ip_address(address))
        except ValueError:
            continue


def _shown_names(certificate: CertificateFacts) -> str:
    names = (*certificate.dns_names, *certificate.ip_addresses)
    # A certificate may hold thousands of names; the first few fill the space there is.
    return printable(", ".join(names[:8]), SHOWN_NAMES_OCTETS_MAX) if names else "no name"
