"""
What the opening of a backend connection has done, step by step; the last one is that it is ready, or has failed.
"""

from typing import TypeAlias

from attrs import frozen

from tlsgate.smtp.reply import BackendReply, Reply


@frozen
class Send:
    """
    Send these octets to the backend.
    """

    data: bytes


@frozen
class StartTls:
    """
    Start the client side of a TLS handshake with the backend; then call `Opening.tls_established`.
    """


@frozen
class Ready:
    """
    The connection is the client's. *greeting* is the 220 that a client may be shown.
    """

    greeting: BackendReply


@frozen
class Failed:
    """
    The connection is of no use: close it, once everything sent to it is out.

    *reply* is what the client gets, *log_reason* printable ASCII for the journal. *refusal* is the backend's own reply
    where it greeted, or answered XCLIENT, with 4yz or 5yz: it is up, and does not want the client. *of_client*: it may
    be about this client alone, if the backend knows who that is. *ours*: it failed on our own side, and says nothing of
    the backend.
    """

    reply: Reply
    log_reason: str
    refusal: BackendReply | None = None
    of_client: bool = False
    ours: bool = False


Step: TypeAlias = Send | StartTls | Ready | Failed
