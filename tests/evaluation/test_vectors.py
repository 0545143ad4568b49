"""Embeddings of a whole protocol: nothing dropped, cached by content, resumed where it stopped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

import mien
from mien import cards
from mien.detection import only
from mien.embedding import normalize
from mien.errors import UnreadableImage
from mien.evaluation import vectors
from mien.evaluation.protocols import Picture
from mien.recognition import Recognizer
from mien.types import AlignedFace, Box, Face, Image, Landmarks

BUNDLE = cards.bundle("embedded")
POINTS = Landmarks(np.array([(12, 14), (28, 14), (20, 22), (14, 30), (26, 30)], np.float32))
FACE = Face(Box(5, 2, 35, 38), POINTS, 1.0)
T = TypeVar("T")


@dataclass
class Eyes:
    """A detector: one face in every picture that is not dark; it notes what it was shown."""

    card: cards.ModelCard = BUNDLE.detector
    seen: list[str] = field(default_factory=list)

    def detect(self, image: Image) -> list[Face]:
        self.seen.append(image.source)
        return [FACE] if image.pixels.mean() >= 8 else []


@dataclass
class Colour:
    """An embedder: the mean colour of the crop, shifted."""

    offset: float = 0.0
    card: cards.ModelCard = BUNDLE.embedder

    def embed_batch(self, faces: Sequence[AlignedFace]) -> NDArray[np.float32]:
        means = [face.pixels.reshape(-1, 3).mean(axis=0) + 1 + self.offset for face in faces]
        return normalize(np.array(means, np.float32).reshape(-1, 3))


def fake(contract: str = "fake@1", offset: float = 0.0, eyes: Eyes | None = None) -> Recognizer:
    return Recognizer(replace(BUNDLE, contract=contract), eyes or Eyes(), Colour(offset), 2)


@pytest.fixture
def pictures(tmp_path: Path, picture: Callable[..., Path]) -> list[Picture]:
    made = [Picture(f"{n}.png", picture(f"{n}.png", n)) for n in range(6)]
    mien.save_image(Image(np.zeros((9, 9, 3), np.uint8)), tmp_path / "black.png")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    return [
        *made,
        Picture("black", tmp_path / "black.png"),
        Picture("torn", (tmp_path / "torn.jpg").read_bytes()),
    ]


def test_nothing_is_dropped(pictures: list[Picture]) -> None:
    made = vectors.embed(fake(), pictures)
    assert made.matrix.shape == (8, 3)
    assert set(made.failures) == {6, 7}
    assert "no face found in black" in made.failures[6]
    assert made.usable.tolist() == [True] * 6 + [False] * 2
    a, b = np.array([0, 0, 6]), np.array([0, 6, 7])
    assert made.scores(a, b) == pytest.approx([1.0, -1.0, -1.0], abs=1e-6)


def test_the_second_time_comes_from_the_cache(pictures: list[Picture], tmp_path: Path) -> None:
    first, second = Eyes(), Eyes()
    before = vectors.embed(fake(eyes=first), pictures, cache=tmp_path / "c")
    after = vectors.embed(fake(eyes=second), pictures[::-1], cache=tmp_path / "c")
    assert (before.fresh, after.fresh) == (8, 0)
    names = {picture.name for picture in pictures}
    assert names - set(first.seen) == {"torn"}  # it could not be decoded
    assert not names & set(second.seen)
    assert np.array_equal(before.matrix, after.matrix[::-1])
    assert before.failures[6] == after.failures[1]
    renamed = [Picture("other", p.source) for p in pictures]
    again = vectors.embed(fake(), renamed, cache=tmp_path / "c")
    assert again.fresh == 0  # content counts, names do not


@pytest.mark.parametrize(
    "other", [fake(contract="fake@2"), fake(offset=9.0)], ids=["contract", "output"]
)
def test_what_another_recogniser_made_is_not_used(
    pictures: list[Picture], tmp_path: Path, other: Recognizer
) -> None:
    vectors.embed(fake(), pictures, cache=tmp_path / "c")
    assert vectors.embed(other, pictures, cache=tmp_path / "c").fresh == 8


def test_neither_is_another_choice_of_face(pictures: list[Picture], tmp_path: Path) -> None:
    cache = tmp_path / "c"
    vectors.embed(fake(), pictures, cache=cache)
    assert vectors.embed(fake(), pictures, cache=cache, choose=only).fresh == 8
    crops = vectors.embed(fake(), pictures, cache=cache, landmarks=FACE.landmarks)
    assert crops.fresh == 8
    assert set(crops.failures) == {7}  # nothing was detected, so nothing was missed


def test_a_run_that_was_stopped_goes_on(pictures: list[Picture], tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
        for number, item in enumerate(items):
            yield item
            if number == 3:
                raise Stopped

    with pytest.raises(Stopped):
        vectors.embed(fake(), pictures, cache=tmp_path / "c", progress=stop)
    assert vectors.embed(fake(), pictures, cache=tmp_path / "c").fresh in range(1, 5)


def test_a_damaged_cache_is_made_again(pictures: list[Picture], tmp_path: Path) -> None:
    vectors.embed(fake(), pictures, cache=tmp_path / "c")
    for path in (tmp_path / "c").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert vectors.embed(fake(), pictures, cache=tmp_path / "c").fresh == 8


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"none\.jpg"):
        vectors.embed(fake(), [Picture("x", tmp_path / "none.jpg")])
