"""
Tests of `tlsgate.smtp.framing`: the same lines and replies, however the octets were cut.
"""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cuts import at, cuttings
from tlsgate.smtp.framing import OVERLONG, InputBuffer, ReplyError, ReplyReader
from tlsgate.smtp.reply import BackendReply


def lines_of(chunks: Iterable[bytes], octets_max: int) -> tuple[list[bytes], bytes]:
    """
    Return the lines in *chunks*, each taken as soon as it can be, and what is left behind them.
    """
    buffer = InputBuffer()
    lines = []
    for chunk in chunks:
        buffer.feed(chunk)
        while (line := buffer.line(octets_max)) is not None:
            lines.append(line)
        assert len(buffer) <= octets_max
    return lines, buffer.take()


class TestLines:
    @pytest.mark.parametrize(
        ("sent", "lines", "left"),
        [
            (b"", [], b""),
            (b"NOOP\r\n", [b"NOOP\r\n"], b""),
            (b"NOOP\r\nQUIT\r\n", [b"NOOP\r\n", b"QUIT\r\n"], b""),
            (b"NOOP\nXCLIENT\r\n", [b"NOOP\n", b"XCLIENT\r\n"], b""),
            (b"NOOP\rXYZ\r\n", [b"NOOP\rXYZ\r\n"], b""),
            (b"\n\n\r\nQUIT", [b"\n", b"\n", b"\r\n"], b"QUIT"),
            (b"0123456789\r\nRSET\r\n", [b"0123456789\r\n", b"RSET\r\n"], b""),
            (b"0123456789a\r\nRSET\r\n", [OVERLONG, b"RSET\r\n"], b""),
            (b"0123456789ab\nRSET\r\n", [OVERLONG, b"RSET\r\n"], b""),
            (b"0123456789ab" * 5 + b"QUIT\r\nRSET\r\n", [OVERLONG, b"RSET\r\n"], b""),
            (b"0123456789abc\n0123456789abc\nRSET\n", [OVERLONG, OVERLONG, b"RSET\n"], b""),
            (b"RSET\r\n0123456789abcdef", [b"RSET\r\n"], b""),
        ],
    )
    def test_every_cut(self, sent: bytes, lines: list[bytes], left: bytes) -> None:
        """5321-19: lines of up to 12 octets are given as they came, longer ones as one OVERLONG, at every cut."""
        for chunks in cuttings(sent):
            assert lines_of(chunks, 12) == (lines, left), chunks

    @given(st.text(alphabet="\r\nab", max_size=60).map(str.encode), st.lists(st.integers(0, 60), max_size=6))
    def test_any_cut_gives_the_same_lines(self, sent: bytes, cuts: list[int]) -> None:
        """Octets and cuts at random: always the lines of the whole."""
        assert lines_of(at(sent, cuts), 12) == lines_of([sent], 12)

    @given(st.text(alphabet="\r\nab", max_size=60).map(str.encode))
    def test_nothing_is_lost_or_made_up(self, sent: bytes) -> None:
        """Without a limit that bites, lines and rest together are what was sent."""
        lines, left = lines_of([sent], 60)
        assert b"".join(lines) + left == sent
        assert all(line.index(b"\n") == len(line) - 1 for line in lines)

    def test_the_limit_may_change_between_lines(self) -> None:
        """An AUTH exchange allows longer lines than commands do: what was already searched is measured anew."""
        buffer = InputBuffer()
        buffer.feed(b"a" * 20)
        assert buffer.line(30) is None
        buffer.feed(b"\nNOOP\n")
        assert buffer.line(20) == OVERLONG
        assert buffer.line(20) == b"NOOP\n"

    def test_an_endless_line_takes_no_memory(self) -> None:
        """Law 7: of a line that never ends nothing is kept."""
        buffer = InputBuffer()
        for _ in range(1_000):
            buffer.feed(b"a" * 1_000)
            assert buffer.line(512) is None
            assert len(buffer) == 0
        buffer.feed(b"\r\nNOOP\r\n")
        assert buffer.line(512) == OVERLONG
        assert buffer.line(512) == b"NOOP\r\n"


class TestTake:
    def test_raw_octets_and_lines_take_turns(self) -> None:
        """A BDAT's octets are taken as they are, LF or not, and the next line starts right behind them."""
        buffer = InputBuffer()
        buffer.feed(b"BDAT 3\r\na\nbNOOP")
        assert buffer.line(100) == b"BDAT 3\r\n"
        assert buffer.take(3) == b"a\nb"
        assert buffer.line(100) is None
        assert len(buffer) == 4
        buffer.feed(b"\r\n")
        assert buffer.line(100) == b"NOOP\r\n"

    def test_no_more_than_there_is(self) -> None:
        """Fewer octets than asked for are taken if no more have come."""
        buffer = InputBuffer()
        buffer.feed(b"abc")
        assert buffer.take(0) == b""
        assert buffer.take(2) == b"ab"
        assert buffer.take(2) == b"c"
        assert buffer.take(2) == b""
        assert buffer.take() == b""

    def test_a_line_end_that_was_searched_before_is_found_after_a_take(self) -> None:
        """What `line` has already looked at is looked at again once octets were taken from the front."""
        buffer = InputBuffer()
        buffer.feed(b"abcdef")
        assert buffer.line(100) is None
        assert buffer.take(4) == b"abcd"
        buffer.feed(b"\n")
        assert buffer.line(100) == b"ef\n"


def replies_of(
    chunks: Iterable[bytes], octets_max: int = 100, lines_max: int = 50
) -> tuple[list[BackendReply], bool, bool]:
    """
    Return the replies in *chunks*, whether a part of another is pending, and whether the reader gave up.
    """
    reader = ReplyReader(octets_max, lines_max)
    replies: list[BackendReply] = []
    for chunk in chunks:
        try:
            replies += reader.feed(chunk)
        except ReplyError as error:
            return replies + error.replies, reader.pending, True
    return replies, reader.pending, False


EHLO = b"250-mx.example.org\r\n250-SIZE 10\r\n250 HELP\r\n"


class TestReplies:
    @pytest.mark.parametrize(
        ("sent", "replies", "pending"),
        [
            (b"", [], False),
            (b"250 ok\r\n", [BackendReply(250, b"250 ok\r\n")], False),
            (b"250\r\n", [BackendReply(250, b"250\r\n")], False),
            (b"250 \r\n", [BackendReply(250, b"250 \r\n")], False),
            (b"354 go  ahead\r\n", [BackendReply(354, b"354 go  ahead\r\n")], False),
            (b"599 \xff\xfe\t\r\n", [BackendReply(599, b"599 \xff\xfe\t\r\n")], False),
            (EHLO, [BackendReply(250, EHLO)], False),
            (b"250-\r\n250\r\n", [BackendReply(250, b"250-\r\n250\r\n")], False),
            (b"250-a\r\n250-250 b\r\n250 c\r\n", [BackendReply(250, b"250-a\r\n250-250 b\r\n250 c\r\n")], False),
            (
                b"220 hi\r\n" + EHLO + b"550 no\r\n221",
                [BackendReply(220, b"220 hi\r\n"), BackendReply(250, EHLO), BackendReply(550, b"550 no\r\n")],
                True,
            ),
            (b"250-a\r\n", [], True),
            (b"2", [], True),
            (b"250 ok\r", [], True),
            (b"250 ok\r\n2", [BackendReply(250, b"250 ok\r\n")], True),
            (b"250 " + b"a" * 94 + b"\r\n", [BackendReply(250, b"250 " + b"a" * 94 + b"\r\n")], False),
        ],
    )
    def test_every_cut(self, sent: bytes, replies: list[BackendReply], pending: bool) -> None:  # noqa: FBT001 - table
        """5321-13, 2920-12: whole replies as they came, of one line or many, at every cut."""
        for chunks in cuttings(sent):
            assert replies_of(chunks) == (replies, pending, False), chunks

    @pytest.mark.parametrize(
        "sent",
        [
            b"\r\n",
            b"\n",
            b"ok\r\n",
            b"25\r\n",
            b"2500 ok\r\n",
            b"250ok\r\n",
            b"250_ok\r\n",
            b"250\tok\r\n",
            b" 250 ok\r\n",
            b"-250 ok\r\n",
            b"150 early\r\n",
            b"650 late\r\n",
            b"000 nothing\r\n",
            b"2x0 ok\r\n",
            "\u0662\u0665\u0660 ok\r\n".encode(),
            b"250 ok\n",
            b"250 ok\r\r\n",
            b"250 o\rk\r\n",
            b"250 o\x00k\r\n",
            b"250-a\r\n251 b\r\n",
            b"250-a\r\n550-b\r\n550 c\r\n",
            b"250-a\r\n250-b\r\n251 c\r\n",
            b"250-a\r\nb\r\n250 c\r\n",
            b"250-a\r\n\r\n",
            b"250-a\n250 b\r\n",
            b"220 " + b"a" * 95 + b"\r\n",
            b"250-a\r\n" * 15,
            b"250-a\r\n" * 14 + b"250 \r\n",
            b"a" * 101,
        ],
    )
    def test_what_is_no_reply(self, sent: bytes) -> None:
        """5321-14, laws 6 and 7: the reader gives up, at every cut, without a reply."""
        for chunks in cuttings(sent):
            replies, _, broken = replies_of(chunks)
            assert (replies, broken) == ([], True), chunks

    def test_codes_may_differ_between_replies(self) -> None:
        """5321-14: the code must be the same within a multi-line reply, and only there."""
        assert [reply.code for reply in ReplyReader(100).feed(b"250-a\r\n250 b\r\n550-c\r\n550 d\r\n")] == [250, 550]

    def test_the_limit_is_for_one_reply(self) -> None:
        """Any number of replies may come in one piece; each has the whole limit."""
        assert len(ReplyReader(8).feed(b"250 ok\r\n" * 1_000)) == 1_000

    def test_a_reply_of_too_many_lines(self) -> None:
        """Law 7: lines cost more than their octets; there is a limit for them, too, at every cut, for each reply."""
        for chunks in cuttings(b"250-a\r\n" * 3 + b"250 b\r\n" + b"250-a\r\n" * 4):
            replies, _, broken = replies_of(chunks, lines_max=4)
            assert ([reply.raw for reply in replies], broken) == ([b"250-a\r\n" * 3 + b"250 b\r\n"], True), chunks

    def test_the_error_is_short(self) -> None:
        """Law 7: what the journal gets of rubbish is bounded."""
        with pytest.raises(ReplyError) as caught:
            ReplyReader(100_000).feed(b"\xff" * 90_000 + b"\n")
        assert len(str(caught.value)) < 400

    @given(
        st.lists(st.sampled_from([b"250 ok\r\n", b"250-a\r\n", b"250-\r\n", b"550 no\r\n", b"354\r\n"]), max_size=12),
        st.lists(st.integers(0, 100), max_size=6),
    )
    def test_any_cut_gives_the_same_replies(self, lines: list[bytes], cuts: list[int]) -> None:
        """Reply lines and cuts at random: always the replies of the bytewise reading."""
        sent = b"".join(lines)
        replies, _, broken = replies_of(at(sent, cuts))
        bytewise, _, broken_bytewise = replies_of(at(sent, list(range(len(sent)))))
        assert (replies, broken) == (bytewise, broken_bytewise)
        assert sent.startswith(b"".join(reply.raw for reply in replies))

    def test_replies_before_a_fault_count(self) -> None:
        """Law 5: a 250 that came in the same piece as rubbish behind it is the backend's word all the same."""
        for chunks in cuttings(b"250 queued\r\nrubbish\r\n"):
            assert replies_of(chunks)[::2] == ([BackendReply(250, b"250 queued\r\n")], True), chunks

    @given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
    def test_no_octets_raise_anything_else(self, sent: bytes, cuts: list[int]) -> None:
        """Law 6: octets at random make replies, a pending part, or a `ReplyError`."""
        _, _, broken = replies_of(at(sent, cuts), octets_max=20)
        assert broken == replies_of([sent], octets_max=20)[2]
