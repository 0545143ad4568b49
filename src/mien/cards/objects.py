"""What cards say, as values: a network (`ModelCard`), and a recogniser of them (`Bundle`)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mien.errors import ModelError
from mien.types import Crowd, Frame, LivenessPoint, OperatingPoint

Task = Literal["detection", "embedding", "attributes", "liveness"]

UNKNOWN = "unknown"  # a hash that nobody trustworthy has published


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights, and where it can be fetched.

    `precision` is how it computes: "int8" or "fp32". A model of several networks has files for
    each `part`. `bytes` is None where no source states the size. `sha256` is "unknown" until the
    first download has pinned it where no source states that. `urls` hold the same bytes each;
    where `member` is set they lead to an archive (zip or bz2), and the file is the one of that
    name in it; `archive_sha256` is the archive's own hash, empty when unknown. Where `checkpoint`
    is set, `urls` lead to a checkpoint of that name, PyTorch's or (.t7) Torch's, of which
    `archive_sha256` is the hash, `network` the architecture (one of `mien.networks`) and
    `dimensions` how many numbers it gives: the file is converted from it on this machine, and
    its own hash is pinned then.
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
    dimensions: int = 512


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
    an embedder is given the landmarks, and its result is `vector`. A network of attributes is
    given them too, one of liveness the box as well: `shares` are those of the labels of each
    question in turn, or of a living face alone.
    """

    picture: str
    landmarks: tuple[tuple[float, float], ...]
    box: tuple[float, float, float, float] | None = None
    vector: tuple[float, ...] = ()
    shares: tuple[tuple[float, ...], ...] = ()


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
