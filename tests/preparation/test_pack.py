"""Packed sets: the same pixels in the order of the manifest, whole or not at all."""

import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.errors import InputError
from mien.training.preparation.crop import Cutter, crop
from mien.training.preparation.pack import open_packed, pack
from mien.training.preparation.sets import list_pictures, read_about, read_manifest
from mien.types import Image


@pytest.fixture(scope="module")
def packed(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "packed"
    pack(cropped, folder, threads=2)
    return folder


def test_row_by_row_the_pixels_of_the_crops(cropped: Path, packed: Path) -> None:
    found = open_packed(packed)
    rows = read_manifest(cropped)
    assert found.rows == tuple(rows)
    assert found.about == read_about(cropped)
    assert found.pixels.shape == (8, 150, 150, 3)
    assert isinstance(found.pixels, np.memmap)
    for row, pixels in zip(rows, found.pixels, strict=True):
        assert np.array_equal(pixels, mien.read_image(cropped / row.file).pixels)


def test_plain_numpy_reads_it(packed: Path) -> None:
    pixels = np.load(packed / "pixels.npy", allow_pickle=False)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_only_what_a_list_names_in_its_order(cropped: Path, tmp_path: Path) -> None:
    sources = ["solo/1.jpg", "eileen/3.jpg", "eileen/wall.png"]  # the last was refused
    pack(cropped, tmp_path / "some", sources)
    assert [row.source for row in open_packed(tmp_path / "some").rows] == sources[:2]
    with pytest.raises(InputError, match="none of the 1 pictures listed"):
        pack(cropped, tmp_path / "none", ["nobody/1.jpg"])


def test_what_cannot_be_packed(cropped: Path, photos: Path, cutter: Cutter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not empty"):
        pack(cropped, cropped)
    with pytest.raises(InputError, match="no set of crops"):
        pack(photos, tmp_path / "a")
    copy = tmp_path / "copy"
    shutil.copytree(cropped, copy)
    mien.save_image(Image(np.zeros((9, 9, 3), np.uint8)), copy / "crops" / "eileen" / "2.png")
    with pytest.raises(InputError, match="9 x 9 pixels, not 150 x 150"):
        pack(copy, tmp_path / "b")
    assert not (tmp_path / "b" / "pixels.npy").exists()
    running = crop(list_pictures(photos), tmp_path / "half", cutter)
    next(running)
    running.close()
    with pytest.raises(InputError, match="not complete"):
        pack(tmp_path / "half", tmp_path / "c")


def test_damage_is_named(packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    pixels = (copy / "pixels.npy").read_bytes()
    (copy / "pixels.npy").write_bytes(pixels[: len(pixels) // 2])
    with pytest.raises(InputError, match="damaged"):
        open_packed(copy)
    np.save(copy / "pixels.npy", np.zeros((2, 150, 150, 3), np.uint8))
    with pytest.raises(InputError, match="its tables promise"):
        open_packed(copy)
    with pytest.raises(InputError, match="no packed set"):
        open_packed(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
def test_a_full_disk_leaves_nothing_that_looks_packed(cropped: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # of 540,000
    try:
        with pytest.raises(InputError, match="cannot write"):
            pack(cropped, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert list((tmp_path / "full").iterdir()) == []
    pack(cropped, tmp_path / "full")
    assert len(open_packed(tmp_path / "full").rows) == 8
