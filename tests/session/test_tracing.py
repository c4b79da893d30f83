"""
The trace line before a message: once, in front of everything, for DATA and for BDAT.
"""

import re
from datetime import UTC, datetime

import pytest

from tests.session.preludes import DATA, MODERN, TRANSACTION
from tests.support.dialogue import play, play_once
from tests.support.stage import SESSION_ID, terms
from tlsgate.session.state import Terms
from tlsgate.smtp.command import CHUNK_OCTETS_MAX
from tlsgate.smtp.message import BareNewlines

NOW = datetime(2027, 1, 1, tzinfo=UTC)
LINE = (
    play_once(terms(trace_clock=lambda: NOW), MODERN + TRANSACTION)
    .client(b"DATA\r\n")
    .backend(b"354 go\r\n")
    .client(b".\r\n")
    .backends[-1]
)
LINE = LINE.partition(b"DATA\r\n")[2].removesuffix(b".\r\n")
WRITTEN = LINE.decode().replace("\r", r"\r").replace("\n", r"\n")


def traced() -> Terms:
    """
    Return the terms of a session whose messages get a trace line.
    """
    return terms(trace_clock=lambda: NOW)


def test_what_is_measured_here() -> None:
    """5321-17, 8314-05: it is a Received field with the name the client gave, its TLS, and the session's id."""
    assert LINE.startswith(b"Received: from client.example ")
    assert LINE.endswith(b"\r\n")
    assert b"TLS_AES_256_GCM_SHA384" in LINE
    assert SESSION_ID.encode() in LINE


def test_data() -> None:
    """It stands before the message, which is not touched, at every cut."""
    play(
        traced(),
        rf"""
        client  > MAIL FROM:<a@example.org>
        backend < MAIL FROM:<a@example.org>
        backend > 250 sender ok
        client  < 250 sender ok
        client  > DATA
        client  > Subject: x
        client  > .
        backend < DATA
        backend > 354 go
        client  < 354 go
        backend << {WRITTEN}
        backend < Subject: x
        backend < .
        backend > 250 queued
        client  < 250 queued
        """,
        after=MODERN,
    )


def test_each_message_has_one() -> None:
    """The second message of a session has one of its own."""
    play(
        traced(),
        rf"""
        client  > DATA
        backend < DATA
        backend > 354 go
        client  < 354 go
        client  > .
        backend << {WRITTEN}
        backend < .
        backend > 250 queued
        client  < 250 queued
        """,
        after=MODERN
        + TRANSACTION
        + rf"""
        client  > DATA
        backend < DATA
        backend > 354 go
        client  < 354 go
        client  > .
        backend << {WRITTEN}
        backend < .
        backend > 250 queued
        client  < 250 queued
        """
        + TRANSACTION,
    )


def test_chunks_behind_a_message() -> None:
    """A message in chunks has one of its own behind one that came with DATA, too."""
    stage = play_once(traced(), MODERN + DATA).client(b".\r\n").backend(b"250 queued\r\n")
    stage.client(b"MAIL FROM:<a@example.org>\r\nBDAT 1\r\na")
    assert stage.backends[-1].endswith(b"BDAT %d\r\n%ba" % (len(LINE) + 1, LINE))


def test_a_sender_between_chunks() -> None:
    """Law 4: a nested MAIL that the backend refuses begins no message, and there is no second line in the middle."""
    stage = play_once(traced(), MODERN + TRANSACTION).client(b"BDAT 1\r\na").backend(b"250 one\r\n")
    stage.client(b"MAIL FROM:<a@example.org>\r\n").backend(b"503 nested\r\n").client(b"BDAT 1 LAST\r\nb")
    assert stage.backends[-1].endswith(b"BDAT 1 LAST\r\nb")


def test_a_sender_that_begins_anew_between_chunks() -> None:
    """
    A backend that takes a nested MAIL has dropped the chunks before it, and the line with them (RFC 5321 section
    4.1.1.2): the next chunk has one, and the journal tells of both transactions.
    """
    stage = play_once(traced(), MODERN + TRANSACTION).client(b"BDAT 1\r\na").backend(b"250 one\r\n")
    stage.client(b"MAIL FROM:<b@example.org>\r\n").backend(b"250 anew\r\n").client(b"BDAT 1 LAST\r\nb")
    assert stage.backends[-1].endswith(b"BDAT %d LAST\r\n%bb" % (len(LINE) + 1, LINE))
    stage.backend(b"250 queued\r\n")
    told = [(record.fields["outcome"], record.fields["sender"]) for record in stage.records[-2:]]
    assert told == [("abandoned", "a@example.org"), ("delivered", "b@example.org")]


@pytest.mark.parametrize("answer", [b"250 one\r\n", b"552 no\r\n"])
def test_a_message_behind_chunks(answer: bytes) -> None:
    """The line that went with a chunk is not that of a message which a lax backend takes with DATA after all."""
    stage = play_once(traced(), MODERN + TRANSACTION).client(b"BDAT 1\r\na").backend(answer)
    stage.client(b"DATA\r\n").backend(b"354 go\r\n").client(b".\r\n")
    assert stage.backends[-1].endswith(b"DATA\r\n" + LINE + b".\r\n")


def test_a_first_chunk_that_failed() -> None:
    """
    Exim, asked for a chunk before it has a recipient, refuses that one and takes the next: the line goes with that, as
    nobody's message passes without.
    """
    play(
        traced(),
        rf"""
        client >> BDAT 1\r\na
        client  > RCPT TO:<b@example.org>
        client >> BDAT 1 LAST\r\nb
        backend << BDAT {len(LINE) + 1}\r\n{WRITTEN}a
        backend > 503 no recipient
        client  < 503 no recipient
        backend < RCPT TO:<b@example.org>
        backend << BDAT {len(LINE) + 1} LAST\r\n{WRITTEN}b
        backend > 250 recipient
        backend > 250 queued
        client  < 250 recipient
        client  < 250 queued
        """,
        after=MODERN,
    )


def test_a_refused_data() -> None:
    """Without a 354 there is no message, and no line."""
    play(
        traced(),
        """
        client  > DATA
        backend < DATA
        backend > 554 no
        client  < 554 no
        """,
        after=MODERN + TRANSACTION,
    )


def test_chunks() -> None:
    """3030-03: it becomes a part of the first chunk, whose size grows; the others, and what they hold, stay as they are."""
    play(
        traced(),
        rf"""
        client  > BDAT 3
        client >> abc
        client  > BDAT 4 last
        client >> defg
        backend < BDAT {len(LINE) + 3}
        backend << {WRITTEN}abc
        backend > 250 three
        client  < 250 three
        backend < BDAT 4 last
        backend << defg
        backend > 250 queued
        client  < 250 queued
        """,
        after=MODERN + TRANSACTION,
    )


def test_the_largest_chunk() -> None:
    """3030-07: with the line in it, it is still one that every backend counts alike: in 32 bits, the sign among them."""
    stage = play_once(traced(), MODERN + TRANSACTION).client(b"BDAT %d LAST\r\na" % CHUNK_OCTETS_MAX)
    (size,) = re.findall(rb"BDAT (\d+) LAST\r\n", stage.backends[-1])
    assert CHUNK_OCTETS_MAX < int(size) < 2**31


def test_a_message_in_one_chunk() -> None:
    """3030-03: a first chunk that is the last one, too, and one that is empty."""
    for octets in ("", "abc"):
        play(
            traced(),
            rf"""
            client >> BDAT {len(octets)} LAST\r\n{octets}
            backend << BDAT {len(LINE) + len(octets)} LAST\r\n{WRITTEN}{octets}
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + TRANSACTION,
        )


def test_after_a_reset() -> None:
    """A message that was given up in the middle takes its line with it: the next one has its own."""
    play(
        traced(),
        rf"""
        client >> RSET\r\nBDAT 1 LAST\r\nb
        backend < RSET
        backend > 250 reset
        client  < 250 reset
        backend << BDAT {len(LINE) + 1} LAST\r\n{WRITTEN}b
        """,
        after=MODERN
        + TRANSACTION
        + rf"""
        client >> BDAT 1\r\na
        backend << BDAT {len(LINE) + 1}\r\n{WRITTEN}a
        backend > 250 one
        client  < 250 one
        """,
    )


@pytest.mark.parametrize("answer", [b"250 queued\r\n", b"550 no\r\n"])
def test_each_message_in_chunks_has_one(answer: bytes) -> None:
    """The second message of a session has one of its own in chunks, too, whatever became of the first."""
    stage = play_once(traced(), MODERN + TRANSACTION).client(b"BDAT 1\r\naBDAT 1 LAST\r\nb")
    stage.backend(b"250 one\r\n", answer).client(b"MAIL FROM:<a@example.org>\r\n").backend(b"250 ok\r\n")
    stage.client(b"BDAT 1\r\na")
    assert stage.backends[-1].endswith(b"BDAT %d\r\n%ba" % (len(LINE) + 1, LINE))


class TestNobodyAddsToIt:
    """
    A message that begins with a blank would go on with the trace line, as a folded part of it (RFC 5322 section 2.2.3),
    and write clauses of the client's own, "with ESMTPSA" among them. An empty line stands between.
    """

    @pytest.mark.parametrize("blank", [" ", r"\t"])
    def test_a_message(self, blank: str) -> None:
        """A message that begins with a blank has no header but the trace line."""
        play(
            traced(),
            rf"""
            client >> {blank}with ESMTPSA id 1\r\n.\r\n
            backend << {WRITTEN}\r\n{blank}with ESMTPSA id 1\r\n.\r\n
            """,
            after=MODERN + DATA,
        )

    @pytest.mark.parametrize("blank", [" ", r"\t"])
    def test_chunks(self, blank: str) -> None:
        """The same in chunks; the line waits for the first octet of the message, so an empty chunk goes without."""
        play(
            traced(),
            rf"""
            client >> BDAT 0\r\nBDAT 3 LAST\r\n{blank}by
            backend << BDAT 0\r\nBDAT {len(LINE) + 5} LAST\r\n{WRITTEN}\r\n{blank}by
            backend > 250 none
            backend > 250 queued
            client  < 250 none
            client  < 250 queued
            """,
            after=MODERN + TRANSACTION,
        )

    def test_what_follows_an_empty_message(self) -> None:
        """The octet behind an empty chunk is not the message's, however it is cut."""
        play(
            traced(),
            rf"""
            client >> BDAT 0 LAST\r\n NOOP\r\n
            backend << BDAT {len(LINE)} LAST\r\n{WRITTEN}
            backend > 250 queued
            client  < 250 queued
            client  < 500 5.5.2 ...
            """,
            after=MODERN + TRANSACTION,
        )


def test_none() -> None:
    """Without a clock there is no line: the gate is not there."""
    play(terms(), "client > .\nbackend < .\n", after=MODERN + DATA)


def test_a_message_that_is_rejected_at_once() -> None:
    """Of a message whose bare newline comes with its first octets, the backend gets none."""
    play(
        terms(bare_newlines=BareNewlines.REJECT),
        r"""
        client >> DATA\r\na\nb\r\n.\r\n
        backend < DATA
        backend > 354 go
        client  < 354 go
        client  < 554 5.6.0 ...
        drop
        """,
        after=MODERN + TRANSACTION,
    )
