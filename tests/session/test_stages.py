"""
Rules for senders, recipients and names, decided at the command that makes the fact known, and refused there alone.
"""

from datetime import date
from typing import Any

import pytest
from attrs import evolve

from tests.policy.samples import TLS12_CBC
from tests.session.preludes import MODERN, OFFERED, OFFERED_EHLO, STARTED, TLS, TRANSACTION, WEAK_TLS
from tests.support.dialogue import play, play_once
from tests.support.stage import terms
from tlsgate.policy.level import BUILT_IN, Level
from tlsgate.policy.ramp import Ramp
from tlsgate.policy.rules import ANY_LISTENER, Rule, Rulebook
from tlsgate.session.state import Terms

STRONG, REQUIRED, OFFERED_LEVEL = BUILT_IN["strong"], BUILT_IN["required"], BUILT_IN["offered"]
DEFERRING = evolve(STRONG, name="deferring", enforcement=Ramp(date(2020, 1, 1)))
REJECTING = evolve(STRONG, name="rejecting", enforcement=Ramp(date(2020, 1, 1), 25, date(2021, 1, 1)))
AUDITED = evolve(STRONG, name="audited", enforcement=False)


def ruled(*rules: Rule, level: Level = OFFERED_LEVEL, **changes: Any) -> Terms:
    """
    Return the terms of a session under *rules*, and *level* where none matches.
    """
    return terms(rulebook=Rulebook(rules, {ANY_LISTENER: level}), **changes)


class TestRecipients:
    def test_one_of_three(self) -> None:
        """3207-23: in one group, in plaintext, the recipient that needs TLS gets 530, the others their own answers."""
        play(
            ruled(Rule(STRONG, recipients=["clinic.example"])),
            """
            client  > MAIL FROM:<a@example.org>
            client  > RCPT TO:<one@example.org>
            client  > RCPT TO:<two@clinic.example>
            client  > RCPT TO:<three@example.org>
            client  > DATA
            backend < MAIL FROM:<a@example.org>
            backend < RCPT TO:<one@example.org>
            backend < RCPT TO:<three@example.org>
            backend < DATA
            backend > 250 sender
            backend > 250 one
            backend > 250 three
            backend > 354 go
            client  < 250 sender
            client  < 250 one
            client  < 530 5.7.0 Must issue a STARTTLS command first
            client  < 250 three
            client  < 354 go
            """,
            after=OFFERED_EHLO,
        )

    def test_weak_tls(self) -> None:
        """3207-23, 3207-12: over a TLS that is not enough for it, the recipient alone is refused, with the reason."""
        play(
            ruled(Rule(STRONG, recipients=["clinic.example"]), level=REQUIRED),
            """
            client  > MAIL FROM:<a@example.org>
            client  > RCPT TO:<two@clinic.example>
            client  > RCPT TO:<three@example.org>
            backend < MAIL FROM:<a@example.org>
            backend < RCPT TO:<three@example.org>
            backend > 250 sender
            backend > 250 three
            client  < 250 sender
            client  < 554 5.7.0 Command refused due to lack of security: ...
            client  < 250 three
            """,
            after=MODERN.replace(TLS, WEAK_TLS),
        )

    def test_good_tls(self) -> None:
        """Over good TLS it is not refused."""
        play(
            ruled(Rule(STRONG, recipients=["clinic.example"]), level=REQUIRED),
            """
            client  > RCPT TO:<two@clinic.example>
            backend < RCPT TO:<two@clinic.example>
            backend > 503 MAIL first
            client  < 503 MAIL first
            """,
            after=MODERN,
        )

    def test_a_path_that_cannot_be_read(self) -> None:
        """Where recipients matter, one that we and the backend might read differently is refused."""
        play(
            ruled(Rule(STRONG, recipients=["clinic.example"])),
            """
            client  > RCPT TO:<two@clinic.example
            client  < 501 5.5.4 Syntax error in the address
            """,
            after=OFFERED_EHLO,
        )

    def test_a_ramp(self) -> None:
        """In the 4yz stage of a ramp the recipient is refused for now."""
        play(
            ruled(Rule(DEFERRING, recipients=["clinic.example"])),
            """
            client  > RCPT TO:<two@clinic.example>
            client  < 450 4.7.0 ...
            """,
            after=OFFERED_EHLO,
        )

    def test_the_end_of_a_ramp(self) -> None:
        """From the second date on it is refused for good: 530 in plaintext, 554 where TLS is not enough."""
        terms = ruled(Rule(REJECTING, recipients=["clinic.example"]))
        play(
            terms,
            """
            client  > RCPT TO:<two@clinic.example>
            client  < 530 5.7.0 Must issue a STARTTLS command first
            """,
            after=OFFERED_EHLO,
        )
        weak = play_once(terms, OFFERED_EHLO).client(b"STARTTLS\r\n").handshake(TLS12_CBC).backend(b"220 backend\r\n")
        assert weak.client(b"RCPT TO:<two@clinic.example>\r\n").replies[-1].raw.startswith(b"554 5.7.0 ")

    def test_an_audit(self) -> None:
        """An audited level refuses nobody, and writes down whom it would have refused."""
        stage = play_once(
            ruled(Rule(AUDITED, recipients=["clinic.example"])),
            """
            client  > RCPT TO:<two@clinic.example>
            backend < RCPT TO:<two@clinic.example>
            """,
            after=OFFERED_EHLO,
        )
        (record,) = [record for record in stage.records if record.fields.get("stage") == "recipient"]
        assert record.fields["outcome"] == "would_refuse"


class TestSenders:
    def test_a_sender_that_needs_tls(self) -> None:
        """3207-23: that MAIL is refused, and it alone."""
        play(
            ruled(Rule(STRONG, senders=["partner.example"])),
            """
            client  > MAIL FROM:<a@partner.example>
            client  > RSET
            client  > MAIL FROM:<a@example.org>
            client  < 530 5.7.0 Must issue a STARTTLS command first
            backend < RSET
            backend > 250 reset
            client  < 250 reset
            backend < MAIL FROM:<a@example.org>
            backend > 250 sender
            client  < 250 sender
            """,
            after=OFFERED_EHLO,
        )

    def test_a_path_that_cannot_be_read(self) -> None:
        """Where senders matter, one that we and the backend might read differently is refused."""
        play(
            ruled(Rule(STRONG, senders=["partner.example"])),
            """
            client  > MAIL FROM:<a@partner.example
            client  < 501 5.5.4 Syntax error in the address
            """,
            after=OFFERED_EHLO,
        )

    def test_a_sender_that_the_backend_refused(self) -> None:
        """A nested MAIL that the backend refuses leaves the sender of the transaction as it is: rules look at that one."""
        play(
            ruled(Rule(STRONG, senders=["partner.example"], recipients=["clinic.example"])),
            """
            client  > MAIL FROM:<a@partner.example>
            client  > MAIL FROM:<b@example.org>
            client  > RCPT TO:<c@clinic.example>
            backend < MAIL FROM:<a@partner.example>
            backend > 250 partner
            client  < 250 partner
            backend < MAIL FROM:<b@example.org>
            backend > 503 nested
            client  < 503 nested
            client  < 530 5.7.0 Must issue a STARTTLS command first
            """,
            after=OFFERED_EHLO,
        )

    @pytest.mark.parametrize(("sender", "code"), [("b@never.example", "530 5.7.0"), ("b%x@example.org", "501 5.5.4")])
    def test_a_nested_sender_that_we_refused(self, sender: str, code: str) -> None:
        """A nested MAIL that we refuse leaves the sender of the transaction as it is, too, whatever it is refused for."""
        play(
            ruled(
                Rule(STRONG, senders=["partner.example"], recipients=["clinic.example"]),
                Rule(STRONG, senders=["never.example"]),
            ),
            f"""
            client  > MAIL FROM:<{sender}>
            client  < {code} ...
            client  > RCPT TO:<c@clinic.example>
            client  < 530 5.7.0 ...
            """,
            after=OFFERED_EHLO
            + """
            client  > MAIL FROM:<a@partner.example>
            backend < MAIL FROM:<a@partner.example>
            backend > 250 ok
            client  < 250 ok
            """,
        )

    def test_senders_are_judged_in_turn(self) -> None:
        """A MAIL behind one that is not answered yet waits: nobody knows yet whose recipients will follow."""
        play(
            ruled(Rule(STRONG, senders=["partner.example"], recipients=["clinic.example"])),
            """
            client  > MAIL FROM:<a@example.org>
            client  > RSET
            client  > MAIL FROM:<a@partner.example>
            client  > RCPT TO:<c@clinic.example>
            backend < MAIL FROM:<a@example.org>
            backend < RSET
            backend > 250 one
            client  < 250 one
            backend > 250 reset
            client  < 250 reset
            backend < MAIL FROM:<a@partner.example>
            backend > 250 two
            client  < 250 two
            client  < 530 5.7.0 ...
            """,
            after=OFFERED_EHLO,
        )


class TestNames:
    def test_a_name_that_demands_tls(self) -> None:
        """Whoever gives the name has to start TLS; the backend that was dialled is hung up."""
        play(
            ruled(Rule(REQUIRED, helos=["partner.example"])),
            """
            client  > EHLO partner.example
            client  < 250-mx.example.org
            client  < 250-ENHANCEDSTATUSCODES
            client  < 250-8BITMIME
            client  < 250-SMTPUTF8
            client  < 250 STARTTLS
            hangup
            client  > MAIL FROM:<a@example.org>
            client  < 530 5.7.0 Must issue a STARTTLS command first
            """,
            after=OFFERED,
        )

    def test_another_name_after_it(self) -> None:
        """A client that gives another name is judged by that, and a backend is dialled for it."""
        play(
            ruled(Rule(REQUIRED, helos=["partner.example"])),
            """
            client  > EHLO elsewhere.example
            client  > NOOP
            dial
            backend > 220 backend.example.org
            backend < EHLO elsewhere.example
            backend > 250 backend.example.org
            client  < 250-backend.example.org
            client  < 250 STARTTLS
            backend < NOOP
            backend > 250 ok
            client  < 250 ok
            """,
            after=OFFERED
            + """
            client  > HELO partner.example
            client  < 530 Must issue a STARTTLS command first
            hangup
            """,
        )

    def test_another_name_and_no_backend(self) -> None:
        """If there is none, the EHLO is answered so."""
        play(
            ruled(Rule(REQUIRED, helos=["partner.example"])),
            """
            client  > EHLO elsewhere.example
            dial
            backend lost
            client  < 451 The mail server cannot be reached, try again later
            client  > QUIT
            client  < 221 2.0.0 ...
            close
            """,
            after=OFFERED
            + """
            client  > HELO partner.example
            client  < 530 Must issue a STARTTLS command first
            hangup
            """,
        )

    def test_a_name_that_demands_better_tls(self) -> None:
        """Inside TLS, a name may bring a level that is not met: 554 from then on."""
        play(
            ruled(Rule(STRONG, helos=["partner.example"])),
            """
            client  > EHLO partner.example
            client  < 554 Command refused due to lack of security: ...
            hangup
            client  > NOOP
            client  < 554 5.7.0 ...
            """,
            after=OFFERED
            + f"""
            client > STARTTLS
            client < 220 2.0.0 Ready to start TLS
            starttls
            hangup
            dial
            {WEAK_TLS}
            backend > 220 backend.example.org
            """,
        )


class TestRamp:
    def test_no_tls_for_now(self) -> None:
        """In the 4yz stage plaintext mail gets 421 and a close, not 530."""
        play(
            terms(DEFERRING),
            """
            client  > NOOP
            client  > MAIL FROM:<a@example.org>
            client  > NOOP
            client  < 250 2.0.0 OK
            client  < 421 4.7.0 ...
            close
            """,
            after="client < 220 mx.example.org ESMTP\n",
        )

    def test_weak_tls_for_now(self) -> None:
        """The same for a TLS that is not enough: the first command is the last."""
        play(
            terms(DEFERRING),
            """
            client  > EHLO client.example
            client  < 421 Security too low, refused for now
            close
            """,
            after=STARTED + WEAK_TLS + "\ndrop\n",
        )

    def test_weak_implicit_tls_for_now(self) -> None:
        """With implicit TLS the 421 is the greeting."""
        stage = play_once(terms(DEFERRING, implicit=True), "dial\n").handshake(TLS12_CBC)
        assert [reply.code for reply in stage.replies] == [421]
        assert stage.closed

    def test_an_audit(self) -> None:
        """`enforce = false`: no reply differs, and the verdict is written down."""
        stage = play_once(terms(AUDITED), OFFERED_EHLO)
        stage.client(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n").backend(b"250 a\r\n250 b\r\n")
        (record,) = [record for record in stage.records if record.event == "verdict"]
        assert (record.fields["stage"], record.fields["outcome"]) == ("plaintext", "would_refuse")

    def test_mail_that_an_audit_lets_through(self) -> None:
        """The journal says of the mail itself that it would have been refused."""
        stage = play_once(terms(AUDITED), OFFERED_EHLO + TRANSACTION)
        stage.client(b"BDAT 1 LAST\r\na").backend(b"250 queued\r\n")
        (record,) = [record for record in stage.records if record.event == "transaction"]
        told = {key: record.fields[key] for key in ("outcome", "level", "verdict", "tls")}
        assert told == {"outcome": "delivered", "level": "audited", "verdict": "would_refuse", "tls": None}


class TestRecipientsWithoutDomain:
    """A server puts them into a domain of its own, which a rule may be about: so they are not taken at its listener."""

    def test_all_but_the_postmaster(self) -> None:
        """Fail closed: whose domain it will be is not known here."""
        rule = Rule(BUILT_IN["required"], recipients=["clinic.example"])
        stage = play_once(
            terms("offered", rulebook=Rulebook([rule], {ANY_LISTENER: BUILT_IN["offered"]})),
            OFFERED_EHLO
            + "client > MAIL FROM:<a@example.org>\nbackend < MAIL FROM:<a@example.org>\nbackend > 250 ok\nclient < 250 ok\n",
        )
        stage.client(b"RCPT TO:<dr>\r\n")
        assert stage.replies[-1].raw.startswith(b"501 5.5.4 ")
        stage.client(b"RCPT TO:<PostMaster>\r\n")
        assert stage.backends[-1].endswith(b"RCPT TO:<PostMaster>\r\n")

    def test_where_no_rule_looks_they_are_the_backends_to_judge(self) -> None:
        """Transparent: without a rule on recipients they go on as they came."""
        stage = play_once(
            terms("offered"),
            OFFERED_EHLO
            + "client > MAIL FROM:<a@example.org>\nbackend < MAIL FROM:<a@example.org>\nbackend > 250 ok\nclient < 250 ok\n",
        )
        stage.client(b"RCPT TO:<dr>\r\n")
        assert stage.backends[-1].endswith(b"RCPT TO:<dr>\r\n")


AMBIGUOUS = [
    "a@[3221225985]",
    "a@[192.000.002.001]",
    "a@[0xC0.0.2.1]",
    "a@[IPv6:thing]",
    "a@[tag:192.0.2.1]",
    "a@clinic\u200d.example",
    "a@" + "\xad" * 256 + "clinic.example",
    "a@\U0001f600.example",
    "a@clinic..example",
    "a@.clinic.example",
    "a@.",
]


class TestAmbiguousDomains:
    """
    Gate and backend must read the same domain, or a rule is evaded by spelling: literals in octal and hexadecimal, what is
    no name in any script, empty labels.
    """

    @pytest.mark.parametrize("mailbox", AMBIGUOUS, ids=ascii)
    def test_no_recipient(self, mailbox: str) -> None:
        """Where recipients matter."""
        rule = Rule(STRONG, recipients=["clinic.example", "[192.0.2.1]"])
        stage = play_once(ruled(rule), OFFERED_EHLO).client(f"RCPT TO:<{mailbox}>\r\n".encode())
        assert stage.replies[-1].raw.startswith(b"501 5.5.4 ")

    @pytest.mark.parametrize("mailbox", [*AMBIGUOUS, "teller", "postmaster"], ids=ascii)
    def test_no_sender(self, mailbox: str) -> None:
        """Where senders matter; and nobody sends without a domain but the null sender."""
        rule = Rule(STRONG, senders=["clinic.example", "[192.0.2.1]"])
        stage = play_once(ruled(rule), OFFERED_EHLO).client(f"MAIL FROM:<{mailbox}>\r\n".encode())
        assert stage.replies[-1].raw.startswith(b"501 5.5.4 ")

    @pytest.mark.parametrize("mailbox", ["", "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@ß.example", "a@x_y.example."])
    def test_the_others_pass(self, mailbox: str) -> None:
        """What is read alike goes on."""
        rule = Rule(STRONG, senders=["clinic.example"])
        stage = play_once(ruled(rule), OFFERED_EHLO).client(f"MAIL FROM:<{mailbox}>\r\n".encode())
        assert stage.backends[-1].endswith(f"MAIL FROM:<{mailbox}>\r\n".encode())

    def test_where_no_rule_looks_they_are_the_backends_to_judge(self) -> None:
        """Transparent: without a rule they go on as they came."""
        for mailbox in AMBIGUOUS:
            stage = play_once(terms("offered"), OFFERED_EHLO).client(f"MAIL FROM:<{mailbox}>\r\n".encode())
            assert stage.backends[-1].endswith(f"MAIL FROM:<{mailbox}>\r\n".encode())
