"""How right gender is on LFW, by first names, and how steady head pose is.

    python benchmarks/attributes.py --data ../shared/data [--people 400]

LFW does not say who is a woman. Here the first name does, where it is one of two short lists of
names that are rarely the other's; one picture a person, and the lists are long enough for some
hundred people each. Pose has no truth here either. What can be measured without one: a mirrored
picture must give the opposite yaw and roll and the same pitch (the noise of the landmarks), a
turned picture a roll that differs by the turn, and heads that differ from the mean head in each
coordinate by a twentieth of the eye distance (about 3 mm, one standard deviation) must give the
pose they were turned to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import PIL.Image

import mien
from mien.detection import central
from mien.pose import HEAD, head_pose
from mien.recognition import ordered_map
from mien.types import Image, Landmarks, Pose

NAMES = {
    "female": """
        Alicia Amelia Ana Anna Anne Ann Barbara Carol Caroline Catherine Christine
        Claire Deborah Diana Diane Elizabeth Emma Gloria Hannah Helen Isabella Jane
        Janet Jennifer Jessica Joan Julia Julie Karen Kate Katie Laura Linda Lisa
        Liza Lucy Maria Marie Martha Mary Megan Meryl Michelle Monica Nancy Natalie
        Nicole Olivia Pamela Patricia Rachel Rebecca Rosa Sandra Sarah Sharon Sheila
        Sophia Susan Tina Valerie Vanessa Venus Serena Victoria Virginia Winona
        Halle Hillary Laila
    """,
    "male": """
        Adam Albert Alan Alexander Andrew Andy Anthony Antonio Arnold Arthur Ben
        Benjamin Bill Bob Brian Bruce Carl Carlos Charles Colin Daniel David Dennis
        Donald Edward Eric Francisco Frank Fred Gary George Gerhard Gordon Harry
        Henry Howard Hugh Jack Jacques James Jason Jeff Jim Joe John Jose Juan Keith
        Kenneth Kevin Larry Lawrence Luis Mark Martin Matthew Michael Mike Mohammed
        Nicholas Oliver Paul Pedro Peter Philip Ralph Ray Raymond Richard Rick
        Robert Roger Ronald Roy Rudolph Sam Scott Sergio Stephen Steve Steven Ted
        Thomas Tim Tom Tony Vladimir Walter William
    """,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=400, help="at most, of each list")
    options = parser.parse_args()
    folder = options.data / "lfw" / "lfw-deepfunneled"
    files = {label: first_pictures(folder, label, options.people) for label in NAMES}
    gender(files)
    turned([file for each in files.values() for file in each[:100]])
    other_heads()


def first_pictures(folder: Path, label: str, most: int) -> list[Path]:
    names = set(NAMES[label].split())
    people = [p for p in sorted(folder.iterdir()) if p.name.split("_")[0] in names]
    chosen = people[:: max(1, len(people) // most)][:most]
    return [person / f"{person.name}_0001.jpg" for person in chosen]


def gender(files: dict[str, list[Path]]) -> None:
    analyzer, detector = mien.load_analyzer(["gender"]), mien.load().detector

    def guess(file: Path) -> str:
        image = mien.read_image(file)
        (seen,) = analyzer.analyze(image, [central(detector.detect(image), image)])
        assert seen.gender is not None
        return seen.gender.label

    for label, paths in files.items():
        right = np.array([found == label for found in ordered_map(guess, paths, 2)])
        error = np.sqrt(right.mean() * (1 - right.mean()) / len(right))
        print(f"gender: {right.mean():.1%} +- {error:.1%} of {len(right)} people named as {label}")


def turned(files: list[Path]) -> None:
    detector = mien.load().detector

    def poses(file: Path) -> list[Pose] | None:
        picture = PIL.Image.open(file).convert("RGB")
        copies = [picture, picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT),
                  picture.rotate(-15, PIL.Image.Resampling.BICUBIC)]  # fmt: skip
        found = []
        for copy in copies:
            image = Image(np.asarray(copy))
            faces = detector.detect(image)
            if not faces:
                return None
            found.append(head_pose(central(faces, image).landmarks))
        return found

    made = [found for found in ordered_map(poses, files, 2) if found]
    table = np.array([[(p.yaw, p.pitch, p.roll) for p in found] for found in made])
    same, mirrored, tilted = table.transpose(1, 0, 2)
    for index, (name, sign) in enumerate((("yaw", -1), ("pitch", 1), ("roll", -1))):
        gap = np.abs(same[:, index] - sign * mirrored[:, index])
        print(f"pose, mirrored: {name} differs by {np.median(gap):.1f} (median), "
              f"{np.quantile(gap, 0.95):.1f} degrees (95%) on {len(made)} pictures")  # fmt: skip
    gap = np.abs(tilted[:, 2] - same[:, 2] - 15)
    print(f"pose, turned by 15 degrees: roll is off by {np.median(gap):.1f} (median), "
          f"{np.quantile(gap, 0.95):.1f} (95%)")  # fmt: skip


def other_heads(count: int = 2000) -> None:
    random = np.random.default_rng(0)
    for yaw, pitch in ((0, 0), (20, 0), (40, 0), (0, 20)):
        errors = []
        for _ in range(count):
            change = random.normal(0, 0.05, (5, 3))
            change[[1, 4], 1:] = change[[0, 3], 1:]  # symmetric heads
            change[[1, 4], 0] = -change[[0, 3], 0]
            change[2, 0] = 0
            y, p = np.radians([yaw, pitch])
            up = [[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]]
            aside = [[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]]
            points = ((HEAD + change) @ (np.array(aside) @ np.array(up)).T)[:, :2]
            pose = head_pose(Landmarks(points.astype(np.float32)))
            errors.append((pose.yaw - yaw, pose.pitch - pitch))
        off = np.abs(np.array(errors)).mean(axis=0)
        print(f"pose, other heads at yaw {yaw} pitch {pitch}: "
              f"mean error yaw {off[0]:.1f}, pitch {off[1]:.1f} degrees")  # fmt: skip


if __name__ == "__main__":
    main()
