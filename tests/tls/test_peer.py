"""
Whatever a client puts into its certificate, there are facts, and they are fit for a log line and a comparison.
"""

import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL, crypto

from tests.support.certificates import NOW, Authority, Issued, pem
from tests.support.handshake import client_connection, client_context, handshake
from tlsgate.policy.facts import CertificateFacts, TlsFacts
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity
from tlsgate.tls.names import printable
from tlsgate.tls.peer import facts_of

ROOT = Authority.root("Partner root", number=110)
SERVER = Authority.root().issue("mx.example.org")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    folder: Path = tmp_path_factory.mktemp("identity")
    (folder / "ca.pem").write_bytes(pem(ROOT.certificate))
    terms = TlsTerms((SERVER.write(folder),), client_ca=folder / "ca.pem", request_client_certificate=True, legacy=True)
    return Identity.load(terms, NOW)


def shown(identity: Identity, issued: Issued) -> CertificateFacts:
    server = identity.connection()
    outcome = handshake(server, client_connection(certificate=issued))
    assert outcome.established, outcome
    certificate = facts_of(server).certificate
    assert certificate is not None
    assert certificate.subject.isascii()
    assert len(certificate.subject) <= 256
    assert all(name.isascii() and name.isprintable() for name in certificate.dns_names)
    assert certificate.fault.isascii()
    return certificate


def with_names(der: bytes) -> Issued:
    """
    Return a certificate whose subjectAltName extension has *der* for content.
    """
    extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der)
    return ROOT.issue(common_name="hostile", extensions=(extension,))


def sequence(*names: tuple[int, bytes]) -> bytes:
    body = b"".join(bytes([tag, len(content)]) + content for tag, content in names)
    return (b"\x30" + (bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big"))) + body


DNS, URI, IP, EMAIL = 0x82, 0x86, 0x87, 0x81


class TestNames:
    def test_plain(self, identity: Identity) -> None:
        facts = shown(identity, ROOT.issue("A.Example.org", "*.example.org", "192.0.2.1", "2001:db8::1"))
        assert facts.dns_names == ("a.example.org", "*.example.org")
        assert facts.ip_addresses == ("192.0.2.1", "2001:db8::1")
        assert facts.fault == ""

    @pytest.mark.parametrize(
        "name",
        [
            b"mail.partner.example\0.evil.example",
            b"mail.partner.example\r\n250 ok",
            b"mail.partner.example ",
            b"mail.*.example",
            b"m*.partner.example",
            b"**.partner.example",
            b"*",
            b"",
            b".",
            b"a..b",
            b"-" * 64 + b".example",
            b"(){:;}",
            b"a/b",
            b"[192.0.2.1]",
        ],
    )
    def test_what_is_no_host_name_is_left_out(self, identity: Identity, name: bytes) -> None:
        facts = shown(
            identity, with_names(sequence((DNS, b"good.example"), (DNS, name), (EMAIL, b"x@y"), (URI, b"x:y")))
        )
        assert facts.dns_names == ("good.example",)
        assert facts.fault == ""

    def test_names_too_long_are_left_out_not_cut(self, identity: Identity) -> None:
        """
        Cut, a name could come to be another one.
        """
        long = ".".join(["x" * 60] * 5)
        content = bytes([DNS, 0x82]) + len(long).to_bytes(2, "big") + long.encode()
        facts = shown(identity, with_names(b"\x30\x82" + len(content).to_bytes(2, "big") + content))
        assert facts.dns_names == ()

    @pytest.mark.parametrize(
        "der",
        [
            b"",
            b"\x00",
            b"\x30",
            b"\x30\x80",
            b"\x30\x05\x82\xff\xff\xff\xff",
            sequence((IP, b"12345")),
            sequence((IP, b"")),
            sequence((DNS, b"b\xfccher.example")),
            sequence((0xA0, b"\x06\x01")),
            sequence((0xA4, b"\x30\x00\x00")),
            sequence((0x88, b"\x80\x80")),
            b"\x31\x00",
            b"\xff" * 200,
        ],
    )
    def test_unreadable_names(self, identity: Identity, der: bytes) -> None:
        """
        A certificate that verifies, but whose names cannot be read, is a fault: it must not pass as one without names.
        """
        facts = shown(identity, with_names(der))
        assert facts.fault, facts
        assert facts.dns_names == ()
        assert len(facts.certificate_sha256) == 64

    def test_very_many_names(self, identity: Identity) -> None:
        names = [f"{number}.example" for number in range(4000)]
        facts = shown(identity, ROOT.issue(*names, common_name="many"))
        assert facts.dns_names == tuple(names[:1000])
        addresses = [f"10.0.{number // 256}.{number % 256}" for number in range(1200)]
        facts = shown(identity, ROOT.issue(*addresses, common_name="many"))
        assert facts.ip_addresses == tuple(addresses[:1000])


class TestSubjects:
    @pytest.mark.parametrize(
        ("common_name", "expected"),
        [
            ("bücher", "CN=b\\xfccher"),
            ("a\r\nb", "CN=a\\r\\nb"),
            ("snow\u2603\U0001f4a9", "CN=snow\\u2603\\U0001f4a9"),
            ("\x1b[31m", "CN=\\x1b[31m"),
            ("a,CN=b", "CN=a\\,CN=b"),
        ],
    )
    def test_escaped(self, identity: Identity, common_name: str, expected: str) -> None:
        assert shown(identity, ROOT.issue(common_name=common_name)).subject == expected

    def test_huge(self, identity: Identity) -> None:
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ü" * 60, _validate=False) for _ in range(100)]
        subject = shown(identity, ROOT.issue(subject=x509.Name(attributes))).subject
        assert len(subject) == 256
        assert subject.endswith("...")

    def test_empty(self, identity: Identity) -> None:
        assert shown(identity, ROOT.issue(subject=x509.Name([]))).subject == ""

    @pytest.mark.parametrize("octets_max", [3, 4, 10, 11, 12, 13, 40])
    def test_bound_of_escaping(self, octets_max: int) -> None:
        for text in ("a" * 11, "ü" * 11, "a" * 10, "\n" * 3, ""):
            escaped = printable(text, octets_max)
            assert len(escaped) <= octets_max
            assert escaped.isascii()


def shown_der(identity: Identity, der: bytes, issued: Issued) -> TlsFacts | None:
    """
    Return the facts of a client that shows *der*, or `None` if its own OpenSSL or the handshake refuses that.
    """
    context = client_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
            context.use_privatekey(issued.key)  # type: ignore[arg-type]
            context.check_privatekey()
        except (SSL.Error, crypto.Error):
            return None
    server = identity.connection()
    if not handshake(server, client_connection(context=context)).established:
        return None
    return facts_of(server)


class TestDamagedCertificates:
    def test_no_damage_goes_unnoticed(self, identity: Identity) -> None:
        """
        A verified certificate with any one octet changed is a fault, and never an exception.
        """
        issued = ROOT.issue("mail.partner.example", "192.0.2.7")
        der = issued.certificate.public_bytes(serialization.Encoding.DER)
        intact = shown_der(identity, der, issued)
        assert intact is not None
        assert intact.certificate is not None
        assert intact.certificate.fault == ""
        seen = 0
        for position in range(len(der)):
            flip = 0x01 if position % 2 else 0x80
            damaged = der[:position] + bytes([der[position] ^ flip]) + der[position + 1 :]
            facts = shown_der(identity, damaged, issued)
            if facts is not None:
                seen += 1
                assert facts.certificate is not None
                assert facts.certificate.fault, f"octet {position} ^ {flip:#x}"
        assert seen > len(der) / 4

    def test_what_only_openssl_can_read(self, identity: Identity) -> None:
        """
        A version and a serial number that cryptography refuses: the fingerprint still tells who it was.
        """
        issued = ROOT.issue("mail.partner.example")
        der = issued.certificate.public_bytes(serialization.Encoding.DER)
        facts = shown_der(identity, der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06", 1), issued)
        assert facts is not None
        assert facts.certificate is not None
        assert facts.certificate.fault
        assert (facts.certificate.subject, facts.certificate.public_key_sha256) == ("", "")
        assert len(facts.certificate.certificate_sha256) == 64


class TestWithoutHandshake:
    def test_there_are_facts_before_and_after_failure(self, identity: Identity) -> None:
        server = identity.connection()
        assert facts_of(server).cipher == ""
        server.bio_write(b"EHLO there\r\n")
        with pytest.raises(SSL.Error):
            server.do_handshake()
        facts = facts_of(server)
        assert (facts.cipher, facts.bits, facts.group, facts.certificate) == ("", 0, "", None)
