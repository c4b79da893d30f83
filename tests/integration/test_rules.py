"""
One port for everybody: the world is served opportunistically, a partner must show a certificate, a clinic's recipients
take mail over strong TLS only, printers may use TLS 1.0 from their own network, and a tenant has a backend of its own.

Clients come through a balancer, so that they can be from anywhere.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import define, frozen

from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.inbox import Inbox
from tests.integration.processes import free_ports
from tests.integration.shapes import Shape, Shown
from tests.integration.wire import Reply, Wire
from tests.support.certificates import Authority, pem

CONFIG = """
hostname = "gate.example"

[[listener]]
name = "mx"
endpoint = "tcp:{mx}:interface=127.0.0.1"
level = "world"
proxy_protocol_from = ["127.0.0.0/8"]

[[listener]]
name = "picky"
endpoint = "tcp:{picky}:interface=127.0.0.1"

[[level]]
name = "world"
tls = "offered"
min_version = "TLSv1.2"

[[level]]
name = "printers"
tls = "offered"
min_version = "TLSv1"

[[level]]
name = "partner"
min_version = "TLSv1.2"
client_certificate = "verified"
client_names = ["mail.partner.example"]

[[rule]]
clients = ["10.20.0.0/16", "2001:db8:20::/48"]
level = "printers"

[[rule]]
clients = ["198.51.100.0/24"]
level = "partner"

[[rule]]
helo = ["*.partner.example"]
level = "partner"

[[rule]]
sni = ["tenant.example"]
level = "strong"
backend = "tenant"

[[rule]]
recipients = ["clinic.example"]
level = "strong"

[tls]
certificates = [{{ chain = "{certificate}", key = "{key}" }}]
legacy = true
client_ca = "client-ca.pem"
{tls}

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
probe_seconds = 0

[[backend_group]]
name = "tenant"
endpoints = ["tcp:127.0.0.1:{tenant}"]
accept_open_relay = true
probe_seconds = 0
"""

OLD = Shape(ssl.TLSVersion.TLSv1)
CBC = Shape(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA")
GOOD = Shape(ssl.TLSVersion.TLSv1_3)
PARTNER = Shape(ssl.TLSVersion.TLSv1_3, certificate="partner")


@frozen
class Case:
    """
    Who comes, how, and what for; the codes that answer EHLO (inside TLS, if there is TLS), MAIL and RCPT.
    """

    client: str = "203.0.113.5"
    helo: str = "client.example"
    shape: Shape | None = None
    sni: str | None = None
    recipient: str = "bob@inbox.example"
    codes: tuple[int, int, int] = (250, 250, 250)


CASES = {
    "the world in plaintext": Case(),
    "the world in TLS": Case(shape=GOOD),
    "the world in CBC": Case(shape=CBC),
    "the world in old TLS": Case(shape=OLD, codes=(554, 554, 554)),
    "a printer in plaintext": Case(client="10.20.30.40"),
    "a printer in old TLS": Case(client="10.20.30.40", shape=OLD),
    "a printer's neighbour": Case(client="10.21.0.1", shape=OLD, codes=(554, 554, 554)),
    "a printer in IPv6": Case(client="2001:db8:20:1::7", shape=OLD),
    "a stranger in IPv6": Case(client="2001:db8:21::7", shape=OLD, codes=(554, 554, 554)),
    "the partner's network in plaintext": Case(client="198.51.100.9", codes=(250, 530, 530)),
    "the partner's network without a certificate": Case(client="198.51.100.9", shape=GOOD, codes=(554, 554, 554)),
    "the partner's network with it": Case(client="198.51.100.9", shape=PARTNER),
    "the partner's name in plaintext": Case(helo="mx1.partner.example", codes=(250, 530, 530)),
    "the partner's name without a certificate": Case(helo="MX1.Partner.Example", shape=GOOD, codes=(554, 554, 554)),
    "the partner's name with it": Case(helo="mx1.partner.example", shape=PARTNER),
    "a printer that claims the partner's name": Case(client="10.20.30.40", helo="mx1.partner.example"),
    "the clinic in plaintext": Case(recipient="dr@clinic.example", codes=(250, 250, 530)),
    "the clinic in CBC": Case(shape=CBC, recipient="dr@clinic.example", codes=(250, 250, 554)),
    "the clinic in TLS": Case(shape=GOOD, recipient="dr@clinic.example"),
    # The first match wins, and that is the rule about printers.
    "the clinic by printer": Case(client="10.20.30.40", recipient="dr@clinic.example"),
    "the tenant in TLS": Case(shape=GOOD, sni="tenant.example"),
    "the tenant in CBC": Case(shape=CBC, sni="Tenant.Example", codes=(554, 554, 554)),
    "somebody else's name in CBC": Case(shape=CBC, sni="other.example"),
}


@define
class Asking:
    """
    A client that asks for a name of its own choosing, and takes whatever certificate comes. Stands in for an
    `ssl.SSLContext`.
    """

    context: ssl.SSLContext
    name: str | None

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        if self.name is None:
            return self.context.wrap_socket(plain, server_hostname=server_hostname)
        self.context.check_hostname = False
        return self.context.wrap_socket(plain, server_hostname=self.name)


@frozen
class Town:
    """
    The gate, its backends, and what clients need.
    """

    gate: ConfiguredGate
    ports: Mapping[str, int]
    inbox: Inbox
    tenant: Inbox
    certificates: dict[str, Shown]

    def wire(self, case: Case, port: int) -> Wire:
        """
        Return the client of a case, connected.
        """
        route = self.gate.route(port, "plain" if case.shape is None else "starttls")
        assert route.authority is not None
        context: Any = None
        if case.shape is not None:
            context = Asking(case.shape.context(route.authority, self.certificates), case.sni)
        return Wire(route, context)

    def replies(self, case: Case, wire: Wire) -> list[Reply]:
        """
        Return the replies to EHLO, MAIL and RCPT, of a client that comes by the balancer.
        """
        family = "TCP4" if ip_address(case.client).version == 4 else "TCP6"
        ours = "192.0.2.1" if family == "TCP4" else "2001:db8::1"
        wire.send(f"PROXY {family} {case.client} {ours} 40001 25\r\n".encode())
        assert wire.reply().code == 220
        hello = wire.command(f"EHLO {case.helo}")
        if case.shape is not None:
            assert wire.command("STARTTLS").code == 220
            wire.handshake()
            hello = wire.command(f"EHLO {case.helo}")
        return [hello, wire.command("MAIL FROM:<alice@client.example>"), wire.command(f"RCPT TO:<{case.recipient}>")]


def town(folder: Any, identity: Identity, *, tls: str = "") -> Iterator[Town]:
    """
    Have it all running.
    """
    authority = Authority.root("Partners")
    (folder / "client-ca.pem").write_bytes(pem(authority.certificate))
    certificates = {"partner": Shown.written(authority.issue("mail.partner.example"), folder, "partner")}
    ports = dict(zip(("mx", "picky"), free_ports(2), strict=True))
    with Inbox() as inbox, Inbox() as tenant:
        config = CONFIG.format(
            **ports, certificate=identity.certificate, key=identity.key, backend=inbox.port, tenant=tenant.port, tls=tls
        )
        with configured(folder, config, identity.authority) as gate:
            yield Town(gate, ports, inbox, tenant, certificates)


@pytest.fixture(scope="module")
def usual(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """
    With what is reported only.
    """
    yield from town(tmp_path_factory.mktemp("usual"), identity)


@pytest.fixture(scope="module")
def strict(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """
    With alerts for who asks for what is not here.
    """
    yield from town(tmp_path_factory.mktemp("strict"), identity, tls='alpn = "reject"\nunknown_sni = "reject"')


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_everybody_gets_what_is_due(usual: Town, case: Case) -> None:
    """
    3207-23. The first rule that holds names the level, at the stage where it is known to hold.
    """
    with usual.wire(case, usual.ports["mx"]) as wire:
        replies = usual.replies(case, wire)
        assert tuple(reply.code for reply in replies) == case.codes, replies
        assert wire.command("QUIT").code == 221


def test_the_tenant_has_a_backend_of_its_own(usual: Town) -> None:
    """
    By the name in the handshake; whoever asks for another name, or for none, gets the others' backend.
    """
    for name, expected, other in (("tenant.example", usual.tenant, usual.inbox), (None, usual.inbox, usual.tenant)):
        case = Case(shape=GOOD, sni=name)
        message = f"Subject: for {name}\r\n\r\nhello".encode()
        with usual.wire(case, usual.ports["mx"]) as wire:
            usual.replies(case, wire)
            assert wire.command("DATA").code == 354
            wire.send(message + b"\r\n.\r\n")
            assert wire.reply().code == 250
        expected.session_with(message)
        assert message not in other.messages


def with_alpn(town: Town, *protocols: str) -> Wire:
    """
    Return a client at the listener without a balancer that proposes *protocols*.
    """
    route = town.gate.route(town.ports["picky"], "starttls")
    context = ssl.create_default_context(cafile=route.authority)
    context.set_alpn_protocols(protocols)
    return Wire(route, context)


@pytest.mark.parametrize("way", ["usual", "strict"])
@pytest.mark.parametrize("proposed", [["smtp"], ["http/1.1", "smtp"]], ids=["smtp", "both"])
def test_smtp_is_what_is_agreed_on(request: pytest.FixtureRequest, way: str, proposed: list[str]) -> None:
    """
    9325-3.7: ALPN with the name that IANA has for it.
    """
    with with_alpn(request.getfixturevalue(way), *proposed) as wire:
        wire.greeted()
        assert isinstance(wire._socket, ssl.SSLSocket)
        assert wire._socket.selected_alpn_protocol() == "smtp"
        wire.quit()


def test_another_protocol_is_reported(usual: Town) -> None:
    """
    The handshake goes on without, and the journal tells what was proposed.
    """
    before = len(usual.gate.journal("verdict"))
    with with_alpn(usual, "h2") as wire:
        wire.greeted()
        assert isinstance(wire._socket, ssl.SSLSocket)
        assert wire._socket.selected_alpn_protocol() is None
        wire.quit()
    assert usual.gate.wait_for(before + 1, "verdict")[before]["alpn"] == "h2"


def test_another_protocol_meets_an_alert_where_it_should(strict: Town) -> None:
    """
    RFC 7301 section 3.2.
    """
    with with_alpn(strict, "h2") as wire, pytest.raises(ssl.SSLError, match="no application protocol"):
        wire.greeted()
    strict.gate.wait_until(lambda entry: entry["reason"] == "no application protocol", "handshake-failed")


def test_an_unknown_name_meets_an_alert_where_it_should(strict: Town) -> None:
    """
    RFC 6066 section 3.
    """
    case = Case(shape=GOOD, sni="nobody.example")
    with strict.wire(case, strict.ports["picky"]) as wire, pytest.raises(ssl.SSLError, match="unrecognized name"):
        wire.greeted()
    strict.gate.wait_until(lambda entry: entry["reason"] == "unrecognized name", "handshake-failed")
    # Who asks for a name that there is, or for none, is served.
    for name in ("gate.example", None):
        with strict.wire(Case(shape=GOOD, sni=name), strict.ports["picky"]) as wire:
            wire.greeted()
            wire.quit()
