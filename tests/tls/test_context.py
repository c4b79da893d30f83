"""
What the gate negotiates: the floor, the legacy floor, names, ALPN, resumption. Every test is a real handshake.
"""

import gc
import weakref
from pathlib import Path

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from tests.support.certificates import NOW, Authority, pem
from tests.support.handshake import Outcome, client_connection, client_context, handshake, moved, sent, settle, stepped
from tlsgate.policy.facts import TlsFacts
from tlsgate.tls.certificates import CertificateError, CertificateFiles
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity
from tlsgate.tls.peer import facts_of

ROOT = Authority.root()
ECDSA = ROOT.subordinate().issue("mx.example.org", "a.example.org")
RSA = ROOT.issue("mx.example.org", kind="rsa")
V10, V11, V12, V13 = SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> TlsTerms:
    folder = tmp_path_factory.mktemp("identity")
    return TlsTerms((ECDSA.write(folder, "ecdsa"), RSA.write(folder, "rsa")))


@pytest.fixture(scope="module")
def identity(terms: TlsTerms) -> Identity:
    return Identity.load(terms, NOW)


@pytest.fixture(scope="module")
def legacy(terms: TlsTerms) -> Identity:
    return Identity.load(evolve(terms, legacy=True), NOW)


def met(identity: Identity, client: SSL.Connection) -> tuple[Outcome, TlsFacts]:
    server = identity.connection()
    outcome = handshake(server, client)
    return outcome, facts_of(server)


def established(identity: Identity, client: SSL.Connection) -> TlsFacts:
    outcome, facts = met(identity, client)
    assert outcome.established, outcome
    return facts


def old_client(version: int, ciphers: bytes = b"ALL:COMPLEMENTOFALL") -> SSL.Connection:
    return client_connection(minimum=version, maximum=version, ciphers=ciphers + b":@SECLEVEL=0")


class TestFloor:
    def test_newest_first_9325_02(self, identity: Identity) -> None:
        """
        9325-02, 8314-02: a client that can do TLS 1.3 gets it, with the post-quantum hybrid if it has one.
        """
        facts = established(identity, client_connection())
        assert facts == TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, group="X25519MLKEM768")
        assert facts.forward_secrecy
        assert facts.aead

    def test_octets_go_both_ways(self, identity: Identity) -> None:
        server, client = identity.connection(), client_connection()
        assert handshake(server, client).established
        assert sent(client, server, b"EHLO there\r\n") == b"EHLO there\r\n"
        assert sent(server, client, b"250 here\r\n") == b"250 here\r\n"

    def test_classic_group(self, identity: Identity) -> None:
        context = client_context()
        context.set_tmp_ecdh(ec.SECP256R1())
        assert established(identity, client_connection(context=context)).group == "secp256r1"

    @pytest.mark.parametrize(
        ("cipher", "bits", "forward_secrecy", "aead"),
        [
            ("ECDHE-ECDSA-AES256-GCM-SHA384", 256, True, True),
            ("ECDHE-RSA-AES128-GCM-SHA256", 128, True, True),
            ("ECDHE-ECDSA-CHACHA20-POLY1305", 256, True, True),
            ("ECDHE-RSA-AES128-SHA", 128, True, False),
            ("AES128-GCM-SHA256", 128, False, True),
            ("AES128-SHA", 128, False, False),
        ],
    )
    def test_discouraged_suites_are_let_in_for_a_level_to_judge(
        self,
        identity: Identity,
        cipher: str,
        bits: int,
        forward_secrecy: bool,  # noqa: FBT001 - a table
        aead: bool,  # noqa: FBT001 - a table
    ) -> None:
        facts = established(identity, old_client(V12, cipher.encode()))
        assert (facts.version, facts.cipher, facts.bits) == ("TLSv1.2", cipher, bits)
        assert (facts.forward_secrecy, facts.aead) == (forward_secrecy, aead)
        assert bool(facts.group) is forward_secrecy

    def test_best_suite_of_tls_1_2(self, identity: Identity) -> None:
        assert established(identity, old_client(V12, b"DEFAULT")).cipher == "ECDHE-ECDSA-AES256-GCM-SHA384"

    @pytest.mark.parametrize(
        ("version", "ciphers"),
        [
            (V10, b"ALL"),
            (V11, b"ALL"),
            (V12, b"aNULL"),
            (V12, b"eNULL"),
            (V12, b"ECDHE-ECDSA-CAMELLIA128-SHA256"),
        ],
    )
    def test_what_must_not_be_negotiated_meets_an_alert_9325_01(
        self, identity: Identity, version: int, ciphers: bytes
    ) -> None:
        """
        9325-01, 9325-03, 8996-01: below the floor there is only an alert.
        """
        outcome, _ = met(identity, old_client(version, ciphers))
        assert "alert" in outcome.client_error
        assert outcome.server_error in ("unsupported protocol", "no shared cipher")

    def test_floor_of_tls_1_3(self, terms: TlsTerms) -> None:
        identity = Identity.load(evolve(terms, floor="TLSv1.3"), NOW)
        assert established(identity, client_connection()).version == "TLSv1.3"
        assert met(identity, old_client(V12))[0].client_error == "tlsv1 alert protocol version"

    def test_floor_is_not_lowered_without_legacy(self, terms: TlsTerms) -> None:
        identity = Identity.load(evolve(terms, floor="TLSv1"), NOW)
        assert not met(identity, old_client(V11))[0].established

    def test_unknown_words_are_refused(self) -> None:
        for wrong in ({"floor": "SSLv3"}, {"alpn": "yes"}, {"unknown_sni": "drop"}):
            with pytest.raises(ValueError, match=next(iter(wrong.values()))):
                TlsTerms((), **wrong)  # type: ignore[arg-type]

    def test_no_compression_9325_07(self, identity: Identity, legacy: Identity) -> None:
        """
        9325-07: the same octets are no shorter on the wire for being the same.
        """
        for each in (identity, legacy):
            server, client = each.connection(), old_client(V12)
            assert handshake(server, client).established
            server.sendall(b"x" * 10_000)
            assert moved(server, client) >= 10_000

    @pytest.mark.parametrize("version", [V10, V12])
    def test_client_cannot_renegotiate_9325_06(self, legacy: Identity, version: int) -> None:
        """
        9325-06: a renegotiation asked for by the client ends there, and the certificate facts stay those judged.
        """
        server, client = legacy.connection(), old_client(version)
        assert handshake(server, client).established
        client.renegotiate()
        _, error = stepped(client)
        assert not error
        moved(client, server)
        settle(server)
        moved(server, client)
        assert "renegotiation" in settle(client)
        assert server.total_renegotiations() == 0


class TestLegacy:
    @pytest.mark.parametrize(("version", "name"), [(V10, "TLSv1"), (V11, "TLSv1.1"), (V12, "TLSv1.2")])
    @pytest.mark.parametrize(
        ("cipher", "bits"),
        [
            ("AES128-SHA", 128),
            ("ECDHE-RSA-AES256-SHA", 256),
            ("DHE-RSA-AES128-SHA", 128),
            ("ADH-AES256-SHA", 256),
            ("AECDH-AES128-SHA", 128),
            ("SEED-SHA", 128),
            ("NULL-SHA", 0),
        ],
    )
    def test_everything_negotiates(self, legacy: Identity, version: int, name: str, cipher: str, bits: int) -> None:
        facts = established(legacy, old_client(version, cipher.encode()))
        assert (facts.version, facts.cipher, facts.bits) == (name, cipher, bits)
        assert facts.anonymous is cipher.startswith(("ADH", "AECDH"))
        assert facts.forward_secrecy is ("DH" in cipher)

    def test_anonymous_client_sees_no_certificate(self, legacy: Identity) -> None:
        client = old_client(V12, b"aNULL")
        assert established(legacy, client).anonymous
        assert client.get_peer_certificate() is None

    def test_floor_of_tls_1_1(self, terms: TlsTerms) -> None:
        identity = Identity.load(evolve(terms, legacy=True, floor="TLSv1.1"), NOW)
        assert established(identity, old_client(V11)).version == "TLSv1.1"
        assert not met(identity, old_client(V10))[0].established

    @pytest.mark.parametrize("order", [b"ALL:COMPLEMENTOFALL", b"eNULL:aNULL:ALL", b"aNULL:kRSA:ALL", b"@STRENGTH"])
    def test_good_clients_get_what_they_would_get_without_it(
        self, legacy: Identity, identity: Identity, order: bytes
    ) -> None:
        """
        9325-04: whatever order the client likes, the server's counts.
        """
        client = client_connection(ciphers=order + b":ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        assert established(legacy, client) == established(identity, client_connection())
        assert established(legacy, old_client(V12, order + b":ALL")) == established(identity, old_client(V12))

    def test_no_weaker_suite_before_a_better_kind(self, legacy: Identity) -> None:
        """
        9325-04: forward secrecy before static RSA before anonymity before no encryption.
        """

        def rank(name: str) -> int:
            kinds = ("TLS_", ("ECDHE-", "DHE-"), "", ("ADH-", "AECDH-"))
            return 4 if "NULL" in name else next(n for n in (0, 1, 3, 2) if name.startswith(kinds[n]))

        ranks = [rank(name) for name in legacy.connection().get_cipher_list()]
        assert ranks == sorted(ranks)
        assert set(ranks) == {0, 1, 2, 3, 4}

    def test_no_suites_that_need_a_shared_secret(self, legacy: Identity) -> None:
        names = legacy.connection().get_cipher_list()
        assert not [name for name in names if "PSK" in name or "SRP" in name]


class TestKeysAndNames:
    def leaf(self, identity: Identity, client: SSL.Connection) -> object:
        established(identity, client)
        return client.get_peer_certificate(as_cryptography=True)

    def test_rsa_and_ecdsa_side_by_side(self, identity: Identity) -> None:
        assert self.leaf(identity, client_connection()) == ECDSA.certificate
        assert self.leaf(identity, old_client(V12, b"aRSA")) == RSA.certificate
        assert self.leaf(identity, old_client(V12, b"aECDSA")) == ECDSA.certificate

    def test_each_with_its_own_chain(self, identity: Identity) -> None:
        for ciphers, issued in ((b"aRSA", RSA), (b"aECDSA", ECDSA)):
            client = old_client(V12, ciphers)
            established(identity, client)
            assert client.get_peer_cert_chain(as_cryptography=True) == [issued.certificate, *issued.between]

    @pytest.mark.parametrize(
        ("sni", "expected"),
        [
            (None, "first"),
            (b"mx.example.org", "first"),
            (b"MX.EXAMPLE.ORG", "first"),
            (b"mx.example.org.", "first"),
            (b"exact.example.net", "exact"),
            (b"any.example.net", "wild"),
            (b"a.b.example.net", None),
            (b"example.net", None),
            (b"unknown.test", None),
            (b"xn--bcher-kva.example.net", "wild"),
            (b"\xff\xfe.example.net", "wild"),
            (b"any.example.net\r\n", None),
            (b"*.example.net", "wild"),
            (b".example.net", "wild"),
            (b"x" * 255, None),
        ],
    )
    def test_sni_chooses_9325_10(self, tmp_path: Path, sni: bytes | None, expected: str | None) -> None:
        """
        9325-10: exact name, then wildcard; an unknown name gets the first certificate, or unrecognized_name (112).
        """
        issued = {
            "first": ROOT.issue("mx.example.org"),
            "wild": ROOT.issue("*.example.net", number=1),
            "exact": ROOT.issue("exact.example.net", number=2),
        }
        lenient = TlsTerms(tuple(each.write(tmp_path, stem) for stem, each in issued.items()))
        strict = evolve(lenient, unknown_sni="reject")
        for version in (0, V12):
            leaf = self.leaf(Identity.load(lenient, NOW), client_connection(sni=sni, maximum=version))
            assert leaf == issued[expected or "first"].certificate
            if expected is not None:
                leaf = self.leaf(Identity.load(strict, NOW), client_connection(sni=sni, maximum=version))
                assert leaf == issued[expected].certificate
            else:
                outcome, _ = met(Identity.load(strict, NOW), client_connection(sni=sni, maximum=version))
                assert outcome.client_error == "tlsv1 unrecognized name"
                assert outcome.server_error == "unrecognized name"

    def test_refusing_a_name_prints_nothing(self, terms: TlsTerms, capfd: pytest.CaptureFixture[str]) -> None:
        """
        Whoever connects must not be able to fill the log.
        """
        identity = Identity.load(evolve(terms, unknown_sni="reject", alpn="reject"), NOW)
        assert not met(identity, client_connection(sni=b"unknown.test"))[0].established
        assert not met(identity, client_connection(alpn=[b"h2"]))[0].established
        assert capfd.readouterr() == ("", "")

    def test_key_kinds_of_one_name_may_come_from_a_wildcard(self, tmp_path: Path) -> None:
        exact = ROOT.issue("mx.example.org").write(tmp_path, "exact")
        wild = ROOT.issue("*.example.org", kind="rsa")
        identity = Identity.load(TlsTerms((exact, wild.write(tmp_path, "wild"))), NOW)
        client = client_connection(maximum=V12, ciphers=b"aRSA:@SECLEVEL=0", sni=b"mx.example.org")
        assert self.leaf(identity, client) == wild.certificate

    def test_first_of_two_alike(self, tmp_path: Path) -> None:
        one, two = ROOT.issue("mx.example.org"), ROOT.issue("mx.example.org", "b.example.org", number=5)
        identity = Identity.load(TlsTerms((one.write(tmp_path, "1"), two.write(tmp_path, "2"))), NOW)
        assert self.leaf(identity, client_connection(sni=b"mx.example.org")) == one.certificate
        assert self.leaf(identity, client_connection(sni=b"b.example.org")) == two.certificate
        assert identity.names == ("mx.example.org", "b.example.org")

    def test_name_is_among_the_facts(self, identity: Identity) -> None:
        assert established(identity, client_connection(sni=b"a.example.org")).sni == "a.example.org"
        assert established(identity, client_connection(sni=b"\xff\n")).sni == "\\xff\\n"

    def test_names_and_end_of_all(self, identity: Identity) -> None:
        assert identity.names == ("mx.example.org", "a.example.org")
        assert identity.not_after == min(each.certificate.not_valid_after_utc for each in (ECDSA, RSA))


class TestAlpn:
    @pytest.mark.parametrize("how", ["report", "reject"])
    @pytest.mark.parametrize("offered", [[b"smtp"], [b"h2", b"smtp"]])
    def test_smtp_is_selected_9325_11(self, terms: TlsTerms, how: str, offered: list[bytes]) -> None:
        """
        9325-11: ALPN is supported.
        """
        client = client_connection(alpn=offered)
        assert established(Identity.load(evolve(terms, alpn=how), NOW), client).alpn == "smtp"
        assert client.get_alpn_proto_negotiated() == b"smtp"

    @pytest.mark.parametrize("version", [V12, V13])
    def test_alien_protocol_meets_an_alert_9325_11(self, terms: TlsTerms, version: int) -> None:
        """
        9325-11: a mismatch ends in no_application_protocol, and the next client is none the worse for it.
        """
        identity = Identity.load(evolve(terms, alpn="reject"), NOW)
        outcome, _ = met(identity, client_connection(alpn=[b"http/1.1"], maximum=version))
        assert outcome == Outcome(
            "no application protocol", "tlsv1 alert no application protocol", outcome.server_octets
        )
        assert established(identity, client_connection(maximum=version)).alpn == ""

    def test_alien_protocol_is_reported(self, identity: Identity) -> None:
        client = client_connection(alpn=[b"http/1.1", b"h2\r\n\xff"])
        assert established(identity, client).alpn == "http/1.1,h2\\r\\n\\xff"
        assert client.get_alpn_proto_negotiated() == b""

    def test_report_is_bounded(self, identity: Identity) -> None:
        assert len(established(identity, client_connection(alpn=[b"x" * 255] * 20)).alpn) == 64

    def test_off(self, terms: TlsTerms) -> None:
        client = client_connection(alpn=[b"smtp"])
        assert established(Identity.load(evolve(terms, alpn="off"), NOW), client).alpn == ""


class TestResumption:
    def twice(
        self, first: Identity, second: Identity, version: int, sni: bytes | None = None
    ) -> tuple[TlsFacts, TlsFacts]:
        context = client_context(maximum=version)
        client = client_connection(context=context, sni=sni)
        # It lives on: a connection that is dropped without a word takes its session with it.
        server = first.connection()
        assert handshake(server, client).established
        before = facts_of(server)
        session = client.get_session()
        assert session is not None
        again = client_connection(context=context, sni=sni)
        again.set_session(session)
        return before, established(second, again)

    @pytest.mark.parametrize("version", [V12, V13])
    def test_ticket_resumes(self, identity: Identity, version: int) -> None:
        before, after = self.twice(identity, identity, version, b"a.example.org")
        assert not before.resumed
        assert after == evolve(before, resumed=True)

    @pytest.mark.parametrize("version", [V12, V13])
    def test_switched_off(self, terms: TlsTerms, version: int) -> None:
        identity = Identity.load(evolve(terms, resumption=False), NOW)
        assert not self.twice(identity, identity, version)[1].resumed

    @pytest.mark.parametrize("version", [V12, V13])
    def test_not_across_a_reload_9325_08(self, terms: TlsTerms, identity: Identity, version: int) -> None:
        """
        9325-08: the ticket keys go with the identity; the client negotiates anew and is none the worse for it.
        """
        assert not self.twice(identity, Identity.load(terms, NOW), version)[1].resumed

    @pytest.mark.parametrize("version", [V12, V13])
    def test_not_across_a_change_of_trust(self, terms: TlsTerms, identity: Identity, version: int) -> None:
        asking = Identity.load(evolve(terms, request_client_certificate=True), NOW)
        assert not self.twice(identity, asking, version)[1].resumed
        assert not self.twice(asking, asking, version)[1].resumed

    @pytest.mark.parametrize("version", [V12, V13])
    def test_resumes_under_every_name(self, tmp_path: Path, version: int) -> None:
        files = (
            ROOT.issue("a.example.org").write(tmp_path, "a"),
            ROOT.issue("b.example.org", number=1).write(tmp_path, "b"),
        )
        identity = Identity.load(TlsTerms(files), NOW)
        after = self.twice(identity, identity, version, b"b.example.org")[1]
        assert (after.resumed, after.sni) == (True, "b.example.org")

    def test_resumed_client_must_speak_smtp_too(self, terms: TlsTerms) -> None:
        identity = Identity.load(evolve(terms, alpn="reject"), NOW)
        context = client_context(alpn=[b"smtp"])
        client = client_connection(context=context)
        established(identity, client)
        session = client.get_session()
        assert session is not None
        again = client_connection(context=context)
        again.set_alpn_protos([b"h2"])
        again.set_session(session)
        assert met(identity, again)[0].client_error == "tlsv1 alert no application protocol"

    def test_no_early_data_9325_09(self, identity: Identity) -> None:
        """
        9325-09: a ticket allows no octet of early data.
        """
        from OpenSSL._util import lib

        client = client_connection()
        established(identity, client)
        session = client.get_session()
        assert session is not None
        assert lib.SSL_SESSION_get_max_early_data(session._session) == 0


class TestLifetime:
    """
    A reload lets go of an identity while handshakes that began under it are still going on.
    """

    def halfway(self, identity: Identity) -> tuple[SSL.Connection, SSL.Connection]:
        """
        Return server and client in the middle of a handshake that the server has asked to begin anew.
        """
        from OpenSSL._util import lib

        context = client_context()
        assert lib.SSL_CTX_set1_curves_list(context._context, b"P-521:P-256") == 1
        client = client_connection(context=context, sni=b"b.example.org")
        server = identity.connection()
        stepped(client)
        moved(client, server)
        assert stepped(server) == (False, "")
        moved(server, client)
        return server, client

    def test_identity_lives_as_long_as_its_connections_and_no_longer(self, tmp_path: Path) -> None:
        """
        OpenSSL calls back through the context a connection began with: gone too early, it takes the process along.
        """
        issued = ROOT.issue("a.example.org"), ROOT.issue("b.example.org", number=3)
        identity = Identity.load(TlsTerms(tuple(each.write(tmp_path, str(n)) for n, each in enumerate(issued))), NOW)
        first, chosen = (weakref.ref(each) for each in identity._contexts._built.values())
        server, client = self.halfway(identity)
        del identity
        gc.collect()
        assert first() is not None
        assert handshake(server, client).established
        assert (facts_of(server).sni, facts_of(server).group) == ("b.example.org", "secp256r1")
        assert client.get_peer_certificate(as_cryptography=True) == issued[1].certificate
        del server
        gc.collect()
        assert (first(), chosen()) == (None, None)


class TestLoading:
    def test_every_fault_of_every_file(self, tmp_path: Path) -> None:
        old = CertificateFiles(tmp_path / "no.pem", tmp_path / "no.key")
        mixed = evolve(ECDSA.write(tmp_path, "a"), key=RSA.write(tmp_path, "b").key)
        terms = TlsTerms(
            (old, mixed),
            client_ca=tmp_path / "no.ca",
            client_crls=(tmp_path / "no.crl",),
            request_client_certificate=True,
        )
        with pytest.raises(CertificateError) as caught:
            Identity.load(terms, NOW)
        assert [problem.removeprefix(f"{tmp_path}/").partition(":")[0] for problem in caught.value.problems] == [
            "no.pem", "no.key", "b.key", "no.ca", "no.crl",
        ]  # fmt: skip

    def test_no_certificate_at_all(self) -> None:
        with pytest.raises(CertificateError, match="no certificate is named"):
            Identity.load(TlsTerms(()), NOW)

    def test_what_openssl_cannot_use_is_a_problem_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A root below OpenSSL's security level in the middle of a chain passes our checks, and not OpenSSL's.
        """
        weak = Authority.root("Weak root", kind="rsa1024")
        issued = weak.issue("mx.example.org")
        files = issued.write(tmp_path)
        files.chain.write_bytes(issued.chain_pem + pem(weak.certificate))
        with pytest.raises(CertificateError, match="OpenSSL refuses it: ca key too small"):
            Identity.load(TlsTerms((files,)), NOW)

    def test_hostname_that_no_certificate_has(self, terms: TlsTerms) -> None:
        """
        4954-10: clients check the server's name before they say a password.
        """
        assert Identity.load(evolve(terms, hostname="a.example.org"), NOW).warnings == ()
        (warning,) = Identity.load(evolve(terms, hostname="mail.example.org"), NOW).warnings
        assert warning == "no certificate has the name mail.example.org; clients that verify will not accept it"

    def test_files_are_served_as_validated(self, tmp_path: Path) -> None:
        """
        Files replaced after loading change nothing that is served.
        """
        identity = Identity.load(TlsTerms((ECDSA.write(tmp_path),)), NOW)
        RSA.write(tmp_path)
        client = client_connection()
        established(identity, client)
        assert client.get_peer_certificate(as_cryptography=True) == ECDSA.certificate
