"""Files, sound and damaged, and live sources that break off."""

import shutil
import struct
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from filming import Sprite, filmed, saved
from streaming import camera

import mien
from mien.types import Image
from mien.video import Film, VideoFrame, is_live, read_video, reading
from mien.video.reading import frame_count, shown

av = pytest.importorskip("av", reason="reading video needs the extra 'video'")

RED, BLUE = (200, 30, 30), (30, 30, 200)


def flat(colour: Sequence[int], width: int = 64, height: int = 48) -> Image:
    return Image(np.full((height, width, 3), colour, np.uint8))


def grain(colour: Sequence[int], number: int) -> Image:
    """A colour with noise on it, so that films of it are not only a few bytes."""
    noise = np.random.default_rng(number).integers(-20, 21, (48, 64, 1))
    return Image((np.array(colour) + noise).astype(np.uint8))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of red that turns blue: 100 frames, one each 0.3 seconds."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    with Film(path) as film:
        for number in range(100):
            film.add(grain(RED if number < 50 else BLUE, number), 0.3 * number)
    return path


@pytest.fixture(scope="module")
def indexed(film: Path) -> Path:
    """The same with its index in front, as cameras and phones write it."""
    path = film.with_name("indexed.mp4")
    with (
        av.open(str(film)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return path


def test_a_film_comes_back_as_it_was_written(film: Path) -> None:
    frames = list(read_video(str(film)))
    assert [frame.index for frame in frames] == list(range(100))
    assert [round(frame.time, 3) for frame in frames] == [round(0.3 * n, 3) for n in range(100)]
    first, last = frames[0].decode(), frames[-1].decode()
    assert (first.width, first.height) == (64, 48)
    assert np.abs(first.pixels.mean(axis=(0, 1)) - RED).max() < 6
    assert np.abs(last.pixels.mean(axis=(0, 1)) - BLUE).max() < 6


def test_a_film_can_be_read_although_its_writer_was_killed(film: Path, tmp_path: Path) -> None:
    """As fragments are complete one by one; this one was never closed."""
    path = tmp_path / "killed.mp4"
    writer = Film(path)
    for number in range(300):
        writer.add(grain(RED, number), number / 25)
    shutil.copy(path, tmp_path / "copy.mp4")
    frames = list(read_video(str(tmp_path / "copy.mp4")))
    assert len(frames) >= 150
    writer.close()
    writer.close()


def test_odd_sizes_lose_a_line(tmp_path: Path) -> None:
    with Film(tmp_path / "odd.mp4") as film:
        film.add(flat(RED, 65, 49), 0.0)
        film.add(flat(RED, 65, 49), 0.04)
    (frame, _) = read_video(str(tmp_path / "odd.mp4"))
    assert (frame.decode().width, frame.decode().height) == (64, 48)


def test_a_truncated_film_gives_what_is_there_and_then_says_so(
    indexed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.mp4"
    data = indexed.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    seen = []
    with pytest.raises(mien.UnreadableImage, match=r"cut\.mp4: it (ends early|is damaged)"):
        seen.extend(read_video(str(path)))
    assert 40 < len(seen) < 90


def test_damage_in_the_middle_is_passed_over(indexed: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    data = bytearray(indexed.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    seen = []
    with pytest.raises(mien.UnreadableImage, match=r"left out|early"):
        seen.extend(read_video(str(path)))
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "not a video"),
        (b"<html>no film</html>", "not a video"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(100), "not a video"),
    ],
)
def test_what_is_not_a_video_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(mien.UnreadableImage, match=reason):
        read_video(str(path))
    with pytest.raises(mien.UnreadableImage, match=reason):
        frame_count(str(path))


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(mien.UnreadableImage, match="folder"):
        read_video(str(tmp_path))


def test_sound_without_pictures_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    silence = bytes(8000)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + len(silence)) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data"
        + struct.pack("<I", len(silence)) + silence
    )  # fmt: skip
    with pytest.raises(mien.UnreadableImage, match="no video in it"):
        read_video(str(path))


def test_frames_beyond_the_limits_are_not_decoded(film: Path) -> None:
    with pytest.raises(mien.ImageTooLarge):
        read_video(str(film), limits=mien.Limits(pixels=1000))


def test_a_name_is_a_name(tmp_path: Path) -> None:
    """Not one of the protocols that FFmpeg knows, such as concat:."""
    with pytest.raises(mien.UnreadableImage, match="does not exist"):
        read_video("concat:/etc/hostname|/etc/passwd")


def test_a_picture_is_a_film_of_one_frame(eileen_file: Path) -> None:
    (frame,) = read_video(str(eileen_file))
    assert (frame.index, frame.time, frame.decode().width) == (0, 0.0, 512)


def test_what_a_phone_held_upright_filmed_is_turned_upright(
    walking_eileen: Sprite, recognizer: mien.Recognizer, tmp_path: Path
) -> None:
    """Phones write frames lying on their side, and how to turn them for display."""
    upright = saved(filmed(3, lambda n: [(walking_eileen, 240, 100, 1.0)]), tmp_path / "a.mp4")
    lying = tmp_path / "lying.mp4"
    with Film(lying) as film:
        for frame in read_video(str(upright)):
            turned = np.ascontiguousarray(np.rot90(frame.decode().pixels))  # to the left
            film.add(Image(turned), frame.time)
    data = lying.read_bytes()
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # to the right
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    track = data.index(b"tkhd")
    at = data.index(plain, track)
    lying.write_bytes(data[:at] + matrix + data[at + len(matrix) :])
    (face,) = recognizer.detector.detect(next(iter(read_video(str(lying)))).decode())
    assert abs((face.box.left + face.box.right) / 2 - 320) < 4
    eyes = face.landmarks.points[:2]
    assert abs(eyes[0, 1] - eyes[1, 1]) < 8  # level


def test_frames_say_how_many_they_are(film: Path, indexed: Path) -> None:
    assert frame_count(str(indexed)) == 100
    assert frame_count("rtsp://nowhere.invalid/") is None


# -------------------------------------------------------------------------------------------- live


def test_what_is_live() -> None:
    assert [is_live(s) for s in ("0", "12", "rtsp://x/1", "http://x/a")] == [True] * 4
    assert [is_live(s) for s in ("film.mp4", "./0", "a:b.mp4", "1234")] == [False] * 4


def test_passwords_are_not_shown() -> None:
    assert shown("rtsp://ada:secret@door.local:554/1?x=1") == "rtsp://door.local:554/1?x=1"
    assert shown("hall@night.mp4") == "hall@night.mp4"
    with pytest.raises(mien.UnreadableImage) as caught:
        read_video("rtsp://ada:secret@127.0.0.1:9/1")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(mien.UnreadableImage, match="no camera of this number"):
        read_video("973")


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [mien.encode_image(flat((level, 60, 60)), "jpeg", 90) for level in range(0, 250, 10)]


def test_a_slow_reader_gets_the_newest_frame(pictures: list[bytes]) -> None:
    """Frames are dropped, not queued: what comes is never much older than what was sent last."""
    with camera(pictures, rate=100) as source:
        frames = read_video(source.address)
        first = next(frames)
        behind = []
        for frame in islice(frames, 5):
            time.sleep(0.2)
            behind.append(source.sent - frame.index)
        frames.close()
    assert first.index < 60
    assert frame.index > 50  # it slept through most of them
    assert max(behind) < 60  # 20 were sent while it slept; the rest is FFmpeg's and the system's


def test_a_source_that_breaks_off_is_found_again(
    pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.05)
    told: list[str] = []
    with camera(pictures, rate=100) as source:
        frames = read_video(source.address, report=told.append)
        numbers = [next(frames).index for _ in range(3)]
        source.cut()
        deadline = time.monotonic() + 20
        while source.connections < 2 or numbers[-1] < numbers[2] + 10:
            numbers.append(next(frames).index)
            assert time.monotonic() < deadline
        frames.close()
    assert numbers == sorted(set(numbers))
    assert f"{source.address} is lost; trying again in 0.05 s" in told
    assert f"{source.address} is back" in told


def test_a_source_that_stays_away_is_asked_for_less_and_less_often(
    pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(reading, "LONGEST_PAUSE", 0.1)
    stop, told = threading.Event(), []

    def report(words: str) -> None:
        told.append(words)
        if len(told) == 5:
            stop.set()

    with camera(pictures, rate=100) as source:
        frames = read_video(source.address, stop=stop, report=report)
        next(frames)
        source.close()
        rest: list[VideoFrame] = list(frames)
    assert len(rest) < 10
    pauses = [float(words.split()[-2]) for words in told]
    assert pauses == [0.02, 0.04, 0.08, 0.1, 0.1]
