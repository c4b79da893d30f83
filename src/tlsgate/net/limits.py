"""
How many sessions and handshakes there may be. A session that may not begin is told so, and why (RFC 5321 section 3.8).
"""

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TypeAlias

from attrs import define, field

from tlsgate.smtp import reply as replies
from tlsgate.smtp.reply import Reply

Address: TypeAlias = IPv4Address | IPv6Address


def network(address: Address) -> str:
    """
    Return the network that counts as one client: the /32 in IPv4, the /64 in IPv6, which one customer is given whole.
    """
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, 64), strict=False).network_address)


@define(eq=False)
class Limits:
    """
    The bounds that all sessions share. *sessions_per_second* 0 is "off".
    """

    sessions_max: int = 10_000
    sessions_per_client_max: int = 100
    sessions_per_second_max: int = 0
    handshakes_max: int = 1_000
    sessions: int = 0
    handshakes: int = 0
    _by_client: Counter[str] = field(factory=Counter)
    _allowance: float = 0.0
    _counted_at: float | None = None

    def moved_to(self, other: "Limits") -> "Limits":
        """
        Take the bounds of *other*, and go on counting.
        """
        self.sessions_max = other.sessions_max
        self.sessions_per_client_max = other.sessions_per_client_max
        self.sessions_per_second_max = other.sessions_per_second_max
        self.handshakes_max = other.handshakes_max
        return self

    def admit(self, client: Address | None, now: float) -> Reply | None:
        """
        Count a session in and return `None`, or return why it may not begin. *now* is in seconds.
        """
        key = None if client is None else network(client)
        if key is not None and self._by_client[key] >= self.sessions_per_client_max:
            return replies.TOO_MANY_SESSIONS_OF_YOURS
        # Last, so that nobody spends of the allowance of all who is not let in anyway.
        if self.sessions >= self.sessions_max or not self._in_time(now):
            return replies.TOO_MANY_SESSIONS
        if key is not None:
            self._by_client[key] += 1
        self.sessions += 1
        return None

    def leave(self, client: Address | None) -> None:
        """
        Count a session out that was admitted.
        """
        self.sessions -= 1
        if client is not None:
            key = network(client)
            self._by_client[key] -= 1
            if not self._by_client[key]:
                del self._by_client[key]

    def handshake_possible(self) -> bool:
        """
        Return whether one more handshake may be under way.
        """
        return self.handshakes < self.handshakes_max

    def _in_time(self, now: float) -> bool:
        """
        Spend a session of this second's allowance (a bucket of one second's size).
        """
        most = self.sessions_per_second_max
        if not most:
            return True
        if self._counted_at is None:
            self._allowance = most
        else:
            self._allowance = min(most, self._allowance + (now - self._counted_at) * most)
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
