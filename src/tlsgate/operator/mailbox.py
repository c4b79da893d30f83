"""
The mailbox on the wire: one `Dialogue` a connection, with a timeout and a bounded buffer.
"""

from collections.abc import Callable
from typing import cast

from attrs import define, field, frozen
from twisted.internet.interfaces import IAddress, IConsumer, IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.operator.dialogue import Bounds, Dialogue
from tlsgate.operator.maildir import Maildir, Stored
from tlsgate.smtp import reply

CLOSE_SECONDS = 10.0


class Wire(ITCPTransport, IConsumer, IPushProducer):
    """
    What Twisted's TCP transports are: to be written to, to be fed, and to be paused.
    """


@frozen
class Settings:
    """
    Who uses the mailbox, and how long a session may be idle.
    """

    bounds: Bounds = field(factory=Bounds)
    sessions_max: int = 200
    idle_timeout_seconds: float = 300.0  # RFC 5321 section 4.5.3.2.7


@implementer(IPushProducer)
@define(eq=False)
class Mailbox(Protocol):
    """
    One connection. Its write buffer, once full, pauses its reading.
    """

    _factory: "MailboxFactory"
    _dialogue: Dialogue = field(init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def connectionMade(self) -> None:
        """
        Greet, or turn away what is too much.
        """
        transport = self._wire()
        transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        host = transport.getPeer().host
        self._dialogue = Dialogue(
            self._factory.maildir,
            f"IPv6:{host}" if ":" in host else host,
            self._factory.on_stored,
            self._factory.settings.bounds,
        )
        self._timer = self._factory.clock.callLater(self._factory.settings.idle_timeout_seconds, self._too_idle)
        self._factory.sessions.add(self)
        if len(self._factory.sessions) > self._factory.settings.sessions_max:
            self._say(self._dialogue.close(reply.TOO_MANY_SESSIONS))
        else:
            self._say(self._dialogue.greeting())

    def dataReceived(self, data: bytes) -> None:
        """
        Answer what came.
        """
        if self._dialogue.closing:
            return
        if self._timer is not None:
            self._timer.reset(self._factory.settings.idle_timeout_seconds)
        self._say(self._dialogue.receive(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget what was not complete.
        """
        del reason
        self._dialogue.forget()
        self._factory.sessions.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pauseProducing(self) -> None:
        """
        Read no more: the client does not take its replies.
        """
        self._wire().pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        self._wire().resumeProducing()

    def stopProducing(self) -> None:
        """
        The connection is gone.
        """

    def _say(self, replies: bytes) -> None:
        transport = self._wire()
        transport.write(replies)
        if self._dialogue.closing:
            transport.unregisterProducer()
            transport.loseConnection()
            if self._timer is not None:
                self._timer.reset(CLOSE_SECONDS)

    def _too_idle(self) -> None:
        self._timer = None
        if self._dialogue.closing:
            # It does not take its last reply, either.
            self._wire().abortConnection()
            return
        self._timer = self._factory.clock.callLater(CLOSE_SECONDS, self._too_idle)
        self._say(self._dialogue.close(reply.CLIENT_SILENT))

    def _wire(self) -> Wire:
        return cast(Wire, self.transport)


@define(eq=False)
class MailboxFactory(ServerFactory):
    """
    Makes a `Mailbox` for each connection, all of them for the same Maildir; *on_stored* is told of each message.
    """

    noisy = False

    maildir: Maildir
    clock: IReactorTime
    on_stored: Callable[[Stored], None]
    settings: Settings = field(factory=Settings)
    sessions: set[Mailbox] = field(factory=set, init=False)

    def buildProtocol(self, addr: IAddress | None) -> Mailbox:
        """
        Return the protocol for one connection.
        """
        del addr
        return Mailbox(self)
