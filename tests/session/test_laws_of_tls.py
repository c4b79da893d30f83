"""
Laws 2 and 3: nothing from before TLS counts after it, and no command passes before the level is met.

Every dialogue also runs byte by byte and at every two-way cut.
"""

import pytest

from tests.policy.samples import TLS13
from tests.session.preludes import (
    GREETED,
    MODERN,
    OFFERED_EHLO,
    STARTED,
    TLS,
    TRANSACTION,
    WEAK_TLS,
)
from tests.support.dialogue import play, play_once
from tests.support.stage import terms


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
            client  < 250-8BITMIME
            client  < 250-SMTPUTF8
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
