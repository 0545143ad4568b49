"""Faces of pictures that arrive together are embedded together, and nobody waits for company."""

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
from mien.server.vision import BATCH, Found, Looking, Vision
from mien.types import Box, Face, Image, Landmarks, RecognizedFace

PICTURE = Image(np.zeros((4, 4, 3), np.uint8))
FACE = Face(Box(0, 0, 1, 1), Landmarks(np.zeros((5, 2), np.float32)), 0.9)


@dataclass
class Recorder:
    """Stands for a recogniser: says which pictures were embedded together, and can be held up."""

    batches: list[int] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def describe_batch(self, found: Sequence[Found]) -> list[list[RecognizedFace]]:
        self.go.wait(30)
        if any(image.width == 13 for image, _ in found):
            raise mien.ModelError("thirteen")
        return [[RecognizedFace] * len(faces) for _, faces in found]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def vision(recorder: Recorder) -> Iterator[Vision]:
    vision = Vision(recorder.describe_batch, 1, recorder.batches.append)
    yield vision
    recorder.go.set()
    vision.close()


def look(number: int) -> Looking[int]:
    faces = yield PICTURE, [FACE] * number
    return len(faces)


def results(futures: list[Future[int]]) -> list[int]:
    return [future.result(30) for future in futures]


def test_one_picture_waits_for_nobody(vision: Vision, recorder: Recorder) -> None:
    recorder.go.set()
    for _ in range(3):
        assert vision.look(look, 1).result(30) == 1
    assert recorder.batches == [1, 1, 1]


def test_those_that_wait_are_embedded_together(vision: Vision, recorder: Recorder) -> None:
    first = vision.look(look, 1)  # its thread is held up while the others come
    others = [vision.look(look, 1) for _ in range(2 * BATCH + 1)]
    recorder.go.set()
    assert results([first, *others]) == [1] * (2 * BATCH + 2)
    assert max(recorder.batches) == BATCH
    assert sum(recorder.batches) == 2 * BATCH + 2
    assert len(recorder.batches) <= 5


def test_pictures_without_faces_and_with_many_hold_nobody_up(
    vision: Vision, recorder: Recorder
) -> None:
    futures = [vision.look(look, number) for number in (1, 0, 0, 0, 0, 0, 9, 1)]
    recorder.go.set()
    assert results(futures) == [1, 0, 0, 0, 0, 0, 9, 1]
    assert sum(recorder.batches) == 11


def test_who_fails_alone_fails_nobody_else(vision: Vision, recorder: Recorder) -> None:
    def unreadable(_: int) -> Looking[int]:
        raise mien.UnreadableImage("a.jpg", "it is a poem")
        yield PICTURE, []

    def refused(_: int) -> Looking[int]:
        yield PICTURE, [FACE]
        raise mien.LowQuality("b.jpg", 0.0, ["blurred"])

    futures = [vision.look(f, 1) for f in (look, unreadable, look, refused, look)]
    recorder.go.set()
    kinds = [type(future.exception(30)) for future in futures]
    nothing = type(None)
    assert kinds == [nothing, mien.UnreadableImage, nothing, mien.LowQuality, nothing]


def test_a_model_that_fails_is_told_to_all_in_the_batch(vision: Vision, recorder: Recorder) -> None:
    def thirteen(_: int) -> Looking[int]:
        yield Image(np.zeros((13, 13, 3), np.uint8)), [FACE]
        return 0

    held = vision.run(recorder.go.wait, 30)  # until all are there
    futures = [vision.look(f, 1) for f in (look, thirteen)]
    recorder.go.set()
    assert held.result(30)
    for future in futures:
        assert isinstance(future.exception(30), mien.ModelError)
    assert vision.look(look, 1).result(30) == 1


def test_closing_finishes_what_was_asked_for(recorder: Recorder) -> None:
    vision = Vision(recorder.describe_batch, 3, recorder.batches.append)
    futures = [vision.look(look, 1) for _ in range(20)]
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
