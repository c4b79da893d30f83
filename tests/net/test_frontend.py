"""
How sessions begin and end at the client's side: the greeting, the verdict, the end of the service.
"""

import json

import pytest

from tests.net.memory import UNLIMITED
from tests.net.world import Backend, Client, World, world
from tests.support.legacy import Legacy

TRANSACTION = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
SHUTTING_DOWN = b"421 4.3.2 Service shutting down, try again later\r\n"


def stop(w: World) -> list[object]:
    """
    Tell the service to stop; return a list that has something in it when it has.
    """
    done: list[object] = []
    w.service.stopService().addBoth(lambda _: done.append("stopped"))
    w.settle()
    return done


def drained(w: World) -> None:
    for _ in range(3):
        w.settle(0.1)


class TestDrain:
    """5321-05: TERM. Who is in the middle of a message may finish it; everybody else is told, and hung up."""

    @pytest.mark.parametrize("situation", ["plaintext", "half a line", "inside TLS", "greeted inside TLS"])
    def test_the_idle_are_told(self, situation: str) -> None:
        with world() as w:
            client = {
                "plaintext": w.connect,
                "half a line": lambda: w.connect().send(b"EHL"),
                "inside TLS": lambda: w.connect().starttls(),
                "greeted inside TLS": w.inside,
            }[situation]()
            client.heard()
            done = stop(w)
            assert client.heard() == SHUTTING_DOWN
            leave(client)
            drained(w)
            assert client.closed
            assert done

    def test_a_transaction_is_finished_first(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION)
            client.heard()
            done = stop(w)
            for words, code in ((b"RCPT TO:<c@example.org>\r\n", 250), (b"DATA\r\n", 354), (b"Hello\r\n", None)):
                w.settle(5)
                assert client.send(words).codes() == ([] if code is None else [code])
                assert not done
            client.send(b".\r\n")
            assert client.heard() == b"250 message 1 taken\r\n" + SHUTTING_DOWN
            leave(client)
            drained(w)
            assert done
            assert w.backend.legacy.messages == [b"Hello"]

    def test_a_slow_backend_may_still_say_that_it_has_it(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION).send(b"DATA\r\n")
            client.heard()
            w.backend.silent = True
            client.send(b"Hello\r\n.\r\n")
            done = stop(w)
            w.settle(20)
            assert client.heard() == b""
            w.backend.silent = False
            w.settle()
            assert client.heard() == b"250 message 1 taken\r\n" + SHUTTING_DOWN
            leave(client)
            drained(w)
            assert done

    def test_a_transaction_given_up_is_finished_too(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION)
            client.heard()
            stop(w)
            assert client.send(b"RSET\r\n").heard() == b"250 OK to RSET\r\n" + SHUTTING_DOWN

    def test_after_half_a_minute_there_is_an_end_to_it(self) -> None:
        with world() as w:
            client = w.inside().send(TRANSACTION).send(b"DATA\r\n").send(b"Hello\r\n")
            done = stop(w)
            for _ in range(298):
                w.settle(0.1)
            assert not done
            assert not client.closed
            for _ in range(4):
                w.settle(0.1)
            assert done
            assert client.closed
            assert w.backend.end.closed
            assert w.backend.legacy.messages == []
            (stopped,) = w.records("stopped")
            assert json.loads(stopped)["sessions_cut_off"] == 1

    def test_nothing_to_wait_for(self) -> None:
        with world() as w:
            assert stop(w)

    def test_nothing_is_begun_any_more(self) -> None:
        """Not by HUP either, whose work would be to listen anew and to call backends."""
        with world() as w:
            client = w.inside().send(TRANSACTION)
            stop(w)
            dials = len(w.network.tcpClients)
            w.service.reload()
            w.settle(5)
            assert w.records("reloaded") == []
            assert len(w.network.tcpClients) == dials
            assert client.send(b"DATA\r\n").codes()[-1] == 354

    def test_a_client_in_its_handshake_is_told_behind_it(self) -> None:
        with world() as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            done = stop(w)
            assert not done
            client.handshake()
            assert client.heard().endswith(SHUTTING_DOWN)
            leave(client)
            drained(w)
            assert done


def leave(client: Client) -> None:
    """
    Close, as a client does that has been hung up.
    """
    if not client.closed:
        client.lose()


class TestJournal:
    def test_the_verdict_is_written_before_the_first_word(self) -> None:
        """3207-10."""
        with world() as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            client.handshake()
            (verdict,) = [json.loads(line) for line in w.records("verdict")]
            assert verdict["outcome"] == "pass"
            assert verdict["tls"] == "TLSv1.3"
            assert w.records("transaction") == []

    def test_one_line_for_a_session_and_one_for_each_transaction(self) -> None:
        """8314-04."""
        with world() as w:
            client = w.inside()
            for _ in range(2):
                client.send(TRANSACTION).send(b"DATA\r\n").send(b"Hello\r\n.\r\n")
            client.send(b"QUIT\r\n").lose()
            (session,) = [json.loads(line) for line in w.records("session")]
            assert (session["client"], session["port"]) == ("192.0.2.7", 40001)
            assert (session["transactions"], session["delivered"]) == (2, 2)
            assert session["tls"] == "TLSv1.3"
            transactions = [json.loads(line) for line in w.records("transaction")]
            assert [one["outcome"] for one in transactions] == ["delivered"] * 2
            assert {one["session"] for one in transactions} == {session["session"]}

    def test_a_handshake_that_fails_is_written_down(self) -> None:
        with world() as w:
            client = w.connect().send(b"EHLO x\r\n").send(b"STARTTLS\r\n")
            client.end.sending += b"GET / HTTP/1.0\r\n\r\n"
            w.settle(6)
            assert client.closed
            (failed,) = [json.loads(line) for line in w.records("handshake-failed")]
            assert failed["reason"]

    def test_each_session_has_a_name_of_its_own(self) -> None:
        with world() as w:
            for _ in range(20):
                w.connect().lose()
            assert len({json.loads(line)["session"] for line in w.records("session")}) == 20


class TestTls:
    def test_a_second_handshake_is_refused_and_the_session_goes_on(self) -> None:
        """3207-19, 3207-20."""
        with world() as w:
            client = w.inside()
            assert b"STARTTLS" not in client.said.rpartition(b"220 2.0.0")[2]
            assert client.send(b"STARTTLS\r\n").heard() == b"503 5.5.1 TLS is already active\r\n"
            assert client.send(b"NOOP\r\n").codes() == [250]
            assert b"STARTTLS" not in w.backend.heard

    def test_no_word_before_a_handshake_that_comes_first(self) -> None:
        with world(tls="implicit") as w:
            client = w.connect()
            assert client.heard() == b""
            client.handshake()
            assert client.heard() == b"220 legacy.example ESMTP\r\n"

    def test_where_no_handshake_is_to_be_had_nothing_said_is_taken_for_plaintext(self) -> None:
        """A balancer sends its header and the client's first octets together: nobody has injected anything."""
        with world(tls="implicit", limits="handshakes_in_flight = 1") as w:
            w.config = w.config.replace('level = "', 'proxy_protocol_from = ["192.0.2.0/24"]\nlevel = "')
            w.service.reload()
            w.settle()
            header = b"PROXY TCP4 203.0.113.7 198.51.100.1 40001 25\r\n"
            w.connect().send(header)
            late = w.connect().send(header + b"\x16\x03\x01\x02\x00\x01")
            assert late.closed
            assert late.heard() == b""
            [session] = w.records("session")
            assert json.loads(session)["outcome"] == "handshake-failed"

    def test_a_client_that_reads_late_has_its_handshake_all_the_same(self) -> None:
        """It is read from again once it has read, though its buffer was full when TLS came between."""
        help_text = b"214-" + b"x" * 65_000 + b"\r\n214 " + b"x" * 478 + b"\r\n"

        def talkative(backend: Backend) -> None:
            backend.legacy = Legacy(answers={b"HELP": help_text})

        with world("offered", new_backend=talkative) as w:
            client = w.connect()
            client.end.room = 0
            client.send(b"EHLO x\r\n").send(b"HELP\r\nSTARTTLS\r\n")
            client.end.room = UNLIMITED
            w.settle()
            client.handshake().heard()
            assert client.send(b"EHLO x\r\n").codes() == [250]

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_a_close_without_close_notify_is_a_close(self, tls: str) -> None:
        with world(tls=tls) as w:
            client = w.connect()
            client = client.starttls() if tls == "starttls" else client.handshake()
            client.end.close()
            w.settle(6)
            assert client.closed
            assert all(backend.end.closed for backend in w.backends)
            assert len(w.records("session")) == 1

    @pytest.mark.parametrize("where", ["nowhere", "listener", "level"])
    def test_auth_in_plaintext_is_the_operators_to_allow_4954_04(self, where: str) -> None:
        """4954-04: for a listener, or for a level."""
        level = '[[level]]\nname = "own"\ntls = "offered"\n' + "plaintext_auth = true\n" * (where == "level")
        with world("own", levels=level) as w:
            if where == "listener":
                w.config = w.config.replace('name = "mx"\n', 'name = "mx"\nplaintext_auth = true\n')
            w.service.reload()
            w.settle()
            client = w.connect().send(b"EHLO client.example\r\nAUTH PLAIN AGEAYg==\r\n")
            assert client.codes()[-1] == (538 if where == "nowhere" else 250)
            assert (b"AUTH PLAIN AGEAYg==" in w.backend.heard) is (where != "nowhere")
