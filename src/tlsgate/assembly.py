"""
Everything that is made of one configuration, ready to be put to work, or to take the place of what is.
"""

from collections.abc import Mapping

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from tlsgate import translation
from tlsgate.config import Config, ConfigError, Listener
from tlsgate.host_names import client_names
from tlsgate.identities import Identities
from tlsgate.net.dialler import Dialler, Journal
from tlsgate.net.frontend import Frontend, Gate
from tlsgate.net.routes import Routes
from tlsgate.smtp.message import BareNewlines
from tlsgate.tls.groups import unknown_groups


@frozen
class Assembly:
    """
    The parts that sessions share. *cleared*: the endpoints of backends that are known not to relay for strangers.
    """

    config: Config
    gate: Gate
    identities: Identities
    diallers: Mapping[str, Dialler]
    warnings: tuple[str, ...] = ()
    cleared: set[str] = field(factory=set)

    def frontend(self, listener: Listener) -> Frontend:
        """
        Return the factory of a listener.
        """
        frontend = Frontend(listener.name, self.gate, self.identities.of(listener.name), self._routes(listener))
        self.renew(frontend, listener)
        return frontend

    def renew(self, frontend: Frontend, listener: Listener) -> None:
        """
        Have new sessions of a listener that stays run under this assembly.
        """
        frontend.name = listener.name
        frontend.implicit = listener.tls == "implicit"
        frontend.gate = self.gate
        frontend.keeper = self.identities.of(listener.name)
        frontend.routes = self._routes(listener)
        frontend.proxy_protocol_from = listener.proxy_protocol_from

    def _routes(self, listener: Listener) -> Routes:
        return translation.routes(listener, self.config, self.diallers)


def assemble(
    config: Config, reactor: IReactorTime, journal: Journal, own_name: str, previous: Assembly | None = None
) -> Assembly:
    """
    Make the parts. What the backends call themselves is known from a *previous* assembly.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    law = translation.rulebook(config)
    gate = Gate(
        reactor,
        law,
        journal,
        translation.limits(config.limits),
        translation.timeouts(config.limits),
        translation.bounds(config.limits),
        config.hostname,
        own_name,
        BareNewlines(config.message.bare_newlines),
    )
    diallers = {}
    problems: list[str] = []
    for group in config.backends:
        try:
            diallers[group.name] = translation.dialler(group, config, own_name, reactor, journal)
        except ConfigError as error:
            problems += error.problems
    warnings: list[str] = []
    for level in config.levels:
        faults, doubts = unknown_groups(f"{level.at}.groups", level.groups)
        problems += faults
        warnings += doubts
    if problems:
        raise ConfigError(tuple(problems))
    names = client_names(config, reactor)
    for group in config.backends:
        diallers[group.name].names = names if group.client_name == "dns" else None
    if previous is not None:
        for name, dialler in diallers.items():
            known = previous.diallers.get(name)
            dialler.hostname = None if known is None else known.hostname
    terms = {listener.name: translation.tls_terms(config, law, listener) for listener in config.listeners}
    return Assembly(config, gate, Identities(terms), diallers, tuple(warnings))
