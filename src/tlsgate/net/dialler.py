"""
The way to a group of backends: which to try, how to tell them who the client is, and which are up.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from ipaddress import ip_address

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from tlsgate.net.backend import Candidate
from tlsgate.net.client_name import ClientNames, Naming
from tlsgate.net.deadlines import Timeouts
from tlsgate.net.identity import ClientIdentity, xclient_commands
from tlsgate.net.link import Link, LinkListener
from tlsgate.net.pool import Pool
from tlsgate.net.proxy_protocol import Endpoint, header_v1, header_v2
from tlsgate.policy.facts import TlsFacts
from tlsgate.policy.level import Level
from tlsgate.session.opening import BackendTls, Opening, OpeningPlan
from tlsgate.session.state import Terms
from tlsgate.session.steps import Failed
from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import BackendReply
from tlsgate.tls.client import BackendTrust

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")

Journal = Callable[[str, Mapping[str, object]], None]


# Asks a backend something in its own way; returns what speaks against giving it clients, `None` if nothing does.
Question = Callable[[], "Deferred[str | None]"]


class ClientAddress(Enum):
    """
    How a backend learns who the client is.
    """

    NONE = "none"
    XCLIENT = "xclient"
    PROXY_V1 = "proxy-v1"
    PROXY_V2 = "proxy-v2"
    TRANSPARENT = "transparent"


_NEEDS_ADDRESS = frozenset({ClientAddress.PROXY_V1, ClientAddress.PROXY_V2, ClientAddress.TRANSPARENT})
_ADDRESS_UNKNOWN = Failed(replies.BACKEND_UNREACHABLE, "the client's address is not known, but must be told")
_OURSELVES = ip_address("127.0.0.1")


@frozen(eq=False)
class Target:
    """
    One backend of a group: its endpoint string, the endpoint to reach it for a client (`None`: for ourselves), and how
    it proves who it is.
    """

    name: str
    endpoint: Callable[[ClientIdentity | None], IStreamClientEndpoint]
    trust: BackendTrust | None = None


@define(eq=False)
class Dialler:
    """
    A group of backends.

    *names* are the host names of clients, where the backends are told of them. *hostname*: the name in the greeting of
    the backend met last, `None` before the first.
    """

    name: str
    clock: IReactorTime
    pool: Pool[Target]
    plan: OpeningPlan
    timeouts: Timeouts
    journal: Journal
    client_address: ClientAddress = ClientAddress.NONE
    names: ClientNames | None = None
    level: Level | None = None
    received_header: bool = False
    keywords: frozenset[bytes] = frozenset()
    hostname: str | None = None
    _distrusted: dict[Target, Question] = field(factory=dict)
    _conveyed: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._conveyed = self.client_address is not ClientAddress.NONE

    def distrust(self, target: Target, question: Question) -> None:
        """
        Give that backend no client before it has answered a *question* to satisfaction; it is asked once it is up.
        """
        self._distrusted[target] = question
        self.pool.failed(target, self.clock.seconds())
        self.journal(
            "backend-down", {"backend": target.name, "reason": "not asked yet whether it relays for strangers"}
        )

    def retire(self) -> None:
        """
        Tell of these backends no more: another dialler has taken this one's place, and knows better.
        """
        self.journal = lambda *_: None

    @property
    def any_up(self) -> bool:
        """
        Whether there is a backend to send a client to.
        """
        return self.pool.any_up

    @property
    def tells_of_tls(self) -> bool:
        """
        Whether the first words to these backends tell of the client's TLS. They wait a few seconds for them, and a
        handshake may take longer.
        """
        return self.client_address is ClientAddress.PROXY_V2

    def link(self, listener: LinkListener, who: ClientIdentity, tls: TlsFacts | None) -> Link:
        """
        Return a link for the session of *who*, to be dialled. *tls*: what is known of its TLS.
        """
        if who.address is None and self.client_address in _NEEDS_ADDRESS:
            # A header without an address would make the backend take our own for the client's.
            return Link(listener, [], self.clock, self.timeouts, failure=_ADDRESS_UNKNOWN)
        targets = self.pool.candidates()
        naming = Naming.begun(who, self.names if targets else None)
        candidates = [self._candidate(target, naming, tls) for target in targets]
        return Link(listener, candidates, self.clock, self.timeouts, self._conveyed, naming)

    def terms(self, terms: Terms) -> Terms:
        """
        Return the terms of a session that comes to these backends.
        """
        return evolve(
            terms,
            keywords=self.keywords,
            requiretls=self.plan.tls is not BackendTls.NONE,
            trace_clock=self._now if self.received_header else None,
        )

    def probe(self, listener: LinkListener, target: Target) -> Link:
        """
        Return a link to one backend, for ourselves.
        """
        candidate = Candidate(
            partial(target.endpoint, None),
            self._own_opening,
            target.trust,
            self.level,
            partial(self._tried, target, counts=True),
            lambda: None,
        )
        return Link(listener, [candidate], self.clock, self.timeouts)

    def met(self, greeting: BackendReply) -> None:
        """
        Learn the backend's name from its greeting (RFC 5321 section 4.2: the domain is its first word).
        """
        words = greeting.lines()[0].split()
        name = words[0].decode("latin-1") if words else ""
        if _HOST_NAME.fullmatch(name):
            self.hostname = name

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds(), UTC)

    def _candidate(self, target: Target, naming: Naming, tls: TlsFacts | None) -> Candidate:
        def endpoint() -> IStreamClientEndpoint:
            self.pool.session_started(target)
            return target.endpoint(naming.who)

        return Candidate(
            endpoint,
            lambda: self._opening(naming, tls),
            target.trust,
            self.level,
            partial(self._tried, target, counts=False),
            partial(self.pool.session_ended, target),
        )

    def _tried(self, target: Target, failure: Failed | None, *, counts: bool) -> None:
        now = self.clock.seconds()
        if failure is None and target in self._distrusted:
            self._clear(target)
        elif failure is None:
            if self.pool.succeeded(target, now):
                self.journal("backend-up", {"backend": target.name})
        elif failure.ours:
            self.pool.not_reached(target, now)
        elif not counts and self._may_be_of_client(failure):
            self.pool.doubted(target, now)
        elif self.pool.failed(target, now):
            self.journal("backend-down", {"backend": target.name, "reason": failure.log_reason})

    def _may_be_of_client(self, failure: Failed) -> bool:
        # From a client's own address even a connection depends on the client: the answers must find the way back here.
        return self.client_address is ClientAddress.TRANSPARENT or (self._conveyed and failure.of_client)

    def _clear(self, target: Target) -> None:
        question = self._distrusted[target]

        def answered(objection: str | None) -> None:
            if objection is None:
                self._distrusted.pop(target, None)
                self._tried(target, None, counts=True)
            else:
                # Two probes may have asked at a time, and the other may have had the better answer.
                self._distrusted[target] = question
                self.pool.failed(target, self.clock.seconds())
                self.journal("backend-refused", {"backend": target.name, "reason": objection})

        question().addCallback(answered)

    def _own_opening(self) -> Opening:
        if self.client_address is ClientAddress.PROXY_V1:
            # Version 1 has no word for "on our own behalf" that every server takes (Postfix refuses UNKNOWN).
            return Opening(self.plan, header_v1((_OURSELVES, 0), (_OURSELVES, 0)))
        if self.client_address is ClientAddress.PROXY_V2:
            return Opening(self.plan, header_v2(None, None))
        return Opening(self.plan)

    def _opening(self, naming: Naming, tls: TlsFacts | None) -> Opening:
        who = naming.who
        source, destination = _pair(who.address, who.port), _pair(who.destination_address, who.destination_port)
        how = self.client_address
        if how is ClientAddress.XCLIENT:
            return Opening(self.plan, xclient=partial(_xclient, naming))
        if how is ClientAddress.PROXY_V1:
            return Opening(self.plan, header_v1(source, destination))
        if how is ClientAddress.PROXY_V2:
            return Opening(self.plan, header_v2(source, destination, tls))
        return Opening(self.plan)


def _xclient(naming: Naming, offered: frozenset[str]) -> list[bytes] | None:
    return xclient_commands(offered, naming.who) if naming.known else None


def _pair(address: object, port: int | None) -> Endpoint | None:
    return None if address is None else (address, port or 0)  # type: ignore[return-value]
