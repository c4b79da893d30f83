"""
A rule: conditions on the circumstances of a session, and the level that holds where they do.
"""

from collections.abc import Iterable
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import field, frozen

from tlsgate.policy.errors import PolicyError
from tlsgate.policy.facts import Circumstances
from tlsgate.policy.level import Level
from tlsgate.policy.mailbox import Mailbox
from tlsgate.policy.names import NamePatterns, key_of


def _texts(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


def _set(given: Iterable[str]) -> frozenset[str]:
    return frozenset(given)


def _networks(given: Iterable[IPv4Network | IPv6Network]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(given)


@frozen
class Keys:
    """
    Circumstances in the one spelling that patterns are matched with; `None`: not known.
    """

    listener: str
    client: IPv4Address | IPv6Address | None
    helo: str | None
    sni: str | None
    sender: str | None
    recipient: str | None

    @classmethod
    def of(cls, circumstances: Circumstances) -> "Keys":
        """
        Return *circumstances* in that spelling.
        """
        client, helo, sni = circumstances.client, circumstances.helo, circumstances.sni
        sender, recipient = circumstances.sender, circumstances.recipient
        mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
        return cls(
            circumstances.listener,
            mapped or client,
            None if helo is None else key_of(helo),
            None if sni is None else key_of(sni),
            None if sender is None else Mailbox.parse(sender).key,
            None if recipient is None else Mailbox.parse(recipient).key,
        )


@frozen
class Rule:
    """
    Conditions, all of which must hold, and the level that then does. An empty condition holds always.

    *helos*, *snis*, *senders* and *recipients* are patterns as in `tlsgate.policy.names`; of senders and recipients
    they match the domains.

    Raises:
        PolicyError: Some patterns are none.
    """

    level: Level
    listeners: frozenset[str] = field(default=frozenset(), converter=_set)
    clients: tuple[IPv4Network | IPv6Network, ...] = field(default=(), converter=_networks)
    helos: tuple[str, ...] = field(default=(), converter=_texts)
    snis: tuple[str, ...] = field(default=(), converter=_texts)
    senders: tuple[str, ...] = field(default=(), converter=_texts)
    recipients: tuple[str, ...] = field(default=(), converter=_texts)

    def __attrs_post_init__(self) -> None:
        problems = {}
        for key, patterns in self._named_patterns():
            try:
                NamePatterns.of(patterns)
            except ValueError as error:
                problems[key] = str(error)
        if problems:
            raise PolicyError(problems)

    def matches(self, circumstances: Circumstances) -> bool:
        """
        Return whether every condition holds; a condition on a fact that is not known does not.
        """
        return self.holds(Keys.of(circumstances))

    def holds(self, keys: Keys) -> bool:
        """
        Do what `matches` does, with circumstances spelled once for many rules.
        """
        if self.listeners and keys.listener not in self.listeners:
            return False
        client = keys.client
        if self.clients and (client is None or not any(client in network for network in self.clients)):
            return False
        values = (keys.helo, keys.sni, keys.sender, keys.recipient)
        return all(
            patterns is None or (value is not None and patterns.match(value))
            for patterns, value in zip(self._patterns, values, strict=True)
        )

    @cached_property
    def _patterns(self) -> tuple[NamePatterns | None, ...]:
        return tuple(NamePatterns.of(patterns) if patterns else None for _, patterns in self._named_patterns())

    def _named_patterns(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("helos", self.helos),
            ("snis", self.snis),
            ("senders", self.senders),
            ("recipients", self.recipients),
        )
