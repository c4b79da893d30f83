"""
The OCSP response stapled to a handshake (RFC 6066 section 8), so that no client has to ask the authority itself.

A response that cannot be used is left out with a warning: the handshake is no worse without it, and the file may be
written by something slower than whatever writes the certificate.
"""

from datetime import UTC, datetime
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from tlsgate.tls.files import UNREADABLE, CertificateError, first_line, read_octets


@frozen
class Staple:
    """
    An OCSP response in DER; of no use any more at *not_after*, if the authority set an end.
    """

    response: bytes = field(repr=False)
    not_after: datetime | None


def read_staple(path: Path, chain: tuple[x509.Certificate, ...], now: datetime) -> tuple[Staple | None, str]:
    """
    Return the response in *path* if it says of the first certificate of *chain* that it is good, else why not.
    """
    try:
        content = read_octets(path)
        response = ocsp.load_der_ocsp_response(content)
        complaint = _complaint(response, chain, now)
    except CertificateError as error:
        return None, f"{error.problems[0]}; no OCSP response is stapled"
    except UNREADABLE as error:
        return None, f"{path}: is no OCSP response in DER: {first_line(error)}; it is not stapled"
    if complaint:
        return None, f"{path}: {complaint}; it is not stapled"
    return Staple(content, response.next_update_utc), ""


def _complaint(response: ocsp.OCSPResponse, chain: tuple[x509.Certificate, ...], now: datetime) -> str:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return f"the authority did not answer: {response.response_status.name.lower()}"
    if response.serial_number != chain[0].serial_number or not _same_issuer(response, chain):
        return "the OCSP response is about another certificate"
    if response.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        return f"the authority says that the certificate is {response.certificate_status.name.lower()}"
    if response.this_update_utc > now:
        return f"the OCSP response is not valid before {response.this_update_utc.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if response.next_update_utc is not None and response.next_update_utc <= now:
        return f"the OCSP response expired on {response.next_update_utc.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return ""


def _same_issuer(response: ocsp.OCSPResponse, chain: tuple[x509.Certificate, ...]) -> bool:
    digest = hashes.Hash(response.hash_algorithm)
    digest.update(chain[0].issuer.public_bytes())
    return digest.finalize() == response.issuer_name_hash
