"""
Client certificates: asked for only when wanted, never a reason for an alert, and never verified when they are not.
"""

import base64
import contextlib
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL, crypto

from tests.support.certificates import (
    DAY,
    NOW,
    SERVER_AUTH,
    Authority,
    Issued,
    pem,
    private_key,
    self_signed,
    signed_with,
)
from tests.support.handshake import client_connection, client_context, handshake
from tlsgate.policy.facts import CertificateFacts, TlsFacts
from tlsgate.tls.certificates import CertificateError
from tlsgate.tls.connection import GateConnection, noting_faults
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity
from tlsgate.tls.peer import facts_of
from tlsgate.tls.trust import CHAIN_DEPTH_MAX

ROOT = Authority.root("Partner root", number=110)
INTERMEDIATE = ROOT.subordinate("Partner intermediate", number=111)
STRANGER = Authority.root("Stranger", number=112)
OLD_ROOT = Authority.root("Old root", kind="rsa", number=116)
OLD_KEY = private_key("rsa", 116)
assert isinstance(OLD_KEY, rsa.RSAPrivateKey)
SERVER = Authority.root().issue("mx.example.org")
CLIENT = INTERMEDIATE.issue("mail.partner.example", "192.0.2.7", number=1)
V12, V13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION

CLIENTS: dict[str, tuple[Issued, str]] = {
    "right": (CLIENT, ""),
    "right, directly under the root": (ROOT.issue("mail.partner.example"), ""),
    "RSA": (ROOT.issue("mail.partner.example", kind="rsa"), ""),
    "Ed25519": (ROOT.issue("mail.partner.example", kind="ed25519"), ""),
    "no name at all": (ROOT.issue(), ""),
    "expired": (ROOT.issue("c", not_before=NOW - 9 * DAY, not_after=NOW - DAY), "certificate has expired"),
    "not yet valid": (ROOT.issue("c", not_before=NOW + DAY), "certificate is not yet valid"),
    "self-signed": (self_signed("mail.partner.example"), "self-signed certificate"),
    "wrong CA": (STRANGER.issue("mail.partner.example"), "unable to get local issuer certificate"),
    "chain incomplete": (evolve(CLIENT, between=()), "unable to get local issuer certificate"),
    "for servers": (ROOT.issue("c", usage=SERVER_AUTH), "unsuitable certificate purpose"),
    "weak key": (ROOT.issue("c", kind="rsa1024"), "EE certificate key too weak"),
    "issued by a leaf": (Authority(CLIENT.certificate, CLIENT.key, CLIENT.between).issue("c", number=2), "unable to get local issuer certificate"),
    "CA of the same name": (Authority.root("Partner root", number=113).issue("c"), "unable to get local issuer certificate"),
}  # fmt: skip


class Gate:
    """
    An identity that asks for certificates, and its files.
    """

    def __init__(self, folder: Path) -> None:
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(pem(ROOT.certificate))
        self.crl = folder / "crl.pem"
        self.terms = TlsTerms((SERVER.write(folder),), client_ca=self.ca, request_client_certificate=True)
        self.identity = Identity.load(self.terms, NOW)

    def reload(self, **changes: Any) -> tuple[str, ...]:
        self.terms = evolve(self.terms, **changes)
        self.identity = Identity.load(self.terms, NOW)
        return self.identity.warnings

    def facts(self, certificate: Issued | None, version: int = V13, context: SSL.Context | None = None) -> TlsFacts:
        server = self.identity.connection()
        outcome = handshake(server, client_connection(certificate=certificate, maximum=version, context=context))
        assert outcome.established, outcome
        return facts_of(server)

    def certificate(self, certificate: Issued, version: int = V13) -> CertificateFacts:
        shown = self.facts(certificate, version).certificate
        assert shown is not None
        return shown


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.mark.parametrize("version", [V12, V13])
class TestAsking:
    def test_nobody_is_asked_by_default_8314_06(self, gate: Gate, version: int) -> None:
        """
        8314-06: a client with a certificate at hand is not asked for it.
        """
        gate.reload(request_client_certificate=False)
        assert gate.facts(CLIENT, version).certificate is None

    def test_who_has_none_is_welcome(self, gate: Gate, version: int) -> None:
        assert gate.facts(None, version).certificate is None

    @pytest.mark.parametrize("shape", CLIENTS)
    def test_no_certificate_fails_the_handshake(self, gate: Gate, version: int, shape: str) -> None:
        """
        3207-13: what a certificate is worth is a local matter, and not the handshake's.
        """
        issued, fault = CLIENTS[shape]
        facts = gate.certificate(issued, version)
        assert facts.fault == fault
        assert facts.certificate_sha256 == issued.certificate.fingerprint(hashes.SHA256()).hex()

    @pytest.mark.parametrize("shape", CLIENTS)
    def test_a_lowered_floor_verifies_no_more(self, gate: Gate, version: int, shape: str) -> None:
        """
        9325-05: whoever is let in to be told in words is not believed for it; nor is the certificate of anybody else.
        """
        gate.reload(legacy=True)
        issued, fault = CLIENTS[shape]
        assert gate.certificate(issued, version).fault == fault

    @pytest.mark.parametrize("floor", ["usual", "lowered"])
    @pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.MD5()], ids=lambda algorithm: algorithm.name)
    def test_signatures_of_old_9325_05(self, gate: Gate, version: int, algorithm: Any, floor: str) -> None:
        """
        9325-05: SHA-1 and MD5 prove nothing, below whatever certificate of the chain but the one trusted by itself.
        """
        gate.ca.write_bytes(pem(OLD_ROOT.certificate))
        gate.reload(legacy=floor == "lowered")
        leaf = signed_with(algorithm, OLD_ROOT.issue("mail.partner.example", kind="rsa"), OLD_KEY)
        assert gate.certificate(leaf, version).fault == "CA signature digest algorithm too weak"
        between = OLD_ROOT.subordinate("Old intermediate")
        chain = signed_with(algorithm, Issued(between.certificate, between.key), OLD_KEY).certificate
        leaf = evolve(between.issue("mail.partner.example"), between=(chain,))
        assert gate.certificate(leaf, version).fault == "CA signature digest algorithm too weak"
        gate.ca.write_bytes(pem(chain))
        gate.reload()
        assert gate.certificate(leaf, version).fault == ""

    @pytest.mark.parametrize("floor", ["usual", "lowered"])
    @pytest.mark.parametrize("kind", ["rsa1024", "p192"])
    def test_weak_key_of_an_authority_9325_05(self, gate: Gate, version: int, kind: str, floor: str) -> None:
        """
        9325-05: a key that can be factored issues certificates for everybody.
        """
        weak = ROOT.subordinate("Weak intermediate", kind=kind)
        gate.reload(legacy=floor == "lowered")
        assert gate.certificate(weak.issue("mail.partner.example"), version).fault == "CA certificate key too weak"

    def test_chain_without_end(self, gate: Gate, version: int) -> None:
        """
        What no authority makes is not followed.
        """
        authority = ROOT
        for number in range(CHAIN_DEPTH_MAX + 1):
            authority = authority.subordinate(f"Intermediate {number}", number=120 + number)
            fault = gate.certificate(authority.issue("mail.partner.example"), version).fault
            assert fault == ("" if number < CHAIN_DEPTH_MAX else "certificate chain too long")

    def test_facts(self, gate: Gate, version: int) -> None:
        facts = gate.certificate(CLIENT, version)
        assert facts.subject == "CN=mail.partner.example"
        assert facts.dns_names == ("mail.partner.example",)
        assert facts.ip_addresses == ("192.0.2.7",)
        assert len(facts.public_key_sha256) == 64

    def test_ca_names_are_sent(self, gate: Gate, version: int) -> None:
        server, client = gate.identity.connection(), client_connection(maximum=version)
        assert handshake(server, client).established
        (sent,) = client.get_client_ca_list(as_cryptography=True)
        assert sent == ROOT.certificate.subject

    def test_legacy_clients_are_asked_too(self, gate: Gate, version: int) -> None:
        gate.reload(legacy=True)
        assert gate.certificate(CLIENT, version).fault == ""
        assert gate.certificate(CLIENTS["self-signed"][0], version).fault == "self-signed certificate"


class TestAuthorities:
    def test_anonymous_suite_shows_no_certificate(self, gate: Gate) -> None:
        gate.reload(legacy=True)
        context = client_context(maximum=V12, ciphers=b"aNULL:@SECLEVEL=0", certificate=CLIENT)
        facts = gate.facts(None, context=context)
        assert facts.anonymous
        assert facts.certificate is None

    def test_without_a_ca_nobody_is_verified(self, gate: Gate) -> None:
        gate.reload(client_ca=None)
        assert gate.certificate(CLIENT).fault == "unable to get local issuer certificate"

    def test_an_intermediate_may_be_trusted_by_itself(self, gate: Gate) -> None:
        gate.ca.write_bytes(pem(INTERMEDIATE.certificate))
        gate.reload()
        assert gate.certificate(CLIENT).fault == ""
        assert gate.certificate(evolve(CLIENT, between=())).fault == ""
        assert gate.certificate(CLIENTS["right, directly under the root"][0]).fault != ""

    def test_names_of_very_many_authorities_are_not_sent(self, gate: Gate) -> None:
        """
        A request too large for some clients would lose them all.
        """
        gate.ca.write_bytes(pem(*(self_signed(f"{number:060}").certificate for number in range(250)), ROOT.certificate))
        gate.reload()
        server, client = gate.identity.connection(), client_connection(certificate=CLIENT)
        assert handshake(server, client).established
        assert client.get_client_ca_list(as_cryptography=True) == []
        facts = facts_of(server).certificate
        assert facts is not None
        assert facts.fault == ""

    def test_any_damage(self, gate: Gate) -> None:
        """
        A CA or a revocation list with any one octet changed raises nothing but what an operator can read.
        """
        for path, armoured in ((gate.ca, pem(ROOT.certificate)), (gate.crl, ROOT.crl())):
            first, *body, last = armoured.splitlines()
            der = base64.b64decode(b"".join(body))
            gate.crl.write_bytes(ROOT.crl())
            for position in range(len(der)):
                flip = 0x01 if position % 2 else 0x80
                damaged = der[:position] + bytes([der[position] ^ flip]) + der[position + 1 :]
                path.write_bytes(b"\n".join((first, base64.b64encode(damaged), last, b"")))
                with contextlib.suppress(CertificateError):
                    gate.reload(client_crls=(gate.crl,))
            path.write_bytes(armoured)

    def test_authority_expired(self, gate: Gate) -> None:
        old = ROOT.subordinate("Old", number=114, not_after=NOW - DAY)
        gate.ca.write_bytes(pem(old.certificate))
        assert gate.reload() == (f"{gate.ca}: CN=Old expired on {NOW - DAY:%Y-%m-%d}",)
        assert gate.certificate(old.issue("c")).fault == "certificate has expired"


class TestRevocation:
    def with_lists(self, gate: Gate, *lists: bytes) -> tuple[str, ...]:
        gate.crl.write_bytes(b"".join(lists))
        return gate.reload(client_crls=(gate.crl,))

    def test_revoked(self, gate: Gate) -> None:
        """
        9325-13: client certificates can be revoked.
        """
        good = ROOT.issue("good", number=4)
        bad = ROOT.issue("bad", number=5)
        assert self.with_lists(gate, ROOT.crl(bad.certificate)) == ()
        assert gate.certificate(good).fault == ""
        assert gate.certificate(bad).fault == "certificate revoked"

    def test_revoked_intermediate(self, gate: Gate) -> None:
        self.with_lists(gate, ROOT.crl(INTERMEDIATE.certificate), INTERMEDIATE.crl())
        assert gate.certificate(CLIENT).fault == "certificate revoked"

    def test_no_list_no_trust(self, gate: Gate) -> None:
        """
        Once lists are kept, a certificate whose authority has none is not known to be good.
        """
        self.with_lists(gate, ROOT.crl())
        assert gate.certificate(CLIENT).fault == "unable to get certificate CRL"
        self.with_lists(gate, ROOT.crl(), INTERMEDIATE.crl())
        assert gate.certificate(CLIENT).fault == ""

    def test_list_of_a_trusted_intermediate_is_enough(self, gate: Gate) -> None:
        """
        What the operator trusts by itself needs no list from above.
        """
        gate.ca.write_bytes(pem(INTERMEDIATE.certificate))
        self.with_lists(gate, INTERMEDIATE.crl())
        assert gate.certificate(CLIENT).fault == ""
        self.with_lists(gate, INTERMEDIATE.crl(CLIENT.certificate))
        assert gate.certificate(CLIENT).fault == "certificate revoked"

    def test_a_client_trusted_by_itself_needs_a_list_all_the_same(self, gate: Gate) -> None:
        """
        What stands beside the authorities may be issued by one of them, and then it may be revoked.
        """
        gate.ca.write_bytes(pem(CLIENT.certificate))
        gate.reload()
        assert gate.certificate(CLIENT).fault == ""
        self.with_lists(gate, ROOT.crl())
        assert gate.certificate(CLIENT).fault == "unable to get certificate CRL"

    def test_authority_without_list_is_a_warning(self, gate: Gate) -> None:
        gate.ca.write_bytes(pem(ROOT.certificate, STRANGER.certificate))
        (warning,) = self.with_lists(gate, ROOT.crl())
        assert warning == f"{gate.ca}: no revocation list for CN=Stranger; its certificates will not verify"
        assert gate.certificate(CLIENTS["wrong CA"][0]).fault == "unable to get certificate CRL"

    def test_expired_list(self, gate: Gate) -> None:
        (warning,) = self.with_lists(gate, ROOT.crl(last_update=NOW - 9 * DAY, next_update=NOW - DAY))
        assert warning.endswith(
            f"the list of CN=Partner root expired on {NOW - DAY:%Y-%m-%d}; its certificates will not verify"
        )
        assert gate.certificate(ROOT.issue("c")).fault == "CRL has expired"

    def test_forged_list(self, gate: Gate) -> None:
        """
        A list signed by somebody else under the authority's name verifies nobody.
        """
        impostor = Authority.root("Partner root", number=115)
        self.with_lists(gate, impostor.crl())
        assert gate.certificate(ROOT.issue("c")).fault == "CRL signature failure"


def test_a_chain_that_was_not_followed_to_the_client_is_not_verified(gate: Gate) -> None:
    """
    OpenSSL may give up on the way down, and no fault is noted then.
    """
    connection = gate.identity.connection()
    note = noting_faults()
    for depth, verified in ((1, False), (0, True)):
        assert note(connection, crypto.X509.from_cryptography(CLIENT.certificate), 0, depth, 1)
        assert (connection.verified, connection.fault) == (verified, "")


@pytest.mark.parametrize("version", [V12, V13])
class TestResumption:
    """
    A ticket would carry the client's certificate, but neither its chain nor what was wrong with it.
    """

    def twice(
        self, gate: Gate, certificate: Issued | None, version: int, between: object = None
    ) -> tuple[TlsFacts, TlsFacts]:
        context = client_context(certificate=certificate, maximum=version)
        clients = client_connection(context=context), client_connection(context=context)
        facts: list[TlsFacts] = []
        # They live on: a connection that is dropped without a word takes its session with it.
        servers = []
        for client in clients:
            if facts:
                session = clients[0].get_session()
                assert session is not None
                client.set_session(session)
                if callable(between):
                    between()
            servers.append(gate.identity.connection())
            assert handshake(servers[-1], client).established
            facts.append(facts_of(servers[-1]))
        return facts[0], facts[1]

    @pytest.mark.parametrize("shape", CLIENTS)
    def test_fault_is_found_again(self, gate: Gate, version: int, shape: str) -> None:
        first, second = self.twice(gate, CLIENTS[shape][0], version)
        assert not second.resumed
        assert second == first
        assert second.certificate is not None
        assert second.certificate.fault == CLIENTS[shape][1]

    def test_revoked_meanwhile(self, gate: Gate, version: int) -> None:
        gate.crl.write_bytes(ROOT.crl() + INTERMEDIATE.crl())
        gate.reload(client_crls=(gate.crl,))

        def revoke() -> None:
            gate.crl.write_bytes(ROOT.crl() + INTERMEDIATE.crl(CLIENT.certificate))
            gate.reload()

        first, second = self.twice(gate, CLIENT, version, revoke)
        assert first.certificate is not None
        assert second.certificate is not None
        assert (first.certificate.fault, second.certificate.fault) == ("", "certificate revoked")

    def test_trust_withdrawn_meanwhile(self, gate: Gate, version: int) -> None:
        def withdraw() -> None:
            gate.ca.write_bytes(pem(STRANGER.certificate))
            gate.reload()

        _, second = self.twice(gate, CLIENT, version, withdraw)
        assert second.certificate is not None
        assert second.certificate.fault == "unable to get local issuer certificate"

    def test_a_resumed_certificate_would_not_count(self, gate: Gate, version: int) -> None:
        """
        Should a session with a certificate ever be resumed, say by another context, the certificate is not verified.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(SERVER.certificate)
        context.use_privatekey(SERVER.key)  # type: ignore[arg-type]
        context.set_session_id(b"tlsgate")
        gate.identity._contexts._trust.request_certificates(context)

        own = client_context(certificate=CLIENT, maximum=version)
        first, again = client_connection(context=own), client_connection(context=own)
        server = GateConnection(context)
        server.set_accept_state()
        assert handshake(server, first).established
        session = first.get_session()
        assert session is not None
        again.set_session(session)
        resumed = GateConnection(context)
        resumed.set_accept_state()
        assert handshake(resumed, again).established
        assert facts_of(server).certificate is not None
        assert facts_of(server).certificate.fault == ""  # type: ignore[union-attr]
        assert facts_of(resumed).resumed
        assert facts_of(resumed).certificate.fault == "certificate was not verified"  # type: ignore[union-attr]
