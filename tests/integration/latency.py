"""
Whether what the gate does beside a client's handshake is noticed by the client.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

MEASURED_SESSIONS = 60
ROUNDS_MAX = 3  # machines that are shared stumble; what is slow is so in every round


def assert_unnoticed(
    measured: Callable[[int], Mapping[str, Sequence[float]]], record_property: Callable[[str, object], None]
) -> None:
    """
    Fail if sessions with something take longer than those without, beyond noise, in every round.

    *measured* returns the seconds of both for a round, those without first; sessions should be interleaved, so that what
    else the machine does meets both alike.
    """
    for number in range(ROUNDS_MAX):
        (without, least), (beside, most) = (
            (name, statistics.median(seconds)) for name, seconds in measured(number).items()
        )
        told = f"STARTTLS session: {without} {least * 1000:.2f} ms, {beside} {most * 1000:.2f} ms ({most / least:.2f})"
        record_property("latency", told)
        print(told)  # noqa: T201 - the number is of interest also where it is good enough
        if most < max(least * 1.3, least + 0.015):
            return
    raise AssertionError(told)
