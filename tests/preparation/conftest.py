"""People to prepare: a folder of prints of the two portraits, with everything that goes wrong."""

from pathlib import Path

import numpy as np
import pytest

import mien
from mien.recognition import Recognizer
from mien.training.preparation import crop as cropping
from mien.training.preparation.sets import list_pictures
from mien.types import Image


def prints(image: Image, count: int) -> list[Image]:
    """So many pictures of one face, no two with the same pixels."""
    return [
        Image(np.roll(image.pixels if i % 2 else image.pixels[:, ::-1], (4 * i, 7 * i), (0, 1)))
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, eileen: Image, grace: Image) -> Path:
    """Three people, one of them with a single picture, and files that give no crop."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    people = {
        "eileen": prints(eileen, 4),
        "Грейс, \"Amazing\"": prints(grace, 3),
        "solo": [Image(eileen.pixels[20:, 10:])],
    }  # fmt: skip
    for name, images in people.items():
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images, 1):
            mien.save_image(image, folder / name / f"{number}.jpg")
    wall = np.full((120, 120, 3), 127, np.uint8)
    mien.save_image(Image(wall), folder / "eileen" / "wall.png")
    (folder / "solo" / "notes.jpg").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def cutter(recognizer: Recognizer) -> cropping.Cutter:
    """To the frame of the embedded recogniser, the most central face."""
    choose = cropping.one(mien.central)
    return cropping.Cutter(recognizer.detector, recognizer.frame, choose, "central")


@pytest.fixture(scope="session")
def cropped(
    photos: Path, cutter: cropping.Cutter, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The set of crops of `photos`."""
    folder = tmp_path_factory.mktemp("cropped") / "crops"
    for _ in cropping.crop(list_pictures(photos), folder, cutter, threads=2):
        pass
    return folder
