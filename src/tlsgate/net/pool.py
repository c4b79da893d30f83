"""
Which backend to try next. A policy without I/O: it is told what happened and when, and says whom to dial.

A backend is *up* until a dial or a probe fails; from then on no client is sent to it until a probe has succeeded.
Probes come after 1 s, 2 s, 4 s .. 60 s. So a dead backend costs one client one failed dial, and while all of them are
down clients are told at once instead of after a timeout.

Times are seconds of one monotonic clock.
"""

from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

from attrs import define, field

RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 60.0

Key = TypeVar("Key", bound=Hashable)


class Spread(Enum):
    """
    How clients are spread over the backends that are up.
    """

    ORDER = "order"
    LEAST_SESSIONS = "least-sessions"


@define
class _Backend:
    """
    What is known of one backend. It is up if *retry_seconds* is 0; else that is the time from its last failure on.
    *doubted*: it is up, and to be probed all the same.
    """

    sessions: int = 0
    started: int = 0
    retry_seconds: float = 0.0
    probe_due: float = 0.0
    probing: bool = False
    doubted: bool = False

    @property
    def up(self) -> bool:
        return self.retry_seconds == 0


@define
class Pool(Generic[Key]):
    """
    The backends of one group, by keys that mean nothing here; in the order in which they are preferred.

    *probe_seconds* is how often a backend that is up is probed, to find it dead before a client does; 0 for never.
    """

    keys: tuple[Key, ...]
    spread: Spread = Spread.ORDER
    probe_seconds: float = 0.0
    _backends: dict[Key, _Backend] = field(init=False)
    _started: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._backends = {key: _Backend() for key in self.keys}

    @property
    def any_up(self) -> bool:
        """
        Whether there is any backend to send a client to.
        """
        return any(backend.up for backend in self._backends.values())

    def up(self, key: Key) -> bool:
        """
        Whether that backend is up.
        """
        return self._backends[key].up

    def sessions(self, key: Key) -> int:
        """
        Return how many sessions that backend has.
        """
        return self._backends[key].sessions

    def candidates(self) -> list[Key]:
        """
        Return the backends to try for one client, best first; empty while none is up.
        """
        up = [key for key in self._backends if self._backends[key].up]
        return up if self.spread is Spread.ORDER else sorted(up, key=self._load)

    def session_started(self, key: Key) -> None:
        """
        A session is given to that backend: say so when it is dialled, so that those behind it count it.
        """
        backend = self._backends[key]
        backend.sessions += 1
        self._started += 1
        backend.started = self._started

    def session_ended(self, key: Key) -> None:
        """
        A session that was given to that backend is over, or its dial has failed.
        """
        self._backends[key].sessions -= 1

    def failed(self, key: Key, now: float) -> bool:
        """
        A dial or a probe has failed: no connection, no greeting, no TLS as demanded.

        Returns:
            Whether this took the backend down.
        """
        backend = self._backends[key]
        was_up = backend.up
        if not (was_up or backend.probing):
            return False  # a dial from before it was down: no news
        backend.retry_seconds = min(max(2 * backend.retry_seconds, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
        backend.probe_due = now + backend.retry_seconds
        backend.probing = backend.doubted = False
        return was_up

    def doubted(self, key: Key, now: float) -> None:
        """
        A dial has failed, maybe for reasons of the client it was for: let a probe decide.
        """
        backend = self._backends[key]
        if backend.up and not backend.probing:
            backend.doubted = True
            backend.probe_due = now

    def not_reached(self, key: Key, now: float) -> None:
        """
        A dial or a probe has come to nothing on our own side: that says nothing of the backend.
        """
        backend = self._backends[key]
        if backend.probing:
            backend.probing = False
            backend.probe_due = now + max(backend.retry_seconds, RETRY_SECONDS_MIN)

    def succeeded(self, key: Key, now: float) -> bool:
        """
        A dial or a probe has succeeded, greeting included.

        Returns:
            Whether this brought the backend back.
        """
        backend = self._backends[key]
        was_up = backend.up
        backend.retry_seconds = 0.0
        backend.probe_due = now + self.probe_seconds
        backend.probing = backend.doubted = False
        return not was_up

    def due_for_probe(self, now: float) -> list[Key]:
        """
        Return the backends to probe now. Each must be said to have `failed` or `succeeded` before it is due again.
        """
        due = [key for key, backend in self._backends.items() if self._is_due(backend, now)]
        for key in due:
            self._backends[key].probing = True
        return due

    def _is_due(self, backend: _Backend, now: float) -> bool:
        wanted = not backend.up or backend.doubted or self.probe_seconds > 0
        return wanted and not backend.probing and now >= backend.probe_due

    def _load(self, key: Key) -> tuple[int, int]:
        # Among equals the one that was given a session longest ago: an idle group takes turns.
        backend = self._backends[key]
        return backend.sessions, backend.started
