"""Who is who in films with known answers."""

from collections.abc import Iterable

from filming import Sprite, crossing

import mien
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
