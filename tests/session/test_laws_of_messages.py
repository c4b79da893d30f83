"""
Laws 4 and 5: the message is the client's, and its acceptance the backend's.

Every dialogue also runs byte by byte and at every two-way cut.
"""

import pytest

from tests.session.preludes import (
    DATA,
    MODERN,
    TRANSACTION,
)
from tests.support.dialogue import play, play_once
from tests.support.stage import terms
from tlsgate.smtp.message import BareNewlines
from tlsgate.smtp.reply import BackendReply

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
