"""
One question to many at once.
"""

from threading import Barrier, Lock

import pytest

from tlsgate.operator.together import together

SECONDS = 10.0


def test_results_come_in_order_though_all_work_is_done_at_once() -> None:
    barrier = Barrier(4)

    def work(number: int) -> int:
        barrier.wait(SECONDS)
        return number * 2

    assert list(together(work, [3, 1, 2, 0], 4)) == [6, 2, 4, 0]


def test_no_more_than_so_many_at_once() -> None:
    """
    Of four, two have to be done before the others begin.
    """
    barrier, lock = Barrier(2), Lock()
    active, most = 0, 0

    def work(number: int) -> int:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        barrier.wait(SECONDS)
        with lock:
            active -= 1
        barrier.wait(SECONDS)
        return number

    assert list(together(work, [1, 2, 3, 4], 2)) == [1, 2, 3, 4]
    assert most == 2


def test_nothing_to_ask() -> None:
    assert list(together(str, [], 4)) == []


def test_an_error_is_raised_where_its_result_is_asked_for() -> None:
    results = together(lambda number: 1 // number, [1, 0], 4)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
