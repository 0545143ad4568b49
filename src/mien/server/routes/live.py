"""A live camera: JPEG frames in, tracks and names out, over a WebSocket.

The first message is JSON, a `LiveRequest`; browsers cannot send a key in a header of a WebSocket,
and in the address it would be logged. Then each binary message is a frame. The answers are JSON: a
`LiveReady`, then a `LiveScene` for each frame that was looked at, in order. While one is at work
only the newest waits: the others are dropped, so that an answer is never about a frame much older
than the work on one. What goes wrong is a problem as of RFC 9457, with `kind` "problem"; one that
ends the connection closes it with 4000 + its HTTP status.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from mien import decision
from mien.attributes import Analyzer
from mien.errors import InputError, MienError, UnreadableImage
from mien.server import messages as m
from mien.server.keys import Key
from mien.server.problems import (
    BodyTooLarge,
    MalformedRequest,
    Overloaded,
    Refusal,
    UploadTimeout,
    problem,
)
from mien.server.routes.access import admit, new_router, with_slashes
from mien.server.routes.attributes import liveness_answer
from mien.server.routes.pictures import rounded
from mien.server.service import Service, note
from mien.server.uploads import Picture
from mien.server.vision import Looking
from mien.types import Embedding, Identification, Image, Liveness, Match
from mien.video import Event, Scene, Tracked, Watcher

router = new_router()

_FACES = 8  # of a track, over which liveness is averaged

QUIET_SECONDS = 60.0
"""A camera that sends nothing for so long is disconnected."""


@router.websocket("/v1/galleries/{gallery}/live")
async def live(socket: WebSocket, gallery: str) -> None:
    """Follow the people before a camera and decide who each is."""
    service: Service = socket.app.state.service
    await socket.accept()
    try:
        await _serve(socket, service, with_slashes(gallery))
    except WebSocketDisconnect:
        return
    except (MienError, Refusal) as error:
        reply = problem(error)
        await _tell(socket, _problem(error))
        await socket.close(4000 + reply.status_code)


async def _serve(socket: WebSocket, service: Service, name: str) -> None:
    request = await _first_message(socket, service)
    authorization = socket.headers.get("authorization")
    if request.key is not None:
        authorization = f"Bearer {request.key}"
    key = service.who(authorization)
    admit(service, key, "read", name)
    people = _Named(service, name)
    watcher = await service.stored(lambda: Watcher(service.recognizer, people, fpir=request.fpir))
    with service.doors.enter(key.id), service.cameras.take(1):
        ready = m.LiveReady(
            gallery=name,
            gallery_size=await service.stored(people.__len__),
            fpir=request.fpir,
            frame_bytes=service.settings.frame_bytes,
        )
        await socket.send_text(ready.model_dump_json())
        session = _Session(service, socket, key, watcher, await _liveness(service, request))
        try:
            async with _newest(socket, service.settings.frame_bytes) as frames:
                while frame := await frames.take():
                    service.who(authorization)  # it may have been revoked
                    await session.answer(frame, frames.dropped)
        finally:
            session.close(name)


async def _first_message(socket: WebSocket, service: Service) -> m.LiveRequest:
    try:
        async with asyncio.timeout(service.settings.upload_seconds):
            text = await socket.receive_text()
    except TimeoutError as error:
        raise UploadTimeout("the first message did not come") from error
    except KeyError as error:
        raise MalformedRequest("the first message is JSON text; then come the frames") from error
    try:
        return m.LiveRequest.model_validate_json(text)
    except ValidationError as error:
        words = "; ".join(
            f"{'.'.join(map(str, entry['loc'])) or 'the message'}: {entry['msg']}"
            for entry in error.errors(include_input=False)[:5]
        )
        raise InputError(words) from None  # its input has the key in it


async def _liveness(service: Service, request: m.LiveRequest) -> "_Liveness | None":
    """What checks faces for liveness, if that was asked for and its model is here."""
    analyzer = await service.stored(lambda: service.analyzer(None)) if request.liveness else None
    if analyzer is None or "liveness" in analyzer.missing:
        return None
    return _Liveness(await service.stored(lambda: service.analyzer(("liveness",))))


async def _tell(socket: WebSocket, body: dict[str, object]) -> None:
    await socket.send_text(json.dumps(body))


def _problem(error: MienError | Refusal) -> dict[str, object]:
    return {"kind": "problem", **json.loads(bytes(problem(error).body))}


# ------------------------------------------------------------------------------------------ frames


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    arrived: float
    data: bytes


class _Newest:
    """Room for one frame: a newer one takes the place of one that waits."""

    def __init__(self) -> None:
        self._there = asyncio.Event()
        self._frame: _Frame | None = None
        self._end: Exception | None = None
        self._count = 0
        self.dropped = 0

    def put(self, data: bytes) -> None:
        self.dropped += self._frame is not None
        self._frame = _Frame(self._count, time.monotonic(), data)
        self._count += 1
        self._there.set()

    def end(self, why: Exception) -> None:
        self._end = why
        self._there.set()

    async def take(self) -> _Frame:
        """The newest frame, when there is one. Raises why there will be none."""
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self._there.wait()
        except TimeoutError as error:
            raise UploadTimeout(f"no frame came for {QUIET_SECONDS:g} seconds") from error
        if self._end is not None:
            raise self._end
        frame, self._frame = self._frame, None
        self._there.clear()
        assert frame is not None
        return frame


@asynccontextmanager
async def _newest(socket: WebSocket, most: int) -> AsyncIterator[_Newest]:
    """The frames of a socket, which is read all the while."""
    frames = _Newest()

    async def receive() -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                frames.end(WebSocketDisconnect(message.get("code", 1000)))
                return
            data = message.get("bytes")
            if data is None:
                frames.end(MalformedRequest("after the first message come frames, as binary ones"))
                return
            if len(data) > most:
                frames.end(BodyTooLarge(f"the frame has {len(data):,} bytes, over {most:,}"))
                return
            frames.put(data)

    receiving = asyncio.create_task(receive())
    try:
        yield frames
    finally:
        receiving.cancel()


# ----------------------------------------------------------------------------------------- answers


class _Named:
    """A gallery by its name, opened for each look at it: it may be deleted under a camera."""

    def __init__(self, service: Service, name: str) -> None:
        self._galleries = service.galleries
        self._name = name

    def require(self, contract: str) -> None:
        with self._galleries.use(self._name) as gallery:
            gallery.require(contract)

    def search(self, probe: Embedding, limit: int) -> list[Match]:
        with self._galleries.use(self._name) as gallery:
            return gallery.search(probe, limit)

    def __len__(self) -> int:
        with self._galleries.use(self._name) as gallery:
            return len(gallery)


class _Session:
    """One camera that is connected."""

    def __init__(
        self,
        service: Service,
        socket: WebSocket,
        key: Key,
        watcher: Watcher,
        liveness: "_Liveness | None",
    ) -> None:
        self._service = service
        self._socket = socket
        self._key = key
        self._watcher = watcher
        self._liveness = liveness
        self._began = time.monotonic()
        self._frames = self._people = 0

    async def answer(self, frame: _Frame, dropped: int) -> None:
        """Look at a frame and tell what is on it; one that cannot be used is told and passed."""

        def look(picture: Picture) -> Looking[tuple[int, int, Scene]]:
            seen = yield from self._service.recognize(picture)
            with self._service.metrics.stage("track"):
                scene = self._watcher.see(frame.number, frame.arrived - self._began, seen.faces)
            if self._liveness is not None:
                with self._service.metrics.stage("liveness"):
                    self._liveness.look(seen.image, scene.tracks)
            return seen.image.width, seen.image.height, scene

        try:
            picture = Picture(f"frame {frame.number}", frame.data)
            ((width, height, scene),) = await self._service.look(look, [picture])
        except (Overloaded, UnreadableImage) as error:
            await _tell(self._socket, {**_problem(error), "frame": frame.number})
            return
        self._frames += 1
        self._people = max([self._people, *(track.track for track in scene.tracks)])
        reply = m.LiveScene(
            frame=frame.number,
            dropped=dropped,
            width=width,
            height=height,
            seconds=round(time.monotonic() - frame.arrived, 3),
            tracks=[_track(self._service, track, self._liveness) for track in scene.tracks],
            events=[_event(event) for event in scene.events],
        )
        await self._socket.send_text(reply.model_dump_json())

    def close(self, gallery: str) -> None:
        """Note what there was."""
        self._service.audit("watch", self._key, gallery, count=self._people)
        seconds = round(time.monotonic() - self._began, 1)
        client = self._socket.client.host if self._socket.client else None
        note(
            "live", key=self._key.id, frames=self._frames, tracks=self._people, seconds=seconds,
            client=client,
        )  # fmt: skip


class _Liveness:
    """Whether the people followed are alive or pictures: the mean over the last faces of each.

    The threshold was measured on single pictures; a mean over several strays less from either side.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._seen: dict[int, deque[Liveness]] = {}

    def look(self, image: Image, tracks: Sequence[Tracked]) -> None:
        """Take the faces of those tracks that were found on a picture."""
        self._seen = {t.track: self._seen.get(t.track, deque(maxlen=_FACES)) for t in tracks}
        found = [(t.track, t.face.face) for t in tracks if t.face is not None]
        answers = self._analyzer.analyze(image, [face for _, face in found])
        for (track, _), answer in zip(found, answers, strict=True):
            if answer.liveness is not None:
                self._seen[track].append(answer.liveness)

    def of(self, track: int) -> m.LivenessAnswer | None:
        """What is known of one track."""
        seen = self._seen.get(track)
        if not seen:
            return None
        score = sum(one.score for one in seen) / len(seen)
        point = seen[-1].operating_point
        return liveness_answer(Liveness(point.accepts(score), score, point))


def _track(service: Service, track: Tracked, liveness: _Liveness | None) -> m.LiveTrack:
    box, answer = track.box, track.answer
    worth = _worth(service, answer) if answer else None
    return m.LiveTrack(
        track=track.track,
        box=[round(side, 2) for side in (box.left, box.top, box.right, box.bottom)],
        quality=round(track.face.quality.value, 4) if track.face else None,
        state="looking" if answer is None else "named" if answer.subject else "unknown",
        subject=track.subject,
        score=rounded(answer.score) if answer else -1.0,
        threshold=rounded(answer.operating_point.threshold) if answer else None,
        fmr_at_score=worth[0] if worth else None,
        fpir_at_score=worth[1] if worth else None,
        candidates=[
            m.Candidate(subject=match.subject, score=rounded(match.score), template=match.template)
            for match in (answer.candidates if answer else ())
        ],
        faces=track.faces,
        liveness=liveness.of(track.track) if liveness else None,
    )


def _worth(service: Service, answer: Identification) -> tuple[float, float]:
    """How many strangers score as high, one to one and against this gallery."""
    bundle, size = service.recognizer.bundle, answer.gallery_size
    usual = decision.identification_point(bundle.search_points, answer.fpir, size, bundle.contract)
    demanded = answer.operating_point.threshold - usual.threshold  # of this face in particular
    fmr = decision.impostor_rate(bundle.search_points, answer.score - demanded)
    return fmr, decision.fpir_for(fmr, size)


def _event(event: Event) -> m.LiveEvent:
    return m.LiveEvent(
        event=event.kind,
        track=event.track,
        first_frame=event.first_frame,
        last_frame=event.last_frame,
        subject=event.subject,
        score=rounded(event.score),
    )
