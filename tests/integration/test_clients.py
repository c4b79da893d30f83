"""
What the clients that operators use do besides sending one message to one recipient, through the gate into real servers.

Their single messages, of every kind, are in `test_delivery`.
"""

from collections.abc import Sequence
from typing import Protocol

import pytest

from tests.integration import messages
from tests.integration.clients import Client
from tests.integration.gate import Gate
from tests.integration.mailserver import DOMAIN, REFUSED, MailServer
from tests.integration.messages import RECIPIENT
from tests.integration.processes import wait_until
from tests.integration.routes import Route
from tests.integration.test_delivery import CAROL, Mode, modes, offering

JOURNAL_SECONDS = 60.0


class Persistent(Protocol):
    """
    A client that can send several messages in one session.
    """

    def send_all(self, route: Route, recipients: Sequence[str], sent: Sequence[bytes]) -> None:
        """
        Send them one after the other.
        """


def who(*names: str) -> pytest.MarkDecorator:
    """
    Run the test with those clients that can do this.
    """
    return pytest.mark.parametrize("client", names, indirect=True)


# msmtp sends to all or to none.
@modes
@who("swaks", "curl", "smtplib", "openssl", "exim", "postfix", "opensmtpd")
def test_a_client_sends_to_those_that_are_not_refused(
    server: MailServer, gate: Gate, client: Client, mode: Mode
) -> None:
    """
    5321-16: it understands which of its recipients the server's 550 is for.
    """
    sent = messages.dotted()
    client.send(gate.route(mode), [RECIPIENT, REFUSED, CAROL], sent)
    arrived = server.mailbox.collect(sent, copies=2)
    assert [(one.recipient, one.message) for one in arrived] == [(RECIPIENT, sent), (CAROL, sent)]


@who("exim", "postfix", "opensmtpd")
def test_a_client_in_plaintext_is_served_where_that_may_be(server: MailServer, open_gate: Gate, client: Client) -> None:
    """
    3207-03: it notices nothing of the gate. Exim closes its half of the connection behind QUIT, and waits for replies.
    """
    sent = messages.dotted()
    client.send(open_gate.route("plain"), [RECIPIENT], sent)
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]


@modes
@offering("SMTPUTF8")
@who("curl", "msmtp", "smtplib", "openssl", "exim", "postfix")
def test_a_client_writes_to_an_internationalized_mailbox(
    server: MailServer, gate: Gate, client: Client, mode: Mode
) -> None:
    """
    6531-01, 6531-02: it is told that the server can do this, and the server that the client does.
    """
    sent, recipient = messages.internationalized(), f"grüße@{DOMAIN}"
    client.send(gate.route(mode), [recipient], sent)
    assert [(one.recipient, one.message) for one in server.mailbox.collect(sent)] == [(recipient, sent)]


@modes
@who("curl", "smtplib", "openssl", "exim")
def test_a_client_sends_several_messages_in_one_session(
    server: MailServer, gate: Gate, client: Persistent, mode: Mode
) -> None:
    """
    5321-09: and the journal has one session, with all of them.
    """
    before = len(gate.journal("session"))
    sent = [messages.tiny(), messages.dotted(), messages.eight_bit()]
    client.send_all(gate.route(mode), [RECIPIENT], sent)
    assert [[copy.message for copy in server.mailbox.collect(one)] for one in sent] == [[one] for one in sent]
    # Sessions of the tests before may be over only now; none of them had three messages.
    wait_until(
        lambda: 3 in [entry["delivered"] for entry in gate.journal("session")[before:]],
        JOURNAL_SECONDS,
        lambda: f"no session with three messages:\n{gate.journal('session')[before:]}",
    )
