"""Embed every picture of a data set once, and keep the result, for clustering.py and heads.py.

The face that stands for a picture is the most central one in LFW, whose pictures are centred on the
person named, and the largest one in the celebrity crops. Pictures without a face are counted.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mien
from mien.recognition import Recognizer, ordered_map


@dataclass(frozen=True)
class Faces:
    """One face a picture: names of people (n,), vectors (n, dim), qualities (n,), how many missed.

    `alone` says whether it was the only face of its picture.
    """

    people: NDArray[np.str_]
    pictures: NDArray[np.str_]
    vectors: NDArray[np.float32]
    quality: NDArray[np.float32]
    alone: NDArray[np.bool_]
    missed: int


def embed_people(folder: Path, cache: Path, model: str, choose: mien.detection.Choose) -> Faces:
    """The faces of a folder that has one sub-folder a person."""
    file = cache / f"{folder.parent.name}-{folder.name}-{model}.npz"
    recognizer = mien.load(model)
    if file.exists():
        with np.load(file) as kept:
            if str(kept["contract"]) == recognizer.contract:
                return Faces(
                    kept["people"], kept["pictures"], kept["vectors"], kept["quality"],
                    kept["alone"], int(kept["missed"]),
                )  # fmt: skip
    pictures = sorted(folder.glob("*/*.jpg"))
    start = time.perf_counter()
    rows = list(
        ordered_map(lambda path: _one(recognizer, path, choose), pictures, recognizer.threads)
    )
    kept_rows = [row for row in rows if row is not None]
    people, names, vectors, quality, alone = zip(*kept_rows, strict=True)
    faces = Faces(
        np.array(people), np.array(names), np.stack(vectors), np.array(quality, np.float32),
        np.array(alone), len(rows) - len(kept_rows),
    )  # fmt: skip
    print(f"embedded {len(rows)} pictures in {time.perf_counter() - start:.0f} s")
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(
        file, people=faces.people, pictures=faces.pictures, vectors=faces.vectors,
        quality=faces.quality, alone=faces.alone, missed=faces.missed,
        contract=recognizer.contract,
    )  # fmt: skip
    return faces


def _one(
    recognizer: Recognizer, path: Path, choose: mien.detection.Choose
) -> tuple[str, str, NDArray[np.float32], float, bool] | None:
    image = mien.read_image(path)
    found = recognizer.detector.detect(image)
    if not found:
        return None
    (face,) = recognizer.describe(image, [choose(found, image)])
    return (
        path.parent.name, path.name, face.embedding.vector, face.quality.value, len(found) == 1
    )  # fmt: skip
