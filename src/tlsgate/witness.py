"""
What is told of the gate: each event goes to the journal and to the metrics.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TextIO

from attrs import define, field

from tlsgate.config import Config, ConfigError
from tlsgate.observe.journal import Journal
from tlsgate.observe.metrics import Metrics, Names


@define(eq=False)
class Witness:
    """
    The journal and the metrics of one gate.
    """

    journal: Journal
    metrics: Metrics = field(factory=Metrics)

    @classmethod
    def of(cls, config: Config, now: Callable[[], datetime], terminal: TextIO) -> "Witness":
        """
        Return the witness that a configuration asks for; without a file, the journal goes to *terminal*.

        Raises:
            ConfigError: The journal's file cannot be opened.
        """
        target = config.observe.journal
        try:
            if isinstance(target, Path):
                return cls(Journal.to(target, now))
            return cls(Journal.to(terminal, now, target))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError((f"observe.journal: {target}: cannot be opened: {reason}",)) from error

    def record(self, event: str, fields: Mapping[str, object]) -> None:
        """
        Tell of one event.
        """
        self.journal.write(event, **fields)
        self.metrics.record(event, fields)

    def warn(self, warnings: tuple[str, ...]) -> None:
        """
        Tell the operator what should be looked at.
        """
        for text in warnings:
            self.record("warning", {"text": text})

    def know(self, config: Config) -> None:
        """
        Take the names of a configuration: they may be labels of metrics from now on.
        """
        self.metrics.know(
            Names(
                [listener.name for listener in config.listeners],
                [*(level.name for level in config.levels), "offered", "required", "strong", "verified"],
                [endpoint for group in config.backends for endpoint in group.endpoints],
            )
        )
