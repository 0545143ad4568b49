"""Threads that look at pictures. Faces of pictures that arrive together are embedded together.

One call of the network for several faces takes less time than a call for each, and nobody waits for
company: a thread embeds what has been found as soon as no picture waits to be looked at.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from mien.types import Face, Image, RecognizedFace

T = TypeVar("T")
R = TypeVar("R")

Found = tuple[Image, list[Face]]
Looking = Generator[Found, list[RecognizedFace], R]
"""Work on one picture that yields the faces to be embedded, at most once; they come described."""

BATCH = 4
"""Faces, or pictures, after which those found are embedded although more pictures wait. Four at
once take a fifth less time than one by one; sixteen, hardly less than four."""


class Vision:
    """As many threads as given. `describe_batch` is that of a recogniser.

    `on_batch` is told how many faces were embedded at once.
    """

    def __init__(
        self,
        describe_batch: Callable[[Sequence[Found]], list[list[RecognizedFace]]],
        threads: int,
        on_batch: Callable[[int], None],
    ) -> None:
        self._describe_batch = describe_batch
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._found: list[_Paused[Any]] = []
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, name=f"mien-vision-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[[T], R], item: T) -> Future[R]:
        """What `function` makes of an item."""
        future: Future[R] = Future()
        self._add(lambda: _settle(future, lambda: function(item)))
        return future

    def look(self, function: Callable[[T], Looking[R]], item: T) -> Future[R]:
        """What `function` makes of a picture, its faces embedded with those of others."""
        future: Future[R] = Future()
        self._add(lambda: self._start(future, function, item))
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
                if self._waiting and not self._enough():
                    task = self._waiting.popleft()
                elif self._found:
                    batch, self._found = self._found, []
                    task = partial(self._embed, batch)
                else:
                    return
            task()

    def _enough(self) -> bool:
        faces = sum(len(paused.found[1]) for paused in self._found)
        return faces >= BATCH or len(self._found) >= BATCH

    def _start(self, future: Future[R], function: Callable[[T], Looking[R]], item: T) -> None:
        try:
            looking = function(item)
            found = next(looking)
        except StopIteration as end:  # it needed nothing to be embedded
            future.set_result(end.value)
            return
        except BaseException as error:  # whoever waits for the answer gets it
            future.set_exception(error)
            return
        with self._changed:
            self._found.append(_Paused(found, looking, future))
            self._changed.notify()

    def _embed(self, batch: "list[_Paused[Any]]") -> None:
        try:
            described = self._describe_batch([paused.found for paused in batch])
        except BaseException as error:
            for paused in batch:
                paused.future.set_exception(error)
            return
        self._on_batch(sum(map(len, described)))
        for paused, faces in zip(batch, described, strict=True):
            paused.resume(faces)


@dataclass(frozen=True)
class _Paused(Generic[R]):
    """Work that waits for its faces to be embedded."""

    found: Found
    looking: Looking[R]
    future: Future[R]

    def resume(self, faces: list[RecognizedFace]) -> None:
        try:
            self.looking.send(faces)
        except StopIteration as end:
            self.future.set_result(end.value)
        except BaseException as error:  # as above
            self.future.set_exception(error)
        else:
            self.future.set_exception(RuntimeError("a picture's faces are embedded once"))


def _settle(future: Future[R], call: Callable[[], R]) -> None:
    try:
        result = call()
    except BaseException as error:  # as above
        future.set_exception(error)
    else:
        future.set_result(result)
