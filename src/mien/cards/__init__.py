"""Model cards: everything needed to run, trust and cite a model, as data (one TOML file each).

Two kinds of card. A `ModelCard` describes one network: its files and their hashes, its licence,
what it was trained on, what it wants as input. A `Bundle` names a detector and an embedder that
were measured together, and carries what was measured: the operating points. What differs between
models is written here and never in a subclass.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from mien.errors import UnknownModel
from mien.types import Frame, OperatingPoint

Task = Literal["detection", "embedding"]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights. `precision` is how it computes: "int8" or "fp32"."""

    name: str
    sha256: str
    bytes: int
    precision: Literal["int8", "fp32"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network eats: `(pixel - mean) / std`, in this channel order, layout and type.

    `mean` and `std` are per channel in RGB order and on the 0..255 scale; a network that takes
    raw pixels has dtype "uint8", mean 0 and std 1. `frame` is the crop an embedder expects, None
    for networks that take whole pictures.
    """

    channels: Literal["RGB", "BGR"]
    layout: Literal["NHWC", "NCHW"]
    dtype: Literal["uint8", "float32"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One network: how to run it and whether you may.

    `commercial` says whether the licence of the weights allows commercial use; what is known of
    the pictures it learnt from is in `training_data`. `origin` and `origin_sha256` name the
    published file the shipped ones were made from. `figures` are measured by us unless a figure
    names its source.
    """

    id: str
    title: str
    task: Task
    decoder: str
    licence: str
    commercial: Literal["yes", "no", "unclear"]
    origin: str
    origin_sha256: str
    training_data: str
    cautions: str
    input: InputSpec
    files: tuple[WeightFile, ...]
    figures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A recogniser as it was measured: detector, alignment, number of views, embedder.

    `views` is how many slightly different crops of a face are embedded and averaged.
    """

    id: str
    title: str
    detector: ModelCard
    embedder: ModelCard
    views: int
    operating_points: tuple[OperatingPoint, ...]
    figures: Mapping[str, str]
    contract: str


# The rules that turn a picture into crops (scan sizes, warp, jitter) count as part of how a
# vector was made. Whoever changes them so that vectors move must raise this number.
PREPROCESSING = 1


def contract_of(detector: ModelCard, embedder: ModelCard, views: int) -> str:
    """The name of the way a vector is made, readable and with a digest of the exact parts."""
    frame = embedder.input.frame
    assert frame is not None, f"{embedder.id} has no frame"
    parts = [detector.origin_sha256, embedder.origin_sha256, frame.size, frame.template, views]
    digest = hashlib.sha256(json.dumps([*parts, PREPROCESSING]).encode()).hexdigest()[:8]
    crops = f"x{views}" if views > 1 else ""
    return f"{detector.id}+{embedder.id}{crops}@{digest}"


def model_ids() -> tuple[str, ...]:
    """The ids of all model cards, sorted."""
    return _ids("models")


def bundle_ids() -> tuple[str, ...]:
    """The ids of all bundles, sorted."""
    return _ids("bundles")


@cache
def model_card(model: str) -> ModelCard:
    """The card of one network. Raises `UnknownModel`."""
    if model not in model_ids():
        raise UnknownModel(model, model_ids())
    return _model(_read("models", model))


@cache
def bundle(name: str) -> Bundle:
    """One bundle with its parts. Raises `UnknownModel`."""
    if name not in bundle_ids():
        raise UnknownModel(name, (*bundle_ids(), *model_ids()))
    data = _read("bundles", name)
    detector, embedder = model_card(data["detector"]), model_card(data["embedder"])
    contract = contract_of(detector, embedder, data["views"])
    points = tuple(
        OperatingPoint(threshold, fmr, fnmr, data["protocol"], contract)
        for fmr, threshold, fnmr in data.get("operating_points", [])
    )
    figures = data.get("figures", {})
    return Bundle(
        data["id"], data["title"], detector, embedder, data["views"], points, figures, contract
    )


def _ids(folder: str) -> tuple[str, ...]:
    names = (entry.name for entry in resources.files(__package__).joinpath(folder).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def _read(folder: str, name: str) -> dict[str, Any]:
    path = resources.files(__package__).joinpath(folder, f"{name}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _model(data: dict[str, Any]) -> ModelCard:
    spec = data["input"]
    frame = None
    if "template" in spec:
        template = tuple((float(x), float(y)) for x, y in spec["template"])
        frame = Frame((int(spec["size"][0]), int(spec["size"][1])), template)
    return ModelCard(
        id=data["id"],
        title=data["title"],
        task=data["task"],
        decoder=data["decoder"],
        licence=data["licence"],
        commercial=data["commercial"],
        origin=data["origin"],
        origin_sha256=data["origin_sha256"],
        training_data=data["training_data"],
        cautions=data["cautions"],
        input=InputSpec(
            spec["channels"], spec["layout"], spec["dtype"],
            tuple(spec["mean"]), tuple(spec["std"]), frame,
        ),
        files=tuple(WeightFile(**file) for file in data["files"]),
        figures=data.get("figures", {}),
    )  # fmt: skip
