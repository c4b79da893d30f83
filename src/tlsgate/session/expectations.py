"""
Expectations: one entry per command of the client's, in order. Either the backend will answer, and that reply will mean
something, or the answer is ours and is sent when its turn comes. That alone makes pipelining correct (RFC 2920).
"""

from collections import deque
from enum import Enum

from attrs import define, field, frozen

from tlsgate.session.verbs import What


class Then(Enum):
    """
    What happens once a reply of our own has been sent.
    """

    GO_ON = "the session goes on"
    START_TLS = "the handshake begins"
    CLOSE = "the session is over"


@frozen
class Awaited:
    """
    The backend will answer. *argument* is that of the command, where its meaning needs it.
    """

    what: What
    argument: bytes = b""


@frozen
class Own:
    """
    The answer is ours.
    """

    raw: bytes
    then: Then = Then.GO_ON


@define
class Expectations:
    """
    The queue of replies owed to the client.
    """

    _queue: deque[Awaited | Own] = field(factory=deque)
    awaited: int = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, expectation: Awaited | Own) -> None:
        """
        Owe the client one more reply, the last in order.
        """
        self._queue.append(expectation)
        if isinstance(expectation, Awaited):
            self.awaited += 1

    def head(self) -> Awaited | None:
        """
        Return what the next reply of the backend answers, `None` if it answers nothing. Replies of our own that are due
        have been taken off before.
        """
        first = self._queue[0] if self._queue else None
        return first if isinstance(first, Awaited) else None

    def awaits(self, *whats: What) -> bool:
        """
        Return whether a reply to one of these is among those that the backend owes.
        """
        return any(isinstance(entry, Awaited) and entry.what in whats for entry in self._queue)

    def replace_head(self, awaited: Awaited) -> None:
        """
        Expect something else for the oldest command: it was asked in other words.
        """
        self._queue[0] = awaited

    def answered(self) -> None:
        """
        Take off the expectation that the backend has just met.
        """
        self._queue.popleft()
        self.awaited -= 1

    def due(self) -> Own | None:
        """
        Take off a reply of our own whose turn has come; `None` if there is none.
        """
        first = self._queue[0] if self._queue else None
        if isinstance(first, Own):
            self._queue.popleft()
            return first
        return None

    def withdraw(self) -> None:
        """
        Take the last one back: a reply of our own that is not due yet.
        """
        self._queue.pop()

    def clear(self) -> None:
        """
        Owe nothing any more.
        """
        self._queue.clear()
        self.awaited = 0
