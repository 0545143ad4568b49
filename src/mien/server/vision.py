"""Threads that look at pictures. What pictures that arrive together need is done for all at once.

One call of the network for several faces takes less time than a call for each, and one search for
several probes less than a search for each. Nobody waits for company: a thread goes on with what
has been found as soon as no picture waits to be looked at.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

BATCH = 4
"""Pictures after which those found are gone on with although more wait to be looked at. Four
at once take a fifth less time than one by one; sixteen, hardly less than four."""


@dataclass(frozen=True, slots=True)
class Together:
    """Something to be done for an item and for those of other pictures in one call.

    `function(items, *shared)` gives a result for each item. Items with equal functions and equal
    `shared` go into one call.
    """

    function: Callable[..., Sequence[Any]]
    item: Any
    shared: tuple[object, ...] = ()


Looking = Generator[Together, Any, R]
"""Work on one picture that yields what it needs to have done, and is sent the result."""


class Vision:
    """As many threads as given."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._found: list[_Paused[Any]] = []
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, name=f"mien-vision-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[[T], R], item: T) -> Future[R]:
        """What `function` makes of an item."""
        future: Future[R] = Future()
        self._add(partial(_settle, future, function, item))
        return future

    def look(self, function: Callable[[T], Looking[R]], item: T) -> Future[R]:
        """What `function` makes of a picture; what it yields is done with that of others."""
        future: Future[R] = Future()
        self._add(partial(self._start, function(item), future))
        return future

    def close(self) -> None:
        """Return when all that was asked for is done."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _add(self, task: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._found or self._ended)
                if self._waiting and len(self._found) < BATCH:
                    task = self._waiting.popleft()
                elif self._found:
                    batch, self._found = self._found, []
                    task = partial(_go_on, batch)
                else:
                    return
            task()

    def _start(self, looking: Looking[R], future: Future[R]) -> None:
        for paused in _resume(looking, future, None):
            with self._changed:
                self._found.append(paused)
                self._changed.notify()


@dataclass(frozen=True, slots=True)
class _Paused(Generic[R]):
    """Work that waits for something to be done."""

    needs: Together
    looking: Looking[R]
    future: Future[R]


def _resume(looking: Looking[R], future: Future[R], result: object) -> "list[_Paused[R]]":
    """Let work go on with a result: to where it needs something again, or to its end."""
    try:
        return [_Paused(looking.send(result), looking, future)]
    except StopIteration as end:
        future.set_result(end.value)
    except BaseException as error:  # whoever waits for the answer gets it
        future.set_exception(error)
    return []


def _go_on(batch: "list[_Paused[Any]]") -> None:
    """Do what the works of a batch need, then what they need after that, until they are done."""
    while batch:
        alike: dict[tuple[object, ...], list[_Paused[Any]]] = {}
        for paused in batch:
            alike.setdefault((paused.needs.function, paused.needs.shared), []).append(paused)
        batch = [after for group in alike.values() for after in _do(group)]


def _do(group: "list[_Paused[Any]]") -> "list[_Paused[Any]]":
    needs = group[0].needs
    try:
        results = needs.function([paused.needs.item for paused in group], *needs.shared)
    except BaseException as error:  # as above
        for paused in group:
            paused.future.set_exception(error)
        return []
    return [
        after
        for paused, result in zip(group, results, strict=True)
        for after in _resume(paused.looking, paused.future, result)
    ]


def _settle(future: Future[R], function: Callable[[T], R], item: T) -> None:
    try:
        result = function(item)
    except BaseException as error:  # as above
        future.set_exception(error)
    else:
        future.set_result(result)
