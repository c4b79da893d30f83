"""
The decision table: what each shape of client meets at each level, over real handshakes and both ways into TLS.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.hashes import SHA256

from tests.integration.configured import ConfiguredGate, configured, quoted
from tests.integration.gate import Identity
from tests.integration.processes import free_ports, wait_until
from tests.integration.recorder import Recorder
from tests.integration.routes import TLS_MODES, Mode
from tests.integration.shapes import Hybrid, Shape, Shown
from tests.integration.wire import CLIENT_NAME, Reply, Wire
from tests.support.certificates import DAY, NOW, Authority, pem, self_signed

# Rows are shapes of clients, columns are levels.
#
#   pass   the command reaches the backend
#   530    in plaintext, and TLS is demanded
#   else   554, and the reason has the words that WORDS gives for it
#
# `partner` knows mail.partner.example; `pinned` knows the fingerprint of the self-signed certificate; `hybrid` wants
# X25519MLKEM768; `modern` offers TLS, and is strict with who takes it.
TABLE = """
                offered   required  strong    verified     modern    hybrid    partner      pinned
plaintext       pass      530       530       530          pass      530       530          530
TLSv1           pass      pass      old       old          old       group     old          old
TLSv1.1         pass      pass      old       old          old       group     old          old
CBC             pass      pass      aead      aead         aead      group     none         none
static-RSA      pass      pass      secrecy   secrecy      pass      no-group  none         none
AEAD            pass      pass      pass      none         pass      group     none         none
P-256           pass      pass      pass      none         pass      group     none         none
X25519          pass      pass      pass      none         pass      group     none         none
X25519MLKEM768  pass      pass      pass      none         pass      pass      none         none
self-signed     pass      pass      pass      self-signed  pass      group     self-signed  pass
expired         pass      pass      pass      expired      pass      group     expired      expired
revoked         pass      pass      pass      revoked      pass      group     revoked      revoked
wrong-CA        pass      pass      pass      stranger     pass      group     stranger     stranger
wrong-name      pass      pass      pass      pass         pass      group     name         unknown
right           pass      pass      pass      pass         pass      group     pass         unknown
right-CBC       pass      pass      aead      aead         aead      group     pass         unknown
right-TLSv1.2   pass      pass      pass      pass         pass      group     pass         unknown
"""
WORDS = {
    "old": "is too old",
    "aead": "no AEAD",
    "secrecy": "has no forward secrecy",
    "group": "key exchange by ",
    "no-group": "key exchange by no group",
    "none": "no client certificate",
    "self-signed": "does not verify (self-signed certificate)",
    "expired": "does not verify (certificate has expired)",
    "revoked": "does not verify (certificate revoked)",
    "stranger": "does not verify (unable to get local issuer certificate)",
    "name": "a client certificate for mail.other.example",
    "unknown": "an unknown client certificate",
}
SHAPES = {
    "TLSv1": Shape(ssl.TLSVersion.TLSv1),
    "TLSv1.1": Shape(ssl.TLSVersion.TLSv1_1),
    "CBC": Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA"),
    "static-RSA": Shape(ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256"),
    "AEAD": Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"),
    "P-256": Shape(ssl.TLSVersion.TLSv1_3, group="prime256v1"),
    "X25519": Shape(ssl.TLSVersion.TLSv1_3),
    "self-signed": Shape(ssl.TLSVersion.TLSv1_3, certificate="self-signed"),
    "expired": Shape(ssl.TLSVersion.TLSv1_3, certificate="expired"),
    "revoked": Shape(ssl.TLSVersion.TLSv1_3, certificate="revoked"),
    "wrong-CA": Shape(ssl.TLSVersion.TLSv1_3, certificate="wrong-CA"),
    "wrong-name": Shape(ssl.TLSVersion.TLSv1_3, certificate="wrong-name"),
    "right": Shape(ssl.TLSVersion.TLSv1_3, certificate="right"),
    "right-CBC": Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-SHA", certificate="right"),
    "right-TLSv1.2": Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305", certificate="right"),
}
# Below the default floor: an alert whatever the level.
ANCIENT = ("TLSv1", "TLSv1.1")

LISTENER = """
[[listener]]
name = "{level}-{mode}"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "{mode}"
level = "{level}"
"""
CONFIG = """
hostname = "gate.example"
{listeners}

[tls]
certificates = [{{ chain = "{certificate}", key = "{key}" }}]
legacy = {legacy}
client_ca = "client-ca.pem"
client_crls = ["client.crl"]

[[level]]
name = "modern"
tls = "offered"
min_version = "TLSv1.2"
aead = true

[[level]]
name = "hybrid"
groups = ["X25519MLKEM768"]

[[level]]
name = "partner"
min_version = "TLSv1.2"
client_certificate = "verified"
client_names = ["mail.partner.example"]

[[level]]
name = "pinned"
min_version = "TLSv1.2"
client_certificate = "verified"
client_fingerprints = {fingerprints}

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
probe_seconds = 0
"""


def cells() -> dict[str, dict[str, str]]:
    """
    The table: shape -> level -> what it meets.
    """
    (_, *levels), *rows = [
        ("", *line.split()) if line[0] == " " else line.split() for line in TABLE.split("\n") if line
    ]
    return {shape: dict(zip(levels, row, strict=True)) for shape, *row in rows}


CELLS = cells()
LEVELS = tuple(CELLS["plaintext"])
every_shape = pytest.mark.parametrize("shape", [shape for shape in CELLS if shape != "plaintext"])
every_level = pytest.mark.parametrize("level", LEVELS)
modes = pytest.mark.parametrize("mode", TLS_MODES)


@frozen
class Clients:
    """
    The certificates that clients show, and where the authority's files are.
    """

    folder: Path
    shown: dict[str, Shown]
    pinned: str


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """
    A client for every row of the table.
    """
    folder = tmp_path_factory.mktemp("clients")
    authority, stranger = Authority.root("Partners"), Authority.root("Strangers", number=102)
    own = self_signed("mail.partner.example", number=1)
    revoked = authority.issue("mail.partner.example")
    issued = {
        "self-signed": own,
        "expired": authority.issue("mail.partner.example", not_before=NOW - 9 * DAY, not_after=NOW - DAY),
        "revoked": revoked,
        "wrong-CA": stranger.issue("mail.partner.example"),
        "wrong-name": authority.issue("mail.other.example"),
        "right": authority.issue("mail.partner.example"),
    }
    (folder / "client-ca.pem").write_bytes(pem(authority.certificate))
    (folder / "client.crl").write_bytes(authority.crl(revoked.certificate))
    shown = {name: Shown.written(each, folder, name) for name, each in issued.items()}
    return Clients(folder, shown, own.certificate.fingerprint(SHA256()).hex())


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """
    The backend that hears nothing of who is refused.
    """
    with Recorder() as recorder:
        yield recorder


@frozen
class Court:
    """
    A gate with a listener for each level, in each mode.
    """

    gate: ConfiguredGate
    ports: dict[tuple[str, Mode], int]
    recorder: Recorder
    clients: Clients

    def wire(self, shape: str, level: str, mode: Mode) -> Wire:
        """
        Return a client of that shape before that level.
        """
        if shape == "plaintext":
            return Wire(self.gate.route(self.ports[level, "starttls"], "plain"))
        route = self.gate.route(self.ports[level, mode], mode)
        assert route.authority is not None
        context: Any = Hybrid(route.authority)
        if shape in SHAPES:
            context = SHAPES[shape].context(route.authority, self.clients.shown)
        return Wire(route, context)

    def verdict(self, since: int) -> dict[str, Any]:
        """
        Return the verdict that came after the first *since*.
        """
        return self.gate.wait_for(since + 1, "verdict")[since]


def court(folder: Path, recorder: Recorder, clients: Clients, identity: Identity, *, legacy: bool) -> Iterator[Court]:
    """
    Have a gate of that floor running, through with asking the backend for its name.
    """
    listening: list[tuple[str, Mode]] = [(level, mode) for level in LEVELS for mode in TLS_MODES]
    ports = dict(zip(listening, free_ports(len(listening)), strict=True))
    config = CONFIG.format(
        listeners="".join(LISTENER.format(level=level, mode=mode, port=port) for (level, mode), port in ports.items()),
        certificate=identity.certificate,
        key=identity.key,
        legacy=str(legacy).lower(),
        fingerprints=quoted([clients.pinned]),
        backend=recorder.port,
    )
    for file in ("client-ca.pem", "client.crl"):
        (folder / file).write_bytes((clients.folder / file).read_bytes())
    recorder.heard()
    with configured(folder, config, identity.authority) as gate:
        wait_until(recorder.heard, 10.0, lambda: "the backend was not asked")
        yield Court(gate, ports, recorder, clients)


@pytest.fixture(scope="module")
def lowered(
    recorder: Recorder, clients: Clients, identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Court]:
    """
    The gate whose floor lets everything in.
    """
    yield from court(tmp_path_factory.mktemp("lowered"), recorder, clients, identity, legacy=True)


@pytest.fixture(scope="module")
def usual(
    recorder: Recorder, clients: Clients, identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Court]:
    """
    The gate with the floor as it is.
    """
    yield from court(tmp_path_factory.mktemp("usual"), recorder, clients, identity, legacy=False)


def answered(wire: Wire) -> Reply:
    """
    Return the reply to MAIL, after whatever comes before it; a refused client goes on, against the replies.
    """
    mode = wire.route.mode
    assert wire.reply().code in ({220, 554} if mode == "implicit" else {220})
    hello = wire.command(f"EHLO {CLIENT_NAME}")
    if mode == "starttls":
        assert "STARTTLS" in hello.keywords
        assert wire.command("STARTTLS").code == 220
        wire.handshake()
        hello = wire.command(f"EHLO {CLIENT_NAME}")
    mail = wire.command("MAIL FROM:<alice@client.example>")
    # Who is refused inside TLS is refused from the first command on (3207-12), and who is not, from none.
    assert hello.code == (554 if mail.code == 554 else 250), hello
    assert wire.command("QUIT").code == 221
    return mail


def expect(court: Court, shape: str, level: str, mode: Mode) -> None:
    """
    Check one cell of the table: the reply, the journal, and what the backend heard.
    """
    cell = CELLS[shape][level]
    court.recorder.heard()
    before = len(court.gate.journal("verdict"))
    with court.wire(shape, level, mode) as wire:
        mail = answered(wire)
    heard = {line.strip() for one in court.recorder.heard() for line in one.lines}
    text = " ".join(mail.lines)
    if cell == "pass":
        assert mail.code == 250, text
        assert b"MAIL FROM:<alice@client.example>" in heard
    else:
        assert mail.code == (530 if cell == "530" else 554), text
        assert WORDS.get(cell, "Must issue a STARTTLS command first") in text
        assert len(text) <= 506
        # A level that is content with plaintext has had the EHLO before TLS forwarded.
        before_tls = {b"EHLO client.example"} if CELLS["plaintext"][level] == "pass" and mode == "starttls" else set()
        assert heard <= {b"QUIT", *before_tls}
    if shape == "plaintext" and cell == "pass":
        # There is nothing to be judged.
        return
    verdict = court.verdict(before)
    assert verdict["outcome"] == ("pass" if cell == "pass" else "refuse")
    assert (verdict["level"], verdict["listener"]) == (level, f"{level}-{mode}")
    assert verdict["stage"] == ("plaintext" if shape == "plaintext" else "handshake")
    assert not verdict["resumed"] if shape != "plaintext" else verdict["tls"] is None


class TestTable:
    """
    3207-10, 3207-12, 9325-01, 9325-03: the verdict depends on the level and on what the handshake achieved, and not on
    the way into TLS.
    """

    @every_level
    def test_plaintext(self, lowered: Court, level: str) -> None:
        """
        Where TLS is demanded, MAIL gets 530 and the backend hears nothing (3207-05).
        """
        expect(lowered, "plaintext", level, "starttls")

    @modes
    @every_level
    @every_shape
    def test_lowered_floor(self, lowered: Court, shape: str, level: str, mode: Mode) -> None:
        """
        Everybody gets as far as the level, and is told in words.
        """
        expect(lowered, shape, level, mode)

    @modes
    @every_level
    @pytest.mark.parametrize("shape", [shape for shape in CELLS if shape not in {"plaintext", *ANCIENT}])
    def test_usual_floor(self, usual: Court, shape: str, level: str, mode: Mode) -> None:
        """
        The floor changes nothing for who is above it.
        """
        expect(usual, shape, level, mode)

    @modes
    @every_level
    @pytest.mark.parametrize("shape", ANCIENT)
    def test_below_the_usual_floor(self, usual: Court, shape: str, level: str, mode: Mode) -> None:
        """
        An alert, and no verdict: nothing was negotiated.
        """
        failed = len(usual.gate.journal("handshake-failed"))
        verdicts = len(usual.gate.journal("verdict"))
        with (
            pytest.raises(ssl.SSLError, match="alert protocol version"),
            usual.wire(shape, level, mode) as wire,
        ):
            answered(wire)
        entry = usual.gate.wait_for(failed + 1, "handshake-failed")[failed]
        assert entry["listener"] == f"{level}-{mode}"
        assert len(usual.gate.journal("verdict")) == verdicts
        usual.recorder.heard()
