"""
OCSP stapling: the right response to the right certificate, and nothing rather than a bad one.
"""

from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from OpenSSL import SSL

from tests.support.certificates import DAY, NOW, Authority
from tests.support.handshake import client_connection, client_context, handshake
from tlsgate.tls.certificates import CertificateFiles, load_credential
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity
from tlsgate.tls.keeper import IdentityKeeper

ROOT = Authority.root()
ECDSA = ROOT.issue("mx.example.org")
RSA = ROOT.issue("mx.example.org", kind="rsa")
OTHER = Authority.root("Other", number=120)
NAMESAKE = OTHER.issue("mx.example.org", serial=ECDSA.certificate.serial_number)
GOOD = ROOT.ocsp(ECDSA.certificate)


def files_with(folder: Path, response: bytes | None) -> CertificateFiles:
    files = evolve(ECDSA.write(folder), ocsp=folder / "mx.ocsp")
    if response is not None and files.ocsp is not None:
        files.ocsp.write_bytes(response)
    return files


def received(identity: Identity, ciphers: bytes = b"DEFAULT", version: int = 0, *, asks: bool = True) -> bytes | None:
    """
    Return what a client that asks for a response is given.
    """
    got: list[bytes] = []

    def accept(_connection: SSL.Connection, response: bytes, _data: object) -> bool:
        got.append(response)
        return True

    context = client_context(ciphers=ciphers + b":@SECLEVEL=0", maximum=version)
    context.set_ocsp_client_callback(accept)
    client = client_connection(context=context)
    if asks:
        client.request_ocsp()
    assert handshake(identity.connection(), client).established
    return got[0] if got else None


class TestReading:
    def test_good_response(self, tmp_path: Path) -> None:
        credential = load_credential(files_with(tmp_path, GOOD), NOW)
        assert credential.warnings == ()
        assert credential.staple is not None
        assert credential.staple.response == GOOD
        assert credential.staple.not_after == NOW + 3 * DAY

    def test_response_without_end(self, tmp_path: Path) -> None:
        credential = load_credential(files_with(tmp_path, ROOT.ocsp(ECDSA.certificate, next_update=None)), NOW)
        assert credential.staple is not None
        assert credential.staple.not_after is None

    @pytest.mark.parametrize(
        ("response", "told"),
        [
            (None, "cannot be read: No such file or directory; no OCSP response is stapled"),
            (b"", "is empty; no OCSP response is stapled"),
            (b"rubbish", "is no OCSP response in DER"),
            (GOOD[:-1], "is no OCSP response in DER"),
            (ROOT.ocsp(RSA.certificate), "the OCSP response is about another certificate; it is not stapled"),
            (OTHER.ocsp(NAMESAKE.certificate), "the OCSP response is about another certificate; it is not stapled"),
            (
                ROOT.ocsp(ECDSA.certificate, status=ocsp.OCSPCertStatus.REVOKED),
                "the authority says that the certificate is revoked",
            ),
            (ROOT.ocsp(ECDSA.certificate, status=ocsp.OCSPCertStatus.UNKNOWN), "the certificate is unknown"),
            (ROOT.ocsp(ECDSA.certificate, this_update=NOW + DAY), "the OCSP response is not valid before"),
            (ROOT.ocsp(ECDSA.certificate, next_update=NOW), "the OCSP response expired on"),
            (
                ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(
                    Encoding.DER
                ),
                "the authority did not answer: try_later",
            ),
        ],
    )
    def test_unusable_response_is_a_warning(self, tmp_path: Path, response: bytes | None, told: str) -> None:
        credential = load_credential(files_with(tmp_path, response), NOW)
        assert credential.staple is None
        (warning,) = credential.warnings
        assert warning.startswith(f"{tmp_path}/mx.ocsp: ")
        assert told in warning

    def test_response_cut_anywhere(self, tmp_path: Path) -> None:
        for cut in range(len(GOOD)):
            assert load_credential(files_with(tmp_path, GOOD[:cut]), NOW).staple is None, cut


class TestStapling:
    @pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
    def test_client_that_asks_gets_it_9325_13(self, tmp_path: Path, version: int) -> None:
        """
        9325-13: OCSP stapling.
        """
        identity = Identity.load(TlsTerms((files_with(tmp_path, GOOD),)), NOW)
        assert received(identity, version=version) == GOOD
        assert received(identity, version=version, asks=False) in (None, b"")

    def test_each_certificate_has_its_own(self, tmp_path: Path) -> None:
        rsa = evolve(RSA.write(tmp_path, "rsa"), ocsp=tmp_path / "rsa.ocsp")
        about_rsa = ROOT.ocsp(RSA.certificate)
        (tmp_path / "rsa.ocsp").write_bytes(about_rsa)
        identity = Identity.load(TlsTerms((files_with(tmp_path, GOOD), rsa)), NOW)
        assert received(identity, b"aRSA", SSL.TLS1_2_VERSION) == about_rsa
        assert received(identity, b"aECDSA", SSL.TLS1_2_VERSION) == GOOD

    def test_certificate_without_one_beside_one_with(self, tmp_path: Path) -> None:
        identity = Identity.load(TlsTerms((files_with(tmp_path, GOOD), RSA.write(tmp_path, "rsa"))), NOW)
        assert not received(identity, b"aRSA", SSL.TLS1_2_VERSION)
        assert received(identity, b"aECDSA", SSL.TLS1_2_VERSION) == GOOD

    def test_anonymous_client_that_asks(self, tmp_path: Path) -> None:
        identity = Identity.load(TlsTerms((files_with(tmp_path, GOOD),), legacy=True), NOW)
        assert not received(identity, b"aNULL", SSL.TLS1_2_VERSION)

    def test_new_response_is_served_after_a_reload(self, tmp_path: Path) -> None:
        keeper = IdentityKeeper(TlsTerms((files_with(tmp_path, None),)))
        assert keeper.reload(NOW).warnings
        assert keeper.identity is not None
        assert not received(keeper.identity)
        (tmp_path / "mx.ocsp").write_bytes(GOOD)
        assert keeper.stale()
        assert keeper.reload(NOW).warnings == ()
        assert received(keeper.identity) == GOOD

    def test_ended_response_is_dropped(self, tmp_path: Path) -> None:
        """
        A response past its end is worse than none: clients take it for an attack.
        """
        keeper = IdentityKeeper(
            TlsTerms((files_with(tmp_path, ROOT.ocsp(ECDSA.certificate, next_update=NOW + timedelta(hours=1))),))
        )
        keeper.reload(NOW)
        assert not keeper.stale(NOW + timedelta(minutes=59))
        end = NOW + timedelta(hours=1)
        assert keeper.stale(end)
        assert keeper.reload(end).changed
        assert keeper.identity is not None
        assert not received(keeper.identity)
        assert not keeper.stale(end + timedelta(hours=1))
