"""What the routes work with: the library off the event loop, and the parts that guard it."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from mien.attributes import Analyzer, load_analyzer
from mien.recognition import Recognizer
from mien.server.audit import AuditLog
from mien.server.galleries import Galleries
from mien.server.heads import load_heads
from mien.server.keys import ANYBODY, Key, KeyFile
from mien.server.limits import Doors, Places
from mien.server.metrics import Metrics
from mien.server.problems import NotAuthenticated
from mien.server.review import Reviews
from mien.server.settings import Settings
from mien.server.uploads import Picture
from mien.server.vision import Looking, Together, Vision
from mien.types import Face, Identification, Image, RecognizedFace

T = TypeVar("T")
R = TypeVar("R")

_STORE_THREADS = 4  # a gallery waits for the disk and for other writers, not for a processor
_ANALYZERS = 8  # combinations of tasks that stay loaded
_SHORT = 1_000_000  # bytes that are parsed in less time than a change of threads takes

log = logging.getLogger("mien.server")


@dataclass(frozen=True, slots=True)
class Seen:
    """A decoded picture and its faces, most confident first."""

    picture: Picture
    image: Image
    faces: list[RecognizedFace]


@dataclass(frozen=True, slots=True)
class Answers:
    """Who each face of a picture is, in the order of the faces, among so many templates."""

    gallery_size: int
    faces: list[Identification]


class Service:
    """One server at work.

    Pictures are decoded, detected, embedded and looked up in one thread for each processor; the
    faces of pictures that arrive together are embedded together and looked up together (see
    `mien.server.vision`). Galleries are changed in threads of their own: that waits for the disk.
    """

    def __init__(self, recognizer: Recognizer, galleries: Galleries, settings: Settings) -> None:
        self.recognizer = recognizer
        self.galleries = galleries
        self.settings = settings
        self.keys = KeyFile(settings.keys) if settings.keys else None
        self.audit_log = AuditLog(settings.audit) if settings.audit else None
        self.heads = load_heads(settings.heads, recognizer)
        self.analyzer = lru_cache(_ANALYZERS)(self._load_analyzer)
        self.reviews = Reviews(settings.reviews)
        self.doors = Doors(settings)
        self.places = Places(settings.queue)
        self.cameras = Places(settings.cameras, "cameras")
        self.metrics = Metrics()
        self._vision = Vision(recognizer.threads)
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
            return await _all([self._vision.run(function, item) for item in items])

    async def look(self, function: Callable[[T], Looking[R]], items: Sequence[T]) -> list[R]:
        """`each` for work some of which is done for several pictures at once."""
        with self.places.take(len(items)):
            return await _all([self._vision.look(function, item) for item in items])

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

    def recognize(self, picture: Picture) -> Looking[Seen]:
        """The whole way from bytes to embeddings."""
        image = self.read(picture)
        faces = yield from self.describe(image, self.detect(image))
        return Seen(picture, image, faces)

    def describe(self, image: Image, faces: list[Face]) -> Looking[list[RecognizedFace]]:
        """Faces with their embeddings."""
        described: list[RecognizedFace] = yield Together(self._describe, (image, faces))
        return described

    def identify(
        self, faces: list[RecognizedFace], gallery: str, fpir: float, limit: int
    ) -> Looking[Answers]:
        """Who faces are among the enrolled. Raises `UnknownGallery`."""
        answers: Answers = yield Together(self._identify, faces, (gallery, fpir, limit))
        return answers

    def _load_analyzer(self, tasks: tuple[str, ...] | None) -> Analyzer:
        """What answers these tasks; None: all whose models are here."""
        return load_analyzer(tasks, model=self.recognizer.bundle.id)

    def _describe(self, found: Sequence[tuple[Image, list[Face]]]) -> list[list[RecognizedFace]]:
        with self.metrics.stage("embed"):
            described = self.recognizer.describe_batch(found)
        self.metrics.embedded(sum(map(len, described)))
        return described

    def _identify(
        self, pictures: Sequence[list[RecognizedFace]], gallery: str, fpir: float, limit: int
    ) -> list[Answers]:
        faces = [face for faces in pictures for face in faces]
        with self.galleries.use(gallery) as opened, self.metrics.stage("search"):
            found = opened.identify_faces(faces, self.recognizer, fpir=fpir, limit=limit)
            size = found[0].gallery_size if found else len(opened)
        answers = iter(found)
        return [Answers(size, list(islice(answers, len(faces)))) for faces in pictures]

    def audit(
        self,
        action: str,
        key: Key,
        gallery: str,
        subject: str = "",
        count: int = 0,
        new: str = "",
    ) -> None:
        """Add to the audit log, if one is kept."""
        if self.audit_log is not None:
            self.audit_log.write(action, key.id, gallery, subject, count, new)

    def close(self) -> None:
        """Finish what is at work and release everything."""
        self._vision.close()
        self._store.shutdown()
        self.galleries.close()
        if self.keys is not None:
            self.keys.save_last_used()
        if self.audit_log is not None:
            self.audit_log.close()


async def _all(jobs: Sequence[Future[R]]) -> list[R]:
    waiting = [asyncio.wrap_future(job) for job in jobs]
    if len(waiting) > 1:
        # also after a failure: a job at work still holds its place, and an error that nobody
        # looked at would be logged by asyncio with the name of its picture
        await asyncio.gather(*waiting, return_exceptions=True)
    return [await one for one in waiting]


def note(event: str, **facts: object) -> None:
    """One structured line in the log. Facts never include URLs, names, faces or keys."""
    log.info(json.dumps({"event": event, **facts}))
