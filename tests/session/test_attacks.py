"""
Attacks: clients who try to get a word through to the backend, and backends who try to be taken for something else.
"""

from itertools import product

import pytest

from tests.policy.samples import TLS13
from tests.session.preludes import DATA, GREETED, MODERN, OFFERED_EHLO, OLD, STARTED, TLS, TRANSACTION
from tests.support.cuts import cuttings
from tests.support.dialogue import play_once
from tests.support.model import ModelBackend
from tests.support.stage import Stage, terms
from tlsgate.session.bounds import Bounds
from tlsgate.smtp.reply import BackendReply

WORDS = (b"XCLIENT ADDR=127.0.0.1\r\n", b"XFORWARD ADDR=127.0.0.1\r\n", b"STARTTLS\r\n")
TIGHT = Bounds(line_octets_max=64, sasl_octets_max=96)
ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
LAST_WORD = b"QUIT\r\n"


def attacks(word: bytes) -> dict[str, bytes]:
    """
    Return the ways to get *word*, a line, through to a backend.
    """
    verb = word.split()[0]
    return {
        "plainly": word,
        "in lower case": word.lower(),
        "behind a blank": b" " + word,
        "behind a tab": b"\t" + word,
        "in quotes": word.replace(verb, b'"%b"' % verb),
        "with a tab": word.replace(b" ", b"\t"),
        "behind a bare LF": b"NOOP\n" + word,
        "behind a bare CR": b"NOOP\r" + word,
        "behind LF CR": b"NOOP\n\r" + word,
        "behind CR CR LF": b"NOOP\r\r\n" + word,
        "behind NUL": b"NOOP\x00" + word,
        "behind empty lines": b"\r\n\r\n" + word,
        "behind a form feed": b"NOOP\x0c" + word,
        "behind a line that is too long": b"a" * 100 + b"\r\n" + word,
        "at the end of a line that is too long": b"a" * 100 + word,
        "where the limit falls": b"a" * 64 + word,
        "where the longer limit falls": b"a" * 96 + word,
        "behind a long AUTH": b"AUTH PLAIN " + b"a" * 100 + b"\r\n" + word,
        "in a group": b"NOOP 1\r\nMAIL FROM:<a@example.org>\r\n" + word + b"RCPT TO:<b@example.org>\r\n" + word,
        "behind DATA": b"DATA\r\n" + word + b"\r\n.\r\n" + word,
        "behind a message": b"DATA\r\ntext\r\n.\r\n" + word,
        "behind a smuggled end": b"DATA\r\ntext\n.\r\n" + word + b"\r\n.\r\n" + word,
        "behind AUTH": b"AUTH LOGIN\r\n" + word + word,
        "behind a cancelled AUTH": b"AUTH LOGIN\r\n*\r\n" + word,
        "in a chunk": b"BDAT %d LAST\r\n" % len(word) + word + word,
        "between chunks": b"BDAT 3\r\nabc" + word + b"BDAT 0 LAST\r\n",
        "behind an empty chunk": b"BDAT 0\r\n" + word + b"BDAT 0 LAST\r\n" + word,
        "across the end of a chunk": b"BDAT 3 LAST\r\nabc" + word,
        "behind a chunk of no size": b"BDAT -1\r\n" + word + b"BDAT +5\r\n" + word + b"BDAT 1e1\r\n" + word,
        "behind EHLO": b"EHLO again\r\n" + word,
        "behind HELO": b"HELO again\r\n" + word,
        "behind HELP": b"HELP\r\n" + word,
        "behind an unknown verb": b"FROB\r\n" + word,
        "behind QUIT": b"QUIT\r\n" + word,
        "behind STARTTLS": b"STARTTLS\r\n" + word,
    }


ATTACKS = {f"{word.split()[0].decode()} {how}": attack for word in WORDS for how, attack in attacks(word).items()}


def willing(codes: tuple[int, ...]) -> int:
    """
    Choose the reply that makes the most of a command.
    """
    return next((code for code in codes if code in {334, 354}), codes[0])


class Answering:
    """
    A backend that answers all that it has heard on a stage.
    """

    def __init__(self, stage: Stage, backend: ModelBackend) -> None:
        self._stage = stage
        self._backend = backend
        self._read = 0

    def go_on(self) -> None:
        """
        Answer until nothing is left to say.
        """
        while self._stage.leg == "up":
            heard = self._stage.backends[-1]
            self._backend.feed(heard[self._read :])
            self._read = len(heard)
            reply = self._backend.reply()
            if not reply:
                return
            self._stage.backend(reply)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("extensions", [True, False])
@pytest.mark.parametrize("kind", [True, False])
def test_a_word_for_the_backend(attack: str, extensions: bool, kind: bool) -> None:  # noqa: FBT001 - both of each
    """
    Show 7: no way of writing it, at no cut, with no answer of the backend's, makes XCLIENT, XFORWARD or a second STARTTLS
    a command at the backend; the model backend fails the test if it hears one. Nor is it a SASL line there.
    """
    for chunks in cuttings(ATTACKS[attack]):
        stage = Stage(terms(bounds=TIGHT)).client(b"STARTTLS\r\n").handshake(TLS13).backend(b"220 backend\r\n")
        backend = ModelBackend(willing if kind else max, pipelining=extensions, chunking=extensions, auth=extensions)
        answering = Answering(stage, backend)
        for chunk in [b"EHLO client.example\r\n", ENVELOPE, *chunks, LAST_WORD]:
            stage.client(chunk)
            answering.go_on()
        assert backend.commands[0] == b"EHLO client.example"


COMMANDS = {
    "NOOP": ("client > NOOP\nbackend < NOOP\n", set()),
    "VRFY": ("client > VRFY a\nbackend < VRFY a\n", set()),
    "unknown": ("client > FROB\nbackend < FROB\n", set()),
    "RSET": ("client > RSET\nbackend < RSET\n", set()),
    "HELO": ("client > HELO a\nbackend < HELO a\n", set()),
    "EHLO": ("client > EHLO a\nbackend < EHLO a\n", set()),
    "MAIL": ("client > MAIL FROM:<c@example.org>\nbackend < MAIL FROM:<c@example.org>\n", set()),
    "RCPT": ("client > RCPT TO:<c@example.org>\nbackend < RCPT TO:<c@example.org>\n", set()),
    "DATA": ("client > DATA\nbackend < DATA\n", {354}),
    "message": ("client > DATA\nbackend < DATA\nbackend > 354 go\nclient < 354 go\nclient > .\nbackend < .\n", set()),
    "BDAT": ("client > BDAT 3\nclient >> abc\nbackend < BDAT 3\nbackend << abc\n", set()),
    "BDAT LAST": ("client > BDAT 3 LAST\nclient >> abc\nbackend < BDAT 3 LAST\nbackend << abc\n", set()),
    "AUTH": ("client > AUTH LOGIN\nbackend < AUTH LOGIN\n", {334}),
    "SASL": (
        "client > AUTH LOGIN\nbackend < AUTH LOGIN\nbackend > 334 x\nclient < 334 x\nclient > eA==\nbackend < eA==\n",
        {334},
    ),
    "QUIT": ("client > QUIT\nbackend < QUIT\n", set()),
}


@pytest.mark.parametrize(
    ("command", "code"), list(product(COMMANDS, [220, 221, 235, 250, 299, 300, 334, 354, 399, 450, 500, 502, 554]))
)
def test_every_code_to_every_command(command: str, code: int) -> None:
    """
    5321-13: 354 to anything but DATA, 334 to anything but AUTH, any other 3yz, and 2yz to DATA cannot be answers: 421,
    close. All others pass as they came.
    """
    script, intermediate = COMMANDS[command]
    stage = play_once(terms(), script, after=MODERN + TRANSACTION)
    reply = b"%d this and that\r\n" % code
    stage.backend(reply)
    impossible = (code // 100 == 3 and code not in intermediate) or (command == "DATA" and code // 100 == 2)
    if impossible:
        enhanced = b"" if command in {"EHLO", "HELO"} else b"4.4.2 "
        assert stage.said.endswith(b"421 " + enhanced + b"The mail server broke the protocol\r\n")
        assert stage.closed
    elif command == "EHLO" and code in {500, 502}:
        assert stage.backends[-1].endswith(b"HELO a\r\n")
    elif command == "EHLO" and code // 100 == 2:
        assert stage.replies[-1].raw == b"250 this and that\r\n"
    else:
        assert stage.replies[-1].raw == reply
        assert stage.closed is (command == "QUIT" and code // 100 == 2)


@pytest.mark.parametrize("command", COMMANDS)
class TestTooMuchOfABackend:
    def test_two_replies_to_one_command(self, command: str) -> None:
        """5321-13: the second is one too many, in the same piece or the next: 421, close."""
        script, _ = COMMANDS[command]
        if command in {"QUIT", "DATA", "AUTH", "SASL", "EHLO"}:
            first = {"QUIT": b"221 bye\r\n", "DATA": b"354 go\r\n", "EHLO": b"250 a\r\n"}.get(command, b"334 x\r\n")
        else:
            first = b"550 no\r\n"
        for pieces in ([first + b"250 more\r\n"], [first, b"250 more\r\n"]):
            stage = play_once(terms(), script, after=MODERN + TRANSACTION).backend(*pieces)
            assert stage.closed
            assert b"250 more" not in stage.said
            assert stage.replies[-1].code == (221 if command == "QUIT" else 421)

    def test_a_reply_before_the_command(self, command: str) -> None:
        """A reply that comes before the command it would fit is not kept for it."""
        stage = play_once(terms(), MODERN + TRANSACTION).backend(b"250 in advance\r\n")
        stage.client(COMMANDS[command][0].split("\n")[0].removeprefix("client > ").encode() + b"\r\n")
        assert stage.closed
        assert b"in advance" not in stage.said

    def test_a_second_greeting(self, command: str) -> None:
        """A backend that greets twice is out of step."""
        script, _ = COMMANDS[command]
        stage = play_once(terms(), script, after=MODERN + TRANSACTION).backend(b"220 a\r\n220 b\r\n")
        assert stage.closed

    def test_a_reply_that_is_cut_off(self, command: str) -> None:
        """5321-06: half a reply and a lost connection is no reply."""
        script, _ = COMMANDS[command]
        for half in (b"2", b"250", b"250 ok", b"250 ok\r", b"250-ok\r\n", b"250-ok\r\n250 ok"):
            stage = play_once(terms(), script, after=MODERN + TRANSACTION).backend(half).backend_lost()
            assert stage.closed
            assert b"ok" not in stage.said.rpartition(b"recipient ok")[2]
            assert stage.replies[-1].code == (221 if command == "QUIT" else 421)


class TestKeywordInjection:
    @pytest.mark.parametrize(
        "hidden", [b"STARTTLS", b"starttls", b"XCLIENT ADDR", b"XFORWARD", b"REQUIRETLS", b"X-EXPS=LOGIN", b"TURN"]
    )
    def test_hidden_keywords(self, hidden: bytes) -> None:
        """3207-20, 8689-01: wherever in the reply they stand, also alone, also last, also many times."""
        for lines in ([hidden], [b"SIZE", hidden], [hidden, b"SIZE"], [hidden] * 50):
            stage = play_once(terms(), STARTED + TLS + "\n").backend(b"220 backend\r\n").client(b"EHLO a\r\n")
            texts = [b"backend.example.org", *lines]
            stage.backend(b"".join(b"250-" + text + b"\r\n" for text in texts[:-1]) + b"250 " + texts[-1] + b"\r\n")
            assert hidden not in stage.replies[-1].raw
            assert stage.replies[-1].lines()[0] == b"backend.example.org"

    def test_a_name_with_a_line_end_in_it(self) -> None:
        """What would be a line of its own to some clients is no reply to us."""
        stage = play_once(terms(), STARTED + TLS + "\n").backend(b"220 backend\r\n").client(b"EHLO a\r\n")
        stage.backend(b"250-backend\r250-XCLIENT\r\n250 SIZE\r\n")
        assert stage.closed
        assert b"XCLIENT" not in stage.said


class TestFloods:
    def test_commands_before_tls(self) -> None:
        """Law 7: EHLO and NOOP keep a session open for so long only."""
        stage = play_once(terms(), GREETED).client(b"EHLO a\r\nNOOP\r\n" * 5_000)
        assert stage.closed
        assert stage.replies[-1] == BackendReply(421, b"421 Too many commands before STARTTLS\r\n")
        assert len(stage.replies) == 1 + stage.terms.bounds.commands_before_tls_max + 1

    @pytest.mark.parametrize(
        "line", [b"MAIL FROM:<a@example.org>\r\n", b"\r\n", b"\x00\r\n", b"BDAT 0\r\n", b"a" * 20_000 + b"\r\n"]
    )
    def test_refusals(self, line: bytes) -> None:
        """Law 7: who does nothing but get refused is sent away, before TLS, inside, and after an insufficient one."""
        for stage in (
            play_once(terms(), GREETED),
            play_once(terms("strong"), STARTED).handshake(TLS13).backend_lost(),
            play_once(terms(), OLD),
        ):
            for _ in range(300):
                stage.client(line)
                if stage.leg == "up" and stage.backends[-1].endswith(b">\r\n"):
                    stage.backend(b"250 ok\r\n")
                if stage.closed:
                    break
            assert stage.closed or line.startswith(b"MAIL")

    def test_a_backend_that_is_silent(self) -> None:
        """Law 7: a backend that answers nothing is sent no more than the pipeline allows."""
        stage = play_once(terms(), MODERN)
        for _ in range(100):
            stage.client(b"NOOP\r\n" * 100)
        assert stage.backends[-1].count(b"NOOP") <= stage.terms.bounds.pipeline_max
        assert stage.paused

    def test_an_endless_chunk(self) -> None:
        """A chunk of 2 GB is taken as it comes, or swallowed, without being kept."""
        for before in (MODERN + TRANSACTION, OLD + TRANSACTION, GREETED):
            stage = play_once(terms(), before).client(b"BDAT 2000000000 LAST\r\n")
            for _ in range(50):
                stage.client(b"QUIT\r\n" * 10_000)
                assert len(stage.session._input) == 0
            assert not stage.closed

    def test_an_endless_message(self) -> None:
        """A message that ends nowhere, of nothing but newlines to be judged, takes no memory either."""
        stage = play_once(terms(), MODERN + DATA)
        for _ in range(50):
            stage.client(b"\n.\r\r.\n" * 5_000)
            assert len(stage.session._input) == 0
        assert not stage.closed


@pytest.mark.parametrize("level", ["offered", "required"])
def test_a_fresh_session_knows_nothing_of_the_plaintext(level: str) -> None:
    """3207-14, 3207-26: octets left over from before the handshake, whole lines or halves, are not read inside TLS."""
    for left in (b"MAIL FROM:<x@example.org>", b"MA", b"\r"):
        stage = play_once(terms(level), GREETED if level == "required" else OFFERED_EHLO)
        stage.client(b"NOOP\r\n").backend(b"250 ok\r\n").client(b"STARTTLS\r\n")
        stage.session.client_data(left)
        if stage.session.phase.name == "ENDED":
            continue
        stage.handshake(TLS13).backend(b"220 backend\r\n").client(b"IL FROM:<x@example.org>\r\n")
        assert b"MAIL" not in stage.backends[-1]
