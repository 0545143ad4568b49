"""How often passive liveness is wrong, on attacks simulated from real pictures.

    python benchmarks/liveness.py --data ../shared/data [--people 300] [--sheet FILE]

Real faces are one picture each of people of LFW; attacks show the same pictures again, as a print
or on a screen, photographed: paper or bezel around it, perspective, halftone or moire, gamut,
glare, the blur and noise of a second camera, JPEG. Thresholds are chosen on people of
peopleDevTrain at given BPCER and judged on people of peopleDevTest (ISO/IEC 30107-3: APCER is
given for each kind of attack, and the worst of them counts). Simulated attacks are not real
ones: they say whether the networks see what they claim to see, not what an attacker gets through.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter

import mien
from mien import cards
from mien.attributes.liveness import MiniFasNet
from mien.detection import central
from mien.drawing import contact_sheet
from mien.errors import NoFaceFound
from mien.images import encode_image
from mien.inference import open_sessions
from mien.types import Image

Floats = np.ndarray
Attack = Callable[[Floats, np.random.Generator], Floats]
CANVAS = (480, 360)  # rows, columns of the second camera
BPCERS = (0.2, 0.1, 0.05, 0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=300, help="of each half")
    parser.add_argument("--sheet", type=Path, help="draw some attacks into this picture")
    options = parser.parse_args()
    lfw = options.data / "lfw"
    card = cards.model_card("minifasnet")
    network = MiniFasNet(card, open_sessions(card))
    detector = mien.load().detector
    scores: dict[str, dict[str, list[float]]] = {}
    shown: list[Image] = []
    for half in ("peopleDevTrain", "peopleDevTest"):
        scores[half] = {name: [] for name in ("real", *ATTACKS)}
        missed = dict.fromkeys(scores[half], 0)
        for number, path in enumerate(pictures(lfw, half, options.people)):
            image = mien.read_image(path)
            for kind, made in versions(image, number).items():
                try:
                    face = central(detector.detect(made), made)
                except NoFaceFound:
                    missed[kind] += 1
                    continue
                scores[half][kind].append(float(network.scores(made, [face])[0]))
            if half == "peopleDevTrain" and number < 4:
                shown += versions(image, number).values()
        print(half, "without a face:", missed)
    report(scores)
    if options.sheet:
        sheet = contact_sheet(shown, len(ATTACKS) + 1)
        options.sheet.write_bytes(encode_image(sheet, "jpeg"))


def pictures(lfw: Path, half: str, count: int) -> list[Path]:
    """The first picture of `count` people, evenly through the list of a half."""
    lines = (lfw / f"{half}.txt").read_text().splitlines()[1:]
    names = [line.split()[0] for line in lines if line.strip()]
    chosen = names[:: max(1, len(names) // count)][:count]
    return [lfw / "lfw-deepfunneled" / name / f"{name}_0001.jpg" for name in chosen]


def versions(image: Image, seed: int) -> dict[str, Image]:
    """The picture itself and each attack made of it."""
    made = {"real": image}
    for index, (name, attack) in enumerate(ATTACKS.items()):
        random = np.random.default_rng([seed, index])
        light = np.clip(attack(image.pixels.astype(np.float32) / 255, random), 0, 1)
        taken = Image(np.rint(255 * light).astype(np.uint8))
        jpeg = encode_image(taken, "jpeg", quality=int(random.integers(75, 95)))
        made[name] = mien.read_image(jpeg)
    return made


# --- attacks: a picture (h, w, 3) in 0..1 becomes what the second camera sees of it -----------


def print_in_hand(picture: Floats, random: np.random.Generator) -> Floats:
    """A print with its white border, held before a wall."""
    paper = paper_of(picture, random)
    border = int(0.06 * paper.shape[0])
    paper = np.pad(paper, ((border, border), (border, border), (0, 0)), constant_values=0.93)
    return camera(placed(paper, wall(random), random, share=0.8), random)


def print_filling(picture: Floats, random: np.random.Generator) -> Floats:
    """A print so close that no border is seen."""
    paper = paper_of(picture, random)
    return camera(placed(paper, wall(random), random, share=1.6), random)


def screen_in_hand(picture: Floats, random: np.random.Generator) -> Floats:
    """A phone or tablet with its dark bezel."""
    screen = screen_of(picture, random)
    bezel = int(0.08 * screen.shape[0])
    screen = np.pad(
        screen, ((bezel, bezel), (bezel // 3, bezel // 3), (0, 0)), constant_values=0.04
    )
    return camera(placed(screen, wall(random), random, share=0.8) + glare(random), random)


def screen_filling(picture: Floats, random: np.random.Generator) -> Floats:
    """A screen so close that no bezel is seen."""
    screen = screen_of(picture, random)
    return camera(placed(screen, wall(random), random, share=1.6) + glare(random), random)


ATTACKS: dict[str, Attack] = {
    "print in hand": print_in_hand,
    "print filling": print_filling,
    "screen in hand": screen_in_hand,
    "screen filling": screen_filling,
}


def paper_of(picture: Floats, random: np.random.Generator) -> Floats:
    """Ink on paper: fewer colours, no deep black, halftone dots, grain."""
    large = np.clip(resized(picture, 2), 0, 1)
    ink = 0.08 + 0.84 * large ** random.uniform(0.85, 1.15)
    grey = ink.mean(axis=2, keepdims=True)
    ink = grey + random.uniform(0.6, 0.9) * (ink - grey)
    rows, columns = grid(ink)
    pitch, angle = random.uniform(2.5, 4), random.uniform(0.2, 1.2)
    u = rows * np.cos(angle) + columns * np.sin(angle)
    v = columns * np.cos(angle) - rows * np.sin(angle)
    dots = np.sin(2 * np.pi * u / pitch) * np.sin(2 * np.pi * v / pitch)
    tint = random.normal(1, 0.04, 3)
    return (
        ink + 0.05 * dots[..., None] + random.normal(0, 0.015, ink.shape).astype(np.float32)
    ) * tint


def screen_of(picture: Floats, random: np.random.Generator) -> Floats:
    """Light from a screen: bluish, steeper, with the moire of two grids."""
    large = np.clip(resized(picture, 2), 0, 1)
    light = large ** random.uniform(1.0, 1.35) * random.uniform(0.85, 1.1)
    light = light * np.array([random.uniform(0.88, 1), 1, random.uniform(1, 1.12)])
    rows, columns = grid(light)
    bands = np.zeros_like(light)
    for channel in range(3):
        for _ in range(2):
            period, angle = random.uniform(6, 40), random.uniform(0, np.pi)
            along = rows * np.cos(angle) + columns * np.sin(angle)
            bands[..., channel] += np.sin(2 * np.pi * along / period + random.uniform(0, 6))
    return 0.03 + light * (1 + random.uniform(0.015, 0.06) * bands)


def wall(random: np.random.Generator) -> Floats:
    """What is behind the print or the screen: a lit surface with some structure."""
    rows, columns = grid(np.empty(CANVAS))
    slope = random.normal(0, 0.1, 2)
    level = random.uniform(0.25, 0.7) + slope[0] * rows / CANVAS[0] + slope[1] * columns / CANVAS[1]
    coarse = random.normal(0, 0.04, (15, 12, 1)) + random.normal(0, 0.01, (15, 12, 3))
    return level[..., None] + resized(coarse, 32)[: CANVAS[0], : CANVAS[1]]


def glare(random: np.random.Generator) -> Floats:
    """The reflection of a lamp."""
    rows, columns = grid(np.empty(CANVAS))
    y, x = random.uniform(0, CANVAS[0]), random.uniform(0, CANVAS[1])
    size = random.uniform(30, 90)
    spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * size**2))
    return random.uniform(0.1, 0.6) * spot[..., None]


def placed(sheet: Floats, behind: Floats, random: np.random.Generator, share: float) -> Floats:
    """A flat thing before a background, slightly tilted; it fills `share` of the width."""
    rows, columns = CANVAS
    height, width = sheet.shape[:2]
    scale = share * columns / width
    corners = scale * np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    corners += (columns, rows) / np.array(2) - corners.mean(axis=0)
    corners += random.normal(0, 0.02 * columns, (4, 2))
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    inverse = homography(corners, source)
    packed = PIL.Image.fromarray(np.rint(255 * np.clip(sheet, 0, 1)).astype(np.uint8))
    method, bilinear = PIL.Image.Transform.PERSPECTIVE, PIL.Image.Resampling.BILINEAR
    seen = packed.transform((columns, rows), method, inverse, bilinear)
    mask = PIL.Image.new("L", packed.size, 255).transform(
        (columns, rows), method, inverse, bilinear
    )
    weight = np.asarray(mask)[..., None] / 255.0
    return weight * np.asarray(seen) / 255.0 + (1 - weight) * behind


def homography(source: Floats, target: Floats) -> list[float]:
    """The eight numbers that carry four points onto four others."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solution: list[float] = np.linalg.solve(np.array(rows), target.ravel()).tolist()
    return solution


def camera(scene: Floats, random: np.random.Generator) -> Floats:
    """The second camera: exposure, blur, noise."""
    exposed = np.clip(scene * random.uniform(0.85, 1.15), 0, 1) ** random.uniform(0.9, 1.1)
    packed = PIL.Image.fromarray(np.rint(255 * exposed).astype(np.uint8))
    blurred = packed.filter(PIL.ImageFilter.GaussianBlur(random.uniform(0.4, 1.2)))
    return np.asarray(blurred) / 255 + random.normal(0, 0.01, exposed.shape)


def grid(picture: Floats) -> Floats:
    """The row and the column of each pixel."""
    return np.indices(picture.shape[:2], np.float32)


def resized(values: Floats, factor: int) -> Floats:
    """Enlarged smoothly by a whole factor."""
    rows, columns = values.shape[0] * factor, values.shape[1] * factor
    planes = [
        np.asarray(
            PIL.Image.fromarray(values[..., c].astype(np.float32)).resize(
                (columns, rows), PIL.Image.Resampling.BICUBIC
            )
        )
        for c in range(3)
    ]
    return np.stack(planes, axis=-1)


# --- figures ---------------------------------------------------------------------------------


def report(scores: dict[str, dict[str, list[float]]]) -> None:
    chosen, judged = (
        {kind: np.array(values) for kind, values in half.items()} for half in scores.values()
    )
    print(
        f"{'BPCER asked':>12} {'threshold':>9} {'BPCER':>7}", *(f"{name:>15}" for name in ATTACKS)
    )
    for asked in BPCERS:
        threshold = float(np.quantile(chosen["real"], asked))
        rates = [float((judged[name] >= threshold).mean()) for name in ATTACKS]
        bpcer = float((judged["real"] < threshold).mean())
        print(f"{asked:12.0%} {threshold:9.4f} {bpcer:7.1%}", *(f"{rate:15.1%}" for rate in rates),
              f" worst APCER {max(rates):.1%}")  # fmt: skip
    attacks = np.concatenate([judged[name] for name in ATTACKS])
    edges = np.unique(np.concatenate([attacks, judged["real"]]))
    gaps = [abs((attacks >= e).mean() - (judged["real"] < e).mean()) for e in edges]
    edge = edges[int(np.argmin(gaps))]
    print(f"equal error rate {(attacks >= edge).mean():.1%} at {edge:.3f}, "
          f"{len(judged['real'])} real, {len(attacks)} attacks")  # fmt: skip


if __name__ == "__main__":
    main()
