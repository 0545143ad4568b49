"""What is wrong with a file that cannot be decoded, in words."""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import PIL.Image

from mien.errors import UnreadableImage

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


class Origin(NamedTuple):
    """What a message about a picture may need: its name, its format, and the file if there is."""

    source: str
    format: str
    data: bytes


def attempt(step: Callable[[_Given], _Made], given: _Given, origin: Origin) -> _Made:
    """`step(given)`, with what it raises on a damaged picture turned into `UnreadableImage`."""
    try:
        return step(given)
    except _FAILURES as error:
        raise UnreadableImage(origin.source, _why_not_decoded(error, origin)) from error


def _why_not_decoded(error: Exception, origin: Origin) -> str:
    _, name, data = origin
    if isinstance(error, PIL.Image.DecompressionBombError):
        return "it has more pixels than PIL.Image.MAX_IMAGE_PIXELS lets Pillow decode"
    if re.search("truncated", str(error), re.IGNORECASE) or (data and ends_early(name, data)):
        return f"it is truncated: this {name} picture ends before all of it was stored"
    return f"it is a damaged {name} picture, or of an unsupported kind ({error})"


def ends_early(name: str, data: bytes) -> bool:
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


def what_it_is_instead(data: bytes) -> str:
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
