"""Video: frames a second against detecting every frame, and how often a track gets a wrong name.

python benchmarks/video.py speed [--rounds 5]
python benchmarks/video.py decisions --data ../shared/data [--strangers 600 --enrolled 300]
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

import mien
from mien import decision
from mien.gallery import Entry
from mien.types import Image, RecognizedFace
from mien.video import Film, Watcher, read_video, watch

TIMES_SEEN = 32  # detections of a track: each picture of a person comes back so often
FPIR = 1e-2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "decisions"])
    parser.add_argument("--data", type=Path, help="folder with lfw/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strangers", type=int, default=600)
    parser.add_argument("--enrolled", type=int, default=300)
    parser.add_argument("--others", type=int, default=1700, help="further people enrolled")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, "
          f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    if arguments.what == "speed":
        speed(arguments.rounds)
    elif arguments.data is None:
        sys.exit("decisions are measured on LFW: name its folder with --data")
    else:
        decisions(arguments)


# ------------------------------------------------------------------------------------------- speed


def speed(rounds: int) -> None:
    """A pan over both portraits, 1280 x 720, 100 frames; one thread each; medians of rounds."""
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
            print(f"{name:20} {100 / statistics.median(times):6.1f} frames a CPU-second  "
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
    canvas = np.full((720, wide.shape[1], 3), 100, np.uint8)
    canvas[104 : 104 + 512] = wide
    with Film(path) as film:
        for number in range(100):
            left = (wide.shape[1] - 1280) * number // 99
            film.add(Image(np.ascontiguousarray(canvas[:, left : left + 1280])), number / 25)


# --------------------------------------------------------------------------------------- decisions


def decisions(arguments: argparse.Namespace) -> None:
    """Tracks of LFW people; each detection is one of their other pictures, in a shuffled order."""
    recognizer = mien.load()
    people = _people(arguments.data / "lfw" / "lfw-deepfunneled", np.random.default_rng(0))
    several = [name for name in people if len(people[name]) >= 3]
    single = [name for name in people if len(people[name]) == 1]
    enrolled = several[: arguments.enrolled]
    strangers = several[arguments.enrolled :][: arguments.strangers]
    wanted = {name: people[name][:8] for name in [*enrolled, *strangers]}
    wanted |= {name: people[name] for name in single[: arguments.others]}
    faces = _faces(wanted, recognizer)
    with tempfile.TemporaryDirectory() as place:
        gallery = mien.open_gallery(Path(place) / "g.mien")
        gallery.add([
            Entry(name, faces[name][0].embedding, name, faces[name][0].quality.value)
            for name in [*enrolled, *single[: arguments.others]] if faces.get(name)
        ])  # fmt: skip
        print(f"{len(gallery):,} people enrolled with one picture each, FPIR {FPIR:g} asked for")
        rules: dict[str, Callable[[list[RecognizedFace]], str | None]] = {
            "first face alone": lambda track: _first(gallery, recognizer, track),
            "every face, any name counts": lambda track: _any(gallery, recognizer, track),
            "a vote of all faces": lambda track: _vote(gallery, recognizer, track),
            "direction of the mean, 5 best": lambda track: _direction(gallery, recognizer, track),
            "mien watch": lambda track: _watched(gallery, recognizer, track),
        }
        known = {name: _track(faces[name][1:]) for name in enrolled if len(faces[name]) > 1}
        unknown = {name: _track(faces[name]) for name in strangers if faces[name]}
        for title, rule in rules.items():
            wrong = sum(rule(track) is not None for track in unknown.values())
            answers = [(name, rule(track)) for name, track in known.items()]
            right = sum(name == answer for name, answer in answers)
            mistaken = sum(answer not in (name, None) for name, answer in answers)
            print(f"{title:30} strangers named: {wrong} of {len(unknown)} "
                  f"({wrong / len(unknown):.2%}); enrolled named: {right} of {len(known)} "
                  f"({right / len(known):.1%}), as somebody else {mistaken}")  # fmt: skip
        gallery.close()


def _people(folder: Path, rng: np.random.Generator) -> dict[str, list[Path]]:
    names = sorted(path.name for path in folder.iterdir())
    return {
        str(name): sorted((folder / str(name)).glob("*.jpg")) for name in rng.permutation(names)
    }


def _faces(
    people: dict[str, list[Path]], recognizer: mien.Recognizer
) -> dict[str, list[RecognizedFace]]:
    """The most central face of each picture, if one is found."""
    files = [(name, path) for name, paths in people.items() for path in paths]
    found: dict[str, list[RecognizedFace]] = {name: [] for name in people}
    answers = recognizer.recognize_batch(path for _, path in files)
    for (name, _), faces in zip(files, answers, strict=True):
        if faces:
            found[name].append(min(faces, key=_off_centre))
    return found


def _off_centre(face: RecognizedFace) -> float:
    box = face.face.box
    return abs(box.left + box.right - 249) + abs(box.top + box.bottom - 249)


def _track(faces: list[RecognizedFace]) -> list[RecognizedFace]:
    """All detections of one track, at one place."""
    box = faces[0].face.box
    order = np.random.default_rng(len(faces)).permutation(TIMES_SEEN) % len(faces)
    return [replace(faces[i], face=replace(faces[i].face, box=box)) for i in order]


def _first(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: list[RecognizedFace]
) -> str | None:
    return gallery.identify_faces(track[:1], recognizer, fpir=FPIR, limit=1)[0].subject


def _names(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: list[RecognizedFace]
) -> Iterator[str | None]:
    for answer in gallery.identify_faces(track, recognizer, fpir=FPIR, limit=1):
        yield answer.subject


def _any(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: list[RecognizedFace]
) -> str | None:
    return next((name for name in _names(gallery, recognizer, track) if name), None)


def _vote(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: list[RecognizedFace]
) -> str | None:
    names = list(_names(gallery, recognizer, track))
    return max(set(names), key=names.count)


def _direction(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: list[RecognizedFace]
) -> str | None:
    best = sorted(track, key=lambda face: -face.quality.value)[:5]
    fused = mien.fuse([face.embedding for face in best])
    answer = decision.identify(
        replace(best[0], embedding=fused), gallery.search(fused, 1), recognizer.bundle,
        fpir=FPIR, gallery_size=len(gallery),
    )  # fmt: skip
    return answer.subject


def _watched(
    gallery: mien.Gallery, recognizer: mien.Recognizer, track: list[RecognizedFace]
) -> str | None:
    """The last word on the track; a name that was given and withdrawn counts too."""
    watcher = Watcher(recognizer, gallery, fpir=FPIR)
    events = []
    for number, face in enumerate(track):
        events += watcher.see(number, number / 25, [face]).events
    events += watcher.finish()
    return next((event.subject for event in reversed(events) if event.subject), None)


if __name__ == "__main__":
    main()
