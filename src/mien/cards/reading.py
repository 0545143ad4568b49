"""The TOML of a card to the values it stands for, checked on the way."""

import re
import tomllib
from typing import Any

from mien.cards.objects import UNKNOWN, Golden, InputSpec, ModelCard, Question, WeightFile
from mien.cards.places import pinned
from mien.errors import ModelError
from mien.types import Frame, LivenessPoint


def parse(text: str, where: str) -> ModelCard:
    """A model card from its TOML. `where` names it in messages.

    Raises `ModelError` for what is not a card, and for ids and file names that are not plain
    names: they become paths.
    """
    try:
        return _model(tomllib.loads(text))
    except (KeyError, TypeError, ValueError, IndexError) as error:  # TOML errors are ValueErrors
        raise ModelError(f"{where} is not a model card: {type(error).__name__}: {error}") from error


def _model(data: dict[str, Any]) -> ModelCard:
    spec = data["input"]
    frame = None
    if "template" in spec:
        template = tuple((float(x), float(y)) for x, y in spec["template"])
        frame = Frame((int(spec["size"][0]), int(spec["size"][1])), template)
    files = tuple(_file(file) for file in data["files"])
    return ModelCard(
        id=plain(data["id"]),
        title=data["title"],
        task=data["task"],
        decoder=data["decoder"],
        licence=data["licence"],
        commercial=_one_of(data["commercial"], ("yes", "no", "unclear")),
        origin=data["origin"],
        # what is fetched as it was published is its own origin
        origin_sha256=data.get("origin_sha256", files[0].sha256),
        training_data=data["training_data"],
        cautions=data["cautions"],
        input=InputSpec(
            _one_of(spec["channels"], ("RGB", "BGR")),
            _one_of(spec["layout"], ("NHWC", "NCHW")),
            _one_of(spec["dtype"], ("uint8", "float32")),
            tuple(spec["mean"]), tuple(spec["std"]), frame,
        ),
        files=files,
        figures=data.get("figures", {}),
        golden=_golden(data["golden"]) if "golden" in data else None,
        questions=tuple(Question(q["task"], tuple(q["labels"])) for q in data.get("questions", ())),
        liveness_points=tuple(
            LivenessPoint(threshold, apcer, bpcer, data["protocol"])
            for threshold, apcer, bpcer in data.get("liveness_points", ())
        ),
    )  # fmt: skip


def _golden(data: dict[str, Any]) -> Golden:
    landmarks = tuple((float(x), float(y)) for x, y in data["landmarks"])
    left, top, right, bottom = data.get("box", (0.0,) * 4)
    box = (left, top, right, bottom) if "box" in data else None
    vector = tuple(data.get("vector", ()))
    shares = tuple(tuple(map(float, row)) for row in data.get("shares", ()))
    return Golden(plain(data["picture"]), landmarks, box, vector, shares)


def _file(data: dict[str, Any]) -> WeightFile:
    urls = tuple(data.get("urls", ()))
    name = plain(data["name"])
    sha256 = data["sha256"]
    if sha256 == UNKNOWN:
        sha256 = pinned(name)
    checkpoint = plain(data["checkpoint"]) if "checkpoint" in data else ""
    given = {"name": name, "sha256": sha256, "urls": urls, "checkpoint": checkpoint}
    return WeightFile(**{**data, **given})


def plain(name: str) -> str:
    """A name that can be part of a path. Raises `ValueError` for any other."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"{name!r} is not a plain name of letters, digits, dots and dashes")
    return name


def _one_of(value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value
