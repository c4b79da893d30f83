"""
The shadow of the backend's mail transaction follows the backend's answers, and nothing else: rules look at its sender,
chunks are withheld for it, and the journal tells of it.
"""

import pytest

from tests.policy.samples import NOW
from tests.session.preludes import MODERN, TRANSACTION
from tests.support.dialogue import play, play_once
from tests.support.stage import terms


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
