"""
PROXY headers, on both sides: from balancers before the gate, however they are cut, and to real servers behind it.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from attrs import define, field, frozen
from OpenSSL import SSL

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.mailserver import MailServer
from tests.integration.messages import SENDER
from tests.integration.postfix import Postfix
from tests.integration.processes import accepts, free_port, private_folder, wait_until
from tests.integration.routes import TLS_MODES, Mode, Route
from tests.integration.servers import Exim
from tests.integration.test_backend_tls import Scripted, config, send
from tests.integration.wire import CLIENT_NAME, REPLY_SECONDS, Wire
from tests.net.world import CLIENT, Client, World, world
from tests.support.cuts import cuttings
from tests.support.handshake import client_context
from tlsgate.net.proxy_protocol import header_v1, header_v2
from tlsgate.net.proxy_protocol.values import V2_SIGNATURE

LOG_SECONDS = 60.0
HEADER_SECONDS = 6.0  # more than Exim (3) and Postfix (5) wait for a header
GATE_NAME = "gate.example"

# Who a balancer says the client is: addresses that no socket here could have.
FAR = "192.0.2.7"
FAR6 = "2001:db8::7"
FORGED = "192.0.2.66"
BALANCER = "127.0.0.9"


@define
class Caller(Wire):
    """
    A client that connects from *source*, says *before* as its very first octets, and asks for the gate by *name*;
    *port* is the one it connected from.
    """

    source: str | None = None
    before: bytes = b""
    name: str = GATE_NAME
    port: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        source = None if self.source is None else (self.source, 0)
        self._socket = socket.create_connection(
            (self.route.host, self.route.port), timeout=REPLY_SECONDS, source_address=source
        )
        self.port = self._socket.getsockname()[1]
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self.before)
        if self.route.mode == "implicit":
            self.handshake()

    def handshake(self) -> None:
        assert not self._received, self._received
        self._socket = self.context.wrap_socket(self._socket, server_hostname=self.name)


def header(version: int, source: str, port: int = 4711, destination: str | None = None) -> bytes:
    """
    Return what a balancer says of a client at *source*.
    """
    write = {1: header_v1, 2: header_v2}[version]
    to = destination or ("2001:db8::25" if ":" in source else "198.51.100.25")
    return write((ip_address(source), port), (ip_address(to), 25))


def logged(server: MailServer, what: str) -> bool:
    """
    Wait until *what* stands in the server's log.
    """
    return wait_until(lambda: what in server.said(), LOG_SECONDS, lambda: f"no {what!r} in\n{server.said()[-5000:]}")


# -- to the backend

EXPECTING: dict[str, Callable[[Path], MailServer]] = {
    "postfix": lambda folder: Postfix(
        folder,
        ready=accepts,
        settings={"smtpd_upstream_proxy_protocol": "haproxy", "inet_protocols": "all"},
    ),
    "exim": lambda folder: Exim(folder, ready=accepts, settings="hosts_proxy = 127.0.0.1\nlog_selector = +proxy"),
}
# What each writes into its log about the client of a message.
NOTES = {"postfix": "client=unknown[{}]", "exim": "H=(client.example) [{}] "}

LISTENER = """
[[listener]]
name = "{name}"
endpoint = "{endpoint}"
backend = "{backend}"
{keys}
"""


@frozen
class Before:
    """
    A gate before a server that wants PROXY headers, and where it listens: (version to the server, family) -> port.

    What comes from `BALANCER` must begin with a header itself.
    """

    server: MailServer
    gate: ConfiguredGate
    ports: Mapping[tuple[int, int], int]

    def call(self, version: int, source: str, mode: Mode = "starttls", before: bytes = b"") -> Caller:
        """
        Return a client from the loopback address *source*.
        """
        family = 6 if ":" in source else 4
        host = "::1" if family == 6 else "127.0.0.1"
        route = Route(self.ports[version, family], mode, self.gate.authority, host)
        return Caller(route, source=source, before=before)

    def told(self, address: str) -> str:
        """
        Return what the server's log says of a message from that client.
        """
        return NOTES[self.server.name].format(address)


@pytest.fixture(scope="module", params=EXPECTING)
def before(
    request: pytest.FixtureRequest, identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Before]:
    """
    Each server in turn.
    """
    with private_folder(request.param) as folder:
        server = EXPECTING[request.param](folder)
        try:
            server.start()
            ports = {(version, family): free_port() for version in (1, 2) for family in (4, 6)}
            listeners = ""
            for (version, family), port in ports.items():
                endpoint = f"tcp:{port}:interface=127.0.0.1" if family == 4 else rf"tcp6:{port}:interface=\\:\\:1"
                keys = f'proxy_protocol_from = ["{BALANCER}"]'
                name = f"v{version}-ipv{family}"
                listeners += LISTENER.format(name=name, endpoint=endpoint, backend=f"v{version}", keys=keys)
            groups = "".join(
                f'[[backend_group]]\nname = "v{version}"\nendpoints = ["tcp:127.0.0.1:{server.port}"]\n'
                f'client_address = "proxy-v{version}"\n'
                for version in (1, 2)
            )
            lines = f'endpoints = ["tcp:127.0.0.1:{server.port}"]\nclient_address = "proxy-v2"'
            told = config(identity, free_port(), lines, rest=listeners + groups)
            with configured(tmp_path_factory.mktemp("gate"), told, identity.authority) as gate:
                yield Before(server, gate, ports)
                assert gate.journal("backend-down") == []
        finally:
            server.stop()


versions = pytest.mark.parametrize("version", [1, 2])


@versions
def test_a_server_can_be_lied_to_directly(before: Before, version: int) -> None:
    """
    The control: whoever reaches the server past the gate is who he says he is.
    """
    sent = messages.tiny()
    with Caller(Route(before.server.port, "plain"), before=header(version, FORGED, 40000 + version)) as wire:
        wire.greeted()
        send(wire, sent)
        wire.quit()
    assert FORGED in before.server.mailbox.collect(sent)[0].trace


@versions
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.42", "::1"])
def test_the_server_sees_the_clients_own_address(before: Before, version: int, source: str) -> None:
    """
    In its log and in its trace header; the address of the gate's is nowhere.
    """
    sent = messages.tiny()
    with before.call(version, source) as wire:
        wire.greeted()
        send(wire, sent)
        wire.quit()
    assert source in before.server.mailbox.collect(sent)[0].trace
    assert logged(before.server, before.told(source))


@versions
@pytest.mark.parametrize("conveyed", [FAR, FAR6])
def test_the_server_sees_the_address_that_a_balancer_conveyed(before: Before, version: int, conveyed: str) -> None:
    """
    One header in, another out: the address goes through the gate, whatever the versions.
    """
    for first in (1, 2):
        sent = messages.tiny()
        with before.call(version, BALANCER, before=header(first, conveyed)) as wire:
            wire.greeted()
            send(wire, sent)
            wire.quit()
        assert conveyed in before.server.mailbox.collect(sent)[0].trace
    assert logged(before.server, before.told(conveyed))


@versions
def test_a_client_that_takes_its_time_over_the_handshake_is_served(before: Before, version: int) -> None:
    """
    Servers wait for a header for three seconds, or five: who is not told of before must not have been connected.
    """
    sent = messages.tiny()
    with before.call(version, "127.0.0.6") as wire:
        wire.reply()
        assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
        assert wire.command("STARTTLS").code == 220
        time.sleep(HEADER_SECONDS)
        wire.handshake()
        assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
        send(wire, sent)
        wire.quit()
    assert "127.0.0.6" in before.server.mailbox.collect(sent)[0].trace


@versions
@pytest.mark.parametrize("inside", ["plaintext", "TLS"])
def test_a_forged_header_changes_nothing(before: Before, version: int, inside: str) -> None:
    """
    A header from whoever is no balancer is a few commands that do not exist, and goes no further.
    """
    # The newline ends what a header of version 2 leaves as the beginning of a line.
    forged, sent = header(version, FORGED) + b"\r\n", messages.tiny()
    mentioned = before.server.said().count(FORGED)
    with before.call(version, "127.0.0.5", before=forged if inside == "plaintext" else b"") as wire:
        if inside == "plaintext":
            wire.reply()
            hello = wire.command(f"EHLO {CLIENT_NAME}")
            while hello.code != 250:
                assert hello.code in {500, 502, 530}
                hello = wire.reply()
            assert wire.command("STARTTLS").code == 220
            wire.handshake()
            assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
        else:
            wire.greeted()
            wire.send(forged)
            refused = wire.command(f"EHLO {CLIENT_NAME}")
            while refused.code != 250:
                assert refused.code in {500, 502}
                refused = wire.reply()
        send(wire, sent)
        wire.quit()
    [arrived] = before.server.mailbox.collect(sent)
    assert "127.0.0.5" in arrived.trace
    assert FORGED not in arrived.trace
    assert before.server.said().count(FORGED) == mentioned


# -- from a balancer


@contextmanager
def balanced(tls: str = "starttls") -> Iterator[World]:
    """
    Have a gate in memory that demands a header from the address of the clients there.
    """
    with world(tls=tls) as made:
        made.config = made.config.replace('name = "mx"\n', f'name = "mx"\nproxy_protocol_from = ["{CLIENT}"]\n')
        made.service.reload()
        assert made.records("reloaded")
        made.settle(1)
        made.backends.clear()
        yield made


HEADERS = {
    "v1 IPv4": (header(1, FAR), FAR),
    "v1 IPv6": (header(1, FAR6), FAR6),
    "v1 UNKNOWN": (b"PROXY UNKNOWN ffff::1 x\r\n", CLIENT),
    "v2 IPv4": (header(2, FAR), FAR),
    "v2 IPv6": (header(2, FAR6), FAR6),
    "v2 LOCAL": (header_v2(None, None), CLIENT),
    "v2 UNIX": (V2_SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), CLIENT),
    "v2 with vectors": (V2_SIGNATURE + b"\x21\x11\x00\x15" + header(2, FAR)[16:] + b"\x04\x00\x06noop!!", FAR),
}
every_header = pytest.mark.parametrize(("octets", "conveyed"), HEADERS.values(), ids=list(HEADERS))


def whose(made: World, client: Client) -> str:
    """
    Hang up, and return the address in the journal's entry of the session.
    """
    client.lose()
    address: str = json.loads(made.records("session")[-1])["client"]
    return address


@every_header
@pytest.mark.parametrize(("behind", "codes"), [(b"", [220]), (b"EHLO client.example\r\nNOOP\r\n", [220, 250, 250])])
def test_every_cut_of_a_header_is_understood(octets: bytes, conveyed: str, behind: bytes, codes: list[int]) -> None:
    """
    Whole, octet by octet, and cut in two everywhere, with and without commands behind it.
    """
    with balanced() as made:
        for parts in cuttings(octets + behind):
            client = made.connect()
            for part in parts:
                client.send(part)
            assert client.codes() == codes, parts
            assert whose(made, client) == conveyed


@every_header
def test_every_cut_of_a_header_before_a_handshake_is_understood(octets: bytes, conveyed: str) -> None:
    """
    What comes with the header is TLS's where the listener begins with TLS.
    """
    with balanced("implicit") as made:
        for cut in range(len(octets) + 9):
            client = made.connect()
            tls = client.tls = SSL.Connection(client_context(ciphers=b"DEFAULT"), None)
            tls.set_connect_state()
            with suppress(SSL.WantReadError):
                tls.do_handshake()
            opening = octets + tls.bio_read(1 << 16)
            for part in (opening[:cut], opening[cut:]):
                client.end.sending += part
                made.settle()
            client._absorb()
            tls.do_handshake()
            client._flush()
            made.settle()
            assert client.codes() == [220], cut
            assert whose(made, client) == conveyed


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO client.example\r\n", "does not start with a PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01", "does not start with a PROXY header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.25 4711\r\n", "too few fields"),
        (b"PROXY TCP4 192.0.2.700 198.51.100.25 4711 25\r\n", "a wrong address"),
        (V2_SIGNATURE + b"\x31", "neither version 1 nor version 2"),
        (V2_SIGNATURE + b"\x21\x11\x00\x0b", "too short for its addresses"),
    ],
)
def test_a_connection_without_a_proper_header_is_dropped(octets: bytes, reason: str) -> None:
    """
    Without a word: it is no client, and whoever it was, it did not come by the balancer.
    """
    with balanced() as made:
        client = made.connect()
        client.send(octets)
        assert client.closed
        assert client.said == b""
        [entry] = made.records("proxy-header-invalid")
        assert reason in entry
        assert made.backends == []


def test_a_header_that_does_not_come_is_not_waited_for_forever() -> None:
    with balanced() as made:
        client = made.connect()
        client.send(header(1, FAR)[:20])
        made.settle(29)
        assert not client.closed
        made.settle(2)
        assert client.closed
        assert client.said == b""
        assert "no header in time" in made.records("proxy-header-invalid")[0]


@pytest.fixture(scope="module")
def gate(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ConfiguredGate, int, int]]:
    """
    A gate whose clients come by `BALANCER`, its port for STARTTLS, and that for implicit TLS.
    """
    port, implicit = free_port(), free_port()
    rest = f"""
        [[listener]]
        name = "implicit"
        endpoint = "tcp:{implicit}:interface=127.0.0.1"
        tls = "implicit"
        proxy_protocol_from = ["{BALANCER}/32"]
        [[rule]]
        clients = ["{FAR}/32", "2001:db8::/64"]
        level = "offered"
        [limits]
        sessions_per_client = 1
    """
    with Scripted() as backend:
        lines = f'endpoints = ["{backend.endpoint}"]\naccept_open_relay = true'
        told = config(identity, port, lines, listener=f'proxy_protocol_from = ["{BALANCER}/32"]', rest=rest)
        with configured(tmp_path_factory.mktemp("balanced"), told, identity.authority) as made:
            yield made, port, implicit


@pytest.mark.parametrize("mode", TLS_MODES)
@pytest.mark.parametrize("version", [1, 2])
def test_a_header_cut_by_the_network_is_understood(
    gate: tuple[ConfiguredGate, int, int], mode: Mode, version: int
) -> None:
    """
    The same over sockets, where a kernel may cut and join as it likes.
    """
    made, port, implicit = gate
    octets = header(version, "192.0.2.8")
    for cut in (1, 5, 6, 12, 15, 16, 17, len(octets) - 1, len(octets)):
        before = len(made.journal("session"))
        with Caller(Route(port if mode == "starttls" else implicit, "plain", made.authority), source=BALANCER) as wire:
            wire.send(octets[:cut])
            wire.send(octets[cut:])
            if mode == "implicit":
                wire.handshake()
            assert wire.reply().code == 220
            wire.quit()
        assert made.wait_for(before + 1, "session")[before]["client"] == "192.0.2.8"


def test_rules_and_limits_go_by_the_conveyed_address(gate: tuple[ConfiguredGate, int, int]) -> None:
    """
    One balancer is many clients: a rule is for one of them, and a bound on sessions bounds each of them.
    """
    made, port, _ = gate

    def call(conveyed: str) -> Caller:
        return Caller(Route(port, "plain", made.authority), source=BALANCER, before=header(2, conveyed))

    with call(FAR) as first, call("192.0.2.9") as second, call(FAR) as third:
        assert [wire.reply().code for wire in (first, second, third)] == [220, 220, 421]
        for wire, code in ((first, 250), (second, 530)):
            assert wire.command(f"EHLO {CLIENT_NAME}").code == 250
            assert wire.command(f"MAIL FROM:<{SENDER}>").code == code
    # An IPv6 client is its /64.
    with call(FAR6) as first, call("2001:db8::8") as second, call("2001:db8:0:1::8") as third:
        assert [wire.reply().code for wire in (first, second, third)] == [220, 421, 220]


def test_a_header_from_elsewhere_is_no_header(gate: tuple[ConfiguredGate, int, int]) -> None:
    """
    Who is not among the balancers does not say who he is: refused as the commands it is not, or as a ClientHello.
    """
    made, port, implicit = gate
    before = len(made.journal("session"))
    with Caller(Route(port, "plain"), source="127.0.0.10", before=header(1, FORGED)) as wire:
        assert wire.replies(2) == [220, 530]
        wire.quit()
    with Caller(Route(port, "plain"), source="127.0.0.11", before=header(2, FORGED)) as wire:
        assert wire.replies(2) == [220, 530]
    with Caller(Route(implicit, "plain"), source="127.0.0.12", before=header(2, FORGED)) as wire:
        assert not wire.rest().startswith(b"220")
    for source in ("127.0.0.10", "127.0.0.11", "127.0.0.12"):
        made.wait_until(lambda entry, source=source: entry["client"] == source, "session", since=before)
    assert FORGED not in str(made.journal())


def test_a_balancer_must_say_a_header(gate: tuple[ConfiguredGate, int, int]) -> None:
    made, port, implicit = gate
    before = len(made.journal("proxy-header-invalid"))
    for to in (port, implicit):
        with Caller(Route(to, "plain"), source=BALANCER, before=b"EHLO client.example\r\n") as wire:
            assert wire.rest() == b""
    told = made.wait_for(before + 2, "proxy-header-invalid")[before:]
    assert {entry["reason"] for entry in told} == {"the connection does not start with a PROXY header"}
    assert {entry["client"] for entry in told} == {BALANCER}
