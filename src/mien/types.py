"""The immutable values every module speaks in, and the conventions they obey.

Stated once, true everywhere:

- **pixels** are uint8 RGB, rows first: `(height, width, 3)`. Other orders exist only where a
  model card's `InputSpec` asks for them.
- **points** are float32 `(x, y)` in pixels of the picture they came from, x to the right and y
  down; `(0, 0)` is the centre of the top-left pixel, so a picture covers -0.5 .. width - 0.5.
- **left and right** are as seen in the picture (the left eye is usually the subject's right one).
- a **score** is a cosine similarity in [-1, 1]; higher means more alike. What it is worth depends
  on the model: read it through an `OperatingPoint`.
- a **contract** names everything that made a vector: detector, alignment, crops, embedder.
  Vectors of two contracts are never compared.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError

Pixels = NDArray[np.uint8]  # (height, width, 3)
Points = NDArray[np.float32]  # (n, 2)
Vector = NDArray[np.float32]  # (dim,), unit length
Affine = NDArray[np.float64]  # (2, 3): maps (x, y, 1) to (x', y')

Progress = Callable[[Iterable[Any], int, str], Iterator[Any]]
"""Gives the items of a long loop and shows how far it is: takes them, how many there are, and what
one is called."""


def silent(items: Iterable[Any], total: int, unit: str) -> Iterator[Any]:
    """The `Progress` that shows nothing."""
    return iter(items)


@dataclass(frozen=True, eq=False, slots=True)
class Image:
    """One decoded picture. `source` is the name used for it in messages."""

    pixels: Pixels
    source: str = "the picture"

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise InputError(
                f"pixels of {self.source} must be uint8 of shape (height, width, 3), "
                f"got {pixels.dtype} of shape {pixels.shape}"
            )

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle in pixels of the picture; it may reach beyond the border."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return max(0.0, self.right - self.left)

    @property
    def height(self) -> float:
        return max(0.0, self.bottom - self.top)

    @property
    def area(self) -> float:
        return self.width * self.height


@dataclass(frozen=True, eq=False, slots=True)
class Landmarks:
    """Five points: left eye, right eye, nose tip, left and right mouth corner, shape (5, 2)."""

    points: Points

    def __post_init__(self) -> None:
        if self.points.shape != (5, 2) or not np.isfinite(self.points).all():
            raise InputError(f"landmarks are 5 finite points, got shape {self.points.shape}")


@dataclass(frozen=True, eq=False, slots=True)
class Face:
    """What a detector knows of a face: where it is, and how sure it is (0 to 1)."""

    box: Box
    landmarks: Landmarks
    confidence: float


@dataclass(frozen=True, slots=True)
class Frame:
    """The crop an embedder expects: (width, height), and where in it the five landmarks go."""

    size: tuple[int, int]
    template: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False, slots=True)
class AlignedFace:
    """A face warped to the frame of an embedder.

    `transform` maps points of the picture to points of the crop. `residual` is the root mean
    square distance between the moved landmarks and the frame's template, as a share of the
    template's eye distance: about 0.1 for a frontal face, above 0.2 the landmarks are doubtful or
    the head is turned away.
    """

    pixels: Pixels
    transform: Affine
    residual: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is for recognition, in [0, 1], and the named measures that limit it."""

    value: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a head points, in degrees; all 0 for a face that looks into the camera.

    `yaw` > 0: turned to the right of the picture. `pitch` > 0: raised. `roll` > 0: leaning to the
    right of the picture (clockwise).
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class Category:
    """One of several labels, and what the network gives each of them; they sum to 1.

    The probabilities are the network's own and not calibrated.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Age:
    """Apparent age in years, and the middle 80% of what the network holds possible."""

    years: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LivenessPoint:
    """A threshold for liveness together with the evidence for it.

    A face passes as live when its score is at least `threshold`. `apcer` of the attacks pass,
    `bpcer` of the real faces do not (ISO/IEC 30107-3), as measured on `protocol`; `apcer` is that
    of the kind of attack that passes most often.
    """

    threshold: float
    apcer: float
    bpcer: float
    protocol: str

    def accepts(self, score: float) -> bool:
        return score >= self.threshold


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether a face is a person or a picture of one, and how often such an answer is wrong.

    `score` is in [0, 1], higher for a living face.
    """

    live: bool
    score: float
    operating_point: LivenessPoint


Answer = Category | Age | Liveness


@dataclass(frozen=True, eq=False, slots=True)
class Analysis:
    """What one face looks like. None stands for what was not asked for or has no model here."""

    face: Face
    quality: Quality
    pose: Pose
    age: Age | None = None
    gender: Category | None = None
    expression: Category | None = None
    ethnicity: Category | None = None
    liveness: Liveness | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Embedding:
    """Who a face is, as a unit vector float32 (dim,), and the contract that made it."""

    vector: Vector
    contract: str

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all():
            raise InputError(f"an embedding is one finite vector, got shape {self.vector.shape}")


@dataclass(frozen=True, eq=False, slots=True)
class RecognizedFace:
    """A detected face with its quality and its embedding."""

    face: Face
    quality: Quality
    embedding: Embedding


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold together with the evidence for it.

    A score matches when it is at least `threshold`; `fmr` of the comparisons between different
    people do so wrongly, `fnmr` of those of the same person wrongly do not, as measured on
    `protocol` with vectors of `contract`.
    """

    threshold: float
    fmr: float
    fnmr: float
    protocol: str
    contract: str

    def accepts(self, score: float) -> bool:
        return score >= self.threshold


@dataclass(frozen=True, eq=False, slots=True)
class Crowd:
    """How faces of strangers are spread, and what a search may conclude from it.

    `centres` (n, dim) float32 are the means of groups of people who resemble one another, so none
    is anybody's template. A probe near them has many lookalikes and needs a higher score (see
    `mien.decision.demand`): `share` of the amount by which its nearness exceeds what is `usual`.
    `operating_points` hold for scores less that demand, one probe against one template.
    """

    centres: NDArray[np.float32]
    share: float
    usual: float
    operating_points: tuple[OperatingPoint, ...]

    def __post_init__(self) -> None:
        if self.centres.ndim != 2 or not np.isfinite(self.centres).all():
            raise InputError(f"centres are finite rows, got shape {self.centres.shape}")


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether two faces are the same person, and how often such an answer is wrong."""

    match: bool
    score: float
    operating_point: OperatingPoint


@dataclass(frozen=True, eq=False, slots=True)
class Template:
    """One enrolled picture of a subject, without its vector.

    `source` is the name of the picture, `created` an ISO 8601 time in UTC.
    """

    id: int
    subject: str
    source: str
    quality: float
    created: str


@dataclass(frozen=True, slots=True)
class Match:
    """One row of a search: a subject and its best score against the probe."""

    subject: str
    template: int
    score: float


@dataclass(frozen=True, eq=False, slots=True)
class Identification:
    """Who a face is among the enrolled: `subject`, or None for "unknown".

    `operating_point.threshold` is the score that this face needed: chosen so that a stranger is
    named at a rate of at most `fpir` in a gallery of `gallery_size` templates. `candidates` are the
    best subjects, best first, whether they reach the threshold or not; `score` is that of the
    first (-1.0 when nobody is enrolled).
    """

    face: Face
    subject: str | None
    score: float
    candidates: tuple[Match, ...]
    operating_point: OperatingPoint
    fpir: float
    gallery_size: int
