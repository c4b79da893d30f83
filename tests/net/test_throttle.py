"""
Several reasons to pause one transport: none undoes another, in whatever order they come and go.
"""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport as _StringTransport

from tlsgate.net.throttle import Buffer, Throttle

# Twisted is typed in part.
StringTransport: Any = _StringTransport

REASONS = ("the backend's buffer is full", "the client's buffer is full", "a reply decides what comes next")


@pytest.mark.parametrize("order", list(permutations(REASONS)))
def test_it_is_read_again_when_the_last_reason_is_gone(order: tuple[str, ...]) -> None:
    transport = StringTransport()
    throttle = Throttle(transport, lambda: None)
    for reason in REASONS:
        throttle.pause(reason)
        assert transport.producerState == "paused"
    for reason in order[:-1]:
        throttle.resume(reason)
        assert transport.producerState == "paused"
    throttle.resume(order[-1])
    assert transport.producerState == "producing"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(REASONS))))
def test_it_is_read_exactly_while_there_is_no_reason_not_to(steps: list[tuple[bool, str]]) -> None:
    transport = StringTransport()
    throttle = Throttle(transport, lambda: None)
    reasons: set[str] = set()
    for pause, reason in steps:
        (throttle.pause if pause else throttle.resume)(reason)
        (reasons.add if pause else reasons.discard)(reason)
        assert transport.producerState == ("paused" if reasons else "producing")
        assert all(throttle.paused_for(each) == (each in reasons) for each in REASONS)


def test_the_same_reason_twice_is_one() -> None:
    transport = StringTransport()
    throttle = Throttle(transport, lambda: None)
    throttle.pause(REASONS[0])
    throttle.pause(REASONS[0])
    throttle.resume(REASONS[0])
    assert transport.producerState == "producing"


def test_an_end_without_a_beginning_is_none() -> None:
    """A transport that is closing must not be told to go on for nothing."""
    transport = StringTransport()
    transport.loseConnection()
    Throttle(transport, lambda: None).resume(REASONS[0])  # raises if passed on


def test_a_full_buffer_stops_all_that_fill_it() -> None:
    first, second = StringTransport(), StringTransport()
    throttles = [Throttle(first, lambda: None), Throttle(second, lambda: None)]
    buffer = Buffer(REASONS[0], throttles)
    throttles[1].pause(REASONS[1])
    buffer.pauseProducing()
    assert (first.producerState, second.producerState) == ("paused", "paused")
    buffer.resumeProducing()
    assert (first.producerState, second.producerState) == ("producing", "paused")
