"""
Laws 6 and 7: no octets make the session raise, and none make it grow.

Every dialogue also runs byte by byte and at every two-way cut.
"""

import pytest

from tests.session.preludes import (
    DATA,
    GREETED,
    MODERN,
)
from tests.support.dialogue import play, play_once
from tests.support.stage import Stage, terms
from tlsgate.session.bounds import Bounds


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
        """2920-11: replies are counted, and one too many shifts all later ones: 421."""
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

    def test_replies_before_the_protocol_is_broken(self) -> None:
        """A reply that came whole counts, whatever came behind it in the same piece."""
        play(
            terms(),
            """
            client  > NOOP 1
            client  > NOOP 2
            backend < NOOP 1
            backend < NOOP 2
            backend > 250 one
            backend > rubbish
            client  < 250 one
            client  < 421 4.4.2 The mail server broke the protocol
            close
            hangup
            """,
            after=MODERN,
        )

    def test_rubbish_behind_the_last_word(self) -> None:
        """What a backend says behind its 221 is nobody's business any more, and no fault of it is told."""
        stage = play_once(terms(), MODERN).client(b"QUIT\r\n").backend(b"221 bye\r\nrubbish\r\n")
        assert stage.closed
        assert "backend-broken" not in [record.event for record in stage.records]


class TestMemoryIsBounded:
    def test_after_the_last_command(self) -> None:
        """A client that goes on while its last reply waits for its turn is not listened to, and nothing is kept."""
        stage = play_once(terms(bounds=Bounds(errors_max=1)), MODERN).client(b"NOOP\r\nXCLIENT\r\n")
        for _ in range(10):
            stage.client(b"a" * 1_000)
        assert not stage.closed
        assert len(stage.session._input) == 0

    def test_while_the_backend_is_dialled(self) -> None:
        """A client that is faster than the greeting is paused, and refused if that does not stop it."""
        stage = Stage(terms("offered", bounds=Bounds(held_octets_max=20_000))).client(b"NOOP\r\n" * 2_000)
        assert stage.paused
        assert not stage.closed
        assert stage.client(b"NOOP\r\n" * 2_000).closed

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
        """2920-13: a client that floods a slow backend is paused, and every command is answered in the end."""
        stage = play_once(terms(), MODERN)
        stage.client(b"NOOP\r\n" * 10_000)
        assert stage.paused
        answered = 0
        while not stage.closed and answered < 10_000:
            due = stage.backends[-1].count(b"NOOP") - answered
            assert 0 < due <= stage.terms.bounds.pipeline_max
            stage.backend(b"250 noop\r\n" * due)
            answered += due
        assert answered == 10_000
        assert not stage.paused
        assert len(stage.replies) == 10_000 + 4

    def test_a_client_that_does_not_stop(self) -> None:
        """A client that goes on although nobody reads it is refused with 421."""
        stage = play_once(terms(), MODERN + "client > DATA\nbackend < DATA\n")
        for _ in range(100):
            stage.client(b"NOOP\r\n" * 1_000)
        assert stage.closed
        assert stage.replies[-1].raw == b"421 4.7.0 Too much input while a reply was outstanding\r\n"

    def test_as_much_as_may_wait(self) -> None:
        """The bound is what it says: so many octets wait, and one more is too many."""
        stage = play_once(terms(bounds=Bounds(held_octets_max=20_000)), MODERN).client(b"DATA\r\n" + b"a" * 20_000)
        assert not stage.closed
        assert stage.client(b"a").replies[-1].raw.startswith(b"421 4.7.0 Too much input")

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
