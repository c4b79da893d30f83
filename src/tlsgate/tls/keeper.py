"""
The identity in use, and how another takes its place while sessions go on.

Who watches the clock and the files calls `IdentityKeeper.stale` now and then and `IdentityKeeper.reload` when it says
so; connections already made keep the identity they began with.
"""

from datetime import datetime, timedelta
from pathlib import Path

from attrs import define, field, frozen

from tlsgate.tls.certificates import CertificateError
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.identity import Identity

# A ticket key is an identity's; RFC 9325 section 3.4 wants it changed regularly, for instance once a week.
TICKET_KEY_AGE_MAX = timedelta(days=1)

# Device, inode, change, size; `None` where there is no file. The change is that of the inode: a key that only root
# could read has the same content once it has another owner.
FileState = tuple[int, int, int, int] | None


@frozen
class Reload:
    """
    What became of a reload: *changed* when another identity serves from now on, else *problems* say why not.
    """

    changed: bool
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@define
class IdentityKeeper:
    """
    The terms in force and the identity made of them. *identity* is `None` until the first good `reload`: the gate then
    has no TLS to offer, and must not announce STARTTLS (RFC 3207 section 2).
    """

    terms: TlsTerms
    identity: Identity | None = field(default=None, init=False)
    _seen: tuple[FileState, ...] = field(default=(), init=False)
    _tried_at: datetime | None = field(default=None, init=False)

    def reload(self, now: datetime, terms: TlsTerms | None = None) -> Reload:
        """
        Load everything again, under new *terms* if given; on any fault the old terms and identity stay.
        """
        wanted = self.terms if terms is None else terms
        # Looked at before they are read: a change meanwhile must show up as one.
        seen = _states(wanted.paths)
        self._tried_at = now
        try:
            identity = Identity.load(wanted, now)
        except CertificateError as error:
            if wanted == self.terms:
                self._seen = seen
            return Reload(changed=False, problems=error.problems)
        self.terms, self.identity, self._seen = wanted, identity, seen
        return Reload(changed=True, warnings=identity.warnings)

    def stale(self, now: datetime | None = None) -> bool:
        """
        Whether a reload may bring something new: a file is another one than at the last attempt, good or bad.

        With *now*, also whether time alone demands it: ticket keys have served their day, or a stapled OCSP response
        has ended.
        """
        return _states(self.terms.paths) != self._seen or (now is not None and self._outlived(now))

    def _outlived(self, now: datetime) -> bool:
        if self.identity is None or self._tried_at is None:
            return False
        staples_not_after = self.identity.staples_not_after
        staple_ended = staples_not_after is not None and self._tried_at < staples_not_after <= now
        return staple_ended or now - self._tried_at >= TICKET_KEY_AGE_MAX


def _states(paths: tuple[Path, ...]) -> tuple[FileState, ...]:
    return tuple(_state(path) for path in paths)


def _state(path: Path) -> FileState:
    try:
        # Follows links: certbot and Kubernetes change where they point.
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size
