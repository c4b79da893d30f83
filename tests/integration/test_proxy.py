"""
PROXY headers, on both sides: from balancers before the gate, however they are cut, and to real servers behind it.
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from tests.integration import messages
from tests.integration.configured import ConfiguredGate, Entry, configured
from tests.integration.gate import Identity
from tests.integration.mailserver import REFUSED, MailServer
from tests.integration.messages import RECIPIENT, SENDER
from tests.integration.postfix import Postfix
from tests.integration.processes import accepts, free_port, private_folder, wait_until
from tests.integration.routes import Mode, Route
from tests.integration.servers import Exim
from tests.integration.test_backend_tls import Heard, Part, Scripted, config, send
from tests.integration.wire import CLIENT_NAME, REPLY_SECONDS, Wire
from tests.net.world import CONFIG, Client, World
from tests.support.cuts import bytewise, cuttings
from tlsgate.net.proxy_protocol import header_v1, header_v2

LOG_SECONDS = 10.0
GATE_NAME = "gate.example"

# Who a balancer says the client is: addresses that no socket here could have.
FAR = "192.0.2.7"
FAR6 = "2001:db8::7"
FORGED = "192.0.2.66"


@define
class Caller(Wire):
    """
    A client that connects from *source*, says *before* as its very first octets, and asks for the gate by *name*.
    """

    source: str | None = None
    before: bytes = b""
    name: str = GATE_NAME

    def __attrs_post_init__(self) -> None:
        source = None if self.source is None else (self.source, 0)
        self._socket = socket.create_connection(
            (self.route.host, self.route.port), timeout=REPLY_SECONDS, source_address=source
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self.before)
        if self.route.mode == "implicit":
            self.handshake()

    @property
    def port(self) -> int:
        """
        The port it connected from.
        """
        port: int = self._socket.getsockname()[1]
        return port

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
