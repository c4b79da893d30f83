"""
How a session ended, in a word for the journal.
"""

from enum import Enum

from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import BackendReply, Reply


class Ending(Enum):
    """
    Who or what ended the session.
    """

    QUIT = "quit"
    CLIENT_LOST = "client-lost"
    CLIENT_SILENT = "client-silent"
    HANDSHAKE_FAILED = "handshake-failed"
    BACKEND_LOST = "backend-lost"
    BACKEND_CLOSED = "backend-closed"  # in order, with 421
    BACKEND_SILENT = "backend-silent"
    BACKEND_BROKEN = "backend-broken"
    BACKEND_DOWN = "backend-down"
    INJECTION = "injection"
    MESSAGE_REFUSED = "message-refused"
    LIMIT = "limit"
    DEFERRED = "deferred"
    SHUTDOWN = "shutdown"


_SAID = {
    replies.CLOSING: Ending.QUIT,
    replies.CLIENT_SILENT: Ending.CLIENT_SILENT,
    replies.TOO_SLOW: Ending.CLIENT_SILENT,
    replies.BACKEND_LOST: Ending.BACKEND_LOST,
    replies.BACKEND_SILENT: Ending.BACKEND_SILENT,
    replies.BACKEND_BROKEN: Ending.BACKEND_BROKEN,
    replies.BACKEND_DOWN: Ending.BACKEND_DOWN,
    replies.PLAINTEXT_BEHIND_STARTTLS: Ending.INJECTION,
    replies.BACKEND_SPENT: Ending.MESSAGE_REFUSED,
    replies.SECURITY_SOON_REQUIRED: Ending.DEFERRED,
    replies.SHUTTING_DOWN: Ending.SHUTDOWN,
}


def ending(last: Reply | BackendReply) -> Ending:
    """
    Return what the *last* reply of a session says of its end.
    """
    return Ending.BACKEND_CLOSED if isinstance(last, BackendReply) else _SAID.get(last, Ending.LIMIT)
