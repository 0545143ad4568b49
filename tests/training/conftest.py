"""A small packed set of real faces: two portraits, four "people" by mirroring and tinting them."""

from pathlib import Path

import numpy as np
import pytest

import mien
from mien.alignment import align_views
from mien.training.preparation.pack import Packed, open_packed
from mien.training.preparation.sets import (
    About,
    Crop,
    cells,
    header,
    write_about,
    write_table,
)
from mien.types import Face, Frame, Image

VIEWS = 6


@pytest.fixture(scope="session")
def packed_folder(
    tmp_path_factory: pytest.TempPathFactory,
    recognizer: mien.Recognizer,
    eileen: Image,
    eileen_face: Face,
    grace: Image,
) -> Path:
    """Four people with six crops each, 48 pixels a side, and `pairs.csv` of the last two."""
    folder = tmp_path_factory.mktemp("packed")
    (grace_face,) = recognizer.detector.detect(grace)
    whole = recognizer.frame
    frame = Frame((48, 48), tuple((x * 48 / 150, y * 48 / 150) for x, y in whole.template))
    pixels, rows = [], []
    tints = {"": 1.0, "-dim": 0.4}
    for tint, factor in tints.items():
        for name, image, face in (("eileen", eileen, eileen_face), ("grace", grace, grace_face)):
            views = align_views(image, face.landmarks, frame, VIEWS)
            for number, crop in enumerate(views):
                pixels.append((crop.pixels * factor).astype(np.uint8))
                source = f"{name}{tint}/{number}.png"
                rows.append(
                    Crop(
                        f"{name}{tint}",
                        source,
                        f"{len(rows):064x}",
                        1.0,
                        0,
                        0,
                        48,
                        48,
                        0.1,
                        (0.0,) * 10,
                        source,
                    )
                )
    np.save(folder / "pixels.npy", np.stack(pixels))
    write_table(folder / "manifest.csv", header(Crop), [cells(row) for row in rows])
    write_about(folder, About(frame.size, frame.template, "c", "d", "only", complete=True))
    lines = ["file1,file2,same"]
    for number in range(VIEWS - 1):
        lines.append(f"eileen-dim/{number}.png,eileen-dim/{number + 1}.png,1")
        lines.append(f"eileen-dim/{number}.png,grace-dim/{number}.png,0")
        lines.append(f"grace-dim/{number}.png,grace-dim/{number + 1}.png,1")
        lines.append(f"grace-dim/{number}.png,eileen-dim/{number + 1}.png,0")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    (folder / "learnt.txt").write_text("eileen\ngrace\n")
    return folder


@pytest.fixture(scope="session")
def packed(packed_folder: Path) -> Packed:
    return open_packed(packed_folder)


@pytest.fixture
def recipe_text(packed_folder: Path) -> str:
    """A recipe that takes a second: all that can carry state between steps is in it."""
    return f"""
[data]
set = "{packed_folder}"
people = "{packed_folder}/learnt.txt"
[validation]
pairs = "{packed_folder}/pairs.csv"
[input]
size = 32
crop = 0.9
[network]
name = "mobilefacenet"
embedding_size = 8
options = {{ width = 0.125, dropout = 0.2 }}
[sampling]
batch = 4
[augmentation]
rotation = 10.0
shift = 0.05
scale = 0.1
brightness = 0.1
contrast = 0.2
grey = 0.2
low_resolution = 0.5
blur = 0.5
occlusion = 0.5
[[objectives]]
name = "adaface"
options = {{ scale = 16.0, share = 1.0 }}
[[objectives]]
name = "supervised-contrastive"
[optimiser]
name = "adamw"
rate = 0.002
[run]
epochs = 3
ema = 0.9
threads = 1
checkpoint_every = 2
precision = "fp32"
"""
