"""
Requirements of the RFCs that no other test of the session is about: most are the backend's to keep, and ours not to
break. docs/standards.md lists all of them.
"""

from attrs import evolve

from tests.policy.samples import SELF_SIGNED, TLS12_CBC, TLS13, VERIFIED
from tests.session.preludes import (
    DATA,
    GREETED,
    INSIDE,
    MODERN,
    OFFERED,
    OFFERED_EHLO,
    OLD,
    STARTED,
    TLS,
    TRANSACTION,
)
from tests.support.dialogue import play, play_once
from tests.support.stage import HOSTNAME, Stage, terms
from tlsgate.policy.level import BUILT_IN
from tlsgate.policy.rules import Rule, Rulebook
from tlsgate.session.actions import Action, SendBackend, SendClient
from tlsgate.session.session import Session
from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import Reply


def relayed(command: str, answer: str, after: str = MODERN) -> None:
    """
    Fail unless *command* reaches the backend, and *answer* the client, as they are.
    """
    play(
        terms("offered" if after == OFFERED_EHLO else "required"),
        f"""
        client  > {command}
        backend < {command}
        backend > {answer}
        client  < {answer}
        """,
        after=after,
    )


class TestStartTls:
    def test_relaying_may_depend_on_a_certificate(self) -> None:
        """3207-04: a domain may be written to only by those whose certificate is verified; other mail goes on."""
        law = Rulebook([Rule(BUILT_IN["verified"], recipients=("partner.example",))], {"mx": BUILT_IN["offered"]})
        for certificate, code in ((None, 554), (SELF_SIGNED, 554), (VERIFIED, 250)):
            stage = Stage(terms(rulebook=law)).backend(b"220 backend\r\n").client(b"STARTTLS\r\n")
            stage.handshake(evolve(TLS13, certificate=certificate)).backend(b"220 backend\r\n")
            stage.client(b"EHLO client.example\r\n").backend(b"250-backend\r\n250 PIPELINING\r\n")
            stage.client(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@partner.example>\r\nRCPT TO:<c@ours.example>\r\n")
            stage.backend(b"250 ok\r\n" * (2 + (code == 250)))
            assert [reply.code for reply in stage.replies[-3:]] == [250, code, 250], certificate

    def test_helo_first_inside_tls(self) -> None:
        """3207-16: a client should say EHLO first inside TLS; one that says HELO is served."""
        relayed("HELO client.example", "250 backend.example.org", after=INSIDE)

    def test_both_know_whether_there_is_tls(self) -> None:
        """3207-18: there is TLS from the end of the handshake on, and until then nobody says a word."""
        stage = play_once(terms(), STARTED)
        said = stage.said
        assert stage.session.summary()["tls"] is None
        stage.backend(b"220 backend\r\n")
        assert stage.said == said
        stage.handshake(TLS13)
        assert stage.session.summary()["tls"] == "TLSv1.3"

    def test_what_the_journal_says_of_a_session(self) -> None:
        """8314-04: the cipher suite stands beside whether the client has authenticated."""
        stage = play_once(terms(), MODERN).client(b"AUTH PLAIN AGEAYg==\r\n").backend(b"235 welcome\r\n")
        summary = stage.session.summary()
        assert (summary["cipher"], summary["authenticated"]) == ("TLS_AES_256_GCM_SHA384", True)

    def test_what_the_journal_says_of_a_mail(self) -> None:
        """8314-04: each mail stands beside the TLS it came over, and what the law made of that."""
        stage = play_once(terms(), MODERN)
        stage.client(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@ours.example>\r\nDATA\r\n")
        stage.backend(b"250 ok\r\n250 ok\r\n354 go on\r\n").client(b".\r\n").backend(b"250 taken\r\n")
        (mail,) = [record.fields for record in stage.records if record.event == "transaction"]
        assert mail["outcome"] == "delivered"
        assert (mail["level"], mail["verdict"]) == ("required", "pass")
        assert (mail["tls"], mail["cipher"], mail["group"]) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519")


class TestSimpleMailTransferProtocol:
    def test_noop_with_an_argument(self) -> None:
        """5321-10: the argument of NOOP does not matter, to the gate neither."""
        play(
            terms(),
            """
            client  > NOOP to keep the session open
            client  < 250 2.0.0 OK
            """,
            after=GREETED,
        )

    def test_before_ehlo(self) -> None:
        """5321-12: NOOP, HELP, VRFY, EXPN and RSET may come before EHLO."""
        for command in ("NOOP", "HELP", "VRFY postmaster", "EXPN staff", "RSET"):
            relayed(command, "250 ok", after=INSIDE)

    def test_the_least_a_server_knows(self) -> None:
        """5321-18: what every server must know gets to the backend, postmaster without a domain included."""
        relayed("VRFY postmaster", "252 try it", after=MODERN)
        relayed("NOOP", "250 ok", after=MODERN)
        relayed("RSET", "250 ok", after=MODERN)
        relayed("RCPT TO:<Postmaster>", "250 ok", after=MODERN + TRANSACTION)

    def test_arguments_where_there_should_be_none(self) -> None:
        """5321-07: RSET or DATA with an argument is the backend's to refuse."""
        for command in ("RSET now", "DATA now"):
            relayed(command, "501 no arguments, please")

    def test_too_many_recipients(self) -> None:
        """5321-20: the backend's 452 is the client's."""
        relayed("RCPT TO:<c@example.org>", "452 4.5.3 too many recipients", after=MODERN + TRANSACTION)

    def test_vrfy_is_never_answered_by_the_gate(self) -> None:
        """5321-24: whether an address exists is not for the gate to say, and it never seems to know."""
        relayed("VRFY a@example.org", "252 2.0.0 cannot say", after=OFFERED_EHLO)
        refused = play_once(terms(), GREETED).client(b"VRFY a@example.org\r\n")
        assert refused.replies[-1].code == 530

    def test_only_registered_keywords(self) -> None:
        """5321-02, 5321-08: of what a backend offers, the client sees what is known; case does not matter."""
        play(
            terms(),
            """
            client  > ehlo client.example
            backend < ehlo client.example
            backend > 250-backend.example.org
            backend > 250-8bitmime
            backend > 250-StartTLS
            backend > 250-X-OF-OURS 1
            backend > 250-FROBNICATE
            backend > 250 Size 1000
            client  < 250-backend.example.org
            client  < 250-8bitmime
            client  < 250 Size 1000
            """,
            after=INSIDE,
        )


class TestPipelining:
    def test_our_replies_to_a_group_leave_together(self) -> None:
        """2920-02: what the gate itself answers to a group is one piece."""
        session = opened()
        actions = session.client_data(b"NOOP\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nNOOP\r\n")
        (said,) = sent(actions, SendClient)
        assert said.count(b"\r\n") == 4

    def test_no_reply_waits_for_input(self) -> None:
        """2920-05, 2920-06, 2920-07: whatever is due is said in the same step, also while half a command is there."""
        session = opened()
        for line in (b"NOOP", b"EHLO client.example", b"DATA", b"VRFY a", b"EXPN a", b"TURN", b"FROBNICATE"):
            (said,) = sent(session.client_data(line + b"\r\nNOO"), SendClient)
            assert said.count(b"\r\n") == (5 if line.startswith(b"EHLO") else 1), line
            assert sent(session.client_data(b"P\r\n"), SendClient) == [b"250 2.0.0 OK\r\n"]

    def test_a_group_of_backend_replies_passes_at_once(self) -> None:
        """2920-07: nor do the backend's replies wait, one by one or several in a piece."""
        stage = play_once(terms(), MODERN)
        actions = stage.session.client_data(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nRSET\r\n")
        assert len(sent(actions, SendBackend)) == 1
        assert sent(stage.session.backend_data(b"250 1\r\n"), SendClient) == [b"250 1\r\n"]
        assert sent(stage.session.backend_data(b"250 2\r\n250 3\r\n"), SendClient) == [b"250 2\r\n250 3\r\n"]

    def test_nothing_is_assumed_of_what_comes(self) -> None:
        """2920-08: a group that ends in DATA may go on with commands, if the backend refuses DATA."""
        play(
            terms(),
            """
            client  > DATA
            client  > RSET
            backend < DATA
            backend > 503 no recipients
            backend < RSET
            client  < 503 no recipients
            backend > 250 ok
            client  < 250 ok
            """,
            after=MODERN,
        )

    def test_no_recipients_and_an_empty_message(self) -> None:
        """2920-04: what a backend does with an empty message that goes to nobody is in its own words."""
        play(
            terms(),
            """
            client  > DATA
            backend < DATA
            backend > 354 go on
            client  < 354 go on
            client  > .
            backend < .
            backend > 554 no valid recipients
            client  < 554 no valid recipients
            """,
            after=MODERN,
        )


class TestChunking:
    def test_data_beside_chunks(self) -> None:
        """3030-01: where BDAT is offered, DATA works all the same."""
        play(
            terms(),
            """
            client  > Subject: x
            client  > .
            backend < Subject: x
            backend < .
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )

    def test_a_chunk_behind_the_last(self) -> None:
        """3030-02: the backend's 503 is the client's, and the octets of that chunk are no commands."""
        play(
            terms(),
            r"""
            client  >> BDAT 1 LAST\r\naBDAT 6\r\nRSET\r\nNOOP\r\n
            backend << BDAT 1 LAST\r\naBDAT 6\r\nRSET\r\nNOOP\r\n
            backend > 250 queued
            backend > 503 no transaction
            backend > 250 ok
            client  < 250 queued
            client  < 503 no transaction
            client  < 250 ok
            """,
            after=MODERN + TRANSACTION,
        )

    def test_data_where_it_must_not_be(self) -> None:
        """3030-05: DATA behind a BDAT, or for a BINARYMIME body, is the backend's to refuse."""
        relayed("DATA", "503 use BDAT", after=MODERN + TRANSACTION)

    def test_a_chunk_that_the_backend_refuses(self) -> None:
        """3030-04, 3030-06: its octets went on, those of the next too, and each BDAT has its own answer until RSET."""
        play(
            terms(),
            r"""
            client  >> BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nNOOP\r\nRSET\r\n
            backend << BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nNOOP\r\nRSET\r\n
            backend > 452 no space
            backend > 503 RSET is needed
            backend > 250 ok
            client  < 452 no space
            client  < 503 RSET is needed
            client  < 250 ok
            """,
            after=MODERN + TRANSACTION,
        )


class TestAuthentication:
    def test_twice_or_in_a_transaction(self) -> None:
        """4954-01: whether AUTH may come now is the backend's to say."""
        relayed("AUTH PLAIN AGEAYg==", "503 5.5.1 already authenticated")
        relayed("AUTH PLAIN AGEAYg==", "503 5.5.1 not in a transaction", after=MODERN + TRANSACTION)

    def test_three_attempts(self) -> None:
        """4954-08: attempts that the backend refuses do not make the gate close the session."""
        stage = play_once(terms(), MODERN)
        for _ in range(200):
            stage.client(b"AUTH PLAIN AGEAYg==\r\n").backend(b"535 5.7.8 no\r\n")
        assert stage.replies[-1].code == 535
        assert not stage.closed

    def test_the_codes(self) -> None:
        """4954-07: the gate's own refusals of AUTH have the codes of section 6."""
        assert replies.ENCRYPTION_REQUIRED_FOR_AUTH.encode().startswith(b"538 5.7.11 ")
        assert replies.SASL_LINE_TOO_LONG.encode().startswith(b"500 5.5.6 ")
        for answer in ("535 5.7.8 wrong", "534 5.7.9 too weak", "432 4.7.12 change it", "454 4.7.0 not now"):
            relayed("AUTH PLAIN AGEAYg==", answer)

    def test_the_same_words_for_any_password(self) -> None:
        """8314-09: in plaintext, right and wrong credentials are refused alike, and the backend hears of neither."""
        stage = play_once(terms("offered"), OFFERED_EHLO)
        heard = stage.backends[-1]
        stage.client(b"AUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGEAYw==\r\nAUTH LOGIN\r\n")
        assert len({reply.raw for reply in stage.replies[-3:]}) == 1
        assert stage.backends[-1] == heard

    def test_the_parameter_of_mail(self) -> None:
        """4954-09: AUTH= in a MAIL command passes unchanged."""
        relayed("MAIL FROM:<e=mc2@example.com> AUTH=e+3Dmc2@example.com", "250 ok")

    def test_a_security_layer(self) -> None:
        """4954-06: octets of a SASL security layer are no commands: each line is refused, and none is passed on."""
        stage = play_once(terms(), MODERN).client(b"AUTH GSSAPI YWJj\r\n").backend(b"235 welcome\r\n")
        heard = stage.backends[-1]
        stage.client(b"\x00\x00\x00\x12MAIL FROM:<a@b>\r\n\x00\x00\x00\x06QUIT\r\n")
        assert [reply.code for reply in stage.replies[-2:]] == [500, 500]
        assert stage.backends[-1] == heard

    def test_submission_without_authentication(self) -> None:
        """6409-01: the backend's refusal of an unauthenticated MAIL is the client's."""
        relayed("MAIL FROM:<a@example.org>", "530 5.7.0 Authentication required")


class TestOtherExtensions:
    def test_etrn(self) -> None:
        """6409-02: ETRN is relayed; whether it is taken on this port is for the backend to say."""
        relayed("ETRN example.org", "502 5.5.1 not here")

    def test_size_says_nothing_of_where_a_message_ends(self) -> None:
        """1870-01: the declared size is the backend's business; the message ends where its mark is."""
        play(
            terms(),
            """
            client  > MAIL FROM:<a@example.org> SIZE=1
            client  > DATA
            client  > more than one octet
            client  > .
            backend < MAIL FROM:<a@example.org> SIZE=1
            backend < DATA
            backend > 250 ok
            backend > 354 go on
            client  < 250 ok
            client  < 354 go on
            backend < more than one octet
            backend < .
            backend > 552 too big
            client  < 552 too big
            """,
            after=MODERN,
        )

    def test_delivery_status_notifications(self) -> None:
        """3461-01: the parameters of DSN pass unchanged, however long ORCPT is."""
        relayed("MAIL FROM:<a@example.org> RET=HDRS ENVID=QQ314159", "250 ok")
        recipient = "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;"
        relayed(f"{recipient}Bob+2Bx@example.org", "250 ok", after=MODERN + TRANSACTION)
        long = f"{recipient}{'b' * 500}@example.org\r\n".encode()
        assert play_once(terms(), MODERN + TRANSACTION).client(long).backends[-1].endswith(long)

    def test_limits(self) -> None:
        """9422-01: the LIMITS keyword passes as it is: the gate's own bounds are wider than any of its values."""
        play(
            terms(),
            """
            client  > EHLO client.example
            backend < EHLO client.example
            backend > 250-backend.example.org
            backend > 250 LIMITS MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=5 ODD=x
            client  < 250-backend.example.org
            client  < 250 LIMITS MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=5 ODD=x
            """,
            after=INSIDE,
        )

    def test_require_tls_inside_tls_only(self) -> None:
        """8689-01: over a verified way onward REQUIRETLS is shown, but not to a client in plaintext."""
        stage = play_once(terms("offered", requiretls=True), OFFERED)
        stage.client(b"EHLO a\r\n").backend(b"250-backend.example.org\r\n250 REQUIRETLS\r\n")
        assert stage.replies[-1].raw == b"250-backend.example.org\r\n250 STARTTLS\r\n"
        stage.client(b"STARTTLS\r\n").handshake(TLS13).backend(b"220 backend.example.org\r\n")
        stage.client(b"EHLO a\r\n").backend(b"250-backend.example.org\r\n250 REQUIRETLS\r\n")
        assert stage.replies[-1].raw == b"250-backend.example.org\r\n250 REQUIRETLS\r\n"

    def test_require_tls_that_was_not_offered(self) -> None:
        """8689-02, 8689-03: such a MAIL is the backend's to refuse, in its own words and codes."""
        relayed("MAIL FROM:<a@example.org> REQUIRETLS", "555 5.5.4 unknown parameter")
        relayed("MAIL FROM:<a@example.org> REQUIRETLS", "550 5.7.30 REQUIRETLS support required")

    def test_the_header_tls_required(self) -> None:
        """8689-04: "TLS-Required: No" in a message opens nothing: the gate does not look into messages."""
        play(
            terms(),
            """
            client  > TLS-Required: No
            client  >
            client  > .
            backend < TLS-Required: No
            backend <
            backend < .
            backend > 250 queued
            client  < 250 queued
            """,
            after=MODERN + DATA,
        )
        assert play_once(terms(), GREETED).client(b"TLS-Required: No\r\n").replies[-1].code == 530


class TestCodes:
    def test_a_reply_of_ours_is_one_line(self) -> None:
        """2034-03: the code is the same on every line of a reply; ours have one line, and the code stands in it once."""
        for reply in catalogue():
            assert reply.encode().count(b"\r\n") == 1, reply
            assert reply.encode().count(reply.enhanced.encode()) == 1, reply

    def test_codes_do_not_wait_for_ehlo(self) -> None:
        """2034-04: whether or not the client has said EHLO, our replies carry their codes."""
        stage = play_once(terms("strong"), GREETED).client(b"RSET\r\n")
        assert stage.replies[-1].raw.startswith(b"530 5.7.0 ")
        stage = play_once(terms("strong"), STARTED).handshake(TLS12_CBC).client(b"RSET\r\n")
        assert stage.replies[-1].raw.startswith(b"554 5.7.0 ")

    def test_the_keyword_is_the_backends(self) -> None:
        """2034-05: ENHANCEDSTATUSCODES is offered if the backend does so; our own codes are given in any case."""
        assert b"ENHANCEDSTATUSCODES" not in play_once(terms(), OLD).said.partition(b"backend.example.org\r\n")[2]
        assert play_once(terms(), OLD).client(b"XCLIENT a\r\n").replies[-1].raw.startswith(b"502 5.5.1 ")

    def test_no_code_of_a_host_without_mail(self) -> None:
        """7504-01: 521 and 556 say that a host takes no mail at all; no policy of ours says so."""
        assert {reply.code for reply in catalogue()}.isdisjoint({521, 556})

    def test_the_class_of_a_text(self) -> None:
        """3463-01: a text that says "later" or "for now" never stands behind a code that is for good."""
        for reply in catalogue():
            assert ("later" in reply.text or "for now" in reply.text) <= (reply.code < 500), reply


def test_tls_only_is_possible() -> None:
    """9325-12: at such a level nothing goes on in plaintext, and with implicit TLS nothing is even said in it."""
    for level in ("required", "strong", "verified"):
        plaintext = play_once(terms(level), GREETED).client(b"EHLO c\r\nMAIL FROM:<a@example.org>\r\n")
        assert plaintext.replies[-1].code == 530
        assert plaintext.backends == []
        implicit = Stage(terms(level, implicit=True)).client(b"EHLO c\r\n")
        assert implicit.backends == [b""], "dialled, and told nothing"
        assert implicit.closed


def opened() -> Session:
    """
    Return a session at level required that has just greeted.
    """
    session = Session(terms())
    assert sent(session.opened(), SendClient) == [f"220 {HOSTNAME} ESMTP\r\n".encode()]
    return session


def sent(actions: list[Action], to: type[SendClient | SendBackend]) -> list[bytes]:
    """
    Return what *actions* send to one side, piece by piece.
    """
    return [action.data for action in actions if isinstance(action, to)]


def catalogue() -> list[Reply]:
    """
    Return every reply of the gate's own.
    """
    return [value for value in vars(replies).values() if isinstance(value, Reply)]


def test_tls_is_what_it_was() -> None:
    """The beginning that the tests above rest on."""
    assert play_once(terms(), STARTED + TLS).tls == TLS13
