"""
The shadow of the backend's mail transaction follows the backend's answers, and nothing else: rules look at its sender,
chunks are withheld for it, and the journal tells of it.
"""

import pytest

from tests.policy.samples import NOW, TLS13
from tests.session.preludes import MODERN, OFFERED_EHLO, TRANSACTION
from tests.support.dialogue import play, play_once
from tests.support.stage import Stage, terms
from tlsgate.policy.level import BUILT_IN
from tlsgate.policy.rules import ANY_LISTENER, Rule, Rulebook
from tlsgate.session.state import Terms

REQUIRED, VERIFIED, OFFERED_LEVEL = BUILT_IN["required"], BUILT_IN["verified"], BUILT_IN["offered"]


def ruled(*rules: Rule) -> Terms:
    """
    Return the terms of a session under *rules* where TLS is offered.
    """
    return terms(rulebook=Rulebook(rules, {ANY_LISTENER: OFFERED_LEVEL}))


ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"


def octets(stage: Stage) -> list[tuple[object, object]]:
    """
    Return outcome and size of every transaction that the journal was told of.
    """
    told = [record.fields for record in stage.records if record.event == "transaction"]
    return [(fields["outcome"], fields["octets"]) for fields in told]


class TestTheSizeOfAMessage:
    """Chunks may come before the backend has said anything to the envelope (RFC 3030 section 4.2): Exim does that."""

    def test_chunks_ahead_of_every_reply(self) -> None:
        stage = play_once(terms(), MODERN).client(ENVELOPE + b"BDAT 3\r\nabcBDAT 2 LAST\r\nde")
        stage.backend(b"250 sender\r\n250 recipient\r\n250 chunk\r\n250 taken\r\n")
        assert octets(stage) == [("delivered", 5)]

    def test_a_chunk_that_the_reply_to_its_sender_cuts_in_two(self) -> None:
        stage = play_once(terms(), MODERN).client(ENVELOPE + b"BDAT 5 LAST\r\nab")
        stage.backend(b"250 sender\r\n").client(b"cde").backend(b"250 recipient\r\n250 taken\r\n")
        assert octets(stage) == [("delivered", 5)]

    def test_chunks_of_a_sender_who_was_refused(self) -> None:
        """
        They are no part of the message that follows.
        """
        stage = play_once(terms(), MODERN).client(ENVELOPE + b"BDAT 3 LAST\r\nabc")
        stage.backend(b"550 no\r\n503 no\r\n503 no\r\n")
        stage.client(ENVELOPE + b"BDAT 2 LAST\r\nde").backend(b"250 sender\r\n250 recipient\r\n250 taken\r\n")
        assert octets(stage) == [("delivered", 2)]

    def test_one_message_after_the_other(self) -> None:
        stage = play_once(terms(), MODERN)
        for text in (b"abc", b"de"):
            stage.client(ENVELOPE + b"BDAT %d LAST\r\n" % len(text) + text)
            stage.backend(b"250 sender\r\n250 recipient\r\n250 taken\r\n")
            stage.client(ENVELOPE + b"DATA\r\n").backend(b"250 sender\r\n250 recipient\r\n354 go on\r\n")
            stage.client(text + b"\r\n.\r\n").backend(b"250 taken\r\n")
        assert octets(stage) == [("delivered", 3), ("delivered", 8), ("delivered", 2), ("delivered", 7)]

    def test_a_message_that_is_given_up(self) -> None:
        stage = play_once(terms(), MODERN).client(ENVELOPE + b"BDAT 9 LAST\r\nab").backend(b"250 sender\r\n")
        assert octets(stage.client_lost()) == [("abandoned", 2)]


class TestTheLastChunkRefused:
    """
    After a BDAT that failed the state of the backend is indeterminate (RFC 3030 section 2): Exim keeps the transaction of
    a last chunk that had no recipient.
    """

    def test_the_sender_may_still_stand(self) -> None:
        """3030-06: rules look at the sender of before for as long as the backend has taken no other."""
        play(
            ruled(Rule(REQUIRED, senders=["partner.example"], recipients=["clinic.example"])),
            r"""
            client  > MAIL FROM:<a@partner.example>
            client  > BDAT 0 LAST
            client  > MAIL FROM:<b@example.org>
            client  > RCPT TO:<c@clinic.example>
            client  > RCPT TO:<d@example.org>
            backend < MAIL FROM:<a@partner.example>
            backend < BDAT 0 LAST
            backend > 250 partner
            backend > 503 no recipients
            client  < 250 partner
            client  < 503 no recipients
            backend < MAIL FROM:<b@example.org>
            backend > 503 sender already given
            client  < 503 sender already given
            client  < 530 5.7.0 Must issue a STARTTLS command first
            backend < RCPT TO:<d@example.org>
            backend > 250 recipient
            client  < 250 recipient
            """,
            after=OFFERED_EHLO,
        )

    def test_it_is_told_once(self) -> None:
        """One message that was refused is one transaction in the journal, whatever ends the session."""
        stage = play_once(terms(), MODERN + TRANSACTION).client(b"BDAT 1 LAST\r\na").backend(b"550 no\r\n")
        stage.client(b"BDAT 0 LAST\r\n").backend(b"503 no\r\n").client_lost()
        assert [record.fields["outcome"] for record in stage.records if record.event == "transaction"] == ["refused"]
        assert stage.session.transactions == 1

    def test_a_transaction_that_goes_on(self) -> None:
        """What the backend delivers in it after all is told, too."""
        stage = play_once(terms(), MODERN + "client > MAIL FROM:<a@example.org>\nbackend < MAIL FROM:<a@example.org>\n")
        stage.backend(b"250 ok\r\n").client(b"BDAT 0 LAST\r\n").backend(b"503 no recipients\r\n")
        stage.client(b"RCPT TO:<b@example.org>\r\n").backend(b"250 ok\r\n")
        stage.client(b"BDAT 1 LAST\r\na").backend(b"250 queued\r\n")
        told = [record.fields for record in stage.records if record.event == "transaction"]
        assert [(fields["outcome"], fields["recipients"]) for fields in told] == [("refused", 0), ("delivered", 1)]

    def test_a_drain(self) -> None:
        """It does not keep a session from ending: no message is under way."""
        stage = play_once(terms(), MODERN + TRANSACTION).client(b"BDAT 1 LAST\r\na").backend(b"550 no\r\n").drain()
        assert stage.closed


class TestAResetThatIsRefused:
    @pytest.mark.parametrize("command", ["RSET now", "EHLO -", "HELO -"])
    def test_a_chunk_that_is_missing(self, command: str) -> None:
        """3030-07: a chunk that was refused is missing until the backend has reset, not until it was asked to."""
        play(
            terms(),
            rf"""
            client >> BDAT x\r\n{command}\r\nBDAT 1 LAST\r\na
            client  < 501 5.5.4 ...
            backend < {command}
            backend > 501 no
            client  < 501 no
            client  < 503 5.5.1 BDAT failed; RSET is needed
            """,
            after=MODERN + TRANSACTION,
        )

    def test_a_chunk_that_is_missing_behind_a_reset(self) -> None:
        """3030-07: a chunk refused behind a RSET in the same group is missing, too, when the RSET is answered."""
        play(
            terms(),
            r"""
            client  > RSET
            client  > MAIL FROM:<a@example.org>
            client >> BDAT x\r\nBDAT 1 LAST\r\na
            backend < RSET
            backend > 250 reset
            client  < 250 reset
            backend < MAIL FROM:<a@example.org>
            backend > 250 sender
            client  < 250 sender
            client  < 501 5.5.4 ...
            client  < 503 5.5.1 BDAT failed; RSET is needed
            """,
            after=MODERN,
        )

    @pytest.mark.parametrize("command", ["RSET now", "EHLO -", "HELO -"])
    def test_the_trace_line(self, command: str) -> None:
        """Law 4: a message that goes on gets no second trace line in its middle."""
        stage = play_once(terms(trace_clock=lambda: NOW), MODERN + TRANSACTION)
        stage.client(b"BDAT 1\r\na").backend(b"250 ok\r\n")
        stage.client(command.encode() + b"\r\n").backend(b"501 no\r\n").client(b"BDAT 1 LAST\r\nb")
        assert stage.backends[-1].endswith(b"BDAT 1 LAST\r\nb")


@pytest.mark.parametrize("command", ["RSET", "EHLO a", "HELO a"])
def test_a_reset_that_is_accepted(command: str) -> None:
    """5321-11, 3030-06: the transaction is over, the journal knows, and no chunk of it is missing any more."""
    stage = play_once(terms(), MODERN + TRANSACTION).client(b"BDAT x\r\n")
    stage.client(command.encode() + b"\r\n").backend(b"250 ok\r\n")
    assert [record.fields.get("outcome") for record in stage.records][-1] == "abandoned"
    stage.client(b"MAIL FROM:<c@example.org>\r\n")
    assert stage.backends[-1].endswith(b"\r\nMAIL FROM:<c@example.org>\r\n")


class TestABackendThatIsLeft:
    """
    A name in EHLO that brings another level takes the backend away, and the transaction with it.
    """

    def test_tls_is_demanded_now(self) -> None:
        """The transaction is told of at once, and no drain waits for it."""
        stage = play_once(ruled(Rule(REQUIRED, helos=["partner.example"])), OFFERED_EHLO + TRANSACTION)
        stage.client(b"EHLO partner.example\r\n")
        assert [record.fields.get("outcome") for record in stage.records] == ["abandoned"]
        assert stage.drain().closed

    def test_the_level_is_not_met_any_more(self) -> None:
        """The same inside TLS, where everything is refused from then on."""
        stage = play_once(ruled(Rule(VERIFIED, helos=["partner.example"])), OFFERED_EHLO)
        stage.client(b"STARTTLS\r\n").handshake(TLS13).backend(b"220 backend.example.org\r\n")
        stage.client(b"MAIL FROM:<a@example.org>\r\n").backend(b"250 ok\r\n").client(b"EHLO partner.example\r\n")
        assert "abandoned" in [record.fields.get("outcome") for record in stage.records]
        assert stage.drain().closed
