"""
The open-relay guard against real mail servers: those that trust the gate's address, and those that do not.
"""

import smtplib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.gate import Gate, Identity, running
from tests.integration.mailserver import MailServer
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, private_folder
from tlsgate.config import Backend
from tlsgate.operator.guard import Answer, Outcome, ask

# As Postfix comes, on a machine where it is asked from. There is a way out, but nobody here gives it a message.
AS_IT_COMES = {
    "default_transport": "smtp",
    "mynetworks": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
}
BIN = Path(sys.executable).parent


@contextmanager
def postfix(settings: Mapping[str, str]) -> Iterator[Postfix]:
    with private_folder("relay") as folder:
        server = Postfix(folder, free_port(), settings=settings)
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
            assert "set client_address to xclient" in said
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
