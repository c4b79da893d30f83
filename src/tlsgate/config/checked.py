"""
The configuration as the checks across keys see it.
"""

from collections.abc import Iterator, Mapping
from typing import Self

from attrs import frozen

from tlsgate.config.faults import Findings
from tlsgate.config.tree import BUILT_IN_LEVELS, Config, Level


@frozen
class Checked:
    """
    The configuration under check, its levels by name (built-in ones too), and where faults are noted.
    """

    config: Config
    levels: Mapping[str, Level]
    findings: Findings

    @classmethod
    def of(cls, config: Config, findings: Findings) -> Self:
        """
        Return the view of *config*; a level that takes the name of a built-in one does not hide it.
        """
        configured = {level.name: level for level in config.levels}
        return cls(config, {**BUILT_IN_LEVELS, **configured, **BUILT_IN_LEVELS}, findings)

    def uses(self) -> Iterator[tuple[str, str]]:
        """
        Yield each key path that names a level for clients, with the name.
        """
        for listener in self.config.listeners:
            yield f"{listener.at}.level", listener.level
        for rule in self.config.rules:
            if rule.level is not None:
                yield f"{rule.at}.level", rule.level

    def used(self) -> list[Level]:
        """
        Return the levels that clients can meet.
        """
        return [self.levels[name] for name in {name: None for _, name in self.uses()} if name in self.levels]
