"""Checks of a set: copies, wrong names and shared people that were planted are found."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import InputError
from mien.evaluation.protocols import Picture
from mien.evaluation.vectors import Vectors, embed
from mien.recognition import Recognizer
from mien.training.preparation import check
from mien.training.preparation.check import Looks, fingerprint
from mien.training.preparation.sets import Listed, list_pictures
from mien.types import Image


def differing(a: np.ndarray, b: np.ndarray) -> int:
    return int((fingerprint(a) != fingerprint(b)).sum())


def again(pixels: np.ndarray, quality: int, size: float = 1.0) -> np.ndarray:
    """A picture scaled and compressed once more."""
    picture = PIL.Image.fromarray(pixels)
    picture = picture.resize((round(picture.width * size), round(picture.height * size)))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(stream).convert("RGB"))


# ------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize(("quality", "size"), [(95, 1.0), (50, 1.0), (75, 0.5), (75, 1.7)])
def test_a_picture_made_anew_looks_the_same(
    eileen: Image, grace: Image, quality: int, size: float
) -> None:
    for image in (eileen, grace):
        assert differing(image.pixels, again(image.pixels, quality, size)) <= 16


def test_other_pictures_look_different(eileen: Image, grace: Image) -> None:
    assert differing(eileen.pixels, grace.pixels) > 60
    assert differing(eileen.pixels, eileen.pixels[40:, 40:]) > 30


def test_copies_exact_and_near_and_mirrored(tmp_path: Path, eileen: Image, grace: Image) -> None:
    prints = [
        eileen.pixels, eileen.pixels, again(eileen.pixels, 60), grace.pixels,
        again(np.ascontiguousarray(grace.pixels[:, ::-1]), 80),
    ]  # fmt: skip
    for number, pixels in enumerate(prints):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "5.jpg").write_text("no picture")
    looks = [check.look(picture) for picture in list_pictures(tmp_path)]
    found = {(copy.first, copy.second): copy.exact for copy in check.copies(looks, 16)}
    assert found == {(0, 1): True, (0, 2): False, (3, 4): False}
    assert looks[5].looks is None
    assert "it looks like text" in looks[5].reason


@given(seed=st.integers(0, 50), bits=st.integers(0, 140))
def test_copies_against_a_loop(seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    prints = random.random((7, 256)) < 0.5
    prints[3] = prints[1] ^ (random.random(256) < 0.05)
    turned = random.random((7, 256)) < 0.5
    turned[5] = prints[2]
    looks = [Looks(str(i), prints[i], turned[i]) for i in range(7)]
    expected = {}
    for a in range(7):
        for b in range(a + 1, 7):
            plain = int((prints[a] != prints[b]).sum())
            least = min(plain, int((prints[a] != turned[b]).sum()))
            if least <= bits:
                expected[a, b] = least
    found = {(copy.first, copy.second): copy.bits for copy in check.copies(looks, bits)}
    assert found == expected


def test_the_mirrored_print_is_that_of_the_mirror_image(eileen: Image, grace: Image) -> None:
    for image in (eileen, grace):
        turned = np.ascontiguousarray(image.pixels[:, ::-1])
        assert (check.mirrored(image.pixels) == fingerprint(turned)).mean() > 0.99
        assert (check.mirrored(image.pixels) == fingerprint(image.pixels)).mean() < 0.9


def test_a_missing_picture_is_unreadable(tmp_path: Path) -> None:
    gone = check.look(Listed("ada", "ada/1.jpg", tmp_path / "1.jpg"))
    assert gone.looks is None
    assert "ada/1.jpg" in gone.reason


# -------------------------------------------------------------------------------------- wrong names


@pytest.fixture(scope="module")
def celebrities(data: Path, recognizer: Recognizer) -> tuple[Vectors, list[Listed]]:
    """The first twelve people of a real set."""
    pictures = list_pictures(data / "celebrities" / "validation")
    people = sorted({picture.subject for picture in pictures})[:12]
    pictures = [picture for picture in pictures if picture.subject in people]
    return embed(recognizer, [Picture(p.source, p.path) for p in pictures]), pictures


def crowd(people: int, each: int, spread: float, seed: int = 0) -> tuple[Vectors, list[str]]:
    """Made-up embeddings: a direction a person, and pictures around it."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((people, 32))
    rows = np.repeat(centres, each, axis=0) + spread * random.standard_normal((people * each, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"p{person:02}" for person in range(people) for _ in range(each)]
    return Vectors(rows.astype(np.float32), {}, "made-up", len(rows)), names


@pytest.mark.parametrize("each", [3, 8])
def test_planted_wrong_names_are_found(each: int) -> None:
    vectors, names = crowd(12, each, 0.4)
    assert not check.suspects(vectors, names, rate=0.001)
    wrong = {1: "p05", 2 * each: "p11", 7 * each + 1: "p03"}
    for row, name in wrong.items():
        names[row] = name
    found = check.suspects(vectors, names, rate=0.001)
    assert wrong.keys() <= {one.row for one in found[: len(wrong) + 1]}
    true = {row: f"p{row // each:02}" for row in wrong}
    assert {one.row: one.like for one in found if one.row in wrong} == true
    assert [one.doubt for one in found] == sorted((one.doubt for one in found), reverse=True)


def test_a_stranger_to_everyone_is_doubted() -> None:
    vectors, names = crowd(12, 6, 0.4)
    odd = np.zeros(32, np.float32)
    odd[0] = 1.0
    vectors.matrix[20] = odd
    assert check.suspects(vectors, names)[0].row == 20


def test_people_with_one_picture_are_not_doubted() -> None:
    vectors, names = crowd(6, 1, 0.4)
    assert check.suspects(vectors, names) == []


def test_pictures_without_a_face_are_left_out() -> None:
    vectors, names = crowd(6, 4, 0.3)
    matrix = vectors.matrix.copy()
    matrix[5] = 0
    without = Vectors(matrix, {5: "no face"}, "made-up", 24)
    assert 5 not in {one.row for one in check.suspects(without, names)}
    assert check.typical(without, names).keys() == set(names)


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_wrong_names_in_a_real_set(celebrities: tuple[Vectors, list[Listed]], share: float) -> None:
    """Names are swapped among celebrities; nine in ten have to be found, few others doubted."""
    vectors, pictures = celebrities
    names = np.array([picture.subject for picture in pictures])
    random = np.random.default_rng(0)
    rows = random.choice(len(names), max(2, int(share * len(names))), replace=False)
    for row in rows:
        names[row] = random.choice([name for name in names if name != names[row]])
    found = {one.row for one in check.suspects(vectors, names.tolist())}
    assert len(found & set(rows.tolist())) >= 0.9 * len(rows)
    assert len(found - set(rows.tolist())) <= 0.02 * len(names)


# ------------------------------------------------------------------------------------------ overlap


def test_names_are_compared_without_case_and_separators() -> None:
    found = check.overlap_by_name(
        ["George_W_Bush", "Ada", "Chopra Priyanka", "Noa"],
        ["george w. bush", "ada2", "Priyanka Chopra", ""],
    )
    assert [(one.here, one.there) for one in found] == [
        ("George_W_Bush", "george w. bush"), ("Chopra Priyanka", "Priyanka Chopra"),
    ]  # fmt: skip


def test_shared_people_are_found_by_face() -> None:
    vectors, names = crowd(20, 6, 0.3)
    rows = np.arange(len(names))
    ours, theirs = rows % 6 < 3, rows % 6 >= 3
    ours &= np.array([name < "p12" for name in names])
    theirs &= np.array([name >= "p09" for name in names])

    def part(mask: np.ndarray, prefix: str) -> tuple[Vectors, list[str]]:
        chosen = np.flatnonzero(mask)
        matrix = vectors.matrix[chosen]
        return Vectors(matrix, {}, "made-up", len(chosen)), [prefix + names[i] for i in chosen]

    found = check.overlap_by_face(part(ours, "here "), part(theirs, "there "))
    assert {(one.here, one.there) for one in found[:3]} == {
        (f"here p{number:02}", f"there p{number:02}") for number in (9, 10, 11)
    }
    assert len(found) < 8  # candidates, of 108 pairs of people
    apart = check.overlap_by_face(part(ours & (np.arange(120) < 54), ""), part(theirs, ""))
    assert all(one.score < 0.9 for one in apart)


# ---------------------------------------------------------------------------------------- imbalance


def test_balance() -> None:
    even = check.balance(["a", "b", "c"] * 4)
    assert (even.people, even.pictures, even.fewest, even.most) == (3, 12, 4, 4)
    assert even.effective == pytest.approx(3)
    skewed = check.balance(["a"] * 98 + ["b", "c"])
    assert skewed.single == 2
    assert 1 < skewed.effective < 1.2
    with pytest.raises(InputError, match="no pictures"):
        check.balance([])
