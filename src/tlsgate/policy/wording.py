"""
Text that may stand in a reply: printable ASCII of bounded length, whatever a client or its certificate says.
"""

from collections.abc import Sequence

ELLIPSIS = "..."


def clipped(text: str, octets_max: int) -> str:
    """
    Return *text* (ASCII), its end replaced by an ellipsis if it is longer than *octets_max*.
    """
    return text if len(text) <= octets_max else text[: octets_max - len(ELLIPSIS)] + ELLIPSIS


def printable(text: str, octets_max: int) -> str:
    r"""
    Return *text* fit for a reply: backslash, control and non-ASCII characters become escapes such as ``\x0d``.
    """
    # Cut before escaping as well: a certificate may be large, and an escape is never shorter than its character.
    return clipped(text[: octets_max + 1].encode("unicode_escape").decode("ascii"), octets_max)


def listed(parts: Sequence[str]) -> str:
    """
    Return *parts* as an enumeration: "a", "a and b", "a, b and c".
    """
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
