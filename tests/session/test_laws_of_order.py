"""
Law 1: after the greeting, one reply per command, in order.

Every dialogue also runs byte by byte and at every two-way cut.
"""

from tests.session.preludes import (
    DATA,
    GREETED,
    INSIDE,
    MODERN,
    OFFERED,
    OLD,
    TRANSACTION,
)
from tests.support.dialogue import play, play_once
from tests.support.stage import terms
from tlsgate.session.bounds import Bounds


class TestOneReplyPerCommandInOrder:
    """Law 1."""

    def test_the_way_in(self) -> None:
        """Greeting, EHLO, STARTTLS, handshake, EHLO: the beginning of all other dialogues, cut everywhere."""
        play(
            terms(),
            """
            client  > EHLO client.example
            client  < 250-mx.example.org
            client  < 250-ENHANCEDSTATUSCODES
            client  < 250-8BITMIME
            client  < 250-SMTPUTF8
            client  < 250 STARTTLS
            client  > STARTTLS
            client  < 220 2.0.0 Ready to start TLS
            starttls
            dial
            tls TLSv1.3 TLS_AES_256_GCM_SHA384 256
            backend > 220 backend.example.org ESMTP
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 250-backend.example.org
            backend > 250-PIPELINING
            backend > 250-STARTTLS
            backend > 250 XCLIENT ADDR
            client  < 250-backend.example.org
            client  < 250 PIPELINING
            client  > QUIT
            backend < QUIT
            backend > 221 bye
            client  < 221 bye
            close
            leave
            """,
            after=GREETED,
        )

    def test_refusal_waits_for_its_turn(self) -> None:
        """2920-01: what we refuse is answered after the commands sent before it, even if the backend is slow."""
        play(
            terms(),
            """
            client  > NOOP one
            client  > XCLIENT ADDR=127.0.0.1
            client  > STARTTLS
            client  > NOOP two
            backend < NOOP one
            backend < NOOP two
            backend > 250 one
            client  < 250 one
            client  < 502 5.5.1 ...
            client  < 503 5.5.1 ...
            backend > 250 two
            client  < 250 two
            """,
            after=MODERN,
        )

    def test_a_pipelined_transaction(self) -> None:
        """2920-01, 5321-27: one group, replies in order, and the message is not read before the 354."""
        play(
            terms(),
            """
            client  > MAIL FROM:<a@example.org>
            client  > RCPT TO:<b@example.org>
            client  > RCPT TO:<c@example.org>
            client  > DATA
            client  > Hello
            client  > .
            client  > QUIT
            backend < MAIL FROM:<a@example.org>
            backend < RCPT TO:<b@example.org>
            backend < RCPT TO:<c@example.org>
            backend < DATA
            backend > 250 sender ok
            client  < 250 sender ok
            backend > 250 b ok
            backend > 550 c unknown
            client  < 250 b ok
            client  < 550 c unknown
            backend > 354 go
            client  < 354 go
            backend < Hello
            backend < .
            backend < QUIT
            backend > 250 queued
            backend > 221 bye
            client  < 250 queued
            client  < 221 bye
            close
            leave
            """,
            after=MODERN,
        )

    def test_an_old_backend_gets_one_command_at_a_time(self) -> None:
        """A backend that does not offer PIPELINING never sees a command before it has answered the one before."""
        play(
            terms(),
            """
            client  > MAIL FROM:<a@example.org>
            client  > RCPT TO:<b@example.org>
            client  > RSET
            client  > VRFY b
            backend < MAIL FROM:<a@example.org>
            backend > 250 sender ok
            client  < 250 sender ok
            backend < RCPT TO:<b@example.org>
            backend > 250-b
            backend > 250 ok
            client  < 250-b
            client  < 250 ok
            backend < RSET
            backend > 250 reset
            client  < 250 reset
            backend < VRFY b
            backend > 252 try it
            client  < 252 try it
            """,
            after=OLD,
        )

    def test_replies_pass_as_they_came(self) -> None:
        """5321-16: codes, texts and lines of the backend's replies are not touched."""
        play(
            terms(),
            """
            client  > HELP
            backend < HELP
            backend >> 214-  odd \\xff\\t text\\r\\n214-\\r\\n214\\r\\n
            client  << 214-  odd \\xff\\t text\\r\\n214-\\r\\n214\\r\\n
            client  > VRFY nobody
            backend < VRFY nobody
            backend > 550 5.1.1 nobody
            client  < 550 5.1.1 nobody
            client  > FROBNICATE
            backend < FROBNICATE
            backend > 500 what
            client  < 500 what
            """,
            after=MODERN,
        )

    def test_a_refused_data_has_no_message(self) -> None:
        """5321-27: behind a DATA that the backend refuses come commands, not message data."""
        play(
            terms(),
            """
            client  > DATA
            client  > NOOP not data
            backend < DATA
            backend > 503 no recipients
            client  < 503 no recipients
            backend < NOOP not data
            backend > 250 ok
            client  < 250 ok
            """,
            after=MODERN,
        )

    def test_two_messages_back_to_back(self) -> None:
        """The next transaction may be sent behind the end of data, before its reply."""
        play(
            terms(),
            """
            client  > one
            client  > .
            client  > NOOP
            client  > RSET
            backend < one
            backend < .
            backend < NOOP
            backend < RSET
            backend > 250 queued
            client  < 250 queued
            backend > 250 noop
            backend > 250 reset
            client  < 250 noop
            client  < 250 reset
            """,
            after=MODERN + DATA,
        )

    def test_chunks(self) -> None:
        """3030-03, 2920-01: BDAT in a group, each chunk answered once; commands inside chunks are octets."""
        play(
            terms(),
            """
            client >> BDAT 6\\r\\nQUIT\\r\\nBDAT 3\\r\\n\\n.\\nBDAT 0 LAST\\r\\nNOOP\\r\\n
            backend << BDAT 6\\r\\nQUIT\\r\\nBDAT 3\\r\\n\\n.\\nBDAT 0 LAST\\r\\nNOOP\\r\\n
            backend > 250 six
            client  < 250 six
            backend > 250 three
            backend > 250 queued
            backend > 250 noop
            client  < 250 three
            client  < 250 queued
            client  < 250 noop
            """,
            after=MODERN + TRANSACTION,
        )

    def test_sasl(self) -> None:
        """4954-05: what follows AUTH is not read as commands until the exchange is over."""
        play(
            terms(),
            """
            client  > AUTH LOGIN
            client  > QVVUSA==
            client  > UVVJVA==
            client  > NOOP
            backend < AUTH LOGIN
            backend > 334 VXNlcm5hbWU6
            client  < 334 VXNlcm5hbWU6
            backend < QVVUSA==
            backend > 334 UGFzc3dvcmQ6
            client  < 334 UGFzc3dvcmQ6
            backend < UVVJVA==
            backend > 235 2.7.0 welcome
            client  < 235 2.7.0 welcome
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=MODERN,
        )

    def test_a_sasl_exchange_that_is_cancelled(self) -> None:
        """4954-02: "*" cancels; the backend's 501 answers."""
        play(
            terms(),
            """
            client  > AUTH LOGIN
            backend < AUTH LOGIN
            backend > 334 VXNlcm5hbWU6
            client  < 334 VXNlcm5hbWU6
            client  > *
            backend < *
            backend > 501 cancelled
            client  < 501 cancelled
            client  > NOOP
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=MODERN,
        )

    def test_a_helo_only_backend(self) -> None:
        """A backend that knows no EHLO is asked with HELO; the client gets one positive reply to its EHLO."""
        for code in ("500", "502"):
            play(
                terms(),
                f"""
                client  > EHLO client.example
                client  > MAIL FROM:<a@example.org>
                backend < EHLO client.example
                backend > {code} what
                backend < HELO client.example
                backend > 250 backend.example.org
                client  < 250 backend.example.org
                backend < MAIL FROM:<a@example.org>
                backend > 250 ok
                client  < 250 ok
                """,
                after=INSIDE,
            )

    def test_a_helo_only_backend_in_plaintext(self) -> None:
        """STARTTLS is offered before a backend that knows no EHLO, too."""
        play(
            terms("offered"),
            """
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 500 what
            backend < HELO client.example
            backend > 250 backend.example.org
            client  < 250-backend.example.org
            client  < 250 STARTTLS
            """,
            after=OFFERED,
        )

    def test_a_backend_that_refuses_helo_too(self) -> None:
        """5321-11: the refusal answers the EHLO, and the session goes on."""
        play(
            terms(),
            """
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 502 no
            backend < HELO client.example
            backend > 550 not you
            client  < 550 not you
            client  > NOOP
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=INSIDE,
        )

    def test_a_refused_ehlo(self) -> None:
        """5321-11: a failed EHLO is answered as it is, and what was known stays known: PIPELINING here."""
        play(
            terms(),
            """
            client  > EHLO [bad
            backend < EHLO [bad
            backend > 501 bad name
            client  < 501 bad name
            client  > NOOP 1
            client  > NOOP 2
            backend < NOOP 1
            backend < NOOP 2
            backend > 250 1
            backend > 250 2
            client  < 250 1
            client  < 250 2
            """,
            after=MODERN,
        )

    def test_helo(self) -> None:
        """5321-01: HELO is relayed, and its reply with it."""
        play(
            terms(),
            """
            client  > HELO client.example
            client  > NOOP
            backend < HELO client.example
            backend > 250 backend.example.org
            client  < 250 backend.example.org
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=INSIDE,
        )

    def test_an_unknown_verb_in_a_group(self) -> None:
        """A verb nobody knows may change what follows: that is not sent on, nor read, before the answer is there."""
        play(
            terms(),
            """
            client  > FROB
            client  > NOOP
            backend < FROB
            backend > 500 what
            client  < 500 what
            backend < NOOP
            """,
            after=MODERN,
        )

    def test_ehlo_in_a_group(self) -> None:
        """5321-11: an EHLO in the middle of a session waits for its turn, and ends the group."""
        play(
            terms(),
            """
            client  > NOOP
            client  > EHLO client.example
            client  > RSET
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            backend < EHLO client.example
            backend > 250 backend.example.org
            client  < 250 backend.example.org
            backend < RSET
            backend > 250 reset
            client  < 250 reset
            """,
            after=MODERN,
        )

    def test_a_quit_that_is_refused(self) -> None:
        """A backend may refuse QUIT; then the session goes on, as it says."""
        play(
            terms(),
            """
            client  > QUIT now
            client  > NOOP
            backend < QUIT now
            backend > 501 no arguments
            client  < 501 no arguments
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=MODERN,
        )

    def test_nothing_behind_quit_is_answered(self) -> None:
        """5321-05: after the reply to QUIT there is nothing more."""
        play(
            terms(),
            """
            client  > QUIT
            client  > NOOP
            client  > MAIL FROM:<a@example.org>
            backend < QUIT
            backend > 221 bye
            client  < 221 bye
            close
            leave
            """,
            after=MODERN,
        )

    def test_a_backend_that_just_closes_on_quit(self) -> None:
        """A backend that closes without a 221 had the last word; the client gets its reply all the same."""
        play(
            terms(),
            """
            client  > QUIT
            backend < QUIT
            backend lost
            client  < 221 2.0.0 ...
            close
            """,
            after=MODERN,
        )

    def test_a_long_pipeline(self) -> None:
        """Law 7 and 2920-09: a group longer than the queue is slowed down, not cut off."""
        stage = play_once(terms(bounds=Bounds(pipeline_max=4)), MODERN)
        stage.client(b"".join(b"NOOP %d\r\n" % number for number in range(20)))
        for number in range(20):
            assert stage.backends[-1].count(b"NOOP") <= number + 4
            stage.backend(b"250 %d\r\n" % number)
        assert [reply.raw for reply in stage.replies[-20:]] == [b"250 %d\r\n" % number for number in range(20)]
