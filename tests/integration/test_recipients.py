"""
On one listener, each recipient is answered by the law of its own domain, and by nobody else's.
"""

from collections.abc import Iterator

import pytest

from tests.integration.configured import ConfiguredGate, configured
from tests.integration.gate import Identity
from tests.integration.inbox import Inbox
from tests.integration.processes import free_ports
from tests.integration.wire import Wire

CONFIG = """
hostname = "gate.example"

[[listener]]
name = "world"
endpoint = "tcp:{world}:interface=127.0.0.1"
level = "offered"

[[listener]]
name = "closed"
endpoint = "tcp:{closed}:interface=127.0.0.1"
level = "required"
exempt_recipients = ["postmaster", "tlsrpt@reports.example"]

[[rule]]
listeners = ["world"]
recipients = ["clinic.example", "*.clinic.example"]
level = "strong"

[[rule]]
listeners = ["world"]
senders = ["bank.example"]
level = "required"

[tls]
certificates = [{{ chain = "{certificate}", key = "{key}" }}]

[backend]
endpoints = ["tcp:127.0.0.1:{backend}"]
accept_open_relay = true
"""


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    """
    The backend.
    """
    with Inbox() as inbox:
        yield inbox


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """
    Where the listeners are.
    """
    return dict(zip(("world", "closed"), free_ports(2), strict=True))


@pytest.fixture(scope="module")
def gate(
    inbox: Inbox, ports: dict[str, int], identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConfiguredGate]:
    """
    The gate.
    """
    config = CONFIG.format(**ports, certificate=identity.certificate, key=identity.key, backend=inbox.port)
    with configured(tmp_path_factory.mktemp("gate"), config, identity.authority) as gate:
        yield gate


def pipelined(sender: str, *recipients: str) -> bytes:
    """
    MAIL, RCPT for each, DATA: one group.
    """
    lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
    return "".join(line + "\r\n" for line in lines).encode()


def test_one_recipient_of_three_needs_tls(gate: ConfiguredGate, ports: dict[str, int], inbox: Inbox) -> None:
    """
    3207-05, 2920-01: refused is that recipient alone, in its turn; the other two get the message.
    """
    message = b"Subject: to two of three\r\n\r\nplain"
    recipients = ["bob@inbox.example", "dr@ward.clinic.example", "carol@inbox.example"]
    with Wire(gate.route(ports["world"], "plain")) as wire:
        wire.greeted()
        wire.send(pipelined("alice@client.example", *recipients))
        replies = [wire.reply() for _ in range(5)]
        assert [reply.code for reply in replies] == [250, 250, 530, 250, 354]
        assert replies[2].lines == ("5.7.0 Must issue a STARTTLS command first",)
        wire.send(message + b"\r\n.\r\n")
        assert wire.reply().code == 250
        wire.quit()
    session = inbox.session_with(message)
    assert [line for line in session.commands if line[:4] == b"RCPT"] == [
        b"RCPT TO:<bob@inbox.example>",
        b"RCPT TO:<carol@inbox.example>",
    ]


def test_the_same_three_inside_tls(gate: ConfiguredGate, ports: dict[str, int], inbox: Inbox) -> None:
    """
    With what the recipient's domain asks for, nobody is refused.
    """
    message = b"Subject: to all three\r\n\r\nsecret"
    recipients = ["bob@inbox.example", "dr@clinic.example", "carol@inbox.example"]
    with Wire(gate.route(ports["world"], "starttls")) as wire:
        wire.greeted()
        wire.send(pipelined("alice@client.example", *recipients))
        assert wire.replies(5) == [250, 250, 250, 250, 354]
        wire.send(message + b"\r\n.\r\n")
        assert wire.reply().code == 250
        wire.quit()
    assert len([line for line in inbox.session_with(message).commands if line[:4] == b"RCPT"]) == 3


def test_a_refused_recipient_leaves_a_verdict(gate: ConfiguredGate, ports: dict[str, int]) -> None:
    """
    The journal says at which stage, and by which level.
    """
    before = len(gate.journal("verdict"))
    with Wire(gate.route(ports["world"], "plain")) as wire:
        wire.greeted()
        wire.send(pipelined("alice@client.example", "dr@clinic.example"))
        assert wire.replies(2) == [250, 530]
    verdict = gate.wait_for(before + 1, "verdict")[before]
    told = {key: verdict[key] for key in ("listener", "stage", "level", "outcome", "tls")}
    assert told == {"listener": "world", "stage": "recipient", "level": "strong", "outcome": "refuse", "tls": None}


def test_a_sender_who_needs_tls(gate: ConfiguredGate, ports: dict[str, int]) -> None:
    """
    Refused at MAIL; the next transaction of the session, somebody else's, is not.
    """
    with Wire(gate.route(ports["world"], "plain")) as wire:
        wire.greeted()
        assert wire.command("MAIL FROM:<teller@bank.example>").code == 530
        assert wire.command("MAIL FROM:<alice@client.example>").code == 250
        wire.quit()


def test_the_exempt_can_be_written_to_in_plaintext(gate: ConfiguredGate, ports: dict[str, int], inbox: Inbox) -> None:
    """
    5321-18, 8460-01: MAIL passes, postmaster and the TLSRPT mailbox pass, everybody else gets the demand.
    """
    message = b"Subject: your TLS is broken\r\n\r\nreport"
    recipients = ["Postmaster", "bob@inbox.example", "postmaster@inbox.example", "tlsrpt@Reports.Example"]
    with Wire(gate.route(ports["closed"], "plain")) as wire:
        wire.greeted()
        wire.send(pipelined("alice@client.example", *recipients))
        assert wire.replies(6) == [250, 250, 530, 250, 250, 354]
        wire.send(message + b"\r\n.\r\n")
        assert wire.reply().code == 250
        wire.quit()
    heard = b"".join(inbox.session_with(message).commands)
    assert b"bob" not in heard


def test_who_is_no_mailbox_is_not_exempt(gate: ConfiguredGate, ports: dict[str, int]) -> None:
    """
    What cannot be read cannot be judged, and is not passed on to a backend that may read it otherwise.
    """
    with Wire(gate.route(ports["closed"], "plain")) as wire:
        wire.greeted()
        assert wire.command("MAIL FROM:<alice@client.example>").code == 250
        assert wire.command("RCPT TO:<postmaster@evil@inbox.example>").code in {501, 530, 553}
        assert wire.command("RCPT TO:<postmaster>").code == 250
        wire.quit()
