"""
The checks of names and rules: nothing has two names' worth of meaning, everything named exists, every rule can act.
"""

from collections.abc import Collection, Iterable

from tlsgate.config.checked import Checked
from tlsgate.config.faults import Findings, choices, shown
from tlsgate.config.tree import BUILT_IN_LEVELS, Rule


def check_names(checked: Checked) -> None:
    """
    No name and no endpoint stands for two things.
    """
    config, findings = checked.config, checked.findings
    for level in config.levels:
        if level.name in BUILT_IN_LEVELS:
            findings.note(
                f"{level.at}.name", f"{shown(level.name)} is built in and cannot be changed; take another name"
            )
    _check_unique(findings, "name", ((level.at, level.name) for level in config.levels))
    _check_unique(findings, "name", ((group.at or "backend", group.name) for group in config.backends))
    _check_unique(findings, "endpoint", ((listener.at, listener.endpoint) for listener in config.listeners))
    named = [listener for listener in config.listeners if listener.name != listener.endpoint]
    _check_unique(findings, "name", ((listener.at, listener.name) for listener in named))
    _check_unique(findings, "chain", ((entry.at, str(entry.chain)) for entry in config.tls.certificates))


def _check_unique(findings: Findings, key: str, entries: Iterable[tuple[str, str]]) -> None:
    first: dict[str, str] = {}
    for at, value in entries:
        if value in first and findings.clean(f"{at}.{key}") and findings.clean(f"{first[value]}.{key}"):
            findings.note(f"{at}.{key}", f"{shown(value)} is taken by {first[value]}")
        first.setdefault(value, at)


def check_references(checked: Checked) -> None:
    """
    Every level, listener and backend group that is named exists.
    """
    config, findings = checked.config, checked.findings
    if findings.names_known("level"):
        legs = [(f"{leg.at}.tls_level", leg.tls_level) for leg in config.backends]
        _check_known(findings, [*checked.uses(), *legs], checked.levels)
    if findings.names_known("backend_group"):
        users = [(f"{listener.at}.backend", listener.backend) for listener in config.listeners]
        users += [(f"{rule.at}.backend", rule.backend) for rule in config.rules if rule.backend is not None]
        _check_known(findings, users, dict.fromkeys(group.name for group in config.backends))
    if findings.names_known("listener"):
        names = dict.fromkeys(listener.name for listener in config.listeners)
        for rule in config.rules:
            users = [(f"{rule.at}.listeners[{index}]", name) for index, name in enumerate(rule.listeners)]
            _check_known(findings, users, names)


def _check_known(findings: Findings, users: Iterable[tuple[str, str | None]], names: Collection[str]) -> None:
    for path, name in users:
        if name is not None and name not in names and findings.clean(path):
            findings.note(path, f"{shown(name)} is not one of {choices(names)}")


def check_rule(checked: Checked, rule: Rule) -> None:
    """
    A rule asks for something and says something, and only asks for what is known when its answer is needed.
    """
    findings = checked.findings
    if not findings.clean(rule.at):
        return
    late = [key for key in ("clients", "helo", "senders", "recipients") if getattr(rule, key)]
    if rule.level is None and rule.backend is None:
        findings.note(rule.at, "says nothing; give it a level, or a backend")
    if not late and not rule.listeners and not rule.sni:
        findings.note(rule.at, "has no condition and would match everybody; set the level of the listeners instead")
    if rule.backend is not None and late:
        text = f"a backend is chosen by listeners and sni only, not by {late[0]}; make two rules of this one"
        findings.note(f"{rule.at}.backend", text)
