"""What the routes work with: the library off the event loop, and the parts that guard it."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mien.recognition import Recognizer
from mien.server.audit import AuditLog
from mien.server.galleries import Galleries
from mien.server.keys import ANYBODY, Key, KeyFile
from mien.server.limits import Doors, Places
from mien.server.metrics import Metrics
from mien.server.problems import NotAuthenticated
from mien.server.settings import Settings
from mien.server.uploads import Picture
from mien.types import Face, Image, RecognizedFace

T = TypeVar("T")
R = TypeVar("R")

_STORE_THREADS = 4  # a gallery waits for the disk and for other writers, not for a processor
_SHORT = 1_000_000  # bytes that are parsed in less time than a change of threads takes

log = logging.getLogger("mien.server")


@dataclass(frozen=True, slots=True)
class Seen:
    """A decoded picture and its faces, most confident first."""

    picture: Picture
    image: Image
    faces: list[RecognizedFace]


class Service:
    """One server at work.

    Pictures are decoded, detected, embedded and looked up in one thread for each processor: several
    pictures at once, the faces of each as one batch. Faces of different requests are not embedded
    together: that gains little (see benchmarks/server.py), and each would wait for the others.
    Galleries are changed in threads of their own, since that waits for the disk.
    """

    def __init__(self, recognizer: Recognizer, galleries: Galleries, settings: Settings) -> None:
        self.recognizer = recognizer
        self.galleries = galleries
        self.settings = settings
        self.keys = KeyFile(settings.keys) if settings.keys else None
        self.audit_log = AuditLog(settings.audit) if settings.audit else None
        self.doors = Doors(settings)
        self.places = Places(settings.queue)
        self.metrics = Metrics()
        self._vision = ThreadPoolExecutor(recognizer.threads, thread_name_prefix="mien-vision")
        self._store = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="mien-store")

    def who(self, authorization: str | None) -> Key:
        """Whose request this is. Raises `NotAuthenticated`."""
        if self.keys is None:
            return ANYBODY
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise NotAuthenticated("send a key: 'Authorization: Bearer mien_...'")
        key = self.keys.find(text.strip())
        if key is None:
            raise NotAuthenticated("this key is not known here; it may have been revoked")
        return key

    async def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`function` of every item, in the threads for pictures. Raises `Overloaded`."""
        with self.places.take(len(items)):
            loop = asyncio.get_running_loop()
            jobs = [loop.run_in_executor(self._vision, function, item) for item in items]
            if len(jobs) > 1:
                # also after a failure: a job at work still holds its place, and an error that
                # nobody looked at would be logged by asyncio with the name of its picture
                await asyncio.gather(*jobs, return_exceptions=True)
            return [await job for job in jobs]

    async def stored(self, function: Callable[[], R]) -> R:
        """What `function` returns, called in the threads for galleries."""
        return await asyncio.get_running_loop().run_in_executor(self._store, function)

    async def parsed(self, body: bytes, function: Callable[[bytes], R]) -> R:
        """What `function` makes of a body, off the event loop if that takes long."""
        if len(body) <= _SHORT:
            return function(body)
        return await asyncio.get_running_loop().run_in_executor(self._store, function, body)

    def read(self, picture: Picture) -> Image:
        """Decode. Raises `UnreadableImage` and `ImageTooLarge`."""
        with self.metrics.stage("decode"):
            return picture.read(self.settings.pixels)

    def detect(self, image: Image) -> list[Face]:
        """The faces of a picture."""
        with self.metrics.stage("detect"):
            faces = self.recognizer.detector.detect(image)
        self.metrics.faces(len(faces))
        return faces

    def describe(self, image: Image, faces: list[Face]) -> list[RecognizedFace]:
        """Align and embed faces."""
        with self.metrics.stage("embed"):
            return self.recognizer.describe(image, faces)

    def recognize(self, picture: Picture) -> Seen:
        """The whole way from bytes to embeddings."""
        image = self.read(picture)
        return Seen(picture, image, self.describe(image, self.detect(image)))

    def audit(self, action: str, key: Key, gallery: str, subject: str = "", count: int = 0) -> None:
        """Add to the audit log, if one is kept."""
        if self.audit_log is not None:
            self.audit_log.write(action, key.id, gallery, subject, count)

    def close(self) -> None:
        """Finish what is at work and release everything."""
        self._vision.shutdown()
        self._store.shutdown()
        self.galleries.close()
        if self.keys is not None:
            self.keys.save_last_used()
        if self.audit_log is not None:
            self.audit_log.close()


def note(event: str, **facts: object) -> None:
    """One structured line in the log. Facts never include addresses, names, faces or keys."""
    log.info(json.dumps({"event": event, **facts}))
