"""
The journal says of every session what ended it.
"""

from collections.abc import Callable

import pytest

from tests.policy.samples import TLS12_CBC, TLS13
from tests.support.stage import Stage, terms
from tlsgate.observe.metrics import SESSION_OUTCOMES
from tlsgate.session.bounds import Bounds
from tlsgate.session.endings import Ending
from tlsgate.smtp import reply as replies
from tlsgate.smtp.message import BareNewlines

GREETING = b"220 backend.example.org ESMTP\r\n"
EHLO = b"EHLO client.example\r\n"


def offered() -> Stage:
    """
    A session in plaintext whose backend has greeted.
    """
    return Stage(terms("offered")).backend(GREETING)


def handshaking() -> Stage:
    """
    A session that has just been told to start TLS.
    """
    return Stage(terms()).client(b"STARTTLS\r\n")


def inside() -> Stage:
    """
    A session inside TLS whose backend has greeted.
    """
    return handshaking().backend(GREETING).handshake(TLS13)


def rejecting() -> Stage:
    """
    A session whose message was refused for its newlines.
    """
    stage = Stage(terms("offered", bare_newlines=BareNewlines.REJECT)).backend(GREETING)
    return stage.client(b"DATA\r\n").backend(b"354 go on\r\n").client(b"a\nb\r\n.\r\n")


ENDS: list[tuple[Ending, Callable[[], Stage]]] = [
    (Ending.QUIT, lambda: Stage(terms()).client(b"QUIT\r\n")),
    (Ending.QUIT, lambda: offered().client(b"QUIT\r\n").backend(b"221 bye\r\n")),
    (Ending.QUIT, lambda: offered().client(b"QUIT\r\n").backend_lost()),
    (Ending.QUIT, lambda: Stage(terms("strong")).client(b"STARTTLS\r\n").handshake(TLS12_CBC).client(b"QUIT\r\n")),
    (Ending.QUIT, lambda: offered().client(b"QUIT\r\n").client_lost()),
    (Ending.QUIT, lambda: offered().client(EHLO + b"QUIT\r\n").backend(b"250 backend\r\n").client_lost()),
    (Ending.CLIENT_LOST, lambda: offered().client(EHLO + b"QUIT\r\n").client_lost()),
    (Ending.CLIENT_LOST, lambda: offered().client_lost()),
    (Ending.CLIENT_LOST, lambda: inside().client_lost()),
    (Ending.CLIENT_SILENT, lambda: offered().silence()),
    (Ending.CLIENT_SILENT, lambda: offered().refuse(replies.TOO_SLOW)),
    (Ending.HANDSHAKE_FAILED, lambda: handshaking().client_lost()),
    (Ending.HANDSHAKE_FAILED, lambda: handshaking().silence()),
    (Ending.BACKEND_LOST, lambda: offered().backend_lost()),
    (Ending.BACKEND_CLOSED, lambda: offered().backend(b"421 going down\r\n")),
    (Ending.BACKEND_SILENT, lambda: offered().client(EHLO).silence()),
    (Ending.BACKEND_BROKEN, lambda: offered().backend(b"250 nobody asked\r\n")),
    (Ending.BACKEND_BROKEN, lambda: offered().client(EHLO).backend(b"hello\r\n")),
    (Ending.BACKEND_DOWN, lambda: Stage(terms("offered")).backend_lost()),
    (Ending.INJECTION, lambda: Stage(terms()).client(b"STARTTLS\r\nMAIL FROM:<a@client.example>\r\n")),
    (Ending.MESSAGE_REFUSED, lambda: rejecting().client(b"NOOP\r\n")),
    (Ending.LIMIT, lambda: Stage(terms(bounds=Bounds(errors_max=1))).client(b"RSET\r\n")),
    (Ending.LIMIT, lambda: Stage(terms(bounds=Bounds(commands_before_tls_max=1))).client(b"NOOP\r\nNOOP\r\n")),
    (Ending.SHUTDOWN, lambda: offered().drain()),
    (Ending.SHUTDOWN, lambda: offered().client(EHLO).drain().client_lost()),
]


@pytest.mark.parametrize(("ending", "play"), ENDS, ids=[f"{ending.value}-{n}" for n, (ending, _) in enumerate(ENDS)])
def test_what_ended_a_session(ending: Ending, play: Callable[[], Stage]) -> None:
    stage = play()
    assert stage.closed
    assert stage.session.summary()["outcome"] == ending.value


@pytest.mark.parametrize(
    ("stage", "reply", "reason"),
    [
        (offered, b"250 nobody asked\r\n", "cannot answer nothing: 250 nobody asked"),
        (lambda: offered().client(b"DATA\r\n"), b"250 \x1b[2Jtaken\r\n", "cannot answer DATA: 250 \\x1b[2Jtaken"),
        (offered, b"hello\r\n", "not a reply line: b'hello\\r\\n'"),
    ],
)
def test_what_a_broken_backend_has_said(stage: Callable[[], Stage], reply: bytes, reason: str) -> None:
    """The operator of the backend has to find it, so the journal has its words, made harmless."""
    broken = stage().backend(reply)
    assert [record.fields for record in broken.records if record.event == "backend-broken"] == [{"reason": reason}]


def test_the_first_cause_counts() -> None:
    """A client leaves once it has had the last word; that word is what ended the session."""
    stage = offered().backend_lost()
    stage.client_lost()
    assert stage.session.summary()["outcome"] == "backend-lost"


def test_a_session_that_goes_on_has_no_end() -> None:
    assert offered().session.summary()["outcome"] is None


def test_each_is_counted_by_its_name() -> None:
    """The metrics know every word, so that none is counted as "other"."""
    assert {ending.value for ending in Ending} == SESSION_OUTCOMES


OWED: list[tuple[bool, Callable[[], Stage]]] = [
    (False, lambda: Stage(terms("offered"))),  # nothing was asked of the backend that is dialled
    (True, lambda: Stage(terms("offered")).client(EHLO)),
    (False, offered),
    (True, lambda: offered().client(EHLO)),
    (False, lambda: offered().client(EHLO).backend(b"250 backend\r\n")),
    (True, lambda: offered().client(b"DATA\r\n").backend(b"354 go on\r\n").client(b".\r\n")),
    (False, lambda: offered().client(b"DATA\r\n").backend(b"354 go on\r\n").client(b"half a message")),
    (False, lambda: Stage(terms()).client(EHLO)),  # answered by ourselves
    (False, handshaking),
    (False, lambda: handshaking().handshake(TLS13)),  # what was said in plaintext is forgotten
    (True, lambda: handshaking().handshake(TLS13).client(EHLO)),
    (False, lambda: offered().client(b"QUIT\r\n").backend(b"221 bye\r\n")),
]


@pytest.mark.parametrize(("owed", "play"), OWED)
def test_what_the_backend_owes_a_client_that_says_no_more(*, owed: bool, play: Callable[[], Stage]) -> None:
    """
    5321-13: each command gets its reply, though the client has closed its half of the connection.
    """
    assert play().session.owed is owed
