"""
The seven laws of the session, each in dialogues; every dialogue also runs byte by byte and at every two-way cut.

`tests.support.stage` watches the laws besides at every step of all tests.
"""

import pytest

from tests.policy.samples import TLS13
from tests.session.preludes import (
    DATA,
    GREETED,
    INSIDE,
    MODERN,
    OFFERED,
    OFFERED_EHLO,
    OLD,
    STARTED,
    TLS,
    TRANSACTION,
    WEAK_TLS,
)
from tests.support.dialogue import play, play_once
from tests.support.stage import terms
from tlsgate.session.bounds import Bounds
from tlsgate.smtp.message import BareNewlines
from tlsgate.smtp.reply import BackendReply


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
            client  > RSET
            client  > NOOP
            backend < one
            backend < .
            backend < RSET
            backend < NOOP
            backend > 250 queued
            client  < 250 queued
            backend > 250 reset
            backend > 250 noop
            client  < 250 reset
            client  < 250 noop
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


class TestNothingBeforeTlsCountsAfterIt:
    """Law 2."""

    @pytest.mark.parametrize(
        "behind", [b"M", b"\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RSET\r\n" * 1000, b"\x16\x03\x01"]
    )
    def test_plaintext_behind_starttls_in_the_same_chunk(self, behind: bytes) -> None:
        """3207-07, 3207-14: not even the 220 is given; nothing is executed, neither before nor inside TLS."""
        stage = play_once(terms(), GREETED)
        stage.client(b"STARTTLS\r\n" + behind)
        assert stage.said.endswith(b"554 5.5.0 Plaintext behind STARTTLS; nothing of it was executed\r\n")
        assert stage.closed
        assert stage.backends == []

    @pytest.mark.parametrize("cut", range(1, 40))
    def test_plaintext_behind_starttls_however_it_is_cut(self, cut: int) -> None:
        """3207-07: once the 220 is out, what comes belongs to the handshake; before TLS it is never a command."""
        sent = b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n"
        stage = play_once(terms(), GREETED)
        stage.client(sent[:cut])
        stage.client(sent[cut:])
        assert stage.backends in ([], [b""])
        assert b"250" not in stage.said
        assert stage.closed or stage.handshaking

    def test_plaintext_behind_the_220_is_dropped(self) -> None:
        """3207-07: octets that arrive between the 220 and the handshake end the session without being executed."""
        stage = play_once(terms(), STARTED)
        before = stage.said
        stage.session.client_data(b"MAIL FROM:<evil@example.org>\r\n")
        assert stage.backends == [b""]
        assert stage.said == before

    def test_plaintext_before_the_220_has_its_turn(self) -> None:
        """3207-09: STARTTLS waits for the replies before it; octets that come meanwhile cancel it."""
        stage = play_once(
            terms("offered"),
            OFFERED_EHLO
            + """
            client  > NOOP
            client  > STARTTLS
            backend < NOOP
            """,
        )
        stage.client(b"RSET\r\n")
        assert b"220 2.0.0" not in stage.said
        stage.backend(b"250 ok\r\n")
        assert stage.said.endswith(b"250 ok\r\n554 5.5.0 Plaintext behind STARTTLS; nothing of it was executed\r\n")
        assert stage.closed
        assert b"RSET" not in stage.backends[-1]

    def test_starttls_waits_for_its_turn(self) -> None:
        """3207-09: STARTTLS ends a pipelined group and is answered last."""
        play(
            terms("offered"),
            """
            client  > NOOP
            client  > VRFY a
            client  > STARTTLS
            backend < NOOP
            backend < VRFY a
            backend > 250 ok
            client  < 250 ok
            backend > 252 ok
            client  < 252 ok
            client  < 220 2.0.0 Ready to start TLS
            starttls
            hangup
            dial
            """,
            after=OFFERED_EHLO,
        )

    def test_a_fresh_backend(self) -> None:
        """3207-14, 3207-26: what was said in plaintext is unknown to the backend that is spoken to inside TLS."""
        play(
            terms("offered"),
            """
            client  > STARTTLS
            client  < 220 2.0.0 Ready to start TLS
            starttls
            hangup
            dial
            tls TLSv1.3 TLS_AES_256_GCM_SHA384 256
            backend > 220 backend.example.org
            client  > RCPT TO:<c@example.org>
            backend < RCPT TO:<c@example.org>
            backend > 503 MAIL first
            client  < 503 MAIL first
            client  > BDAT 6 LAST
            client  > QUIT
            client  < 503 5.5.1 ...
            """,
            after=OFFERED_EHLO + TRANSACTION,
        )

    def test_pipelining_is_forgotten(self) -> None:
        """3207-15: without a new EHLO the backend is not known to take commands in groups."""
        play(
            terms("offered"),
            """
            client  > NOOP 1
            client  > NOOP 2
            backend < NOOP 1
            backend > 250 1
            client  < 250 1
            backend < NOOP 2
            backend > 250 2
            client  < 250 2
            """,
            after=OFFERED_EHLO
            + """
            client  > STARTTLS
            client  < 220 2.0.0 Ready to start TLS
            starttls
            hangup
            dial
            tls TLSv1.3 TLS_AES_256_GCM_SHA384 256
            backend > 220 backend.example.org
            """,
        )

    def test_the_name_is_forgotten(self) -> None:
        """3207-14: the EHLO name given in plaintext is not known inside TLS."""
        stage = play_once(terms(), STARTED)
        assert stage.session.summary()["helo"] == "client.example"
        stage.handshake(TLS13)
        assert stage.session.summary()["helo"] is None

    def test_inside_tls_there_is_no_second_starttls(self) -> None:
        """3207-19, 3207-20: it is not offered, and refused."""
        play(
            terms(),
            """
            client  > STARTTLS
            client  < 503 5.5.1 TLS is already active
            client  > STARTTLS now
            client  < 503 5.5.1 TLS is already active
            """,
            after=MODERN,
        )


class TestNoCommandBeforeTheLevelIsMet:
    """Law 3; the stage fails every test in which a command gets through."""

    def test_the_backend_is_not_even_dialled(self) -> None:
        """3207-05: in plaintext, at level required, the backend sees no connection at all."""
        play(
            terms(),
            """
            client  > EHLO client.example
            client  > NOOP
            client  > MAIL FROM:<a@example.org>
            client  > QUIT
            client  < 250-mx.example.org
            client  < 250-ENHANCEDSTATUSCODES
            client  < 250 STARTTLS
            client  < 250 2.0.0 OK
            client  < 530 5.7.0 Must issue a STARTTLS command first
            client  < 221 2.0.0 ...
            close
            """,
            after=GREETED,
        )

    def test_insufficient_tls(self) -> None:
        """3207-10, 3207-12: the verdict hangs the backend up, which heard nothing."""
        play(
            terms("strong"),
            """
            client  > EHLO client.example
            client  < 554 Command refused due to lack of security: ...
            client  > MAIL FROM:<a@example.org>
            client  > NOOP
            client  < 554 5.7.0 Command refused due to lack of security: ...
            client  < 554 5.7.0 Command refused due to lack of security: ...
            client  > QUIT
            client  < 221 2.0.0 ...
            close
            """,
            after=STARTED + "backend > 220 backend.example.org ESMTP\n" + WEAK_TLS + "\nhangup",
        )

    def test_insufficient_tls_while_the_dial_runs(self) -> None:
        """The backend that is being dialled is given up before it greets."""
        play(
            terms("strong"),
            """
            client  > RSET
            client  < 554 5.7.0 ...
            """,
            after=STARTED + WEAK_TLS + "\ndrop",
        )

    def test_commands_wait_for_the_backend(self) -> None:
        """A client faster than the dial is read when the backend is there."""
        play(
            terms(),
            """
            client  > EHLO client.example
            client  > NOOP
            backend > 220 backend.example.org
            backend < EHLO client.example
            backend > 250 backend.example.org
            client  < 250 backend.example.org
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=STARTED + TLS + "\n",
        )

    def test_implicit_tls(self) -> None:
        """8314-01: with TLS first the same holds, and the backend's greeting is the client's."""
        play(
            terms(implicit=True),
            """
            backend > 220-backend.example.org
            backend > 220 ESMTP
            client  < 220-backend.example.org
            client  < 220 ESMTP
            client  > STARTTLS
            client  < 503 5.5.1 ...
            """,
            after="dial\n" + TLS + "\n",
        )

    def test_implicit_tls_with_a_backend_faster_than_the_handshake(self) -> None:
        """The greeting waits for the handshake."""
        play(
            terms(implicit=True),
            """
            client  > NOOP
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after="dial\nbackend > 220 backend.example.org\n" + TLS + "\nclient < 220 backend.example.org\n",
        )

    def test_insufficient_implicit_tls(self) -> None:
        """3207-12: the client is greeted by us, and then refused in words."""
        play(
            terms("strong", implicit=True),
            """
            client  > EHLO client.example
            client  < 554 Command refused due to lack of security: ...
            """,
            after="dial\n" + WEAK_TLS + "\ndrop\nclient < 220 mx.example.org ESMTP\n",
        )


MESSAGE = r"Subject: x\r\n\r\n..stuffed\r\n\x00\xff.\r\n..\r\n. \r\n.\r\n"


class TestTheMessageIsNotTouched:
    """Law 4."""

    def test_byte_for_byte(self) -> None:
        """5321-17, 5321-26: stuffed lines, NUL, 8-bit: as they came, at every cut."""
        play(
            terms(),
            f"""
            client >> {MESSAGE}
            backend << {MESSAGE}
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )

    def test_an_empty_message(self) -> None:
        """5321-03: the mark may start with the CRLF that ended DATA."""
        play(
            terms(),
            """
            client  > .
            client  > NOOP
            backend < .
            backend < NOOP
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )

    @pytest.mark.parametrize("form", [r"\n.\n", r"\n.\r\n", r"\r.\r", r"\r\n.\n", r"\r.\r\n"])
    def test_smuggling_is_normalised(self, form: str) -> None:
        """5321-03: all of it is one message, its newlines made CRLF and its dots stuffed; nothing is a command."""
        play(
            terms(),
            f"""
            client >> a{form}XCLIENT ADDR=127.0.0.1\\r\\n.\\r\\n
            backend << a\\r\\n..\\r\\nXCLIENT ADDR=127.0.0.1\\r\\n.\\r\\n
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )

    @pytest.mark.parametrize("form", [r"\n.\n", r"\n.\r\n", r"\r.\r", r"\r\n.\n", r"\r.\r\n"])
    def test_smuggling_is_passed(self, form: str) -> None:
        """With `pass` the backend gets what was sent: a choice the operator has made."""
        play(
            terms(bare_newlines=BareNewlines.PASS),
            f"""
            client >> a{form}b\\r\\n.\\r\\n
            backend << a{form}b\\r\\n.\\r\\n
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )

    @pytest.mark.parametrize("form", [r"\n.\n", r"\n.\r\n", r"\r.\r", r"\r\n.\n", r"\r.\r\n"])
    def test_smuggling_is_rejected(self, form: str) -> None:
        """With `reject` nothing is delivered: the backend never gets an end of data, and the client a 554."""
        sent = f"a{form}b\\r\\n.\\r\\n".encode().decode("unicode_escape").encode()
        for cut in range(len(sent) + 1):
            stage = play_once(terms(bare_newlines=BareNewlines.REJECT), MODERN + DATA)
            stage.client(sent[:cut], sent[cut:])
            assert stage.replies[-1] == BackendReply(
                554, b"554 5.6.0 Message refused: it holds a CR or LF that is not part of CRLF\r\n"
            ), cut
            assert b"\r\n.\r\n" not in stage.backends[-1]
            assert ("backend", b"\0drop\0") in stage.heard

    def test_a_proper_message_is_not_rejected(self) -> None:
        """With `reject`, what has only CRLF passes byte for byte."""
        play(
            terms(bare_newlines=BareNewlines.REJECT),
            f"""
            client >> {MESSAGE}
            backend << {MESSAGE}
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )

    def test_after_a_rejected_message_the_session_ends_with_the_next_command(self) -> None:
        """The backend had to be dropped: there is nobody to speak to any more."""
        stage = play_once(terms(bare_newlines=BareNewlines.REJECT), MODERN + DATA)
        stage.client(b"a\nb\r\n.\r\nMAIL FROM:<a@example.org>\r\n")
        assert [reply.code for reply in stage.replies[-2:]] == [554, 421]
        assert stage.closed

    def test_chunks_are_never_normalised(self) -> None:
        """3030-08: what is in a BDAT is octets."""
        for way in BareNewlines:
            play(
                terms(bare_newlines=way),
                r"""
                client >> BDAT 12 LAST\r\na\n.\nb\r.\r\r\nNOOP\r\n
                backend << BDAT 12 LAST\r\na\n.\nb\r.\r\r\nNOOP\r\n
                backend > 250 queued
                client  < 250 queued
                """,
                after=MODERN + TRANSACTION,
            )


class TestNoDeliveryThatTheBackendDidNotConfirm:
    """Law 5; see also `test_deaths`."""

    def test_the_backend_s_answer_is_the_client_s(self) -> None:
        """5321-23: queued or not, in the backend's words, and not before it spoke."""
        for answer in ("250 2.0.0 queued as 42", "451 later", "554 never", "452 full"):
            play(
                terms(),
                f"""
                client  > Hello
                client  > .
                backend < Hello
                backend < .
                backend > {answer}
                client  < {answer}
                """,
                after=MODERN + DATA,
            )

    def test_a_reply_before_the_end_of_data(self) -> None:
        """An answer to a message that is not whole is no answer: 421, and the backend gets no end of data."""
        play(
            terms(),
            """
            client >> Hello
            backend << Hello
            backend > 250 queued
            client  < 421 4.4.2 ...
            close
            drop
            """,
            after=MODERN + DATA,
        )

    def test_the_backend_dies_before_its_answer(self) -> None:
        """5321-06: 421 and a close; never a 250."""
        play(
            terms(),
            """
            client  > Hello
            client  > .
            backend < Hello
            backend < .
            backend lost
            client  < 421 4.4.2 ...
            close
            """,
            after=MODERN + DATA,
        )

    def test_the_backend_dies_in_the_middle_of_its_answer(self) -> None:
        """A reply that is cut off is none."""
        for half in (r"250 queued\r", r"250-queued\r\n250", r"250-queued\r\n"):
            stage = play_once(
                terms(),
                MODERN
                + DATA
                + "client > .\nbackend < .\nbackend >> "
                + half
                + "\nbackend lost\nclient < 421 4.4.2 ...\nclose\n",
            )
            assert b"queued" not in stage.said

    def test_a_250_to_data_is_no_delivery(self) -> None:
        """A backend that answers DATA with 250 is broken; the client must not take it for a delivery."""
        play(
            terms(),
            """
            client  > DATA
            backend < DATA
            backend > 250 ok
            client  < 421 4.4.2 The mail server broke the protocol
            close
            drop
            """,
            after=MODERN + TRANSACTION,
        )

    def test_a_silent_backend(self) -> None:
        """5321-21: whoever does not answer within its time is given up with 421."""
        play(
            terms(),
            """
            client  > .
            backend < .
            silence
            client  < 421 4.4.2 ...
            close
            hangup
            """,
            after=MODERN + DATA,
        )


class TestNothingMakesItRaise:
    """Law 6; see also `test_phases` and `test_random`."""

    @pytest.mark.parametrize(
        "broken",
        [
            "rubbish",
            "",
            "250_ok",
            "2500 ok",
            "150 wait",
            "354 go",
            "334 go",
            "300 more",
            "250-one\n                backend > 251 two",
        ],
    )
    def test_a_backend_that_breaks_the_protocol(self, broken: str) -> None:
        """5321-13, 5321-14: rubbish, impossible codes and changing codes end the session with 421."""
        play(
            terms(),
            f"""
            client  > NOOP
            backend < NOOP
            backend > {broken}
            client  < 421 4.4.2 The mail server broke the protocol
            close
            hangup
            """,
            after=MODERN,
        )

    def test_a_reply_that_nobody_asked_for(self) -> None:
        """A reply too many shifts all later ones: 421."""
        for reply in ("250 ok", "220 again", "550 no"):
            play(
                terms(),
                f"""
                backend > {reply}
                client  < 421 4.4.2 The mail server broke the protocol
                close
                hangup
                """,
                after=MODERN,
            )

    def test_a_421_at_any_time(self) -> None:
        """5321-05: the backend's 421, asked or not, is the client's last word, too."""
        for before in ("", "client > NOOP\nbackend < NOOP\n"):
            play(
                terms(),
                """
                backend > 421-4.3.2 going
                backend > 421 4.3.2 down
                client  < 421-4.3.2 going
                client  < 421 4.3.2 down
                close
                hangup
                """,
                after=MODERN + before,
            )

    def test_lines_that_are_no_commands(self) -> None:
        """5321-03, 5321-19: refused one by one, and the next line is read as ever."""
        play(
            terms(bounds=Bounds(line_octets_max=40, sasl_octets_max=80)),
            r"""
            client >> NOOP\nRSET\r\nNO\x00OP\r\nNOOP\rXCLIENT a\r\n\tNOOP\r\n\r\n XCLIENT\r\n"XCLIENT" a\r\n
            client  < 500 5.5.2 A command is one line of text, ended by CRLF
            backend < RSET
            backend > 250 reset
            client  < 250 reset
            client  < 500 5.5.2 A command is one line of text, ended by CRLF
            client  < 500 5.5.2 A command is one line of text, ended by CRLF
            client  < 500 5.5.2 A command is one line of text, ended by CRLF
            client  < 500 5.5.2 Command not recognized
            client  < 500 5.5.2 Command not recognized
            client  < 500 5.5.2 Command not recognized
            client  > NOOP 0123456789012345678901234567890123456789
            client  < 500 5.5.2 Line too long
            client  > NOOP 01234567890123456789012345678901234567890123456789012345678901234567890123456789 XCLIENT
            client  < 500 5.5.2 Line too long
            client  > NOOP
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=MODERN,
        )

    def test_after_the_end_nothing_has_any_effect(self) -> None:
        """Events that were under way when the session ended are taken without a word."""
        stage = play_once(terms(), MODERN)
        stage.client(b"QUIT\r\n").backend(b"221 bye\r\n")
        assert stage.closed
        heard = list(stage.heard)
        stage.client(b"NOOP\r\n").silence().drain().client_lost().client_lost()
        stage.session.backend_data(b"250 ok\r\n")
        assert stage.heard == heard


class TestMemoryIsBounded:
    """Law 7; the stage measures after every step."""

    def test_an_endless_line(self) -> None:
        """A line that never ends takes no memory, in any phase in which lines are read."""
        for before in (
            GREETED,
            MODERN,
            MODERN + "client > AUTH LOGIN\nbackend < AUTH LOGIN\nbackend > 334 x\nclient < 334 x\n",
        ):
            stage = play_once(terms(), before)
            for _ in range(200):
                stage.client(b"a" * 10_000)
                assert len(stage.session._input) <= 12_288
            assert not stage.closed

    def test_an_endless_reply(self) -> None:
        """A reply that never ends is broken off."""
        for piece in (b"250-more\r\n" * 1000, b"2" * 10_000):
            stage = play_once(terms(), MODERN + "client > NOOP\nbackend < NOOP\n")
            for _ in range(10):
                stage.backend(piece)
            assert stage.replies[-1].raw.startswith(b"421 4.4.2 The mail server broke the protocol")

    def test_ten_thousand_commands_at_once(self) -> None:
        """A client that floods a slow backend is paused, and every command is answered in the end."""
        stage = play_once(terms(), MODERN)
        stage.client(b"RSET\r\n" * 10_000)
        assert stage.paused
        answered = 0
        while not stage.closed and answered < 10_000:
            due = stage.backends[-1].count(b"RSET") - answered
            assert 0 < due <= stage.terms.bounds.pipeline_max
            stage.backend(b"250 reset\r\n" * due)
            answered += due
        assert answered == 10_000
        assert not stage.paused
        assert len(stage.replies) == 10_000 + 4

    def test_a_client_that_does_not_stop(self) -> None:
        """A client that goes on although nobody reads it is refused with 421."""
        stage = play_once(terms(), MODERN + "client > DATA\nbackend < DATA\n")
        for _ in range(100):
            stage.client(b"RSET\r\n" * 1_000)
        assert stage.closed
        assert stage.replies[-1].raw == b"421 4.7.0 Too much input while a reply was outstanding\r\n"

    def test_pause_and_resume(self) -> None:
        """The client is read no more while its octets have no meaning yet, and again when they have."""
        stage = play_once(terms(), MODERN + "client > DATA\nbackend < DATA\n")
        stage.client(b"x" * stage.terms.bounds.pause_above_octets)
        assert not stage.paused
        stage.client(b"x")
        assert stage.paused
        stage.backend(b"354 go\r\n")
        assert not stage.paused
        assert stage.backends[-1].endswith(b"DATA\r\n" + b"x" * (stage.terms.bounds.pause_above_octets + 1))

    def test_a_message_is_not_kept(self) -> None:
        """A message passes in the chunks it came in."""
        stage = play_once(terms(), MODERN + DATA)
        for number in range(100):
            sent = len(stage.backends[-1])
            stage.client(b"%08d" % number + b"a" * 16_000 + b"\r\n")
            assert len(stage.backends[-1]) >= sent + 16_000
            assert len(stage.session._input) == 0
