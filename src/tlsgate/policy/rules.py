"""
Which level holds for whom: rules, of which the first that matches names the level, and the listener's level after them.

A decision is taken at three stages, as facts become known: for the session (client, HELO name, SNI), at MAIL (sender),
at RCPT (recipient). At each stage only rules count whose every condition is on a fact known by then, so a sender or
recipient rule can demand more than the session had to show, but cannot let in what the session was refused. What is
refused is refused at that stage alone.

Exempt recipients turn this round where a listener has them: nothing is refused for what the session lacks until a
recipient is named who is not exempt (RFC 5321 section 4.5.1: postmaster; RFC 8460 section 3: TLSRPT mailboxes).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Self

from attrs import evolve, field, frozen

from tlsgate.policy.conditions import Keys, Rule
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.facts import Circumstances, TlsFacts
from tlsgate.policy.level import ClientCertificate, Level, Verdict
from tlsgate.policy.mailbox import ExemptRecipients
from tlsgate.policy.ramp import Enforcement, enforcement

__all__ = ["ANY_LISTENER", "Decision", "Outcome", "Rule", "Rulebook"]

ANY_LISTENER = "*"


class Outcome(Enum):
    """
    What is to be done, all considered: the verdict, how far the level's ramp has come, and who is exempt.

    In order of gravity.
    """

    __hash__ = object.__hash__  # it is looked up for every command

    PASS = "let through"  # noqa: S105  # not a password
    WOULD_REFUSE = "let through, though the level is not met: it is only audited"
    DEFER = "refuse for now, with a 4xx reply"
    REFUSE = "refuse for good, with a 5xx reply"


_BY_GRAVITY = list(Outcome)
_OUTCOMES = {
    Enforcement.ENFORCED: Outcome.REFUSE,
    Enforcement.DEFERRED: Outcome.DEFER,
    Enforcement.AUDITED: Outcome.WOULD_REFUSE,
}


@frozen
class Decision:
    """
    The level that holds, its verdict, and what to do about it.

    Only *outcome* says what to do: the verdict is what the level says even where it is audited, or where the demand is
    put to the recipients instead.
    """

    level: Level
    verdict: Verdict
    outcome: Outcome


@frozen
class _Chapter:
    """
    The part of the rule book that is about one listener.
    """

    level: Level
    rules: tuple[Rule, ...]
    exempt: ExemptRecipients
    session_rules: tuple[Rule, ...] = field(init=False)
    sender_rules: tuple[Rule, ...] = field(init=False)

    @session_rules.default
    def _(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if not (rule.senders or rule.recipients))

    @sender_rules.default
    def _(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if not rule.recipients)

    def session(self, circumstances: Circumstances, tls: TlsFacts | None) -> Decision:
        """
        Return what the session has to show, exemptions aside.
        """
        rule = _first(self.session_rules, circumstances)
        return _decide(rule.level if rule else self.level, circumstances, tls)

    def postponed(self, decision: Decision) -> Decision:
        """
        Return *decision*, its demand left to the recipients where some are exempt.
        """
        return evolve(decision, outcome=Outcome.PASS) if self.exempt else decision


class Rulebook:
    """
    All rules in order, each listener's own level, and who is exempt at it.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        listeners: Mapping[str, Level],
        exempt_recipients: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """
        Bind *rules* to *listeners* (name -> level; `ANY_LISTENER` stands for those not named).

        Raises:
            PolicyError: A listener is not there, or an exempt recipient is no mailbox.
        """
        problems: dict[str, str] = {}
        for number, rule in enumerate(rules, start=1):
            unknown = rule.listeners - listeners.keys()
            if unknown and ANY_LISTENER not in listeners:
                problems[f"rule {number}: listeners"] = f"there is no {', '.join(sorted(unknown))}"
        exempt = {name: ExemptRecipients(frozenset()) for name in listeners}
        for name, recipients in (exempt_recipients or {}).items():
            key = f"listener {name}: exempt_recipients"
            if name not in listeners:
                problems[key] = "there is no such listener"
            try:
                exempt[name] = ExemptRecipients.of(recipients)
            except ValueError as error:
                problems[key] = str(error)
        if problems:
            raise PolicyError(problems)
        self._chapters = {
            name: _Chapter(level, tuple(_about(name, rules)), exempt[name]) for name, level in listeners.items()
        }

    @classmethod
    def single(cls, level: Level) -> Self:
        """
        Return the rule book that knows one *level*, for every listener.
        """
        return cls((), {ANY_LISTENER: level})

    def session(self, circumstances: Circumstances, tls: TlsFacts | None) -> Decision:
        """
        Return what the session has to show before anything else; to be asked again when a fact becomes known.
        """
        chapter = self._chapter(circumstances.listener)
        return chapter.postponed(chapter.session(circumstances, tls))

    def sender(self, circumstances: Circumstances, tls: TlsFacts | None) -> Decision:
        """
        Return whether the sender in *circumstances* may send over this session.
        """
        chapter = self._chapter(circumstances.listener)
        rule = _first(chapter.sender_rules, circumstances)
        decision = _decide(rule.level if rule else chapter.level, circumstances, tls)
        return decision if rule and rule.senders else chapter.postponed(decision)

    def recipient(self, circumstances: Circumstances, tls: TlsFacts | None) -> Decision:
        """
        Return whether the recipient in *circumstances* may be written to over this session.
        """
        chapter = self._chapter(circumstances.listener)
        rule = _first(chapter.rules, circumstances)
        decision = _decide(rule.level if rule else chapter.level, circumstances, tls)
        if not chapter.exempt:
            return decision
        if circumstances.recipient is not None and circumstances.recipient in chapter.exempt:
            return chapter.postponed(decision)
        # What the session was not refused is due now, also where a rule asks less of this recipient.
        return max(decision, chapter.session(circumstances, tls), key=_gravity)

    def uses_helo(self, listener: str) -> bool:
        """
        Return whether the session's decision may change when the HELO name becomes known.
        """
        return any(rule.helos for rule in self._chapter(listener).session_rules)

    def uses_sni(self, listener: str) -> bool:
        """
        Return whether the session's decision may change when the SNI becomes known.
        """
        return any(rule.snis for rule in self._chapter(listener).session_rules)

    def uses_sender(self, listener: str) -> bool:
        """
        Return whether any rule looks at the sender: if not, `sender` need not be asked, and it need not be known.
        """
        return any(rule.senders for rule in self._chapter(listener).rules)

    def uses_recipient(self, listener: str) -> bool:
        """
        Return whether a recipient may be refused what the session was not: if not, `recipient` need not be asked.
        """
        chapter = self._chapter(listener)
        return bool(chapter.exempt) or any(rule.recipients for rule in chapter.rules)

    def levels(self, listener: str) -> tuple[Level, ...]:
        """
        Return every level that may hold at *listener*, its own last.
        """
        chapter = self._chapter(listener)
        return (*(rule.level for rule in chapter.rules), chapter.level)

    def requests_certificate(self, listener: str) -> bool:
        """
        Return whether a handshake at *listener* has to ask for a client certificate (RFC 8314 section 4.2: else not).
        """
        return any(level.client_certificate is not ClientCertificate.IGNORED for level in self.levels(listener))

    def _chapter(self, listener: str) -> _Chapter:
        return self._chapters.get(listener) or self._chapters[ANY_LISTENER]


def _about(listener: str, rules: Iterable[Rule]) -> Iterable[Rule]:
    # Which listener is meant by "any" shows only when a session asks.
    return (rule for rule in rules if listener == ANY_LISTENER or not rule.listeners or listener in rule.listeners)


def _first(rules: Sequence[Rule], circumstances: Circumstances) -> Rule | None:
    if not rules:
        return None
    keys = Keys.of(circumstances)
    return next((rule for rule in rules if rule.holds(keys)), None)


def _gravity(decision: Decision) -> int:
    return _BY_GRAVITY.index(decision.outcome)


def _decide(level: Level, circumstances: Circumstances, tls: TlsFacts | None) -> Decision:
    verdict = level.judge(tls)
    if verdict.sufficient:
        return Decision(level, verdict, Outcome.PASS)
    how_far = enforcement(level.enforcement, circumstances.client, circumstances.now, level.name)
    return Decision(level, verdict, _OUTCOMES[how_far])
