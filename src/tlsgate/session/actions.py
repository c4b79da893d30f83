"""
Actions: what a session wants done, in the order of the list that it returns. They are performed after it returned.
"""

from collections.abc import Mapping
from typing import TypeAlias

from attrs import frozen


@frozen
class SendClient:
    """
    Send these octets to the client.
    """

    data: bytes


@frozen
class SendBackend:
    """
    Send these octets to the backend.
    """

    data: bytes


@frozen
class StartTls:
    """
    Start the server side of a TLS handshake with the client, right behind the 220 just sent (RFC 3207 section 4).
    """


@frozen
class DialBackend:
    """
    Open a connection to the backend: a fresh one, of which the client has said nothing yet.
    """


@frozen
class HangUpBackend:
    """
    Give the backend connection up. *politely*: once all is sent; else at once, so that half a message is not taken for
    a whole one.
    """

    politely: bool = True


@frozen
class CloseClient:
    """
    Close the client's connection once everything sent to it is out.
    """


@frozen
class PauseClient:
    """
    Read no more from the client.
    """


@frozen
class ResumeClient:
    """
    Read from the client again.
    """


@frozen
class Record:
    """
    Tell the journal of an *event*. Fields are plain values; text of the client's is made harmless where it is written.
    """

    event: str
    fields: Mapping[str, object]


Action: TypeAlias = (
    SendClient
    | SendBackend
    | StartTls
    | DialBackend
    | HangUpBackend
    | CloseClient
    | PauseClient
    | ResumeClient
    | Record
)

__all__ = [
    "Action",
    "CloseClient",
    "DialBackend",
    "HangUpBackend",
    "PauseClient",
    "Record",
    "ResumeClient",
    "SendBackend",
    "SendClient",
    "StartTls",
]
