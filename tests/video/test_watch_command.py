"""`mien watch` as users meet it: a process with arguments, output and an exit status."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filming import Sprite, crossing, filmed, saved
from streaming import camera

import mien
from mien.cli.watch import merged
from mien.types import Image
from mien.video import read_video

pytest.importorskip("av", reason="reading video needs the extra 'video'")

# A program that was started in the background may have inherited a SIGINT that is ignored.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mien.cli import main; main()"
)
FIELDS = {
    "source", "event", "track", "first_frame", "last_frame", "first_time", "last_time", "subject",
    "score", "threshold", "fpir", "faces", "candidates",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    recognizer: mien.Recognizer,
    eileen: Image,
    walking_eileen: Sprite,
    walking_grace: Sprite,
) -> Path:
    """A folder with a gallery that knows Eileen, and films of her."""
    folder = tmp_path_factory.mktemp("place")
    with mien.open_gallery(folder / "g.mien") as gallery:
        gallery.enroll("Eileen", eileen, recognizer)
    saved(crossing(walking_eileen, walking_grace), folder / "crossing.mp4")
    saved(filmed(20, lambda n: [(walking_eileen, 240, 100, 1.0)]), folder / "alone.mp4")
    (folder / "notes.mp4").write_text("not a film")
    return folder


def started(place: Path, *arguments: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIEN_")}
    return subprocess.Popen(
        [sys.executable, "-c", START, "watch", *arguments], cwd=place,
        env=kept | {"NO_COLOR": "1", "PYTHONUTF8": "1", "MIEN_GALLERY": "g.mien"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


def run(place: Path, *arguments: str) -> tuple[int, str, str]:
    with started(place, *arguments) as process:
        out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    assert "Warning" not in err, err
    return process.returncode, out, err


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_line_of_json_an_event_and_a_film_with_names(
    place: Path, tmp_path: Path, recognizer: mien.Recognizer
) -> None:
    target = tmp_path / "marked.mp4"
    status, out, err = run(place, "crossing.mp4", "--json", "--save", str(target))
    assert status == 0
    assert "1 in 100 strangers reach that" in err
    events = rows(out)
    assert all(set(event) == FIELDS for event in events)
    ended = {row["track"]: row for row in events if row["event"] == "ended"}
    assert sorted(row["subject"] or "" for row in ended.values()) == ["", "Eileen"]
    for row in ended.values():
        assert (row["first_frame"], row["last_frame"]) == (0, 70)
        assert (row["score"] >= row["threshold"]) == (row["subject"] is not None)

    frames = list(read_video(str(target)))
    assert len(frames) == 75
    before = {frame.index: frame.decode() for frame in read_video(str(place / "crossing.mp4"))}
    green = [_share(frame.decode(), before[frame.index]) for frame in frames]
    assert green[0] == 0  # nobody is believed yet
    assert min(green[10:30]) > 0.002  # boxes and labels of Eileen


def _share(after: Image, before: Image) -> float:
    """The share of pixels that became the green of names, give or take what coding costs."""
    green = (abs(after.pixels.astype(int) - (0, 158, 115)) < 40).all(axis=2)
    was = (abs(before.pixels.astype(int) - (0, 158, 115)) < 40).all(axis=2)
    return float((green & ~was).mean())


def test_words_for_people(place: Path) -> None:
    status, out, _ = run(place, "alone.mp4")
    assert status == 0
    first, last = out.splitlines()
    assert first.startswith("0:00.0-0:00.2  track 1  decided  Eileen  score 0.9")
    assert last.startswith("0:00.0-0:00.6  track 1  ended    Eileen  score 0.9")


def test_several_sources_and_one_that_is_none(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "marked.mp4"
    status, out, err = run(
        place, "alone.mp4", "notes.mp4", "crossing.mp4", "--json", "--save", str(target)
    )
    assert status == 2
    assert "mien: cannot read notes.mp4: it is not a video, or a damaged one" in err
    ended = [row for row in rows(out) if row["event"] == "ended"]
    assert sorted((row["source"], row["subject"] or "") for row in ended) == [
        ("alone.mp4", "Eileen"), ("crossing.mp4", ""), ("crossing.mp4", "Eileen"),
    ]  # fmt: skip
    lengths = [len(list(read_video(str(tmp_path / f"marked-{n}.mp4")))) for n in (1, 3)]
    assert lengths == [20, 75]


def test_a_truncated_film_tells_what_it_has(place: Path, tmp_path: Path) -> None:
    data = (place / "crossing.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    status, out, err = run(place, str(tmp_path / "cut.mp4"), "--json")
    assert {row["subject"] for row in rows(out)} == {"Eileen", None}
    assert status in (0, 2)
    assert (status == 2) == ("cut.mp4" in err)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nothing.mp4"], 2, "it does not exist"),
        (["alone.mp4", "--save", "alone.mp4"], 2, "would overwrite a source"),
        (["alone.mp4", "--save", "nowhere/marked.mp4"], 2, "cannot write"),
        (["alone.mp4", "--fpir", "0"], 2, "between 0 and 1"),
        (["alone.mp4", "--every", "0"], 2, "--every"),
        (["alone.mp4", "--gallery", "none.mien"], 4, "none.mien"),
        (["alone.mp4", "--model", "embedded-accurate"], 4, "--model embedded"),
    ],
)
def test_what_cannot_be_done(place: Path, arguments: list[str], status: int, words: str) -> None:
    before = (place / "alone.mp4").read_bytes()
    got, out, err = run(place, *arguments, "--json")
    assert (got, out) == (status, "")
    assert words in err
    assert (place / "alone.mp4").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_is_stopped_and_what_was_seen_is_told(
    place: Path, tmp_path: Path, walking_eileen: Sprite, number: signal.Signals
) -> None:
    film = filmed(8, lambda n: [(walking_eileen, 240 + n, 100, 1.0)])
    pictures = [mien.encode_image(frame.decode(), "jpeg", 90) for frame in film]
    target = tmp_path / "marked.mp4"
    with (
        camera(pictures, rate=20) as source,
        started(place, source.address, "--json", "--every", "2", "--save", str(target)) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(number)
        rest, err = rows(process.stdout.read()), process.stderr.read()
        assert process.wait(60) == 130, err
    assert (first["event"], first["subject"]) == ("decided", "Eileen")
    assert [(row["event"], row["subject"]) for row in rest] == [("ended", "Eileen")]
    assert "Traceback" not in err
    assert "stopped" in err
    assert len(list(read_video(str(target)))) >= 2


def test_a_camera_that_breaks_off_is_watched_again(place: Path, walking_eileen: Sprite) -> None:
    film = filmed(8, lambda n: [(walking_eileen, 240 + n, 100, 1.0)])
    pictures = [mien.encode_image(frame.decode(), "jpeg", 90) for frame in film]
    with (
        camera(pictures, rate=20) as source,
        started(place, source.address, "--json", "--every", "2") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        source.cut()
        words = iter(process.stderr.readline, "")
        err = "".join(itertools.takewhile(lambda line: "is back" not in line, words))
        assert f"{source.address} is lost; trying again in 0.5 s" in err
        sent = source.sent
        while source.sent < sent + 20:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        (last,) = rows(process.stdout.read())
    assert (first["track"], first["subject"]) == (last["track"], last["subject"]) == (1, "Eileen")
    assert last["last_time"] > first["last_time"] + 0.5


# --------------------------------------------------------------------------------- several streams


def test_streams_are_merged_whole_and_each_in_order() -> None:
    streams: Sequence[range] = [range(50), range(7), range(0)]
    found = list(merged(streams, threading.Event()))
    for number, stream in enumerate(streams):
        assert [item for n, item in found if n == number] == list(stream)


def test_an_error_of_a_stream_is_raised_after_the_others_ended() -> None:
    def failing() -> Any:
        yield 1
        raise mien.GalleryUnavailable("g", "gone")

    found = []
    with pytest.raises(mien.GalleryUnavailable):
        found.extend(merged([failing(), range(30)], threading.Event()))
    assert len(found) in (0, 31)  # list.extend takes nothing of an iterable that raises


def test_streams_are_stopped_when_nobody_takes_their_items() -> None:
    stop = threading.Event()

    def endless() -> Any:
        while not stop.is_set():
            yield 0

    items = merged([endless(), endless()], stop)
    next(items)
    items.close()
    assert stop.is_set()
