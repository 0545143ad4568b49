"""Who is who in films with known answers."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from filming import Sprite, crossing, filmed, panning, sprite, zooming
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.ImageFilter import GaussianBlur

import mien
from mien import decision
from mien.types import Image, Match, Quality
from mien.video import Event, Scene, VideoFrame, Watcher, watch
from pictures import resized


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
    assert switches(scenes, {1: (walking_eileen, 1), 2: (walking_grace, -1)}) == 0


def switches(scenes: list[Scene], walkers: dict[int, tuple[Sprite, int]]) -> int:
    """How often a track is where its walker in `crossing` is not (1: to the right, -1: left)."""
    wrong = 0
    for number, scene in enumerate(scenes):
        for track in scene.tracks:
            sprite, way = walkers[track.track]
            left = 480 * number / 74 if way > 0 else 480 - 480 * number / 74
            middle = left + (sprite.face.left + sprite.face.right) / 2
            found = track.face is not None
            wrong += found and abs((track.box.left + track.box.right) / 2 - middle) > 15
    return wrong


def test_people_of_lfw_cross_without_a_switch(
    recognizer: mien.Recognizer, lfw: Path, tmp_path: Path
) -> None:
    """Eight pairs of strangers; one of each is enrolled with another picture."""
    folders = [
        f for f in sorted((lfw / "lfw-deepfunneled").iterdir()) if len(list(f.iterdir())) > 2
    ]
    people = [
        sprite(folder.name, image, mien.central(recognizer.detector.detect(image), image))
        for folder in folders[:: len(folders) // 16][:16]
        for image in [mien.read_image(folder / f"{folder.name}_0001.jpg")]
    ]
    with mien.open_gallery(tmp_path / "g.mien") as gallery:
        for one in people[:8]:
            other = lfw / "lfw-deepfunneled" / one.name / f"{one.name}_0002.jpg"
            gallery.enroll(one.name, other, recognizer, choose=mien.central)
        named = 0
        for known, stranger in zip(people[:8], people[8:], strict=True):
            film = crossing(known, stranger)
            scenes, events = watched(film, recognizer, gallery)
            ends = {event.track: event for event in events if event.kind == "ended"}
            assert set(ends) == {1, 2}, (known.name, stranger.name)
            first = min(scenes[10].tracks, key=lambda track: track.box.left).track
            assert switches(scenes, {first: (known, 1), 3 - first: (stranger, -1)}) == 0
            assert ends[first].subject in (known.name, None)
            assert ends[3 - first].subject is None
            named += ends[first].subject == known.name
    assert named >= 4  # at this rate and with one picture each, not everybody is


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
    """Somebody who stands before the camera while every frame is searched."""
    (face,) = recognizer.recognize(image)
    watcher = Watcher(recognizer, gallery)
    events: list[Event] = []
    for number in range(searches):
        events += watcher.see(number, number / 25, [face]).events
    return events + watcher.finish()


def test_looks_are_few_and_each_has_its_share(recognizer: mien.Recognizer, eileen: Image) -> None:
    gallery = Asked({"Ada": 0.5})
    events = stood_still(recognizer, gallery, eileen, 100)
    assert len(gallery.probes) == 2 + 12 + 1  # at 2, 4, then 8, 16, ..., 96, and at the end
    answers = [event.answer for event in events]
    assert all(a is not None and a.fpir == pytest.approx(1e-2 / np.e) for a in answers)
    assert told(events, "decided") == told(events, "ended") == [(1, None)]


def test_a_name_needs_the_full_threshold_and_outlasts_a_dip(
    recognizer: mien.Recognizer, eileen: Image
) -> None:
    (face,) = recognizer.recognize(eileen)
    full, leave = (
        decision.search_point(recognizer.bundle, face.embedding, fpir, 1000).threshold
        for fpir in (decision.repeated(1e-2), 0.5)
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


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1e-2))
@settings(max_examples=20)
def test_many_looks_at_means_of_scores_are_wrong_at_most_as_often_as_promised(
    seed: int, fpir: float
) -> None:
    """Strangers whose scores have an exponential tail, each with a level of its own."""
    rng = np.random.default_rng(seed)
    people, looks = 200_000 // 32, 32
    own = rng.exponential(0.5, (people, 1))  # scores of one person hang together
    scores = own + rng.exponential(0.5, (people, looks))
    means = scores.cumsum(axis=1) / np.arange(1, looks + 1)
    allowed = decision.repeated(fpir)
    # the sum of two exponentials of scale 1/2 is a gamma: P(score >= t) = (1 + 2t) exp(-2t)
    t = np.linspace(0, 20, 20_001)
    threshold = np.interp(-allowed, -(1 + 2 * t) * np.exp(-2 * t), t)
    wrong = (means.max(axis=1) >= threshold).mean()
    assert wrong <= fpir + 4 * np.sqrt(fpir / people)


def test_a_track_is_looked_up_by_what_its_faces_have_in_common(
    recognizer: mien.Recognizer, knows_eileen: mien.Gallery, eileen: Image
) -> None:
    turned = Image(np.ascontiguousarray(eileen.pixels[:, ::-1]))
    blurred = Image(np.asarray(PIL.Image.fromarray(eileen.pixels).filter(GaussianBlur(3))))
    others = (turned, blurred, resized(eileen, 800, 512))
    faces = [recognizer.recognize(image)[0] for image in others]
    (enrolled,) = recognizer.recognize(eileen)
    watcher = Watcher(recognizer, knows_eileen)
    for number, face in enumerate(faces):
        box = faces[0].face.box  # she stands still
        watcher.see(number, number / 25, [replace(face, face=replace(face.face, box=box))])
    (ended,) = [event for event in watcher.finish() if event.kind == "ended"]
    fused = mien.fuse([face.embedding for face in faces])
    assert ended.score == pytest.approx(mien.similarity(enrolled.embedding, fused), abs=1e-5)
    assert ended.answer is not None
    wanted = decision.search_point(recognizer.bundle, fused, decision.repeated(1e-2), 1)
    assert ended.answer.operating_point.threshold == pytest.approx(wanted.threshold, abs=1e-6)


def test_the_same_face_again_is_no_further_evidence(
    recognizer: mien.Recognizer, eileen: Image, grace: Image
) -> None:
    """Of faces that are all but the same the best is kept, so that others are not crowded out."""
    (clear,) = recognizer.recognize(eileen)
    blurred = Image(np.asarray(PIL.Image.fromarray(eileen.pixels).filter(GaussianBlur(3))))
    (other,) = recognizer.recognize(blurred)
    other = replace(other, face=clear.face)
    gallery = Asked({"Ada": 0.5})
    watcher = Watcher(recognizer, gallery)
    for number, face in enumerate([other, *[clear] * 20]):
        watcher.see(number, number / 25, [face])
    watcher.finish()
    both = mien.fuse([clear.embedding, other.embedding])
    assert mien.similarity(gallery.probes[-1], both) == pytest.approx(1.0, abs=1e-6)


def test_a_poor_face_is_followed_and_not_looked_up(
    recognizer: mien.Recognizer, eileen: Image
) -> None:
    (face,) = recognizer.recognize(eileen)
    poor = replace(face, quality=Quality(0.05, ("blurred",)))
    gallery = Asked({"Ada": 0.99})
    watcher = Watcher(recognizer, gallery)
    for number in range(10):
        scene = watcher.see(number, number / 25, [poor])
    (track,) = scene.tracks
    assert (track.faces, track.answer) == (0, None)
    assert told(watcher.finish(), "ended") == [(1, None)]
    assert gallery.probes == []
