"""Files, cameras and network streams to frames.

A file gives every frame it has. A live source gives the newest frame whenever the reader asks: what
arrives meanwhile is dropped, so that the reader is never behind, and a connection that is lost is
made again.
"""

import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from mien.errors import ImageTooLarge, InputError, MissingExtra, UnreadableImage
from mien.images import DEFAULT_LIMITS, Limits
from mien.types import Image, Pixels

if TYPE_CHECKING:
    import av
    import av.container

OPEN_SECONDS, SILENT_SECONDS = 10.0, 5.0
"""How long a network source may take to answer, and how long it may send nothing."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first attempt to connect again, and at most: it doubles each time."""

_LIVE_SCHEMES = (
    "rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp", "http", "https",
)  # fmt: skip
_NEVER = threading.Event()  # for a reader that nobody stops from outside


@dataclass(frozen=True, eq=False, slots=True)
class VideoFrame:
    """One frame. `index` counts the frames of the source from 0, also those that were dropped;
    `time` is in seconds: since the start of a file, or since a live source was opened.

    `decode` makes the picture: most frames between two detections are never looked at.
    """

    index: int
    time: float
    decode: Callable[[], Image]


def is_live(source: str) -> bool:
    """Whether a source goes on by itself: a camera or a network stream, not a file."""
    return _is_camera(source) or _scheme(source) in _LIVE_SCHEMES


def shown(source: str) -> str:
    """A source as messages may name it: without the password that its address may have."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def read_video(
    source: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    stop: threading.Event = _NEVER,
    report: Callable[[str], None] = lambda words: None,
) -> Iterator[VideoFrame]:
    """The frames of a file, a camera or a stream, until it ends or `stop` is set.

    `source` is a path, the number of a camera (`"0"`), or an address (rtsp, http, udp, ...). Frames
    of phones are turned upright. A live source never ends: when it is lost, `report` is told, and
    it is opened again after a pause that doubles up to half a minute.

    Raises `UnreadableImage` for what cannot be opened or has no picture, and, after the last frame
    that can be read, for a file that is damaged; `ImageTooLarge` for frames beyond `limits`;
    `MissingExtra` without PyAV.
    """
    container = _open(source, limits)
    if is_live(source) and not _has_end(container):
        return _newest(source, container, limits, stop, report)
    return _every(source, container, stop)


def frame_count(source: str) -> int | None:
    """How many frames a file says it has, for progress; None where that is not known."""
    if is_live(source):
        return None
    with _open(source, DEFAULT_LIMITS) as container:
        stream = container.streams.video[0]
        if stream.frames:
            return int(stream.frames)
        if container.duration and stream.average_rate:
            return math.ceil(container.duration / 1e6 * float(stream.average_rate))
    return None


# ------------------------------------------------------------------------------------------- files


def _every(source: str, container: Any, stop: threading.Event) -> Iterator[VideoFrame]:
    """All frames of a file, and then what was wrong with it."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    said, index, damaged = stream.frames, 0, 0
    start = stream.start_time
    with container:
        for frames in _packets(container, stream):
            if frames is None:
                damaged += 1
                continue
            for frame in frames:
                if stop.is_set():
                    return
                ticks = frame.pts - (start or 0) if frame.pts is not None else None
                seconds = float(ticks * stream.time_base) if ticks is not None else index / 25
                yield VideoFrame(index, seconds, _decoder(frame, source))
                index += 1
    if not index:
        raise UnreadableImage(source, "it has no frame that can be decoded")
    if index < 0.95 * said - 2:  # edit lists may leave out a few
        raise UnreadableImage(source, f"it ends early: {index:,} of {said:,} frames are there")
    if damaged:
        raise UnreadableImage(source, f"it is damaged in {damaged} places, which were left out")


def _packets(container: Any, stream: Any) -> Iterator[list[Any] | None]:
    """The frames of each packet; None for one that cannot be decoded."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError:  # where a file was cut off
            yield None
            packet = None
        if packet is None:
            break
        try:
            yield packet.decode()
        except av.error.InvalidDataError:
            yield None


# -------------------------------------------------------------------------------------------- live


class _Slot:
    """Room for one frame: a newer one takes the place of one that nobody fetched."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: VideoFrame | InputError | None = None

    def put(self, item: VideoFrame | InputError) -> None:
        with self._changed:
            self._item = item
            self._changed.notify()

    def take(self, seconds: float) -> VideoFrame | InputError | None:
        """What is there, waiting for it; None after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None, seconds)
            item, self._item = self._item, None
            return item


def _newest(
    source: str,
    container: Any,
    limits: Limits,
    stop: threading.Event,
    report: Callable[[str], None],
) -> Iterator[VideoFrame]:
    """The newest frame each time; the source is read by a thread of its own, without a pause."""
    slot, over = _Slot(), threading.Event()

    def ended() -> bool:
        return stop.is_set() or over.is_set()

    def follow() -> None:
        index, began, opened = 0, time.monotonic(), container
        while not ended():
            index = _drain(source, opened, slot, index, began, ended)
            pause = FIRST_PAUSE
            while not ended():
                report(f"{shown(source)} is lost; trying again in {pause:g} s")
                if stop.wait(pause) or ended():
                    return
                try:
                    opened = _open(source, limits)
                except ImageTooLarge as error:
                    slot.put(error)
                    return
                except InputError:
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    report(f"{shown(source)} is back")
                    break

    threading.Thread(target=follow, name="mien-camera", daemon=True).start()
    try:
        while not stop.is_set():
            item = slot.take(0.2)
            if isinstance(item, InputError):
                raise item
            if item is not None:
                yield item
    finally:
        over.set()


def _drain(
    source: str, container: Any, slot: _Slot, index: int, began: float, ended: Callable[[], bool]
) -> int:
    """Read a connection until it breaks; returns the number of the next frame."""
    import av

    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # frame threads would each hold a frame back
    with container:
        try:
            for frames in _packets(container, stream):
                for frame in frames or ():
                    if ended():
                        return index
                    now = time.monotonic() - began
                    slot.put(VideoFrame(index, now, _decoder(frame, shown(source))))
                    index += 1
        except av.error.FFmpegError:
            return index
    return index


# ----------------------------------------------------------------------------------------- opening


def _open(source: str, limits: Limits) -> "av.container.InputContainer":
    """An opened container with a video stream of a size within `limits`."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtra("reading video", "video") from error
    av.logging.set_level(None)
    name, kind, options = _address(source)
    network = is_live(source) and kind is None
    try:
        container = av.open(
            name, format=kind, options=options,
            timeout=(OPEN_SECONDS, SILENT_SECONDS) if network else None,
        )  # fmt: skip
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableImage(shown(source), _why(source, error)) from error
    if not container.streams.video:
        container.close()
        raise UnreadableImage(shown(source), "there is no video in it")
    context = container.streams.video[0].codec_context
    pixels = context.width * context.height
    if pixels > limits.pixels:
        container.close()
        raise ImageTooLarge(shown(source), pixels, limits.pixels, "pixels")
    return container


def _address(source: str) -> tuple[str, str | None, dict[str, str]]:
    """What FFmpeg opens, the format it is forced to, and options."""
    if _is_camera(source):
        match sys.platform:
            case "darwin":
                return source, "avfoundation", {"framerate": "30"}
            case "win32":
                return source, "vfwcap", {}
        return f"/dev/video{source}", "v4l2", {}
    match _scheme(source):
        case "rtsp" | "rtsps":
            return source, None, {"rtsp_transport": "tcp", "fflags": "nobuffer"}
        case scheme if scheme in _LIVE_SCHEMES:
            return source, None, {"fflags": "nobuffer"}
    return f"file:{source}", None, {}  # a name is a name, whatever is in it


def _is_camera(source: str) -> bool:
    return re.fullmatch(r"\d{1,3}", source) is not None


def _scheme(source: str) -> str:
    return source.partition("://")[0].lower() if "://" in source else ""


def _has_end(container: Any) -> bool:
    """Whether an address gives a whole film rather than a stream."""
    return container.duration is not None and container.duration > 0


def _why(source: str, error: Exception) -> str:
    match error:
        case FileNotFoundError() if _is_camera(source):
            return "there is no camera of this number"
        case FileNotFoundError():
            return "it does not exist"
        case PermissionError():
            return "there is no permission to read it"
        case IsADirectoryError():
            return "it is a folder, not a video"
        case ConnectionError() | TimeoutError():
            return "nobody answers there"
        case OSError() if error.strerror:
            return error.strerror[:1].lower() + error.strerror[1:]
    return "it is not a video, or a damaged one"


# ------------------------------------------------------------------------------------------ pixels


def _decoder(frame: Any, source: str) -> Callable[[], Image]:
    def decode() -> Image:
        pixels: Pixels = frame.to_ndarray(format="rgb24")
        turns = round(frame.rotation / 90) % 4  # quarter turns counter-clockwise
        return Image(np.ascontiguousarray(np.rot90(pixels, turns)), f"{source}, frame")

    return decode
