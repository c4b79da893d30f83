"""
The levels of a configuration as the law knows them.
"""

from collections.abc import Mapping

from tlsgate.config import Config, ConfigError
from tlsgate.config import Level as LevelTable
from tlsgate.policy.errors import PolicyError
from tlsgate.policy.level import BUILT_IN, ClientCertificate, Level, Tls
from tlsgate.policy.ramp import Ramp

BACKEND_LEVEL = "strong"  # of the TLS toward a backend, unless the configuration names another


def _level(table: LevelTable) -> Level:
    ramp = table.enforce
    enforcement = ramp if isinstance(ramp, bool) else Ramp(ramp.start, ramp.share, ramp.reject_from)
    return Level(
        table.name,
        Tls(table.tls),
        min_version=table.min_version,
        min_bits=table.min_bits,
        aead=table.aead,
        forward_secrecy=table.forward_secrecy,
        authenticated=table.authenticated,
        groups=table.groups,
        client_certificate=ClientCertificate(table.client_certificate),
        client_names=table.client_names,
        client_fingerprints=frozenset(table.client_fingerprints),
        enforcement=enforcement,
        help=table.help or "",
        plaintext_auth=table.plaintext_auth,
    )


def levels(config: Config) -> Mapping[str, Level]:
    """
    Return every level by its name, the built-in ones among them.

    Raises:
        ConfigError: A level that cannot be judged.
    """
    known = dict(BUILT_IN)
    problems = []
    for table in config.levels:
        try:
            known[table.name] = _level(table)
        except PolicyError as error:
            problems += [f"{table.at}.{key}: {fault}" for key, fault in error.problems.items()]
    if problems:
        raise ConfigError(tuple(problems))
    return known
