"""
One question to many at once: threads that nobody waits for if the operator has seen enough.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def together(work: Callable[[T], R], items: Sequence[T], at_once_max: int) -> Iterator[R]:
    """
    Do *work* for all *items*, for *at_once_max* of them at once; yield the results in the order of the items.

    The threads are daemons. Those of an executor would be waited for at the end of the process, so that Ctrl-C would
    have no effect before the slowest backend has answered, or has not.
    """
    results: list[Future[R]] = [Future() for _ in items]
    waiting, lock = iter(zip(items, results, strict=True)), Lock()

    def go_on() -> None:
        while True:
            with lock:
                entry = next(waiting, None)
            if entry is None:
                return
            item, result = entry
            try:
                result.set_result(work(item))
            except Exception as error:  # noqa: BLE001 - raised again for whoever asks for this result
                result.set_exception(error)

    for _ in range(min(len(items), at_once_max)):
        Thread(target=go_on, name="together", daemon=True).start()
    for result in results:
        yield result.result()
