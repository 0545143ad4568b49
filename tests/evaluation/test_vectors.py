from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.detection import only
from mien.errors import NoFaceFound, UnreadableImage
from mien.evaluation import vectors
from mien.evaluation.protocols import Picture
from mien.images import Source, read_image
from mien.types import Box, Embedding, Face, Image, Landmarks, Quality, RecognizedFace

FACE = Face(Box(0, 0, 10, 10), Landmarks(np.arange(10, dtype=np.float32).reshape(5, 2)), 1.0)


@dataclass
class Fake:
    """A recogniser whose embedding is the mean colour; pictures darker than 8 have no face."""

    contract: str = "fake@1"
    offset: float = 0.0
    threads: int = 2
    seen: list[str] = field(default_factory=list)

    def embed(self, source: Source, choose: object = only) -> RecognizedFace:
        image = read_image(source)
        self.seen.append(image.source)
        if image.pixels.mean() < 8:
            raise NoFaceFound(image.source)
        return self.describe(image, [FACE])[0]

    def recognize(self, source: Source) -> list[RecognizedFace]:
        return self.describe(read_image(source), [FACE])

    def describe(self, image: Image, faces: Sequence[Face]) -> list[RecognizedFace]:
        mean = image.pixels.reshape(-1, 3).mean(axis=0) + 1 + self.offset
        vector = (mean / np.linalg.norm(mean)).astype(np.float32)
        return [
            RecognizedFace(face, Quality(1.0), Embedding(vector, self.contract)) for face in faces
        ]


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
    made = vectors.embed(Fake(), pictures)  # type: ignore[arg-type] # the few methods it has
    assert made.matrix.shape == (8, 3)
    assert set(made.failures) == {6, 7}
    assert "no face found in black" in made.failures[6]
    assert made.usable.tolist() == [True] * 6 + [False] * 2
    a, b = np.array([0, 0, 6]), np.array([0, 6, 7])
    assert made.scores(a, b) == pytest.approx([1.0, -1.0, -1.0], abs=1e-6)


def test_the_second_time_comes_from_the_cache(pictures: list[Picture], tmp_path: Path) -> None:
    first, second = Fake(), Fake()
    before = vectors.embed(first, pictures, cache=tmp_path / "c")  # type: ignore[arg-type]
    after = vectors.embed(second, pictures[::-1], cache=tmp_path / "c")  # type: ignore[arg-type]
    assert (before.fresh, after.fresh) == (8, 0)
    assert second.seen == []
    assert np.array_equal(before.matrix, after.matrix[::-1])
    assert before.failures[6] == after.failures[1]
    renamed = [Picture("other", p.source) for p in pictures]
    again = vectors.embed(Fake(), renamed, cache=tmp_path / "c")  # type: ignore[arg-type]
    assert again.fresh == 0  # content counts, names do not


@pytest.mark.parametrize("other", [Fake(contract="fake@2"), Fake(offset=9.0)])
def test_what_another_recogniser_made_is_not_used(
    pictures: list[Picture], tmp_path: Path, other: Fake
) -> None:
    vectors.embed(Fake(), pictures, cache=tmp_path / "c")  # type: ignore[arg-type]
    assert vectors.embed(other, pictures, cache=tmp_path / "c").fresh == 8  # type: ignore[arg-type]


def test_neither_is_another_choice_of_face(pictures: list[Picture], tmp_path: Path) -> None:
    cache = tmp_path / "c"
    vectors.embed(Fake(), pictures, cache=cache)  # type: ignore[arg-type]
    assert vectors.embed(Fake(), pictures, cache=cache, choose=only).fresh == 8  # type: ignore[arg-type]
    crops = vectors.embed(Fake(), pictures, cache=cache, landmarks=FACE.landmarks)  # type: ignore[arg-type]
    assert crops.fresh == 8
    assert set(crops.failures) == {7}  # nothing was detected, so nothing was missed


def test_a_run_that_was_stopped_goes_on(
    pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(items: object, total: int, unit: str) -> object:
        for number, item in enumerate(items):  # type: ignore[call-overload]
            yield item
            if number == 3:
                raise Stopped

    with pytest.raises(Stopped):
        vectors.embed(Fake(), pictures, cache=tmp_path / "c", progress=stop)  # type: ignore[arg-type]
    assert vectors.embed(Fake(), pictures, cache=tmp_path / "c").fresh in range(1, 5)  # type: ignore[arg-type]


def test_a_damaged_cache_is_made_again(pictures: list[Picture], tmp_path: Path) -> None:
    vectors.embed(Fake(), pictures, cache=tmp_path / "c")  # type: ignore[arg-type]
    for path in (tmp_path / "c").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert vectors.embed(Fake(), pictures, cache=tmp_path / "c").fresh == 8  # type: ignore[arg-type]


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"none\.jpg"):
        vectors.embed(Fake(), [Picture("x", tmp_path / "none.jpg")])  # type: ignore[arg-type]
