"""
The configuration: TOML, or the options of the command line, -> a frozen tree of plain values.

Every fault is reported at once, each with its key. What the values mean to TLS, to the law and to the wires is not
known here: the service turns them into theirs.
"""

from tlsgate.config.faults import ConfigError
from tlsgate.config.loading import from_options, load, parse
from tlsgate.config.tree import (
    BUILT_IN_LEVELS,
    Backend,
    BackendGroup,
    Certificate,
    Config,
    Dns,
    Level,
    Limits,
    Listener,
    Message,
    Observe,
    Ramp,
    Rule,
    Tls,
)

__all__ = [
    "BUILT_IN_LEVELS",
    "Backend",
    "BackendGroup",
    "Certificate",
    "Config",
    "ConfigError",
    "Dns",
    "Level",
    "Limits",
    "Listener",
    "Message",
    "Observe",
    "Ramp",
    "Rule",
    "Tls",
    "from_options",
    "load",
    "parse",
]
