"""What `mien data check` finds: wrong names that were planted, and copies that were made.

    python benchmarks/preparation.py names FOLDER [--model ID]
    python benchmarks/preparation.py copies FOLDER

FOLDER has one sub-folder a person, with names that are believed to be right.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import PIL.Image

from mien.evaluation import vectors
from mien.evaluation.protocols import Picture
from mien.images import read_image
from mien.recognition import load
from mien.training.preparation import check
from mien.training.preparation.check import fingerprint
from mien.training.preparation.sets import Listed, list_pictures


def names(pictures: list[Listed], model: str) -> None:
    """Names are swapped at random, and then looked for."""
    chosen = [Picture(picture.source, picture.path) for picture in pictures]
    found = vectors.embed(load(model), chosen, cache=vectors.default_cache())
    truth = np.array([picture.subject for picture in pictures])
    people, counts = np.unique(truth, return_counts=True)
    several = people[counts > 1]
    open_to_doubt = [
        row for row, name in enumerate(truth) if name in several and row not in found.failures
    ]
    random = np.random.default_rng(0)
    print(f"{len(pictures)} pictures of {len(people)} people; wrong, found, others doubted")
    for share in (0.01, 0.05, 0.1, 0.2):
        rows = random.choice(open_to_doubt, int(share * len(open_to_doubt)), replace=False)
        given = truth.copy()
        for row in rows:
            given[row] = random.choice(several[several != truth[row]])
        doubted = {suspect.row for suspect in check.suspects(found, given.tolist())}
        planted = set(rows.tolist())
        right = len(doubted & planted) / len(planted)
        wrong = len(doubted - planted) / (len(pictures) - len(planted))
        print(f"{len(planted):>6} ({share:.0%})  {right:.1%}  {wrong:.2%}")


def copies(pictures: list[Listed]) -> None:
    """Bits of the fingerprint that differ between a picture and what is made of it."""
    pictures = pictures[:: max(1, len(pictures) // 800)]
    prints, bits = [], {}
    for picture in pictures:
        image = PIL.Image.fromarray(read_image(picture.path).pixels)
        prints.append(fingerprint(np.asarray(image)))
        half = image.resize((image.width // 2, image.height // 2), PIL.Image.Resampling.BICUBIC)
        edge = 0.03 * np.array([image.width, image.height])
        inner = image.crop((*edge.round(), *(np.array(image.size) - edge).round()))
        made = {
            "JPEG 60": compressed(image, 60), "half": half, "half, JPEG 50": compressed(half, 50),
            "3% cut off": inner,
        }  # fmt: skip
        for name, other in made.items():
            differing = int((fingerprint(np.asarray(other)) != prints[-1]).sum())
            bits.setdefault(name, []).append(differing)
    print(f"{len(pictures)} pictures; bits of 256 that differ: median, 99%")
    for name, differing in bits.items():
        print(f"{name:<16} {np.median(differing):.0f}  {np.quantile(differing, 0.99):.0f}")
    signs = 2.0 * np.array(prints) - 1
    apart = ((256 - signs @ signs.T) / 2)[np.triu_indices(len(prints), 1)]
    subjects = np.array([picture.subject for picture in pictures])
    strangers = (subjects[:, None] != subjects[None])[np.triu_indices(len(prints), 1)]
    print(f"different people: median {np.median(apart[strangers]):.0f}, "
          f"least {apart[strangers].min():.0f}")  # fmt: skip


def compressed(image: PIL.Image.Image, quality: int) -> PIL.Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return PIL.Image.open(stream).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["names", "copies"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()
    pictures = list_pictures(arguments.folder)
    if arguments.what == "names":
        names(pictures, arguments.model)
    else:
        copies(pictures)


if __name__ == "__main__":
    main()
