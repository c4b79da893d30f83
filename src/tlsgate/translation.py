"""
From the configuration's plain values to the values of the law, of TLS and of the wires.
"""

from collections.abc import Mapping

from attrs import evolve
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from tlsgate.config import Backend, Config, ConfigError, Listener
from tlsgate.config import Limits as LimitsTable
from tlsgate.config.endpoints import backend_address, backend_host
from tlsgate.net.deadlines import Timeouts
from tlsgate.net.dialler import ClientAddress, Dialler, Journal, Target
from tlsgate.net.identity import ClientIdentity
from tlsgate.net.limits import Limits
from tlsgate.net.pool import Pool, Spread
from tlsgate.net.routes import Route, Routes
from tlsgate.net.transparent import TransparentEndpoint
from tlsgate.operator.levels import BACKEND_LEVEL, levels
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.level import Level
from tlsgate.policy.names import NamePatterns
from tlsgate.policy.rules import Rule, Rulebook
from tlsgate.session.bounds import Bounds
from tlsgate.session.opening import BackendTls, OpeningPlan
from tlsgate.tls.certificates import CertificateFiles
from tlsgate.tls.client import BackendTrust
from tlsgate.tls.context import TlsTerms
from tlsgate.tls.files import CertificateError


def rulebook(config: Config) -> Rulebook:
    """
    Return the law.

    Raises:
        ConfigError: A level or a rule that cannot be.
    """
    known = levels(config)
    try:
        rules = [
            Rule(
                known[table.level],
                frozenset(table.listeners),
                table.clients,
                table.helo,
                table.sni,
                table.senders,
                table.recipients,
            )
            for table in config.rules
            if table.level is not None
        ]
        return Rulebook(
            rules,
            {listener.name: _own_level(listener, known) for listener in config.listeners},
            {listener.name: listener.exempt_recipients for listener in config.listeners if listener.exempt_recipients},
        )
    except PolicyError as error:
        raise ConfigError(tuple(f"{key}: {fault}" for key, fault in error.problems.items())) from error


def _own_level(listener: Listener, known: Mapping[str, Level]) -> Level:
    level = known[listener.level]
    return evolve(level, plaintext_auth=True) if listener.plaintext_auth else level


def tls_terms(config: Config, law: Rulebook, listener: Listener) -> TlsTerms:
    """
    Return what the handshakes at a listener are run under. A client certificate is asked for only where some level
    looks at it (RFC 8314 section 4.2), and sessions are resumed only where no rule looks at the SNI: in TLS 1.2 OpenSSL
    resumes one under any name, and tells of the first (RFC 6066 section 3).
    """
    table = config.tls
    by_sni = any(rule.sni for rule in config.rules if not rule.listeners or listener.name in rule.listeners)
    return TlsTerms(
        tuple(CertificateFiles(entry.chain, entry.key, entry.ocsp) for entry in table.certificates),
        floor=table.floor,
        legacy=table.legacy,
        client_ca=table.client_ca,
        client_crls=table.client_crls,
        request_client_certificate=law.requests_certificate(listener.name),
        alpn=table.alpn,
        unknown_sni=table.unknown_sni,
        resumption=table.resumption and not by_sni,
        hostname=config.hostname,
    )


def bounds(table: LimitsTable) -> Bounds:
    """
    Return the bounds of one session.
    """
    return Bounds(
        line_octets_max=table.line_octets_max,
        reply_octets_max=table.reply_octets_max,
        reply_lines_max=table.reply_lines_max,
        pipeline_max=table.pipeline_max,
        held_octets_max=table.held_octets_max,
        commands_before_tls_max=table.commands_before_tls_max,
        errors_max=table.errors_max,
    )


def limits(table: LimitsTable) -> Limits:
    """
    Return the bounds of all sessions together.
    """
    return Limits(table.sessions, table.sessions_per_client, table.sessions_per_second, table.handshakes_in_flight)


def timeouts(table: LimitsTable) -> Timeouts:
    """
    Return for how long each side may be silent.
    """
    return Timeouts(
        client_seconds=table.client_timeout_seconds,
        handshake_seconds=table.handshake_timeout_seconds,
        backend_seconds=table.backend_timeout_seconds,
        end_of_data_seconds=table.end_of_data_timeout_seconds,
        connect_seconds=min(30, table.backend_timeout_seconds),
        data_rate_octets_per_second_min=table.data_rate_octets_per_second_min,
    )


def dialler(group: Backend, config: Config, ehlo_name: str, reactor: IReactorTime, journal: Journal) -> Dialler:
    """
    Return the way to a group of backends. *ehlo_name* is our name where none is configured.

    Raises:
        ConfigError: An endpoint, or the trust in a backend's certificate, that cannot be.
    """
    targets = []
    problems = []
    for number, description in enumerate(group.endpoints):
        try:
            targets.append(_target(group, config, description, reactor))
        except (ValueError, TypeError, KeyError, CertificateError) as error:
            problems.append(f"{group.at}.endpoints[{number}]: {description!r} cannot be used: {error}")
    if problems:
        raise ConfigError(tuple(problems))
    return Dialler(
        name=group.name,
        clock=reactor,
        pool=Pool(tuple(targets), Spread(group.spread), group.probe_seconds),
        plan=OpeningPlan(config.hostname or ehlo_name, BackendTls(group.tls), config.limits.reply_octets_max),
        timeouts=timeouts(config.limits),
        journal=journal,
        client_address=ClientAddress(group.client_address),
        level=None if group.tls == "none" else levels(config)[group.tls_level or BACKEND_LEVEL],
        received_header=group.received_header,
        keywords=frozenset(word.upper().encode("ascii") for word in group.keywords),
    )


def _target(group: Backend, config: Config, description: str, reactor: IReactorTime) -> Target:
    plain: IStreamClientEndpoint = clientFromString(reactor, description)

    def endpoint(who: ClientIdentity | None) -> IStreamClientEndpoint:
        if who is None or who.address is None or group.client_address != "transparent":
            return plain
        host, port = backend_address(description)
        return TransparentEndpoint(reactor, host, port, who.address, timeouts(config.limits).connect_seconds)

    if group.tls == "none":
        return Target(description, endpoint)
    return Target(description, endpoint, BackendTrust(group.tls_name or backend_host(description) or "", group.tls_ca))


def routes(listener: Listener, config: Config, diallers: Mapping[str, Dialler]) -> Routes:
    """
    Return which group of backends the sessions of a listener go to.
    """
    return Routes(
        diallers[listener.backend],
        [
            Route(NamePatterns.of(rule.sni) if rule.sni else None, diallers[rule.backend])
            for rule in config.rules
            if rule.backend is not None and (not rule.listeners or listener.name in rule.listeners)
        ],
    )
