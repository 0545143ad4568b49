"""Rows of results on stdout: one human table, or one JSON object a line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click


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


def one_in(rate: float) -> str:
    """A rate in words: 0.001 is "1 in 1,000"."""
    return f"1 in {1 / rate:,.0f}" if rate > 0 else "never"


def rounded(numbers: Iterable[float], digits: int = 2) -> list[float]:
    """Numbers as JSON shows them: pixels to a hundredth unless told otherwise."""
    return [round(float(number), digits) for number in numbers]
