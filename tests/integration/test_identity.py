"""
Nobody but the gate tells the backend who the client is: real Postfix, which believes XCLIENT from the gate's address.
"""

from collections.abc import Iterator

import pytest

from tests.integration import messages
from tests.integration.gate import Gate, Identity, running
from tests.integration.mailserver import REFUSED
from tests.integration.messages import RECIPIENT, SENDER, stuffed
from tests.integration.postfix import Postfix
from tests.integration.processes import free_port, private_folder, wait_until
from tests.integration.routes import TLS_MODES, Mode, Route
from tests.integration.wire import Wire

FORGED = "192.0.2.66"
LOG_SECONDS = 60.0
TRUSTING = {
    "smtpd_helo_required": "yes",
    "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
    "smtpd_authorized_xforward_hosts": "127.0.0.0/8",
}
ATTEMPTS = [f"XCLIENT ADDR={FORGED}", f"XFORWARD ADDR={FORGED}", f"xclient addr={FORGED}"]

modes = pytest.mark.parametrize("mode", TLS_MODES)


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    """
    A Postfix that lets any client from its own machine, the gate among them, say who the real client is.
    """
    with private_folder("trusting") as folder:
        server = Postfix(folder, free_port(), settings=TRUSTING)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def gate(postfix: Postfix, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """
    A gate of level `required` before it.
    """
    with running(Gate(tmp_path_factory.mktemp("gate"), identity, postfix.port)) as gate:
        yield gate


def test_this_postfix_can_be_lied_to(postfix: Postfix) -> None:
    """
    The control: without the gate, the forged address ends up in the trace header.
    """
    sent = messages.tiny()
    with Wire(Route(postfix.port, "plain")) as wire:
        assert {"XCLIENT", "XFORWARD"} <= wire.greeted().keywords
        assert wire.command(ATTEMPTS[0]).code == 220
        assert wire.command("EHLO client.example").code == 250
        wire.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode())
        assert wire.replies(3) == [250, 250, 354]
        wire.send(stuffed(sent))
        assert wire.reply().code == 250
        wire.quit()
    assert FORGED in postfix.mailbox.collect(sent)[0].trace


@modes
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_client_cannot_say_who_it_is(postfix: Postfix, gate: Gate, mode: Mode, attempt: str) -> None:
    """
    Not offered, refused with 502 before, inside and after a pipelined group, and only text inside a message.
    """
    sent = messages.message(attempt.encode() + b"\r\n.\r\n" + attempt.encode() + b"\r\n")
    with Wire(gate.route(mode)) as wire:
        assert not wire.greeted().keywords & {"XCLIENT", "XFORWARD", "STARTTLS"}
        assert wire.command(attempt).code == 502
        wire.send(f"MAIL FROM:<{SENDER}>\r\n{attempt}\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode())
        assert wire.replies(4) == [250, 502, 250, 354]
        wire.send(stuffed(sent) + attempt.encode() + b"\r\nNOOP\r\n")
        assert wire.replies(3) == [250, 502, 250]
        wire.quit()
    [arrived] = postfix.mailbox.collect(sent)
    assert arrived.message == sent
    assert FORGED not in arrived.trace


@modes
def test_no_second_starttls(postfix: Postfix, gate: Gate, mode: Mode) -> None:
    """
    3207-19: refused inside TLS, and the session goes on.
    """
    sent = messages.tiny()
    with Wire(gate.route(mode)) as wire:
        wire.greeted()
        assert wire.command("STARTTLS").code == 503
        wire.send(f"MAIL FROM:<{SENDER}>\r\nSTARTTLS\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode())
        assert wire.replies(4) == [250, 503, 250, 354]
        wire.send(stuffed(sent))
        assert wire.reply().code == 250
        wire.quit()
    assert [one.message for one in postfix.mailbox.collect(sent)] == [sent]


@modes
def test_what_was_said_before_tls_is_forgotten(postfix: Postfix, gate: Gate, mode: Mode) -> None:
    """
    3207-14: inside TLS a client must introduce itself again; the backend never heard the first EHLO.
    """
    with Wire(gate.route(mode)) as wire:
        assert wire.reply().code == 220
        if mode == "starttls":
            assert wire.command("EHLO before.example").code == 250
            assert wire.command("STARTTLS").code == 220
            wire.handshake()
        assert wire.command(f"MAIL FROM:<{SENDER}>").code == 503
        assert wire.command(f"EHLO {mode}.example").code == 250
        assert wire.command(f"MAIL FROM:<{SENDER}>").code == 250
        assert wire.command(f"RCPT TO:<{REFUSED}>").code == 550
        wire.quit()
    # A refusal is logged with the name the server knows.
    wait_until(lambda: f"helo=<{mode}.example>" in postfix.said(), LOG_SECONDS, postfix.said)
    assert "before.example" not in postfix.said()
