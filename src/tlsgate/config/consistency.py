"""
The checks across keys: names that must exist, tables that contradict each other, settings that would do harm.

A check says nothing about a table that has a fault already: the second message would only be a consequence.
"""

from tlsgate.config.checked import Checked
from tlsgate.config.demands import check_certificates, check_floor, check_level, check_public
from tlsgate.config.faults import Findings
from tlsgate.config.legs import check_backend
from tlsgate.config.references import check_names, check_references, check_rule
from tlsgate.config.tree import Config


def check(config: Config, findings: Findings) -> None:
    """
    Note every fault that shows only when several keys are looked at together.
    """
    checked = Checked.of(config, findings)
    check_names(checked)
    check_references(checked)
    for level in config.levels:
        check_level(checked, level)
    for rule in config.rules:
        check_rule(checked, rule)
    for listener in config.listeners:
        check_public(checked, listener)
    check_floor(checked)
    check_certificates(checked)
    for backend in config.backends:
        check_backend(checked, backend)
