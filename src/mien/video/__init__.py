"""Frames to tracks to one decision a track: read a video, follow the faces in it, name each once.

    >>> from mien.video import Watcher, read_video, watch
    >>> watcher = Watcher(recognizer, gallery)
    >>> for frame, scene in watch(read_video("door.mp4"), recognizer, watcher):
    ...     for event in scene.events:
    ...         print(event.kind, event.track, event.subject or "unknown")
    >>> watcher.finish()

`reading` gives frames, `tracking` says which face is which from frame to frame, `watching` decides
who a track is, `writing` saves an annotated film. Reading and writing need the extra `video`.
"""

from mien.video.reading import VideoFrame, is_live, read_video
from mien.video.watching import Event, Scene, Tracked, Watcher, watch
from mien.video.writing import Film

__all__ = [
    "Event", "Film", "Scene", "Tracked", "VideoFrame", "Watcher", "is_live", "read_video", "watch",
]  # fmt: skip
