"""What only servers have: access, the state of models, reviews, a live camera's scenes."""

from dataclasses import dataclass
from typing import Literal

from mien.types import Box, Face, Liveness, Match, Quality


@dataclass(frozen=True, slots=True)
class Access:
    """What the key that is sent may do. `galleries` is names, or "*" for every one.

    `keys` says whether the server asks for keys at all.
    """

    key: str
    role: Literal["read", "write", "admin"]
    galleries: tuple[str, ...]
    keys: bool


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A network that the server knows; `present` says whether its file is there."""

    id: str
    title: str
    task: str
    licence: str
    commercial: Literal["yes", "no", "unclear"]
    present: bool


@dataclass(frozen=True, slots=True)
class Review:
    """A face of which it is not sure whether it is this person's, waiting for a decision.

    `named` is whether the server gave it the name; `fpir_at_score` the share of strangers that
    score as high; `created` ISO 8601 in UTC.
    """

    id: str
    image: str
    face: Face
    quality: Quality
    subject: str
    named: bool
    score: float
    fpir_at_score: float
    created: str


@dataclass(frozen=True, slots=True)
class LiveTrack:
    """Somebody who is followed. Before a decision `state` is "looking" and `threshold` None.

    `quality` is that of the face on this picture, None if none was found; `faces` counts those so
    far that were good enough to be looked up.
    """

    track: int
    box: Box
    quality: float | None
    state: Literal["looking", "named", "unknown"]
    subject: str | None
    score: float
    threshold: float | None
    candidates: tuple[Match, ...]
    faces: int
    liveness: Liveness | None


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something was decided about a track, as `mien watch` tells it."""

    kind: Literal["decided", "ended"]
    track: int
    first_frame: int
    last_frame: int
    subject: str | None
    score: float


@dataclass(frozen=True, slots=True)
class LiveScene:
    """Who is on a picture. `seconds` is how long the server had it, `width` and `height` pixels."""

    frame: int
    width: int
    height: int
    seconds: float
    tracks: tuple[LiveTrack, ...]
    events: tuple[LiveEvent, ...]
