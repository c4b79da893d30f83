"""
The open-relay guard at work: a backend that relays for strangers who come from our address gets no client.

At start every backend that is to be guarded is asked before anything listens. One that could not be asked then is asked
when it first answers a probe, and so is one that a reload brings.
"""

from collections.abc import Set as AbstractSet

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tlsgate.assembly import Assembly
from tlsgate.config import Backend, Config, ConfigError
from tlsgate.net.dialler import Question, Target
from tlsgate.operator.guard import Answer, Finding, Outcome, ask, guard, guarded, own_name

START_TIMEOUT_SECONDS = 15.0


def refuse_open_relays(config: Config) -> tuple[frozenset[str], tuple[str, ...]]:
    """
    Ask all backends that must be asked.

    Returns:
        The endpoints of those that have answered, and do not relay as far as they let us know; and what to warn of:
        those that did not say, and those that could not be asked. Of these nobody would hear why otherwise: they are
        down until they have been asked.

    Raises:
        ConfigError: One relays for strangers.
    """
    findings = guard(config, START_TIMEOUT_SECONDS)
    relays = tuple(str(finding) for finding in findings if finding.outcome is Outcome.RELAYS)
    if relays:
        raise ConfigError(relays)
    answered = frozenset(finding.endpoint for finding in findings if finding.outcome is not Outcome.UNREACHABLE)
    unknown = {Outcome.UNCLEAR, Outcome.UNREACHABLE}
    return answered, tuple(str(finding) for finding in findings if finding.outcome in unknown)


def watch_open_relays(assembly: Assembly, cleared: AbstractSet[str]) -> None:
    """
    Have every guarded backend whose endpoint is not *cleared* asked before it gets a client.
    """
    assembly.cleared.update(cleared)
    for group in assembly.config.backends:
        if not guarded(group):
            continue
        dialler = assembly.diallers[group.name]
        for number, target in enumerate(dialler.pool.keys):
            if target.name not in cleared:
                at = f"{group.at or 'backend'}.endpoints[{number}]"
                dialler.distrust(target, _question(assembly, group, target, at))


def _question(assembly: Assembly, group: Backend, target: Target, at: str) -> Question:
    ehlo_name = assembly.config.hostname or own_name()

    def ask_it() -> "Deferred[str | None]":
        # The guard's dialogue blocks; it is short, and rare.
        return deferToThread(ask, target.name, group, ehlo_name, START_TIMEOUT_SECONDS).addCallback(judge)

    def judge(answer: Answer) -> str | None:
        finding = Finding(at, target.name, answer)
        if finding.outcome in {Outcome.RELAYS, Outcome.UNREACHABLE}:
            return str(finding)
        if finding.outcome is Outcome.UNCLEAR:
            assembly.gate.journal("warning", {"text": str(finding)})
        assembly.cleared.add(target.name)
        return None

    return ask_it
