"""
Certificates that live: changed files are noticed, good ones are served, bad ones never.
"""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from OpenSSL import SSL

from tests.support.certificates import DAY, NOW, Authority, Issued, key_pem, private_key
from tests.support.handshake import client_connection, handshake, sent
from tlsgate.tls.certificates import CertificateFiles
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.keeper import IdentityKeeper, Reload

ROOT = Authority.root()
OLD = ROOT.issue("mx.example.org", number=1)
NEW = ROOT.issue("mx.example.org", number=2)


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return OLD.write(tmp_path)


@pytest.fixture
def keeper(files: CertificateFiles) -> IdentityKeeper:
    keeper = IdentityKeeper(TlsTerms((files,)))
    assert keeper.reload(NOW) == Reload(changed=True)
    return keeper


def served(keeper: IdentityKeeper) -> object:
    assert keeper.identity is not None
    client = client_connection()
    assert handshake(keeper.identity.connection(), client).established
    return client.get_peer_certificate(as_cryptography=True)


def put(path: Path, content: bytes) -> None:
    """
    Replace a file the way certbot does: by renaming another over it.
    """
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)


class TestReload:
    def test_nothing_is_served_before_the_first_3207_01(self, files: CertificateFiles) -> None:
        """
        3207-01: without a certificate there is no identity, and STARTTLS is not to be announced.
        """
        keeper = IdentityKeeper(TlsTerms((files,)))
        assert keeper.identity is None
        assert keeper.stale()
        files.key.unlink()
        assert not keeper.reload(NOW).changed
        assert keeper.identity is None

    def test_new_certificate_is_served(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        NEW.write(files.chain.parent)
        assert keeper.reload(NOW) == Reload(changed=True)
        assert served(keeper) == NEW.certificate

    def test_established_sessions_go_on(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        assert keeper.identity is not None
        server, client = keeper.identity.connection(), client_connection()
        begun = keeper.identity.connection(), client_connection()
        assert handshake(server, client).established
        NEW.write(files.chain.parent)
        assert keeper.reload(NOW).changed
        assert sent(client, server, b"NOOP\r\n") == b"NOOP\r\n"
        assert handshake(*begun).established
        assert begun[1].get_peer_certificate(as_cryptography=True) == OLD.certificate

    @pytest.mark.parametrize(
        ("chain", "key"),
        [
            (NEW.chain_pem, OLD.key_pem),
            (OLD.chain_pem, NEW.key_pem),
            (NEW.chain_pem[:-30], NEW.key_pem),
            (NEW.chain_pem, NEW.key_pem[:-30]),
            (b"", b""),
            (NEW.chain_pem, key_pem(NEW.key, b"secret")),
            (
                ROOT.issue("mx.example.org", number=2, not_before=NOW - 9 * DAY, not_after=NOW - DAY).chain_pem,
                NEW.key_pem,
            ),
        ],
        ids=["old key", "old chain", "chain half written", "key half written", "empty", "encrypted", "expired"],
    )
    def test_bad_ones_are_never_served(
        self, keeper: IdentityKeeper, files: CertificateFiles, chain: bytes, key: bytes
    ) -> None:
        put(files.chain, chain)
        put(files.key, key)
        reload = keeper.reload(NOW)
        assert not reload.changed
        assert all(str(files.chain.parent) in problem for problem in reload.problems)
        assert reload.problems
        assert served(keeper) == OLD.certificate

    def test_a_hundred_swaps(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        """
        In whatever order chain and key arrive, what is served is always a pair that fits.
        """
        current: Issued = OLD
        for number in range(100):
            coming = NEW if current is OLD else OLD
            first, second = (files.chain, coming.chain_pem), (files.key, coming.key_pem)
            if number % 2:
                first, second = second, first
            put(*first)
            assert keeper.stale()
            assert not keeper.reload(NOW).changed
            assert served(keeper) == current.certificate
            put(*second)
            assert keeper.stale()
            assert keeper.reload(NOW).changed
            assert served(keeper) == coming.certificate
            current = coming

    def test_new_terms_are_taken_over_only_if_good(self, keeper: IdentityKeeper, tmp_path: Path) -> None:
        before = keeper.terms
        bad = evolve(before, certificates=(CertificateFiles(tmp_path / "no.pem", tmp_path / "no.key"),))
        assert not keeper.reload(NOW, bad).changed
        assert keeper.terms == before
        assert not keeper.stale()
        good = evolve(before, certificates=(NEW.write(tmp_path, "other"),))
        assert keeper.reload(NOW, good).changed
        assert keeper.terms == good
        assert served(keeper) == NEW.certificate
        assert not keeper.stale()

    def test_warnings_are_handed_on(self, keeper: IdentityKeeper) -> None:
        assert "in 2 days" in keeper.reload(NOW + 88 * DAY).warnings[0]


class TestStale:
    def test_not_without_a_change(self, keeper: IdentityKeeper) -> None:
        assert not keeper.stale()

    @pytest.mark.parametrize("which", ["chain", "key"])
    def test_rename(self, keeper: IdentityKeeper, files: CertificateFiles, which: str) -> None:
        path: Path = getattr(files, which)
        put(path, path.read_bytes())
        assert keeper.stale()
        assert keeper.reload(NOW).changed
        assert not keeper.stale()

    def test_change_in_place(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        with files.chain.open("ab") as file:
            file.write(b"\n")
        assert keeper.stale()

    def test_touched(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        os.utime(files.key, ns=(0, 1))
        assert keeper.stale()

    def test_made_readable(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        """
        A new key that only root may read is refused, and tried again once its owner or its mode is another.
        """
        put(files.key, OLD.key_pem)
        keeper.reload(NOW)
        assert not keeper.stale()
        files.key.chmod(0o640)
        assert keeper.stale()

    def test_written_by_something_that_keeps_the_time(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        """
        `cp -p` and `rsync -t` set the time of the content back to that of another file, and the size may be the same.
        """
        before = files.key.stat()
        files.key.write_bytes(OLD.key_pem[::-1])
        os.utime(files.key, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert keeper.stale()

    def test_removed_and_back(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        content = files.key.read_bytes()
        files.key.unlink()
        assert keeper.stale()
        assert not keeper.reload(NOW).changed
        assert not keeper.stale()
        files.key.write_bytes(content)
        assert keeper.stale()
        assert keeper.reload(NOW).changed

    def test_bad_files_are_tried_once(self, keeper: IdentityKeeper, files: CertificateFiles) -> None:
        """
        A fault that stays is reported once, not at every look.
        """
        put(files.key, b"rubbish")
        assert keeper.stale()
        keeper.reload(NOW)
        assert not keeper.stale()

    def test_certbot(self, tmp_path: Path) -> None:
        """
        live/mx/fullchain.pem is a link into archive/, and a renewal changes where it points.
        """
        for number, issued in ((1, OLD), (2, NEW)):
            (tmp_path / f"archive{number}").mkdir()
            issued.write(tmp_path / f"archive{number}")
        live = CertificateFiles(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
        self.point(live.chain, "archive1/mx.pem")
        self.point(live.key, "archive1/mx.key")
        keeper = IdentityKeeper(TlsTerms((live,)))
        assert keeper.reload(NOW).changed
        self.point(live.chain, "archive2/mx.pem")
        assert keeper.stale()
        assert not keeper.reload(NOW).changed
        self.point(live.key, "archive2/mx.key")
        assert keeper.stale()
        assert keeper.reload(NOW).changed
        assert served(keeper) == NEW.certificate

    def test_kubernetes(self, tmp_path: Path) -> None:
        """
        tls.crt -> ..data/tls.crt, and ..data -> ..2026_11_22: one rename swaps all files of a secret.
        """
        for name, issued in (("..1", OLD), ("..2", NEW)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "tls.crt").write_bytes(issued.chain_pem)
            (tmp_path / name / "tls.key").write_bytes(issued.key_pem)
        self.point(tmp_path / "..data", "..1")
        for name in ("tls.crt", "tls.key"):
            self.point(tmp_path / name, f"..data/{name}")
        keeper = IdentityKeeper(TlsTerms((CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key"),)))
        assert keeper.reload(NOW).changed
        self.point(tmp_path / "..data", "..2")
        assert keeper.stale()
        assert keeper.reload(NOW).changed
        assert served(keeper) == NEW.certificate
        assert not keeper.stale()

    def test_client_ca_and_lists_are_watched_too(self, keeper: IdentityKeeper, tmp_path: Path) -> None:
        ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
        ca.write_bytes(OLD.chain_pem)
        crl.write_bytes(ROOT.crl())
        asking = evolve(keeper.terms, client_ca=ca, client_crls=(crl,), request_client_certificate=True)
        assert keeper.reload(NOW, asking).changed
        for path in (ca, crl):
            assert not keeper.stale()
            put(path, path.read_bytes())
            assert keeper.stale()
            keeper.reload(NOW)

    def test_ticket_keys_are_changed_daily_9325_08(self, keeper: IdentityKeeper) -> None:
        """
        9325-08: whoever hands in the time gets new ticket keys once a day, and once only.
        """
        assert not keeper.stale(NOW + timedelta(hours=23))
        later = NOW + timedelta(hours=24)
        assert keeper.stale(later)
        before = keeper.identity
        assert keeper.reload(later).changed
        assert keeper.identity is not before
        assert not keeper.stale(later)

    def test_time_does_not_repeat_a_failed_reload(self, keeper: IdentityKeeper) -> None:
        expired = NOW + 400 * DAY
        assert keeper.stale(expired)
        assert not keeper.reload(expired).changed
        assert not keeper.stale(expired + timedelta(hours=1))

    @staticmethod
    def point(link: Path, target: str) -> None:
        beside = link.with_name("link.new")
        beside.symlink_to(target)
        beside.replace(link)


def test_versions_of_tls_do_not_matter_to_a_swap(keeper: IdentityKeeper, files: CertificateFiles) -> None:
    NEW.write(files.chain.parent)
    keeper.reload(NOW)
    assert keeper.identity is not None
    client = client_connection(maximum=SSL.TLS1_2_VERSION)
    assert handshake(keeper.identity.connection(), client).established
    assert client.get_peer_certificate(as_cryptography=True) == NEW.certificate


def test_keys_differ() -> None:
    assert private_key("ec", 1) is not private_key("ec", 2)
