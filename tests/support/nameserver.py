"""
A name server on a real port of loopback, in threads of the test's own process: it says what the test wants it to say.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Self, TypeAlias

from attrs import define, field
from twisted.names import dns

# What there is of one name and type: records; a response code; `None`, no answer at all; or whole messages, made of the
# question's.
Says: TypeAlias = "list[dns.RRHeader] | int | Callable[[dns.Message], bytes] | None"

SECONDS = 60


def pointer(name: str | bytes, *, seconds: int = SECONDS, owner: str = "") -> dns.RRHeader:
    octets = name if isinstance(name, bytes) else name.encode()
    return dns.RRHeader(owner.encode(), dns.PTR, dns.IN, seconds, dns.Record_PTR(octets, seconds))


def alias(name: str, *, seconds: int = SECONDS, owner: str = "") -> dns.RRHeader:
    return dns.RRHeader(owner.encode(), dns.CNAME, dns.IN, seconds, dns.Record_CNAME(name.encode(), seconds))


def address(text: str, *, seconds: int = SECONDS, owner: str = "") -> dns.RRHeader:
    if ":" in text:
        return dns.RRHeader(owner.encode(), dns.AAAA, dns.IN, seconds, dns.Record_AAAA(text, seconds))
    return dns.RRHeader(owner.encode(), dns.A, dns.IN, seconds, dns.Record_A(text, seconds))


def soa(minimum: int, *, seconds: int = SECONDS) -> dns.RRHeader:
    payload = dns.Record_SOA(b"ns.example", b"root.example", 1, 2, 3, 4, minimum, seconds)
    return dns.RRHeader(b"example", dns.SOA, dns.IN, seconds, payload)


_TYPES = {dns.PTR: "PTR", dns.A: "A", dns.AAAA: "AAAA"}


@define(eq=False)
class Nameserver:
    """
    *says*: "PTR 7.2.0.192.in-addr.arpa" -> what is said of it; a record without an owner is the name's own. All else is
    NXDOMAIN. *tcp*: "works", "closes", "silent", "full", which is no connection at all. *asked* are the questions so
    far, those over TCP with "tcp" before; *hung_up*, how often the one who asked has closed after the answer.
    """

    says: dict[str, Says] = field(factory=dict)
    host: str = "127.0.0.1"
    authority: list[dns.RRHeader] = field(factory=list)
    tcp: str = "works"
    asked: list[str] = field(factory=list)
    hung_up: int = 0
    port: int = 0
    _datagrams: socket.socket = field(init=False)
    _streams: socket.socket = field(init=False)
    _wires: list[socket.socket] = field(factory=list)
    _threads: list[threading.Thread] = field(factory=list)

    def has(self, client: str, *names: str) -> Self:
        """
        Let the address *client* have these names, and the names this address.
        """
        self.says[f"PTR {ip_address(client).reverse_pointer}"] = [pointer(name) for name in names]
        for name in names:
            self.says[f"{'AAAA' if ':' in client else 'A'} {name}"] = [address(client)]
        return self

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._streams = socket.create_server((self.host, self.port), family=family, backlog=0)
        self.port = self._streams.getsockname()[1]
        self._datagrams = socket.socket(family, socket.SOCK_DGRAM)
        self._datagrams.bind((self.host, self.port))
        works = [self._by_datagram, self._by_stream]
        if self.tcp == "full":
            works.pop()
            for _ in range(2):
                waiting = socket.socket(family)
                waiting.setblocking(False)
                waiting.connect_ex(self.server)
                self._wires.append(waiting)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._datagrams, self._streams, *self._wires):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def server(self) -> tuple[str, int]:
        """
        Where it is.
        """
        return self.host, self.port

    def _by_datagram(self) -> None:
        with suppress(OSError):
            while True:
                question, whose = self._datagrams.recvfrom(4096)
                if not whose:
                    return
                answer = self._answer(question, "", 512)
                if answer is not None:
                    self._datagrams.sendto(answer, whose)

    def _by_stream(self) -> None:
        with suppress(OSError):
            while True:
                wire, _ = self._streams.accept()
                self._wires.append(wire)
                with wire, suppress(OSError, struct.error):
                    wire.settimeout(10)
                    (octets,) = struct.unpack("!H", wire.recv(2))
                    answer = self._answer(wire.recv(octets), "tcp ", 65_535)
                    if self.tcp == "silent" or answer is None:
                        wire.recv(1)
                    elif self.tcp == "works":
                        wire.sendall(struct.pack("!H", len(answer)) + answer)
                        with suppress(ConnectionResetError):
                            wire.recv(1)
                        self.hung_up += 1

    def _answer(self, octets: bytes, how: str, octets_max: int) -> bytes | None:
        asked = dns.Message()
        asked.fromStr(octets)
        name, kind = asked.queries[0].name.name.decode(), _TYPES[asked.queries[0].type]
        self.asked.append(f"{how}{kind} {name}")
        said = self.says.get(f"{kind} {name}", dns.ENAME)
        if said is None:
            return None
        if callable(said):
            return said(asked)
        answer = dns.Message(asked.id, answer=1, recDes=1, recAv=1, maxSize=octets_max)
        answer.queries = asked.queries
        answer.authority = self.authority
        if isinstance(said, int):
            answer.rCode = said
        else:
            answer.answers = [
                record
                if record.name.name
                else dns.RRHeader(name.encode(), record.type, dns.IN, record.ttl, record.payload)
                for record in said
            ]
        whole: bytes = answer.toStr()
        return whole
