"""
A client that is not pyOpenSSL: Debian's `openssl s_client`, old enough to speak what the legacy floor is for.
"""

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from attrs import evolve
from OpenSSL import SSL

from tests.support.certificates import NOW, Authority, key_pem, pem
from tests.support.handshake import READ_OCTETS, reason_of
from tlsgate.policy.facts import TlsFacts
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity
from tlsgate.tls.peer import facts_of

OPENSSL = shutil.which("openssl")
TIMEOUT_SECONDS = 20

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs the openssl command")

ROOT = Authority.root()


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> TlsTerms:
    folder = tmp_path_factory.mktemp("identity")
    ecdsa = ROOT.issue("mx.example.org").write(folder, "ecdsa")
    return TlsTerms((ecdsa, ROOT.issue("mx.example.org", kind="rsa").write(folder, "rsa")))


def drive(server: SSL.Connection, wire: socket.socket) -> str:
    """
    Run the server's side of one handshake over *wire*; return the error, if any.
    """
    while True:
        error = ""
        try:
            server.do_handshake()
            done = True
        except SSL.WantReadError:
            done = False
        except SSL.Error as caught:
            done, error = True, reason_of(caught)
        with contextlib.suppress(SSL.WantReadError):
            wire.sendall(server.bio_read(READ_OCTETS))
        if done:
            return error
        data = wire.recv(READ_OCTETS)
        if not data:
            return "closed"
        server.bio_write(data)


def visited(identity: Identity, *options: str) -> tuple[TlsFacts, str, str]:
    """
    Let `openssl s_client` with *options* connect; return the facts, the server's error and what the client printed.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_SECONDS)
        port = listener.getsockname()[1]
        command = [str(OPENSSL), "s_client", "-connect", f"127.0.0.1:{port}", *options]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as client:
            try:
                wire, _ = listener.accept()
                with wire:
                    wire.settimeout(TIMEOUT_SECONDS)
                    server = identity.connection()
                    error = drive(server, wire)
                printed = client.communicate(b"", TIMEOUT_SECONDS)[0].decode("latin-1")
            finally:
                client.kill()
    return facts_of(server), error, printed


class TestLegacyClients:
    @pytest.mark.parametrize(
        ("options", "version", "cipher"),
        [
            (("-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0"), "TLSv1", "AES128-SHA"),
            (("-tls1_1", "-cipher", "ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0"), "TLSv1.1", "ECDHE-ECDSA-AES256-SHA"),
            (("-tls1", "-cipher", "ADH-AES128-SHA:@SECLEVEL=0"), "TLSv1", "ADH-AES128-SHA"),
            (("-tls1_2", "-cipher", "DHE-RSA-AES128-SHA:@SECLEVEL=0"), "TLSv1.2", "DHE-RSA-AES128-SHA"),
        ],
    )
    def test_legacy_floor_lets_them_in_and_the_default_does_not(
        self, terms: TlsTerms, options: tuple[str, ...], version: str, cipher: str
    ) -> None:
        facts, error, printed = visited(Identity.load(evolve(terms, legacy=True), NOW), *options)
        assert error == ""
        assert (facts.version, facts.cipher) == (version, cipher)
        assert cipher in printed
        if version != "TLSv1.2":
            _, error, printed = visited(Identity.load(terms, NOW), *options)
            assert error in ("unsupported protocol", "no shared cipher")
            assert "alert" in printed


class TestModernClients:
    def test_sni_alpn_and_verification(self, terms: TlsTerms, tmp_path: Path) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(pem(ROOT.certificate))
        facts, error, printed = visited(
            Identity.load(terms, NOW),
            "-servername", "mx.example.org", "-alpn", "smtp", "-CAfile", str(ca), "-verify_return_error",
            "-verify_hostname", "mx.example.org",
        )  # fmt: skip
        assert error == ""
        assert (facts.version, facts.sni, facts.alpn) == ("TLSv1.3", "mx.example.org", "smtp")
        assert facts.group in ("X25519MLKEM768", "x25519")
        assert "Verify return code: 0 (ok)" in printed
        assert "ALPN protocol: smtp" in printed


class TestClientCertificates:
    def run(self, folder: Path, *arguments: str) -> None:
        subprocess.run([str(OPENSSL), *arguments], cwd=folder, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)

    def test_key_on_a_curve_that_nobody_reads_any_more_9325_05(self, terms: TlsTerms, tmp_path: Path) -> None:
        """
        9325-05: OpenSSL follows a chain by keys of 112 bits where the floor is lowered, and we cannot even read them.
        """
        (tmp_path / "root.pem").write_bytes(pem(ROOT.certificate))
        (tmp_path / "root.key").write_bytes(key_pem(ROOT.key))
        (tmp_path / "authority.ext").write_text("basicConstraints=critical,CA:TRUE")
        (tmp_path / "client.ext").write_text("subjectAltName=DNS:mail.partner.example")
        for name, curve, issuer in (("authority", "secp112r1", "root"), ("client", "prime256v1", "authority")):
            self.run(tmp_path, "ecparam", "-name", curve, "-genkey", "-noout", "-out", f"{name}.key")
            self.run(tmp_path, "req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
            self.run(
                tmp_path, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key",
                "-extfile", f"{name}.ext", "-days", "9", "-set_serial", "7", "-out", f"{name}.pem",
            )  # fmt: skip
        asking = evolve(terms, request_client_certificate=True, client_ca=tmp_path / "root.pem")
        shown = [str(tmp_path / name) for name in ("client.pem", "client.key", "authority.pem")]
        for legacy, fault in ((False, "CA certificate key too weak"), (True, "certificate cannot be read")):
            identity = Identity.load(evolve(asking, legacy=legacy), NOW)
            facts, error, _ = visited(
                identity, "-cert", shown[0], "-key", shown[1], "-cert_chain", shown[2], "-cipher", "DEFAULT:@SECLEVEL=0",
            )  # fmt: skip
            assert error == ""
            assert facts.certificate is not None
            assert facts.certificate.dns_names == ("mail.partner.example",)
            assert facts.certificate.fault == fault
