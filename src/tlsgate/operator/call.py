"""
One SMTP call to a backend, from the connection to EHLO: what every question to a backend begins with.

The gate's way to open a backend connection, without a client behind it. Where the configuration says that the backend
is told who the client is, it is told of a stranger (RFC 5737 and RFC 3849: an address that nobody has).
"""

import struct
from ipaddress import ip_address
from typing import Literal

from attrs import define, field, frozen

from tlsgate.config import Backend
from tlsgate.config.endpoints import backend_host
from tlsgate.operator.wire import Address, CallError, Wire
from tlsgate.policy.facts import TlsFacts
from tlsgate.smtp.framing import ReplyError, ReplyReader
from tlsgate.smtp.reply import BackendReply
from tlsgate.tls.certificates import CertificateError
from tlsgate.tls.client import BackendTrust

STRANGER_IPV4 = "192.0.2.1"
STRANGER_IPV6 = "2001:db8::1"
STRANGER_PORT = 50_025

REPLY_OCTETS_MAX = 65_536

_PROXY_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

ClientAddress = Literal["none", "xclient", "proxy-v1", "proxy-v2", "transparent"]
BackendTls = Literal["none", "starttls", "implicit"]


@frozen
class Manner:
    """
    How a backend is called: in which name, over which TLS, and how it is told of a client.
    """

    ehlo_name: str
    tls: BackendTls = "none"
    trust: BackendTrust | None = None
    client_address: ClientAddress = "none"

    @classmethod
    def of(cls, group: Backend, endpoint: str, ehlo_name: str) -> "Manner":
        """
        Return how the gate calls an *endpoint* of *group*.

        Raises:
            CallError: The backend's certificate could not be verified with what is configured.
        """
        trust = None
        if group.tls != "none":
            try:
                trust = BackendTrust(group.tls_name or backend_host(endpoint) or "", group.tls_ca)
            except CertificateError as error:
                raise CallError("; ".join(error.problems)) from error
            except ValueError as error:
                raise CallError(str(error)) from error
        return cls(ehlo_name, group.tls, trust, group.client_address)


@define
class Call:
    """
    A call in progress. `begin` first; then `say`, one command at a time; `hang_up` at the end.

    *greeting*, *tls*, *keywords* (of the last EHLO; empty after HELO) are what was learnt on the way. With XCLIENT,
    *xclient* has its attributes.
    """

    _wire: Wire
    _manner: Manner
    greeting: str = field(default="", init=False)
    tls: TlsFacts | None = field(default=None, init=False)
    keywords: dict[str, tuple[str, ...]] = field(factory=dict, init=False)
    xclient: tuple[str, ...] = field(default=(), init=False)
    _reader: ReplyReader = field(init=False, factory=lambda: ReplyReader(REPLY_OCTETS_MAX))

    def begin(self) -> None:
        """
        Come to where a client's first command would be understood.

        Raises:
            CallError: That is not to be had.
        """
        manner = self._manner
        if manner.client_address in {"proxy-v1", "proxy-v2"}:
            self._wire.send(proxy_header(manner.client_address, *self._wire.ends()))
        if manner.tls == "implicit":
            self._start_tls()
        greeting = self._reply()
        if greeting.code != 220:
            raise CallError(f"greeted with {greeting.told()}")
        self.greeting = greeting.told()
        self._greet()
        if manner.tls == "starttls":
            self._upgrade()
        if manner.client_address == "xclient":
            self._introduce_stranger()

    def say(self, command: bytes) -> BackendReply:
        """
        Send one *command* line and return the reply.

        Raises:
            CallError: There was none, or something else.
        """
        self._wire.send(command + b"\r\n")
        return self._reply()

    def hang_up(self) -> None:
        """
        Say QUIT. What the backend makes of it is its own affair.
        """
        try:
            self.say(b"QUIT")
        except CallError:
            return

    def _greet(self) -> None:
        name = self._manner.ehlo_name.encode("ascii")
        reply = self.say(b"EHLO " + name)
        if reply.code == 250:
            words = [line.decode("latin-1").split() for line in reply.lines()[1:]]
            self.keywords = {first.upper(): tuple(rest) for first, *rest in filter(None, words)}
            return
        if self._manner.client_address in {"proxy-v1", "proxy-v2"}:
            # Whoever takes PROXY headers knows EHLO: this is what a server says that does not, to the header.
            raise CallError(f"answered EHLO, or the PROXY header, with {reply.told()}")
        self.keywords = {}
        helo = self.say(b"HELO " + name)
        if helo.code != 250:
            raise CallError(f"answered EHLO with {reply.told()} and HELO with {helo.told()}")

    def _upgrade(self) -> None:
        if "STARTTLS" not in self.keywords:
            raise CallError("does not offer STARTTLS")
        reply = self.say(b"STARTTLS")
        if reply.code != 220:
            raise CallError(f"answered STARTTLS with {reply.told()}")
        self._start_tls()
        self._greet()

    def _start_tls(self) -> None:
        assert self._manner.trust is not None  # noqa: S101 - a manner with TLS is made with trust
        self.tls = self._wire.start_tls(self._manner.trust)
        self._reader = ReplyReader(REPLY_OCTETS_MAX)

    def _introduce_stranger(self) -> None:
        self.xclient = tuple(attribute.upper() for attribute in self.keywords.get("XCLIENT", ()))
        if "ADDR" not in self.xclient:
            raise CallError("does not offer XCLIENT with ADDR to us")
        unknown = dict.fromkeys(("NAME", "REVERSE_NAME"), "[UNAVAILABLE]")
        known = {**unknown, "ADDR": STRANGER_IPV4, "PORT": str(STRANGER_PORT)}
        attributes = " ".join(f"{name}={value}" for name, value in known.items() if name in self.xclient)
        reply = self.say(f"XCLIENT {attributes}".encode("ascii"))
        if reply.code != 220:
            raise CallError(f"answered XCLIENT with {reply.told()}")
        self._greet()

    def _reply(self) -> BackendReply:
        while True:
            data = self._wire.receive()
            if not data:
                raise CallError("closed the connection")
            try:
                replies = self._reader.feed(data)
            except ReplyError as error:
                raise CallError(f"sent {error}") from error
            if len(replies) > 1 or (replies and self._reader.pending):
                raise CallError("sent more than was asked for")
            if replies:
                return replies[0]


def proxy_header(version: Literal["proxy-v1", "proxy-v2"], ours: Address, theirs: Address) -> bytes:
    """
    Return a PROXY header that says that a stranger has connected to *theirs*.
    """
    # A UNIX socket has no addresses to tell.
    over_ipv6 = not isinstance(ours, str) and ":" in ours[0]
    source = ip_address(STRANGER_IPV6 if over_ipv6 else STRANGER_IPV4)
    destination = ip_address("127.0.0.1" if isinstance(theirs, str) else theirs[0].partition("%")[0])
    port = 25 if isinstance(theirs, str) else theirs[1]
    if version == "proxy-v1":
        return f"PROXY TCP{source.version} {source} {destination} {STRANGER_PORT} {port}\r\n".encode("ascii")
    block = source.packed + destination.packed + struct.pack("!HH", STRANGER_PORT, port)
    return _PROXY_V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x21 if over_ipv6 else 0x11, len(block)) + block
