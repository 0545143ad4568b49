"""Pictures in the file system: finding them in folders, writing them whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

import PIL.Image

from mien.errors import InputError, UnreadableImage
from mien.types import Image

StrPath: TypeAlias = str | os.PathLike[str]
Format: TypeAlias = Literal["png", "jpeg", "webp"]

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
            raise UnreadableImage(str(path), why_not_opened(str(path), error)) from error
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
        raise UnreadableImage(str(folder), why_not_opened(str(folder), error)) from error
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


def why_not_opened(path: str, error: Exception) -> str:
    """Why a file or folder cannot be opened, in words."""
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
