"""Pictures to crops: what stands in the tables is true, and a killed run ends like a whole one."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.alignment import align, resized
from mien.embedding import similarity
from mien.errors import InputError
from mien.recognition import Recognizer
from mien.training.preparation import crop as cropping
from mien.training.preparation.crop import Cutter, crop
from mien.training.preparation.sets import (
    Crop,
    list_pictures,
    list_set,
    read_about,
    read_manifest,
    read_refused,
)
from mien.types import AlignedFace, Embedding, Image, Landmarks

GREYS = 'Грейс, "Amazing"'


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(photos: Path, folder: Path, cutter: Cutter, threads: int = 1) -> list[cropping.Done]:
    return list(crop(list_pictures(photos), folder, cutter, threads))


# ------------------------------------------------------------------------------------ what it gives


def test_every_picture_is_a_crop_or_refused_with_its_reason(photos: Path, cropped: Path) -> None:
    rows, refused = read_manifest(cropped), read_refused(cropped)
    assert [row.source for row in rows] == [
        "eileen/1.jpg", "eileen/2.jpg", "eileen/3.jpg", "eileen/4.jpg", "solo/1.jpg",
        f"{GREYS}/1.jpg", f"{GREYS}/2.jpg", f"{GREYS}/3.jpg",
    ]  # fmt: skip
    assert {row.source: row.subject for row in rows} == {
        picture.source: picture.subject
        for picture in list_pictures(photos)
        if picture.source not in {"eileen/wall.png", "solo/notes.jpg"}
    }
    why = {row.source: row.reason for row in refused}
    assert why.keys() == {"eileen/wall.png", "solo/notes.jpg"}
    assert "no face found in eileen/wall.png" in why["eileen/wall.png"]
    assert "it looks like text" in why["solo/notes.jpg"]
    assert read_about(cropped).complete


def test_the_manifest_says_where_a_crop_came_from(photos: Path, cropped: Path) -> None:
    for row in read_manifest(cropped):
        data = (photos / row.source).read_bytes()
        assert row.sha256 == hashlib.sha256(data).hexdigest()
        image = mien.read_image(data)
        assert -0.5 <= row.left < row.right <= image.width
        assert -0.5 <= row.top < row.bottom <= image.height
        assert 0 < row.quality <= 1
        points = np.array(row.points).reshape(5, 2)
        assert (points[:, 0] > row.left).all() and (points[:, 0] < row.right).all()  # noqa: PT018


def test_an_aligned_crop_is_what_the_recogniser_would_embed(
    photos: Path, cropped: Path, recognizer: Recognizer
) -> None:
    row = read_manifest(cropped)[0]
    face = recognizer.embed(photos / row.source, mien.central)
    pixels = mien.read_image(cropped / row.file).pixels
    expected = align(
        mien.read_image(photos / row.source), face.face.landmarks, recognizer.frame
    ).pixels
    assert np.array_equal(pixels, expected)
    (vector,) = recognizer.embedder.embed_batch([AlignedFace(pixels, np.eye(2, 3), 0.0)])
    made = Embedding(vector, face.embedding.contract)
    assert similarity(made, face.embedding) > 0.9999


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_an_upright_crop_has_its_landmarks_where_the_set_says(
    photos: Path, cutter: Cutter, recognizer: Recognizer, tmp_path: Path, margin: float
) -> None:
    upright = replace(cutter, frame=resized(cutter.frame, 160), margin=margin)
    make(photos, tmp_path / "set", upright, threads=2)
    about = read_about(tmp_path / "set")
    assert about.size == (160, 160)
    assert about.margin == margin
    found = []
    for row in read_manifest(tmp_path / "set"):
        faces = recognizer.detector.detect(mien.read_image(tmp_path / "set" / row.file))
        found.append(faces[0].landmarks.points)
    off = np.mean(found, axis=0) - np.array(about.template)
    assert np.abs(off).max() < 2.5  # pixels of 160: two detections of the same faces


def test_a_resized_frame_aligns_to_the_resized_crop(
    eileen: Image, eileen_face: mien.Face, recognizer: Recognizer
) -> None:
    large = align(eileen, eileen_face.landmarks, recognizer.frame).pixels.astype(float)
    half = align(eileen, eileen_face.landmarks, resized(recognizer.frame, 75)).pixels
    reduced = large.reshape(75, 2, 75, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - reduced).mean() < 3.0  # grey levels; half a pixel off would be above 4


def test_all_faces_of_a_flat_folder(
    tmp_path: Path, both: Image, cutter: Cutter, recognizer: Recognizer
) -> None:
    (tmp_path / "flat").mkdir()
    mien.save_image(both, tmp_path / "flat" / "both.png")
    make(tmp_path / "flat", tmp_path / "set", replace(cutter, choose=cropping.every, called="all"))
    rows = read_manifest(tmp_path / "set")
    assert [row.file for row in rows] == ["crops/both.png", "crops/both-face2.png"]
    assert {row.subject for row in rows} == {""}
    boxes = sorted(face.box.left for face in recognizer.detector.detect(both))
    assert sorted(row.left for row in rows) == pytest.approx(boxes, abs=0.01)


def test_several_faces_are_refused_where_one_is_asked_for(
    tmp_path: Path, both: Image, cutter: Cutter
) -> None:
    (tmp_path / "flat").mkdir()
    mien.save_image(both, tmp_path / "flat" / "both.png")
    strict = replace(cutter, choose=cropping.one(mien.only), called="only")
    (done,) = make(tmp_path / "flat", tmp_path / "set", strict)
    assert done.refused
    assert "2 faces found" in done.refused.reason


def test_poor_faces_are_refused_when_asked(photos: Path, cutter: Cutter, tmp_path: Path) -> None:
    done = make(photos, tmp_path / "set", replace(cutter, min_quality=1.01))
    assert not any(result.rows for result in done)
    assert sum("too poor" in r.refused.reason for r in done if r.refused) == 8


def test_names_that_meet_are_told_apart(eileen: Image, cutter: Cutter, tmp_path: Path) -> None:
    for name in ("ada/1.jpg", "ada/1.png", "ada/more/1.jpg", "ada/2.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mien.save_image(eileen, path)
    make(tmp_path / "photos", tmp_path / "set", cutter)
    files = [row.file for row in read_manifest(tmp_path / "set")]
    assert len(set(files)) == 4
    assert "crops/ada/2.png" in files
    assert all((tmp_path / "set" / file).is_file() for file in files)
    assert {row.subject for row in read_manifest(tmp_path / "set")} == {"ada"}


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_not_text(eileen: Image, cutter: Cutter, tmp_path: Path) -> None:
    folder = tmp_path / "photos" / os.fsdecode(b"Ren\xe9")
    folder.mkdir(parents=True)
    mien.save_image(eileen, folder / "1.jpg")
    make(tmp_path / "photos", tmp_path / "set", cutter)
    (row,) = read_manifest(tmp_path / "set")
    assert os.fsencode(row.subject) == b"Ren\xe9"
    (listed,) = list_set(tmp_path / "set")
    assert listed.path.is_file()


# --------------------------------------------------------------------------------- stopped, resumed


def stops(done: Iterator[cropping.Done], after: int) -> None:
    for _ in range(after):
        next(done)
    done.close()


@pytest.mark.parametrize("after", [1, 3, 9])
def test_a_run_that_stopped_ends_like_one_that_did_not(
    photos: Path, cropped: Path, cutter: Cutter, tmp_path: Path, after: int
) -> None:
    stops(crop(list_pictures(photos), tmp_path / "set", cutter), after)
    assert not read_about(tmp_path / "set").complete
    done = make(photos, tmp_path / "set", cutter)
    assert sum(not result.fresh for result in done) in {after - 1, after}  # the last is redone
    assert content(tmp_path / "set") == content(cropped)


@pytest.mark.parametrize("torn", [1, 40, 200])
def test_a_torn_line_is_taken_back(
    photos: Path, cropped: Path, cutter: Cutter, tmp_path: Path, torn: int
) -> None:
    stops(crop(list_pictures(photos), tmp_path / "set", cutter), 9)
    manifest = tmp_path / "set" / "manifest.csv"
    manifest.write_bytes(manifest.read_bytes()[:-torn])
    make(photos, tmp_path / "set", cutter)
    assert content(tmp_path / "set") == content(cropped)


def test_killed_and_resumed_from_the_command_line(
    photos: Path, cropped: Path, tmp_path: Path
) -> None:
    """SIGKILL as soon as there is a crop, then the same command again."""
    command = [sys.executable, "-c", "from mien.cli import main; main()", "data", "crop",
               str(photos), "-o", str(tmp_path / "set"), "--threads", "1"]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("set/crops/*/*.png")) and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=60)
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    assert "8 crops of 3 people" in done.stdout
    assert content(tmp_path / "set") == content(cropped)


def test_a_crop_that_got_lost_is_made_again(
    photos: Path, cropped: Path, cutter: Cutter, tmp_path: Path
) -> None:
    make(photos, tmp_path / "set", cutter)
    lost = tmp_path / "set" / "crops" / "eileen" / "2.png"
    lost.write_bytes(b"")
    done = make(photos, tmp_path / "set", cutter)
    assert sum(result.fresh for result in done) == 1
    after = content(tmp_path / "set")
    assert after.pop("manifest.csv").count(b"\n") == 9
    assert after == {k: v for k, v in content(cropped).items() if k != "manifest.csv"}


def test_two_runs_at_once_give_one_set(
    photos: Path, cropped: Path, cutter: Cutter, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(make, photos, tmp_path / "set", cutter) for _ in range(2)]
        fresh = [sum(done.fresh for done in run.result()) for run in runs]
    assert sorted(fresh) == [0, 10]
    assert content(tmp_path / "set") == content(cropped)


def test_new_pictures_are_added(
    photos: Path, eileen: Image, cutter: Cutter, tmp_path: Path
) -> None:
    for picture in list_pictures(photos)[:2]:
        target = tmp_path / "photos" / picture.source
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.path.read_bytes())
    make(tmp_path / "photos", tmp_path / "set", cutter)
    mien.save_image(eileen, tmp_path / "photos" / "eileen" / "0.jpg")
    done = make(tmp_path / "photos", tmp_path / "set", cutter)
    assert [result.fresh for result in done] == [True, False, False]
    assert [row.source for row in read_manifest(tmp_path / "set")][-1] == "eileen/0.jpg"


def test_another_way_of_cropping_needs_another_folder(
    photos: Path, cropped: Path, cutter: Cutter
) -> None:
    with pytest.raises(InputError, match="made in another way"):
        make(photos, cropped, replace(cutter, margin=0.2))


def test_a_folder_of_something_else_is_left_alone(
    photos: Path, cutter: Cutter, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not written by 'mien data crop'"):
        make(photos, tmp_path, cutter)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("set.json", "{", "damaged"),
        ("set.json", '{"size": 3}', "damaged"),
        ("manifest.csv", "a,b\n1,2\n", "changed by something else"),
    ],
)
def test_damaged_tables_are_named(
    photos: Path, cutter: Cutter, tmp_path: Path, name: str, text: str, message: str
) -> None:
    stops(crop(list_pictures(photos), tmp_path / "set", cutter), 2)
    (tmp_path / "set" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        make(photos, tmp_path / "set", cutter)


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        list_pictures(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        list_pictures(tmp_path / "absent")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
def test_a_full_disk_stops_the_run_and_loses_nothing(
    photos: Path, cropped: Path, cutter: Cutter, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room = (cropped / "manifest.csv").stat().st_size // 2  # less than a crop, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(InputError, match="cannot write"):
            make(photos, tmp_path / "set", cutter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    make(photos, tmp_path / "set", cutter)
    assert content(tmp_path / "set") == content(cropped)


def test_on_people_of_lfw(lfw: Path, cutter: Cutter, tmp_path: Path) -> None:
    """Real pictures: the boxes are where the faces of this set are, in the middle."""
    pictures = list_pictures(lfw / "lfw-deepfunneled" / "Abdullah_Gul")
    assert len(pictures) == 19
    done = list(crop(pictures, tmp_path / "set", cutter, threads=2))
    rows: list[Crop] = [row for result in done for row in result.rows]
    assert len(rows) == 19
    middles = np.array([[(r.left + r.right) / 2, (r.top + r.bottom) / 2] for r in rows])
    assert np.abs(middles - 125).max() < 25
    Landmarks(np.array(rows[0].points, np.float32).reshape(5, 2))
