"""
Two programs for inside a network namespace: a backend that greets everybody by address, and a gate's way to it.

    python -m tests.integration.transparent_dial serve PORT HOST...
    python -m tests.integration.transparent_dial dial HOST PORT SECONDS SOURCE...

`serve` says "ready" when it listens, and ends with its input. `dial` prints a JSON object: what each source got, the
greeting and what came of a question behind it, or the reason why there was no connection within so many seconds.
"""

import json
import socket
import socketserver
import sys
import threading
from ipaddress import ip_address

from twisted.internet import defer, reactor, task
from twisted.internet.endpoints import connectProtocol
from twisted.protocols.basic import LineOnlyReceiver

from tlsgate.net.transparent import TransparentEndpoint

BULK_OCTETS = 300_000


class Greeting(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"220 {self.client_address[0]}\r\n".encode())
        asked = self.rfile.readline(100).strip()
        if asked.isdigit():  # a gate says QUIT instead
            self.wfile.write(b"x" * int(asked) + b"\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Server6(Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(port: str, *hosts: str) -> None:
    for host in hosts:
        server = (Server6 if ":" in host else Server)((host, int(port)), Greeting)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    say("ready")
    sys.stdin.read()


class Client(LineOnlyReceiver):
    MAX_LENGTH = 2 * BULK_OCTETS

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.over: defer.Deferred[list[str]] = defer.Deferred()

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line.decode() if len(line) < 100 else str(len(line)))
        if len(self.lines) == 1:
            self.sendLine(b"%d" % BULK_OCTETS)
        else:
            self.transport.loseConnection()
            self.over.callback(self.lines)


@defer.inlineCallbacks
def dial(host: str, port: str, seconds: str, *sources: str):  # type: ignore[no-untyped-def] # noqa: ANN201
    got = {}
    for source in sources:
        endpoint = TransparentEndpoint(reactor, host, int(port), ip_address(source), float(seconds))
        try:
            client = yield connectProtocol(endpoint, Client())
            got[source] = yield client.over.addTimeout(30, reactor)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of it
            got[source] = [f"{type(error).__name__}: {error}"]
    say(json.dumps(got))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        task.react(lambda _: dial(*sys.argv[2:]))
