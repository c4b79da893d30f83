"""
The certificates of all listeners: one keeper for each way in which handshakes are run.
"""

from collections.abc import Mapping
from datetime import datetime

from attrs import define, field

from tlsgate.tls.context import TlsTerms
from tlsgate.tls.keeper import IdentityKeeper, Reload


@define(eq=False)
class Identities:
    """
    What each listener, by its name, shows to clients.
    """

    _terms: Mapping[str, TlsTerms]
    _keepers: dict[TlsTerms, IdentityKeeper] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._keepers = {terms: IdentityKeeper(terms) for terms in self._terms.values()}

    def of(self, listener: str) -> IdentityKeeper:
        """
        Return the keeper for the handshakes at a listener.
        """
        return self._keepers[self._terms[listener]]

    def load(self, now: datetime) -> Reload:
        """
        Load everything, changed or not; a keeper whose files have a fault keeps what it has.
        """
        return _all([keeper.reload(now) for keeper in self._loadable()])

    def refresh(self, now: datetime) -> Reload | None:
        """
        Load what has changed, or what time has overtaken; return `None` if nothing has.
        """
        stale = [keeper for keeper in self._loadable() if keeper.stale(now)]
        return _all([keeper.reload(now) for keeper in stale]) if stale else None

    def expiries(self) -> Mapping[str, datetime]:
        """
        Return when the certificate in each file ends.
        """
        return {
            str(files.chain): credential.not_after
            for keeper in self._loadable()
            if keeper.identity is not None
            for files, credential in zip(keeper.terms.certificates, keeper.identity.credentials, strict=True)
        }

    def _loadable(self) -> list[IdentityKeeper]:
        return [keeper for keeper in self._keepers.values() if keeper.terms.certificates]


def _all(outcomes: list[Reload]) -> Reload:
    # Two keepers of the same files find the same faults.
    problems = tuple(dict.fromkeys(problem for outcome in outcomes for problem in outcome.problems))
    warnings = tuple(dict.fromkeys(warning for outcome in outcomes for warning in outcome.warnings))
    return Reload(changed=not problems, problems=problems, warnings=warnings)
