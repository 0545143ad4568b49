"""Template protocols in the manner of IJB-B and IJB-C: a template is several pictures of a person.

Whitelam and others, "IARPA Janus Benchmark-B face dataset" (2017). Two text files, as the ArcFace
lineage distributes them: `..._face_tid_mid.txt` (picture, template, media) and
`..._template_pair_label.txt` (template, template, 1 or 0), separated by blanks. Pictures of one
medium (frames of one video) are averaged first, then the media: a long video does not outvote a
photograph.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.evaluation.curves import FAILED, Floats
from mien.evaluation.protocols import (
    Bools,
    Ints,
    Pairs,
    Picture,
    Roll,
    at_line,
    existing,
    linked,
    read_lines,
    require_both_kinds,
)
from mien.evaluation.vectors import Vectors


@dataclass(frozen=True, eq=False, slots=True)
class Templates:
    """Pictures (n,) with their template and medium, and pairs (m,) of templates to compare."""

    name: str
    pictures: tuple[Picture, ...]
    template: Ints
    medium: Ints
    a: Ints
    b: Ints
    same: Bools

    def __len__(self) -> int:
        return len(self.same)


def read_templates(media: Path, pairs: Path, root: Path) -> Templates:
    """Read the two files of a template protocol; pictures are below `root`.

    Raises `InputError` that names the line.
    """
    pictures, template, medium = [], [], []
    templates, mediums = Roll(), Roll()
    for line, text in enumerate(read_lines(media), 1):
        cells = text.split()
        if not cells:
            continue
        if len(cells) != 3:
            raise at_line(media, line, f"{len(cells)} cells; a picture, template and medium are 3")
        pictures.append(Picture(cells[0], existing(root, cells[0], media, line)))
        template.append(templates(cells[1]))
        medium.append(mediums(f"{cells[1]} {cells[2]}"))
    known = {name: number for number, name in enumerate(templates)}
    a, b, same = [], [], []
    for line, text in enumerate(read_lines(pairs), 1):
        cells = text.split()
        if not cells:
            continue
        if len(cells) != 3 or cells[2] not in ("0", "1"):
            raise at_line(pairs, line, "a line has two templates and 1 or 0")
        for cell in cells[:2]:
            if cell not in known:
                raise at_line(pairs, line, f"template {cell} has no pictures in {media.name}")
        a.append(known[cells[0]])
        b.append(known[cells[1]])
        same.append(cells[2] == "1")
    truth = np.array(same, bool)
    require_both_kinds(pairs.name, truth)
    return Templates(
        pairs.stem, tuple(pictures), np.array(template, np.int64), np.array(medium, np.int64),
        np.array(a, np.int64), np.array(b, np.int64), truth,
    )  # fmt: skip


def fuse(protocol: Templates, vectors: Vectors) -> NDArray[np.float32]:
    """One unit vector for each template (t, dim); zeros where no picture of it could be used."""
    if not protocol.pictures:
        raise InputError(f"{protocol.name} has no pictures")
    usable = vectors.usable
    rows = vectors.matrix[usable]
    mediums = _means(rows, protocol.medium[usable], int(protocol.medium.max()) + 1)
    owner = np.zeros(len(mediums), np.int64)
    owner[protocol.medium] = protocol.template
    filled = (mediums != 0).any(axis=1)
    fused = _means(mediums[filled], owner[filled], int(protocol.template.max()) + 1)
    norms = np.linalg.norm(fused, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (fused / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit


def _means(rows: NDArray[np.floating], group: Ints, groups: int) -> NDArray[np.float64]:
    sums = np.zeros((groups, rows.shape[1]))
    np.add.at(sums, group, rows)
    means: NDArray[np.float64] = sums / np.maximum(1, np.bincount(group, minlength=groups))[:, None]
    return means


def template_scores(protocol: Templates, fused: NDArray[np.float32]) -> Floats:
    """The scores (m,) of the pairs of templates; `FAILED` where one of them is empty."""
    scores = np.einsum("ij,ij->i", fused[protocol.a], fused[protocol.b]).astype(np.float64)
    empty = (fused == 0).all(axis=1)
    return np.where(empty[protocol.a] | empty[protocol.b], FAILED, np.clip(scores, -1, 1))


def as_pairs(protocol: Templates) -> Pairs:
    """The pairs of templates as a verification protocol.

    Its pictures are one of each template. Templates that genuine pairs link are one person.
    """
    count = int(protocol.template.max()) + 1
    first = np.unique(protocol.template, return_index=True)[1]
    person = linked(count, protocol.a[protocol.same], protocol.b[protocol.same])
    return Pairs(
        protocol.name, tuple(protocol.pictures[i] for i in first.tolist()),
        protocol.a, protocol.b, protocol.same, person[protocol.a], person[protocol.b],
    )  # fmt: skip
