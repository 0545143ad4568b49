"""How much each key, and all of them together, may ask at once."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mien.server.problems import Overloaded, TooManyRequests
from mien.server.settings import Settings


class Doors:
    """Lets requests in, or refuses them at once; nothing waits here.

    A key has a bucket of `burst` tokens that fills at `rate` a second; a request takes one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, float]] = {}  # by key: how many, and when
        self._inside: dict[str, int] = {}

    @property
    def inside(self) -> int:
        """How many requests are in work."""
        with self._lock:
            return sum(self._inside.values())

    def knock(self, key: str) -> None:
        """Count a request of a key. Raises `TooManyRequests` when it sends too fast."""
        now, most, rate = time.monotonic(), self._settings.burst, self._settings.rate
        with self._lock:
            tokens, before = self._tokens.get(key, (float(most), now))
            tokens = min(float(most), tokens + (now - before) * rate)
            allowed = tokens >= 1
            self._tokens[key] = (tokens - 1 if allowed else tokens, now)
        if not allowed:
            raise TooManyRequests(
                f"this key may send {rate:g} requests a second", _after((1 - tokens) / rate)
            )

    @contextmanager
    def enter(self, key: str) -> Iterator[None]:
        """A place for the work of one request. Raises `TooManyRequests` and `Overloaded`."""
        with self._lock:
            mine, all_ = self._inside.get(key, 0), sum(self._inside.values())
            if mine >= self._settings.concurrency:
                raise TooManyRequests(
                    f"this key may have {self._settings.concurrency} requests in work", _after(1)
                )
            if all_ >= self._settings.queue:
                raise Overloaded("as many requests are in work as this server takes", _after(1))
            self._inside[key] = mine + 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[key] -= 1
                if not self._inside[key]:
                    del self._inside[key]


class Places:
    """A number of places for pictures, waiting or at work, or for something else."""

    def __init__(self, count: int, what: str = "pictures") -> None:
        self._what = what
        self._lock = threading.Lock()
        self._count = count
        self._taken = 0

    @property
    def taken(self) -> int:
        return self._taken

    @contextmanager
    def take(self, wanted: int) -> Iterator[None]:
        """So many places at once, or none. Raises `Overloaded`."""
        with self._lock:
            if self._taken + wanted > max(self._count, wanted if not self._taken else 0):
                raise Overloaded(
                    f"as many {self._what} are in work as this server takes", _after(1)
                )
            self._taken += wanted
        try:
            yield
        finally:
            with self._lock:
                self._taken -= wanted


def _after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
