"""One decision a track: collect its best faces, fuse them, look them up a few times, keep the name.

**What repeating does to the error rate.** The promise is per track: of the strangers that pass, at
most a share `fpir` is ever given a name. A track that is looked up again and again has many chances
to be wrong, but far fewer than that many independent ones: `decision.repeated` bounds them all
together by a factor of e, so each look is decided at `fpir` / e. Looks come at 2, 4, 8 good faces,
then after every 8, and at the end.

**What fusing does to the scores.** Thresholds were measured between single faces. The mean of
several vectors of a person points to what they have in common with everybody too, so its scores are
higher, those against strangers included; what resembling many people demands of a probe
(`decision.demand`) rises with them. docs/results-video.md has what was measured on LFW.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from mien import decision
from mien.embedding import fuse, mean_direction
from mien.errors import InputError
from mien.gallery import MIN_QUALITY
from mien.geometry import Boxes, giou
from mien.recognition import Recognizer, ordered_map
from mien.types import Box, Embedding, Identification, Match, RecognizedFace
from mien.video.reading import VideoFrame
from mien.video.tracking import (
    Affinity,
    Motion,
    all_but_the_same,
    assign,
    resemblance,
)

KEPT = 5
"""Faces of a track that are fused: its best by quality, no two of them all but the same."""

CONFIRMED = 2
"""Detections before a face is believed to be a track: detectors err once, seldom twice."""

STRANGER_FACES = 8
"""Good faces without a name after which a track is announced as unknown."""

_OFTEN = 8  # good faces after which a track is looked up again: somebody may have been enrolled
_CANDIDATES = 5


@dataclass(frozen=True, eq=False, slots=True)
class Tracked:
    """One track as it stands at a frame. `face` is None where it was not detected but moved on.

    `answer` is the decision so far, None before the first look; `faces` counts the faces good
    enough to be looked up.
    """

    track: int
    box: Box
    face: RecognizedFace | None
    answer: Identification | None
    first_frame: int
    last_frame: int
    faces: int

    @property
    def subject(self) -> str | None:
        """The name, or None for nobody yet and for "unknown"."""
        return self.answer.subject if self.answer else None


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """Something was decided about a track: who it is, or, when it ended, who it was.

    "decided" comes once a track, when there is a name or when several looks gave none, and again
    only if the decision changes; "ended" comes once, at the end. Frames are those of the first and
    the last detection so far, times in seconds. `answer` is None when no face was good enough.
    """

    kind: Literal["decided", "ended"]
    track: int
    first_frame: int
    last_frame: int
    first_time: float
    last_time: float
    faces: int
    answer: Identification | None

    @property
    def subject(self) -> str | None:
        return self.answer.subject if self.answer else None

    @property
    def score(self) -> float:
        """Of the best candidate; -1.0 when there was nothing to compare."""
        return self.answer.score if self.answer else -1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """The tracks at one frame, and what was decided at it."""

    tracks: tuple[Tracked, ...]
    events: tuple[Event, ...]


def watch(
    frames: Iterable[VideoFrame],
    recognizer: Recognizer,
    watcher: "Watcher",
    *,
    every: int = 5,
    threads: int = 1,
) -> Iterator[tuple[VideoFrame, Scene]]:
    """Each frame with its scene; every `every`-th is searched for faces, in between they move on.

    With more than one of `threads`, several frames of a file are searched at once. A live source
    wants one: more would read ahead of what is shown. Call `watcher.finish` at the end.
    """
    if every < 1:
        raise InputError(f"every is at least 1, got {every}")

    def due() -> Iterator[tuple[VideoFrame, bool]]:
        following = 0
        for frame in frames:
            yield frame, frame.index >= following
            if frame.index >= following:
                following = frame.index + every

    def look(item: tuple[VideoFrame, bool]) -> tuple[VideoFrame, list[RecognizedFace] | None]:
        frame, searched = item
        return frame, recognizer.recognize(frame.decode()) if searched else None

    for frame, faces in ordered_map(look, due(), threads, ahead=2 * every):
        yield frame, watcher.see(frame.index, frame.time, faces)


class Enrolled(Protocol):
    """What a watcher asks of a gallery; a `Gallery` is one."""

    def require(self, contract: str) -> None:
        """Raise `ContractMismatch` unless vectors of `contract` belong in it."""
        ...

    def search(self, probe: Embedding, limit: int) -> list[Match]:
        """The subjects most like a probe, best first."""
        ...

    def __len__(self) -> int: ...


class Watcher:
    """Follows the people in front of one source and decides who each is, against a gallery.

    `fpir` is the share of strangers, counted as tracks, that may be given a name. A face that is
    not found for `patience` seconds has left. Not safe to use from several threads at once; have
    one for each source. Raises `NoOperatingPoint` when the model was never measured,
    `ContractMismatch` when the gallery was made with another.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        gallery: Enrolled,
        *,
        fpir: float = 1e-2,
        patience: float = 2.0,
    ) -> None:
        if not 0 < fpir < 1:
            raise InputError(f"a rate of false names lies between 0 and 1, got {fpir:g}")
        gallery.require(recognizer.contract)
        self._gallery = gallery
        self._fpir = fpir
        self._patience = patience
        self._contract = recognizer.contract
        self._bundle = recognizer.bundle
        points = self._bundle.operating_points
        self._alike = resemblance(points, self._contract)
        self._same = all_but_the_same(points, self._contract)
        self._tracks: list[_Track] = []
        self._ids = 0

    def see(self, frame: int, time: float, faces: Sequence[RecognizedFace] | None) -> Scene:
        """The next frame, by its number and its time in seconds, with the faces found on it.

        `faces` is None for a frame that was not searched: the tracks move on.
        """
        events = self._follow(frame, time, faces) if faces is not None else []
        shown = [track.state(frame, time) for track in self._tracks if track.id and track.there]
        return Scene(tuple(shown), tuple(events))

    def finish(self) -> list[Event]:
        """End all tracks, as when the source is closed."""
        ended, self._tracks = self._tracks, []
        return [event for track in ended for event in self._end(track)]

    def _follow(self, frame: int, time: float, faces: Sequence[RecognizedFace]) -> list[Event]:
        pairs = assign(self._affinity(faces, time))
        for track in self._tracks:
            track.missed += 1
        for number, i in pairs:
            self._tracks[number].add(faces[i], frame, time)
        known = {i for _, i in pairs}
        self._tracks += [
            _Track(face, frame, time, self._same) for i, face in enumerate(faces) if i not in known
        ]
        events: list[Event] = []
        for track in [track for track in self._tracks if self._gone(track, time)]:
            self._tracks.remove(track)
            events += self._end(track)
        for track in self._tracks:
            if not track.id and track.sightings >= CONFIRMED:
                self._ids += 1
                track.id = self._ids
            if track.id and track.usable >= track.due:
                self._look(track)
                events += track.announce(final=False)
        return events

    def _affinity(self, faces: Sequence[RecognizedFace], time: float) -> Affinity:
        if not faces or not self._tracks:
            return np.zeros((len(self._tracks), len(faces)))
        there = _boxes([track.motion.at(time) for track in self._tracks])
        here = _boxes([face.face.box for face in faces])
        looks = [[self._resembles(track, face) for face in faces] for track in self._tracks]
        affinity: Affinity = giou(there, here).astype(np.float64) + np.array(looks)
        return affinity

    def _resembles(self, track: "_Track", face: RecognizedFace) -> float:
        """How much a face looks like a track, in [-1, 1]; 0 where one is too poor to say."""
        if not track.kept or face.quality.value < MIN_QUALITY:
            return 0.0
        centre = mean_direction(np.stack([k.embedding.vector for k in track.kept]))
        vectors = (centre, track.latest.embedding.vector)
        return self._alike(max(float(v @ face.embedding.vector) for v in vectors))

    def _gone(self, track: "_Track", time: float) -> bool:
        unconfirmed = not track.id and track.missed > 1
        return unconfirmed or time - track.motion.time > self._patience

    def _look(self, track: "_Track") -> None:
        """Look a track up by its best faces."""
        track.due = track.usable + min(track.usable, _OFTEN)
        probe = fuse([face.embedding for face in track.kept])
        answer = decision.identify(
            replace(track.kept[0], embedding=probe),
            self._gallery.search(probe, _CANDIDATES),
            self._bundle,
            fpir=decision.repeated(self._fpir),
            gallery_size=len(self._gallery),
        )
        track.answer = decision.steady(track.answer, answer, self._bundle, probe)

    def _end(self, track: "_Track") -> list[Event]:
        if not track.id:
            return []
        if track.kept:
            self._look(track)
        return track.announce(final=True)


def _boxes(boxes: Sequence[Box]) -> Boxes:
    return np.array([(b.left, b.top, b.right, b.bottom) for b in boxes], np.float32)


class _Track:
    """What is known of one track; it changes with every detection."""

    def __init__(self, face: RecognizedFace, frame: int, time: float, same: float) -> None:
        self._same = same
        self.id = 0  # not confirmed yet
        self.motion = Motion(face.face.box, time)
        self.first_frame, self.first_time = frame, time
        self.sightings = self.usable = 0
        self.due = 2
        self.kept: list[RecognizedFace] = []
        self.answer: Identification | None = None
        self._said: set[str | None] | None = None
        self.add(face, frame, time)

    def add(self, face: RecognizedFace, frame: int, time: float) -> None:
        """A detection that belongs to it."""
        self.motion = self.motion.seen(face.face.box, time)
        self.last_frame, self.current, self.missed = frame, face, 0
        self.sightings += 1
        if face.quality.value >= MIN_QUALITY:
            self.usable += 1
            self.latest = face
            self.kept = self._best([*self.kept, face])

    def _best(self, faces: list[RecognizedFace]) -> list[RecognizedFace]:
        """The best by quality, best first, without those all but the same as a better one.

        Neighbouring frames show the same face again, and say nothing new of who it is.
        """
        best: list[RecognizedFace] = []
        for face in sorted(faces, key=lambda face: -face.quality.value):
            vector = face.embedding.vector
            if all(float(other.embedding.vector @ vector) < self._same for other in best):
                best.append(face)
        return best[:KEPT]

    @property
    def there(self) -> bool:
        """Whether it is worth showing: found by one of the last two searches."""
        return self.missed < 2

    def state(self, frame: int, time: float) -> Tracked:
        """How it stands at a frame."""
        face = self.current if self.last_frame == frame else None
        box = self.motion.at(time)
        return Tracked(
            self.id, box, face, self.answer, self.first_frame, self.last_frame, self.usable
        )

    def announce(self, *, final: bool) -> list[Event]:
        """What is to be told of it now."""
        subject = self.answer.subject if self.answer else None
        events = []
        if (final or subject or self.usable >= STRANGER_FACES) and self._said != {subject}:
            self._said = {subject}
            events.append(self._event("decided"))
        return [*events, self._event("ended")] if final else events

    def _event(self, kind: Literal["decided", "ended"]) -> Event:
        return Event(
            kind, self.id, self.first_frame, self.last_frame, self.first_time, self.motion.time,
            self.usable, self.answer,
        )  # fmt: skip
