"""
How long a session waits, and for whom (RFC 5321 section 4.5.3.2).
"""

from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tlsgate.session.phases import Waiting


@frozen
class Timeouts:
    """
    For how long each may be silent.

    *connect_seconds*: one attempt to reach one backend. *closing_seconds*: until a connection that is closed, but whose
    other side does not take the last octets, is dropped. *data_rate_octets_per_second_min*: 0 is "off".
    """

    client_seconds: float = 300
    handshake_seconds: float = 30
    backend_seconds: float = 300
    end_of_data_seconds: float = 600
    connect_seconds: float = 30
    closing_seconds: float = 5
    data_rate_octets_per_second_min: int = 100

    def of(self, waiting: Waiting) -> float | None:
        """
        Return for how many seconds a session waits for that one.
        """
        match waiting:
            case Waiting.CLIENT:
                return self.client_seconds
            case Waiting.BACKEND:
                return self.backend_seconds
            case Waiting.END_OF_DATA:
                return self.end_of_data_seconds
            case Waiting.HANDSHAKE:
                return self.handshake_seconds
            case Waiting.NOBODY:
                return None


@define(eq=False)
class Deadline:
    """
    One deadline at a time. Moving it is cheap: it is done for every chunk.
    """

    _clock: IReactorTime
    _expired: Callable[[], object]
    _call: IDelayedCall | None = None

    def set(self, seconds: float | None) -> None:
        """
        Let the deadline be that far from now; `None`: let there be none.
        """
        if seconds is None:
            self.clear()
        elif self._call is None:
            self._call = self._clock.callLater(seconds, self._fire)
        else:
            self._call.reset(seconds)

    def clear(self) -> None:
        """
        Let there be none.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _fire(self) -> None:
        self._call = None
        self._expired()


RATE_WINDOW_SECONDS = 60.0


@define(eq=False)
class DataRate:
    """
    Watches that message data does not trickle: a client must not hold a session, and a backend, octet by octet.

    Time in which the client was not read from does not count.
    """

    _octets_per_second_min: int
    _since: float | None = None
    _octets: int = 0

    def took(self, octets: int, now: float) -> bool:
        """
        Take in that *octets* came; return whether the last window was too slow.
        """
        if self._since is None:
            self._since = now
        self._octets += octets
        elapsed = now - self._since
        if elapsed < RATE_WINDOW_SECONDS:
            return False
        slow = self._octets < self._octets_per_second_min * elapsed
        self._since, self._octets = now, 0
        return slow

    def rest(self) -> None:
        """
        Start anew: there is no message now, or it is not the client who is slow.
        """
        self._since = None
        self._octets = 0
