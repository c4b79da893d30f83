"""
How a level's enforcement grows: audited until a date, then refused with 4xx for a share of clients, then 5xx for all.

The share is taken of client networks by a hash of network and level: a client is always treated alike, two levels hit
different clients, and a grown share keeps refusing those that it refused when it was smaller. No state is kept.
"""

from datetime import UTC, date, datetime, time
from enum import Enum
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from attrs import field, frozen
from attrs.converters import optional

from tlsgate.policy.errors import PolicyError

# One host of IPv4, and what is usually one customer of IPv6: as the limits count clients.
IPV4_NETWORK_OCTETS = 4
IPV6_NETWORK_OCTETS = 8
HASH_OCTETS = 8


class Enforcement(Enum):
    """
    What becomes of a client that does not meet a level.
    """

    ENFORCED = "refused for good"
    DEFERRED = "refused for now, with a 4xx reply"
    AUDITED = "let through, and recorded"


def instant(moment: date) -> datetime:
    """
    Return *moment* with a time zone: a date is its first instant, a time without a zone is UTC.
    """
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@frozen
class Ramp:
    """
    Audit before *start*; from then on 4xx for *share* percent of the clients; from *reject_from* on 5xx for all.

    Raises:
        PolicyError: *share* is no percentage, or *reject_from* lies before *start*.
    """

    start: datetime = field(converter=instant)
    share: int = 100
    reject_from: datetime | None = field(default=None, converter=optional(instant))

    def __attrs_post_init__(self) -> None:
        problems = {}
        if not 0 <= self.share <= 100:
            problems["share"] = f"{self.share} is not a percentage (0 to 100)"
        if self.reject_from is not None and self.reject_from < self.start:
            problems["reject_from"] = "lies before the start of the ramp"
        if problems:
            raise PolicyError(problems)


def enforcement(of: Ramp | bool, client: IPv4Address | IPv6Address | None, now: datetime, name: str) -> Enforcement:  # noqa: FBT001  # the value of `enforce`, not a switch
    """
    Return what becomes *now* of a *client* that does not meet the level called *name*, enforced as *of* says.

    A client without an address (a UNIX socket) has no network to be chosen by: only a share of 100 includes it.
    """
    if not isinstance(of, Ramp):
        return Enforcement.ENFORCED if of else Enforcement.AUDITED
    now = instant(now)
    if of.reject_from is not None and now >= of.reject_from:
        return Enforcement.ENFORCED
    if now >= of.start and _position(client, name) < of.share:
        return Enforcement.DEFERRED
    return Enforcement.AUDITED


def _position(client: IPv4Address | IPv6Address | None, name: str) -> int:
    """
    Return where *client* stands in the queue of those to be refused, from 0 (first) to 99.
    """
    if client is None:
        return 99
    # A dual-stack socket shows IPv4 clients as mapped addresses, which would all be one /64.
    mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
    address = mapped or client
    network = address.packed[: IPV4_NETWORK_OCTETS if isinstance(address, IPv4Address) else IPV6_NETWORK_OCTETS]
    digest = blake2b(name.encode() + b"\0" + network, digest_size=HASH_OCTETS).digest()
    return int.from_bytes(digest, "big") * 100 >> 8 * HASH_OCTETS
