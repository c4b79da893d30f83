"""
A session's way to a backend: candidates are tried in order until one is ready.
"""

import errno
from typing import Protocol as Interface

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.python.failure import Failure

from tlsgate.net.backend import BackendProtocol, Candidate, Quiet
from tlsgate.net.client_name import Naming
from tlsgate.net.deadlines import Deadline, Timeouts
from tlsgate.net.wire import Wire, send
from tlsgate.session.steps import Failed
from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import BackendReply, Reply


class LinkListener(Interface):
    """
    Who is told of one connection to a backend. After a `Link.hang_up`, nobody is.
    """

    def link_ready(self, greeting: BackendReply) -> None:
        """
        The backend is the session's.
        """

    def link_failed(self, reply: Reply, log_reason: str) -> None:
        """
        There is no connection to be had. *reply* is for the client.
        """

    def link_data(self, data: bytes) -> None:
        """
        The backend has sent *data*.
        """

    def link_lost(self) -> None:
        """
        The connection, ready before, is gone.
        """


# No descriptors, no memory, no local port: clients can bring this about, and no backend is the worse for it.
_OUR_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


def _not_connected(reason: Failure) -> Failed:
    """
    Return what is to be said of a backend to which there was no connection.
    """
    error = reason.value
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    # Without a number: this client has no address that the backend could be shown (see `TransparentEndpoint`), or the
    # queue of a UNIX socket is full, for which Twisted has no words either.
    ours = number in _OUR_LACK or (number is None and type(error) is ConnectError)
    if isinstance(error, ConnectingCancelledError):
        told = "no connection in time"
    elif any(isinstance(word, Failure) for word in getattr(error, "args", ())):
        told = "the queue of its socket is full"
    else:
        told = reason.getErrorMessage()
    return Failed(replies.BACKEND_UNREACHABLE, told, ours=ours)


_NONE_UP = Failed(replies.BACKEND_UNREACHABLE, "no backend is up")


@define(eq=False)
class Link:
    """
    The way to a backend, for one session.

    *conveyed*: the backend is told who the client is. *naming*: what it is told has still to be found; the backend
    hears all up to that.
    """

    _listener: LinkListener
    _candidates: list[Candidate]
    _clock: IReactorTime
    _timeouts: Timeouts
    _conveyed: bool = False
    _naming: Naming | None = None
    _failure: Failed = _NONE_UP
    _attempt: Deferred[IProtocol] | None = None
    _protocol: BackendProtocol | None = None
    _trying: Candidate | None = None
    _deadline: Deadline = field(init=False)
    _given_up: bool = False

    def __attrs_post_init__(self) -> None:
        self._deadline = Deadline(self._clock, self._timed_out)
        if self._naming is not None:
            self._naming.then(self._identified)

    # -- for the session

    def dial(self) -> None:
        """
        Try the next candidate.
        """
        if not self._candidates:
            self._stop_naming()
            self._listener.link_failed(self._for_client(), self._failure.log_reason)
            return
        candidate = self._trying = self._candidates.pop(0)
        self._deadline.set(self._timeouts.connect_seconds)
        protocol = BackendProtocol(self, candidate)
        attempt = self._attempt = candidate.endpoint().connect(Quiet.forProtocol(lambda: protocol))
        attempt.addCallbacks(lambda _: self._dialled(protocol), lambda reason: self._unreachable(candidate, reason))

    def write(self, data: bytes) -> None:
        """
        Send *data* to the backend, which is ready.
        """
        if self._protocol is not None:
            send(self._protocol.transport, data)

    @property
    def transport(self) -> Wire:
        """
        The transport of a link that is ready.
        """
        assert self._protocol is not None  # noqa: S101 - asked from link_ready() on only
        return self._protocol.transport

    def hang_up(self, *, politely: bool) -> None:
        """
        Close the connection: once all is sent, or at once. Nobody is told of it any more.
        """
        self._given_up = True
        self._deadline.clear()
        self._stop_naming()
        if self._protocol is None:
            if self._attempt is not None:
                self._attempt.cancel()
        elif politely:
            self.close(self._protocol)
        else:
            self._protocol.transport.abortConnection()

    # -- for the protocol

    def connected(self, protocol: BackendProtocol) -> None:
        """
        The connection is there.
        """
        self._protocol = protocol
        # From here on the backend has its own time, for the greeting and all the rest.
        self._deadline.set(self._timeouts.backend_seconds)

    def ready(self, greeting: BackendReply) -> None:
        """
        The opening is over, and well.
        """
        self._deadline.clear()
        self._tried(None)
        if not self._given_up:
            self._listener.link_ready(greeting)

    def failed(self, failure: Failed) -> None:
        """
        The opening is over, and the connection of no use.
        """
        if self._given_up:
            return
        self._deadline.clear()
        self._tried(failure)
        self._failure = failure
        self._protocol = self._attempt = None
        self.dial()

    def close(self, protocol: BackendProtocol) -> None:
        """
        Have a connection that is of no use closed in time.
        """
        protocol.close(self._clock, self._timeouts.closing_seconds)

    def data(self, data: bytes) -> None:
        """
        The backend, ready, has sent *data*.
        """
        if not self._given_up:
            self._listener.link_data(data)

    def lost(self) -> None:
        """
        The connection, ready before, is gone.
        """
        if not self._given_up:
            self._listener.link_lost()

    # -- inside

    def _identified(self) -> None:
        if self._protocol is not None:
            self._protocol.identified()

    def _stop_naming(self) -> None:
        if self._naming is not None:
            self._naming.give_up()

    def _dialled(self, protocol: BackendProtocol) -> None:
        self._attempt = None
        if self._given_up:
            protocol.transport.abortConnection()

    def _unreachable(self, candidate: Candidate, reason: Failure) -> None:
        candidate.over()
        self.failed(_not_connected(reason))

    def _tried(self, failure: Failed | None) -> None:
        candidate, self._trying = self._trying, None
        if candidate is not None:
            candidate.tried(failure)

    def _timed_out(self) -> None:
        if self._protocol is not None:
            protocol, self._protocol = self._protocol, None
            protocol.give_up()
        elif self._attempt is not None:
            self._attempt.cancel()

    def _for_client(self) -> Reply:
        """
        Return what the client is told: the backend's own refusal, if it was told who the client is and refused it.

        A backend that refuses us is out of order, and no mail must bounce for that.
        """
        refusal = self._failure.refusal
        if refusal is None or refusal.code == 421 or not self._conveyed:
            return self._failure.reply
        return Reply(refusal.code, "", refusal.lines()[0].decode("utf-8", "replace"))
