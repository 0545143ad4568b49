"""What Prometheus is told: requests, the time each stage takes, what waits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The figures of one app, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mien_requests", "Requests answered.", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._latency = Histogram(
            "mien_request_seconds", "From the first byte of a request to its answer.", ["route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._stages = Histogram(
            "mien_stage_seconds", "Time at work in a stage, waiting not counted.", ["stage"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._faces = Histogram(
            "mien_faces_per_picture", "Faces found in a picture.",
            buckets=(0, 1, 2, 4, 8, 16, 32, 64), registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "mien_faces_per_batch", "Faces embedded together, of one request or several.",
            buckets=(0, 1, 2, 4, 8, 16, 32, 64), registry=self._registry,
        )  # fmt: skip
        self._busy = Gauge("mien_requests_in_work", "Requests let in.", registry=self._registry)
        self._queue = Gauge(
            "mien_pictures_in_work", "Pictures waiting or at work.", registry=self._registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern, never the address: that may name a person."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block that is one stage of the work."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - start)

    def faces(self, count: int) -> None:
        """Count the faces of a picture."""
        self._faces.observe(count)

    def embedded(self, count: int) -> None:
        """Count the faces of a batch."""
        self._batches.observe(count)

    def text(self, busy: int, queue: int, sizes: dict[str, int]) -> bytes:
        """Everything in Prometheus' text format; `sizes` gives the templates of each gallery."""
        self._busy.set(busy)
        self._queue.set(queue)
        passing = CollectorRegistry()  # who may see which gallery differs from caller to caller
        gauge = Gauge("mien_gallery_templates", "Templates.", ["gallery"], registry=passing)
        for name, size in sizes.items():
            gauge.labels(name).set(size)
        return generate_latest(self._registry) + generate_latest(passing)
