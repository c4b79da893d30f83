"""
What the check of endpoints lets through, Twisted understands; what it says to write instead, it lets through itself.
"""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import _parse, clientFromString, serverFromString
from twisted.internet.testing import MemoryReactor

from tlsgate.config.endpoints import backend_host, client_endpoint, listening_port, server_endpoint, split
from tlsgate.config.faults import Fault

SERVERS = [
    "tcp:25",
    "tcp:0",
    "tcp:port=25",
    "tcp:25:interface=192.0.2.1",
    "tcp:25:interface=\\:\\:1",
    "tcp:25:backlog=128",
    "tcp6:25",
    "tcp6:25:interface=\\:\\:",
    "unix:/run/tlsgate.sock",
    "unix:/run/tlsgate.sock:mode=660:lockfile=0",
    "unix:address=/run/tls\\:gate.sock",
]
CLIENTS = [
    "tcp:127.0.0.1:2525",
    "tcp:mail.example.org:25",
    "tcp:\\:\\:1:25",
    "tcp:host=localhost:port=25",
    "tcp:25:host=localhost",
    "tcp:localhost:25:timeout=10:bindAddress=192.0.2.1",
    "unix:/run/smtp.sock",
    "unix:path=/run/smtp.sock:timeout=5",
]
ALPHABET = "tcpunix6stemd:=\\[].0123456789/ \n-"


@pytest.mark.parametrize("description", SERVERS)
def test_a_server_endpoint_is_understood_by_twisted_as_well(description: str) -> None:
    assert server_endpoint(description) == description
    serverFromString(MemoryReactor(), description)


@pytest.mark.parametrize("description", CLIENTS)
def test_a_client_endpoint_is_understood_by_twisted_as_well(description: str) -> None:
    assert client_endpoint(description) == description
    clientFromString(MemoryReactor(), description)


@pytest.mark.parametrize("name", ["index=0", "name=smtp"])
def test_a_socket_of_systemd_is_an_endpoint(name: str) -> None:
    assert server_endpoint(f"systemd:domain=INET:{name}")


@given(
    st.one_of(
        st.text(ALPHABET, max_size=40),
        st.sampled_from(["tcp:", "unix:"]).flatmap(
            lambda start: st.text(ALPHABET, max_size=30).map(lambda rest: start + rest)
        ),
    )
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_is_let_through_is_understood(description: str) -> None:
    for check, understand in ((server_endpoint, serverFromString), (client_endpoint, clientFromString)):
        if message_of(check, description) is None:
            understand(MemoryReactor(), description)  # type: ignore[no-untyped-call]  # Twisted is typed in part


def message_of(check: Callable[[str], str], description: str) -> str | None:
    """
    Return what *check* has to say against *description*.
    """
    try:
        check(description)
    except Fault as fault:
        return str(fault)
    return None


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_message_can_always_be_shown(description: str) -> None:
    for check in (server_endpoint, client_endpoint):
        message = message_of(check, description)
        assert message is None or (message.isascii() and message.isprintable())


@given(st.text(ALPHABET, max_size=40).filter(lambda text: not re.search(r"(?<!\\)(\\\\)*\\\Z", text)))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_description_is_taken_apart_as_twisted_does(description: str) -> None:
    unnamed, named = _parse(description)
    kind, *rest = unnamed or [""]
    assert split(description) == (kind, rest, named)


@pytest.mark.parametrize("description", ["unix:/run/tlsgate\\", "tcp:25\\", "\\"])
def test_a_backslash_before_nothing_is_refused(description: str) -> None:
    for check in (server_endpoint, client_endpoint):
        message = message_of(check, description)
        assert message is not None
        assert message.endswith("ends in a backslash")


@pytest.mark.parametrize("description", ["0.0.0.0:25", "[::]:25", "localhost:25", "mx.example.org:25", "25", ":25"])
def test_the_server_endpoint_that_is_proposed_is_one(description: str) -> None:
    with pytest.raises(Fault) as raised:
        server_endpoint(description)
    server_endpoint(proposed(raised.value))


@pytest.mark.parametrize("description", ["127.0.0.1:25", "[::1]:25", "mail.example.org:25", ":25"])
def test_the_client_endpoint_that_is_proposed_is_one(description: str) -> None:
    with pytest.raises(Fault) as raised:
        client_endpoint(description)
    client_endpoint(proposed(raised.value))


def proposed(fault: Fault) -> str:
    """
    Return the endpoint a message says to write, as TOML would read it.
    """
    found = re.search(r'write "(.*)"\Z', str(fault))
    assert found is not None
    return found[1].replace("\\\\", "\\")


def test_the_port_of_a_listener_is_known() -> None:
    assert listening_port("tcp:25:interface=192.0.2.1") == 25
    assert listening_port("tcp6:port=465") == 465
    assert listening_port("unix:/run/25") is None


def test_the_host_of_a_backend_is_known() -> None:
    assert backend_host("tcp:\\:\\:1:25") == "::1"
    assert backend_host("tcp:25:host=localhost") == "localhost"
    assert backend_host("unix:/run/smtp.sock") is None
