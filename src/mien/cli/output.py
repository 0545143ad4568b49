"""Rows of results on stdout: one human table, or one JSON object a line."""

import json
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from mien import decision
from mien.types import OperatingPoint

_LEAST = 20  # characters: less of a last column says nothing


def emit(row: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own, out at once."""
    click.echo(json.dumps(row, ensure_ascii=False))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)


def fitted(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table whose last column is cut to what the terminal leaves, and left out if little is."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    others = [max(len(line[i]) for line in lines) for i in range(len(header) - 1)]
    left = shutil.get_terminal_size().columns - sum(others) - 2 * len(others)
    if left < _LEAST:
        lines = [line[:-1] for line in lines]
    else:
        short = [textwrap.shorten(line[-1], left, placeholder=" ...") for line in lines]
        lines = [(*line[:-1], last) for line, last in zip(lines, short, strict=True)]
    table(lines[0], lines[1:])


def one_in(rate: float) -> str:
    """A rate in words, to two digits: 0.001 is "1 in 1,000"."""
    return f"1 in {float(f'{1 / rate:.2g}'):,.0f}"


def rarity(points: Sequence[OperatingPoint], score: float, comparisons: int = 1) -> str:
    """How often strangers score this high in so many comparisons, as far as it was measured."""
    rate = decision.fpir_for(decision.impostor_rate(points, score), comparisons)
    if score > max(point.threshold for point in points):
        return f"fewer than {one_in(rate)}"
    if score < min(point.threshold for point in points) or rate > 0.5:
        return f"more than {one_in(min(rate, 0.5))}"
    return f"about {one_in(rate)}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: "1 picture", "2 pictures", "2 people"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rounded(numbers: Iterable[float], digits: int = 2) -> list[float]:
    """Numbers as JSON shows them: pixels to a hundredth unless told otherwise."""
    return [round(float(number), digits) for number in numbers]
