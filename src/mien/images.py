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
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.errors import ImageTooLarge, InputError, MissingExtra, UnreadableImage
from mien.types import Image, Pixels

StrPath: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = (
    StrPath | bytes | bytearray | memoryview | PIL.Image.Image | NDArray[Any] | Image
)
Format: TypeAlias = Literal["png", "jpeg", "webp"]

_Reader: TypeAlias = Callable[[BytesIO], PIL.Image.Image]
_NAMELESS = "the picture"


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest picture that is read: bytes of the file, and pixels (width x height).

    The default is what Pillow decodes without a warning, a little over 9,000 x 9,000.
    """

    bytes: int = 100_000_000
    pixels: int = 89_000_000


DEFAULT_LIMITS = Limits()


# ------------------------------------------------------------------------------------------ reading


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
        raise UnreadableImage(path, _why_not_opened(path, error)) from error
    _check_bytes(max(size, len(data)), path, limits)
    return data


def _why_not_opened(path: str, error: Exception) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError() if "://" in path:
            return "it does not exist (addresses are not fetched: download the picture first)"
        case FileNotFoundError() | NotADirectoryError():
            return "it does not exist"
        case IsADirectoryError():
            return "it is a folder, not a picture"
        case PermissionError():
            return "there is no permission to read it"
        case OSError():
            return error.strerror or str(error)
    return f"its name is not a path ({error})"


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
    return Image(_rgb(PIL.Image.fromarray(array)), _NAMELESS)


def _from_pillow(picture: PIL.Image.Image, limits: Limits) -> Image:
    _check_pixels(picture.size, _NAMELESS, limits)
    _check_mode(picture.mode, _NAMELESS)
    origin = _Origin(_NAMELESS, picture.format or "PIL", b"")
    return Image(_attempt(_upright_rgb, picture, origin), _NAMELESS)


def _decode(data: bytes, source: str, limits: Limits) -> Image:
    name = _format_of(data)
    if name is None:
        raise UnreadableImage(source, _what_it_is_instead(data))
    origin = _Origin(source, name, data)
    reader = _reader_of(name)
    if name in _EARLY_SIZES:
        _check_pixels(_attempt(_EARLY_SIZES[name], data, origin), source, limits)
    picture = _attempt(reader, BytesIO(data), origin)  # reads the header only
    _check_pixels(picture.size, source, limits)
    _check_mode(picture.mode, source)
    return Image(_attempt(_upright_rgb, picture, origin), source)


# ------------------------------------------------------------------------------------------- pixels

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


def _upright_rgb(picture: PIL.Image.Image) -> Pixels:
    picture.load()  # first: a PNG may carry its EXIF after the pixels; a TIFF turns itself
    turn = _TURNS.get(_orientation(picture.info.get("exif")))
    return _rgb(picture if turn is None else picture.transpose(turn))


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


def _rgb(picture: PIL.Image.Image) -> Pixels:
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


# ------------------------------------------------------------------------------------------ formats

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


def _format_of(data: bytes) -> str | None:
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
def _reader_of(name: str) -> _Reader:
    """What reads the header of this format and decodes on `load`; imported when first needed."""
    module, attribute = _READERS[name]
    try:
        reader = getattr(import_module(module), attribute)
    except ImportError as error:
        raise MissingExtra(f"reading {name} pictures", name.lower()) from error
    if name in _QUIETED:
        reader = type(f"Quiet{attribute}", (reader,), _QUIETED[name])
    return cast("_Reader", reader)


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
_EARLY_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "GIF": _gif_size,
    "WEBP": _webp_size,
}


# ----------------------------------------------------------------------------------------- failures

# What Pillow's readers raise on damaged files, as found by fuzzing them (MemoryError is not the
# file's fault). Warning is here for those who turn warnings into errors.
_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
    Warning,
)


_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class _Origin(NamedTuple):
    """What a message about a picture may need: its name, its format, and the file if there is."""

    source: str
    format: str
    data: bytes


def _attempt(step: Callable[[_Given], _Made], given: _Given, origin: _Origin) -> _Made:
    """`step(given)`, with what it raises on a damaged picture turned into `UnreadableImage`."""
    try:
        return step(given)
    except _FAILURES as error:
        raise UnreadableImage(origin.source, _why_not_decoded(error, origin)) from error


def _why_not_decoded(error: Exception, origin: _Origin) -> str:
    _, name, data = origin
    if isinstance(error, PIL.Image.DecompressionBombError):
        return "it has more pixels than PIL.Image.MAX_IMAGE_PIXELS lets Pillow decode"
    if re.search("truncated", str(error), re.IGNORECASE) or (data and _ends_early(name, data)):
        return f"it is truncated: this {name} picture ends before all of it was stored"
    return f"it is a damaged {name} picture, or of an unsupported kind ({error})"


def _ends_early(name: str, data: bytes) -> bool:
    """Whether a file that could not be decoded lacks its end, by the rules of its format."""
    if name in _LAST_BYTES:
        return not data.endswith(_LAST_BYTES[name])
    return name in _STATED_LENGTHS and _STATED_LENGTHS[name](data) > len(data)


def _last_box_end(data: bytes) -> int:
    end = 0
    while end < len(data) and (size := int.from_bytes(data[end : end + 4], "big")) > 1:
        end += size
    return end


def _directory_end(data: bytes) -> int:
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[start : start + 2], order)
    return start + 2 + 12 * entries + 4


_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82", "GIF": b";"}
_STATED_LENGTHS: dict[str, Callable[[bytes], int]] = {
    "AVIF": _last_box_end,
    "BMP": lambda data: int.from_bytes(data[2:6], "little"),
    "HEIC": _last_box_end,
    "TIFF": _directory_end,
    "WEBP": lambda data: int.from_bytes(data[4:8], "little") + 8,
}

_OTHER_THINGS = (
    (b"%PDF", "it is a PDF document"),
    (b"%!PS", "it is a PostScript document"),
    (b"PK\x03\x04", "it is a ZIP archive or an office document"),
    (b"\x1f\x8b", "it is a gzip archive"),
    (b"8BPS", "it is a Photoshop document"),
    (b"\xff\x0a", "it is a JPEG XL picture, which is not supported"),
    (b"\0\0\0\x0cJXL ", "it is a JPEG XL picture, which is not supported"),
    (b"\0\0\0\x0cjP  ", "it is a JPEG 2000 picture, which is not supported"),
    (b"\xffO\xffQ", "it is a JPEG 2000 picture, which is not supported"),
    (b"\x1a\x45\xdf\xa3", "it is a video (Matroska or WebM)"),
    (b"version https://git-lfs", "it is a Git LFS pointer: run 'git lfs pull'"),
)


def _what_it_is_instead(data: bytes) -> str:
    """What a file in none of the formats seems to be, in words."""
    if not data:
        return "it is empty (0 bytes)"
    head = data[:1024]
    if not head.strip(b"\0"):
        return "it is filled with zeros, as after a copy that went wrong"
    for signature, words in _OTHER_THINGS:
        if data.startswith(signature):
            return words
    if data[4:8] == b"ftyp":
        return "it is a video, or a container of another kind than AVIF and HEIC"
    kind = _kind_of_text(head.removeprefix(b"\xef\xbb\xbf").strip().lower())
    if kind:
        return f"it is not a picture: it looks like {kind}"
    return "it is not a picture in a supported format (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC)"


def _kind_of_text(head: bytes) -> str | None:
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    if b"<svg" in head:
        return "an SVG drawing"
    if re.search(rb"[\0-\x08\x0e-\x1f\x7f]", head):
        return None
    try:
        head[:-3].decode()  # the last character may be cut in half
    except UnicodeDecodeError as error:
        if error.start < len(head) - 6:
            return None
    if head.startswith(b"<"):
        return "XML or HTML"
    return "JSON" if head.startswith((b"{", b"[")) else "text"


# ------------------------------------------------------------------------------------------ writing

_SUFFIXES_WRITTEN: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
_LONGEST_SIDES: dict[Format, int] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}


def encode_image(image: Image, format: Format = "png", quality: int = 90) -> bytes:
    """The picture as a file of this format; `quality`, 1 to 100, does not concern PNG.

    Raises `InputError` for another format or quality, and for a side too long for the format.
    """
    if format not in _LONGEST_SIDES:
        raise InputError(f"unknown format {format!r}; known: {', '.join(_LONGEST_SIDES)}")
    if not 1 <= quality <= 100:
        raise InputError(f"quality is 1 to 100, got {quality}")
    longest = _LONGEST_SIDES[format]
    if max(image.width, image.height) > longest:
        raise InputError(
            f"{image.source} is {image.width} x {image.height} pixels, "
            f"and a side of a {format} picture is at most {longest:,}; use another format"
        )
    picture = PIL.Image.fromarray(image.pixels)
    stream = BytesIO()
    if format == "png":
        picture.save(stream, "PNG")
    else:
        picture.save(stream, format.upper(), quality=quality)
    return stream.getvalue()


def save_image(image: Image, path: StrPath, quality: int = 90) -> None:
    """Write the picture in the format that the suffix of `path` says: .png .jpg .jpeg .webp.

    The file appears whole or not at all, and a failure leaves an older one as it was. Raises
    `InputError` for another suffix, for what `encode_image` refuses, and where nothing can be
    written.
    """
    target = Path(path)
    format = _SUFFIXES_WRITTEN.get(target.suffix.lower())
    if format is None:
        raise InputError(
            f"cannot write {target}: its name has to end in {', '.join(_SUFFIXES_WRITTEN)}"
        )
    data = encode_image(image, format, quality)
    temporary = target.with_name(f".mien-{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as stream:  # not tempfile: its files are for their owner only
            stream.write(data)
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------ finding

_SUFFIXES_READ = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff"}
_SUFFIXES_READ |= {".bmp", ".gif", ".avif", ".heic", ".heif"}


def find_images(paths: StrPath | Iterable[StrPath]) -> Iterator[Path]:
    """The files in `paths` as given, and those in its folders, at any depth, in order of name.

    Of folders, the files with a suffix of a known format count; what is hidden (its name starts
    with a dot) does not. Links are followed, each folder is visited once. Raises `UnreadableImage`
    at once when one of `paths` does not exist, and on the way for a folder that cannot be read.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    for path in given:
        try:
            path.stat()
        except (OSError, ValueError) as error:
            raise UnreadableImage(str(path), _why_not_opened(str(path), error)) from error
    return _walk(given)


def _walk(given: list[Path]) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    for path in given:
        if path.is_dir():
            yield from _walk_folder(path, visited)
        else:
            yield path


def _walk_folder(folder: Path, visited: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise UnreadableImage(str(folder), _why_not_opened(str(folder), error)) from error
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return
    visited.add(identity)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if os.path.isdir(path):  # entry.is_dir would raise for a link that leads to itself
            yield from _walk_folder(path, visited)
        elif path.suffix.lower() in _SUFFIXES_READ and os.path.isfile(path):
            yield path
