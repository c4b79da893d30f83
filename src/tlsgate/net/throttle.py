"""
Pausing a transport for more than one reason.

A client is read no more while the backend's buffer is full, while its own is, and while the session waits for an
answer: the end of one of these must not undo the others.
"""

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from tlsgate.net.wire import Wire


@define(eq=False)
class Throttle:
    """
    One transport, read from only while there is no reason not to. *changed* is called whenever a reason comes or goes.
    """

    _transport: Wire
    _changed: Callable[[], object]
    _reasons: set[str] = field(factory=set)

    def paused_for(self, reason: str) -> bool:
        """
        Whether the transport is not read from, for this reason among others.
        """
        return reason in self._reasons

    def pause(self, reason: str) -> None:
        """
        Do not read, for this reason among others.
        """
        if not self._reasons:
            self._transport.pauseProducing()
        self._reasons.add(reason)
        self._changed()

    def resume(self, reason: str) -> None:
        """
        Read again, unless another reason remains.
        """
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                self._transport.resumeProducing()
            self._changed()


@implementer(IPushProducer)
@define(eq=False)
class Buffer:
    """
    The write buffer of a transport, seen as what it is: a reason not to read from others while it is full.

    To be registered as the streaming producer of that transport.
    """

    name: str
    _sources: list[Throttle]

    def pauseProducing(self) -> None:
        """
        The buffer is full.
        """
        for source in self._sources:
            source.pause(self.name)

    def resumeProducing(self) -> None:
        """
        The buffer has room again.
        """
        for source in self._sources:
            source.resume(self.name)

    def stopProducing(self) -> None:
        """
        The transport is gone; its protocol is told so itself.
        """
