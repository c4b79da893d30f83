"""
The ways in which a network may cut what was sent.
"""

from collections.abc import Iterator
from itertools import pairwise


def two_way(data: bytes) -> Iterator[list[bytes]]:
    """
    Yield every cutting of *data* into two chunks, an empty one included.
    """
    for cut in range(len(data) + 1):
        yield [data[:cut], data[cut:]]


def bytewise(data: bytes) -> list[bytes]:
    """
    Return *data* cut into single octets.
    """
    return [data[i : i + 1] for i in range(len(data))]


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """
    Yield *data* whole, byte by byte, and at every two-way cut.
    """
    yield [data]
    yield bytewise(data)
    yield from two_way(data)


def at(data: bytes, cuts: list[int]) -> list[bytes]:
    """
    Return *data* cut at the positions *cuts*, in whatever order, each taken modulo its length.
    """
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
