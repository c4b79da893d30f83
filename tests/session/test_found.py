"""
Faults that a hostile reading of the session has found. Each docstring says what must hold, and why it matters.
"""

import pytest
from attrs import evolve

from tests.policy.samples import NOW, TLS12_CBC, TLS13
from tests.session.preludes import GREETED, INSIDE, MODERN, OFFERED_EHLO, STARTED, TRANSACTION
from tests.support.dialogue import play, play_once
from tests.support.stage import Stage, terms
from tlsgate.policy.level import BUILT_IN
from tlsgate.policy.rules import ANY_LISTENER, Rule, Rulebook
from tlsgate.session.bounds import Bounds
from tlsgate.smtp.reply import SHUTTING_DOWN

AUTH = "client > AUTH LOGIN\nbackend < AUTH LOGIN\n"


class TestHandshake:
    """
    Between the 220 to STARTTLS and `tls_established`, and before it with implicit TLS, nothing can be said: octets for
    the client would wait in the TLS layer for the end of a handshake that may never come, and would then be read before
    the verdict is written down (3207-10).
    """

    @pytest.mark.parametrize("implicit", [False, True])
    def test_the_service_ends_the_session(self, implicit: bool) -> None:  # noqa: FBT001 - both ways of TLS
        """`refuse` in the middle of a handshake closes without a word."""
        stage = Stage(terms(implicit=True)) if implicit else play_once(terms(), STARTED)
        before = stage.said
        stage.refuse(SHUTTING_DOWN)
        assert stage.closed
        assert stage.said == before

    def test_the_backend_dies(self) -> None:
        """A backend that dies while the client shakes hands is told of afterwards."""
        stage = play_once(terms(), STARTED + "backend > 220 backend.example.org\n")
        stage.backend_lost()
        stage.handshake(TLS13)
        stage.client(b"NOOP\r\n")
        assert stage.replies[-1].code in {421, 451}

    def test_the_backend_talks_nonsense(self) -> None:
        """The same for a backend that breaks the protocol, or says 421, meanwhile."""
        for words in (b"rubbish\r\n", b"421 going down\r\n", b"250 unasked\r\n"):
            stage = play_once(terms(), STARTED + "backend > 220 backend.example.org\n")
            stage.backend(words)
            stage.handshake(TLS13)
            stage.client(b"NOOP\r\n")
            assert stage.replies[-1].code in {421, 451}, words


class TestStartTlsBehindTheEnd:
    def test_two_replies_to_one_command_before_starttls(self) -> None:
        """
        A backend that answers NOOP twice while STARTTLS waits for its turn ends the session, and that is all: no
        handshake and no dial behind `CloseClient`.
        """
        stage = play_once(terms("offered"), OFFERED_EHLO + "client > NOOP\nclient > STARTTLS\nbackend < NOOP\n")
        stage.backend(b"250 ok\r\n550 again\r\n")
        assert stage.closed
        assert ("client", b"\0starttls\0") not in stage.heard


class TestTooManyErrors:
    def test_nothing_is_forwarded_behind_the_last_error(self) -> None:
        """
        Once the 421 for too many errors is due, nothing of the client's is read any more, as with QUIT: what reached the
        backend behind it, whole messages among it, would never be answered.
        """
        stage = play_once(terms(bounds=Bounds(errors_max=3)), MODERN)
        stage.client(b"NOOP\r\n" + b"XCLIENT\r\n" * 3 + b"MAIL FROM:<late@example.org>\r\n")
        assert b"late" not in stage.backends[-1]
        stage.backend(b"250 ok\r\n")
        assert stage.closed
        assert b"late" not in stage.backends[-1]

    def test_it_is_said_once(self) -> None:
        """However many errors are made in one group, there is one 421."""
        stage = play_once(terms(bounds=Bounds(errors_max=3)), MODERN)
        stage.client(b"NOOP\r\n" + b"XCLIENT\r\n" * 6)
        assert len(stage.session._talk.expectations) <= 1 + 3 + 1
        stage.backend(b"250 ok\r\n")
        assert stage.said.count(b"421 ") == 1


class TestHelo:
    def test_helo_takes_the_extensions_back(self) -> None:
        """
        After HELO no extension is in force (RFC 5321 section 4.1.1.1). A backend may know no BDAT then, and would take
        the octets of a chunk for commands, XCLIENT among them.
        """
        stage = play_once(
            terms(),
            MODERN
            + """
            client  > HELO client.example
            backend < HELO client.example
            backend > 250 backend.example.org
            client  < 250 backend.example.org
            """,
        )
        stage.client(b"BDAT 20 LAST\r\nXCLIENT ADDR=::1 \r\n\r\n")
        assert b"XCLIENT" not in stage.backends[-1]

    def test_helo_takes_pipelining_back(self) -> None:
        """The same for PIPELINING: a backend in HELO mode is spoken to one command at a time."""
        stage = play_once(
            terms(),
            MODERN
            + """
            client  > HELO client.example
            backend < HELO client.example
            backend > 250 backend.example.org
            client  < 250 backend.example.org
            """,
        )
        stage.client(b"NOOP 1\r\nNOOP 2\r\n")
        assert b"NOOP 2" not in stage.backends[-1]


class TestChunks:
    @pytest.mark.parametrize("last", ["", " LAST"])
    def test_a_delivery_before_the_chunk_is_whole(self, last: str) -> None:
        """
        Law 5: a 250 to a chunk that comes before the chunk's octets do is no delivery; a message that the client has not
        even sent would count as taken.
        """
        play(
            terms(),
            rf"""
            client >> BDAT 10{last}\r\n12345
            backend << BDAT 10{last}\r\n12345
            backend > 250 queued
            client  < 421 4.4.2 The mail server broke the protocol
            close
            drop
            """,
            after=MODERN + TRANSACTION,
        )

    def test_a_refusal_before_the_chunk_is_whole(self) -> None:
        """3030-04: a backend may refuse early; the rest goes on to it, and the session does, one command at a time, too."""
        play(
            terms(),
            r"""
            client >> BDAT 10 LAST\r\n12345
            backend << BDAT 10 LAST\r\n12345
            backend > 552 no
            client  < 552 no
            client >> 67890NOOP\r\n
            backend << 67890NOOP\r\n
            """,
            after=INSIDE
            + """
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 250-backend.example.org
            backend > 250 CHUNKING
            client  < 250-backend.example.org
            client  < 250 CHUNKING
            """,
        )

    def test_the_answer_to_the_chunk_before(self) -> None:
        """While a chunk comes in, the one before it may be answered: that is no delivery before its time."""
        play(
            terms(),
            r"""
            client >> BDAT 3\r\nabcBDAT 10 LAST\r\n12345
            backend << BDAT 3\r\nabcBDAT 10 LAST\r\n12345
            backend > 250 three
            client  < 250 three
            client >> 67890
            backend << 67890
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + TRANSACTION,
        )

    def test_the_answer_to_the_chunk_before_one_that_is_swallowed(self) -> None:
        """The same while a chunk comes in that the backend is not to have."""
        play(
            terms(),
            r"""
            client >> BDAT 3\r\nabcBDAT x\r\nBDAT 10 LAST\r\n12345
            backend << BDAT 3\r\nabc
            backend > 250 three
            client  < 250 three
            client  < 501 5.5.4 ...
            client >> 67890
            client  < 503 5.5.1 BDAT failed; RSET is needed
            """,
            after=MODERN + TRANSACTION,
        )


class TestForgetting:
    def test_a_chunk_refused_in_plaintext(self) -> None:
        """3207-14: what had to be reset before STARTTLS is not there inside TLS, and needs no RSET."""
        stage = play_once(terms("offered"), OFFERED_EHLO).client(b"BDAT x\r\nSTARTTLS\r\n").handshake(TLS13)
        stage.backend(b"220 backend.example.org\r\n").client(b"MAIL FROM:<a@example.org>\r\n")
        assert stage.backends[-1] == b"MAIL FROM:<a@example.org>\r\n"

    def test_a_transaction_in_plaintext(self) -> None:
        """3207-14: it is over with STARTTLS, the journal is told, and a drain inside TLS does not wait for it."""
        stage = play_once(terms("offered"), OFFERED_EHLO + TRANSACTION).client(b"STARTTLS\r\n")
        assert [record.fields.get("outcome") for record in stage.records][-1] == "abandoned"
        assert stage.handshake(TLS13).backend(b"220 backend.example.org\r\n").drain().closed

    def test_half_a_reply_in_plaintext(self) -> None:
        """3207-14: half a reply of the backend that was left is no part of what the fresh one says."""
        stage = play_once(terms("offered"), OFFERED_EHLO).backend(b"250-left\r\n25").client(b"STARTTLS\r\n")
        stage.handshake(TLS13).backend(b"220 backend.example.org\r\n").client(b"NOOP\r\n").backend(b"550 no\r\n")
        assert stage.replies[-1].raw == b"550 no\r\n"

    def test_an_authentication_in_plaintext(self) -> None:
        """3207-14: who was authenticated before STARTTLS is not inside TLS, and the journal does not say so."""
        level = evolve(BUILT_IN["offered"], plaintext_auth=True)
        stage = play_once(
            terms(level),
            OFFERED_EHLO.replace("client  < 250-CHUNKING\n", "client  < 250-CHUNKING\n    client  < 250-AUTH PLAIN\n"),
        )
        stage.client(b"AUTH PLAIN AGEAYg==\r\n").backend(b"235 welcome\r\n")
        assert stage.session.summary()["authenticated"] is True
        stage.client(b"STARTTLS\r\n").handshake(TLS13)
        assert stage.session.summary()["authenticated"] is False

    def test_a_sender_that_cannot_be_told(self) -> None:
        """
        A MAIL whose path we cannot read does not leave the sender of an earlier one behind: a rule on senders and
        recipients would look at the wrong one.
        """
        rule = Rule(BUILT_IN["required"], senders=["partner.example"], recipients=["clinic.example"])
        rulebook = Rulebook([rule], {ANY_LISTENER: BUILT_IN["offered"]})
        stage = play_once(terms("offered", rulebook=rulebook), OFFERED_EHLO)
        stage.client(b"MAIL FROM:<a@partner.example>\r\n").backend(b"250 ok\r\n")
        stage.client(b"RSET\r\n").backend(b"250 ok\r\n")
        stage.client(b"MAIL FROM:a@elsewhere.example\r\n").backend(b"250 ok\r\n")
        stage.client(b"RCPT TO:<b@clinic.example>\r\n")
        assert stage.backends[-1].endswith(b"RCPT TO:<b@clinic.example>\r\n")


class TestBrokenChunkCommands:
    @pytest.mark.parametrize("line", [b"BDAT 5 " + b" " * 13_000 + b"LAST\r\n", b"bdat 5\n", b"BDAT\t5\r\n"])
    def test_a_chunk_command_that_cannot_be_read(self, line: bytes) -> None:
        """3030-07: whatever is wrong with a BDAT, the transaction is not completed without its chunk."""
        stage = play_once(terms(), MODERN + TRANSACTION)
        stage.client(line + b"BDAT 1 LAST\r\nx")
        assert b"BDAT" not in stage.backends[-1]


class TestLateHandshake:
    def test_a_handshake_that_ends_after_the_session(self) -> None:
        """A handshake that completes after `CloseClient` opens nothing again: no greeting, no refusal, no word."""
        for level, facts in (("strong", TLS12_CBC), ("required", TLS13)):
            for stage in (Stage(terms(level, implicit=True)), play_once(terms(level), STARTED)):
                heard = list(stage.refuse(SHUTTING_DOWN).heard)
                stage.handshaking = False
                stage._perform(stage.session.tls_established(facts))
                assert stage.heard == heard


class TestWhereQuitIsHeard:
    @pytest.mark.parametrize(
        "before", ["client > DATA\nbackend < DATA\n", AUTH, AUTH + "backend > 334 x\nclient < 334 x\n"]
    )
    def test_the_gate_s_own_quit(self, before: str) -> None:
        """
        The gate's QUIT is for where the backend reads commands. Behind a DATA that is not answered yet it may be read as
        message data, and in an AUTH exchange as an answer: a login that fails, on somebody's account.
        """
        stage = play_once(terms(), before, after=MODERN + TRANSACTION).client_lost()
        assert b"QUIT" not in stage.backends[-1]


class TestProtocolOfTheTraceLine:
    def test_an_ehlo_in_plaintext(self) -> None:
        """3207-14: who said EHLO before STARTTLS only has not said it inside TLS, and the trace line does not say so."""
        stage = play_once(terms("offered", trace_clock=lambda: NOW), OFFERED_EHLO)
        stage.client(b"STARTTLS\r\n").handshake(TLS13).backend(b"220 backend\r\n")
        stage.client(b"MAIL FROM:<a@example.org>\r\n").backend(b"250 ok\r\n")
        stage.client(b"DATA\r\n").backend(b"354 go\r\n").client(b".\r\n")
        assert b"Received: " in stage.backends[-1]
        assert b"ESMTP" not in stage.backends[-1]


class TestLongAuth:
    def test_its_code(self) -> None:
        """4954-02: an AUTH line that is too long is 500 5.5.6, not any long line's 5.5.2."""
        stage = play_once(terms(), MODERN).client(b"AUTH PLAIN " + b"a" * 20_000 + b"\r\n")
        assert stage.replies[-1].raw.startswith(b"500 5.5.6 ")


def test_starttls_in_the_middle_of_a_dial() -> None:
    """A STARTTLS that is sent before the greeting waits for it; then the backend that gave it is left for a fresh one."""
    stage = Stage(terms("offered"))
    stage.client(b"STARTTLS\r\n")
    stage.backend(b"220 backend.example.org\r\n")
    assert stage.handshaking
    assert stage.backends == [b"QUIT\r\n", b""]


def test_greeted() -> None:
    """The beginning that the tests above rest on."""
    assert play_once(terms(), GREETED).said == b"220 mx.example.org ESMTP\r\n"
