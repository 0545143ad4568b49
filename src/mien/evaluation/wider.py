"""WIDER FACE: annotations in the official text format, and the lists of its three levels.

Yang and others, "WIDER FACE: a face detection benchmark" (2016).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.errors import InputError, MissingExtra
from mien.evaluation.protocols import Bools, Picture, at_line, existing, read_lines
from mien.geometry import Boxes

LEVELS = ("easy", "medium", "hard")


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """One picture with its faces: `boxes` (n, 4), and which of them count (n,); others are ignored.

    Boxes cover whole pixels: left, top, right and bottom are edges, as in `mien.Box`.
    """

    picture: Picture
    boxes: Boxes
    counts: Bools


def read_wider(annotations: Path, images: Path) -> list[Scene]:
    """Scenes of a text file: a picture's name, the number of boxes, then a box a line.

    A box is `left top width height` and, optionally, six attributes; boxes marked invalid and
    empty ones are ignored. Raises `InputError` that names the line.
    """
    lines = read_lines(annotations)
    scenes, at = [], 0
    while at < len(lines):
        name = lines[at].strip()
        if not name:
            at += 1
            continue
        file = existing(images, name, annotations, at + 1)
        if at + 1 >= len(lines) or not lines[at + 1].strip().isdecimal():
            raise at_line(annotations, at + 2, f"the number of boxes of {name} was expected")
        count = int(lines[at + 1])
        first, rows = at + 2, max(1, count)  # a picture without faces has one line of zeros
        boxes, counts = [], []
        for line in range(first, first + rows):
            cells = lines[line].split() if line < len(lines) else []
            if count == 0 and not (cells and all(cell == "0" for cell in cells)):
                rows = 0
                break
            try:
                left, top, width, height, *attributes = (float(cell) for cell in cells)
            except ValueError as error:
                raise at_line(annotations, line + 1, "a box has at least 4 numbers") from error
            if count == 0:
                continue
            invalid = len(attributes) > 3 and attributes[3] != 0
            boxes.append((left - 0.5, top - 0.5, left + width - 0.5, top + height - 0.5))
            counts.append(width > 0 and height > 0 and not invalid)
        array = np.array(boxes, np.float32).reshape(-1, 4)
        scenes.append(Scene(Picture(name, file), array, np.array(counts, bool)))
        at = first + rows
    if not any(scene.counts.any() for scene in scenes):
        raise InputError(f"{annotations} has no faces")
    return scenes


def levels(folder: Path, scenes: list[Scene]) -> dict[str, list[Scene]]:
    """The same scenes for each level whose list `wider_LEVEL_val.mat` lies in `folder`.

    Without any, there is one level, "all": every valid face. The lists are MATLAB files; reading
    them raises `MissingExtra` without the extra `evaluation`.
    """
    found = {level: folder / f"wider_{level}_val.mat" for level in LEVELS}
    found = {level: path for level, path in found.items() if path.is_file()}
    if not found:
        return {"all": scenes}
    return {level: _only(scenes, path) for level, path in found.items()}


def _only(scenes: list[Scene], path: Path) -> list[Scene]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtra("reading the lists of WIDER FACE", "evaluation") from error
    try:
        data = loadmat(path)
        kept = {
            f"{event[0][0]}/{name[0][0]}.jpg": np.asarray(index[0], np.int64).ravel() - 1
            for event, names, lists in zip(
                data["event_list"], data["file_list"], data["gt_list"], strict=True
            )
            for name, index in zip(names[0], lists[0], strict=True)
        }
    except (MatReadError, ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise InputError(f"{path} is not a list of WIDER FACE ({error})") from error
    result = []
    for scene in scenes:
        index = kept.get(scene.picture.name)
        if index is None:
            raise InputError(f"{path} does not list {scene.picture.name}")
        counts = np.zeros(len(scene.boxes), bool)
        if index.size and not 0 <= index.min() <= index.max() < counts.size:
            raise InputError(f"{path}: {scene.picture.name} has no face {index.max() + 1}")
        counts[index] = True
        result.append(Scene(scene.picture, scene.boxes, counts))
    return result
