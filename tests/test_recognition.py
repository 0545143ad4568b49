"""mien.recognition: the main path on real pictures, and streams of them."""

import io
import os
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import mien
from mien.alignment import align_views
from mien.recognition import ordered_map, processors
from mien.types import Image, RecognizedFace
from pictures import resized

THREADS = [1, 2, 4]


def same(a: list[RecognizedFace], b: list[RecognizedFace]) -> bool:
    return len(a) == len(b) and all(
        x.face.box == y.face.box and np.array_equal(x.embedding.vector, y.embedding.vector)
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(params=["eileen", "grace"])
def portrait(request: pytest.FixtureRequest) -> Image:
    image: Image = request.getfixturevalue(request.param)
    return image


# ------------------------------------------------------------------------------ one picture


def test_recognize(recognizer: mien.Recognizer, both: Image) -> None:
    faces = recognizer.recognize(both)
    assert [found.face.confidence for found in faces] == sorted(
        (found.face.confidence for found in faces), reverse=True
    )
    assert len(faces) == 2
    for found in faces:
        assert found.embedding.contract == recognizer.contract
        assert np.linalg.norm(found.embedding.vector) == pytest.approx(1, abs=1e-6)
        assert found.quality.value > 0.8


def test_every_kind_of_source(
    recognizer: mien.Recognizer, eileen: Image, eileen_file: Path
) -> None:
    expected = recognizer.recognize(eileen)
    sources = [
        eileen_file, str(eileen_file), eileen_file.read_bytes(), eileen.pixels,
        PIL.Image.fromarray(eileen.pixels),
    ]  # fmt: skip
    for source in sources:
        assert same(recognizer.recognize(source), expected)


def test_describe_in_one_batch_equals_one_by_one(recognizer: mien.Recognizer, both: Image) -> None:
    faces = recognizer.detector.detect(both)
    together = recognizer.describe(both, faces)
    alone = [recognizer.describe(both, [face])[0] for face in faces]
    assert same(together, alone)
    for found in together:
        assert recognizer.assess(both, found.face) == found.quality


def test_no_face(recognizer: mien.Recognizer) -> None:
    blank = Image(np.full((100, 100, 3), 200, np.uint8), "blank.png")
    assert recognizer.recognize(blank) == []
    with pytest.raises(mien.NoFaceFound, match=r"blank\.png"):
        recognizer.embed(blank)
    with pytest.raises(mien.NoFaceFound):
        recognizer.verify(blank, blank)


def test_several_faces(recognizer: mien.Recognizer, both: Image, grace: Image) -> None:
    with pytest.raises(mien.SeveralFacesFound, match=r"2 faces found in both\.png") as caught:
        recognizer.embed(both)
    assert caught.value.count == 2
    largest = recognizer.embed(both, choose=mien.largest)
    assert largest.face.box.left > 512
    assert mien.similarity(largest.embedding, recognizer.embed(grace).embedding) > 0.99


def test_verify(recognizer: mien.Recognizer, eileen: Image, grace: Image) -> None:
    mirror = Image(np.ascontiguousarray(eileen.pixels[:, ::-1]))
    same_person = recognizer.verify(eileen, mirror)
    assert same_person.match
    assert same_person.score > same_person.operating_point.threshold
    different = recognizer.verify(eileen, grace, fmr=1e-2)
    assert not different.match
    assert different.operating_point.fmr == 1e-2
    assert different.operating_point.contract == recognizer.contract
    with pytest.raises(mien.NoOperatingPoint):
        recognizer.verify(eileen, grace, fmr=1e-12)
    with pytest.raises(mien.InputError):
        recognizer.verify(eileen, grace, fmr=2)


def test_accurate_bundle(eileen: Image, grace: Image, recognizer: mien.Recognizer) -> None:
    accurate = mien.load("embedded-accurate")
    assert accurate.contract != recognizer.contract
    answer = accurate.verify(eileen, grace)
    assert not answer.match
    with pytest.raises(mien.ContractMismatch):
        mien.similarity(accurate.embed(eileen).embedding, recognizer.embed(eileen).embedding)
    batch, single = accurate.recognize(eileen), accurate.recognize(eileen.pixels)
    assert same(batch, single)


def test_unknown_model() -> None:
    with pytest.raises(mien.UnknownModel, match="embedded") as caught:
        mien.load("nonesuch")
    assert "embedded" in caught.value.known


@pytest.mark.parametrize("option", [{"precision": "bf16"}, {"threads": -1}, {"min_face": -3}])
def test_options_that_make_no_sense(option: dict[str, object]) -> None:
    with pytest.raises(mien.MienError):
        mien.load("embedded", **option)


def test_views_of_each_face_are_averaged(both: Image) -> None:
    """With eight crops a face and two faces, each vector is made of its own eight."""
    accurate = mien.load("embedded-accurate")
    faces = accurate.detector.detect(both)
    for face, found in zip(faces, accurate.describe(both, faces), strict=True):
        crops = align_views(both, face.landmarks, accurate.frame, 8)
        mean = accurate.embedder.embed_batch(crops).mean(axis=0)
        np.testing.assert_allclose(found.embedding.vector, mean / np.linalg.norm(mean), atol=1e-6)


# ------------------------------------------------------------------------------ invariance


@pytest.mark.parametrize(
    ("format", "quality"), [("png", 1), ("webp", 90), ("jpeg", 95), ("jpeg", 75)]
)
def test_file_format_does_not_matter(
    recognizer: mien.Recognizer, portrait: Image, format: str, quality: int
) -> None:
    again = mien.encode_image(portrait, format, quality=quality)
    score = recognizer.embed(again).embedding.vector @ recognizer.embed(portrait).embedding.vector
    assert score >= 0.99
    if format == "png":
        assert score == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_does_not_matter(
    recognizer: mien.Recognizer, eileen: Image, orientation: int
) -> None:
    """Stored turned, with the tag that turns it back: the same pixels, hence the same vector."""
    turns = PIL.Image.Transpose
    stored = {
        1: None, 2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE, 6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270,
    }[orientation]  # fmt: skip
    picture = PIL.Image.fromarray(eileen.pixels)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    (picture if stored is None else picture.transpose(stored)).save(stream, "PNG", exif=exif)
    assert same(recognizer.recognize(stream.getvalue()), recognizer.recognize(eileen))


@pytest.mark.parametrize("factor", [0.7, 0.8, 0.9, 1.3, 2, 3.3])
def test_scale_does_not_matter(recognizer: mien.Recognizer, portrait: Image, factor: float) -> None:
    scaled = resized(portrait, round(portrait.width * factor), round(portrait.height * factor))
    score = mien.similarity(
        recognizer.embed(scaled).embedding, recognizer.embed(portrait).embedding
    )
    assert score >= 0.99


@pytest.mark.parametrize("shift", [(1, 0), (0, 3), (7, 7), (40, 13), (333, 200)])
def test_place_in_the_picture_does_not_matter(
    recognizer: mien.Recognizer, portrait: Image, shift: tuple[int, int]
) -> None:
    right, down = shift
    padded = np.pad(portrait.pixels, ((down, 0), (right, 0), (0, 0)), constant_values=128)
    score = mien.similarity(
        recognizer.embed(padded).embedding, recognizer.embed(portrait).embedding
    )
    assert score >= 0.99


# ------------------------------------------------------------------------------ many pictures


@pytest.fixture(scope="module")
def album(eileen: Image, grace: Image, both: Image) -> list[Image]:
    blank = Image(np.full((80, 120, 3), 90, np.uint8))
    small = resized(grace, 128, 150)
    return [eileen, blank, both, small, grace, blank, eileen, both, small, grace, both]


@pytest.mark.parametrize("threads", THREADS)
def test_batch_equals_one_by_one(
    recognizer: mien.Recognizer, album: list[Image], threads: int
) -> None:
    expected = [recognizer.recognize(image) for image in album]
    found = list(mien.load(threads=threads).recognize_batch(album))
    assert [len(faces) for faces in found] == [len(faces) for faces in expected]
    assert all(map(same, found, expected))


@pytest.mark.parametrize("threads", THREADS)
def test_batch_takes_endless_streams(eileen: Image, threads: int) -> None:
    """Nothing is pulled before it is needed, and never more than a few pictures ahead."""
    small = resized(eileen, 128, 128)
    pulled = 0

    def endless() -> Iterator[Image]:
        nonlocal pulled
        while True:
            pulled += 1
            yield small

    stream = mien.load(threads=threads).recognize_batch(endless())
    assert pulled == 0
    for taken, faces in enumerate(islice(stream, 12), start=1):
        assert len(faces) == 1
        assert taken <= pulled <= taken + 2 * threads + 2
    stream.close()
    after = pulled
    time.sleep(0.1)
    assert pulled == after


@pytest.mark.parametrize("threads", THREADS)
def test_batch_raises_where_the_picture_is(
    album: list[Image], threads: int, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.jpg"
    stream = mien.load(threads=threads).recognize_batch([*album[:3], missing, *album[3:]])
    assert [len(next(stream)) for _ in range(3)] == [1, 0, 2]
    with pytest.raises(mien.UnreadableImage, match=r"missing\.jpg"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("threads", THREADS)
def test_batch_goes_on_with_on_error(album: list[Image], threads: int, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    seen = []

    def note(source: mien.images.Source, error: mien.InputError) -> list[RecognizedFace]:
        seen.append((source, type(error)))
        return []

    recognizer = mien.load(threads=threads)
    found = list(recognizer.recognize_batch([album[0], bad, b"", album[2]], note))
    assert [len(faces) for faces in found] == [1, 0, 0, 2]
    assert sorted(seen, key=str) == sorted(
        [(bad, mien.UnreadableImage), (b"", mien.UnreadableImage)], key=str
    )


def test_batch_of_nothing(recognizer: mien.Recognizer) -> None:
    assert list(recognizer.recognize_batch([])) == []


# ------------------------------------------------------------------------------ ordered_map


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("mien")]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_ordered_map_keeps_order(threads: int) -> None:
    """Although the first items take longest."""

    def work(number: int) -> int:
        time.sleep(0.01 if number % 5 == 0 else 0)
        return number * number

    assert list(ordered_map(work, range(60), threads)) == [n * n for n in range(60)]


def test_ordered_map_runs_side_by_side() -> None:
    """Two items that wait for each other finish only when both are in flight."""
    barrier = threading.Barrier(2, timeout=10)
    assert len(list(ordered_map(lambda _: barrier.wait(), range(4), 2))) == 4


@pytest.mark.parametrize("threads", [2, 4])
def test_abandoned_iterator_stops_the_workers(threads: int) -> None:
    started = []

    def work(number: int) -> int:
        started.append(number)
        time.sleep(0.005)
        return number

    stream = ordered_map(work, count(), threads)
    assert next(stream) == 0
    assert workers()
    stream.close()  # what leaving a loop does, too
    assert workers() == []
    assert len(started) <= 2 * threads


@pytest.mark.parametrize("threads", [1, 3])
def test_error_of_the_source_reaches_the_caller(threads: int) -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise OSError("unplugged")

    stream = ordered_map(lambda number: number, broken(), threads)
    with pytest.raises(OSError, match="unplugged"):
        list(stream)
    assert workers() == []


@pytest.mark.parametrize("threads", [1, 3])
def test_error_of_an_item_ends_the_stream(threads: int) -> None:
    stream = ordered_map(lambda number: 1 // (4 - number), range(100), threads)
    assert list(islice(stream, 4)) == [0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert workers() == []


def test_processors() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
