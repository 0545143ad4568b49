"""One HTML file with everything in it, and a JSON file beside it: figures that can be checked."""

import base64
import html
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mien.drawing import contact_sheet
from mien.errors import InputError, UnreadableImage
from mien.evaluation.intervals import Interval
from mien.evaluation.plots import svg
from mien.evaluation.protocols import Picture
from mien.images import encode_image, read_image
from mien.recognition import Recognizer, processors
from mien.types import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plate:
    """One or two pictures with a caption."""

    pictures: Sequence[Picture]
    caption: str


@dataclass(frozen=True, slots=True)
class Plates:
    """Pictures to look at: the worst pairs, the failures."""

    title: str
    plates: Sequence[Plate]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plots:
    """Drawings side by side."""

    title: str
    figures: Sequence["Figure"]


Part = Table | Plots | Plates


@dataclass(frozen=True, slots=True)
class Report:
    """What a page says: a title, how it came about, its parts in order, and all figures as data."""

    title: str
    provenance: Mapping[str, str]
    parts: Sequence[Part]
    figures: Mapping[str, object] = field(default_factory=dict)


def provenance(recognizer: Recognizer, data: str, protocol: str) -> dict[str, str]:
    """Everything needed to repeat a measurement, as words."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "onnxruntime", "pillow"))
    return {
        "data": data,
        "protocol": protocol,
        "model": f"{recognizer.bundle.id}: {recognizer.bundle.title}",
        "contract": recognizer.contract,
        "mien": version("mien"),
        "packages": f"Python {platform.python_version()}, {packages}",
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, "
        f"{processors()} processors",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["mien", *sys.argv[1:]]),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else "unknown processor"


def percent(rate: float | None, interval: Interval | None = None, digits: int = 2) -> str:
    """A rate as a table shows it, "99.10% (98.56 .. 99.37)"; "too few" for None."""
    if rate is None:
        return "too few"
    shown = f"{100 * rate:.{digits}f}%"
    if interval is None:
        return shown
    return f"{shown} ({100 * interval.low:.{digits}f} .. {100 * interval.high:.{digits}f})"


def write(report: Report, path: Path) -> Path:
    """Write the page to `path` and its data beside it, as `.json`; returns where the data lies.

    Raises `InputError` when that is not possible.
    """
    data = {"title": report.title, "provenance": dict(report.provenance), **report.figures}
    beside = path.with_suffix(".json")
    if beside == path:
        raise InputError(f"{path}: a report is an HTML file; its data is written beside it as JSON")
    page = render(report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, text in ((path, page), (beside, json.dumps(data, indent=1) + "\n")):
            partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return beside


def render(report: Report) -> str:
    """The page as text."""
    facts = "".join(
        f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>"
        for key, value in report.provenance.items()
    )
    parts = "\n".join(_part(part) for part in report.parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{_text(report.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{_text(report.title)}</h1>\n{parts}\n"
        f"<h2>How this was made</h2><table class=facts>{facts}</table></body></html>\n"
    )


def _part(part: Part) -> str:
    head = f"<h2>{_text(part.title)}</h2>"
    match part:
        case Table():
            header = "".join(f"<th>{_text(cell)}</th>" for cell in part.header)
            rows = "".join(
                f"<tr><th>{_text(row[0])}</th>"
                + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
                + "</tr>"
                for row in part.rows
            )
            return (
                f"{head}<div class=wide><table><thead><tr>{header}</tr></thead><tbody>{rows}"
                f"</tbody></table></div>{_note(part.note)}"
            )
        case Plots():
            drawn = "".join(
                f'<img alt="{_text(figure.axes[0].get_title())}" '
                f'src="data:image/svg+xml;base64,{_base64(svg(figure))}">'
                for figure in part.figures
            )
            return f"{head}<div class=plots>{drawn}</div>"
        case Plates():
            tiles = "".join(_plate(plate) for plate in part.plates)
            return f"{head}{_note(part.note)}<div class=plates>{tiles}</div>"


def _plate(plate: Plate) -> str:
    images = [_readable(picture) for picture in plate.pictures]
    sheet = contact_sheet(images, columns=len(images), side=150)
    data = _base64(encode_image(sheet, "jpeg", quality=85))
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{_text(plate.caption)}</figcaption></figure>"
    )


def _readable(picture: Picture) -> Image:
    """The picture, or a grey square in place of one that cannot be read."""
    try:
        return read_image(picture.source)
    except UnreadableImage:
        return Image(np.full((150, 150, 3), 96, np.uint8), picture.name)


def _note(text: str) -> str:
    return f"<p>{_text(text)}</p>" if text else ""


def _text(value: str) -> str:
    return html.escape(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;
color:#1b1b1b;background:#fff}
h1{font-size:1.6rem;margin:0 0 1rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
thead th{border-bottom:2px solid #999}tbody th{font-weight:500}
.facts th{color:#555;font-weight:400}.facts td{word-break:break-word}
.wide{overflow-x:auto}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));
gap:1rem}.plots img{width:100%}
.plates{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:.8rem}
figure{margin:0}figure img{max-width:100%;border-radius:3px}
figcaption{font-size:.8rem;color:#444;word-break:break-word}p{color:#444;max-width:75ch}
"""
