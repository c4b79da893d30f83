"""
Certificates are validated together, and whatever lies in the files, the operator gets words.
"""

import base64
import os
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.certificates import (
    CLIENT_AUTH,
    DAY,
    NOW,
    PEM,
    Authority,
    build,
    key_pem,
    name,
    pem,
    private_key,
    self_signed,
    signed_with,
)
from tlsgate.tls.certificates import CertificateError, CertificateFiles, Credential, load_credential
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity

ROOT = Authority.root()
INTERMEDIATE = ROOT.subordinate()
LEAF = INTERMEDIATE.issue("MX.example.org", "*.mail.example.org")


def written(folder: Path, chain: bytes, key: bytes) -> CertificateFiles:
    files = CertificateFiles(chain=folder / "mx.pem", key=folder / "mx.key")
    files.chain.write_bytes(chain)
    files.key.write_bytes(key)
    return files


def loaded(folder: Path, chain: bytes = LEAF.chain_pem, key: bytes = LEAF.key_pem) -> Credential:
    return load_credential(written(folder, chain, key), NOW)


def problems(folder: Path, chain: bytes = LEAF.chain_pem, key: bytes = LEAF.key_pem) -> tuple[str, ...]:
    """
    Return what is said of the files, without the folder's name.
    """
    with pytest.raises(CertificateError) as caught:
        loaded(folder, chain, key)
    return tuple(problem.replace(f"{folder}/", "") for problem in caught.value.problems)


def armoured(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


class TestGood:
    def test_chain_and_key_make_a_credential(self, tmp_path: Path) -> None:
        credential = loaded(tmp_path)
        assert credential.names == ("mx.example.org", "*.mail.example.org")
        assert credential.kind == "ECDSA"
        assert credential.chain == (LEAF.certificate, INTERMEDIATE.certificate)
        assert credential.leaf == LEAF.certificate
        assert credential.certificate_sha256 == LEAF.certificate.fingerprint(hashes.SHA256()).hex()
        assert credential.not_after == LEAF.certificate.not_valid_after_utc
        assert credential.warnings == ()
        assert credential.staple is None

    @pytest.mark.parametrize(
        ("kind", "called"), [("ec", "ECDSA"), ("p384", "ECDSA"), ("rsa", "RSA"), ("ed25519", "Ed25519")]
    )
    def test_every_kind_of_key(self, tmp_path: Path, kind: str, called: str) -> None:
        issued = ROOT.issue("mx.example.org", kind=kind)
        assert loaded(tmp_path, issued.chain_pem, issued.key_pem).kind == called

    def test_key_and_chain_in_one_file(self, tmp_path: Path) -> None:
        both = LEAF.chain_pem + LEAF.key_pem
        assert loaded(tmp_path, both, both).leaf == LEAF.certificate

    def test_parameters_before_the_key(self, tmp_path: Path) -> None:
        """
        `openssl ecparam -genkey` writes the curve in a block of its own first.
        """
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        traditional = private_key("ec").private_bytes(
            PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        assert loaded(tmp_path, key=parameters + traditional).kind == "ECDSA"

    def test_root_in_the_chain_is_carried_along(self, tmp_path: Path) -> None:
        chain = LEAF.chain_pem + pem(ROOT.certificate)
        assert loaded(tmp_path, chain).chain[-1] == ROOT.certificate

    def test_the_key_does_not_show(self, tmp_path: Path) -> None:
        assert "key=" not in repr(loaded(tmp_path)).replace("key=PosixPath", "")

    def test_the_earliest_end_counts(self, tmp_path: Path) -> None:
        short = ROOT.subordinate(number=102, not_after=NOW + 30 * DAY).issue("mx.example.org")
        assert loaded(tmp_path, short.chain_pem, short.key_pem).not_after == NOW + 30 * DAY


class TestWarnings:
    def test_soon_to_expire(self, tmp_path: Path) -> None:
        """
        8314-10: an operator hears of it two weeks ahead.
        """
        files = LEAF.write(tmp_path)
        end = LEAF.certificate.not_valid_after_utc
        assert load_credential(files, end - timedelta(days=14)).warnings == ()
        (warning,) = load_credential(files, end - timedelta(days=9, hours=1)).warnings
        assert warning == f"{files.chain}: expires on {end:%Y-%m-%d}, in 9 days; renew it"

    @pytest.mark.parametrize(
        ("hostname", "fits"),
        [
            ("mx.example.org", True),
            ("MX.Example.Org.", True),
            ("a.mail.example.org", True),
            ("mail.example.org", False),
            ("a.b.mail.example.org", False),
            ("other.example.org", False),
        ],
    )
    def test_hostname_among_the_names_7817_05(self, tmp_path: Path, hostname: str, fits: bool) -> None:  # noqa: FBT001 - a table
        """
        7817-05, 7817-02: the names are compared with the host's, a wildcard being the whole left-most label.
        """
        warnings = load_credential(LEAF.write(tmp_path), NOW, hostname=hostname).warnings
        expected = f"{tmp_path}/mx.pem: {hostname} is not among its names (mx.example.org, *.mail.example.org)"
        assert warnings == (() if fits else (expected,))


class TestFaultsOfContent:
    def test_key_of_another_certificate(self, tmp_path: Path) -> None:
        assert problems(tmp_path, key=key_pem(private_key("ec", 9))) == (
            "mx.key: is not the key of the certificate in mx.pem; give the key it was issued for",
        )

    def test_key_of_another_kind(self, tmp_path: Path) -> None:
        assert "is not the key of" in problems(tmp_path, key=key_pem(private_key("rsa")))[0]

    def test_leaf_last(self, tmp_path: Path) -> None:
        (problem, *_) = problems(tmp_path, pem(INTERMEDIATE.certificate, LEAF.certificate))
        assert problem == (
            "mx.pem: certificate 2 (CN=MX.example.org) did not issue certificate 1 (CN=Test intermediate); "
            "the server's own comes first, each next one issued the one before"
        )

    def test_key_fits_a_later_certificate(self, tmp_path: Path) -> None:
        """
        A chain of one's own that begins with another leaf: said plainly, not as a mismatch.
        """
        child = Authority(LEAF.certificate, LEAF.key).issue("child.example.org", number=7)
        (problem,) = problems(tmp_path, pem(child.certificate, LEAF.certificate))
        assert problem == "mx.pem: the key in mx.key fits certificate 2; that one must come first"

    def test_stranger_in_the_chain(self, tmp_path: Path) -> None:
        stranger = Authority.root("Stranger", number=103)
        assert (
            "(CN=Stranger) did not issue certificate 1"
            in problems(tmp_path, pem(LEAF.certificate, stranger.certificate))[0]
        )

    def test_same_name_other_key_in_the_chain(self, tmp_path: Path) -> None:
        """
        The signature is checked, not only the names.
        """
        impostor = ROOT.subordinate(number=104)
        assert "did not issue" in problems(tmp_path, pem(LEAF.certificate, impostor.certificate))[0]

    def test_expired(self, tmp_path: Path) -> None:
        """
        8314-10: what is not valid any more is not loaded.
        """
        old = ROOT.issue("mx.example.org", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
        (problem,) = problems(tmp_path, old.chain_pem, old.key_pem)
        assert problem == f"mx.pem: certificate 1 (CN=mx.example.org) expired on {NOW - DAY:%Y-%m-%d}; renew it"

    def test_expired_to_the_second(self, tmp_path: Path) -> None:
        files = LEAF.write(tmp_path)
        end = LEAF.certificate.not_valid_after_utc
        assert load_credential(files, end - timedelta(seconds=1))
        with pytest.raises(CertificateError):
            load_credential(files, end)

    def test_self_signed_authority_as_leaf_is_looked_at_too(self, tmp_path: Path) -> None:
        """
        `openssl req -x509` makes a certificate that could be a root: it is the server's own all the same.
        """
        key = private_key("rsa1024")
        for end, told in ((NOW + DAY, "is RSA with 1024 bits"), (NOW - DAY, "expired on")):
            own = build(
                "mx.example.org", key=key, issuer=name("mx.example.org"), issuer_key=key, authority=True,
                not_before=NOW - 9 * DAY, not_after=end,
            )  # fmt: skip
            assert any(
                f"certificate 1 (CN=mx.example.org) {told}" in each
                for each in problems(tmp_path, pem(own), key_pem(key))
            )

    def test_any_damage(self, tmp_path: Path) -> None:
        """
        A chain with any one octet changed raises nothing but what an operator can read, and its leaf is not served.
        """
        ders = [each.public_bytes(serialization.Encoding.DER) for each in (LEAF.certificate, INTERMEDIATE.certificate)]
        files = LEAF.write(tmp_path)
        for which, der in enumerate(ders):
            for position in range(len(der)):
                damaged = (
                    der[:position] + bytes([der[position] ^ (0x01 if position % 2 else 0x80)]) + der[position + 1 :]
                )
                files.chain.write_bytes(
                    b"".join(armoured(each) for each in (*ders[:which], damaged, *ders[which + 1 :]))
                )
                try:
                    Identity.load(TlsTerms((files,)), NOW)
                except CertificateError:
                    continue
                assert which == 1, f"octet {position} of the leaf"

    def test_not_yet_valid(self, tmp_path: Path) -> None:
        early = ROOT.issue("mx.example.org", not_before=NOW + DAY, not_after=NOW + 9 * DAY)
        assert "is not valid before" in problems(tmp_path, early.chain_pem, early.key_pem)[0]

    def test_expired_intermediate(self, tmp_path: Path) -> None:
        short = ROOT.subordinate(number=102, not_after=NOW - DAY).issue("mx.example.org")
        assert "certificate 2 (CN=Test intermediate) expired" in problems(tmp_path, short.chain_pem, short.key_pem)[0]

    def test_expired_root_is_nobodys_business(self, tmp_path: Path) -> None:
        """
        Clients use their own copy of a root; that in the file ended some chains in use for years.
        """
        files = written(tmp_path, LEAF.chain_pem + pem(ROOT.certificate), LEAF.key_pem)
        assert load_credential(files, NOW).not_after == LEAF.certificate.not_valid_after_utc

    def test_weak_rsa_9325_05(self, tmp_path: Path) -> None:
        weak = ROOT.issue("mx.example.org", kind="rsa1024")
        assert problems(tmp_path, weak.chain_pem, weak.key_pem) == (
            "mx.key: the key is RSA with 1024 bits; at least 2048 are needed (RFC 9325)",
            "mx.pem: certificate 1 (CN=mx.example.org) is RSA with 1024 bits; at least 2048 are needed (RFC 9325)",
        )

    def test_weak_curve_9325_05(self, tmp_path: Path) -> None:
        weak = ROOT.issue("mx.example.org", kind="p192")
        assert problems(tmp_path, weak.chain_pem, weak.key_pem) == (
            "mx.key: the key is on a curve of 192 bits; at least 224 are needed (RFC 9325)",
            "mx.pem: certificate 1 (CN=mx.example.org) is on a curve of 192 bits; at least 224 are needed (RFC 9325)",
        )

    def test_sha1_9325_05(self, tmp_path: Path) -> None:
        root = Authority.root(kind="rsa")
        assert isinstance(root.key, rsa.RSAPrivateKey)
        for algorithm, hashed in ((hashes.SHA1(), "SHA1"), (hashes.MD5(), "MD5")):
            old = signed_with(algorithm, root.issue("mx.example.org"), root.key)
            (problem,) = problems(tmp_path, old.chain_pem, old.key_pem)
            assert f"is signed with {hashed}; SHA-256 or better is needed (RFC 9325)" in problem

    def test_no_dns_name_7817_05(self, tmp_path: Path) -> None:
        for nameless in (self_signed(), self_signed("192.0.2.1")):
            assert (
                "certificate 1 has no DNS name in subjectAltName"
                in problems(tmp_path, nameless.chain_pem, nameless.key_pem)[0]
            )

    def test_client_certificate(self, tmp_path: Path) -> None:
        client = ROOT.issue("mx.example.org", usage=CLIENT_AUTH)
        assert "lacks serverAuth" in problems(tmp_path, client.chain_pem, client.key_pem)[0]

    def test_unreadable_names(self, tmp_path: Path) -> None:
        broken = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x03\x82\x05a")
        issued = ROOT.issue(extensions=(broken,))
        assert "has an extension that cannot be read" in problems(tmp_path, issued.chain_pem, issued.key_pem)[0]

    def test_every_fault_is_told_at_once(self, tmp_path: Path) -> None:
        bad = ROOT.issue(kind="rsa1024", common_name="bad", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
        told = problems(tmp_path, bad.chain_pem + pem(LEAF.certificate), b"nothing")
        assert len(told) == 5, told

    def test_hostile_subject_is_escaped(self, tmp_path: Path) -> None:
        bad = ROOT.issue(common_name="mx\r\nnew line \x1b[31m ü" + "x" * 30)
        (problem,) = [
            each for each in problems(tmp_path, bad.chain_pem + pem(LEAF.certificate), bad.key_pem) if "issue" in each
        ]
        assert problem.isascii()
        assert problem.isprintable()


ENCRYPTED_TRADITIONAL = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"


class TestFaultsOfFiles:
    @pytest.mark.parametrize(
        ("key", "told"),
        [
            (b"", "mx.key: is empty"),
            (b"\x00\xff" * 100, "mx.key: holds no private key; a PEM file with a PRIVATE KEY block is needed"),
            (LEAF.chain_pem, "mx.key: holds no private key; a PEM file with a PRIVATE KEY block is needed"),
            (LEAF.key_pem * 2, "mx.key: holds 2 private keys; exactly one is needed"),
            (key_pem(LEAF.key, b"secret"), "mx.key: the private key is encrypted; give it without a passphrase"),
            (ENCRYPTED_TRADITIONAL, "mx.key: the private key is encrypted; give it without a passphrase"),
            (LEAF.key_pem[:-30], "mx.key: the PRIVATE KEY is cut off: its END line is missing; write the file whole"),
        ],
    )  # fmt: skip
    def test_keys(self, tmp_path: Path, key: bytes, told: str) -> None:
        assert problems(tmp_path, key=key) == (told,)

    @pytest.mark.parametrize(
        ("chain", "told"),
        [
            (b"", "mx.pem: is empty"),
            (LEAF.certificate.public_bytes(serialization.Encoding.DER), "mx.pem: holds no certificate in PEM"),
            (LEAF.key_pem, "mx.pem: holds no certificate in PEM"),
            (LEAF.chain_pem[:-5], "mx.pem: the CERTIFICATE is cut off: its END line is missing; write the file whole"),
        ],
    )  # fmt: skip
    def test_chains(self, tmp_path: Path, chain: bytes, told: str) -> None:
        assert problems(tmp_path, chain) == (told,)

    def test_garbage_in_a_certificate(self, tmp_path: Path) -> None:
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        assert problems(tmp_path, LEAF.chain_pem + broken)[0].startswith("mx.pem: certificate 3 cannot be read: ")

    @pytest.mark.parametrize(
        ("path", "told"),
        [
            ("/nonexistent/mx.pem", "/nonexistent/mx.pem: cannot be read: No such file or directory"),
            ("/", "/: is a directory; name a file"),
            ("/dev/zero", "/dev/zero: is not a regular file; name a file"),
            ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
        ],
    )
    def test_places(self, tmp_path: Path, path: str, told: str) -> None:
        good = LEAF.write(tmp_path)
        for files in (evolve(good, chain=Path(path)), evolve(good, key=Path(path))):
            with pytest.raises(CertificateError) as caught:
                load_credential(files, NOW)
            assert caught.value.problems == (told,)

    def test_name_with_nul(self, tmp_path: Path) -> None:
        with pytest.raises(CertificateError):
            load_credential(evolve(LEAF.write(tmp_path), chain=Path("a\0b")), NOW)

    def test_named_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CertificateError, match="is not a regular file"):
            load_credential(evolve(LEAF.write(tmp_path), chain=tmp_path / "pipe"), NOW)

    def test_endless_file(self, tmp_path: Path) -> None:
        with (tmp_path / "big").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(CertificateError, match="is larger than 32 MiB"):
            load_credential(evolve(LEAF.write(tmp_path), chain=tmp_path / "big"), NOW)

    def test_half_written_at_every_octet(self, tmp_path: Path) -> None:
        """
        A file caught while it is written is refused, or (once its last END line is there) whole.
        """
        for cut in range(len(LEAF.key_pem) - 1):
            with pytest.raises(CertificateError):
                loaded(tmp_path, LEAF.chain_pem, LEAF.key_pem[:cut])
        leaf_alone = len(pem(LEAF.certificate))
        for cut in range(0, len(LEAF.chain_pem) - 1, 5):
            try:
                credential = loaded(tmp_path, LEAF.chain_pem[:cut], LEAF.key_pem)
            except CertificateError:
                continue
            assert leaf_alone - 1 <= cut, cut
            assert credential.leaf == LEAF.certificate

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(
        chain=st.binary(max_size=200),
        key=st.binary(max_size=200),
        label=st.sampled_from([b"CERTIFICATE", b"EC PRIVATE KEY", b"PRIVATE KEY"]),
    )
    def test_any_octets(self, tmp_path_factory: pytest.TempPathFactory, chain: bytes, key: bytes, label: bytes) -> None:
        folder = tmp_path_factory.getbasetemp()
        framed = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label, key, label)
        for octets in (chain, framed):
            with pytest.raises(CertificateError):
                loaded(folder, octets, octets)
