"""
Sessions of TLS that are resumed are judged as anew: a ticket is no way round the law.
"""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, frozen

from tests.integration.configured import ConfiguredGate, Entry, configured
from tests.integration.gate import Identity
from tests.integration.inbox import Inbox
from tests.integration.processes import free_ports
from tests.integration.routes import TLS_MODES, Mode
from tests.integration.shapes import Shape, Shown
from tests.integration.wire import CLIENT_NAME, Reply, Wire
from tests.support.certificates import Authority, pem

CONFIG = """
hostname = "gate.example"
{listeners}
[[level]]
name = "x25519"
groups = ["x25519"]

[[level]]
name = "latest"
min_version = "TLSv1.3"
{levels}
[tls]
certificates = [{{ chain = "{certificate}", key = "{key}" }}]
{tls}

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
probe_seconds = 0
"""
LISTENER = """
[[listener]]
name = "{name}"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "{mode}"
level = "{level}"
"""
LEVELS = {"required": "required", "strong": "strong", "x25519": "x25519", "latest": "latest"}

VERSIONS = {
    "TLSv1.2": Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"),
    "TLSv1.3": Shape(ssl.TLSVersion.TLSv1_3),
}
CBC = Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA")
every_version = pytest.mark.parametrize("shape", VERSIONS.values(), ids=VERSIONS)
modes = pytest.mark.parametrize("mode", TLS_MODES)


@define
class Returning:
    """
    A client that keeps what it got for coming back. Stands in for an `ssl.SSLContext`.
    """

    context: ssl.SSLContext
    session: ssl.SSLSession | None = None

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        return self.context.wrap_socket(plain, server_hostname=server_hostname, session=self.session)


@frozen
class Visit:
    """
    One session: whether TLS was resumed, as the client knows it; the replies to EHLO and MAIL; the gate's verdict.
    """

    resumed: bool
    hello: Reply
    mail: Reply
    verdict: Entry


@frozen
class House:
    """
    A gate with a listener for each level, in each mode.
    """

    gate: ConfiguredGate
    ports: dict[tuple[str, Mode], int]

    def client(self, shape: Shape, certificates: dict[str, Shown] | None = None) -> Returning:
        """
        Return a client that has not been here before.
        """
        assert self.gate.authority is not None
        return Returning(shape.context(self.gate.authority, certificates or {}))

    def first_command(self, client: Returning, level: str, mode: Mode) -> tuple[bool, Reply]:
        """
        Have *client* come to a listener, and say MAIL at once; return whether TLS was resumed, and the reply.
        """
        context: Any = client
        with Wire(self.gate.route(self.ports[level, mode], mode), context) as wire:
            wire.reply()
            if mode == "starttls":
                assert wire.command("STARTTLS").code == 220
                wire.handshake()
            mail = wire.command("MAIL FROM:<alice@client.example>")
            assert isinstance(wire._socket, ssl.SSLSocket)
            return bool(wire._socket.session_reused), mail

    def visit(self, client: Returning, level: str = "required", mode: Mode = "starttls") -> Visit:
        """
        Have *client* come to a listener, resume what it can, and keep what it is given.
        """
        before = len(self.gate.journal("verdict"))
        context: Any = client
        with Wire(self.gate.route(self.ports[level, mode], mode), context) as wire:
            assert wire.reply().code in {220, 554}
            hello = wire.command(f"EHLO {CLIENT_NAME}")
            if mode == "starttls":
                assert wire.command("STARTTLS").code == 220
                wire.handshake()
                hello = wire.command(f"EHLO {CLIENT_NAME}")
            mail = wire.command("MAIL FROM:<alice@client.example>")
            assert isinstance(wire._socket, ssl.SSLSocket)
            client.session = wire._socket.session
            resumed = bool(wire._socket.session_reused)
            assert wire.command("QUIT").code == 221
        return Visit(resumed, hello, mail, self.gate.wait_for(before + 1, "verdict")[before])


def ports_for(*modes: Mode) -> dict[tuple[str, Mode], int]:
    """
    Return a port for each level and mode.
    """
    listening = [(level, mode) for level in LEVELS for mode in modes]
    return dict(zip(listening, free_ports(len(listening)), strict=True))


def configuration(
    ports: dict[tuple[str, Mode], int], inbox: Inbox, identity: Identity, *, tls: str = "", levels: str = "",
    own: dict[str, str] = LEVELS,
) -> str:  # fmt: skip
    """
    Return the configuration of a house.
    """
    listeners = "".join(
        LISTENER.format(name=f"{name}-{mode}", port=port, mode=mode, level=own[name])
        for (name, mode), port in ports.items()
    )
    return CONFIG.format(
        listeners=listeners,
        levels=levels,
        tls=tls,
        certificate=identity.certificate,
        key=identity.key,
        backend=inbox.port,
    )


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    """
    The backend.
    """
    with Inbox() as inbox:
        yield inbox


def house(folder: Path, inbox: Inbox, identity: Identity, **more: Any) -> Iterator[House]:
    """
    Have a gate running.
    """
    ports = ports_for(*TLS_MODES)
    with configured(folder, configuration(ports, inbox, identity, **more), identity.authority) as gate:
        yield House(gate, ports)


@pytest.fixture(scope="module")
def resuming(inbox: Inbox, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """
    The gate as it is by default.
    """
    yield from house(tmp_path_factory.mktemp("resuming"), inbox, identity)


@pytest.fixture(scope="module")
def forgetful(inbox: Inbox, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """
    The gate with resumption switched off.
    """
    yield from house(tmp_path_factory.mktemp("forgetful"), inbox, identity, tls="resumption = false")


@modes
@every_version
@pytest.mark.parametrize("level", ["required", "strong", "x25519"])
def test_who_passed_passes_again_and_is_resumed(resuming: House, shape: Shape, level: str, mode: Mode) -> None:
    """
    9325-3.4: with what is known of the first handshake, the second one gets the same verdict.
    """
    client = resuming.client(shape)
    first = resuming.visit(client, level, mode)
    second = resuming.visit(client, level, mode)
    assert (first.resumed, second.resumed) == (False, True)
    for visit in (first, second):
        assert (visit.hello.code, visit.mail.code) == (250, 250), visit
        assert visit.verdict["resumed"] is visit.resumed
        assert visit.verdict["outcome"] == "pass"
    for fact in ("tls", "cipher", "bits", "group"):
        assert first.verdict[fact] == second.verdict[fact]


@modes
@pytest.mark.parametrize("level", ["strong", "latest"])
def test_a_ticket_of_a_mild_level_is_none_for_a_strict_one(resuming: House, level: str, mode: Mode) -> None:
    """
    3207-10: the session is resumed, and refused as a full handshake would have been.
    """
    client = resuming.client(CBC)
    assert resuming.visit(client, "required", mode).mail.code == 250
    again = resuming.visit(client, level, mode)
    assert again.resumed
    assert (again.hello.code, again.mail.code) == (554, 554)
    assert (again.verdict["resumed"], again.verdict["outcome"]) == (True, "refuse")
    # The handshake decides, not the EHLO behind it.
    resumed, mail = resuming.first_command(client, level, mode)
    assert (resumed, mail.code) == (True, 554)
    # And the refusal spoils nothing: where it sufficed, it still does.
    assert resuming.visit(client, "required", mode).mail.code == 250


@modes
@every_version
def test_switched_off_nothing_is_resumed(forgetful: House, shape: Shape, mode: Mode) -> None:
    """
    Whatever the client has kept.
    """
    client = forgetful.client(shape)
    visits = [forgetful.visit(client, "required", mode) for _ in range(3)]
    assert [visit.resumed for visit in visits] == [False, False, False]
    assert [visit.verdict["resumed"] for visit in visits] == [False, False, False]
    assert {visit.mail.code for visit in visits} == {250}


@every_version
def test_a_level_that_changed_between_two_visits_is_put_to_the_second(
    inbox: Inbox, identity: Identity, tmp_path: Path, shape: Shape
) -> None:
    """
    HUP made the listener strict; the ticket from before does not help.
    """
    ports = ports_for("starttls")
    mild = configuration(ports, inbox, identity)
    strict = configuration(
        ports,
        inbox,
        identity,
        levels='[[level]]\nname = "none"\ngroups = ["x448"]\n',
        own={**LEVELS, "required": "none"},
    )
    with configured(tmp_path, mild, identity.authority) as gate:
        house = House(gate, ports)
        client = house.client(shape)
        assert house.visit(client).mail.code == 250
        assert house.visit(client).resumed
        assert gate.reload(strict)["event"] == "reloaded"
        after = house.visit(client)
        assert (after.hello.code, after.mail.code) == (554, 554)
        assert "x448" in after.hello.lines[0]
        assert gate.reload(mild)["event"] == "reloaded"
        assert house.visit(client).mail.code == 250


@every_version
def test_where_client_certificates_count_every_handshake_is_a_full_one(
    inbox: Inbox, identity: Identity, tmp_path: Path, shape: Shape
) -> None:
    """
    A certificate that was revoked between two visits is found out at the second.
    """
    authority = Authority.root("Partners")
    issued = authority.issue("mail.partner.example")
    (tmp_path / "client-ca.pem").write_bytes(pem(authority.certificate))
    (tmp_path / "client.crl").write_bytes(authority.crl())
    certificates = {"partner": Shown.written(issued, tmp_path, "partner")}
    ports = ports_for("starttls")
    config = configuration(
        ports, inbox, identity, tls='client_ca = "client-ca.pem"\nclient_crls = ["client.crl"]',
        own={**LEVELS, "required": "verified"},
    )  # fmt: skip
    with configured(tmp_path, config, identity.authority) as gate:
        house = House(gate, ports)
        client = house.client(Shape(shape.version, shape.ciphers, certificate="partner"), certificates)
        for _ in range(2):
            visit = house.visit(client)
            assert (visit.resumed, visit.mail.code) == (False, 250)
        (tmp_path / "client.crl").write_bytes(authority.crl(issued.certificate))
        assert gate.reload()["event"] == "reloaded"
        visit = house.visit(client)
        assert not visit.resumed
        assert visit.hello.code == 554
        assert "certificate revoked" in visit.hello.lines[0]
