"""Video: frames a second against detecting every frame, and how often a track gets a wrong name.

python benchmarks/video.py speed [--rounds 5]
python benchmarks/video.py decisions --data ../shared/data [--cache lfw.npz --rounds 8]
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np

import mien
from mien.gallery import Entry
from mien.types import Box, Face, Image, Landmarks, Quality, RecognizedFace
from mien.video import Film, Watcher, read_video, watch

TIMES_SEEN = 32  # detections of a track: each picture of a person comes back so often
FPIR = 1e-2
FRAMES = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "decisions"])
    parser.add_argument("--data", type=Path, help="folder with lfw/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, help="only the first so many of DevTest")
    parser.add_argument("--cache", type=Path, default=Path("lfw.npz"), help="described pictures")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, "
          f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    if arguments.what == "speed":
        speed(arguments.rounds)
    elif arguments.data is None:
        sys.exit("decisions are measured on LFW: name its folder with --data")
    else:
        people = _people(arguments.data / "lfw", arguments.people)
        decisions(people, arguments.cache, arguments.rounds)


# ------------------------------------------------------------------------------------------- speed


def speed(rounds: int) -> None:
    """A pan over both portraits, 30 frames of 960 x 540; one thread; CPU time, side by side."""
    recognizer = mien.load(threads=1)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pan.mp4"
        _pan(path)
        gallery = mien.open_gallery(Path(place) / "g.mien")
        gallery.enroll("Eileen", _portrait("eileen-collins"), recognizer)

        def plain() -> None:
            for frame in read_video(str(path)):
                recognizer.detector.detect(frame.decode())

        def followed(every: int) -> Callable[[], None]:
            def task() -> None:
                watcher = Watcher(recognizer, gallery)
                for _ in watch(read_video(str(path)), recognizer, watcher, every=every):
                    pass
                watcher.finish()

            return task

        tasks = {"detect every frame": plain} | {
            f"watch --every {n}": followed(n) for n in (1, 2, 5, 10)
        }
        seconds: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(rounds):
            for name, task in tasks.items():  # side by side: noise falls on all
                start = time.process_time()
                task()
                seconds[name].append(time.process_time() - start)
        ratios = {
            name: [
                base / own for base, own in zip(seconds["detect every frame"], times, strict=True)
            ]
            for name, times in seconds.items()
        }
        for name, times in seconds.items():
            low, middle, high = _spread(ratios[name])
            print(f"{name:20} {FRAMES / statistics.median(times):6.1f} frames a CPU-second  "
                  f"{middle:5.2f} x plain detection ({low:.2f} to {high:.2f})")  # fmt: skip
        gallery.close()


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def _portrait(name: str) -> Image:
    folder = resources.files("mien").joinpath("bundled", "pictures")
    return mien.read_image(folder.joinpath(f"{name}.jpg").read_bytes())


def _pan(path: Path) -> None:
    parts = [_portrait(name).pixels[:512] for name in ("eileen-collins", "grace-hopper")]
    wide = np.concatenate([*parts, parts[0][:, ::-1], *parts], axis=1)
    canvas = np.full((540, wide.shape[1], 3), 100, np.uint8)
    canvas[14 : 14 + 512] = wide
    with Film(path) as film:
        for number in range(FRAMES):
            left = (wide.shape[1] - 960) * number // (FRAMES - 1)
            film.add(Image(np.ascontiguousarray(canvas[:, left : left + 960])), number / 25)


# --------------------------------------------------------------------------------------- decisions

Track = list[RecognizedFace]
Rule = Callable[[mien.Gallery, mien.Recognizer, Track], str | None]


def decisions(people: dict[str, list[Path]], cache: Path, rounds: int) -> None:
    """Tracks of the people of LFW's DevTest who have three pictures or more.

    In each round one half of them is enrolled with one picture each, beside everybody who has
    fewer; a track shows the other pictures of somebody enrolled, or all of somebody who is not, up
    to eight, again and again in a shuffled order.
    """
    recognizer = mien.load()
    faces = _described([path for paths in people.values() for path in paths], recognizer, cache)
    found = {name: [faces[p] for p in paths if p in faces] for name, paths in people.items()}
    several = [name for name, own in found.items() if len(own) >= 3]
    few = [name for name, own in found.items() if 0 < len(own) < 3]
    counts = {title: np.zeros(3, int) for title in RULES}
    tracks = np.zeros(2, int)
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        shuffled = [str(name) for name in rng.permutation(several)]
        enrolled = shuffled[: len(several) // 2]
        chosen = {name: int(rng.integers(len(found[name]))) for name in [*enrolled, *few]}
        with tempfile.TemporaryDirectory() as place:
            gallery = mien.open_gallery(Path(place) / "g.mien")
            gallery.add([
                Entry(name, found[name][i].embedding, name, found[name][i].quality.value)
                for name, i in chosen.items()
            ])  # fmt: skip
            for name in shuffled:
                known = name in enrolled
                others = [f for i, f in enumerate(found[name]) if not known or i != chosen[name]]
                track = _track(others[:8], rng)
                tracks[int(known)] += 1
                for title, rule in RULES.items():
                    answer = rule(gallery, recognizer, track)
                    if known:
                        counts[title] += (0, answer == name, answer not in (name, None))
                    else:
                        counts[title] += (answer is not None, 0, 0)
            size = len(gallery)
            gallery.close()
    print(f"{size:,} people enrolled with one picture each, FPIR {FPIR:g} asked for; "
          f"{tracks[0]:,} tracks of strangers, {tracks[1]:,} of people enrolled")  # fmt: skip
    for title, (wrong, right, mistaken) in counts.items():
        print(f"{title:30} strangers named {wrong / tracks[0]:6.2%} ({wrong}); enrolled named "
              f"{right / tracks[1]:6.1%}, as another {mistaken / tracks[1]:.2%}")  # fmt: skip


def _people(lfw: Path, count: int | None) -> dict[str, list[Path]]:
    lines = (lfw / "peopleDevTest.txt").read_text().splitlines()[1:]
    names = [line.split("\t")[0] for line in lines if line][:count]
    return {n: sorted((lfw / "lfw-deepfunneled" / n).glob("*.jpg")) for n in names}


def _described(
    paths: list[Path], recognizer: mien.Recognizer, cache: Path
) -> dict[Path, RecognizedFace]:
    """The most central face of each picture; what was described before is in the cache."""
    stored = dict(np.load(cache)) if cache.exists() else {}
    box = Box(76, 66, 174, 184)
    missing = [path for path in paths if path.name not in stored]
    for start in range(0, len(missing), 200):
        part = missing[start : start + 200]
        for path, faces in zip(part, recognizer.recognize_batch(part), strict=True):
            best = min(faces, key=_off_centre, default=None)
            row = [best.quality.value, *best.embedding.vector] if best else [np.nan]
            stored[path.name] = np.array(row, np.float32)
        np.savez(cache, **stored)
    five = np.array([(105, 112), (145, 112), (125, 135), (108, 155), (142, 155)], np.float32)
    return {
        path: RecognizedFace(
            Face(box, Landmarks(five), 1.0),  # all in one place
            Quality(float(stored[path.name][0])),
            mien.Embedding(stored[path.name][1:], recognizer.contract),
        )
        for path in paths
        if np.isfinite(stored[path.name]).all()
    }


def _off_centre(face: RecognizedFace) -> float:
    box = face.face.box
    return abs(box.left + box.right - 249) + abs(box.top + box.bottom - 249)


def _track(faces: Track, rng: np.random.Generator) -> Track:
    return [faces[i] for i in rng.permutation(TIMES_SEEN) % len(faces)]


def _first(gallery: mien.Gallery, recognizer: mien.Recognizer, track: Track) -> str | None:
    return gallery.identify_faces(track[:1], recognizer, fpir=FPIR, limit=1)[0].subject


def _names(gallery: mien.Gallery, recognizer: mien.Recognizer, track: Track) -> list[str | None]:
    answers = gallery.identify_faces(track, recognizer, fpir=FPIR, limit=1)
    return [answer.subject for answer in answers]


def _any(gallery: mien.Gallery, recognizer: mien.Recognizer, track: Track) -> str | None:
    return next((name for name in _names(gallery, recognizer, track) if name), None)


def _vote(gallery: mien.Gallery, recognizer: mien.Recognizer, track: Track) -> str | None:
    names = _names(gallery, recognizer, track)
    return max(set(names), key=names.count)


def _watched(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: Track, fpir: float = FPIR
) -> str | None:
    """The last name that was told; one that was given and withdrawn counts too."""
    watcher = Watcher(recognizer, gallery, fpir=fpir)
    events = []
    for number, face in enumerate(track):
        events += watcher.see(number, number / 25, [face]).events
    events += watcher.finish()
    return next((event.subject for event in reversed(events) if event.subject), None)


RULES: dict[str, Rule] = {
    "the first face alone": _first,
    "each face, any name counts": _any,
    "each face, the most votes": _vote,
    "each look at the whole rate": partial(_watched, fpir=FPIR * np.e),  # see decision.repeated
    "mien watch": _watched,
}


if __name__ == "__main__":
    main()
