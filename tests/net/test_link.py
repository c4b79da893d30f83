"""
A way to a backend that cannot be had: whose fault that is.
"""

import errno
from ipaddress import ip_address

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError, TCPTimedOutError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as Overdue
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from tlsgate.net.backend import Candidate
from tlsgate.net.deadlines import Timeouts
from tlsgate.net.dialler import ClientAddress, Dialler, Target
from tlsgate.net.identity import ClientIdentity
from tlsgate.net.link import Link
from tlsgate.net.pool import Pool
from tlsgate.session.opening import Opening, OpeningPlan
from tlsgate.session.steps import Failed
from tlsgate.smtp.reply import BackendReply, Reply


@implementer(IStreamClientEndpoint)
class Failing:
    """
    An endpoint that nobody can connect to.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error

    def connect(self, protocolFactory: object) -> "Deferred[Protocol]":
        return fail(self.error)


class Listener:
    """
    Writes down what it is told.
    """

    def __init__(self) -> None:
        self.told: list[Reply] = []

    def link_ready(self, greeting: BackendReply) -> None:
        raise AssertionError(greeting)

    def link_failed(self, reply: Reply, log_reason: str) -> None:
        self.told.append(reply)

    def link_data(self, data: bytes) -> None:
        raise AssertionError(data)

    def link_lost(self) -> None:
        raise AssertionError


def failure_of(error: Exception) -> Failed:
    """
    Return what is said of a backend that could not be connected to for this reason.
    """
    tried: list[Failed | None] = []
    listener = Listener()
    candidate = Candidate(
        lambda: Failing(error), lambda: Opening(OpeningPlan("gate.example")), None, None, tried.append, lambda: None
    )
    Link(listener, [candidate], Clock(), Timeouts()).dial()
    assert [reply.code for reply in listener.told] == [451]
    [failed] = tried
    assert failed is not None
    return failed


@pytest.mark.parametrize(
    "error",
    [
        ConnectBindError(errno.EMFILE, "Too many open files"),
        OSError(errno.EMFILE, "Too many open files"),  # of a UNIX socket Twisted tells it as it comes
        ConnectBindError(errno.EADDRNOTAVAIL, "all ports are taken"),
        ConnectError(string="Connection was closed cleanly."),  # the same, if its queue is full
        ConnectError(string="mail.example has no IPv6 address, as the client has"),  # from `TransparentEndpoint`
    ],
    ids=str,
)
def test_what_a_client_can_bring_about_is_not_held_against_a_backend(error: Exception) -> None:
    """
    Others would be turned away for it.
    """
    assert failure_of(error).ours


@pytest.mark.parametrize(
    "error",
    [
        Refused(errno.ECONNREFUSED, "Connection refused"),
        TCPTimedOutError(errno.ETIMEDOUT, "timed out"),
        Overdue(string="no answer"),
        ConnectError(errno.EHOSTUNREACH, "No route to host"),
        ConnectError(errno.ENOENT, "No such file or directory"),
        DNSLookupError("no such name"),
    ],
    ids=str,
)
def test_a_backend_that_is_not_there_is_down(error: Exception) -> None:
    assert not failure_of(error).ours


def test_one_good_answer_does_not_outweigh_a_bad_one() -> None:
    """
    Two probes may ask a backend at a time whether it relays for strangers, and one endpoint may be several servers.
    """
    target = Target("tcp:mail.example:25", lambda _: Failing(Overdue(string="no answer")))
    dialler = Dialler(
        "default", Clock(), Pool((target,)), OpeningPlan("gate.example"), Timeouts(), lambda _event, _fields: None
    )
    asked: list[Deferred[str | None]] = []

    def question() -> "Deferred[str | None]":
        asked.append(Deferred())
        return asked[-1]

    dialler.distrust(target, question)
    for _ in range(2):
        dialler._tried(target, None, counts=True)
    asked[0].callback(None)
    asked[1].callback("relays")
    dialler._tried(target, None, counts=True)
    assert not dialler.any_up
    asked[2].callback(None)
    assert dialler.any_up


@pytest.mark.parametrize("how", ClientAddress)
def test_what_happens_from_a_clients_own_address_is_asked_about_in_our_own_name(how: ClientAddress) -> None:
    """
    Answers to a client in the backend's own network do not come back here, whoever else is served.
    """
    target = Target("tcp:mail.example:25", lambda _: Failing(Overdue(string="no answer")))
    journal: list[str] = []
    dialler = Dialler(
        "default", Clock(), Pool((target,)), OpeningPlan("gate.example"), Timeouts(),
        lambda event, _: journal.append(event), how,
    )  # fmt: skip
    dialler.link(Listener(), ClientIdentity(ip_address("192.0.2.7"), 4711), None).dial()
    if how is ClientAddress.TRANSPARENT:
        assert dialler.any_up
        assert journal == []
        assert dialler.pool.due_for_probe(0) == [target]
        dialler.probe(Listener(), target).dial()
    assert not dialler.any_up
    assert journal == ["backend-down"]
