"""Many pictures in, one row each out: in parallel, in order, past bad files, with progress."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import click

from mien.errors import InputError
from mien.images import Source, encode_image, find_images
from mien.recognition import ordered_map
from mien.types import Image

R = TypeVar("R")

STDIN = "-"


class Batch:
    """The pictures named on the command line, and how many of them could not be used."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.refused = 0
        self._items = [item for path in paths for item in self._expand(path)]

    def __len__(self) -> int:
        return len(self._items)

    def run(self, work: Callable[[Source], R], threads: int) -> Iterator[tuple[str, R]]:
        """`work` on every picture, as (name, result) in order; what it refuses is reported."""

        def attempt(name: str) -> R | InputError:
            try:
                return work(sys.stdin.buffer.read() if name == STDIN else name)
            except InputError as error:
                return error

        results = ordered_map(attempt, self._items, threads)
        named = zip(self._items, progress(results, len(self._items), "picture"), strict=True)
        for name, result in named:
            if isinstance(result, InputError):
                self.refuse(result)
            else:
                yield name, result

    def refuse(self, error: InputError) -> None:
        """Report a picture that cannot be used."""
        self.refused += 1
        click.echo(f"mien: {error}", err=True)

    def finish(self) -> None:
        """Exit with status 2 if a picture was refused."""
        if not self._items and not self.refused:
            raise InputError("no pictures found there (jpg, png, webp, tiff, bmp, gif, avif, heic)")
        if self.refused:
            many = "1 picture" if self.refused == 1 else f"{self.refused} pictures"
            click.echo(f"mien: {many} could not be used (see above)", err=True)
            click.get_current_context().exit(2)

    def _expand(self, path: str) -> Iterable[str]:
        if path == STDIN:
            return [STDIN]
        try:
            return [str(found) for found in find_images([Path(path)])]
        except InputError as error:
            self.refuse(error)
            return []


def progress(items: Iterable[R], total: int, unit: str) -> Iterator[R]:
    """Show rate and remaining time on a terminal, for what takes longer than two seconds."""
    from tqdm import tqdm

    with tqdm(items, total=total, unit=unit, delay=2, leave=False, disable=None) as bar:
        yield from bar


class Album:
    """A folder of annotated pictures; two of the same name do not overwrite each other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()

    def save(self, name: str, image: Image) -> Path:
        """Write a picture as JPEG; returns where."""
        stem = "picture" if name == STDIN else Path(name).stem
        free, number = stem, 1
        while free.casefold() in self._taken:
            number += 1
            free = f"{stem}-{number}"
        self._taken.add(free.casefold())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            target = self._folder / f"{free}.jpg"
            target.write_bytes(encode_image(image, "jpeg", quality=92))
        except OSError as error:
            raise InputError(f"cannot write to {self._folder}: {error.strerror}") from error
        return target
