"""
The end of the service: who is in the middle of a message may finish it (RFC 5321 section 3.8).
"""

import signal
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tlsgate.net.frontend import Frontend

DRAIN_POLL_SECONDS = 0.05


def drain(
    frontends: Sequence[Frontend], reactor: IReactorTime, seconds: float, closed: "Deferred[object]"
) -> "Deferred[int]":
    """
    Let all sessions end as soon as they may, and wait for that once the ports are *closed*; but for so many seconds at
    most, and no longer when there is a further signal.

    Returns:
        How many sessions were cut off.
    """
    drained: Deferred[int] = Deferred()
    deadline = reactor.seconds() + seconds

    def hurry(*_: object) -> None:
        nonlocal deadline
        deadline = reactor.seconds()

    def wait(_: object = None) -> None:
        left = sum(len(frontend.protocols) for frontend in frontends)
        if left and reactor.seconds() < deadline:
            reactor.callLater(DRAIN_POLL_SECONDS, wait)
            return
        for frontend in frontends:
            frontend.abort()
        # A session that is cut off ends, and writes its line, in the reactor's next turn.
        reactor.callLater(0, drained.callback, left)

    # Twisted's own handler would stop a reactor that is stopping, and log that this is an error.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hurry)
    for frontend in frontends:
        frontend.drain()
    closed.addBoth(wait)
    return drained
