"""
What the host name of a client is, as Postfix itself would find it (its smtpd_peer.c): the name that the DNS has for the
client's address, if that name has this address in turn. Without the second half, anybody could be anybody.

The DNS of an address belongs to whoever has the address. Whatever it says becomes a host name or nothing, and when it
says nothing in time, the name is "deferred": it may be found another time.
"""

from collections.abc import Callable, Sequence

from attrs import define, evolve, field, frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tlsgate.net.identity import ClientIdentity, host_name
from tlsgate.net.proxy_protocol import Address

# Each may have a socket open for some seconds. Beyond that a name is deferred at once, rather than late.
LOOKUPS_MAX = 256

# Some three megabytes. Servers that send us mail come back; the oldest entry goes.
CACHE_ENTRIES_MAX = 10_000

# What the DNS says holds for as long as it says, within reason. At least until a session has changed to TLS, and its
# backend is dialled for the second time; that bounds what one client can make us ask, too.
KNOWN_SECONDS_MAX = 3_600
UNKNOWN_SECONDS_MAX = 300
SECONDS_MIN = 10

# An address has one name as a rule. Postfix tries the first it is told, which changes from answer to answer.
NAMES_MAX = 3

_log = Logger()


@frozen
class Found:
    """
    What the DNS has: the *values* of the records asked for, which may be none, and for how many *seconds* that holds.
    """

    values: Sequence[str]
    seconds: float


class NoAnswerError(Exception):
    """
    The DNS does not say now whether there are such records.
    """


# Asks for the records of a name and a type ("PTR", "A", "AAAA"); fails with `NoAnswerError`.
Ask = Callable[[str, str], "Deferred[Found]"]


@frozen
class ClientName:
    """
    What the DNS says of a client; the attributes are those of `ClientIdentity`.
    """

    name: str | None = None
    name_deferred: bool = False
    reverse_name: str | None = None
    reverse_name_deferred: bool = False


DEFERRED = ClientName(name_deferred=True, reverse_name_deferred=True)


@define(eq=False)
class ClientNames:
    """
    The names of clients: looked up once for all sessions of a client, and remembered.

    Every answer comes within *timeout_seconds*. A lookup that nobody waits for any more goes on, and is remembered: the
    client may come back.
    """

    _ask: Ask
    _clock: IReactorTime
    timeout_seconds: float = 5
    _under_way: dict[Address, list[Deferred[ClientName]]] = field(factory=dict)
    _known: dict[Address, tuple[ClientName, float]] = field(factory=dict)  # with the time until which it holds

    def find(self, address: Address) -> Deferred[ClientName]:
        """
        Look up the name of the client at *address*. This does not fail, and may be cancelled.
        """
        name, until = self._known.get(address, (DEFERRED, 0))
        if until > self._clock.seconds():
            return succeed(name)
        begun = address in self._under_way
        if not begun and len(self._under_way) >= LOOKUPS_MAX:
            return succeed(DEFERRED)
        waiting = self._under_way.setdefault(address, [])
        answer: Deferred[ClientName] = Deferred(waiting.remove)
        waiting.append(answer)
        if not begun:
            lookup = Deferred.fromCoroutine(self._look_up(address))
            lookup.addErrback(_fault).addCallback(self._over, address)
        return answer

    async def _look_up(self, address: Address) -> tuple[ClientName, float]:
        """
        Return the name, and for how many seconds it holds.
        """
        until = self._clock.seconds() + self.timeout_seconds
        try:
            pointers = await self._answer(address.reverse_pointer, "PTR", until)
        except (NoAnswerError, defer.TimeoutError):
            return DEFERRED, SECONDS_MIN
        names = [name for name in map(host_name, pointers.values) if name is not None]
        deferred = False
        seconds = min(pointers.seconds, KNOWN_SECONDS_MAX)
        for name in names[:NAMES_MAX]:
            try:
                found = await self._answer(name, "A" if address.version == 4 else "AAAA", until)
            except (NoAnswerError, defer.TimeoutError):
                deferred = True
                continue
            seconds = min(seconds, found.seconds)
            if str(address) in found.values:
                return ClientName(name, reverse_name=name), seconds
        reverse_name = names[0] if names else None
        seconds = SECONDS_MIN if deferred else min(seconds, UNKNOWN_SECONDS_MAX)
        return ClientName(name_deferred=deferred, reverse_name=reverse_name), seconds

    async def _answer(self, name: str, kind: str, until: float) -> Found:
        left = until - self._clock.seconds()
        if left <= 0:
            raise NoAnswerError
        return await self._ask(name, kind).addTimeout(left, self._clock)

    def _over(self, outcome: tuple[ClientName, float], address: Address) -> None:
        name, seconds = outcome
        self._known.pop(address, None)
        if len(self._known) >= CACHE_ENTRIES_MAX:
            del self._known[next(iter(self._known))]
        self._known[address] = (name, self._clock.seconds() + max(seconds, SECONDS_MIN))
        # One who hears it may end the session of another.
        for answer in list(waiting := self._under_way.pop(address)):
            if answer in waiting:
                answer.callback(name)


def _fault(failure: Failure) -> tuple[ClientName, float]:
    """
    Say of a fault of our own that the name may be found another time: a session does not end for it.
    """
    _log.failure("A client's host name could not be looked up", failure)
    return DEFERRED, SECONDS_MIN


@define(eq=False)
class Naming:
    """
    One session's search for the name of its client: *who* that is, and whether all is *known* of it.
    """

    who: ClientIdentity
    known: bool = True
    _search: Deferred[None] = field(factory=lambda: succeed(None))

    @classmethod
    def begun(cls, who: ClientIdentity, names: ClientNames | None) -> "Naming":
        """
        Begin to look up the name in *names*, if there are any.
        """
        naming = cls(who)
        if names is not None and who.address is not None:
            naming.known = False
            naming._search = names.find(who.address).addCallback(naming._found)
        return naming

    def then(self, call: Callable[[], None]) -> None:
        """
        Have *call* called when all is known; at once if it is. Not if the search is given up before.
        """
        self._search.addCallbacks(lambda _: call(), lambda failure: failure.trap(CancelledError) and None)

    def give_up(self) -> None:
        """
        Search no more.
        """
        self._search.cancel()

    def _found(self, name: ClientName) -> None:
        self.known = True
        self.who = evolve(
            self.who,
            name=name.name,
            name_deferred=name.name_deferred,
            reverse_name=name.reverse_name,
            reverse_name_deferred=name.reverse_name_deferred,
        )
