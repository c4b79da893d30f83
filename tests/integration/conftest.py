"""
One of everything for the whole run: servers, a gate before each, clients.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.integration.clients import CLIENTS, PROGRAMS, Client, EximClient, OpenSmtpdClient, PostfixClient
from tests.integration.gate import Gate, Identity, running
from tests.integration.mailserver import MailServer
from tests.integration.processes import private_folder
from tests.integration.servers import SERVERS


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """
    An RSA certificate for the gate: also clients that know no ECDSA must get to their refusal.
    """
    folder = tmp_path_factory.mktemp("identity")
    authority = trustme.CA()
    issued = authority.issue_cert("gate.example", "127.0.0.1", key_type=trustme.KeyType.RSA)
    made = Identity(folder / "gate.pem", folder / "gate.key", folder / "authority.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(made.certificate, append=True)
    issued.private_key_pem.write_to_path(made.key)
    authority.cert_pem.write_to_path(made.authority)
    return made


@pytest.fixture(scope="session", params=SERVERS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[MailServer]:
    """
    Each mail server in turn. In the end every message must have been collected: none came twice, none was made up.
    """
    kind: type[MailServer] = request.param
    with private_folder(kind.name) as folder:
        running = kind(folder)
        try:
            running.start()
            yield running
            assert running.mailbox.unread() == []
        finally:
            running.stop()


@pytest.fixture(scope="session")
def gate(server: MailServer, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """
    A gate of level `required` before the server.
    """
    with running(Gate(tmp_path_factory.mktemp("gate"), identity, server.port)) as gate:
        yield gate


@pytest.fixture(scope="session")
def open_gate(server: MailServer, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """
    A gate of level `offered` before the server.
    """
    with running(Gate(tmp_path_factory.mktemp("open-gate"), identity, server.port, level="offered")) as gate:
        yield gate


@pytest.fixture(scope="session")
def postfix_client() -> Iterator[PostfixClient]:
    """
    A Postfix that relays to gates.
    """
    with private_folder("client") as folder:
        client = PostfixClient.made(folder)
        try:
            yield client
        finally:
            client.server.stop()


@pytest.fixture(scope="session")
def exim_client() -> Iterator[EximClient]:
    """
    An Exim that sends to gates; it is run for each message.
    """
    with private_folder("client") as folder:
        yield EximClient(folder)


@pytest.fixture(scope="session")
def opensmtpd_client() -> Iterator[OpenSmtpdClient]:
    """
    An OpenSMTPD that relays to gates.
    """
    with private_folder("client") as folder:
        client = OpenSmtpdClient(folder)
        try:
            yield client
        finally:
            client.stop()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    """
    Each client in turn.
    """
    if request.param in PROGRAMS:
        return PROGRAMS[request.param](tmp_path)
    running: Client = request.getfixturevalue(f"{request.param}_client")
    return running
