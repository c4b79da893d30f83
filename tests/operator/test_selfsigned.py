"""
The certificate of the demo: usable by verifying clients, private, and kept as long as it will do.
"""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tlsgate.operator import selfsigned
from tlsgate.operator.selfsigned import REMAKE_BEFORE_END, VALIDITY, Pair, pair_in

NOW = datetime.now(UTC)


def handshake(pair: Pair, name: str) -> str | None:
    """
    Return the TLS version agreed with a client that trusts the certificate and verifies it strictly for *name*.
    """
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair.certificate, pair.key)
    client_context = ssl.create_default_context(cafile=str(pair.certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(one, two, server_hostname=name)
    server = server_context.wrap_bio(two, one, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client.version()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_strict_client_that_trusts_it_verifies_it(tmp_path: Path, name: str) -> None:
    assert handshake(pair_in(tmp_path, NOW), name) == "TLSv1.3"


def test_no_other_name_is_verified(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pair_in(tmp_path, NOW), "mx.example.org")


def test_the_key_is_on_p256_and_for_its_owner_only(tmp_path: Path) -> None:
    pair = pair_in(tmp_path, NOW)
    key = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert stat.S_IMODE(pair.key.stat().st_mode) & 0o077 == 0


def contents(pair: Pair) -> tuple[bytes, bytes]:
    return pair.certificate.read_bytes(), pair.key.read_bytes()


def test_a_pair_that_will_do_is_kept(tmp_path: Path) -> None:
    before = contents(pair_in(tmp_path, NOW))
    assert contents(pair_in(tmp_path, NOW + timedelta(days=1))) == before


@pytest.mark.parametrize(
    "later",
    [VALIDITY - REMAKE_BEFORE_END, VALIDITY + timedelta(days=1), -timedelta(days=1)],
    ids=["soon", "over", "early"],
)
def test_a_pair_that_is_about_to_expire_is_made_anew(tmp_path: Path, later: timedelta) -> None:
    before = contents(pair_in(tmp_path, NOW))
    assert contents(pair_in(tmp_path, NOW + later)) != before


@pytest.mark.parametrize("file", ["certificate.pem", "key.pem"])
@pytest.mark.parametrize("fault", ["missing", "rubbish", "another's"])
def test_a_pair_that_is_broken_is_made_anew(tmp_path: Path, file: str, fault: str) -> None:
    pair_in(tmp_path, NOW)
    path = tmp_path / file
    if fault == "missing":
        path.unlink()
    elif fault == "rubbish":
        path.write_bytes(b"rubbish")
    else:
        (tmp_path / "other").mkdir()
        pair_in(tmp_path / "other", NOW)
        (tmp_path / "other" / file).replace(path)
    assert handshake(pair_in(tmp_path, NOW), "localhost") == "TLSv1.3"


def test_a_pair_for_other_names_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(selfsigned, "NAMES", x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")]))
        pair_in(tmp_path, NOW)
    assert handshake(pair_in(tmp_path, NOW), "localhost") == "TLSv1.3"


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pair_in(tmp_path / "missing", NOW)
