"""What quality is worth: errors against the share of faces rejected. And how its costs were fitted.

    python benchmarks/quality.py --data ../shared/data --cache DIR [--plot FILE] [--fit]

The error-versus-reject curve (Grother and Tabassi, 2007): with the threshold fixed at FMR 1e-3 on
all impostor pairs of peopleDevTrain, the comparisons whose worse face is worst are left out, and
FNMR of the rest should fall. Shown for quality, for the detector's confidence and for the length
of the embedding before it is scaled. Pairs are genuine pairs of peopleDevTrain (on which the
costs were fitted) and of peopleDevTest; a person with n faces weighs as much as n pairs do.

`--fit` prints the tables of mien.quality: a logistic regression of "missed at FMR 1e-3" on the
costs of both faces, each a sum of ramps that can only rise, on the pictures themselves and on
copies spoilt by one of eight means (scale, blur, dark, bright, flat, noise, covering, JPEG).
Three quarters of the weight lies on the pictures as they are. Needs scipy and matplotlib.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
from numpy.typing import NDArray

import mien
from mien.alignment import align
from mien.detection import central
from mien.quality import chance, costs_of, measures
from mien.recognition import Recognizer, ordered_map
from mien.types import Face, Image

Floats = NDArray[np.float64]
FMR = 1e-3
REJECT = (0.0, 0.05, 0.1, 0.2, 0.3)
SPOILT = 2000  # copies to fit on

# Where each cost may start to rise. A minus: the measure is worse when it is smaller.
KNOTS = {
    "detector unsure": (-3.5, -3, -2.5, -2, -1),
    "turned away": (15, 25, 35),
    "raised or lowered": (10, 20, 30),
    "landmarks do not fit": (0.15, 0.2, 0.25),
    "blurred": (-1.5, -2, -2.5, -3, -3.5),
    "noisy": (-2.6, -2.2, -1.8, -1.4),
    "eyes unclear": (-1, -1.4, -1.8, -2.4, -3),
    "mouth unclear": (-1, -1.5, -2, -2.5),
    "too bright": (190, 205, 220, 235),
    "low contrast": (4.3, 3.4, 2.6, 1.8, 1),
}
FALLING = ("blurred", "eyes unclear", "mouth unclear", "low contrast")
ENDS = {"detector unsure": 0.0, "turned away": 90.0, "raised or lowered": 60.0,
        "landmarks do not fit": 0.5, "blurred": -6.0, "noisy": 0.0, "eyes unclear": -6.0,
        "mouth unclear": -6.0, "too bright": 255.0, "low contrast": -2.0}  # fmt: skip
ALONE = ("turned away", "landmarks do not fit")
"""These cost at least what they cost when nothing else is known: the detector's confidence says
much of the same, and other detectors say it differently."""


@dataclass(frozen=True)
class Faces:
    """One face a picture; `found` is False where there was none."""

    people: NDArray[np.str_]
    found: NDArray[np.bool_]
    vectors: NDArray[np.float32]  # (n, 128), not scaled
    measures: Floats  # (n, len(KNOTS))
    confidence: Floats

    @property
    def quality(self) -> Floats:
        """With the costs of `mien.quality` as they stand."""
        rows = (dict(zip(KNOTS, row, strict=True)) for row in self.measures.tolist())
        return np.array([chance(costs_of(row)) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    lfw = options.data / "lfw"
    halves = {}
    for half in ("peopleDevTrain", "peopleDevTest"):
        files = pictures(lfw, half)
        images = ((image, image) for image in map(mien.read_image, files))
        people = [file.parent.name for file in files]
        halves[half] = kept(options.cache / f"{half}.npz", people, images)
    train, test = halves.values()
    threshold = strictest(train)
    print(f"threshold {threshold:.4f}")
    curves = {}
    for half, faces in halves.items():
        scored = pairs(faces)
        curves[half] = {name: curve(by, scored, threshold) for name, by in rivals(faces).items()}
        print(f"{half}: {len(scored.score)} genuine pairs, FNMR with the worst left out")
        print(" " * 22, *(f"{share:>7.0%}" for share in REJECT))
        for name, rates in curves[half].items():
            print(f"{name:>22}", *(f"{rate:7.2%}" for rate in rates))
    reliability(test, threshold)
    if options.plot:
        plot(curves["peopleDevTest"], options.plot)
    if options.fit:
        fit(lfw, options.cache, train, threshold)


# --- faces --------------------------------------------------------------------------------------


def pictures(lfw: Path, half: str) -> list[Path]:
    lines = (lfw / f"{half}.txt").read_text().splitlines()[1:]
    names = [line.split()[0] for line in lines if line.strip()]
    return [file for n in names for file in sorted((lfw / "lfw-deepfunneled" / n).glob("*.jpg"))]


def kept(file: Path, people: list[str], images: Iterator[tuple[Image, Image]]) -> Faces:
    """The faces of pictures, from the cache where they are there; see `look`."""
    if not file.exists():
        recognizer = mien.load()
        rows = list(ordered_map(lambda pair: look(recognizer, *pair), images, recognizer.threads))
        vectors, values, confidence = (np.array(column) for column in zip(*rows, strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, people=np.array(people), vectors=vectors, measures=values,
                 confidence=confidence)  # fmt: skip
    with np.load(file) as data:
        return Faces(
            data["people"], data["confidence"] > 0, data["vectors"], data["measures"],
            data["confidence"],
        )  # fmt: skip


def look(recognizer: Recognizer, image: Image, other: Image) -> tuple[Floats, list[float], float]:
    """The face of a picture; where it is too poor to be found, the place it has in another one."""
    faces = recognizer.detector.detect(image)
    if not faces and image.pixels.shape == other.pixels.shape:
        faces = recognizer.detector.detect(other)
    if not faces:
        return np.zeros(128), [0.0] * len(KNOTS), 0.0
    face: Face = central(faces, image)
    crop = align(image, face.landmarks, recognizer.frame)
    (vector,) = recognizer.embedder.session(crop.pixels[None])[0]
    found = measures(face, crop)
    return vector, [found[name] for name in KNOTS], face.confidence


# --- pairs and curves ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    score: Floats
    weight: Floats


def pairs(faces: Faces, most: int = 20) -> Pairs:
    """Genuine pairs, of at most `most` faces of a person, weighed by 1 / sqrt(their number)."""
    random = np.random.default_rng(0)
    chosen = []
    for person in np.unique(faces.people):
        (rows,) = np.nonzero((faces.people == person) & faces.found)
        if len(rows) > most:
            rows = random.choice(rows, most, replace=False)
        first, second = np.triu_indices(len(rows), 1)
        weight = np.full(len(first), 1 / np.sqrt(max(len(first), 1)))
        chosen.append((rows[first], rows[second], weight))
    first, second, weight = (np.concatenate(column) for column in zip(*chosen, strict=True))
    unit = scaled(faces.vectors)
    score = np.einsum("nd,nd->n", unit[first], unit[second])
    return Pairs(first, second, score, weight / weight.sum())


def strictest(faces: Faces) -> float:
    """The threshold at which `FMR` of all impostor pairs match."""
    unit = scaled(faces.vectors[faces.found]).astype(np.float32)
    people = faces.people[faces.found]
    other = people[:, None] != people[None, :]
    scores = (unit @ unit.T)[np.triu(other, 1)]
    return float(np.quantile(scores, 1 - FMR))


def scaled(vectors: NDArray[np.floating]) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def rivals(faces: Faces) -> dict[str, Floats]:
    """What faces may be rejected by; higher is better."""
    return {
        "quality": faces.quality,
        "detector confidence": faces.confidence,
        "length of embedding": np.linalg.norm(faces.vectors, axis=1),
        "chance": np.random.default_rng(1).random(len(faces.people)),
    }


def curve(by: Floats, made: Pairs, threshold: float) -> list[float]:
    order = np.argsort(np.minimum(by[made.first], by[made.second]), kind="stable")
    missed = made.score < threshold
    rest = [order[int(share * len(order)) :] for share in REJECT]
    return [float(np.average(missed[rows], weights=made.weight[rows])) for rows in rest]


def reliability(faces: Faces, threshold: float) -> None:
    """Does a face of quality q reach the threshold in a share q of its comparisons?"""
    made = pairs(faces)
    quality = np.concatenate([faces.quality[made.first], faces.quality[made.second]])
    weight = np.concatenate([made.weight, made.weight])
    reached = np.concatenate([made.score, made.score]) >= threshold
    print("quality between       promised  reached  faces compared")
    edges = (0, 0.7, 0.85, 0.9, 0.93, 0.945, 1)
    for low, high in itertools.pairwise(edges):
        part = (quality >= low) & (quality < high)
        if part.any():
            promised, got = (np.average(x[part], weights=weight[part]) for x in (quality, reached))
            print(f"{low:8.3f} {high:8.3f} {promised:12.1%} {got:8.1%} {part.sum():12,}")


def plot(curves: dict[str, list[float]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, rates in curves.items():
        style = {"linestyle": ":", "color": "grey"} if name == "chance" else {"marker": "o"}
        axes.plot(
            [100 * share for share in REJECT], [100 * rate for rate in rates], label=name, **style
        )
    axes.set_xlabel("comparisons rejected, worst first, %")
    axes.set_ylabel("FNMR at FMR 1e-3, %")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


# --- the fit ------------------------------------------------------------------------------------


def fit(lfw: Path, cache: Path, clean: Faces, threshold: float) -> None:
    people, numbers = np.unique(clean.people, return_counts=True)
    several = set(people[numbers > 1])
    files = pictures(lfw, "peopleDevTrain")
    random = np.random.default_rng(5)
    rows = random.permutation([i for i, p in enumerate(clean.people) if p in several])[:SPOILT]
    originals = ((row, mien.read_image(files[row])) for row in rows)
    images = ((spoilt(image, np.random.default_rng([5, row])), image) for row, image in originals)
    poor = kept(cache / "spoilt.npz", [str(clean.people[row]) for row in rows], images)

    made = pairs(clean)
    first, second = [], []  # a spoilt face, another picture of its person
    for index, row in enumerate(rows):
        (others,) = np.nonzero((clean.people == clean.people[row]) & clean.found)
        others = random.permutation(others[others != row])[:3] if poor.found[index] else []
        first += [index] * len(others)
        second += list(others)
    score = np.einsum("nd,nd->n", scaled(poor.vectors)[first], scaled(clean.vectors)[second])
    ramps, bad = ramps_of(clean.measures), ramps_of(poor.measures)
    inputs = np.concatenate([ramps[made.first] + ramps[made.second], bad[first] + ramps[second]])
    missed = np.concatenate([made.score, score]) < threshold
    weight = np.concatenate([0.75 * made.weight, np.full(len(score), 0.25 / len(score))])

    names = [name for name, knots in KNOTS.items() for _ in knots]
    least = np.zeros(len(names))
    for name in ALONE:
        own = np.array([other == name for other in names])
        least[own] = regress(inputs[:, own], missed, weight, np.zeros(own.sum()))[1:]
    base, *steps = regress(inputs, missed, weight, least)
    typical = np.average(ramps[made.first] @ steps, weights=made.weight)
    print(f"BASE = {base + typical:.2f}")
    for name, knots in KNOTS.items():
        sign = -1 if name in FALLING else 1
        slopes = [step for step, other in zip(steps, names, strict=True) if other == name]
        values = [*knots, ENDS[name]]
        costs = [sum(s * max(0.0, sign * (v - k)) for s, k in zip(slopes, knots, strict=True))
                 for v in values]  # fmt: skip
        table = sorted(zip(values, np.round(costs, 2).tolist(), strict=True))
        print(f'    "{name}": ({tuple(v for v, _ in table)}, {tuple(c for _, c in table)}),')


def ramps_of(found: Floats) -> Floats:
    """max(0, distance beyond each knot), (n, knots of all measures)."""
    columns = [
        np.maximum(0, (-1 if name in FALLING else 1) * (found[:, index] - knot))
        for index, (name, knots) in enumerate(KNOTS.items())
        for knot in knots
    ]
    return np.stack(columns, axis=1)


def regress(inputs: Floats, missed: NDArray[np.bool_], weight: Floats, least: Floats) -> Floats:
    """Constant and slopes of a logistic regression whose slopes are at least `least`."""
    from scipy.optimize import minimize

    scale = inputs.std(axis=0) + 1e-6
    scaled_inputs, target = inputs / scale, missed.astype(float)

    def loss(p: Floats) -> tuple[float, Floats]:
        odds = scaled_inputs @ p[1:] + p[0]
        error = weight * (1 / (1 + np.exp(-odds)) - target)
        value = weight @ (np.logaddexp(0, odds) - target * odds) + 2e-4 * (p[1:] ** 2).sum()
        return value, np.concatenate([[error.sum()], scaled_inputs.T @ error + 4e-4 * p[1:]])

    low = least * scale
    start = np.concatenate([[-2.0], np.maximum(low, 0.01)])
    bounds = [(None, None), *((edge, None) for edge in low)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.concatenate([found.x[:1], found.x[1:] / scale])


def spoilt(image: Image, random: np.random.Generator) -> Image:
    """A picture made worse by one means, more or less."""
    pixels, picture, much = image.pixels, PIL.Image.fromarray(image.pixels), random.random()
    match random.integers(8):
        case 0:
            side = int(18 * (240 / 18) ** much)
            made = np.asarray(picture.resize((side, side), PIL.Image.Resampling.BOX))
        case 1:
            made = np.asarray(picture.filter(PIL.ImageFilter.GaussianBlur(0.5 + 7 * much**2)))
        case 2:
            made = pixels * (0.01 * 60**much) + random.normal(0, 0.5, pixels.shape)
        case 3:
            made = pixels + 40 + 200 * much
        case 4:
            made = (pixels - 128.0) * (0.01 * 50**much) + 128
        case 5:
            made = pixels + random.normal(0, 5 + 60 * much, pixels.shape)
        case 6:
            made = covered(image, random)
        case _:
            packed = io.BytesIO()
            picture.save(packed, "JPEG", quality=int(2 + 25 * much))
            made = np.asarray(PIL.Image.open(packed).convert("RGB"))
    return Image(np.ascontiguousarray(np.clip(made, 0, 255).astype(np.uint8)))


def covered(image: Image, random: np.random.Generator) -> NDArray[np.uint8]:
    """Dark glasses, a mask, or a patch, where LFW's pictures have their faces."""
    pixels = image.pixels.copy()
    down, across = np.indices(pixels.shape[:2])
    eyes, nose, mouth, distance = ((104, 113), (146, 113)), (125, 135), (125, 157), 42
    colour = random.integers(0, 256, 3) if random.random() < 0.5 else random.integers(0, 60)
    match random.integers(3):
        case 0:
            where = [((across - x) / 18) ** 2 + ((down - y) / 13) ** 2 < 1 for x, y in eyes]
            pixels[where[0] | where[1]] = colour
        case 1:
            x, y = mouth
            pixels[((across - x) / 36) ** 2 + ((down - y + 2) / 32) ** 2 < 1] = colour
        case _:
            x, y = (eyes[0], eyes[1], nose, mouth)[random.integers(4)]
            half = random.uniform(0.25, 0.7) * distance
            pixels[(abs(across - x) < half) & (abs(down - y) < half)] = colour
    return pixels


if __name__ == "__main__":
    main()
