"""
Questions to the operator's name servers: the records of one type that a name has, or that there is no answer.

Messages, and the protocol over TCP, are those of twisted.names. Its `Resolver` is not used: it is patient for a minute,
hands one answer, or one cancellation, to everybody who asks the same, never closes its TCP connections, takes an answer
to another question for one to its own, and writes two lines into the log for each. Here a question has its own sockets,
and when it is over, or cancelled, nothing is left of it.
"""

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import connectionDone
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from tlsgate.net.backend import Quiet
from tlsgate.net.client_name import Found, NoAnswerError
from tlsgate.net.wire import Wire

# How long each server has, in turn; then those that were silent have the next. Whoever asks gives up when he likes.
PATIENCE_SECONDS = (1, 2, 4)

# Some five hundred addresses, read in two milliseconds; a name that has more is nobody's host name.
STREAM_OCTETS_MAX = 8_192

DATAGRAM_OCTETS_MAX = 4_096  # without EDNS it is 512

# RFC 2317 needs one, where an address's name is looked after by somebody else. A loop ends here.
ALIASES_MAX = 8

_TYPES = {"PTR": dns.PTR, "A": dns.A, "AAAA": dns.AAAA}

Server = tuple[str, int]


@frozen
class Nameservers:
    """
    The name servers, each an IP address and a port, to be asked in this order; *reactor* does TCP and descriptors.
    """

    servers: Sequence[Server]
    reactor: Any

    def ask(self, name: str, kind: str) -> Deferred[Found]:
        """
        Ask for the records of type *kind* ("PTR", "A", "AAAA") of *name*. That there are none is an answer, too.

        Raises:
            NoAnswerError: No server says.
        """
        return Deferred.fromCoroutine(self._ask(dns.Query(name.encode("ascii"), _TYPES[kind], dns.IN)))

    async def _ask(self, question: dns.Query) -> Found:
        silent = list(self.servers)
        for seconds in PATIENCE_SECONDS:
            asked, silent = silent, []
            for server in asked:
                try:
                    message = await self._exchange(server, question, seconds)
                except defer.TimeoutError:
                    silent.append(server)
                except (OSError, ConnectError, NoAnswerError):
                    continue
                else:
                    # Any other code says something of the server, not of the name.
                    if message.rCode in (dns.OK, dns.ENAME):
                        return found(message, question)
        raise NoAnswerError

    async def _exchange(self, server: Server, question: dns.Query, seconds: float) -> dns.Message:
        datagram = _Datagram(self.reactor, server, question)
        try:
            message = await datagram.answer.addTimeout(seconds, self.reactor)
        finally:
            datagram.close()
        return await self._stream(server, question, seconds) if message.trunc else message

    async def _stream(self, server: Server, question: dns.Query, seconds: float) -> dns.Message:
        kind = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        stream = _Stream(_Nobody(), self.reactor)  # type: ignore[no-untyped-call]  # Twisted is typed in part
        endpoint = kind(self.reactor, *server, timeout=seconds)
        try:
            await endpoint.connect(Quiet.forProtocol(lambda: stream))
        except ConnectingCancelledError as error:
            raise CancelledError from error
        try:
            message = await stream.query([question], seconds)
        finally:
            stream.close()
        if not answers(message, question):
            raise NoAnswerError
        return message


def answers(message: dns.Message, question: dns.Query) -> bool:
    """
    Whether *message* is an answer to that *question*.
    """
    asked = [(_key(query.name), query.type) for query in message.queries]
    return bool(message.answer) and asked == [(_key(question.name), question.type)]


def found(message: dns.Message, question: dns.Query) -> Found:
    """
    Return what a *message* that answers *question* says.
    """
    owner, seconds = _key(question.name), float("inf")
    for _ in range(ALIASES_MAX if message.rCode == dns.OK else 0):
        here = [record for record in message.answers if record.cls == dns.IN and _key(record.name) == owner]
        records = [record for record in here if record.type == question.type]
        if records:
            return Found([_value(record) for record in records], min(seconds, *(record.ttl for record in records)))
        alias = next((record for record in here if record.type == dns.CNAME), None)
        if alias is None:
            break
        owner, seconds = _key(_payload(alias).name), min(seconds, alias.ttl)
    # RFC 2308 section 5: what is not there is not there for that long.
    absent = [min(record.ttl, _payload(record).minimum) for record in message.authority if record.type == dns.SOA]
    return Found((), min(seconds, *absent) if absent else 0)


def _key(name: dns.Name) -> bytes:
    key: bytes = name.name.lower()
    return key


def _payload(record: dns.RRHeader) -> Any:
    return record.payload


def _value(record: dns.RRHeader) -> str:
    payload = _payload(record)
    if record.type == dns.PTR:
        # Octets as they are: what is no host name is not made one.
        name: str = payload.name.name.decode("latin-1")
        return name
    return str(ip_address(payload.address))


@implementer(IReadDescriptor)
class _Datagram:
    """
    A question by UDP. The socket is connected: it hears nobody but the server, and at once that there is none. Its port
    and the message's number are chosen at random (RFC 5452).
    """

    def __init__(self, reactor: Any, server: Server, question: dns.Query) -> None:
        self.answer: Deferred[dns.Message] = Deferred()
        self._question = question
        self._reactor = reactor
        message = dns.Message(dns.randomSource(), recDes=1)
        message.queries = [question]
        self._id = message.id
        self._socket = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(server)
            self._socket.send(message.toStr())
            reactor.addReader(self)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """
        Return the descriptor.
        """
        return self._socket.fileno()

    def doRead(self) -> None:
        """
        Read one datagram.
        """
        message = dns.Message()
        try:
            message.fromStr(self._socket.recv(DATAGRAM_OCTETS_MAX))
        except (BlockingIOError, EOFError, ValueError):
            return
        except OSError as error:
            self.answer.errback(error)
            return
        if message.id == self._id and answers(message, self._question):
            self.answer.callback(message)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """
        The reactor gives the descriptor up.
        """
        if not self.answer.called:
            self.answer.errback(NoAnswerError())

    def logPrefix(self) -> str:
        """
        Return what the reactor calls this in its log.
        """
        return "DNS"

    def close(self) -> None:
        """
        Be gone.
        """
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(dns.DNSProtocol):
    """
    A question by TCP.
    """

    transport: Wire  # type: ignore[assignment]  # Twisted says ITransport or None
    _octets_left = 2 + STREAM_OCTETS_MAX

    def dataReceived(self, data: bytes) -> None:
        """
        Read the answer, unless it is too long.
        """
        self._octets_left -= len(data)
        if self._octets_left < 0:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted is typed in part

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """
        End what waits for an answer.
        """
        waiting, self.liveMessages = self.liveMessages, {}
        for answer, timeout in waiting.values():
            timeout.cancel()
            answer.errback(NoAnswerError())

    def close(self) -> None:
        """
        Be gone, and so the timeout of a question that was cancelled.
        """
        for _, timeout in self.liveMessages.values():
            timeout.cancel()
        self.liveMessages = {}
        self.transport.abortConnection()


class _Nobody:
    """
    Whom `DNSProtocol` tells of its connection, and of answers that nobody waits for.
    """

    def connectionMade(self, protocol: dns.DNSProtocol) -> None:
        """
        It is known already.
        """

    def messageReceived(self, message: dns.Message, protocol: dns.DNSProtocol) -> None:
        """
        Nobody asked.
        """
