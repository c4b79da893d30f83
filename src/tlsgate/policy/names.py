"""
Domain names as rules see them: one spelling for each name, and patterns that match them.

A name's one spelling is lower case, A-labels (RFC 5890), no final dot. An address literal (RFC 5321 section 4.1.3) is
its address in brackets, without a tag.

A pattern is one of:

- `example.org`: this name;
- `*.example.org` or `.example.org`: every name below it, at any depth, but not the name itself;
- `[192.0.2.1]`: this address literal;
- `*`: every name, also a mailbox that has no domain;
- `<>`: no name at all: the null sender, a client that sent no SNI.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

import idna
from attrs import frozen

NOTHING = ""
DOMAINLESS = "."  # no domain has this spelling

# RFC 5321 section 4.5.3.1.2; also keeps the IDNA tables from being asked about whatever fits into a command line.
DOMAIN_OCTETS_MAX = 255

_ANYTHING = "*"
_NO_NAME = "<>"
_LITERAL_TAG = "ipv6:"
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def canonical(name: str) -> str:
    """
    Return the one spelling of the domain name or address literal *name*; what is neither becomes lower case.
    """
    if name.startswith("["):
        return _canonical_literal(name)
    if not name.isascii() and len(name) <= DOMAIN_OCTETS_MAX:
        # What is no name in any script keeps its characters, and so equals no pattern.
        with suppress(UnicodeError):
            name = ".".join(_a_label(label) for label in idna.uts46_remap(name, std3_rules=False).split("."))
    return name.rstrip(".").lower()


def key_of(name: str) -> str:
    """
    Return what patterns are matched with for a name given in EHLO, HELO or SNI.
    """
    return (canonical(name) or DOMAINLESS) if name else NOTHING


def is_name(spelling: str) -> bool:
    """
    Return whether the canonical *spelling* is that of a domain name or an address literal.
    """
    if not spelling.startswith("["):
        return _HOST.fullmatch(spelling) is not None
    try:
        return spelling == f"[{ip_address(spelling[1:-1])}]"
    except ValueError:
        return False


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    try:
        return idna.alabel(label).decode("ascii")
    except UnicodeError:
        return label


def _canonical_literal(name: str) -> str:
    name = name.lower()
    try:
        address = ip_address(name[1:].removesuffix("]").removeprefix(_LITERAL_TAG))
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return f"[{mapped or address}]"


@frozen
class NamePatterns:
    """
    A set of patterns; see the module for their forms.
    """

    exact: frozenset[str]
    parents: frozenset[str]
    anything: bool

    @classmethod
    def of(cls, patterns: Iterable[str]) -> "NamePatterns":
        """
        Return the set of *patterns*.

        Raises:
            ValueError: Some are no patterns; the message names each.
        """
        exact: set[str] = set()
        parents: set[str] = set()
        faults = []
        given = frozenset(patterns)
        for pattern in sorted(given - {_ANYTHING}):
            below = pattern.removeprefix("*").startswith(".")
            name = canonical(pattern.removeprefix("*").removeprefix(".") if below else pattern)
            if pattern == _NO_NAME:
                exact.add(NOTHING)
            elif not is_name(name) or (below and name.startswith("[")):
                faults.append(f"{pattern!a}")
            else:
                (parents if below else exact).add(name)
        if faults:
            raise ValueError(f"{', '.join(faults)}: not a domain name, a *.domain, an [address], * or <>")
        return cls(frozenset(exact), frozenset(parents), _ANYTHING in given)

    def match(self, key: str) -> bool:
        """
        Return whether one of the patterns matches *key* (from `key_of`, or a mailbox's).
        """
        if key in self.exact or (self.anything and key != NOTHING):
            return True
        if not self.parents:
            return False
        parent = key.partition(".")[2]
        while parent:
            if parent in self.parents:
                return True
            parent = parent.partition(".")[2]
        return False
