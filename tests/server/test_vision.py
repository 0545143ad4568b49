"""What pictures that arrive together need is done in one call, and nobody waits for company."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.server.vision import BATCH, Looking, Together, Vision


@dataclass
class Recorder:
    """Adds to numbers: says how many were in one call, and can be held up."""

    batches: list[int] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def add(self, numbers: Sequence[int], more: int = 0) -> list[int]:
        self.go.wait(30)
        if 13 in numbers:
            raise mien.ModelError("thirteen")
        self.batches.append(len(numbers))
        return [number + more for number in numbers]

    def look(self, number: int) -> Looking[int]:
        result: int = yield Together(self.add, number, (100,))
        return result


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def vision(recorder: Recorder) -> Iterator[Vision]:
    vision = Vision(1)
    yield vision
    recorder.go.set()
    vision.close()


@pytest.fixture
def held(vision: Vision, recorder: Recorder) -> "Future[bool]":
    """The only thread waits until the recorder goes, so that all who come meanwhile are there."""
    return vision.run(recorder.go.wait, 30)


def results(futures: list[Future[int]]) -> list[int]:
    return [future.result(30) for future in futures]


def test_one_picture_waits_for_nobody(vision: Vision, recorder: Recorder) -> None:
    recorder.go.set()
    for number in range(3):
        assert vision.look(recorder.look, number).result(30) == 100 + number
    assert recorder.batches == [1, 1, 1]


def test_those_that_wait_are_done_together(
    vision: Vision, recorder: Recorder, held: "Future[bool]"
) -> None:
    futures = [vision.look(recorder.look, number) for number in range(2 * BATCH + 1)]
    recorder.go.set()
    assert results(futures) == [100 + number for number in range(2 * BATCH + 1)]
    assert recorder.batches == [BATCH, BATCH, 1]


def test_only_what_is_alike_is_done_together(
    vision: Vision, recorder: Recorder, held: "Future[bool]"
) -> None:
    def look(number: int) -> Looking[int]:
        result: int = yield Together(recorder.add, number, (1000 * (number % 2),))
        return result

    futures = [vision.look(look, number) for number in range(BATCH)]
    recorder.go.set()
    assert results(futures) == [number + 1000 * (number % 2) for number in range(BATCH)]
    assert recorder.batches == [2, 2]


def test_what_a_batch_needs_next_is_done_together_too(
    vision: Vision, recorder: Recorder, held: "Future[bool]"
) -> None:
    def look(times: int) -> Looking[int]:
        total = 0
        for _ in range(times):
            total = yield Together(recorder.add, total, (1,))
        return total

    futures = [vision.look(look, times) for times in (0, 1, 2, 2, 3)]
    recorder.go.set()
    assert results(futures) == [0, 1, 2, 2, 3]
    assert recorder.batches == [4, 3, 1]


def test_who_fails_alone_fails_nobody_else(
    vision: Vision, recorder: Recorder, held: "Future[bool]"
) -> None:
    def unreadable(_: int) -> Looking[int]:
        raise mien.UnreadableImage("a.jpg", "it is a poem")
        yield Together(recorder.add, 1)

    def refused(_: int) -> Looking[int]:
        yield Together(recorder.add, 1, (100,))
        raise mien.LowQuality("b.jpg", 0.0, ["blurred"])

    look = recorder.look
    futures = [vision.look(f, 1) for f in (look, unreadable, look, refused, look)]
    recorder.go.set()
    kinds = [type(future.exception(30)) for future in futures]
    nothing = type(None)
    assert kinds == [nothing, mien.UnreadableImage, nothing, mien.LowQuality, nothing]


def test_a_call_that_fails_is_told_to_all_who_were_in_it(
    vision: Vision, recorder: Recorder, held: "Future[bool]"
) -> None:
    def other(number: int) -> Looking[int]:
        result: int = yield Together(recorder.add, number)
        return result

    futures = [vision.look(recorder.look, 1), vision.look(recorder.look, 13)]
    apart = vision.look(other, 7)
    recorder.go.set()
    for future in futures:
        assert isinstance(future.exception(30), mien.ModelError)
    assert apart.result(30) == 7
    assert vision.look(recorder.look, 1).result(30) == 101


def test_closing_finishes_what_was_asked_for(recorder: Recorder) -> None:
    vision = Vision(3)
    futures = [vision.look(recorder.look, 1) for _ in range(20)]
    plain = vision.run(lambda number: number + 1, 41)
    recorder.go.set()
    vision.close()
    assert all(future.done() for future in futures)
    assert plain.result(0) == 42


def test_an_app_that_never_served_keeps_no_process_alive(tmp_path: Path) -> None:
    code = (
        "import mien\nfrom pathlib import Path\nfrom mien.server import create_app, Galleries\n"
        f"create_app(mien.load(), Galleries(Path({str(tmp_path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == 0


def test_together_or_alone_the_vectors_are_the_same(
    recognizer: mien.Recognizer, grace_jpg: bytes, eileen_jpg: bytes, both_jpg: bytes
) -> None:
    found = []
    for picture in (grace_jpg, both_jpg, eileen_jpg):
        image = mien.read_image(picture)
        found.append((image, recognizer.detector.detect(image)))
    together = recognizer.describe_batch([*found, (found[0][0], [])])
    assert [len(faces) for faces in together] == [1, 2, 1, 0]
    for one, faces in zip(found, together, strict=False):
        for alone, face in zip(recognizer.describe(*one), faces, strict=True):
            np.testing.assert_array_equal(alone.embedding.vector, face.embedding.vector)
            assert alone.quality == face.quality
