"""From a decoded picture of any mode and orientation to upright 8-bit RGB."""

import struct

import numpy as np
import PIL.Image

from mien.types import Pixels

# By EXIF orientation, what turns the stored picture upright; 1 and anything unknown need nothing.
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_BAND = 1 << 19  # bytes of Pillow's pixels copied at a time: what stays in the processor's cache

# 16-bit grey to 8-bit grey, rounded to nearest: v * 255 / 65535.
_TO_8_BITS = ((np.arange(65536, dtype=np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def upright_rgb(picture: PIL.Image.Image) -> Pixels:
    """The pixels of a picture, turned upright as its EXIF says, uint8 (height, width, 3)."""
    picture.load()  # first: a PNG may carry its EXIF after the pixels; a TIFF turns itself
    turn = _TURNS.get(_orientation(picture.info.get("exif")))
    return rgb(picture if turn is None else picture.transpose(turn))


def _orientation(exif: object) -> int:
    """The orientation, 1 to 8, in a block of EXIF; 1 when it has none or is damaged.

    Pillow's own reader parses every tag, and warns about each one it cannot make sense of.
    """
    if not isinstance(exif, bytes):
        return 1
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", block, at)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:  # it ends before it says it does
        pass
    return 1


def rgb(picture: PIL.Image.Image) -> Pixels:
    """The pixels of a picture of any mode as read-only uint8 (height, width, 3)."""
    if picture.mode.startswith("I;16"):
        return _rgb_of_16_bits(picture)
    if picture.has_transparency_data:
        return _copied(_on_white(picture))
    return _copied(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _copied(picture: PIL.Image.Image) -> Pixels:
    """The pixels of an RGB picture.

    `np.asarray(picture)` does the same, but takes two passes through memory over 4 and then 3 bytes
    a pixel, half as long as decoding a JPEG of 12 megapixels; band by band it stays in the cache.
    """
    width, height = picture.size
    rows = max(1, _BAND // (4 * max(1, width)))
    if rows >= height:
        return np.asarray(picture)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    pixels.flags.writeable = False  # as those of np.asarray: pictures of every size behave alike
    return pixels


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    rgba = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    canvas = PIL.Image.new("RGB", rgba.size, (255, 255, 255))
    canvas.paste(rgba, mask=rgba)
    return canvas


def _rgb_of_16_bits(picture: PIL.Image.Image) -> Pixels:
    values = np.asarray(picture)
    grey = _TO_8_BITS[values]
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    pixels.flags.writeable = False
    return pixels
