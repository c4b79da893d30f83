"""
Tests of `tlsgate.smtp.command`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsgate.smtp.command import Command, chunk, mailbox, parse


class TestParse:
    @pytest.mark.parametrize(
        ("line", "verb", "argument"),
        [
            (b"NOOP\r\n", b"NOOP", b""),
            (b"noop\r\n", b"NOOP", b""),
            (b"nOoP ignored words\r\n", b"NOOP", b"ignored words"),
            (b"QUIT \r\n", b"QUIT", b""),
            (b"DATA    \r\n", b"DATA", b""),
            (b"MAIL FROM:<a@example.org> SIZE=1\r\n", b"MAIL", b"FROM:<a@example.org> SIZE=1"),
            (b"MAIL  FROM:<a@example.org>  \r\n", b"MAIL", b"FROM:<a@example.org>"),
            (b"mail from:<Bob@Example.ORG>\r\n", b"MAIL", b"from:<Bob@Example.ORG>"),
            (b"RCPT TO:<gr\xc3\xbcn@example.org>\r\n", b"RCPT", b"TO:<gr\xc3\xbcn@example.org>"),
            (b"X-ANONYMOUSTLS\r\n", b"X-ANONYMOUSTLS", b""),
            (b"x1-2 \xff\r\n", b"X1-2", b"\xff"),
            (b"XEXCH50 2 2\r\n", b"XEXCH50", b"2 2"),
        ],
    )
    def test_a_command(self, line: bytes, verb: bytes, argument: bytes) -> None:
        """5321-07, 5321-08: verbs in any case, trailing blanks tolerated; the line itself is kept as it came."""
        assert parse(line) == Command(verb, argument, line, well_formed=True)

    @pytest.mark.parametrize(
        ("line", "verb"),
        [
            (b"\r\n", b""),
            (b" XCLIENT ADDR=::1\r\n", b""),
            (b'"XCLIENT" ADDR=::1\r\n', b'"XCLIENT"'),
            (b"(XCLIENT)\r\n", b"(XCLIENT)"),
            (b"\\XCLIENT a\r\n", b"\\XCLIENT"),
            (b"X\\CLIENT a\r\n", b"X\\CLIENT"),
            (b"XCLIENT=a\r\n", b"XCLIENT=A"),
            (b"-XCLIENT\r\n", b"-XCLIENT"),
            (b"1XCLIENT\r\n", b"1XCLIENT"),
            (b"NOOP:\r\n", b"NOOP:"),
            (b"\xa0XCLIENT a\r\n", b"\xa0XCLIENT"),
            (b"XCLIENT\xa0a\r\n", b"XCLIENT\xa0A"),
            (b"\xef\xbb\xbfEHLO a\r\n", b"\xef\xbb\xbfEHLO"),
            (b".\r\n", b"."),
            (b"<a@example.org>\r\n", b"<A@EXAMPLE.ORG>"),
        ],
    )
    def test_a_line_that_does_not_start_with_a_plain_verb_is_not_well_formed(self, line: bytes, verb: bytes) -> None:
        """What a backend might read as another command than we do must never reach it."""
        command = parse(line)
        assert command is not None
        assert not command.well_formed
        assert command.verb == verb
        assert command.line == line

    @pytest.mark.parametrize(
        "line",
        [
            b"\n",
            b"NOOP\n",
            b"NOOP\r\r\n",
            b"NOOP\rXCLIENT ADDR=::1\r\n",
            b"\rXCLIENT\r\n",
            b"NOOP x\rXCLIENT\r\n",
            b"NO\x00OP\r\n",
            b"NOOP \x00\r\n",
            b"\x00\r\n",
            b"\tXCLIENT\r\n",
            b"XCLIENT\tADDR=::1\r\n",
            b"XCLIENT \tADDR=::1\r\n",
            b"NOOP\x0bXCLIENT\r\n",
            b"NOOP\x0c\r\n",
            b"NOOP \x7f\r\n",
            b"NOOP \x08\x1b[2J\r\n",
            b" \n",
        ],
    )
    def test_a_line_with_control_characters_is_no_command(self, line: bytes) -> None:
        """5321-03: bare CR, bare LF, NUL and their kin are refused as a whole: nothing can hide behind them."""
        assert parse(line) is None

    @given(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"") + b"\n"))
    def test_what_is_well_formed_is_one_plain_line(self, line: bytes) -> None:
        """Whatever the octets: a command that may be forwarded has no line end but its own, and a plain verb first."""
        command = parse(line)
        if command is not None:
            assert command.line == line
            assert line.endswith(b"\r\n")
            assert not set(line[:-2]) & {*range(32), 127}
            if command.well_formed:
                assert line.upper().startswith(command.verb)
                assert command.verb.replace(b"-", b"").isalnum()
                assert line[len(command.verb) :][:1] in {b" ", b"\r"}

    @given(st.integers(min_value=0, max_value=31).filter(lambda octet: octet != 10), st.integers(0, 7))
    def test_no_control_octet_passes_anywhere(self, octet: int, place: int) -> None:
        """A control octet before, in or behind the verb or in the argument makes the line no command."""
        text = b"NOOP abc"
        assert parse(text[:place] + bytes([octet]) + text[place:] + b"\r\n") is None


class TestMailbox:
    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            (b"FROM:<a@example.org>", "a@example.org"),
            (b"from:<a@example.org>", "a@example.org"),
            (b"TO:<a@example.org>", "a@example.org"),
            (b"To: <a@example.org>", "a@example.org"),
            (b"FROM:<>", ""),
            (b"FROM:<> BODY=8BITMIME", ""),
            (b"FROM:<a@example.org> SIZE=100 AUTH=<>", "a@example.org"),
            (b"TO:<Postmaster>", "Postmaster"),
            (b"TO:<@relay.example,@other.example:a@example.org>", "a@example.org"),
            (b'TO:<"a b>c"@example.org>', '"a b>c"@example.org'),
            (b'TO:<"a\\"> SIZE=1 <"@example.org>', '"a\\"> SIZE=1 <"@example.org'),
            (b"FROM:<prvs=42=joe+list/x@host_1.example.>", "prvs=42=joe+list/x@host_1.example."),
            (b"FROM:<#@[]>", "#@[]"),
            (b"FROM:a@example.org", "a@example.org"),
            (b"FROM:  a@example.org SIZE=1", "a@example.org"),
            (b"TO:postmaster", "postmaster"),
            (b"TO:<user@[192.0.2.1]>", "user@[192.0.2.1]"),
            (b"TO:<user@[IPv6:2001:db8::1]>", "user@[IPv6:2001:db8::1]"),
            (b"TO:<gr\xc3\xbcn@example.org>", "gr\u00fcn@example.org"),
        ],
    )
    def test_a_path(self, argument: bytes, expected: str) -> None:
        """The mailbox of MAIL and RCPT, without source route and parameters."""
        assert mailbox(argument) == expected

    @pytest.mark.parametrize(
        "argument",
        [
            b"",
            b"FROM:",
            b"FROM:a\\@b@example.org",
            b"FROM:a@example.org<b@example.org>",
            b"FROM <a@example.org>",
            b"FOR:<a@example.org>",
            b"FROM:<a@example.org",
            b"FROM:a@example.org>",
            b"FROM:<a@example.org>SIZE=1",
            b"FROM:<a@example.org>>",
            b"FROM:<<a@example.org>>",
            b'FROM:<"a@example.org>',
            b"FROM:<a@example.org\\>",
            b"TO:<gr\xfcn@example.org>",
            b"FROM:Bob <a@example.org>",
            b"TO:<a\\>b@example.org>",
            b"TO:<a@example.org >",
            b"TO:<a@ example.org>",
            b"TO:< a@example.org>",
            b"TO:<a@(example.net)example.org>",
            b"TO:<a@example.org(example.net)>",
            b"TO:<a@example\\.org>",
            b'TO:<a@"example.org">',
            b'TO:<"a@example.org">',
            b'TO:<"a@example.org"@example.net>',
            b'TO:<"a\\@example.org"@example.net>',
            b'TO:<"a%example.org"@example.net>',
            b'TO:<"example.org!a"@example.net>',
            b"TO:<a%example.org@example.net>",
            b"TO:<example.org!a@example.net>",
            b"TO:<a@example.org@example.net>",
            b"TO:<a@example.org,b@example.net>",
            b"TO:<a@example.org;>",
            b"TO:<list:a@example.org;>",
            b"TO:<a@>",
            b"TO:<@>",
            b"TO:<@relay.example>",
            b"TO:<@relay.example:>",
        ],
    )
    def test_what_cannot_be_told_for_sure(self, argument: bytes) -> None:
        """What a backend might read otherwise than we do has no mailbox, rather than a guessed one."""
        assert mailbox(argument) is None

    def test_a_hostile_path_takes_no_time(self) -> None:
        """A line of quotes and backslashes is judged in one pass: it would not return otherwise."""
        for filling in (b'"', b"\\", b'"\\', b'\\"', b'""', b"a", b"@a,", b"a@", b"[", b"\xff", b" "):
            assert mailbox(b"FROM:<" + filling * 5_000) is None
            assert mailbox(b"FROM:<" + filling * 5_000 + b'"@a>\\') is None


class TestChunk:
    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            (b"0", (0, False)),
            (b"86", (86, False)),
            (b"0 LAST", (0, True)),
            (b"86 last", (86, True)),
            (b"86   LaSt  ", (86, True)),
            (b"86 ", (86, False)),
            (b"2000000000", (2_000_000_000, False)),
        ],
    )
    def test_a_size(self, argument: bytes, expected: tuple[int, bool]) -> None:
        """RFC 3030 section 2: the size in octets, and LAST in any case."""
        assert chunk(argument) == expected

    @pytest.mark.parametrize(
        "argument",
        b"|-1|+1|1_0|0x10|1e3|LAST|1LAST|1 LAST LAST|1 FIRST|1 2|007|00|2000000001|2147483647|2147483648|4294967301|1111111111111111111|\xd9\xa1|1.0| 1|1\tLAST".split(
            b"|"
        ),
    )
    def test_a_bad_size(self, argument: bytes) -> None:
        """3030-07: a size that two readers could read differently is none."""
        assert chunk(argument) is None
