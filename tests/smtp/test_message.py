"""
Tests of `tlsgate.smtp.message`: where a message ends, and that a backend finds the same end.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cuts import at, cuttings, two_way
from tlsgate.smtp.message import MARK, BareNewlines, EndOfData, Newlines

SMUGGLING = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r.\r\n"]
COMMANDS = b"MAIL FROM:<admin@example.org>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nmade up\r\n.\r\n"

# The line ends that servers are known to accept, apart or together.
LINE_ENDS = {
    "CRLF": rb"\r\n",
    "LF": rb"\n",
    "CR": rb"\r",
    "LF or CRLF": rb"\r?\n",
    "CR or CRLF": rb"\r\n?",
    "any": rb"\r\n|\r|\n",
    "LF behind any number of CR": rb"\r*\n",
}


def length(message: bytes) -> int:
    """
    Return where the message at the start of *message* ends, by the words of RFC 5321: at the first CRLF . CRLF.
    """
    return (b"\r\n" + message).index(MARK) + len(MARK) - 2


def relayed(chunks: Iterable[bytes]) -> tuple[bytes, bool, bytes]:
    """
    Return what the backend gets of a message, whether there was a bare newline in it, and what came behind the message.
    """
    end, newlines, sent = EndOfData(), Newlines(), b""
    arriving = iter(chunks)
    for chunk in arriving:
        octets = end.feed(chunk)
        if octets is None:
            sent += newlines.feed(chunk, last=False)
        else:
            sent += newlines.feed(chunk[:octets], last=True)
            return sent, newlines.bare, chunk[octets:] + b"".join(arriving)
    raise AssertionError("the message does not end")


def text(message: bytes) -> bytes:
    """
    Return the text that *message* means to a strict receiver, its bare newlines made CRLF.

    A dot that a bare newline cuts off from the rest of its line is kept: it is the whole of the line that it becomes.
    """
    unstuffed = re.sub(rb"(?<=\r\n)\.(?!\r(?!\n)|\n)", b"", b"\r\n" + message.removesuffix(b".\r\n"))
    return re.sub(rb"\r\n|\r|\n", b"\r\n", unstuffed[2:])


def unstuffed(message: bytes) -> bytes:
    """
    Return the text of *message*, in which every line ends with CRLF (RFC 5321 section 4.5.2).
    """
    return re.sub(rb"(?<=\r\n)\.", b"", b"\r\n" + message.removesuffix(b".\r\n"))[2:]


def check(message: bytes, sent: bytes) -> None:
    """
    Fail unless *sent* is *message* for a backend that may take other line ends for CRLF.
    """
    assert sent.endswith(b".\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", sent)
    for name, newline in LINE_ENDS.items():
        end = re.search(rb"(?:\A|%b)\.(?:%b)" % (newline, newline), sent)
        assert end is None or end.end() >= len(sent) - 1, name
    assert re.search(rb"(?:\A|[\r\n])\.[\r\n]", sent).end() == len(sent) - 1  # type: ignore[union-attr]
    assert unstuffed(sent) == text(message)
    if message == re.sub(rb"\r\n|\r|\n", b"\r\n", message):
        assert sent == message


def bodies(octets_max: int) -> Iterator[bytes]:
    """
    Yield every string of CR, LF, dot and "a" of up to *octets_max* octets.
    """
    for octets in range(octets_max + 1):
        for letters in product(b"\r\n.a", repeat=octets):
            yield bytes(letters)


class TestEndOfData:
    @pytest.mark.parametrize(
        ("message", "behind"),
        [
            (b".\r\n", b""),
            (b".\r\n", b"QUIT\r\n"),
            (b"a\r\n.\r\n", b""),
            (b"a\r\n.\r\n", b"\r\n.\r\n"),
            (b"\r\n.\r\n", b".\r\n"),
            (b"..\r\n.\r\n", b"NOOP\r\n"),
            (b".a\r\n..\r\n.\r\n", b"NOOP\r\n"),
            (b".\r\r\n.\r\n", b"a"),
            (b"a\r.\r\n.\r\n", b"a"),
            (b"a\r\n\r\n.\r\n", b"a"),
            (b"a\r\r\n.\r\n", b"a"),
            (b"a\r\n.\n.\r\n\r\n.\r\n", b"a"),
        ],
    )
    def test_every_cut(self, message: bytes, behind: bytes) -> None:
        """5321-03: the message ends at the first CRLF.CRLF and nowhere else, at every cut."""
        assert length(message + behind) == len(message)
        for chunks in cuttings(message + behind):
            assert relayed(chunks)[2] == behind, chunks

    def test_every_short_message(self) -> None:
        """Every string of CR, LF, dot and text up to 5 octets, at every two-way cut: the end is where the RFC has it."""
        for body in bodies(5):
            message = body + MARK
            octets = length(message)
            for first, second in two_way(message):
                end = EndOfData()
                found = end.feed(first)
                if found is None:
                    rest = end.feed(second)
                    assert rest is not None
                    found = len(first) + rest
                assert found == octets, (first, second)

    def test_a_message_without_end(self) -> None:
        """Octets that only look like the mark never end a message, byte by byte."""
        end = EndOfData()
        for form in SMUGGLING * 3:
            for octet in b"a" + form + b"a":
                assert end.feed(bytes([octet])) is None


class TestNewlines:
    @pytest.mark.parametrize("form", SMUGGLING)
    def test_smuggling(self, form: bytes) -> None:
        """5321-03: what looks like an end of data to a lax backend does not any more, and it stays one message."""
        for before in (b"a", b"a\r\n", b"", b".a", b"\n"):
            message = before + form + COMMANDS
            octets = length(message)
            expected = relayed([message])
            check(message[:octets], expected[0])
            assert expected[1]
            for chunks in cuttings(message):
                assert relayed(chunks) == expected, chunks

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (b"a\n.\r\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\r\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b".\na\r\n.\r\n", b"..\r\na\r\n.\r\n"),
            (b"a\n.b\r\n.\r\n", b"a\r\n..b\r\n.\r\n"),
            (b"a\n..\r\n.\r\n", b"a\r\n...\r\n.\r\n"),
            (b"..a\nb\r\n.\r\n", b"..a\r\nb\r\n.\r\n"),
            (b"a\r\r\n.\r\n", b"a\r\n\r\n.\r\n"),
            (b"\n\r\n.\r\n", b"\r\n\r\n.\r\n"),
            (b"\r\n.\r\n", b"\r\n.\r\n"),
            (b"\n\n.\n.\n\r\n.\r\n", b"\r\n\r\n..\r\n..\r\n\r\n.\r\n"),
        ],
    )
    def test_golden(self, message: bytes, expected: bytes) -> None:
        """5321-26: a dot that comes to stand first in a line is stuffed; one that already did is not stuffed twice."""
        for chunks in cuttings(message):
            sent, bare, _ = relayed(chunks)
            assert (sent, bare) == (expected, message != expected), chunks

    def test_every_short_message(self) -> None:
        """
        Every string of CR, LF, dot and text up to 7 octets, at every two-way cut: the same octets, no early end at any
        backend, no change without a bare newline, and the same text.
        """
        for body in bodies(7):
            message = body + MARK
            octets = length(message)
            expected = relayed([message])
            check(message[:octets], expected[0])
            assert expected[1] == bool(re.search(rb"\r(?!\n)|(?<!\r)\n", message[:octets]))
            for chunks in two_way(message):
                assert relayed(chunks) == expected, chunks

    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"text", b"\x00", b"\xff"]), max_size=60).map(
            b"".join
        ),
        st.lists(st.integers(0, 200), max_size=12),
    )
    def test_any_message_and_cut(self, body: bytes, cuts: list[int]) -> None:
        """The same for longer ones, cut in many pieces."""
        message = body + MARK
        sent, bare, behind = relayed(at(message, cuts))
        assert (sent, bare, behind) == relayed([message])
        check(message[: length(message)], sent)

    @given(st.lists(st.binary(max_size=30), max_size=8), st.lists(st.integers(0, 300), max_size=8))
    def test_a_proper_message_is_not_touched(self, lines: list[bytes], cuts: list[int]) -> None:
        """Law 4: lines of any octets, stuffed and ended by CRLF, pass byte for byte."""
        clean = [line.replace(b"\r", b"").replace(b"\n", b"") for line in lines]
        message = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in clean) + b".\r\n"
        assert relayed(at(message, cuts)) == (message, False, b"")

    def test_little_is_held_back(self) -> None:
        """Law 7: at most four octets wait for their judgement, whatever comes."""
        for body in bodies(5):
            newlines = Newlines()
            sent = b"".join(newlines.feed(bytes([octet]), last=False) for octet in body)
            assert len(sent) >= len(body) - 4

    def test_octets_that_are_held_back_come_with_the_last(self) -> None:
        """A message that ends with nothing new still gives what was held back."""
        newlines = Newlines()
        assert newlines.feed(b"a\r\n.\r", last=False) == b"a"
        assert newlines.feed(b"", last=True) == b"\r\n..\r\n"
        assert newlines.bare


def test_the_names_in_the_configuration() -> None:
    """The three ways are named as design and documentation name them."""
    assert {way.value for way in BareNewlines} == {"normalize", "reject", "pass"}
