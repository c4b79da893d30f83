"""
The law of replies: each situation in which the gate answers itself, and with what.
"""

from datetime import date

import pytest
from attrs import evolve

from tests.policy.samples import TLS10, TLS11, TLS12_ANONYMOUS, TLS12_CBC, TLS12_STATIC_RSA, TLS13
from tests.session.preludes import DATA, GREETED, INSIDE, MODERN, OFFERED, OFFERED_EHLO, OLD, STARTED, TLS, TRANSACTION
from tests.support.dialogue import play, play_once
from tests.support.stage import HOSTNAME, Stage, terms
from tlsgate.policy.facts import TlsFacts
from tlsgate.policy.level import BUILT_IN
from tlsgate.policy.ramp import Ramp
from tlsgate.session.bounds import Bounds
from tlsgate.session.phases import Waiting
from tlsgate.session.verbs import VERBS
from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import LINE_OCTETS_MAX, Reply

ARGUMENTS = {
    b"MAIL": b" FROM:<a@example.org>",
    b"RCPT": b" TO:<a@example.org>",
    b"BDAT": b" 6 LAST",
    b"AUTH": b" PLAIN AGEAYg==",
}
NAMES = [*VERBS, b"STARTTLS", b"XEXCH50", b"X-EXPS", b"X-ANONYMOUSTLS", b"FROBNICATE", b"1MAIL", b'"MAIL"', b""]
ALLOWED_BEFORE_TLS = {b"EHLO", b"NOOP", b"STARTTLS", b"QUIT"}  # RFC 3207 section 4
GREETINGS = {b"EHLO", b"HELO"}


def line(name: bytes) -> bytes:
    """
    Return a command with that verb; a BDAT has a chunk that looks like a command behind it.
    """
    return (
        name
        + ARGUMENTS.get(name, b" client.example" if name in GREETINGS else b"")
        + b"\r\n"
        + b"QUIT\r\n" * (name == b"BDAT")
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALLOWED_BEFORE_TLS])
class TestTlsDemandedAndNoneYet:
    @pytest.mark.parametrize("case", [bytes.upper, bytes.lower, bytes.title])
    def test_every_other_verb(self, name: bytes, case: object) -> None:
        """3207-05, 3207-06, 2034-01, 3030-04: 530, with its code but to HELO; a chunk is swallowed; nobody is dialled."""
        sent = line(name)
        verb = sent[: len(name)]
        stage = play_once(terms(), GREETED).client(case(verb) + sent[len(name) :] + b"NOOP\r\n")  # type: ignore[operator]
        refusal = b"530 Must issue" if name in GREETINGS else b"530 5.7.0 Must issue"
        assert (
            stage.said == b"220 mx.example.org ESMTP\r\n" + refusal + b" a STARTTLS command first\r\n250 2.0.0 OK\r\n"
        )
        assert stage.backends == []

    def test_in_order(self, name: bytes) -> None:
        """2920-01: refusals in a group come in their turn."""
        stage = play_once(terms(), GREETED).client(b"NOOP\r\n" + line(name) + b"NOOP\r\n" + line(name) + b"QUIT\r\n")
        assert [reply.code for reply in stage.replies] == [220, 250, 530, 250, 530, 221]


class TestTlsDemanded:
    def test_ehlo_says_what_is_true_before_tls(self) -> None:
        """3207-01, 8314-03: STARTTLS without parameters, and only while there is a certificate to give."""
        ehlo = b"EHLO client.example\r\n"
        assert play_once(terms(), GREETED).client(ehlo).said.endswith(b"\r\n250 STARTTLS\r\n")
        without = play_once(terms(tls_available=lambda: False), GREETED).client(ehlo)
        assert without.said.endswith(b"250-mx.example.org\r\n250 ENHANCEDSTATUSCODES\r\n")

    def test_what_a_client_needs_to_know_before_it_starts_tls(self) -> None:
        """
        6531-02: Postfix bounces a message where SMTPUTF8 is not offered before TLS already. Inside TLS the backend's own
        keywords count.
        """
        stage = play_once(terms(), GREETED).client(b"EHLO client.example\r\n")
        assert stage.replies[-1].lines()[1:] == [b"ENHANCEDSTATUSCODES", b"8BITMIME", b"SMTPUTF8", b"STARTTLS"]
        assert b"SMTPUTF8" not in play_once(terms(), MODERN).replies[-1].raw

    def test_too_many_commands(self) -> None:
        """A client that only keeps the session open is sent away in the end."""
        stage = play_once(terms(bounds=Bounds(commands_before_tls_max=3)), GREETED).client(b"NOOP\r\n" * 9)
        assert [reply.code for reply in stage.replies] == [220, 250, 250, 250, 421]
        assert stage.closed

    def test_one_ehlo_too_many(self) -> None:
        """2034-01: nor does that 421 have an enhanced code if it answers EHLO."""
        stage = play_once(terms(bounds=Bounds(commands_before_tls_max=1)), GREETED).client(b"NOOP\r\nEHLO a\r\n")
        assert stage.replies[-1].raw == b"421 Too many commands before STARTTLS\r\n"


FACTS = {facts.cipher + facts.version: facts for facts in (TLS12_CBC, TLS12_STATIC_RSA, TLS10, TLS11, TLS12_ANONYMOUS)}


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
@pytest.mark.parametrize("implicit", [False, True])
class TestTlsIsNotEnough:
    def begin(self, facts: TlsFacts, *, implicit: bool) -> Stage:
        """
        Return a session at level strong after that handshake, the backend being there already.
        """
        if implicit:
            return Stage(terms("strong", implicit=True)).backend(b"220 backend\r\n").handshake(facts)
        return play_once(terms("strong"), STARTED).backend(b"220 backend\r\n").handshake(facts)

    def test_every_verb_but_quit(self, facts: TlsFacts, implicit: bool) -> None:  # noqa: FBT001 - both ways of TLS
        """3207-12, 2034-01, 3030-04: 554 with the reason to everything, EHLO, NOOP and STARTTLS too; QUIT gets 221."""
        stage = self.begin(facts, implicit=implicit)
        assert stage.backends == [b"QUIT\r\n"]
        for name in NAMES:
            if name == b"QUIT":
                continue
            before = len(stage.replies)
            stage.client(line(name))
            assert len(stage.replies) == before + 1, name
            reply = stage.replies[-1].raw
            start = b"554 " if name in GREETINGS else b"554 5.7.0 "
            assert reply.startswith(start + b"Command refused due to lack of security: "), name
            assert reply.endswith(b" [s-1]\r\n")
            assert len(reply) <= LINE_OCTETS_MAX
        stage.client(b"QUIT\r\n")
        assert stage.replies[-1].code == 221
        assert stage.closed
        assert stage.backends == [b"QUIT\r\n"]

    def test_the_verdict_is_written_down_first(self, facts: TlsFacts, implicit: bool) -> None:  # noqa: FBT001 - both
        """3207-10: the decision is recorded at the handshake, before a word is said."""
        stage = self.begin(facts, implicit=implicit)
        (record,) = [record for record in stage.records if record.event == "verdict"]
        assert record.fields["stage"] == "handshake"
        assert record.fields["outcome"] == "refuse"
        assert record.fields["cipher"] == facts.cipher
        assert stage.session.summary()["verdict"] == "refuse"


class TestStartTls:
    def test_with_an_argument(self) -> None:
        """3207-02: 501, and the session goes on in plaintext."""
        play(
            terms(),
            """
            client  > STARTTLS now
            client  > starttls
            client  < 501 5.5.4 Syntax error: STARTTLS takes no arguments
            client  < 220 2.0.0 Ready to start TLS
            starttls
            dial
            """,
            after=GREETED,
        )

    def test_without_a_certificate(self) -> None:
        """3207-02: 454 while TLS cannot be had."""
        for level, before in (("required", GREETED), ("offered", OFFERED)):
            play(
                terms(level, tls_available=lambda: False),
                """
                client  > STARTTLS
                client  < 454 4.7.0 TLS not available due to temporary reason
                """,
                after=before,
            )

    def test_where_it_is_not_offered(self) -> None:
        """A level without TLS knows no STARTTLS, and does not offer it."""
        level = evolve(BUILT_IN["offered"], name="none", tls=type(BUILT_IN["offered"].tls)("none"))
        play(
            terms(level),
            """
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 250-backend.example.org
            backend > 250 STARTTLS
            client  < 250 backend.example.org
            client  > STARTTLS
            client  < 502 5.5.1 STARTTLS is not offered here
            """,
            after=OFFERED,
        )

    def test_not_in_a_message_nor_in_a_chunk(self) -> None:
        """There it is text."""
        play(
            terms("offered"),
            r"""
            client >> STARTTLS\r\n.\r\nBDAT 10 LAST\r\nSTARTTLS\r\n
            backend << STARTTLS\r\n.\r\nBDAT 10 LAST\r\nSTARTTLS\r\n
            backend > 250 queued
            client  < 250 queued
            """,
            after=OFFERED_EHLO + DATA,
        )

    def test_not_in_a_sasl_exchange(self) -> None:
        """There it is base64, for all anybody knows: the backend's to judge."""
        play(
            terms(),
            """
            client  > STARTTLS
            backend < STARTTLS
            backend > 535 no
            client  < 535 no
            """,
            after=MODERN + "client > AUTH LOGIN\nbackend < AUTH LOGIN\nbackend > 334 x\nclient < 334 x\n",
        )


class TestAuth:
    def test_in_plaintext(self) -> None:
        """4954-03: 538 where TLS is offered, the mechanism does not matter; the password is not passed on."""
        play(
            terms("offered"),
            """
            client  > AUTH PLAIN AGEAYg==
            client  > AUTH CRAM-MD5
            client  < 538 5.7.11 ...
            client  < 538 5.7.11 ...
            """,
            after=OFFERED_EHLO,
        )

    def test_in_plaintext_if_the_operator_wants_it(self) -> None:
        """4954-04: `plaintext_auth` shows AUTH before TLS, and lets it pass."""
        play(
            terms(evolve(BUILT_IN["offered"], plaintext_auth=True)),
            """
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 250-backend.example.org
            backend > 250 AUTH PLAIN
            client  < 250-backend.example.org
            client  < 250-AUTH PLAIN
            client  < 250 STARTTLS
            client  > AUTH PLAIN AGEAYg==
            backend < AUTH PLAIN AGEAYg==
            backend > 235 welcome
            client  < 235 welcome
            """,
            after=OFFERED,
        )

    def test_mechanisms_that_cannot_work(self) -> None:
        """3207-27, 8314-07: mechanisms bound to the client's TLS are refused, and never shown: the backend does not see it."""
        play(
            terms(),
            """
            client  > AUTH EXTERNAL =
            client  > AUTH scram-sha-256-plus abc
            client  < 504 5.5.4 ...
            client  < 504 5.5.4 ...
            """,
            after=MODERN,
        )

    def test_a_line_that_is_not_base64(self) -> None:
        """4954-02: it cancels the exchange; nothing but base64 or "*" reaches the backend in its place."""
        for bad in ("XCLIENT ADDR=::1", "a b", "QVVU=SA==", "====", "**", ".", r"a\\x00", r"\\xff"):
            play(
                terms(),
                f"""
                client >> {bad}\\r\\n
                backend < *
                backend > 501 cancelled
                client  < 501 cancelled
                """,
                after=MODERN + "client > AUTH LOGIN\nbackend < AUTH LOGIN\nbackend > 334 x\nclient < 334 x\n",
            )

    def test_long_lines(self) -> None:
        """4954-02: AUTH and its exchange have 12288 octets a line; longer ones are refused, or cancel."""
        stage = play_once(terms(), MODERN)
        stage.client(b"AUTH PLAIN " + b"a" * 12_275 + b"\r\n")
        assert stage.backends[-1].endswith(b"a\r\n")
        stage.backend(b"334 \r\n").client(b"a" * 12_286 + b"\r\n")
        assert stage.backends[-1].endswith(b"a" * 12_286 + b"\r\n")
        stage.backend(b"334 \r\n").client(b"a" * 12_287 + b"\r\n")
        assert stage.backends[-1].endswith(b"\r\n*\r\n")
        stage.backend(b"501 cancelled\r\n").client(b"AUTH PLAIN " + b"a" * 12_276 + b"\r\n")
        assert stage.replies[-1].code == 500


class TestChunksRefused:
    def test_a_backend_without_chunking(self) -> None:
        """3030-04, 3030-07: the octets are swallowed, and none of them is a command to anybody."""
        play(
            terms(),
            r"""
            client >> BDAT 24 LAST\r\nXCLIENT ADDR=127.0.0.1\r\nNOOP\r\n
            client  < 503 5.5.1 CHUNKING was not offered
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=OLD + TRANSACTION,
        )

    def test_a_size_that_is_none(self) -> None:
        """3030-07: 501; then nothing of the transaction passes until RSET, lest half a message be delivered."""
        play(
            terms(),
            """
            client  > BDAT many
            client  > BDAT 6 LAST
            client  > QUIT
            client  > RCPT TO:<c@example.org>
            client  > DATA
            client  > RSET
            client  > BDAT 4 LAST
            client  > ab
            client  < 501 5.5.4 Syntax: BDAT size [LAST]
            client  < 503 5.5.1 BDAT failed; RSET is needed
            client  < 503 5.5.1 BDAT failed; RSET is needed
            client  < 503 5.5.1 BDAT failed; RSET is needed
            backend < RSET
            backend > 250 reset
            client  < 250 reset
            backend < BDAT 4 LAST
            backend < ab
            backend > 503 MAIL first
            client  < 503 MAIL first
            """,
            after=MODERN + TRANSACTION,
        )

    def test_empty_chunks(self) -> None:
        """A refused chunk of no octets is refused at once."""
        for before, refusal in ((OLD, "503 5.5.1 CHUNKING was not offered"), (GREETED, "530 5.7.0 ...")):
            play(terms(), f"client > BDAT 0 LAST\nclient < {refusal}\n", after=before)


class TestBackend:
    def test_unreachable_before_the_greeting(self) -> None:
        """421 4.3.2 as the greeting."""
        stage = Stage(terms("offered")).backend_lost()
        assert stage.said == b"421 4.3.2 The mail server is not available, try again later\r\n"
        assert stage.closed

    def test_unreachable_with_implicit_tls(self) -> None:
        """The same, said inside TLS; whether the backend fails before or after the handshake is done."""
        early = Stage(terms(implicit=True)).backend_lost()
        assert early.said == b""
        early.handshake(TLS13)
        late = Stage(terms(implicit=True)).handshake(TLS13).backend_lost()
        assert early.said == late.said == b"421 4.3.2 The mail server is not available, try again later\r\n"
        assert early.closed
        assert late.closed

    def test_unreachable_later(self) -> None:
        """451 4.4.1 to every command but QUIT, EHLO too; chunks are swallowed."""
        for before in (STARTED + "backend lost\n" + TLS + "\n", STARTED + TLS + "\nbackend lost\n"):
            play(
                terms(),
                """
                client  > EHLO client.example
                client  > MAIL FROM:<a@example.org>
                client  > BDAT 6 LAST
                client  > QUIT
                client  > NOOP
                client  > QUIT
                client  < 451 The mail server cannot be reached, try again later
                client  < 451 4.4.1 The mail server cannot be reached, try again later
                client  < 451 4.4.1 The mail server cannot be reached, try again later
                client  < 451 4.4.1 The mail server cannot be reached, try again later
                client  < 221 2.0.0 ...
                close
                """,
                after=before,
            )

    def test_a_reason_of_its_own(self) -> None:
        """Who opens the connection may say why there is none."""
        stage = play_once(terms(), STARTED + TLS + "\n")
        stage.leg = "none"
        stage._perform(stage.session.backend_failed(replies.BACKEND_TLS))
        stage.client(b"NOOP\r\n")
        assert stage.replies[-1].raw == replies.BACKEND_TLS.encode()

    def test_insufficient_tls_before_no_backend(self) -> None:
        """3207-12: the verdict is the answer, whatever became of the backend."""
        stage = play_once(terms("strong"), STARTED + "backend lost\n").handshake(TLS12_CBC).client(b"NOOP\r\n")
        assert stage.replies[-1].code == 554

    def test_lost(self) -> None:
        """421 4.4.2 and a close, in every phase in which there is a backend."""
        for before in ("", "client > NOOP\nbackend < NOOP\n", DATA, TRANSACTION, "client > BDAT 9\nbackend < BDAT 9\n"):
            play(
                terms(),
                """
                backend lost
                client  < 421 4.4.2 Lost the connection to the mail server
                close
                """,
                after=MODERN + before,
            )


class TestTime:
    def test_a_silent_client(self) -> None:
        """5321-22: 421 4.4.2, close; in the middle of a message the backend is dropped."""
        for before, end in ((GREETED, ""), (MODERN, "hangup"), (MODERN + DATA, "drop")):
            play(terms(), f"silence\nclient < 421 4.4.2 Timeout, closing the connection\nclose\n{end}\n", after=before)

    def test_a_silent_backend(self) -> None:
        """5321-21: 421 4.4.2, close; before the greeting, and before the reply to a command."""
        for level, before, end in (
            ("offered", "dial\n", "drop"),
            ("required", STARTED + TLS + "\n", "drop"),
            ("required", MODERN + "client > NOOP\nbackend < NOOP\n", "hangup"),
        ):
            play(
                terms(level),
                f"silence\nclient < 421 4.4.2 The mail server did not answer in time\nclose\n{end}\n",
                after=before,
            )

    @pytest.mark.parametrize("name", ["EHLO", "HELO"])
    def test_a_backend_that_is_silent_at_once(self, name: str) -> None:
        """2034-01: the 421 that answers EHLO or HELO has no enhanced code."""
        play(
            terms(),
            f"""
            client  > {name} client.example
            backend < {name} client.example
            silence
            client  < 421 The mail server did not answer in time
            close
            hangup
            """,
            after=INSIDE,
        )

    def test_whose_turn_it_is_while_a_chunk_comes_in(self) -> None:
        """5321-21: the backend's, if it owes the reply to a command before; else the client's."""
        stage = play_once(terms(), MODERN + TRANSACTION).client(b"NOOP\r\nBDAT 10\r\n123")
        assert stage.session.waiting is Waiting.BACKEND
        assert stage.backend(b"250 noop\r\n").session.waiting is Waiting.CLIENT

    def test_a_handshake_that_does_not_end(self) -> None:
        """3207-08: the connection is closed, without a word."""
        play(terms(), "silence\nclose\ndrop\n", after=STARTED)
        play(terms(implicit=True), "silence\nclose\ndrop\n", after="dial\n")


class TestService:
    def test_a_drain_waits_for_the_transaction(self) -> None:
        """5321-05: 421 between transactions; not in one, nor while a reply is owed."""
        play(
            terms(),
            """
            client >> text\\r\\n.\\r\\n
            backend << text\\r\\n.\\r\\n
            backend > 250 queued
            client  < 250 queued
            client  < 421 4.3.2 Service shutting down, try again later
            close
            hangup
            """,
            after=MODERN + DATA + "drain\n",
        )

    def test_a_drain_waits_for_the_replies(self) -> None:
        """5321-05: a command that was sent is answered before the end."""
        play(
            terms(),
            """
            client  > NOOP
            backend < NOOP
            drain
            backend > 250 noop
            client  < 250 noop
            client  < 421 4.3.2 Service shutting down, try again later
            close
            hangup
            """,
            after=MODERN,
        )

    def test_a_drain_at_rest(self) -> None:
        """Sessions that do nothing end at once."""
        for before, end in ((GREETED, ""), (MODERN, "hangup"), (OFFERED, "hangup")):
            level = "offered" if before is OFFERED else "required"
            play(terms(level), f"drain\nclient < 421 4.3.2 ...\nclose\n{end}\n", after=before)

    def test_a_drain_in_a_handshake(self) -> None:
        """A handshake is let end; then the client is told."""
        stage = play_once(terms(), STARTED).drain().handshake(TLS13)
        assert not stage.closed
        stage.backend(b"220 backend\r\n")
        assert stage.closed
        assert stage.replies[-1].code == 421

    @pytest.mark.parametrize("reply", [replies.TOO_MANY_SESSIONS, replies.TOO_SLOW, replies.SHUTTING_DOWN])
    def test_limits(self, reply: Reply) -> None:
        """The service may end a session at any time with a 421."""
        for before in (GREETED, MODERN, MODERN + DATA):
            stage = play_once(terms(), before).refuse(reply)
            assert stage.replies[-1].raw == reply.encode()
            assert stage.closed

    def test_too_many_errors(self) -> None:
        """After so many refusals of ours the session ends."""
        stage = play_once(terms(bounds=Bounds(errors_max=3)), INSIDE).client(b"XCLIENT\r\n").client(b"XCLIENT\r\n")
        assert not stage.closed
        stage.client(b"XCLIENT\r\n")
        assert stage.closed
        assert stage.said.endswith(
            b"502 5.5.1 Command not available through this gate\r\n421 4.7.0 Too many errors\r\n"
        )

    def test_the_name_in_the_greeting(self) -> None:
        """5321-04: the gate greets in the name it was given."""
        assert Stage(terms(hostname="other.example")).said == b"220 other.example ESMTP\r\n"
        assert HOSTNAME.encode() in Stage(terms()).said


class TestForbiddenVerbs:
    @pytest.mark.parametrize(
        "verb",
        [
            "XCLIENT ADDR=::1",
            "xforward NAME=a",
            "PROXY TCP4 1 2 3 4",
            "Turn",
            "ATRN example.org",
            "SEND FROM:<a@example.org>",
            "SOML FROM:<a@example.org>",
            "SAML FROM:<a@example.org>",
            "MAILX FROM:<a@example.org>",
            "rcptx TO:<a@example.org>",
            "STARTX",
            "XEXCH50 2 2",
            "X-ANONYMOUSTLS",
            "X-EXPS NTLM",
        ],
    )
    def test_they_never_pass(self, verb: str) -> None:
        """502 5.5.1, inside TLS and, where TLS is offered, before it."""
        for level, before in (("required", MODERN), ("required", OLD + TRANSACTION), ("offered", OFFERED_EHLO)):
            play(
                terms(level),
                f"client > {verb}\nclient < 502 5.5.1 Command not available through this gate\n",
                after=before,
            )


def test_a_ramp_without_start() -> None:
    """A level whose ramp has not begun refuses nobody."""
    level = evolve(BUILT_IN["required"], enforcement=Ramp(date(2200, 1, 1)))
    stage = Stage(terms(level)).backend(b"220 backend\r\n").client(b"MAIL FROM:<a@example.org>\r\n")
    assert stage.backends == [b"MAIL FROM:<a@example.org>\r\n"]
