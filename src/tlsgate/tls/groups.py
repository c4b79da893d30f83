"""
Key exchange groups that this OpenSSL knows: a level that demands others, misspelt or too new, would refuse everybody.
"""

from collections.abc import Sequence

from OpenSSL import SSL

from tlsgate.tls.native import knows_group


def unknown_groups(at: str, demanded: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Return what is wrong with the groups that a level demands: faults, and what is only to be warned of.

    *at* is the key that lists them. One that is unknown does no harm where another can be used.
    """
    texts = [
        f"{at}[{index}]: {library()} knows no key exchange group {group!r}"
        for index, group in enumerate(demanded)
        if not knows_group(group)
    ]
    if len(texts) < len(demanded):
        return [], texts
    return [f"{text}; the level would refuse everybody" for text in texts], []


def library() -> str:
    """
    Return name and version of the TLS library in use.
    """
    return " ".join(SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace").split()[:2])
