"""
What all mail servers behind the gate have in common.

Each is Debian's own binary, run as a private instance on a loopback port: it accepts every recipient in `inbox.example`
but `nobody`, refuses to relay, speaks no TLS, takes messages of 40 MB, looks nothing up in the DNS, and delivers into a
Maildir. Nothing outside its own folder is written.
"""

import pwd
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from attrs import define, field

from tests.integration.mailbox import Mailbox
from tests.integration.processes import Daemon, free_port, greets, need

DOMAIN = "inbox.example"
REFUSED = f"nobody@{DOMAIN}"
MESSAGE_OCTETS_MAX = 41_943_040

# Reads a message and stores it as Maildir wants it: written beside, then moved, so that no half is ever seen.
CAPTURE = """#!/bin/sh
file=$(mktemp {mailbox}/tmp/XXXXXXXX) || exit 75
{{ [ $# -eq 0 ] || printf 'Delivered-To: %s\\n' "$1"; cat; }} >"$file" || exit 75
mv "$file" {mailbox}/new/ || exit 75
"""


@define
class MailServer:
    """
    A mail server in a folder of its own.

    *keywords* are the names of the EHLO keywords it is known to offer, *root* is the folder it was unpacked to. *ready*
    tells by the port that the server is there; one that wants a PROXY header first needs another than the default.
    """

    name: ClassVar[str]
    keywords: ClassVar[frozenset[str]]
    owner: ClassVar[str] = "nobody"

    folder: Path
    port: int = field(factory=free_port)
    ready: Callable[[int], bool] = greets
    root: Path = field(init=False)
    mailbox: Mailbox = field(init=False)
    _daemon: Daemon | None = None

    def start(self) -> None:
        """
        Configure the server, start it, and return when it greets.
        """
        self.root = Path(need(Path(self.name), root=True)).resolve()
        self.mailbox = Mailbox.made(self.folder / "mailbox", pwd.getpwnam(self.owner).pw_uid)
        capture = self.folder / "capture"
        capture.write_text(CAPTURE.format(mailbox=self.mailbox.folder))
        capture.chmod(0o755)
        self._daemon = self.configured()
        self._daemon.start(lambda: self.ready(self.port))

    def stop(self) -> None:
        """
        Stop the server; what it says is kept in its folder.
        """
        if self._daemon is not None:
            self._daemon.stop()

    def said(self) -> str:
        """
        The server's log.
        """
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*log")))

    def configured(self) -> Daemon:
        """
        Write the configuration and return the process to start.
        """
        raise NotImplementedError


def elsewhere(host: str, binds: Mapping[str, Path], argv: Sequence[str]) -> list[str]:
    """
    Return the command that runs *argv* on a machine called *host*, with *binds* (place: what is seen there) in effect.
    """
    script = "".join(f"mount --bind {shlex.quote(str(what))} {place} && " for place, what in binds.items())
    return ["unshare", "--mount", "--uts", "sh", "-c", f'{script}hostname {host} && exec "$@"', "sh", *argv]
