"""Model cards: everything needed to run, trust and cite a model, as data (one TOML file each).

Two kinds of card. A `ModelCard` describes one network: its files and their hashes, its licence,
what it was trained on, what it wants as input. A `Bundle` names a detector and an embedder that
were measured together, and carries what was measured: the operating points. What differs between
models is written here and never in a subclass.
"""

import base64
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import platformdirs

from mien.errors import InputError, ModelError, UnknownModel
from mien.types import Crowd, Frame, LivenessPoint, OperatingPoint

Task = Literal["detection", "embedding", "attributes", "liveness"]

UNKNOWN = "unknown"  # a hash that nobody trustworthy has published


def home() -> Path:
    """Where fetched models and cards are kept: `MIEN_HOME`, else the user's data folder."""
    return Path(os.environ.get("MIEN_HOME") or platformdirs.user_data_path("mien"))


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights, and where it can be fetched.

    `precision` is how it computes: "int8" or "fp32". A model of several networks has files for
    each `part`. `bytes` is None where no source states the size. `sha256` is "unknown" until the
    first download has pinned it where no source states that. `urls` hold the same bytes each;
    where `member` is set they lead to an archive (zip or bz2), and the file is the one of that
    name in it; `archive_sha256` is the archive's own hash, empty when unknown. Where `checkpoint`
    is set, `urls` lead to a PyTorch checkpoint of that name, of which `archive_sha256` is the hash
    and `network` the architecture (one of `mien.networks`): the file is converted from it on this
    machine, and its own hash is pinned then.
    """

    name: str
    sha256: str
    precision: Literal["int8", "fp32"]
    bytes: int | None = None
    part: str = ""
    urls: tuple[str, ...] = ()
    member: str = ""
    archive_sha256: str = ""
    checkpoint: str = ""
    network: str = ""


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
class Question:
    """What one output of an attribute network answers, and the labels of its numbers in order.

    Labels of ages are years or ranges of them: "34", "20-29", "70+".
    """

    task: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Golden:
    """What a model gave for one face when its card was written, to be compared with what it gives.

    `picture` is one of those inside the package. A detector's results are `box` and `landmarks`;
    an embedder is given the landmarks, and its result is `vector`.
    """

    picture: str
    landmarks: tuple[tuple[float, float], ...]
    box: tuple[float, float, float, float] | None = None
    vector: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One network: how to run it and whether you may.

    `commercial` says whether the licence of the weights allows commercial use; what is known of
    the pictures it learnt from is in `training_data`. `questions` are what the outputs of an
    attribute network answer, in their order; `liveness_points` what was measured of a network
    that tells living faces, laxest first. `origin` and `origin_sha256` name the
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
    golden: Golden | None = None
    questions: tuple[Question, ...] = ()
    liveness_points: tuple[LivenessPoint, ...] = ()

    @property
    def runnable(self) -> bool:
        """Whether mien can run it as published; where not, `cautions` says what is missing."""
        return (
            all(file.name.endswith(".onnx") for file in self.files)
            and self.decoder in DECODERS
            and (self.task in ("detection", "liveness") or self.input.frame is not None)
        )


DECODERS = (
    "vector", "retinaface", "retinaface-export", "yunet", "mtcnn", "scrfd", "softmax",
    "minifasnet",
)  # fmt: skip
"""What mien can read the outputs of; a card may name another, to be fetched but not run."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A recogniser as it was measured: detector, alignment, number of views, embedder.

    `views` is how many slightly different crops of a face are embedded and averaged. `crowd` is
    None where searches have only the `operating_points` of single comparisons to go by.

    An ensemble has `members`, bundles over one detector; a score of its is the mean of theirs,
    by `weights` that sum to 1. Its `embedder` and `views` are those of its first member.
    """

    id: str
    title: str
    detector: ModelCard
    embedder: ModelCard
    views: int
    operating_points: tuple[OperatingPoint, ...]
    figures: Mapping[str, str]
    contract: str
    crowd: Crowd | None = None
    members: tuple["Bundle", ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def search_points(self) -> tuple[OperatingPoint, ...]:
        """The thresholds that searches start from: those of the crowd where there is one."""
        return self.operating_points if self.crowd is None else self.crowd.operating_points


# The rules that turn a picture into crops (scan sizes, warp, jitter) count as part of how a
# vector was made. Whoever changes them so that vectors move must raise this number.
PREPROCESSING = 1


def contract_of(detector: ModelCard, embedder: ModelCard, views: int) -> str:
    """The name of the way a vector is made, readable and with a digest of the exact parts."""
    frame = embedder.input.frame
    if frame is None:
        raise ModelError(f"mien cannot run {embedder.id} as it is published. {embedder.cautions}")
    parts = [detector.origin_sha256, embedder.origin_sha256, frame.size, frame.template, views]
    digest = hashlib.sha256(json.dumps([*parts, PREPROCESSING]).encode()).hexdigest()[:8]
    crops = f"x{views}" if views > 1 else ""
    return f"{detector.id}+{embedder.id}{crops}@{digest}"


def model_ids() -> tuple[str, ...]:
    """The ids of all model cards, those that came with mien and those imported, sorted."""
    return tuple(sorted({*_bundled_ids("models"), *(path.stem for path in _imported())}))


def bundle_ids() -> tuple[str, ...]:
    """The ids of all bundles, those that came with mien and those kept here, sorted."""
    own = (path.stem for path in (home() / "bundles").glob("*.toml"))
    return tuple(sorted({*_bundled_ids("bundles"), *own}))


def own_bundle(name: str) -> Path:
    """Where a bundle of the user's own is kept.

    Raises `InputError` for a name that came with mien, or that is no plain name.
    """
    if name in _bundled_ids("bundles") or name in _bundled_ids("models"):
        raise InputError(f"{name!r} came with mien and stays as it was measured: use another name")
    try:
        return home() / "bundles" / f"{_plain(name)}.toml"
    except ValueError as error:
        raise InputError(str(error)) from error


def model_card(model: str) -> ModelCard:
    """The card of one network. Raises `UnknownModel`."""
    return parse(card_text(model), model)


def card_text(model: str) -> str:
    """The TOML of one network's card; those that came with mien go first. Raises `UnknownModel`."""
    if model in _bundled_ids("models"):
        return _read("models", model)
    found = next((path for path in _imported() if path.stem == model), None)
    if found is None:
        raise UnknownModel(model, model_ids())
    return found.read_text(encoding="utf-8")


def bundle(name: str) -> Bundle:
    """One bundle with its parts. Raises `UnknownModel`.

    The id of an embedder alone stands for it behind the default detector, with the operating
    points that its own card has measured behind that detector (`measured`), if any. An ensemble,
    "A+B", has none until it is kept under a name of its own with what was measured
    (`mien evaluate ... --as NAME`).
    """
    if name in _bundled_ids("bundles"):
        data = _read_toml(_read("bundles", name))
    elif name in bundle_ids():
        data = _read_own(own_bundle(name))
    elif "+" in name:
        data = {"id": name, "title": f"Ensemble of {name}", "members": name.split("+")}
    elif name in model_ids() and (card := model_card(name)).task == "embedding":
        detector = _read_toml(_read("bundles", "embedded"))["detector"]
        data = {"id": name, "title": card.title, "detector": detector, "embedder": name, "views": 1}
        data |= _read_toml(card_text(name)).get("measured", {})
    else:
        raise UnknownModel(name, (*bundle_ids(), *model_ids()))
    figures = data.get("figures", {})
    if "members" in data:
        return _ensemble(data, figures)
    detector, embedder = model_card(data["detector"]), model_card(data["embedder"])
    contract = contract_of(detector, embedder, data["views"])
    return Bundle(
        data["id"], data["title"], detector, embedder, data["views"],
        _points(data, contract), figures, contract, _crowd(data.get("crowd"), contract),
    )  # fmt: skip


def _ensemble(data: dict[str, Any], figures: Mapping[str, str]) -> Bundle:
    members = tuple(bundle(member) for member in data["members"])
    first = members[0]
    if len({member.contract for member in members}) < len(members) or len(members) < 2:
        raise ModelError(f"{data['id']}: an ensemble has two or more members, each another")
    if any(member.members for member in members):
        raise ModelError(f"{data['id']}: a member of an ensemble is not itself one")
    other = next((m.id for m in members if m.detector.id != first.detector.id), None)
    if other is not None:
        raise ModelError(
            f"{data['id']}: the members of an ensemble share a detector, and those of {first.id} "
            f"and {other} differ"
        )
    weights = tuple(data["weights"]) if "weights" in data else _weights(members)
    parts = [[m.contract, weight] for m, weight in zip(members, weights, strict=True)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    names = "+".join(m.embedder.id + (f"x{m.views}" if m.views > 1 else "") for m in members)
    contract = f"{first.detector.id}+{names}@{digest}"
    return Bundle(
        data["id"], data["title"], first.detector, first.embedder, first.views,
        _points(data, contract), figures, contract, _crowd(data.get("crowd"), contract),
        members, weights,
    )  # fmt: skip


def _weights(members: Sequence[Bundle]) -> tuple[float, ...]:
    """How much each member counts, by its quality as measured; all alike where one was not.

    The best linear sum of independent scores weighs each by the distance of its two means over
    the variance (Fisher, 1936). Both are read off the thresholds at FMR 1e-1 and 1e-3 and the FNMR
    at the latter, for scores that are normally distributed.
    """
    normal = NormalDist()
    merits = []
    for member in members:
        at = {point.fmr: point for point in member.operating_points}
        if not {1e-1, 1e-3} <= at.keys():
            return tuple(1 / len(members) for _ in members)
        strict = at[1e-3]
        deviation = (strict.threshold - at[1e-1].threshold) / (
            normal.inv_cdf(1 - 1e-3) - normal.inv_cdf(1 - 1e-1)
        )
        missed = min(max(strict.fnmr, 1e-4), 1 - 1e-4)
        distance = normal.inv_cdf(1 - 1e-3) - normal.inv_cdf(missed)  # in deviations
        merits.append(max(distance, 0.1) / deviation)
    return tuple(round(merit / sum(merits), 3) for merit in merits)


def _points(data: dict[str, Any], contract: str) -> tuple[OperatingPoint, ...]:
    return tuple(
        OperatingPoint(threshold, fmr, fnmr, data["protocol"], contract)
        for fmr, threshold, fnmr in data.get("operating_points", [])
    )


def _crowd(data: dict[str, Any] | None, contract: str) -> Crowd | None:
    if data is None:
        return None
    rows = [np.frombuffer(base64.b64decode(row), "<f2") for row in data["centres"]]
    centres = np.stack(rows).astype(np.float32)
    return Crowd(centres, data["share"], data["usual"], _points(data, contract))


def parse(text: str, where: str) -> ModelCard:
    """A model card from its TOML. `where` names it in messages.

    Raises `ModelError` for what is not a card, and for ids and file names that are not plain
    names: they become paths.
    """
    try:
        return _model(tomllib.loads(text))
    except (KeyError, TypeError, ValueError, IndexError) as error:  # TOML errors are ValueErrors
        raise ModelError(f"{where} is not a model card: {type(error).__name__}: {error}") from error


def _bundled_ids(folder: str) -> tuple[str, ...]:
    names = (entry.name for entry in resources.files(__package__).joinpath(folder).iterdir())
    return tuple(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _imported() -> tuple[Path, ...]:
    return tuple((home() / "cards").glob("*.toml"))


def _read(folder: str, name: str) -> str:
    path = resources.files(__package__).joinpath(folder, f"{name}.toml")
    return path.read_text(encoding="utf-8")


def _read_own(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        made_of = {"members", "weights"} if "members" in data else {"detector", "embedder"}
        missing = ({"id", "title", "views"} | made_of) - data.keys()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not the card of a bundle: {error}") from error
    if missing:
        raise ModelError(f"{path} is not the card of a bundle: it lacks {', '.join(missing)}")
    return data


def _read_toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def _model(data: dict[str, Any]) -> ModelCard:
    spec = data["input"]
    frame = None
    if "template" in spec:
        template = tuple((float(x), float(y)) for x, y in spec["template"])
        frame = Frame((int(spec["size"][0]), int(spec["size"][1])), template)
    files = tuple(_file(file) for file in data["files"])
    return ModelCard(
        id=_plain(data["id"]),
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
    return Golden(_plain(data["picture"]), landmarks, box, tuple(data.get("vector", ())))


def _file(data: dict[str, Any]) -> WeightFile:
    urls = tuple(data.get("urls", ()))
    name = _plain(data["name"])
    sha256 = data["sha256"]
    if sha256 == UNKNOWN:
        sha256 = _pinned(name)
    checkpoint = _plain(data["checkpoint"]) if "checkpoint" in data else ""
    given = {"name": name, "sha256": sha256, "urls": urls, "checkpoint": checkpoint}
    return WeightFile(**{**data, **given})


def pin_path(name: str) -> Path:
    """Where the hash of a file's first download is kept, as `sha256sum` writes it."""
    return home() / "models" / f"{name}.sha256"


def _pinned(name: str) -> str:
    try:
        digest = pin_path(name).read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        return UNKNOWN
    return digest if re.fullmatch(r"[0-9a-f]{64}", digest) else UNKNOWN


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"{name!r} is not a plain name of letters, digits, dots and dashes")
    return name


def _one_of(value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value
