"""
Where a client connects, and how it gets to TLS there.
"""

from pathlib import Path
from typing import Literal

from attrs import frozen

Mode = Literal["plain", "starttls", "implicit"]
TLS_MODES: tuple[Mode, ...] = ("starttls", "implicit")


@frozen
class Route:
    """
    A port on loopback; *authority* is the file with the CA certificate a client believes, if it comes to TLS.
    """

    port: int
    mode: Mode
    authority: Path | None = None
    host: str = "127.0.0.1"
