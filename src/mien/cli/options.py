"""Options that several verbs share, spelt and explained once."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from mien.detection import Choose, central, largest, only

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

CHOICES: dict[str, Choose] = {"only": only, "largest": largest, "central": central}

pictures: Decorator = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(allow_dash=True), metavar="PICTURE..."
)
as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line instead of a table."
)
model: Decorator = click.option(
    "--model", default="embedded", show_default=True, metavar="ID",
    help="Which recogniser; 'mien models list' shows them.",
)  # fmt: skip
threads: Decorator = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Pictures worked on at once.  [default: all processors]",
)  # fmt: skip
min_face: Decorator = click.option(
    "--min-face", type=click.FloatRange(min=16), metavar="PIXELS",
    help="Width of the smallest face sought.  [default: 16, more in pictures over 2 megapixels]",
)  # fmt: skip
save: Decorator = click.option(
    "--save", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Write the pictures there with what was found drawn on them.",
)  # fmt: skip
choose: Decorator = click.option(
    "--choose", type=click.Choice(list(CHOICES)), default="only", show_default=True,
    help="Which face counts when a picture has several: refuse the picture, take the largest "
    "face, or the most central.",
)  # fmt: skip


def default_gallery() -> str:
    """`MIEN_GALLERY`, else a file in the user's data folder."""
    if uri := os.environ.get("MIEN_GALLERY"):
        return uri
    from mien.weights import home

    with suppress(OSError):  # opening the gallery then says what is wrong
        home().mkdir(parents=True, exist_ok=True)
    return str(home() / "people.mien")


gallery: Decorator = click.option(
    "--gallery", "uri", default=default_gallery, metavar="URI",
    help="A path, sqlite:///PATH, postgresql://... or milvus://...; #NAME at its end is a "
    "collection.  [default: MIEN_GALLERY, else people.mien in your data folder]",
)  # fmt: skip
