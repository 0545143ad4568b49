"""What several tests need: the recogniser, two portraits, real data where it lies beside."""

import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import mien
from mien.types import Face, Image

PORTRAITS = Path(str(resources.files("mien").joinpath("bundled", "pictures")))
CHECKOUT = Path(__file__).resolve().parents[1]

# The same examples on every run and every machine, however busy: a failure is a change's fault.
settings.register_profile("mien", derandomize=True, deadline=None)
settings.load_profile("mien")


@pytest.fixture(scope="session")
def recognizer() -> mien.Recognizer:
    return mien.load()


@pytest.fixture(scope="session")
def eileen() -> Image:
    """Eileen Collins, 512 x 512: a face of 96 x 120 pixels."""
    return mien.read_image(PORTRAITS / "eileen-collins.jpg")


@pytest.fixture(scope="session")
def grace() -> Image:
    """Grace Hopper, 512 x 600: a face of 175 x 219 pixels."""
    return mien.read_image(PORTRAITS / "grace-hopper.jpg")


@pytest.fixture(scope="session")
def eileen_file() -> Path:
    return PORTRAITS / "eileen-collins.jpg"


@pytest.fixture(scope="session")
def grace_file() -> Path:
    return PORTRAITS / "grace-hopper.jpg"


@pytest.fixture(scope="session")
def eileen_face(recognizer: mien.Recognizer, eileen: Image) -> Face:
    (face,) = recognizer.detector.detect(eileen)
    return face


@pytest.fixture(scope="session")
def both(eileen: Image, grace: Image) -> Image:
    """Eileen on the left and Grace on the right, in one picture of 1024 x 512 pixels."""
    return Image(np.concatenate([eileen.pixels, grace.pixels[:512]], axis=1), "both.png")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data: `MIEN_TEST_DATA`, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MIEN_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; name its folder in MIEN_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def lfw(data: Path) -> Path:
    folder = data / "lfw"
    if not (folder / "lfw-deepfunneled").is_dir():
        pytest.skip(f"no LFW pictures in {folder}")
    return folder
