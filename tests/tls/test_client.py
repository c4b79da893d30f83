"""
TLS toward a backend: nobody unverified, ever.
"""

from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from OpenSSL import SSL

from tests.support.certificates import CLIENT_AUTH, DAY, NOW, Authority, Issued, pem, self_signed
from tests.support.handshake import Outcome, handshake, sent, stepped
from tlsgate.tls.certificates import CertificateError
from tlsgate.tls.client import BackendTlsError, BackendTrust
from tlsgate.tls.connection import GateConnection
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity
from tlsgate.tls.peer import facts_of

ROOT = Authority.root("Backend root", number=130)
INTERMEDIATE = ROOT.subordinate(number=131)
STRANGER = Authority.root("Stranger", number=132)
NAME = "mail.backend.example"
V10, V11, V12, V13 = SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(pem(ROOT.certificate))
    return path


def backend(
    issued: Issued | None, *, minimum: int = V10, maximum: int = 0, ciphers: bytes = b"ALL:COMPLEMENTOFALL"
) -> SSL.Connection:
    """
    Return a backend that does whatever a test wants of it.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(minimum)
    context.set_max_proto_version(maximum)
    context.set_cipher_list(ciphers + b":@SECLEVEL=0")
    if issued is not None:
        context.use_certificate(issued.certificate)
        for between in issued.between:
            context.add_extra_chain_cert(between)
        context.use_privatekey(issued.key)  # type: ignore[arg-type]
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def met(trust: BackendTrust, server: SSL.Connection) -> tuple[Outcome, str]:
    """
    Return how the handshake ended, and why the backend is refused ("" if it is not).
    """
    ours = trust.connection()
    outcome = handshake(server, ours)
    try:
        facts = trust.verify(ours)
    except BackendTlsError as error:
        assert outcome.client_error, "the handshake must fail as well"
        return outcome, error.reason
    assert outcome.established, outcome
    assert facts.certificate is not None
    return outcome, ""


@pytest.mark.parametrize("version", [V12, V13])
class TestProof:
    @pytest.mark.parametrize(
        ("issued", "reason"),
        [
            (ROOT.issue(NAME), ""),
            (ROOT.issue("MAIL.Backend.EXAMPLE", kind="rsa"), ""),
            (INTERMEDIATE.issue("other.example", NAME), ""),
            (ROOT.issue("*.backend.example"), ""),
            (ROOT.issue("other.example"), "certificate is for another name"),
            (ROOT.issue("*.example"), "certificate has no usable name"),
            (ROOT.issue("*.mail.backend.example"), "certificate is for another name"),
            (ROOT.issue("m*.backend.example"), "certificate is for another name"),
            (ROOT.issue("mail.backend.example.evil.example"), "certificate is for another name"),
            (ROOT.issue("192.0.2.1"), "certificate is for another name"),
            (ROOT.issue(common_name=NAME), "certificate has no usable name"),
            (ROOT.issue(NAME, not_before=NOW - 9 * DAY, not_after=NOW - DAY), "certificate has expired"),
            (ROOT.issue(NAME, not_before=NOW + DAY), "certificate is not yet valid"),
            (self_signed(NAME), "self-signed certificate"),
            (STRANGER.issue(NAME), "unable to get local issuer certificate"),
            (evolve(INTERMEDIATE.issue(NAME), between=()), "unable to get local issuer certificate"),
            (Authority.root("Backend root", number=133).issue(NAME), "unable to get local issuer certificate"),
            (ROOT.issue(NAME, usage=CLIENT_AUTH), "unsuitable certificate purpose"),
            (ROOT.issue(NAME, kind="rsa1024"), "EE certificate key too weak"),
        ],
    )
    def test_chain_and_name_7817_01(self, ca: Path, version: int, issued: Issued, reason: str) -> None:
        """
        7817-01 to 7817-04: DNS-ID after path validation, wildcards whole and left-most, never the common name.
        """
        outcome, told = met(BackendTrust(NAME, ca), backend(issued, maximum=version))
        assert told == reason
        if reason:
            assert "alert" in outcome.server_error

    def test_nul_in_a_name(self, ca: Path, version: int) -> None:
        content = NAME.encode() + b"\0.evil.example"
        der = bytes([0x30, len(content) + 2, 0x82, len(content)]) + content
        extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der)
        assert met(BackendTrust(NAME, ca), backend(ROOT.issue(extensions=(extension,)), maximum=version))[1]

    @pytest.mark.parametrize("der", [b"", b"\x30\x03\x87\x01\x01", b"\xff\xff"])
    def test_unreadable_names(self, ca: Path, version: int, der: bytes) -> None:
        extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der)
        assert met(BackendTrust(NAME, ca), backend(ROOT.issue(extensions=(extension,)), maximum=version))[1]

    @pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
    def test_ip_address(self, ca: Path, version: int, address: str) -> None:
        """
        9525-01: an address is proved by an address among the subject's alternative names, and by nothing else.
        """
        trust = BackendTrust(address, ca)
        server = backend(ROOT.issue(address), maximum=version)
        assert met(trust, server)[1] == ""
        assert server.get_servername() is None
        assert (
            met(trust, backend(ROOT.issue(NAME, "192.0.2.99"), maximum=version))[1] == "certificate is for another name"
        )

    def test_name_is_asked_for_by_sni(self, ca: Path, version: int) -> None:
        server = backend(ROOT.issue(NAME), maximum=version)
        assert met(BackendTrust(NAME + ".", ca), server)[1] == ""
        assert server.get_servername() == NAME.encode()

    def test_system_roots_do_not_know_ours(self, version: int) -> None:
        reason = met(BackendTrust(NAME), backend(ROOT.issue(NAME), maximum=version))[1]
        assert reason == "unable to get local issuer certificate"

    def test_self_signed_backend_may_be_its_own_authority(self, tmp_path: Path, version: int) -> None:
        own = self_signed(NAME)
        (tmp_path / "own.pem").write_bytes(pem(own.certificate))
        assert met(BackendTrust(NAME, tmp_path / "own.pem"), backend(own, maximum=version))[1] == ""
        other = self_signed(NAME, number=9)
        assert met(BackendTrust(NAME, tmp_path / "own.pem"), backend(other, maximum=version))[1] != ""

    def test_octets_go_both_ways(self, ca: Path, version: int) -> None:
        ours, server = BackendTrust(NAME, ca).connection(), backend(ROOT.issue(NAME), maximum=version)
        assert handshake(server, ours).established
        assert sent(server, ours, b"220 here\r\n") == b"220 here\r\n"
        assert sent(ours, server, b"EHLO\r\n") == b"EHLO\r\n"


class TestFloor:
    @pytest.mark.parametrize("version", [V10, V11])
    def test_old_versions_only_when_asked_for(self, ca: Path, version: int) -> None:
        issued = ROOT.issue(NAME, kind="rsa")
        assert met(BackendTrust(NAME, ca), backend(issued, maximum=version))[1] == "the handshake is not over"
        assert met(BackendTrust(NAME, ca, legacy=True), backend(issued, maximum=version))[1] == ""
        assert (
            met(BackendTrust(NAME, ca, legacy=True, min_version="TLSv1.2"), backend(issued, maximum=version))[1] != ""
        )

    def test_least_version(self, ca: Path) -> None:
        trust = BackendTrust(NAME, ca, min_version="TLSv1.3")
        assert met(trust, backend(ROOT.issue(NAME), maximum=V12))[1] == "the handshake is not over"
        assert met(trust, backend(ROOT.issue(NAME)))[1] == ""

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("ciphers", [b"aNULL", b"eNULL", b"AECDH-NULL-SHA"])
    def test_never_anonymous_never_in_the_clear(self, ca: Path, ciphers: bytes, legacy: bool) -> None:  # noqa: FBT001 - a table
        server = backend(ROOT.issue(NAME), maximum=V12, ciphers=ciphers)
        assert met(BackendTrust(NAME, ca, legacy=legacy), server)[1] == "the handshake is not over"

    def test_legacy_verifies_all_the_same(self, ca: Path) -> None:
        trust = BackendTrust(NAME, ca, legacy=True)
        assert met(trust, backend(ROOT.issue("other.example"), maximum=V10))[1] == "certificate is for another name"
        assert met(trust, backend(self_signed(NAME), maximum=V10))[1] == "self-signed certificate"
        assert met(trust, backend(ROOT.issue(NAME, kind="rsa1024"), maximum=V10))[1] == ""


class TestMisuse:
    def test_unfinished_handshake_is_not_verified(self, ca: Path) -> None:
        """
        At every step of a handshake that would succeed, what is there so far does not count.
        """
        trust = BackendTrust(NAME, ca)
        ours, server = trust.connection(), backend(ROOT.issue(NAME))
        for _ in range(4):
            if stepped(ours)[0]:
                break
            with pytest.raises(BackendTlsError, match="the handshake is not over"):
                trust.verify(ours)
            server.bio_write(ours.bio_read(1 << 16))
            stepped(server)
            # The server's flight in small pieces: the certificate arrives well before the end.
            flight = server.bio_read(1 << 16)
            for start in range(0, len(flight), 50):
                ours.bio_write(flight[start : start + 50])
                if stepped(ours)[0]:
                    break
                with pytest.raises(BackendTlsError, match="the handshake is not over"):
                    trust.verify(ours)
        assert trust.verify(ours).version == "TLSv1.3"

    def test_connection_of_another_context_is_not_verified(self, ca: Path) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        for ours in (SSL.Connection(context, None), GateConnection(context)):
            ours.set_connect_state()
            assert handshake(backend(self_signed(NAME)), ours).established
            with pytest.raises(BackendTlsError, match="certificate was not verified"):
                BackendTrust(NAME, ca).verify(ours)

    def test_plain_text_instead_of_tls(self, ca: Path) -> None:
        trust = BackendTrust(NAME, ca)
        ours = trust.connection()
        stepped(ours)
        ours.bio_write(b"454 4.7.0 TLS not available\r\n")
        assert stepped(ours)[1]
        with pytest.raises(BackendTlsError):
            trust.verify(ours)

    def test_faulty_ca_file(self, tmp_path: Path) -> None:
        with pytest.raises(CertificateError, match="No such file"):
            BackendTrust(NAME, tmp_path / "no.pem")

    @pytest.mark.parametrize("name", ["", "a b", "*.example.org", "a..b", "x" * 64, "\0"])
    def test_name_that_is_none(self, ca: Path, name: str) -> None:
        with pytest.raises(ValueError, match="neither a host name nor an IP address"):
            BackendTrust(name, ca)

    def test_international_name(self, ca: Path) -> None:
        server = backend(ROOT.issue("xn--bcher-kva.example"))
        assert met(BackendTrust("Bücher.example", ca), server)[1] == ""
        assert server.get_servername() == b"xn--bcher-kva.example"


def test_gate_before_gate(tmp_path: Path, ca: Path) -> None:
    """
    Our client and our server agree on the best there is.
    """
    identity = Identity.load(TlsTerms((ROOT.issue(NAME).write(tmp_path),)), NOW)
    server, trust = identity.connection(), BackendTrust(NAME, ca)
    ours = trust.connection()
    assert handshake(server, ours).established
    assert trust.verify(ours).group == "X25519MLKEM768"
    assert facts_of(server).sni == NAME
