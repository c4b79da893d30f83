"""
The mailbox's dialogue: what it answers, and what then lies in its Maildir, byte for byte.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cuts import cuttings
from tlsgate.operator.dialogue import Bounds, Dialogue
from tlsgate.operator.maildir import Maildir, Stored, Unstuffing
from tlsgate.smtp.message import MARK, EndOfData
from tlsgate.smtp.reply import TOO_MANY_SESSIONS

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
TRACE = (
    b"Return-Path: <a@example.org>\r\n"
    b"Delivered-To: b@example.org\r\n"
    b"Received: from client.example ([192.0.2.1])\r\n"
    b"\tby mailbox.example with ESMTP id 1795348800.M123456P%dQ1;\r\n"
    b"\tSun, 22 Nov 2026 12:00:00 +0000\r\n" % os.getpid()
)
EHLO = (
    b"250-mailbox.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250-HELP\r\n250 SIZE 67108864\r\n"
)
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.org>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
ENVELOPE = HELLO + MAIL + RCPT
ENVELOPE_OK = EHLO + b"250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n"
START = b"354 Start mail input; end with <CRLF>.<CRLF>\r\n"
STORED = b"250 2.0.0 Message stored\r\n"
BYE = b"221 2.0.0 Closing the connection\r\n"

# Message as it travels behind DATA, mark included, and as it is.
MESSAGES = [
    pytest.param(b".\r\n", b"", id="empty"),
    pytest.param(b"Subject: x\r\n\r\nhello\r\n.\r\n", b"Subject: x\r\n\r\nhello\r\n", id="tiny"),
    pytest.param(b"..\r\n..\r\n...\r\n..x\r\n.\r\n", b".\r\n.\r\n..\r\n.x\r\n", id="dots"),
    pytest.param(b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n", id="blank lines at the end"),
    pytest.param(b"a\n.\n.\r\nb\r.\rc\r\n.\r\n", b"a\n.\n.\r\nb\r.\rc\r\n", id="bare newlines end nothing"),
    pytest.param(b"QUIT\r\nRSET\r\n.\r\n", b"QUIT\r\nRSET\r\n", id="commands in it are text"),
    pytest.param("é\r\n.\r\n".encode(), "é\r\n".encode(), id="8-bit"),
    pytest.param(b"\0\r\n.\r\n", b"\0\r\n", id="NUL"),
]


@contextmanager
def limited_file_size(octets: int) -> Iterator[None]:
    """
    Let this process write no file of more than *octets*: a disk that is full, for what matters here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Session:
    """
    A dialogue over a Maildir of its own.
    """

    def __init__(self, folder: Path, bounds: Bounds | None = None) -> None:
        self.maildir = Maildir(folder, "mailbox.example", lambda: NOON)
        self.maildir.prepare()
        self.stored: list[Stored] = []
        self.dialogue = Dialogue(self.maildir, "192.0.2.1", self.stored.append, bounds or Bounds())

    def say(self, *chunks: bytes) -> bytes:
        return b"".join(self.dialogue.receive(chunk) for chunk in chunks)

    def messages(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.maildir.folder / "new").iterdir())]

    def unfinished(self) -> list[Path]:
        return list((self.maildir.folder / "tmp").iterdir())


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "Maildir")


def answers(session: Session, sent: bytes) -> bytes:
    """
    Return what is answered to *sent* behind EHLO.
    """
    session.say(HELLO)
    return session.say(sent)


def test_the_greeting_names_the_host(session: Session) -> None:
    assert session.dialogue.greeting() == b"220 mailbox.example ESMTP mailbox\r\n"


@pytest.mark.parametrize(("sent", "message"), MESSAGES)
def test_a_message_is_stored_byte_for_byte_behind_its_trace_header(
    session: Session, sent: bytes, message: bytes
) -> None:
    assert session.say(ENVELOPE + b"DATA\r\n" + sent + b"QUIT\r\n") == ENVELOPE_OK + START + STORED + BYE
    assert session.messages() == [TRACE + message]
    assert session.unfinished() == []
    (stored,) = session.stored
    assert stored.path.read_bytes() == TRACE + message
    assert stored.octets == len(message)
    assert stored.envelope.recipients == ("b@example.org",)


@pytest.mark.parametrize(
    ("sent", "replies", "message"),
    [
        (b"DATA\r\na\r\n..\r\n\r\n.\r\nRSET\r\n", START + STORED + b"250 2.0.0 OK\r\n", b"a\r\n.\r\n\r\n"),
        (b"DATA\r\n.\r\nNOOP\r\n", START + STORED + b"250 2.0.0 OK\r\n", b""),
        (
            b"BDAT 3\r\nQUIBDAT 2 LAST\r\nT\nNOOP\r\n",
            b"250 2.0.0 Chunk OK\r\n" + STORED + b"250 2.0.0 OK\r\n",
            b"QUIT\n",
        ),
        (b"BDAT 0 LAST\r\nNOOP\r\n", STORED + b"250 2.0.0 OK\r\n", b""),
    ],
)
def test_every_cut(tmp_path: Path, sent: bytes, replies: bytes, message: bytes) -> None:
    """
    However the network cuts the input in two, or into single octets, replies and message are the same.
    """
    for number, chunks in enumerate(cuttings(ENVELOPE + sent)):
        session = Session(tmp_path / str(number))
        assert session.say(*chunks) == ENVELOPE_OK + replies, f"cut {number}"
        assert session.messages() == [TRACE + message], f"cut {number}"


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\r\n.", MARK]), max_size=30), st.data())
def test_unstuffing_takes_one_dot_off_each_line_however_it_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    message = b"".join(parts) + MARK
    message = message[: EndOfData().feed(message)]
    expected = b"\r\n".join(line.removeprefix(b".") for line in message.split(b"\r\n"))
    cut = data.draw(st.integers(0, len(message)))
    unstuffing = Unstuffing()
    assert unstuffing.feed(message[:cut]) + unstuffing.feed(message[cut:]) == expected


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_message_is_on_the_disk_before_it_is_acknowledged(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    5321-23: 250 means that it outlives a power failure. First its octets, then its name, must be on the disk.
    """
    synced: list[tuple[str, int]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.parent.name if path.is_file() else path.name, len(session.messages())))

    monkeypatch.setattr(os, "fsync", fsync)
    assert session.say(ENVELOPE + b"DATA\r\n.\r\n").endswith(STORED)
    assert synced == [("tmp", 0), ("new", 1)]


def test_several_messages_are_stored_in_a_session(session: Session) -> None:
    one = MAIL + RCPT + b"DATA\r\nx\r\n.\r\n"
    session.say(HELLO + one * 3)
    assert [message.endswith(b"\r\nx\r\n") for message in session.messages()] == [True, True, True]


def test_every_recipient_stands_in_the_trace_header(session: Session) -> None:
    session.say(ENVELOPE + b"RCPT TO:<c@example.org> \r\nDATA\r\n.\r\n")
    assert b"Delivered-To: b@example.org\r\nDelivered-To: c@example.org\r\n" in session.messages()[0]


def test_the_null_sender_and_postmaster_are_accepted(session: Session) -> None:
    session.say(HELLO + b"mail from:<> size=10 body=8bitmime\r\nrcpt to:<Postmaster>\r\ndata\r\n.\r\n")
    assert session.messages()[0].startswith(b"Return-Path: <>\r\nDelivered-To: Postmaster\r\n")


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("b@example.org", b"250 2.1.5 "),
        ("b@EXAMPLE.org", b"250 2.1.5 "),
        ('"b@x"@example.org', b"501 5.5.4 "),
        ("Postmaster", b"250 2.1.5 "),
        ("postmaster@example.com", b"550 5.7.1 "),
        ("b@example.com", b"550 5.7.1 "),
        ("b@sub.example.org", b"550 5.7.1 "),
        ("b@[192.0.2.1]", b"550 5.7.1 "),
        ("b", b"550 5.7.1 "),
        ("b%example.com@example.org", b"501 5.5.4 "),
        ("@example.org:b@example.com", b"550 5.7.1 "),
    ],
)
def test_a_mailbox_for_some_domains_takes_no_other_mail(tmp_path: Path, recipient: str, reply: bytes) -> None:
    """
    5321-25.
    """
    session = Session(tmp_path / "Maildir", Bounds(domains=frozenset({"example.org"})))
    assert answers(session, MAIL + f"RCPT TO:<{recipient}>\r\n".encode()).splitlines()[-1].startswith(reply)


def test_an_address_that_is_not_ascii_needs_smtputf8(session: Session) -> None:
    refused = b"553 5.6.7 An address that is not ASCII needs SMTPUTF8\r\n"
    assert answers(session, "MAIL FROM:<é@example.org>\r\n".encode()) == refused
    assert session.say("MAIL FROM:<a@example.org>\r\nRCPT TO:<é@example.org>\r\n".encode()).endswith(refused)
    session.say("RSET\r\nMAIL FROM:<é@example.org> SMTPUTF8\r\nRCPT TO:<ü@example.org>\r\nDATA\r\n.\r\n".encode())
    assert session.messages()[0].startswith("Return-Path: <é@example.org>\r\nDelivered-To: ü@example.org\r\n".encode())
    assert b" with UTF8SMTP id " in session.messages()[0]


def test_helo_gets_one_line_and_smtp_in_the_trace_header(session: Session) -> None:
    assert session.say(b"HELO client.example\r\n") == b"250 mailbox.example\r\n"
    session.say(MAIL + RCPT + b"DATA\r\n.\r\n")
    assert b" with SMTP id " in session.messages()[0]


@pytest.mark.parametrize("name", ["x\x1by", "é", "a" * 3000])
def test_whatever_name_the_client_gives_the_trace_header_is_ascii_lines(session: Session, name: str) -> None:
    session.say(b"EHLO " + name.encode() + b"\r\n" + MAIL + RCPT + b"DATA\r\n.\r\n")
    for message in session.messages():
        message.decode("ascii")
        assert max(len(line) for line in message.split(b"\r\n")) < 998


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"XYZZY\r\n", b"500 5.5.2 ", id="unknown"),
        pytest.param(b"NOOP\n", b"500 5.5.2 ", id="bare LF"),
        pytest.param(b"NO\0OP\r\n", b"500 5.5.2 ", id="NUL"),
        pytest.param(b"X" * 5000 + b"\r\n", b"500 5.5.2 Line too long", id="line too long"),
        pytest.param(b"NOOP what ever\r\n", b"250 2.0.0 ", id="5321-10"),
        pytest.param(b"VRFY a\r\n", b"252 2.0.0 ", id="5321-24"),
        pytest.param(b"EXPN a\r\n", b"502 5.5.1 ", id="EXPN"),
        pytest.param(b"HELP\r\n", b"214 2.0.0 ", id="HELP"),
        pytest.param(b"STARTTLS\r\n", b"500 5.5.2 ", id="STARTTLS"),
        pytest.param(b"EHLO\r\n", b"501 Syntax error: a host name", id="EHLO without a name"),
        pytest.param(b"RSET now\r\n", b"501 5.5.4 ", id="RSET with an argument"),
        pytest.param(b"QUIT now\r\n", b"501 5.5.4 ", id="QUIT with an argument"),
        pytest.param(b"DATA now\r\n", b"501 5.5.4 ", id="DATA with an argument"),
        pytest.param(b"RCPT TO:<b@example.org>\r\n", b"503 5.5.1 Send MAIL", id="RCPT before MAIL"),
        pytest.param(b"DATA\r\n", b"503 5.5.1 Send MAIL", id="5321-27"),
        pytest.param(MAIL + MAIL, b"503 5.5.1 A mail transaction", id="nested MAIL"),
        pytest.param(MAIL + b"DATA\r\n", b"503 5.5.1 Send RCPT", id="2920-03"),
        pytest.param(b"MAIL TO:<a@example.org>\r\n", b"501 5.5.4 ", id="MAIL TO"),
        pytest.param(b"MAIL FROM:a@example.org\r\n", b"501 5.5.4 ", id="MAIL without brackets"),
        pytest.param(MAIL + b"RCPT TO:<>\r\n", b"501 5.5.4 ", id="RCPT to nobody"),
        pytest.param(b"MAIL FROM:<> SIZE=67108865\r\n", b"552 5.3.4 ", id="SIZE too big"),
        pytest.param(b"MAIL FROM:<> SIZE=67108864\r\n", b"250 2.1.0 ", id="SIZE just fits"),
        pytest.param(b"MAIL FROM:<> SIZE=-1\r\n", b"501 5.5.4 ", id="SIZE is no number"),
        pytest.param(b"MAIL FROM:<> BODY=BINARYMIME\r\n", b"501 5.5.4 ", id="BINARYMIME"),
        pytest.param(b"MAIL FROM:<> REQUIRETLS\r\n", b"555 5.5.4 ", id="unknown parameter of MAIL"),
        pytest.param(b"MAIL FROM:<> AUTH=<>\r\n", b"555 5.5.4 ", id="AUTH"),
        pytest.param(MAIL + b"RCPT TO:<a@example.org> NOTIFY=NEVER\r\n", b"555 5.5.4 ", id="unknown parameter of RCPT"),
        pytest.param(b"BDAT x\r\n", b"501 5.5.4 ", id="BDAT without a size"),
    ],
)
def test_commands_out_of_order_or_out_of_form_are_refused(session: Session, sent: bytes, expected: bytes) -> None:
    last = answers(session, sent).splitlines(keepends=True)[-1]
    assert last.startswith(expected)
    assert session.say(b"RSET\r\n") == b"250 2.0.0 OK\r\n"


def test_mail_before_ehlo_is_refused(session: Session) -> None:
    assert session.say(MAIL) == b"503 5.5.1 Send EHLO first\r\n"


@pytest.mark.parametrize("sent", [b"RSET\r\n", HELLO])
def test_rset_and_ehlo_forget_the_transaction(session: Session, sent: bytes) -> None:
    session.say(ENVELOPE + b"BDAT 1\r\nx" + sent)
    assert session.unfinished() == []
    assert session.say(b"DATA\r\n") == b"503 5.5.1 Send MAIL first\r\n"


def test_a_refused_chunk_is_swallowed(session: Session) -> None:
    """
    3030-04: what stands behind a BDAT that is refused are no commands.
    """
    assert answers(session, b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n") == b"503 5.5.1 Send MAIL first\r\n250 2.0.0 OK\r\n"
    assert session.say(MAIL + b"BDAT 6 LAST\r\nQUIT\r\n").endswith(b"503 5.5.1 Send RCPT first\r\n")


def test_a_chunk_behind_the_last_one_is_refused(session: Session) -> None:
    """
    3030-02.
    """
    assert session.say(ENVELOPE + b"BDAT 1 LAST\r\nxBDAT 1 LAST\r\ny").endswith(
        STORED + b"503 5.5.1 Send MAIL first\r\n"
    )
    assert len(session.messages()) == 1


@pytest.mark.parametrize("sent", [b"DATA\r\n", RCPT])
def test_neither_data_nor_recipients_behind_a_chunk(session: Session, sent: bytes) -> None:
    """
    3030-05.
    """
    session.say(ENVELOPE + b"BDAT 1\r\nx")
    assert session.say(sent) == b"503 5.5.1 The message has begun with BDAT\r\n"
    assert session.say(b"BDAT 1 LAST\r\ny") == STORED
    assert session.messages() == [TRACE + b"xy"]


class TestBounds:
    def test_a_message_of_the_greatest_size_is_stored(self, tmp_path: Path) -> None:
        session = Session(tmp_path / "Maildir", Bounds(message_octets_max=10))
        assert session.say(ENVELOPE + b"DATA\r\n12345678\r\n.\r\n").endswith(STORED)
        assert session.say(MAIL + RCPT + b"BDAT 4\r\n1234BDAT 6 LAST\r\n567890").endswith(STORED)
        assert [len(message) - len(TRACE) for message in session.messages()] == [10, 10]

    def test_a_message_over_the_greatest_size_is_refused_at_its_end(self, tmp_path: Path) -> None:
        session = Session(tmp_path / "Maildir", Bounds(message_octets_max=10))
        session.say(ENVELOPE + b"DATA\r\n")
        assert session.say(b"x" * 13) == b""
        assert session.unfinished() == []
        assert session.say(b"x" * 100_000) == b""
        assert session.say(b"\r\n.\r\nNOOP\r\n") == b"552 5.3.4 Message too big\r\n250 2.0.0 OK\r\n"
        assert session.messages() == []

    def test_a_chunk_over_the_greatest_size_is_swallowed_and_rset_is_needed(self, tmp_path: Path) -> None:
        """
        3030-06.
        """
        session = Session(tmp_path / "Maildir", Bounds(message_octets_max=10))
        assert session.say(ENVELOPE + b"BDAT 11\r\n" + b"x" * 11).endswith(b"552 5.3.4 Message too big\r\n")
        assert session.say(b"BDAT 1 LAST\r\nx") == b"503 5.5.1 BDAT failed; RSET is needed\r\n"
        assert session.say(b"RSET\r\n" + MAIL + RCPT + b"BDAT 1 LAST\r\nx").endswith(STORED)
        assert len(session.messages()) == 1

    def test_more_recipients_than_allowed_are_deferred(self, tmp_path: Path) -> None:
        """
        5321-20.
        """
        session = Session(tmp_path / "Maildir", Bounds(recipients_max=1))
        assert session.say(ENVELOPE + RCPT).endswith(b"452 4.5.3 Too many recipients\r\n")

    def test_a_hundred_recipients_are_accepted(self, session: Session) -> None:
        """
        5321-19.
        """
        assert session.say(HELLO + MAIL + RCPT * 100).count(b"250 2.1.5 ") == 100

    def test_too_many_errors_end_the_session(self, tmp_path: Path) -> None:
        session = Session(tmp_path / "Maildir", Bounds(errors_max=2))
        replies = session.say(b"X\r\n" * 5)
        assert replies.count(b"500 5.5.2") == 3
        assert replies.endswith(b"421 4.7.0 Too many errors\r\n")
        assert session.dialogue.closing
        assert session.say(b"NOOP\r\n") == b""

    def test_a_line_without_an_end_is_not_kept(self, session: Session) -> None:
        for _ in range(100):
            assert session.say(b"x" * 10_000) == b""
        assert len(session.dialogue._input) <= 10_000
        assert session.say(b"\r\nNOOP\r\n") == b"500 5.5.2 Line too long\r\n250 2.0.0 OK\r\n"


def test_after_quit_nothing_is_answered(session: Session) -> None:
    assert session.say(b"QUIT\r\nNOOP\r\n", b"NOOP\r\n") == BYE
    assert session.dialogue.closing


def test_half_a_message_leaves_nothing_behind(session: Session) -> None:
    """
    5321-06: a connection that is lost amid a message has delivered nothing.
    """
    whole = ENVELOPE + b"DATA\r\nhello\r\n.\r\n"
    session.say(whole[:-1])
    session.dialogue.forget()
    assert session.messages() == []
    assert session.unfinished() == []


def test_the_last_word_ends_the_session(session: Session) -> None:
    session.say(ENVELOPE + b"BDAT 1\r\nx")
    assert session.dialogue.close(TOO_MANY_SESSIONS) == b"421 4.7.0 Too many sessions, try again later\r\n"
    assert session.unfinished() == []


class TestTroubleWithTheDisk:
    """
    5321-23: 250 is only said for what is safely stored; trouble is told as 452, and leaves nothing behind.
    """

    NO_ROOM = b"452 4.3.1 Message could not be stored, try again later\r\n"

    def test_no_file_can_be_made(self, session: Session) -> None:
        (session.maildir.folder / "tmp").rmdir()
        assert session.say(ENVELOPE + b"DATA\r\n").endswith(self.NO_ROOM)
        assert session.say(MAIL + RCPT + b"BDAT 1\r\nx").endswith(self.NO_ROOM)

    def test_the_message_cannot_be_moved(self, session: Session) -> None:
        (session.maildir.folder / "new").rmdir()
        assert session.say(ENVELOPE + b"DATA\r\nx\r\n.\r\n").endswith(self.NO_ROOM)
        assert session.unfinished() == []
        assert session.stored == []

    def test_the_disk_is_full(self, session: Session) -> None:
        with limited_file_size(50_000):
            replies = session.say(ENVELOPE + b"DATA\r\n", b"x" * 40_000, b"x" * 40_000, b"\r\n.\r\n", b"NOOP\r\n")
        assert replies.endswith(START + self.NO_ROOM + b"250 2.0.0 OK\r\n")
        assert session.messages() == []
        assert session.unfinished() == []

    def test_the_disk_is_full_at_the_very_end(self, session: Session) -> None:
        with limited_file_size(len(TRACE) + 10):
            replies = session.say(ENVELOPE + b"DATA\r\n" + b"x" * 100 + b"\r\n.\r\nNOOP\r\n")
        assert replies.endswith(START + self.NO_ROOM + b"250 2.0.0 OK\r\n")
        assert session.messages() == []
        assert session.unfinished() == []
