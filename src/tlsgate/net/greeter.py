"""
Asks a backend for its greeting, and hangs up: who it is, and whether it is there.
"""

from collections.abc import Callable, Mapping

from attrs import define

from tlsgate.net.backend import Dialler, Link
from tlsgate.net.identity import ClientIdentity
from tlsgate.smtp.reply import BackendReply, Reply


@define(eq=False)
class Greeter:
    """
    One question to one group of backends.
    """

    _dialler: Dialler
    _journal: Callable[[str, Mapping[str, object]], None]
    _link: Link | None = None

    def ask(self) -> None:
        """
        Dial; the dialler learns the name from the greeting.
        """
        self._link = self._dialler.link(self, ClientIdentity(None))
        self._link.dial()

    def link_ready(self, greeting: BackendReply) -> None:
        """
        The backend is there.
        """
        self._journal("backend-up", {"greeting": greeting.raw.decode("utf-8", "backslashreplace").strip()})
        if self._link is not None:
            self._link.write(b"QUIT\r\n")
            self._link.hang_up(politely=True)

    def link_failed(self, reply: Reply, log_reason: str) -> None:  # noqa: ARG002
        """
        The backend is not there.
        """
        self._journal("backend-down", {"reason": log_reason})

    def link_data(self, data: bytes) -> None:
        """
        Nothing was asked.
        """

    def link_lost(self) -> None:
        """
        Nothing was to be said any more.
        """
