"""
The words for where a session stands.

They are looked up at every step, so they hash by identity, in C; Enum's own hash is a Python function of the name.
"""

from enum import Enum


class Phase(Enum):
    """
    What the next octets from the client are.
    """

    __hash__ = object.__hash__

    COMMANDS = "command lines"
    HELD = "unknown until the backend has answered"
    MESSAGE = "message data"
    CHUNK = "octets of a BDAT chunk"
    SASL = "one line of an AUTH exchange"
    REFUSING = "command lines, all refused"
    DISCARDED = "plaintext behind STARTTLS"
    ENDED = "nothing: the session is over"


class Leg(Enum):
    """
    How far the connection to the backend is.
    """

    __hash__ = object.__hash__

    NONE = "not dialled, or given up"
    DIALLING = "dialled, not greeted yet"
    READY = "greeted"
    FAILED = "could not be reached"


class Waiting(Enum):
    """
    Whom the session waits for, and so whose silence ends it.
    """

    __hash__ = object.__hash__

    CLIENT = "the next command, or message data"
    BACKEND = "the backend's greeting or reply"
    END_OF_DATA = "the backend's reply to a whole message"
    HANDSHAKE = "the client's TLS handshake"
    NOBODY = "the session is over"
