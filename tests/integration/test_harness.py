"""
What the other tests here rest on: without a gate, nothing is lost or changed between these clients and these servers.
"""

import pytest

from tests.integration.clients import CLIENTS, Client
from tests.integration.mailserver import MailServer
from tests.integration.messages import RECIPIENT, dotted
from tests.integration.routes import Route
from tests.integration.wire import Wire


def test_the_server_offers_what_we_say_it_does(server: MailServer) -> None:
    """
    The other tests choose by *keywords* what to send; a test that is never run proves nothing.
    """
    with Wire(Route(server.port, "plain")) as wire:
        assert wire.greeted().keywords == server.keywords
        wire.quit()


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "openssl"], indirect=True)
def test_direct_delivery_changes_nothing(server: MailServer, client: Client) -> None:
    """
    A message with every trouble a client must take care of arrives as it was sent.
    """
    sent = dotted()
    client.send(Route(server.port, "plain"), [RECIPIENT], sent)
    assert [one.message for one in server.mailbox.collect(sent)] == [sent]
