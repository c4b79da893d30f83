"""
Questions to name servers, real ones of loopback: whatever they answer, or do not, it ends, and leaves nothing.

Trial fails a test that leaves a socket or a delayed call in the reactor.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.support.nameserver import Nameserver, Says, address, alias, pointer, soa
from tlsgate.net import nameservers
from tlsgate.net.client_name import DEFERRED, ClientName, ClientNames, Found, NoAnswerError
from tlsgate.net.nameservers import STREAM_OCTETS_MAX, Nameservers, Server

CLIENT = IPv4Address("192.0.2.7")
POINTER = "7.2.0.192.in-addr.arpa"


def crowd(count: int) -> list[dns.RRHeader]:
    return [address(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(count)]


def answering(change: Callable[[dns.Message], None], octets_max: int = 512) -> Callable[[dns.Message], bytes]:
    """
    Return what makes an answer that is right but for a *change*.
    """

    def answer(asked: dns.Message) -> bytes:
        message = dns.Message(asked.id, answer=1, maxSize=octets_max)
        message.queries = asked.queries
        message.answers = [dns.RRHeader(asked.queries[0].name.name, dns.PTR, dns.IN, 60, dns.Record_PTR(b"mx.example"))]
        change(message)
        octets: bytes = message.toStr()
        return octets

    return answer


class NameserversTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.patch(nameservers, "PATIENCE_SECONDS", (0.1, 0.2))

    def start(self, says: dict[str, Says] | None = None, **more: object) -> Nameserver:
        server = Nameserver(says or {}, **more).__enter__()  # type: ignore[arg-type]
        self.addCleanup(server.__exit__)
        return server

    def ask(self, *servers: Nameserver | Server, name: str = POINTER, kind: str = "PTR") -> "Deferred[Found]":
        where = [server.server if isinstance(server, Nameserver) else server for server in servers]
        return Nameservers(where, reactor).ask(name, kind)

    def finds(self, says: Says, *values: str, kind: str = "PTR", name: str = POINTER) -> "Deferred[None]":
        server = self.start({f"{kind} {name}": says})
        found = self.ask(server, name=name, kind=kind)
        return found.addCallback(lambda found: self.assertEqual(tuple(values), tuple(found.values)))

    def unanswered(self, says: Says) -> "Deferred[NoAnswerError]":
        server = self.start({f"PTR {POINTER}": says})
        return self.assertFailure(self.ask(server), NoAnswerError)

    def test_a_name(self) -> "Deferred[None]":
        return self.finds([pointer("mx.example")], "mx.example")

    def test_several(self) -> "Deferred[None]":
        return self.finds([pointer("a.example"), pointer("b.example")], "a.example", "b.example")

    def test_addresses(self) -> "Deferred[None]":
        said = [address("192.0.2.7"), address("192.0.2.8")]
        return self.finds(said, "192.0.2.7", "192.0.2.8", kind="A", name="mx.example")

    def test_ipv6_addresses(self) -> "Deferred[None]":
        return self.finds([address("2001:DB8:0::7")], "2001:db8::7", kind="AAAA", name="mx.example")

    def test_case_makes_no_difference(self) -> "Deferred[None]":
        return self.finds([address("192.0.2.7", owner="MX.Example")], "192.0.2.7", kind="A", name="mx.example")

    def test_a_delegated_address(self) -> "Deferred[None]":
        """RFC 2317: the name of the address is an alias in a zone of the client's own."""
        own = "7.0/25.2.0.192.in-addr.arpa"
        return self.finds([alias(own), pointer("mx.example", owner=own)], "mx.example")

    def test_aliases_in_any_order(self) -> "Deferred[None]":
        said = [pointer("mx.example", owner="b"), alias("b", owner="a"), alias("a")]
        return self.finds(said, "mx.example")

    def test_an_alias_loop_ends(self) -> "Deferred[None]":
        return self.finds([alias("a"), alias("b", owner="a"), alias("a", owner="b")])

    def test_an_alias_to_nowhere(self) -> "Deferred[None]":
        return self.finds([alias("a")])

    def test_records_of_another_name_are_not_looked_at(self) -> "Deferred[None]":
        return self.finds([pointer("mx.example", owner="8.2.0.192.in-addr.arpa")])

    def test_records_of_another_type_are_not_looked_at(self) -> "Deferred[None]":
        return self.finds([address("192.0.2.7")])

    def test_octets_that_are_no_name_are_handed_on_as_they_are(self) -> "Deferred[None]":
        """Whether it is a host name is decided by who wants one."""
        return self.finds([pointer(b"a b\r\nQUIT\xff.example")], "a b\r\nQUIT\xff.example")

    def test_no_such_name(self) -> "Deferred[None]":
        return self.finds(dns.ENAME)

    def test_no_such_record(self) -> "Deferred[None]":
        return self.finds([])

    def test_for_how_long(self) -> "Deferred[None]":
        said = [alias("a", seconds=300), pointer("x", owner="a", seconds=200), pointer("y", owner="a", seconds=100)]
        server = self.start({f"PTR {POINTER}": said})
        return self.ask(server).addCallback(lambda found: self.assertEqual(100, found.seconds))

    def test_for_how_long_there_is_none(self) -> "Deferred[None]":
        """RFC 2308: as the SOA record says, or not at all."""

        def seconds(*authority: dns.RRHeader) -> "Deferred[float]":
            return self.ask(self.start(authority=list(authority))).addCallback(lambda found: found.seconds)

        asked = gatherResults([seconds(), seconds(soa(30)), seconds(soa(300, seconds=20))])
        return asked.addCallback(lambda all_: self.assertEqual([0, 30, 20], all_))

    def test_a_long_answer_comes_by_tcp(self) -> "Deferred[None]":
        server = self.start({"A mx.example": [*crowd(400), address("192.0.2.7")]})

        def check(found: Found) -> None:
            self.assertIn("192.0.2.7", found.values)
            self.assertEqual(401, len(found.values))
            self.assertEqual(["A mx.example", "tcp A mx.example"], server.asked)

        asked = self.ask(server, name="mx.example", kind="A").addCallback(check)
        asked.addCallback(lambda _: deferLater(reactor, 0.1, lambda: server.hung_up))  # type: ignore[arg-type]
        return asked.addCallback(lambda hung_up: self.assertEqual(1, hung_up))

    def test_a_huge_answer_is_none(self) -> "Deferred[NoAnswerError]":
        """Thousands of addresses would stop everything for as long as they are read."""
        said = crowd(STREAM_OCTETS_MAX // 16)  # as many octets each
        server = self.start({"A mx.example": said})
        return self.assertFailure(self.ask(server, name="mx.example", kind="A"), NoAnswerError)

    def test_a_server_that_has_no_tcp(self) -> "Deferred[NoAnswerError]":
        server = self.start({"A mx.example": crowd(100)}, tcp="closes")
        return self.assertFailure(self.ask(server, name="mx.example", kind="A"), NoAnswerError)

    def test_a_server_that_is_silent_by_tcp(self) -> "Deferred[NoAnswerError]":
        server = self.start({"A mx.example": crowd(100)}, tcp="silent")
        return self.assertFailure(self.ask(server, name="mx.example", kind="A"), NoAnswerError)

    def test_a_server_that_cannot_be_reached_by_tcp(self) -> "Deferred[None]":
        server = self.start({f"PTR {POINTER}": [pointer(f"mx{n}.example") for n in range(50)]}, tcp="full")
        names = ClientNames(Nameservers([server.server], reactor).ask, reactor, 5)  # type: ignore[arg-type]
        given_up = ClientNames(Nameservers([server.server], reactor).ask, reactor, 0.05)  # type: ignore[arg-type]
        found = gatherResults([names.find(CLIENT), given_up.find(CLIENT)])
        found.addCallback(lambda found: self.assertEqual([DEFERRED, DEFERRED], found))
        return found.addCallback(lambda _: self.assertEqual([], self.flushLoggedErrors()))

    def test_a_server_that_is_silent(self) -> "Deferred[None]":
        server = self.start({f"PTR {POINTER}": None})
        failed = self.assertFailure(self.ask(server), NoAnswerError)
        return failed.addCallback(lambda _: self.assertEqual(2, len(server.asked)))

    def test_no_server_at_all(self) -> "Deferred[None]":
        """That is known at once, and not after its time."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            nobody: Server = taken.getsockname()
        began = reactor.seconds()  # type: ignore[attr-defined]
        failed = self.assertFailure(self.ask(nobody), NoAnswerError)
        return failed.addCallback(lambda _: self.assertLess(reactor.seconds() - began, 0.1))  # type: ignore[attr-defined]

    def test_a_server_that_fails(self) -> "Deferred[NoAnswerError]":
        return self.unanswered(dns.ESERVER)

    def test_a_server_that_refuses(self) -> "Deferred[NoAnswerError]":
        return self.unanswered(dns.EREFUSED)

    def test_an_answer_with_another_number(self) -> "Deferred[NoAnswerError]":
        return self.unanswered(answering(lambda message: setattr(message, "id", message.id ^ 1)))

    def test_an_answer_to_another_question(self) -> "Deferred[NoAnswerError]":
        other = [dns.Query(b"8.2.0.192.in-addr.arpa", dns.PTR, dns.IN)]
        return self.unanswered(answering(lambda message: setattr(message, "queries", other)))

    def test_an_answer_to_no_question(self) -> "Deferred[NoAnswerError]":
        return self.unanswered(answering(lambda message: setattr(message, "queries", [])))

    def test_a_question_instead_of_an_answer(self) -> "Deferred[NoAnswerError]":
        return self.unanswered(answering(lambda message: setattr(message, "answer", 0)))

    def test_rubbish(self) -> "Deferred[NoAnswerError]":
        return self.unanswered(lambda asked: b"rubbish")

    def test_half_a_message(self) -> "Deferred[NoAnswerError]":
        whole = answering(lambda message: None)
        return self.unanswered(lambda asked: whole(asked)[:20])

    def test_the_next_server_is_asked(self) -> "Deferred[list[None]]":
        """One that is silent, that fails, that refuses: none of them keeps the others from being asked."""
        good = self.start({f"PTR {POINTER}": [pointer("mx.example")]})
        bad = [self.start({f"PTR {POINTER}": says}) for says in (None, dns.ESERVER, dns.EREFUSED)]
        return gatherResults(
            [
                self.ask(each, good).addCallback(lambda found: self.assertEqual(["mx.example"], found.values))
                for each in bad
            ]
        )

    def test_a_lost_datagram_is_sent_again(self) -> "Deferred[None]":
        server = self.start()
        good = answering(lambda message: None)
        server.says[f"PTR {POINTER}"] = lambda asked: b"" if len(server.asked) < 2 else good(asked)
        return self.ask(server).addCallback(lambda found: self.assertEqual(["mx.example"], found.values))

    def test_a_server_with_an_ipv6_address(self) -> "Deferred[None]":
        server = self.start({"A mx.example": [*crowd(100), address("192.0.2.7")]}, host="::1")
        found = self.ask(server, name="mx.example", kind="A")
        return found.addCallback(lambda found: self.assertIn("192.0.2.7", found.values))

    def test_what_is_cancelled_leaves_nothing(self) -> "Deferred[None]":
        """By UDP, and while it waits for an answer by TCP."""
        self.patch(nameservers, "PATIENCE_SECONDS", (5, 5))
        silent = self.start({"A mx.example": None})
        by_tcp = self.start({"A mx.example": crowd(100)}, tcp="silent")
        asked = [self.ask(server, name="mx.example", kind="A") for server in (silent, by_tcp, silent, by_tcp)]
        over = gatherResults([self.assertFailure(each, CancelledError) for each in asked])
        for each in asked[:2]:
            each.cancel()

        def cancel_the_rest(_: object) -> "Deferred[list[object]]":
            self.assertIn("tcp A mx.example", by_tcp.asked)
            for each in asked[2:]:
                each.cancel()
            return over

        later = deferLater(reactor, 0.2, lambda: None)  # type: ignore[arg-type]
        return later.addCallback(cancel_the_rest).addCallback(lambda _: None)

    def test_a_hundred_questions_at_once(self) -> "Deferred[None]":
        server = self.start()
        for number in range(100):
            server.has(f"192.0.2.{number}", f"mx{number}.example")
        names = ClientNames(Nameservers([server.server], reactor).ask, reactor, 5)  # type: ignore[arg-type]
        asked = gatherResults([names.find(IPv4Address(f"192.0.2.{number}")) for number in range(100)])
        expected = [f"mx{number}.example" for number in range(100)]
        return asked.addCallback(lambda found: self.assertEqual(expected, [name.name for name in found]))

    def test_from_address_to_name(self) -> "Deferred[list[None]]":
        client6 = IPv6Address("2001:db8::7")
        server = self.start().has(str(CLIENT), "mx.example").has(str(client6), "mx6.example")
        names = ClientNames(Nameservers([server.server], reactor).ask, reactor, 5)  # type: ignore[arg-type]
        return gatherResults(
            [
                names.find(client).addCallback(
                    lambda found, name: self.assertEqual(ClientName(name, reverse_name=name), found), name
                )
                for client, name in ((CLIENT, "mx.example"), (client6, "mx6.example"))
            ]
        )

    def test_a_server_that_never_answers_ends_in_time(self) -> "Deferred[None]":
        self.patch(nameservers, "PATIENCE_SECONDS", (1, 2, 4))
        server = self.start({f"PTR {POINTER}": None})
        names = ClientNames(Nameservers([server.server], reactor).ask, reactor, 0.3)  # type: ignore[arg-type]
        return names.find(CLIENT).addCallback(lambda found: self.assertEqual(DEFERRED, found))
