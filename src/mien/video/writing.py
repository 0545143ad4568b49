"""Save pictures as a film: H.264 in MP4, playable even if the writer is killed."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mien.errors import InputError, MissingExtra
from mien.images import StrPath
from mien.types import Image

_TICKS = 1000  # a second
_FRAGMENT = 50  # frames that are lost at most if the writer is killed, and those in the encoder


class Film:
    """Writes an MP4 file as pictures are added; use it as a context manager, or `close` it.

    Raises `InputError` when the file cannot be written, `MissingExtra` without PyAV.
    """

    def __init__(self, path: StrPath) -> None:
        try:
            import av
        except ModuleNotFoundError as error:
            raise MissingExtra("writing video", "video") from error
        av.logging.set_level(None)
        self._path = path = Path(path)
        self._stream: Any = None
        self._last = -1
        try:
            path.write_bytes(b"")  # FFmpeg would only find out at the first picture
            # fragments: what was written stays readable without an index at the end
            self._container = av.open(
                str(path), "w", format="mp4",
                options={"movflags": "frag_keyframe+empty_moov+default_base_moof",
                         "flush_packets": "1"},
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error

    def add(self, image: Image, time: float) -> None:
        """Add a picture shown from `time`, in seconds; later ones have the size of the first."""
        import av

        if self._stream is None:
            self._stream = self._begin(image)
        width, height = self._stream.width, self._stream.height
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image.pixels[:height, :width]), format="rgb24"
        )
        frame.time_base = Fraction(1, _TICKS)
        frame.pts = self._last = max(self._last + 1, round(time * _TICKS))
        self._mux(frame)

    def close(self) -> None:
        """Write what is waiting. Closing twice is fine."""
        if self._stream is not None:
            self._mux(None)
            self._stream = None
        self._container.close()

    def _begin(self, image: Image) -> Any:
        import av

        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = self._container.add_stream(codec, rate=25)
        stream.width, stream.height = image.width // 2 * 2, image.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = _FRAGMENT
        stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "23"}
        return stream

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
