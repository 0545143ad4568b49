"""Who is who in films with known answers."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from filming import Sprite, crossing, filmed, panning, zooming

import mien
from mien import decision
from mien.types import Image, Match, Quality
from mien.video import Event, Scene, VideoFrame, Watcher, watch


def watched(
    frames: Iterable[VideoFrame],
    recognizer: mien.Recognizer,
    gallery: mien.Gallery,
    *,
    every: int = 5,
    threads: int = 1,
    patience: float = 2.0,
) -> tuple[list[Scene], list[Event]]:
    """Every scene of a film, and every event including those at its end."""
    watcher = Watcher(recognizer, gallery, patience=patience)
    scenes = [s for _, s in watch(frames, recognizer, watcher, every=every, threads=threads)]
    return scenes, [e for s in scenes for e in s.events] + watcher.finish()


def told(events: Iterable[Event], kind: str) -> list[tuple[int, str | None]]:
    return [(event.track, event.subject) for event in events if event.kind == kind]


def test_two_people_cross_and_each_is_decided_once(
    recognizer: mien.Recognizer,
    knows_eileen: mien.Gallery,
    walking_eileen: Sprite,
    walking_grace: Sprite,
) -> None:
    scenes, events = watched(crossing(walking_eileen, walking_grace), recognizer, knows_eileen)
    assert sorted(told(events, "decided")) == [(1, "Eileen"), (2, None)]
    assert sorted(told(events, "ended")) == [(1, "Eileen"), (2, None)]
    by_track = {event.track: event for event in events if event.kind == "ended"}
    assert all(event.first_frame == 0 and event.last_frame == 70 for event in by_track.values())
    for number, scene in enumerate(scenes):  # and nobody ever takes the other's place
        for track in scene.tracks:
            if track.face is None:
                continue
            sprite, way = (walking_eileen, 480 * number / 74)
            if track.track == 2:
                sprite, way = walking_grace, 480 - way
            middle = way + (sprite.face.left + sprite.face.right) / 2
            assert abs((track.box.left + track.box.right) / 2 - middle) < 12


def test_it_is_the_same_however_often_frames_are_searched_and_by_how_many_threads(
    recognizer: mien.Recognizer,
    knows_eileen: mien.Gallery,
    walking_eileen: Sprite,
    walking_grace: Sprite,
) -> None:
    for every, threads in ((2, 1), (10, 1), (5, 2)):
        film = crossing(walking_eileen, walking_grace)
        _, events = watched(film, recognizer, knows_eileen, every=every, threads=threads)
        assert sorted(told(events, "ended")) == [(1, "Eileen"), (2, None)], (every, threads)


def test_someone_who_comes_nearer_is_named_once_and_keeps_the_name(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, walking_eileen: Sprite
) -> None:
    scenes, events = watched(zooming(walking_eileen), recognizer, knows_eileen)
    assert told(events, "decided") == told(events, "ended") == [(1, "Eileen")]
    names = [track.subject for scene in scenes for track in scene.tracks]
    assert names == sorted(names, key=lambda name: name is not None)  # None, ..., Eileen, ...


def test_the_camera_moves_from_one_person_to_another(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, both: Image
) -> None:
    _, events = watched(panning(both), recognizer, knows_eileen)
    assert sorted(told(events, "ended")) == [(1, "Eileen"), (2, None)]
    ended = {event.track: event for event in events if event.kind == "ended"}
    assert ended[1].last_frame < ended[2].last_frame == 70


def test_a_cut_to_somebody_else_in_the_same_place_is_a_new_track(
    recognizer: mien.Recognizer,
    knows_eileen: mien.Gallery,
    walking_eileen: Sprite,
    walking_grace: Sprite,
) -> None:
    film = filmed(60, lambda n: [(walking_eileen if n < 30 else walking_grace, 240, 100, 1.0)])
    _, events = watched(film, recognizer, knows_eileen)
    ended = {event.track: event for event in events if event.kind == "ended"}
    assert [ended[1].subject, ended[2].subject] == ["Eileen", None]
    assert (ended[1].last_frame, ended[2].first_frame) == (25, 30)


@pytest.mark.parametrize(("hidden", "tracks"), [(1.0, 1), (3.0, 2)])
def test_someone_hidden_for_less_than_the_patience_is_the_same_track(
    recognizer: mien.Recognizer,
    knows_eileen: mien.Gallery,
    walking_eileen: Sprite,
    hidden: float,
    tracks: int,
) -> None:
    """She walks behind something and comes out elsewhere than she would have walked to."""

    def scene(number: int) -> list[tuple[Sprite, float, float, float]]:
        if number < 25:
            return [(walking_eileen, 4 * number, 100, 1.0)]
        if number < 25 + 25 * hidden:
            return []
        return [(walking_eileen, 400, 150, 1.0)]

    count = round(25 + 25 * hidden + 25)
    _, events = watched(filmed(count, scene), recognizer, knows_eileen)
    assert [subject for _, subject in told(events, "ended")] == ["Eileen"] * tracks


def test_nobody_there_nothing_told(recognizer: mien.Recognizer, knows_eileen: mien.Gallery) -> None:
    scenes, events = watched(filmed(15, lambda n: []), recognizer, knows_eileen)
    assert events == []
    assert [scene.tracks for scene in scenes] == [()] * 15


def test_a_face_found_once_is_no_track(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, walking_eileen: Sprite
) -> None:
    film = filmed(20, lambda n: [(walking_eileen, 240, 100, 1.0)] if n == 5 else [])
    assert watched(film, recognizer, knows_eileen)[1] == []


def test_a_stranger_is_announced_before_leaving(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, walking_grace: Sprite
) -> None:
    scenes, _ = watched(
        filmed(60, lambda n: [(walking_grace, 240, 100, 1.0)]), recognizer, knows_eileen
    )
    (event,) = [event for scene in scenes for event in scene.events]
    assert (event.kind, event.subject) == ("decided", None)
    assert event.answer is not None
    assert event.score < event.answer.operating_point.threshold


def test_in_an_empty_gallery_everybody_is_unknown(
    recognizer: mien.Recognizer, walking_eileen: Sprite, tmp_path: Path
) -> None:
    with mien.open_gallery(tmp_path / "empty.mien") as gallery:
        film = filmed(20, lambda n: [(walking_eileen, 240, 100, 1.0)])
        _, events = watched(film, recognizer, gallery)
    assert told(events, "ended") == [(1, None)]
    assert events[-1].score == -1.0


def test_a_gallery_of_another_model_is_refused(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery
) -> None:
    other = replace(recognizer, bundle=mien.load("embedded-accurate").bundle)
    with pytest.raises(mien.ContractMismatch):
        Watcher(other, knows_eileen)


@pytest.mark.parametrize("fpir", [0.0, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, fpir: float
) -> None:
    with pytest.raises(mien.InputError, match="between 0 and 1"):
        Watcher(recognizer, knows_eileen, fpir=fpir)


# -------------------------------------------------------------------------- a track's decision


class Asked:
    """A gallery that answers with the scores it is told, and remembers how often it was asked."""

    def __init__(self, *scores: dict[str, float]) -> None:
        self.scores = list(scores)
        self.probes: list[mien.Embedding] = []

    def require(self, contract: str) -> None: ...

    def __len__(self) -> int:
        return 1000

    def search(self, probe: mien.Embedding, limit: int) -> list[Match]:
        scores = self.scores[min(len(self.probes), len(self.scores) - 1)]
        self.probes.append(probe)
        best = sorted(scores.items(), key=lambda item: -item[1])[:limit]
        return [Match(name, number, score) for number, (name, score) in enumerate(best)]


def stood_still(
    recognizer: mien.Recognizer, gallery: Asked, image: Image, searches: int
) -> list[Event]:
    """Somebody who stands before the camera while every frame is searched.

    Each face is a little better than the one before, so that each look has something new.
    """
    (face,) = recognizer.recognize(image)
    watcher = Watcher(recognizer, cast("mien.Gallery", gallery))
    events: list[Event] = []
    for number in range(searches):
        better = replace(face, quality=Quality(0.5 + 0.4 * number / searches))
        events += watcher.see(number, number / 25, [better]).events
    return events + watcher.finish()


def test_looks_become_rare_and_their_shares_stay_within_the_rate(
    recognizer: mien.Recognizer, eileen: Image
) -> None:
    gallery = Asked({"Ada": 0.5})
    events = stood_still(recognizer, gallery, eileen, 200)
    assert len(gallery.probes) == 8  # at 2, 4, 8, ..., 128 faces, and at the end
    last = events[-1].answer
    assert last is not None
    assert last.fpir == pytest.approx(1e-2 / (8 * 9))
    assert sum(decision.spent(1e-2, look) for look in range(1, 9)) < 1e-2
    assert told(events, "decided") == told(events, "ended") == [(1, None)]


def test_a_name_needs_the_full_threshold_and_outlasts_a_dip(
    recognizer: mien.Recognizer, eileen: Image
) -> None:
    (face,) = recognizer.recognize(eileen)
    full, leave = (
        decision.search_point(recognizer.bundle, face.embedding, fpir, 1000).threshold
        for fpir in (5e-3, 0.5)
    )
    assert leave < full - 0.01

    below = stood_still(recognizer, Asked({"Ada": full - 0.001}), eileen, 9)
    assert told(below, "ended") == [(1, None)]

    dips = Asked({"Ada": full + 0.001}, {"Ada": leave + 0.001, "Bob": leave})
    assert told(stood_still(recognizer, dips, eileen, 9), "decided") == [(1, "Ada")]

    falls = Asked({"Ada": full + 0.001}, {"Ada": leave - 0.001})
    assert told(stood_still(recognizer, falls, eileen, 9), "decided") == [(1, "Ada"), (1, None)]

    turns = Asked({"Ada": full + 0.001}, {"Bob": 0.99, "Ada": leave - 0.001})
    assert told(stood_still(recognizer, turns, eileen, 9), "decided") == [(1, "Ada"), (1, "Bob")]


def test_the_score_of_a_track_is_the_mean_of_the_scores_of_its_faces(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, eileen: Image
) -> None:
    """Not that of the mean direction, which lies nearer to everybody."""
    darker = Image((eileen.pixels * 0.55).astype(np.uint8))
    turned = Image(np.ascontiguousarray(eileen.pixels[:, ::-1]))
    faces = [recognizer.recognize(image)[0] for image in (eileen, darker, turned)]
    (enrolled,) = recognizer.recognize(eileen)
    watcher = Watcher(recognizer, knows_eileen)
    for number, face in enumerate(faces):
        box = faces[0].face.box  # she stands still
        watcher.see(number, number / 25, [replace(face, face=replace(face.face, box=box))])
    (ended,) = [event for event in watcher.finish() if event.kind == "ended"]
    scores = [float(enrolled.embedding.vector @ face.embedding.vector) for face in faces]
    assert ended.score == pytest.approx(np.mean(scores), abs=1e-5)
    fused = mien.similarity(enrolled.embedding, mien.fuse([face.embedding for face in faces]))
    assert fused > ended.score + 0.001


def test_a_poor_face_is_followed_and_not_looked_up(
    recognizer: mien.Recognizer, eileen: Image
) -> None:
    (face,) = recognizer.recognize(eileen)
    poor = replace(face, quality=Quality(0.05, ("blurred",)))
    gallery = Asked({"Ada": 0.99})
    watcher = Watcher(recognizer, cast("mien.Gallery", gallery))
    for number in range(10):
        scene = watcher.see(number, number / 25, [poor])
    (track,) = scene.tracks
    assert (track.faces, track.answer) == (0, None)
    assert told(watcher.finish(), "ended") == [(1, None)]
    assert gallery.probes == []
