"""Real data, where it is, and small made-up protocols."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

DATA = Path(
    os.environ.get("MIEN_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)


@pytest.fixture(scope="session")
def lfw_data() -> Path:
    """The folder of LFW, or a skip."""
    folder = DATA / "lfw"
    if not (folder / "lfw-deepfunneled").is_dir():
        pytest.skip(f"LFW is not at {folder} (set MIEN_TEST_DATA to the folder that holds lfw/)")
    return folder


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    """Make a file with text, or an empty one, below tmp_path."""

    def make(name: str, text: str = "") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Make a small picture of noise, other for every seed."""

    def make(name: str, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path)
        return path

    return make
