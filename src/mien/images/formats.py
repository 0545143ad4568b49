"""Which format a file is in, what reads it, and its size where that must be known beforehand."""

import struct
from collections.abc import Callable
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import Any, TypeAlias, cast

import PIL.Image

from mien.errors import MissingExtra

Reader: TypeAlias = Callable[[BytesIO], PIL.Image.Image]

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}

# Only these readers are ever tried. They are called directly rather than through PIL.Image.open,
# which warns above PIL.Image.MAX_IMAGE_PIXELS: that limit is global, as are warning filters, and
# `Limits` takes its place.
_READERS = {
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
}


def format_of(data: bytes) -> str | None:
    """The format that the first bytes show, as a key of `_READERS`."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _format_of_brands(data)
    return None


def _format_of_brands(data: bytes) -> str | None:
    """AVIF or HEIC: the same container, which lists the "brands" of what is inside."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12]] + [data[at : at + 4] for at in range(16, end, 4)]
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return "AVIF"
        if brand in _HEIC_BRANDS:
            return "HEIC"
    return None


@cache
def reader_of(name: str) -> Reader:
    """What reads the header of this format and decodes on `load`; imported when first needed."""
    module, attribute = _READERS[name]
    try:
        reader = getattr(import_module(module), attribute)
    except ImportError as error:
        raise MissingExtra(f"reading {name} pictures", name.lower()) from error
    if name in _QUIETED:
        reader = type(f"Quiet{attribute}", (reader,), _QUIETED[name])
    return cast("Reader", reader)


# JPEG's reader looks for the resolution in the EXIF, which is slow, and warns when it is damaged.
_QUIETED: dict[str, dict[str, Callable[[Any], None]]] = {
    "JPEG": {"_read_dpi_from_exif": lambda picture: None},
}


def _gif_size(data: bytes) -> tuple[int, int]:
    """What Pillow will allocate: the screen, or the first frame where that reaches beyond it."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] != ord(","):
        if data[at] == ord("!"):
            at += 2
            while data[at]:
                at += data[at] + 1
        at += 1
    left, top, frame_width, frame_height = struct.unpack_from("<4H", data, at + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            width, height = data[24:27], data[27:30]
            return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:
            lossy_width, lossy_height = struct.unpack_from("<HH", data, 26)
            return lossy_width & 0x3FFF, lossy_height & 0x3FFF


# These two readers allocate, and apply PIL.Image.MAX_IMAGE_PIXELS, while they read the header.
EARLY_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "GIF": _gif_size,
    "WEBP": _webp_size,
}
