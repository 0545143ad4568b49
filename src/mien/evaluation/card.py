"""What was measured of a recogniser, as lines of its bundle's card."""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

from mien import cards
from mien.cards import Bundle
from mien.errors import InputError
from mien.types import Crowd, OperatingPoint

_POINTS = re.compile(r"^protocol = [^\n]*\noperating_points = \[.*?^\]\n", re.DOTALL | re.MULTILINE)
_VIEWS = re.compile(r"^views = [^\n]*\n", re.MULTILINE)
_CROWD = re.compile(r"\n*^\[crowd\]\n.*?(?=^\[|\Z)", re.DOTALL | re.MULTILINE)


def points_toml(points: Sequence[OperatingPoint]) -> str:
    """The lines `protocol` and `operating_points`."""
    rows = "".join(f"    [{p.fmr:g}, {p.threshold:.5f}, {p.fnmr:.5f}],\n" for p in points)
    return f"protocol = {_quoted(points[0].protocol)}\noperating_points = [\n{rows}]\n"


def crowd_toml(crowd: Crowd) -> str:
    """The table `crowd`; its centres are rows of little-endian half floats in base64."""
    rows = "".join(
        f'    "{base64.b64encode(row.astype("<f2").tobytes()).decode()}",\n'
        for row in crowd.centres
    )
    return (
        f"[crowd]\nshare = {crowd.share:g}\nusual = {crowd.usual:.5f}\n"
        f"{points_toml(crowd.operating_points)}centres = [\n{rows}]\n"
    )


def with_measured(text: str, points: Sequence[OperatingPoint], crowd: Crowd | None) -> str:
    """A bundle's card with its thresholds and its crowd replaced, and every other line kept.

    Raises `InputError` when the text is no such card.
    """
    bare = _POINTS.sub("", _CROWD.sub("\n", text))
    kept, count = _VIEWS.subn(lambda line: line[0] + points_toml(points), bare)
    if count != 1:
        raise InputError("it is not the card of a bundle: there is no line 'views = ...'")
    return kept if crowd is None else f"{kept.rstrip()}\n\n{crowd_toml(crowd)}"


def write(path: Path, points: Sequence[OperatingPoint], crowd: Crowd | None) -> None:
    """Put what was measured into a card. Raises `InputError`."""
    try:
        text = path.read_text(encoding="utf-8")
        try:
            fresh = with_measured(text, points, crowd)
        except InputError as error:
            raise InputError(f"cannot use {path}: {error}") from error
        path.write_text(fresh, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def keep(name: str, bundle: Bundle, points: Sequence[OperatingPoint], crowd: Crowd | None) -> Path:
    """Keep a bundle under a name of one's own, with what was measured now: the file it is in.

    `mien.load(name)` finds it. Raises `InputError` for a name that came with mien or is no plain
    name.
    """
    path = cards.own_bundle(name)
    words: dict[str, object] = {"id": name, "title": f"{bundle.id}, measured here"}
    if bundle.members:
        words["members"] = [member.id for member in bundle.members]
        words["weights"] = list(bundle.weights)
    else:
        words |= {"detector": bundle.detector.id, "embedder": bundle.embedder.id}
    lines = "".join(f"{key} = {_quoted(value)}\n" for key, value in words.items())
    text = f"{lines}views = {bundle.views}\n{points_toml(points)}"
    if crowd is not None:
        text += f"\n{crowd_toml(crowd)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # JSON's strings and lists are TOML's
