"""Files and bytes to Image and back: formats, EXIF, limits. Nothing else decodes.

Reads JPEG, PNG, WebP, TIFF, BMP, GIF (first frame), AVIF where Pillow was built with it, and HEIC
with the extra `heic`. What comes out is upright (the EXIF orientation is applied), RGB and 8 bit:

- transparent pixels are laid on white, as a web page shows them;
- 16-bit grey is scaled to the full range (65535 becomes 255), not clipped; 32-bit and float pixels
  have no known range and are refused;
- colour profiles (ICC) are not converted: the numbers in the file are taken as sRGB;
- a picture that is cut short is refused, never filled up with grey.

Sizes are checked against `Limits` before anything is decoded. No global setting of Pillow and no
warning filter is ever changed, so threads may decode side by side.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.errors import ImageTooLarge, InputError, UnreadableImage
from mien.images.damage import Origin, attempt, what_it_is_instead
from mien.images.files import Format, StrPath, encode_image, find_images, save_image, why_not_opened
from mien.images.formats import EARLY_SIZES, format_of, reader_of
from mien.images.pixels import rgb, upright_rgb
from mien.types import Image

__all__ = [
    "DEFAULT_LIMITS", "Format", "Limits", "Source", "StrPath", "encode_image", "find_images",
    "listed", "read_image", "save_image",
]  # fmt: skip

Source: TypeAlias = (
    StrPath | bytes | bytearray | memoryview | PIL.Image.Image | NDArray[Any] | Image
)

_NAMELESS = "the picture"


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest picture that is read: bytes of the file, and pixels (width x height).

    The default is what Pillow decodes without a warning, a little over 9,000 x 9,000.
    """

    bytes: int = 100_000_000
    pixels: int = 89_000_000


DEFAULT_LIMITS = Limits()


def read_image(source: Source, limits: Limits = DEFAULT_LIMITS) -> Image:
    """The picture in `source` as upright RGB pixels, C-contiguous uint8 (height, width, 3).

    `source` is a path, the bytes of a file, a PIL image, an array, or an `Image` (returned as it
    is). Arrays are uint8: grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4). The pixels of an RGB array
    that is contiguous are shared with it; pixels that were decoded here are read-only. A PIL image
    is turned upright too when it still carries an EXIF orientation.

    Raises `UnreadableImage` for what is not a sound picture, `ImageTooLarge` for what exceeds
    `limits`, `MissingExtra` for HEIC without the extra `heic`, and `InputError` for any other
    `source`.
    """
    match source:
        case Image():
            return source
        case np.ndarray():
            return _from_array(source, limits)
        case PIL.Image.Image():
            return _from_pillow(source, limits)
        case bytes() | bytearray() | memoryview():
            _check_bytes(memoryview(source).nbytes, _NAMELESS, limits)
            return _decode(bytes(source), _NAMELESS, limits)
        case str() | os.PathLike():
            name = os.fspath(source)
            return _decode(_read_file(name, limits), name, limits)
    raise InputError(
        f"a picture is a path, bytes, a PIL image or a numpy array, got {type(source).__name__}"
    )


def _read_file(path: str, limits: Limits) -> bytes:
    """The content of a file within `limits.bytes`."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limits.bytes:
                data = b""
            elif size:
                data = stream.read()
            else:  # a pipe does not tell its size: read as much as shows that it is too large
                data = stream.read(limits.bytes + 1)
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, why_not_opened(path, error)) from error
    _check_bytes(max(size, len(data)), path, limits)
    return data


def _check_bytes(size: int, source: str, limits: Limits) -> None:
    if size > limits.bytes:
        raise ImageTooLarge(source, size, limits.bytes, "bytes")


def _check_pixels(size: tuple[int, int], source: str, limits: Limits) -> None:
    pixels = size[0] * size[1]
    if pixels > limits.pixels:
        raise ImageTooLarge(source, pixels, limits.pixels, "pixels")


def _check_mode(mode: str, source: str) -> None:
    if mode in ("I", "F"):
        raise UnreadableImage(
            source,
            f"its pixels are not 8 or 16 bit but of Pillow's mode {mode}, whose range is unknown; "
            f"convert them to 8 bit first",
        )


def _from_array(array: NDArray[Any], limits: Limits) -> Image:
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_picture or array.dtype != np.uint8 or not array.size:
        raise UnreadableImage(
            _NAMELESS,
            "an array is uint8 of shape (h, w), (h, w, 3) or (h, w, 4), "
            f"got {array.dtype} of shape {array.shape}",
        )
    _check_pixels((array.shape[1], array.shape[0]), _NAMELESS, limits)
    if array.shape[2:] == (3,):
        return Image(np.ascontiguousarray(array), _NAMELESS)
    return Image(rgb(PIL.Image.fromarray(array)), _NAMELESS)


def _from_pillow(picture: PIL.Image.Image, limits: Limits) -> Image:
    _check_pixels(picture.size, _NAMELESS, limits)
    _check_mode(picture.mode, _NAMELESS)
    origin = Origin(_NAMELESS, picture.format or "PIL", b"")
    return Image(attempt(upright_rgb, picture, origin), _NAMELESS)


def _decode(data: bytes, source: str, limits: Limits) -> Image:
    name = format_of(data)
    if name is None:
        raise UnreadableImage(source, what_it_is_instead(data))
    origin = Origin(source, name, data)
    reader = reader_of(name)
    if name in EARLY_SIZES:
        _check_pixels(attempt(EARLY_SIZES[name], data, origin), source, limits)
    picture = attempt(reader, BytesIO(data), origin)  # reads the header only
    _check_pixels(picture.size, source, limits)
    _check_mode(picture.mode, source)
    return Image(attempt(upright_rgb, picture, origin), source)


_ONE = (
    str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image, PIL.Image.Image,
)  # fmt: skip


def listed(sources: Source | Iterable[Source]) -> list[Source]:
    """One picture or several, as a list; a path or an array is one although it can be iterated."""
    if isinstance(sources, _ONE):
        return [sources]
    return list(sources)
