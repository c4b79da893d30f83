"""
What an operator should know about a configuration that can be used all the same.
"""

from collections.abc import Iterator

from tlsgate.config.faults import shown
from tlsgate.config.tree import Config, Level, Limits, Listener, Rule

# Limits an RFC has an opinion on: the least it asks for, and where.
_ASKED_FOR = {
    "client_timeout_seconds": (300, "RFC 5321 section 4.5.3.2.7"),
    "backend_timeout_seconds": (300, "RFC 5321 section 4.5.3.2"),
    "end_of_data_timeout_seconds": (600, "RFC 5321 section 4.5.3.2.6"),
}


def warnings_of(config: Config) -> Iterator[tuple[str, str]]:
    """
    Yield each warning as a key path and a text. The configuration has no faults.
    """
    yield from _short_timeouts(config.limits)
    yield from _unused(config)
    for level in config.levels:
        yield from _odd_demands(level)
    for listener in config.listeners:
        for index, network in enumerate(listener.proxy_protocol_from):
            if network.prefixlen == 0:
                text = f"{shown(str(network))} lets every client say it is somebody else"
                yield f"{listener.at}.proxy_protocol_from[{index}]", text


def _short_timeouts(limits: Limits) -> Iterator[tuple[str, str]]:
    for key, (least, source) in _ASKED_FOR.items():
        if getattr(limits, key) < least:
            yield f"{limits.at}.{key}", f"{getattr(limits, key)} is less than the {least} that {source} asks for"


def _unused(config: Config) -> Iterator[tuple[str, str]]:
    users: list[Listener | Rule] = [*config.listeners, *config.rules]
    levels = {user.level for user in users} | {backend.tls_level for backend in config.backends}
    for level in config.levels:
        if level.name not in levels:
            yield level.at, f"no listener and no rule names level {shown(level.name)}"
    if config.dns.servers and all(backend.client_name == "none" for backend in config.backends):
        yield f"{config.dns.at}.servers", 'nothing is asked of them: no backend has client_name = "dns"'
    groups = {user.backend for user in users}
    for group in config.backend_groups:
        if group.name not in groups:
            yield group.at, f"no listener and no rule names backend group {shown(group.name)}"


def _odd_demands(level: Level) -> Iterator[tuple[str, str]]:
    if level.tls == "offered" and level.client_certificate == "verified":
        text = "a client without one is refused inside TLS and served in plaintext"
        yield f"{level.at}.client_certificate", text
    if level.tls == "required" and level.plaintext_auth:
        yield f"{level.at}.plaintext_auth", "means nothing where nobody is served in plaintext"
