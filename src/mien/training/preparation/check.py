"""What is wrong with a set of pictures of people: copies, wrong names, strangers to nobody's good.

Everything here only looks. What it finds is written as tables that the other steps can leave out.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.errors import InputError, MissingExtra, UnreadableImage
from mien.evaluation.vectors import Vectors
from mien.images import read_image
from mien.recognition import ordered_map
from mien.training.preparation.sets import Listed

Ints = NDArray[np.int64]
Print = NDArray[np.bool_]  # (256,)

_CHUNK = 1024


@dataclass(frozen=True, eq=False, slots=True)
class Looks:
    """What a picture is by its bytes and by its looks, as it is and mirrored (`fingerprint`).

    `looks` and `mirrored` are None where it is unreadable, for `reason`.
    """

    sha256: str
    looks: Print | None
    mirrored: Print | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """Two pictures (rows) that are the same, and by how many of 256 bits they differ in looks."""

    first: int
    second: int
    bits: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture (row) that may bear the wrong name.

    `own` is its score against the other pictures of its person, `other` against the person it is
    most like, who is `like`; `needed` is the score that few strangers reach in this set.
    """

    row: int
    own: float
    other: float
    like: str
    needed: float

    @property
    def doubt(self) -> float:
        """How much more it looks like somebody else, or less like its own person than needed."""
        return max(self.other, self.needed) - self.own


@dataclass(frozen=True, slots=True)
class Overlap:
    """A person here and one of another set who may be the same, and why that is thought."""

    here: str
    there: str
    by: str
    score: float


# -------------------------------------------------------------------------------------- one picture


def look(picture: Listed) -> Looks:
    """The hash of a picture's file and a digest of its looks (256 bits; `fingerprint`)."""
    try:
        data = picture.path.read_bytes()
    except OSError as error:
        reason = str(UnreadableImage(picture.source, error.strerror or str(error)))
        return Looks("", None, None, reason)
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels = read_image(data).pixels
        return Looks(digest, fingerprint(pixels), mirrored(pixels))
    except (InputError, MissingExtra) as error:
        return Looks(digest, None, None, str(error))


def look_at(
    pictures: Sequence[Listed],
    threads: int,
    progress: Callable[[Iterable[Looks], int, str], Iterator[Looks]],
) -> list[Looks]:
    """`look` at many pictures, in parallel."""
    return list(progress(ordered_map(look, pictures, threads), len(pictures), "picture"))


def fingerprint(pixels: NDArray[np.uint8]) -> Print:
    """Whether each of 16 x 16 places is clearly brighter than the one to its right: 256 bits.

    Stays nearly the same when a picture is scaled, compressed again or made brighter (the
    "difference hash"; Zauner, "Implementation and benchmarking of perceptual image hash
    functions", 2010, compares the family).
    """
    small = _thumbnail(pixels)
    found: Print = (small[:, :-1] > small[:, 1:] + _FLAT).ravel()
    return found


def mirrored(pixels: NDArray[np.uint8]) -> Print:
    """The `fingerprint` of the mirror image."""
    small = _thumbnail(pixels)[:, ::-1]
    found: Print = (small[:, :-1] > small[:, 1:] + _FLAT).ravel()
    return found


_FLAT = 2  # grey levels: less is the noise of compression, in even backgrounds


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    grey = PIL.Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((17, 16), PIL.Image.Resampling.BOX), np.int16)


# ------------------------------------------------------------------------------------------- copies


def copies(looks: Sequence[Looks], bits: int) -> list[Copy]:
    """Pairs of pictures with the same bytes, or whose looks differ in at most `bits` of 256.

    A picture and its mirror image count too. Each exact copy is named once, beside the first.
    Compares all pairs: n * n * 512 operations.
    """
    found = []
    first: dict[str, int] = {}
    rows = []
    for row, one in enumerate(looks):
        if one.sha256 and one.sha256 in first:
            found.append(Copy(first[one.sha256], row, 0, exact=True))
            continue
        first[one.sha256] = row
        if one.looks is not None:
            rows.append(row)
    if len(rows) < 2:
        return found
    plain, turned = (
        np.stack([2.0 * p - 1 for p in prints if p is not None]).astype(np.float32)
        for prints in ([looks[row].looks for row in rows], [looks[row].mirrored for row in rows])
    )
    for start in range(0, len(rows), _CHUNK):
        part = plain[start : start + _CHUNK]
        agreeing = np.maximum(part @ plain.T, part @ turned.T)  # 256 - 2 * differing bits
        ours, others = np.nonzero(agreeing >= 256 - 2 * bits)
        for a, b in zip((ours + start).tolist(), others.tolist(), strict=True):
            if a < b:
                differing = round((256 - float(agreeing[a - start, b])) / 2)
                found.append(Copy(rows[a], rows[b], differing, exact=False))
    return found


# -------------------------------------------------------------------------------------- wrong names


def suspects(vectors: Vectors, subjects: Sequence[str], *, rate: float = 0.01) -> list[Suspect]:
    """Pictures that are more like somebody else, or no more like their person than a stranger.

    A picture is compared with the mean direction of its person's other pictures, of which those
    least like the rest do not count, and with that of everyone else. "No more than a stranger"
    is the score that a share `rate` of those other comparisons reach in this very set, so it holds
    for any model. People with one picture cannot be checked. Most doubtful first.
    """
    names, person = np.unique(np.array(subjects), return_inverse=True)
    usable = np.flatnonzero(vectors.usable)
    if len(names) < 2 or not usable.size:
        return []
    matrix, person = vectors.matrix[usable], person[usable]
    trusted = _trusted(matrix, person)
    centres, sums = _centres(matrix, person, trusted, len(names))
    own = np.full(len(matrix), np.nan)
    other, like = np.full(len(matrix), -np.inf), np.zeros(len(matrix), np.int64)
    strangers: list[NDArray[np.float32]] = []
    for start in range(0, len(matrix), _CHUNK):
        part = slice(start, start + _CHUNK)
        scores = matrix[part] @ centres.T
        mine = np.arange(len(scores)), person[part]
        rest = sums[person[part]] - np.where(trusted[part, None], matrix[part], 0)
        length = np.linalg.norm(rest, axis=1)
        ours = np.einsum("ij,ij->i", matrix[part], rest) / np.maximum(length, 1e-9)
        own[part] = np.where(length > 1e-6, ours, np.nan)
        scores[mine] = -np.inf
        like[part], other[part] = scores.argmax(axis=1), scores.max(axis=1)
        strangers.append(_sample(scores[np.isfinite(scores)]))
    needed = float(np.quantile(np.concatenate(strangers), 1 - rate))
    found = [
        Suspect(int(usable[i]), float(own[i]), float(other[i]), str(names[like[i]]), needed)
        for i in np.flatnonzero((own < other) | (own < needed)).tolist()
    ]
    return sorted(found, key=lambda suspect: -suspect.doubt)


def _trusted(matrix: NDArray[np.float32], person: Ints) -> NDArray[np.bool_]:
    """Which pictures (n,) stand for their person: all but the fifth least like the others' middle.

    The middle is the picture with the highest median score against the others, so that it is of
    the person even when almost half of the pictures are not.
    """
    trusted = np.ones(len(matrix), bool)
    for number in np.unique(person):
        rows = np.flatnonzero(person == number)
        if len(rows) < 5:
            continue
        scores = matrix[rows] @ matrix[rows].T
        middle = int(np.median(scores, axis=1).argmax())
        least = np.argsort(scores[middle], kind="stable")[: len(rows) // 5]
        trusted[rows[least]] = False
    return trusted


def _centres(
    matrix: NDArray[np.float32], person: Ints, trusted: NDArray[np.bool_], people: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean direction of each person (people, dim), and the sums they come from."""
    sums = np.zeros((people, matrix.shape[1]), np.float32)
    np.add.at(sums, person[trusted], matrix[trusted])
    length = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return sums / length, sums


def _sample(scores: NDArray[np.float32], most: int = 200_000) -> NDArray[np.float32]:
    """Evenly spread ones of many scores: enough for a quantile."""
    return scores[:: max(1, len(scores) // most)]


def typical(vectors: Vectors, subjects: Sequence[str]) -> dict[str, int]:
    """For each person the picture (row) that is most like their mean; any one without a face."""
    names, person = np.unique(np.array(subjects), return_inverse=True)
    found = {str(names[number]): row for row, number in reversed(list(enumerate(person.tolist())))}
    usable = np.flatnonzero(vectors.usable)
    matrix, person = vectors.matrix[usable], person[usable]
    centres, _ = _centres(matrix, person, _trusted(matrix, person), len(names))
    own = np.einsum("ij,ij->i", matrix, centres[person])
    for i in np.argsort(own, kind="stable").tolist():
        found[str(names[person[i]])] = int(usable[i])
    return found


# ------------------------------------------------------------------------------------------ overlap


def overlap_by_name(here: Iterable[str], there: Iterable[str]) -> list[Overlap]:
    """People of two sets whose names are the same but for case, accents kept, and separators."""
    known = {_plain(name): name for name in there if _plain(name)}
    return [
        Overlap(name, known[_plain(name)], "name", 1.0)
        for name in dict.fromkeys(here)
        if _plain(name) in known
    ]


def _plain(name: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in name.casefold()).split()
    return " ".join(sorted(words))


def overlap_by_face(
    here: tuple[Vectors, Sequence[str]], there: tuple[Vectors, Sequence[str]], *, rate: float = 0.01
) -> list[Overlap]:
    """People of two sets who look the same, best first.

    They do when their mean directions score what different people of one set reach so rarely that
    a share `rate` of the people here would find a look-alike there by chance. Holds for any model;
    people with one picture each are the hardest to tell apart.
    """
    (ours, our_names), (theirs, their_names) = (_people(*part) for part in (here, there))
    if not our_names or not their_names:
        return []
    strangers = np.concatenate([_between(ours), _between(theirs)])
    needed = float(np.quantile(strangers, 1 - rate / len(theirs))) if strangers.size else 1.0
    found = []
    for start in range(0, len(ours), _CHUNK):
        scores = ours[start : start + _CHUNK] @ theirs.T
        for a, b in np.argwhere(scores > needed).tolist():
            score = float(scores[a, b])
            found.append(Overlap(our_names[start + a], their_names[b], "face", score))
    return sorted(found, key=lambda one: -one.score)


def _between(centres: NDArray[np.float32], most: int = 4000) -> NDArray[np.float32]:
    """The scores of different people of one set, of evenly spread ones where there are many."""
    some = centres[:: max(1, len(centres) // most)]
    scores: NDArray[np.float32] = (some @ some.T)[np.triu_indices(len(some), 1)]
    return scores


def _people(vectors: Vectors, subjects: Sequence[str]) -> tuple[NDArray[np.float32], list[str]]:
    """The mean direction (m, dim) of everyone who has an embedding, and their names."""
    names, person = np.unique(np.array(subjects), return_inverse=True)
    rows = np.flatnonzero(vectors.usable)
    matrix, person = vectors.matrix[rows], person[rows]
    centres, sums = _centres(matrix, person, _trusted(matrix, person), len(names))
    there = np.linalg.norm(sums, axis=1) > 1e-6
    return centres[there], [str(name) for name in names[there]]


# ---------------------------------------------------------------------------------------- imbalance


@dataclass(frozen=True, slots=True)
class Balance:
    """How pictures are spread over people. `effective` is how many equal people they amount to.

    That is the exponential of the entropy of the shares: it equals `people` when everyone has as
    many, and is far below it when a few have most.
    """

    people: int
    pictures: int
    fewest: int
    median: float
    most: int
    single: int
    effective: float


def balance(subjects: Sequence[str]) -> Balance:
    """How evenly pictures are spread. Raises `InputError` for no pictures."""
    if not len(subjects):
        raise InputError("there are no pictures to count")
    counts = np.unique(np.array(subjects), return_counts=True)[1]
    shares = counts / counts.sum()
    return Balance(
        len(counts), int(counts.sum()), int(counts.min()), float(np.median(counts)),
        int(counts.max()), int((counts == 1).sum()),
        float(np.exp(-(shares * np.log(shares)).sum())),
    )  # fmt: skip
