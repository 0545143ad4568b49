"""A cropped set to a packed one: all pixels in one array that is mapped, not read, into memory.

Fitting reads random rows: from one uncompressed file that costs a page of the disk's cache and no
decoding, and several processes share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mien.errors import InputError
from mien.images import read_image
from mien.recognition import ordered_map
from mien.training.preparation.sets import (
    MANIFEST,
    PIXELS,
    About,
    Crop,
    cells,
    header,
    is_set,
    read_about,
    read_manifest,
    write_about,
    write_table,
    writing,
)
from mien.types import Pixels, Progress, silent


@dataclass(frozen=True, eq=False, slots=True)
class Packed:
    """A packed set: `pixels` uint8 RGB (n, height, width, 3), mapped; row i is `rows[i]`."""

    about: About
    rows: tuple[Crop, ...]
    pixels: NDArray[np.uint8]


def pack(
    cropped: Path,
    folder: Path,
    sources: Sequence[str] | None = None,
    *,
    threads: int = 1,
    progress: Progress = silent,
) -> About:
    """Write the crops of a set, or those of `sources` in that order, as a packed set.

    `set.json` is written last: a folder without it is not a packed set, whatever stopped the work.
    Raises `InputError` for a set that is not complete, a source it does not have, a crop that
    cannot be read or has another size, and a disk that is full.
    """
    about, rows = read_about(cropped), read_manifest(cropped)
    if not about.complete:
        raise InputError(f"{cropped} is not complete; run its 'mien data crop' again, it goes on")
    if sources is not None:
        rows = _of(sources, rows, cropped)
    if not rows:
        raise InputError(f"{cropped} has no crops to pack")
    if folder.resolve() == cropped.resolve() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a folder that does not exist yet")
    width, height = about.size

    def pixels_of(row: Crop) -> Pixels:
        pixels = read_image(cropped / row.file).pixels
        if pixels.shape != (height, width, 3):
            found = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise InputError(f"{cropped / row.file} is {found} pixels, not {width} x {height}")
        return pixels

    shape = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), height, width, 3)}
    with writing(folder / PIXELS) as stream:  # not through a mapping: a full disk would kill us
        npy.write_array_header_1_0(stream, shape)
        for pixels in progress(ordered_map(pixels_of, rows, threads), len(rows), "crop"):
            stream.write(pixels.tobytes())
    write_table(folder / MANIFEST, header(Crop), (cells(row) for row in rows))
    write_about(folder, about)
    return about


def open_packed(folder: Path) -> Packed:
    """A packed set, its pixels mapped and not read. Raises `InputError` for what is none."""
    if not is_set(folder) or not (folder / PIXELS).is_file():
        raise InputError(f"{folder} is no packed set; 'mien data pack' makes one")
    about, rows = read_about(folder), tuple(read_manifest(folder))
    try:
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / PIXELS} is damaged: {error}; pack the set again") from error
    width, height = about.size
    if pixels.shape != (len(rows), height, width, 3) or pixels.dtype != np.uint8:
        raise InputError(
            f"{folder / PIXELS} holds {pixels.dtype} {pixels.shape}, its tables promise uint8 "
            f"{(len(rows), height, width, 3)}; pack the set again"
        )
    return Packed(about, rows, pixels)


def _of(sources: Sequence[str], rows: Sequence[Crop], cropped: Path) -> list[Crop]:
    """The crops of some pictures; those that were refused are left out."""
    by_source: dict[str, list[Crop]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    found = [row for source in dict.fromkeys(sources) for row in by_source.get(source, [])]
    if not found:
        raise InputError(
            f"{cropped} has crops of none of the {len(sources)} pictures listed; "
            f"was the list made from another folder?"
        )
    return found
