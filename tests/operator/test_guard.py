"""
The open-relay guard: what it asks, what it makes of the answers, and that nothing a backend does holds it up.
"""

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from attrs import define, field, frozen

from tests.operator.scripted import POLITE, ScriptedServer, running
from tests.support.certificates import Authority
from tlsgate.config import Backend, parse
from tlsgate.operator.guard import Answer, Finding, Outcome, ask, gravest, guard, question
from tlsgate.operator.wire import CallError, Deadline, SocketWire
from tlsgate.smtp.reply import BackendReply

RELAYING = {b"RCPT": b"250 2.1.5 Ok\r\n"}
NAME = "gate.example"
SOON_SECONDS = 1.0


@define
class Script:
    """
    A server in one function: the first rule whose beginning fits answers; `None` hangs up.
    """

    rules: Mapping[bytes, bytes | None]
    heard: list[bytes] = field(factory=list)

    def __call__(self, command: bytes) -> BackendReply:
        self.heard.append(command)
        for beginning, reply in self.rules.items():
            if command.startswith(beginning):
                if reply is None:
                    raise CallError("closed the connection")
                return BackendReply(int(reply[:3]), reply + b"\r\n")
        raise AssertionError(command)


def script(**replies: str | None) -> Script:
    """
    Return a script by verbs; what is not named is accepted, but for RCPT.
    """
    rules = {verb.encode(): None if reply is None else reply.encode() for verb, reply in replies.items()}
    return Script({**rules, b"MAIL": b"250 ok", b"RSET": b"250 ok", b"RCPT": b"554 5.7.1 Relay access denied"} | rules)


class TestQuestion:
    @pytest.mark.parametrize("reply", ["250 2.1.5 Ok", "251 will forward", "252 cannot verify", "250-a\r\n250 b"])
    def test_any_positive_reply_to_rcpt_means_that_it_relays(self, reply: str) -> None:
        told = question(script(RCPT=reply))
        assert told.outcome is Outcome.RELAYS
        assert told.evidence.startswith("RCPT TO:<relay-check@example.com> got 25")

    @pytest.mark.parametrize(
        "reply",
        [
            "554 5.7.1 <relay-check@example.com>: Relay access denied",  # Postfix
            "454 4.7.1 <relay-check@example.com>: Relay access denied",  # Postfix as it comes
            "550 relay not permitted",  # Exim
            "550 5.7.1 <relay-check@example.com>... Relaying denied",  # Sendmail
            "550 Invalid recipient: <relay-check@example.com>",  # OpenSMTPD
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",  # qmail
            "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",  # Exchange
            "550 5.7.1 Unable to relay",  # Exchange 2003 to 2013
            "554 Relay rejected for policy reasons.",  # Domino
            "550 5.1.2 Relay not allowed.",  # Stalwart
            "513 Relaying denied.",  # Courier
            "530 5.7.0 Authentication required",
            "550-no\r\n550 such thing",
        ],
    )
    def test_the_refusals_of_servers_are_known(self, reply: str) -> None:
        asked = script(RCPT=reply)
        assert question(asked).outcome is Outcome.REFUSES
        assert asked.heard == [
            b"MAIL FROM:<>",
            b"RCPT TO:<relay-check@example.com>",
            b"RSET",
            b"MAIL FROM:<relay-check@example.net>",
            b"RCPT TO:<relay-check@example.com>",
            b"RSET",
        ]

    @pytest.mark.parametrize(
        "reply",
        [
            "450 4.2.0 Greylisted, try again later",
            "451 4.7.1 Greylisting in action",
            "450 4.1.2 <relay-check@example.com>: Recipient address rejected: Domain not found",
            "450 4.2.0 RELAY-CHECK is greylisted",
            "556 5.1.10 Recipient address rejected: Domain example.com does not accept mail (nullMX)",
            "550 5.1.8 Sender address rejected: Domain not found",
            "550 5.7.27 Sender address rejected: Domain example.net does not accept mail (nullMX)",
            "501 5.1.3 Bad address syntax",
            "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname",
            "452 4.3.1 Insufficient system storage",
        ],
    )
    def test_a_refusal_for_another_reason_is_no_answer(self, reply: str) -> None:
        told = question(script(RCPT=reply))
        assert told.outcome is Outcome.UNCLEAR
        assert reply in told.evidence

    def test_a_server_that_looks_up_the_domain_first_is_asked_with_an_address(self) -> None:
        """
        Postfix with reject_unknown_recipient_domain before permit_mynetworks refuses example.com, and relays all else.
        """
        asked = script(**{"RCPT TO:<relay-check@[192.0.2.1]>": "250 ok", "RCPT": "556 5.1.10 nullMX"})
        assert question(asked).outcome is Outcome.RELAYS
        assert asked.heard[-3:] == [
            b"MAIL FROM:<relay-check@example.net>",
            b"RCPT TO:<relay-check@[192.0.2.1]>",
            b"RSET",
        ]

    def test_one_sender_that_is_not_taken_does_not_hide_that_another_is_relayed(self) -> None:
        sender = ""

        def say(command: bytes) -> BackendReply:
            nonlocal sender
            sender = command.decode() if command.startswith(b"MAIL") else sender
            refused = command.startswith(b"RCPT") and "<>" in sender
            return BackendReply(550, b"550 5.7.1 no bounces\r\n") if refused else BackendReply(250, b"250 ok\r\n")

        assert question(say).outcome is Outcome.RELAYS

    def test_a_null_sender_refused_at_mail_does_not_end_the_questions(self) -> None:
        asked = script(**{"MAIL FROM:<>": "550 no bounces", "RCPT": "250 ok"})
        assert question(asked).outcome is Outcome.RELAYS

    def test_authentication_demanded_at_mail_is_a_refusal(self) -> None:
        told = question(script(MAIL="530 5.7.0 Authentication required"))
        assert told == Answer(Outcome.REFUSES, "MAIL FROM:<> got 530 5.7.0 Authentication required")

    def test_no_sender_taken_is_unclear(self) -> None:
        assert question(script(MAIL="550 5.1.8 who?")).outcome is Outcome.UNCLEAR

    @pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
    def test_a_server_that_hangs_up_is_unclear(self, verb: str) -> None:
        told = question(script(**{verb: None}))
        assert told.outcome is Outcome.UNCLEAR
        assert "closed the connection" in told.evidence

    def test_a_server_that_hangs_up_after_it_has_said_yes_relays(self) -> None:
        assert question(script(RCPT="250 ok", RSET=None)).outcome is Outcome.RELAYS

    def test_it_never_gets_as_far_as_a_message(self) -> None:
        for reply in ("250 ok", "554 no", "450 later", "556 null"):
            asked = script(RCPT=reply)
            question(asked)
            assert {command.split(b" ")[0] for command in asked.heard} == {b"MAIL", b"RCPT", b"RSET"}
            rcpts = [number for number, command in enumerate(asked.heard) if command.startswith(b"RCPT")]
            assert all(asked.heard[number + 1] == b"RSET" for number in rcpts)

    def test_what_a_server_says_is_shown_as_one_harmless_line(self) -> None:
        told = question(script(RCPT="250 \x1b[2J\xff" + "x" * 400))
        assert told.evidence.isascii()
        assert told.evidence.isprintable()
        assert len(told.evidence) < 300


def test_the_gravest_answer_counts() -> None:
    answers = {outcome: Answer(outcome, "") for outcome in Outcome}
    assert gravest(answers.values()).outcome is Outcome.RELAYS
    assert gravest([answers[Outcome.UNREACHABLE], answers[Outcome.REFUSES]]).outcome is Outcome.REFUSES
    assert gravest([answers[Outcome.REFUSES], answers[Outcome.UNCLEAR]]).outcome is Outcome.UNCLEAR


def asked(server: ScriptedServer, timeout_seconds: float = 10.0, **more: object) -> Answer:
    return ask(server.endpoint, Backend(endpoints=(server.endpoint,), **more), NAME, timeout_seconds)  # type: ignore[arg-type]


class TestOverSockets:
    def test_a_relay_is_found(self) -> None:
        with running(RELAYING) as server:
            told = asked(server)
        assert told.outcome is Outcome.RELAYS
        assert server.heard == [
            b"EHLO gate.example",
            b"MAIL FROM:<>",
            b"RCPT TO:<relay-check@example.com>",
            b"RSET",
            b"QUIT",
        ]

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_a_refusal_is_told_with_the_reply(self, host: str) -> None:
        with running(host=host) as server:
            told = asked(server)
        assert told == Answer(Outcome.REFUSES, "RCPT TO:<relay-check@example.com> got 554 5.7.1 Relay access denied")

    def test_a_unix_socket(self, tmp_path: Path) -> None:
        with running(RELAYING, path=tmp_path / "smtp") as server:
            assert asked(server).outcome is Outcome.RELAYS

    def test_a_server_that_knows_only_helo(self) -> None:
        with running({**RELAYING, b"EHLO": b"500 What?\r\n"}) as server:
            assert asked(server).outcome is Outcome.RELAYS
        assert server.heard[:2] == [b"EHLO gate.example", b"HELO gate.example"]

    def test_it_comes_from_the_address_that_the_gate_will_come_from(self) -> None:
        """
        A server that trusts 127.0.0.9 alone relays for a gate that is bound to it.
        """
        with running() as server:
            endpoint = f"{server.endpoint}:bindAddress=127.0.0.9"
            assert ask(endpoint, Backend(endpoints=(endpoint,)), NAME, 10).outcome is Outcome.REFUSES
            endpoint = f"{server.endpoint}:bindAddress=192.0.2.1"
            assert ask(endpoint, Backend(endpoints=(endpoint,)), NAME, 10).outcome is Outcome.UNREACHABLE
        assert server.callers == ["127.0.0.9"]

    def test_every_address_of_a_name_is_asked(self) -> None:
        with running(host="127.0.0.1") as server:
            port = server.endpoint.rpartition(":")[2]
            endpoint = f"tcp:localhost:{port}"
            assert ask(endpoint, Backend(endpoints=(endpoint,)), NAME, 10).outcome is Outcome.REFUSES

    def test_a_name_without_an_address_is_said_so(self) -> None:
        told = ask("tcp:nowhere.invalid:25", Backend(endpoints=("tcp:nowhere.invalid:25",)), NAME, 10)
        assert told.outcome is Outcome.UNREACHABLE
        assert told.evidence.startswith("nowhere.invalid has no address: ")

    def test_nobody_there_is_said_so(self) -> None:
        with running() as server:
            pass
        assert asked(server) == Answer(Outcome.UNREACHABLE, "127.0.0.1: Connection refused")

    @pytest.mark.parametrize(
        ("replies", "outcome", "evidence"),
        [
            ({b"": b""}, Outcome.UNREACHABLE, "127.0.0.1: no answer in time"),
            ({b"": b"220-half"}, Outcome.UNREACHABLE, "127.0.0.1: no answer in time"),
            ({b"": b"220-half\r\n"}, Outcome.UNREACHABLE, "127.0.0.1: no answer in time"),
            ({b"": None}, Outcome.UNREACHABLE, "127.0.0.1: closed the connection"),
            ({b"": b"SSH-2.0-OpenSSH_9.2\r\n"}, Outcome.UNREACHABLE, "127.0.0.1: sent not a reply line"),
            ({b"": b"421 4.3.2 later\r\n"}, Outcome.UNREACHABLE, "127.0.0.1: greeted with 421 4.3.2 later"),
            ({b"": b"220 a\r\n220 b\r\n"}, Outcome.UNREACHABLE, "127.0.0.1: sent more than was asked for"),
            ({b"": b"220 " + b"x" * 100_000}, Outcome.UNREACHABLE, "127.0.0.1: sent a reply of more than"),
            ({b"": b"220-a\r\n" * 1000}, Outcome.UNREACHABLE, "127.0.0.1: sent a reply of more than"),
            (
                {b"EHLO": b"500 a\r\n", b"HELO": b"554 b\r\n"},
                Outcome.UNREACHABLE,
                "127.0.0.1: answered EHLO with 500 a",
            ),
            ({b"MAIL": b""}, Outcome.UNCLEAR, "no answer in time"),
            ({b"RCPT": b"25"}, Outcome.UNCLEAR, "no answer in time"),
            ({b"RCPT": b"\x00\xff\r\n"}, Outcome.UNCLEAR, "sent not a reply line"),
            ({b"RCPT": None}, Outcome.UNCLEAR, "closed the connection"),
        ],
    )
    def test_nothing_a_server_does_holds_it_up(
        self, replies: dict[bytes, bytes | None], outcome: Outcome, evidence: str
    ) -> None:
        with running(replies) as server:
            begun = time.monotonic()
            told = asked(server, SOON_SECONDS)
        assert time.monotonic() - begun < SOON_SECONDS + 10
        assert told.outcome is outcome
        assert told.evidence.startswith(evidence)


def test_a_server_that_drips_is_given_up_in_time() -> None:
    """
    An octet now and then sets no clock back: the time is for the whole call.
    """
    now = 0.0
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = SocketWire(ours, Deadline.within(3, lambda: now))
        for _ in range(3):
            theirs.sendall(b"2")
            assert wire.receive() == b"2"
            now += 1
        theirs.sendall(b"2")
        with pytest.raises(CallError, match="no answer in time"):
            wire.receive()


@frozen
class Certificates:
    authority: Path
    folder: Path
    root: Authority


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    root = Authority.root()
    file = tmp_path / "ca.pem"
    file.write_bytes(
        root.certificate.public_bytes(__import__("cryptography").hazmat.primitives.serialization.Encoding.PEM)
    )
    return Certificates(file, tmp_path, root)


class TestOverTls:
    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_the_question_is_put_inside_verified_tls(self, tls: str, certificates: Certificates) -> None:
        files = certificates.root.issue("mail.example").write(certificates.folder)
        ehlo = {b"EHLO": b"250-mail.example\r\n250 STARTTLS\r\n"}
        with running({**RELAYING, **ehlo}, tls=tls, files=files) as server:
            told = asked(server, tls=tls, tls_ca=certificates.authority, tls_name="mail.example")
        assert told.outcome is Outcome.RELAYS

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_a_backend_that_is_somebody_else_is_not_asked(self, tls: str, certificates: Certificates) -> None:
        files = certificates.root.issue("other.example").write(certificates.folder)
        ehlo = {b"EHLO": b"250-mail.example\r\n250 STARTTLS\r\n"}
        with running({**RELAYING, **ehlo}, tls=tls, files=files) as server:
            told = asked(server, tls=tls, tls_ca=certificates.authority, tls_name="mail.example")
        assert told == Answer(Outcome.UNREACHABLE, "127.0.0.1: no TLS: certificate is for another name")
        assert not any(line.startswith(b"MAIL") for line in server.heard)

    def test_a_backend_without_starttls_is_not_asked_in_plaintext(self, certificates: Certificates) -> None:
        with running(RELAYING) as server:
            told = asked(server, tls="starttls", tls_ca=certificates.authority, tls_name="mail.example")
        assert told == Answer(Outcome.UNREACHABLE, "127.0.0.1: does not offer STARTTLS")
        assert server.heard == [b"EHLO gate.example"]

    def test_a_server_that_does_not_know_tls_after_all(self, certificates: Certificates) -> None:
        with running({b"EHLO": b"250-mail.example\r\n250 STARTTLS\r\n", b"\x16": b"500 What?\r\n"}) as server:
            told = asked(server, SOON_SECONDS, tls="starttls", tls_ca=certificates.authority, tls_name="mail.example")
        assert told.outcome is Outcome.UNREACHABLE

    def test_an_authority_that_cannot_be_read_is_said_so(self, tmp_path: Path) -> None:
        with running(RELAYING) as server:
            told = asked(server, tls="implicit", tls_ca=tmp_path / "missing.pem", tls_name="mail.example")
        assert told.outcome is Outcome.UNREACHABLE
        assert "missing.pem" in told.evidence


class TestGuard:
    def config(self, text: str, *endpoints: str) -> Callable[[], tuple[Finding, ...]]:
        names = ", ".join(f"'{endpoint}'" for endpoint in endpoints)
        listeners = '[[listener]]\nname = "a"\nendpoint = "tcp:2500"\nlevel = "offered"\n'
        tls = "[tls]\ncertificates = [{ chain = 'a', key = 'b' }]\n"
        config = parse(f"{listeners}{tls}[backend]\nendpoints = [{names}]\n{text}", Path("/"))
        return lambda: guard(config, 10)

    def test_every_endpoint_of_an_unnamed_client_is_asked(self) -> None:
        with running(RELAYING) as relay, running() as server:
            found = self.config("", server.endpoint, relay.endpoint)()
        assert [(entry.at, entry.outcome) for entry in found] == [
            ("backend.endpoints[0]", Outcome.REFUSES),
            ("backend.endpoints[1]", Outcome.RELAYS),
        ]
        text = str(found[1])
        assert text.startswith(
            f"backend.endpoints[1]: {relay.endpoint} relays for strangers that come from this address"
            " (RCPT TO:<relay-check@example.com> got 250 2.1.5 Ok); behind the gate"
        )
        for way_out in ("xclient", "proxy-v1", "proxy-v2", "transparent", "mynetworks", "accept_open_relay = true"):
            assert way_out in text
        assert "mynetworks" not in str(found[0])

    @pytest.mark.parametrize(
        "text", ["accept_open_relay = true", 'client_address = "xclient"', 'client_address = "proxy-v2"']
    )
    def test_nobody_is_asked_where_the_answer_would_not_matter(self, text: str) -> None:
        with running(RELAYING) as relay:
            assert self.config(text, relay.endpoint)() == ()
        assert relay.heard == []

    def test_a_group_of_its_own_is_asked_too(self) -> None:
        with running() as server, running(RELAYING) as relay:
            group = f"[[backend_group]]\nname = \"b\"\nendpoints = ['{relay.endpoint}']\n"
            found = self.config(group, server.endpoint)()
        assert [(entry.at, entry.outcome) for entry in found] == [
            ("backend.endpoints[0]", Outcome.REFUSES),
            ("backend_group[0].endpoints[0]", Outcome.RELAYS),
        ]

    def test_dead_backends_are_waited_for_together(self) -> None:
        """
        Ten backends that say nothing delay the start as long as one does.
        """
        silent = {**POLITE, b"": b""}
        with running(silent) as one, running(silent) as two, running(silent) as three:
            endpoints = [server.endpoint for server in (one, two, three)]
            names = ", ".join(f"'{endpoint}'" for endpoint in endpoints)
            config = parse(
                f"[tls]\ncertificates = [{{ chain = 'a', key = 'b' }}]\n[backend]\nendpoints = [{names}]\n", Path("/")
            )
            begun = time.monotonic()
            found = guard(config, 4 * SOON_SECONDS)
        # One after the other they would have taken twelve.
        assert time.monotonic() - begun < 10 * SOON_SECONDS
        assert [entry.outcome for entry in found] == [Outcome.UNREACHABLE] * 3
