"""
The open-relay guard against real mail servers: those that trust the gate's address, and those that do not.

A backend that trusts it, and is not told who the client is, gets no client, whenever it comes up.
"""

import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Gate, Identity, running
from tests.integration.mailserver import MailServer
from tests.integration.messages import SENDER
from tests.integration.postfix import Postfix
from tests.integration.processes import accepts, free_port, private_folder
from tests.integration.routes import Route
from tests.integration.test_backend_tls import Part, Scripted, config, send
from tests.integration.test_proxy import BALANCER, FAR, FAR6, Caller, header
from tests.integration.wire import CLIENT_NAME
from tlsgate.config import Backend
from tlsgate.operator.guard import Answer, Outcome, ask

# As Postfix comes, on a machine where it is asked from. There is a way out, but nobody here gives it a message.
AS_IT_COMES = {
    "default_transport": "smtp",
    "mynetworks": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
}
BIN = Path(sys.executable).parent

FOREIGN = "victim@elsewhere.example"
TRUSTING = {
    "mynetworks": "127.0.0.1/32",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    "smtpd_authorized_xclient_hosts": "127.0.0.1",
    "inet_protocols": "all",
    # It would relay, but not get far (discard port).
    "default_transport": "smtp:[127.0.0.1]:9",
}
RELAYS = Part(answers={b"RCPT": b"250 2.1.5 Anything\r\n"})
DENIES = Part(answers={b"RCPT": b"550 5.7.1 Relaying denied\r\n"})


@contextmanager
def postfix(settings: Mapping[str, str], port: int | None = None, services: str = "") -> Iterator[Postfix]:
    with private_folder("relay") as folder:
        server = Postfix(folder, port or free_port(), settings=settings, services=services)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def asked(port: int, **more: str) -> Answer:
    endpoint = f"tcp:127.0.0.1:{port}"
    return ask(endpoint, Backend(endpoints=(endpoint,), **more), "gate.example", 20)  # type: ignore[arg-type]


def test_servers_that_do_not_relay_are_cleared(server: MailServer) -> None:
    """
    Postfix, Exim, OpenSMTPD and Sendmail each refuse in words of their own.
    """
    told = asked(server.port)
    assert told.outcome is Outcome.REFUSES, told
    # What was asked has left no message behind, not even a half one.
    assert server.mailbox.unread() == []


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        (AS_IT_COMES, Outcome.RELAYS),
        # "454 4.7.1 Relay access denied": later is as good as never.
        ({**AS_IT_COMES, "mynetworks": "192.0.2.0/24"}, Outcome.REFUSES),
        ({**AS_IT_COMES, "mynetworks": "192.0.2.0/24", "smtpd_delay_reject": "no"}, Outcome.REFUSES),
        # A null sender gets nowhere here, which is no word about relaying.
        (
            {**AS_IT_COMES, "smtpd_sender_restrictions": "check_sender_access inline:{{<> = 550 no bounces}}"},
            Outcome.RELAYS,
        ),
        # Looks up example.com first, and whatever the DNS says of that, it relays.
        ({**AS_IT_COMES, "smtpd_recipient_restrictions": "reject_unknown_recipient_domain"}, Outcome.RELAYS),
    ],
)
def test_a_postfix_is_seen_through(settings: Mapping[str, str], outcome: Outcome) -> None:
    with postfix(settings) as server:
        told = asked(server.port)
    assert told.outcome is outcome, told


def options(identity: Identity, server: Postfix) -> list[str]:
    return [
        *("--certificate", str(identity.certificate), "--key", str(identity.key), "--hostname", "gate.example"),
        *("--backend", f"tcp:127.0.0.1:{server.port}"),
    ]


def test_a_gate_that_would_open_a_relay_does_not_start(identity: Identity, tmp_path: Path) -> None:
    """
    It says why, and what to do; `tlsgate check` says the same.
    """
    with postfix(AS_IT_COMES) as server:
        listen = ["--listen", f"tcp:{free_port()}:interface=127.0.0.1"]
        gate = [BIN / "twistd", "--nodaemon", "--pidfile=", "tlsgate", *listen, *options(identity, server)]
        check = [BIN / "tlsgate", "check", *options(identity, server)]
        for argv in (gate, check):
            done = subprocess.run(argv, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1, done.stderr
            said = done.stdout + done.stderr
            assert "relays for strangers that come from this address" in said
            assert "RCPT TO:<relay-check@example.com> got 250 2.1.5 Ok" in said
            assert "set client_address (--client-address) to xclient" in said
            assert "Traceback" not in said


def test_with_xclient_it_starts_and_strangers_are_refused(identity: Identity, tmp_path: Path) -> None:
    """
    The same Postfix, which still trusts the gate's address, told who the client is.
    """
    settings = {**AS_IT_COMES, "mynetworks": "127.0.0.1/32", "smtpd_authorized_xclient_hosts": "127.0.0.1"}
    with postfix(settings) as server:
        check = [BIN / "tlsgate", "check", *options(identity, server), "--client-address", "xclient"]
        done = subprocess.run(check, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
        assert "does not relay for strangers from elsewhere, such as 192.0.2.1" in done.stdout
        keys = 'client_address = "xclient"'
        with running(Gate(tmp_path, identity, server.port, level="offered", backend_keys=keys)) as gate:
            codes = {source: relay_attempt(gate.ports["plain"], source) for source in ("127.0.0.77", "127.0.0.1")}
    assert codes == {"127.0.0.77": 454, "127.0.0.1": 250}


def relay_attempt(port: int, source: str) -> int:
    """
    Return what a client at *source* gets for a recipient elsewhere.
    """
    with smtplib.SMTP("127.0.0.1", port, timeout=30, source_address=(source, 0)) as client:
        client.ehlo("client.example")
        client.mail("a@elsewhere.example")
        return client.rcpt("b@elsewhere.example")[0]


@pytest.fixture(scope="module")
def proxy_port() -> int:
    """
    Where that Postfix wants a PROXY header first.
    """
    return free_port()


@pytest.fixture(scope="module")
def trusting(proxy_port: int) -> Iterator[Postfix]:
    """
    A Postfix that relays for the gate's address.
    """
    service = f"127.0.0.1:{proxy_port} inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy\n"
    with postfix(TRUSTING, services=service) as server:
        yield server


def rcpt_elsewhere(wire: Caller) -> int:
    """
    Ask for a message to a domain that is not the server's; return what RCPT gets.
    """
    wire.greeted()
    assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
    return wire.command(f"RCPT TO:<{FOREIGN}>").code


def is_an_open_relay(file: Path, at: str, port: int) -> bool:
    """
    Whether a gate of that configuration ends by itself and says which backend it is, how that is known, and what can be
    done.
    """
    argv = [BIN / "twistd", "--nodaemon", "--pidfile=", "tlsgate", "--config", file]
    done = subprocess.run(argv, cwd=file.parent, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr.startswith(
        f"tlsgate: {at}: tcp:127.0.0.1:{port} relays for strangers that come from this address (RCPT TO:"
    ) and done.stderr.endswith(
        "behind the gate every client comes from this address: set client_address (--client-address) to xclient,"
        " proxy-v1, proxy-v2 or transparent, take this address out of the server's trusted networks (mynetworks), or say"
        " accept_open_relay = true (--accept-open-relay)\n"
    )


def test_the_gate_does_not_start_before_an_open_relay(trusting: Postfix, identity: Identity, tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "gate.toml"
    file.write_text(config(identity, port, f'endpoints = ["tcp:127.0.0.1:{trusting.port}"]'))
    assert is_an_open_relay(file, "backend.endpoints[0]", trusting.port)
    assert not accepts(port)


def test_one_among_several_is_enough(trusting: Postfix, identity: Identity, tmp_path: Path) -> None:
    """
    Of the second group, behind one that denies.
    """
    file = tmp_path / "gate.toml"
    with Scripted(DENIES) as denying:
        group = f'[[backend_group]]\nname = "b"\nendpoints = ["{denying.endpoint}", "tcp:127.0.0.1:{trusting.port}"]'
        file.write_text(config(identity, free_port(), f'endpoints = ["{denying.endpoint}"]', rest=group))
        assert is_an_open_relay(file, "backend_group[0].endpoints[1]", trusting.port)


def test_it_starts_if_the_operator_accepts_that(trusting: Postfix, identity: Identity, tmp_path: Path) -> None:
    """
    The control: the harm is real, and it is the operator's choice.
    """
    port = free_port()
    lines = f'endpoints = ["tcp:127.0.0.1:{trusting.port}"]\naccept_open_relay = true'
    with (
        configured(tmp_path, config(identity, port, lines), identity.authority) as gate,
        Caller(gate.route(port, "starttls"), source="127.0.0.42") as wire,
    ):
        assert rcpt_elsewhere(wire) == 250
        wire.quit()


@pytest.mark.parametrize("how", ["xclient", "proxy-v1", "proxy-v2"])
def test_it_starts_if_the_client_is_told_and_no_stranger_is_relayed_for(
    trusting: Postfix, proxy_port: int, identity: Identity, tmp_path: Path, how: str
) -> None:
    """
    The same Postfix, its trust in the gate's address unchanged, refuses relaying to who comes through the gate; and
    takes mail for its own domain.
    """
    port = free_port()
    backend_port = trusting.port if how == "xclient" else proxy_port
    lines = f'endpoints = ["tcp:127.0.0.1:{backend_port}"]\nclient_address = "{how}"'
    told = config(identity, port, lines, listener=f'proxy_protocol_from = ["{BALANCER}"]')
    with configured(tmp_path, told, identity.authority) as gate:
        for source, before in (("127.0.0.42", b""), (BALANCER, header(2, FAR)), (BALANCER, header(2, FAR6))):
            sent = messages.tiny()
            with Caller(gate.route(port, "starttls"), source=source, before=before) as wire:
                assert rcpt_elsewhere(wire) == 554
                assert wire.command("RSET").code == 250
                send(wire, sent)
                wire.quit()
            assert len(trusting.mailbox.collect(sent)) == 1
        # Who is trusted by its own address stays so.
        with Caller(gate.route(port, "starttls"), source="127.0.0.1") as wire:
            assert rcpt_elsewhere(wire) == 250
            wire.quit()


def turned_away(gate: ConfiguredGate, port: int) -> bool:
    """
    Whether a client is told at once that there is nobody to serve it.
    """
    with Caller(Route(port, "plain", gate.authority)) as wire:
        return wire.reply().code == 421 and wire.line() == ""


def test_what_was_down_at_the_start_is_asked_when_it_comes_up(identity: Identity, tmp_path: Path) -> None:
    """
    The one that relays never gets a client, however often it is up; the other does.
    """
    ports = {"clean": free_port(), "open": free_port()}
    backends = {"clean": free_port(), "open": free_port()}
    rest = f"""
        [[listener]]
        name = "open"
        endpoint = "tcp:{ports["open"]}:interface=127.0.0.1"
        backend = "open"
        [[backend_group]]
        name = "open"
        endpoints = ["tcp:127.0.0.1:{backends["open"]}"]
    """
    told = config(identity, ports["clean"], f'endpoints = ["tcp:127.0.0.1:{backends["clean"]}"]', rest=rest)
    with configured(tmp_path, told, identity.authority) as gate:
        assert turned_away(gate, ports["clean"])
        assert turned_away(gate, ports["open"])
        with postfix({}, backends["clean"]) as clean, postfix(TRUSTING, backends["open"]) as relay:
            [up] = gate.wait_for(1, "backend-up")
            assert up["backend"] == f"tcp:127.0.0.1:{clean.port}"
            sent = messages.tiny()
            with Caller(gate.route(ports["clean"], "starttls")) as wire:
                wire.greeted()
                send(wire, sent)
                wire.quit()
            assert len(clean.mailbox.collect(sent)) == 1
            for entry in gate.wait_for(2, "backend-refused"):
                assert entry["backend"] == f"tcp:127.0.0.1:{relay.port}"
                assert "relays for strangers" in entry["reason"]
                assert "accept_open_relay = true" in entry["reason"]
            assert turned_away(gate, ports["open"])
            assert len(gate.journal("backend-up")) == 1


def test_what_a_reload_brings_is_asked_too(identity: Identity, tmp_path: Path) -> None:
    """
    And has its clients as soon as it does not relay any more.
    """
    port = free_port()
    with Scripted(DENIES) as first, Scripted(RELAYS) as second:
        told = config(identity, port, 'endpoints = ["{}"]')
        with configured(tmp_path, told.replace("{}", first.endpoint), identity.authority) as gate:
            assert gate.reload(told.replace("{}", second.endpoint))["event"] == "reloaded"
            assert gate.wait_for(1, "backend-refused")[0]["backend"] == second.endpoint
            assert turned_away(gate, port)
            second.play(DENIES)
            assert gate.wait_for(1, "backend-up")[0]["backend"] == second.endpoint
            with Caller(gate.route(port, "starttls")) as wire:
                wire.greeted()
                wire.quit()
        assert not any(CLIENT_NAME in str(one.lines) for one in first.heard())


def test_what_is_asked_is_no_mail(trusting: Postfix) -> None:
    """
    Whatever was asked above, no message to anybody elsewhere was ever taken.
    """
    assert FOREIGN in trusting.said()
    assert not re.search(r"to=<[^>]+@(elsewhere|example)\.[a-z]+>.* status=", trusting.said())
