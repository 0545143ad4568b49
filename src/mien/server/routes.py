"""The routes: check who asks, decode, call the library, encode. The contract is in the OpenAPI."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from mien import cards, decision
from mien.detection import Choose, central, largest, only
from mien.embedding import similarity
from mien.errors import InputError, NoFaceFound, UnknownSubject
from mien.gallery import MIN_QUALITY, Entry, Gallery, usable
from mien.inference import preferred_precisions
from mien.server import messages as m
from mien.server.galleries import check_name
from mien.server.keys import Key, Role
from mien.server.problems import MEDIA_TYPE, Conflict, NotAllowed, PreconditionFailed
from mien.server.service import Seen, Service
from mien.server.uploads import Picture, parse, parse_probes, read_body
from mien.types import Embedding, Face, Identification, Image, RecognizedFace, Template
from mien.weights import choose as choose_file
from mien.weights import locate

router = APIRouter(
    responses={
        "default": {
            "description": "Why the request was not served (RFC 9457).",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
)

_PICTURES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Pictures: parts named `image` of a form, or base64 in JSON.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                },
                "encoding": {"image": {"contentType": "image/*"}},
            },
            "application/json": {"schema": m.Pictures.model_json_schema()},
        },
    }
}

# ------------------------------------------------------------------------------------- who may what


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]


def _slashes(name: str) -> str:
    return name.replace("\0", "/")  # see `app._keep_segments_whole`


def _gallery_name(gallery: Annotated[str, Path(max_length=600, examples=["staff"])]) -> str:
    return _slashes(gallery)


def _subject_name(subject: Annotated[str, Path(max_length=600, examples=["Ada"])]) -> str:
    name = _slashes(subject)
    check_name(name, "person")
    return name


GalleryName = Annotated[str, Depends(_gallery_name)]
SubjectName = Annotated[str, Depends(_subject_name)]


def _allow(role: Role) -> Callable[..., AsyncIterator[Key]]:
    """A dependency that lets requests in whose key has this role and opens the gallery named."""

    async def enter(request: Request, service: Serving) -> AsyncIterator[Key]:
        key = service.who(request.headers.get("authorization"))
        request.state.key = key.id
        service.doors.knock(key.id)
        gallery = request.path_params.get("gallery")
        if gallery is not None and not key.opens(_slashes(gallery)):
            raise NotAllowed("this key does not open this gallery")
        if not key.may(role):
            raise NotAllowed(f"this key may {key.role}; the request needs one that may {role}")
        with service.doors.enter(key.id):
            yield key

    return enter


Reader = Annotated[Key, Depends(_allow("read"))]
Writer = Annotated[Key, Depends(_allow("write"))]
Admin = Annotated[Key, Depends(_allow("admin"))]

# ----------------------------------------------------------------------------------------- pictures


async def _pictures(request: Request, service: Service) -> list[Picture]:
    settings = service.settings
    body = await read_body(request, settings)
    kind = request.headers.get("content-type", "")
    return await service.parsed(body, lambda body: parse(kind, body, settings.pictures))


Fmr = Annotated[
    float, Query(gt=0, lt=1, description="Share of pairs of different people that may match.")
]
Fpir = Annotated[
    float, Query(gt=0, lt=1, description="Share of strangers that may be named wrongly.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="Candidates for each face.")]
ChooseName = Annotated[
    Literal["only", "largest", "central"],
    Query(description="Which face counts when a picture has several: none, and it is refused; the "
          "largest; the most central."),
]  # fmt: skip
At = Annotated[
    str | None,
    Query(pattern=r"^\d{1,6}(\.\d{1,4})?,\d{1,6}(\.\d{1,4})?$", examples=["240.5,130"],
          description="The face that counts is the one at this point, as X,Y in pixels."),
]  # fmt: skip

_CHOICES: dict[str, Choose] = {"only": only, "largest": largest, "central": central}


def _chooser(choose: str, at: str | None) -> Choose:
    if at is None:
        return _CHOICES[choose]
    x, y = map(float, at.split(","))

    def under(faces: Sequence[Face], image: Image) -> Face:
        here = [
            face
            for face in faces
            if face.box.left <= x <= face.box.right and face.box.top <= y <= face.box.bottom
        ]
        if not here:
            raise NoFaceFound(f"{image.source} at {at}")
        return min(here, key=lambda face: face.box.area)

    return under


@router.post("/v1/detect", openapi_extra=_PICTURES)
async def detect(request: Request, key: Reader, service: Serving) -> m.Detections:
    """The faces in pictures, how usable each is and why."""

    def work(picture: Picture) -> m.PictureOf[m.FoundFace]:
        image = service.read(picture)
        found = service.detect(image)
        assess = service.recognizer.assess
        return _picture(image, [_face(face, assess(image, face)) for face in found])

    pictures = await _pictures(request, service)
    return m.Detections(images=await service.each(work, pictures))


@router.post("/v1/embed", openapi_extra=_PICTURES)
async def embed(request: Request, key: Reader, service: Serving) -> m.Embeddings:
    """The faces in pictures and the vector of each."""
    seen = await service.each(service.recognize, await _pictures(request, service))
    return m.Embeddings(
        contract=service.recognizer.contract,
        images=[
            _picture(
                one.image,
                [m.EmbeddedFace(**_facts(face), vector=_numbers(face)) for face in one.faces],
            )
            for one in seen
        ],
    )


@router.post("/v1/verify", openapi_extra=_PICTURES)
async def verify(
    request: Request,
    key: Reader,
    service: Serving,
    fmr: Fmr = 1e-3,
    choose: ChooseName = "only",
) -> m.VerificationReply:
    """Whether two pictures show the same person."""
    recognizer = service.recognizer
    point = recognizer.operating_point(fmr)
    pictures = await _pictures(request, service)
    if len(pictures) != 2:
        raise InputError(f"two pictures are compared, the request has {len(pictures)}")

    def work(picture: Picture) -> RecognizedFace:
        image = service.read(picture)
        chosen = _CHOICES[choose](service.detect(image), image)
        return service.describe(image, [chosen])[0]

    a, b = await service.each(work, pictures)
    score = similarity(a.embedding, b.embedding)
    return m.VerificationReply(
        match=point.accepts(score),
        score=_score(score),
        threshold=_score(point.threshold),
        fmr=point.fmr,
        fnmr=point.fnmr,
        protocol=point.protocol,
        contract=point.contract,
        fmr_at_score=decision.impostor_rate(recognizer.bundle.operating_points, score),
        faces=[m.FoundFace(**_facts(a)), m.FoundFace(**_facts(b))],
        images=[picture.name for picture in pictures],
    )


# ---------------------------------------------------------------------------------------- galleries


@router.get("/v1/galleries")
async def list_galleries(key: Reader, service: Serving) -> m.GalleryList:
    """The galleries that the key opens."""
    names = await service.stored(service.galleries.names)
    return m.GalleryList(galleries=[name for name in names if key.opens(name)])


@router.put("/v1/galleries/{gallery}", responses={201: {"model": m.GalleryReply}})
async def make_gallery(
    gallery: GalleryName, key: Admin, service: Serving, response: Response
) -> m.GalleryReply:
    """Make a gallery, or find that it is there."""

    def work() -> tuple[bool, m.GalleryReply]:
        made = service.galleries.create(gallery)
        if made:
            service.audit("create", key, gallery)
        with service.galleries.use(gallery) as opened:
            return made, _gallery(gallery, opened)

    made, reply = await service.stored(work)
    response.status_code = 201 if made else 200
    return reply


@router.get("/v1/galleries/{gallery}")
async def show_gallery(gallery: GalleryName, key: Reader, service: Serving) -> m.GalleryReply:
    """The size of a gallery."""

    def work() -> m.GalleryReply:
        with service.galleries.use(gallery) as opened:
            return _gallery(gallery, opened)

    return await service.stored(work)


@router.delete("/v1/galleries/{gallery}", status_code=204)
async def delete_gallery(gallery: GalleryName, key: Admin, service: Serving) -> None:
    """Delete a gallery with everyone in it."""

    def work() -> None:
        service.galleries.delete(gallery)
        service.audit("delete", key, gallery)

    await service.stored(work)


@router.get("/v1/galleries/{gallery}/subjects")
async def list_subjects(
    gallery: GalleryName,
    key: Reader,
    service: Serving,
    after: Annotated[str, Query(max_length=200, description="Names that follow this one.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    contains: Annotated[str, Query(max_length=200, description="Part of the name.")] = "",
) -> m.SubjectPage:
    """The people enrolled, by name, a page at a time."""

    def work() -> m.SubjectPage:
        with service.galleries.use(gallery) as opened:
            people = opened.subjects()
        wanted = contains.casefold()
        found = [person for person in people if wanted in person.name.casefold()]
        rest = [person for person in found if person.name > after]
        page = rest[:limit]
        return m.SubjectPage(
            subjects=[
                m.SubjectRow(subject=p.name, templates=p.templates, created=p.created) for p in page
            ],
            total=len(found),
            next=page[-1].name if len(rest) > limit else None,
        )

    return await service.stored(work)


# ----------------------------------------------------------------------------------------- subjects

MinQuality = Annotated[
    float, Query(ge=0, le=1, description="Faces below this quality are refused.")
]
IfMatch = Annotated[str | None, Header(description="Change only what has one of these ETags.")]


@router.get("/v1/galleries/{gallery}/subjects/{subject}")
async def show_subject(
    gallery: GalleryName, subject: SubjectName, key: Reader, service: Serving, response: Response
) -> m.SubjectReply:
    """What is enrolled of a person. The ETag names this state, for `If-Match` of a change."""

    def work() -> list[Template]:
        with service.galleries.use(gallery) as opened:
            return opened.templates(subject)

    templates = await service.stored(work)
    response.headers["ETag"] = _etag(templates)
    return m.SubjectReply(**_subject(subject, templates))


@router.put(
    "/v1/galleries/{gallery}/subjects/{subject}",
    openapi_extra=_PICTURES,
    responses={201: {"model": m.Enrolment}},
)
async def put_subject(
    request: Request,
    gallery: GalleryName,
    subject: SubjectName,
    key: Writer,
    service: Serving,
    response: Response,
    choose: ChooseName = "only",
    at: At = None,
    min_quality: MinQuality = MIN_QUALITY,
    if_match: IfMatch = None,
) -> m.Enrolment:
    """Enrol a new person with exactly these pictures. Sent again, it changes nothing.

    A person who is enrolled with other pictures is a conflict: add to them by POST to `images`,
    or DELETE them first. All pictures are enrolled or none.
    """
    seen = await _enrollable(request, service, _chooser(choose, at), min_quality)

    def check(present: list[Template]) -> None:
        others = {_digest_of(t) for t in present} ^ {one.picture.digest for one in seen}
        if present and others:
            raise Conflict("this person is enrolled with other pictures")

    return await _enrol(service, key, gallery, subject, seen, if_match, response, check)


@router.post(
    "/v1/galleries/{gallery}/subjects/{subject}/images",
    openapi_extra=_PICTURES,
    responses={201: {"model": m.Enrolment}},
)
async def add_images(
    request: Request,
    gallery: GalleryName,
    subject: SubjectName,
    key: Writer,
    service: Serving,
    response: Response,
    choose: ChooseName = "only",
    at: At = None,
    min_quality: MinQuality = MIN_QUALITY,
    if_match: IfMatch = None,
) -> m.Enrolment:
    """Add pictures of a person, new or enrolled already. All are enrolled or none.

    A file that is enrolled for this person already is not added again.
    """
    seen = await _enrollable(request, service, _chooser(choose, at), min_quality)
    return await _enrol(service, key, gallery, subject, seen, if_match, response, lambda _: None)


@router.delete("/v1/galleries/{gallery}/subjects/{subject}")
async def erase_subject(
    gallery: GalleryName,
    subject: SubjectName,
    key: Writer,
    service: Serving,
    if_match: IfMatch = None,
) -> m.Erased:
    """Erase a person: every vector and the name, from every file of the gallery."""

    def work() -> m.Erased:
        with service.galleries.change(gallery) as opened:
            _require_state(if_match, opened.templates(subject))
            count = opened.remove(subject)
        service.audit("erase", key, gallery, subject, count)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return m.Erased(subject=subject, templates=count, erased=now)

    return await service.stored(work)


async def _enrollable(
    request: Request, service: Service, choose: Choose, min_quality: float
) -> list[Seen]:
    """Each picture of a request with the one face that is to be enrolled."""

    def work(picture: Picture) -> Seen:
        image = service.read(picture)
        chosen = choose(service.detect(image), image)
        (face,) = service.describe(image, [chosen])
        return Seen(picture, image, [usable(face, picture.name, min_quality)])

    return await service.each(work, await _pictures(request, service))


async def _enrol(
    service: Service,
    key: Key,
    gallery: str,
    subject: str,
    seen: list[Seen],
    if_match: str | None,
    response: Response,
    check: Callable[[list[Template]], None],
) -> m.Enrolment:
    def work() -> tuple[m.Enrolment, list[Template], bool]:
        with service.galleries.change(gallery) as opened:
            opened.require(service.recognizer.contract)
            present = _templates(opened, subject)
            _require_state(if_match, present)
            check(present)
            known = {_digest_of(template) for template in present}
            fresh = {one.picture.digest: one for one in seen if one.picture.digest not in known}
            opened.add([_entry(subject, one) for one in fresh.values()])
            templates = opened.templates(subject)
        if fresh:
            service.audit("enrol", key, gallery, subject, len(fresh))
        images = [
            m.EnrolledImage(
                image=one.picture.name,
                status="enrolled" if fresh.get(one.picture.digest) is one else "present",
                quality=m.FaceQuality(
                    value=one.faces[0].quality.value, reasons=list(one.faces[0].quality.reasons)
                ),
            )
            for one in seen
        ]
        return m.Enrolment(**_subject(subject, templates), images=images), templates, bool(fresh)

    reply, templates, changed = await service.stored(work)
    response.headers["ETag"] = _etag(templates)
    response.status_code = 201 if changed else 200
    return reply


def _templates(gallery: Gallery, subject: str) -> list[Template]:
    try:
        return gallery.templates(subject)
    except UnknownSubject:
        return []


def _entry(subject: str, seen: Seen) -> Entry:
    (face,) = seen.faces
    source = f"{seen.picture.name} sha256:{seen.picture.digest}"
    return Entry(subject, face.embedding, source, face.quality.value)


def _digest_of(template: Template) -> str:
    return template.source.rpartition(" sha256:")[2]


def _etag(templates: Sequence[Template]) -> str:
    state = " ".join(f"{template.id}" for template in templates)
    return f'"{hashlib.sha256(state.encode()).hexdigest()[:16]}"'


def _require_state(if_match: str | None, templates: Sequence[Template]) -> None:
    """Raise `PreconditionFailed` unless `if_match` allows a change of this state."""
    if if_match is None or (if_match.strip() == "*" and templates):
        return
    if not templates or _etag(templates) not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed("the person was changed meanwhile; look again, then decide")


# ------------------------------------------------------------------------------------------- search


@router.post("/v1/galleries/{gallery}/identify", openapi_extra=_PICTURES)
async def identify(
    request: Request,
    gallery: GalleryName,
    key: Reader,
    service: Serving,
    limit: Limit = 5,
    fpir: Fpir = 1e-2,
) -> m.Identifications:
    """Who each face is among the enrolled, or nobody."""
    recognizer = service.recognizer
    contract, points = recognizer.contract, recognizer.bundle.operating_points

    def work(picture: Picture) -> tuple[int, m.PictureOf[m.IdentifiedFace]]:
        seen = service.recognize(picture)
        with service.galleries.use(gallery) as opened, service.metrics.stage("search"):
            found = opened.identify_faces(seen.faces, recognizer, fpir=fpir, limit=limit)
            size = found[0].gallery_size if found else len(opened)
        faces = [
            _identified(service, face, answer)
            for face, answer in zip(seen.faces, found, strict=True)
        ]
        return size, _picture(seen.image, faces)

    answers = await service.each(work, await _pictures(request, service))
    size = answers[-1][0]
    images = [picture for _, picture in answers]
    service.audit("search", key, gallery, count=sum(len(picture.faces) for picture in images))
    return m.Identifications(
        gallery=gallery,
        gallery_size=size,
        fpir=fpir,
        protocol=decision.identification_point(points, fpir, size, contract).protocol,
        contract=contract,
        images=images,
    )


def _identified(service: Service, face: RecognizedFace, answer: Identification) -> m.IdentifiedFace:
    fmr = decision.impostor_rate(service.recognizer.bundle.operating_points, answer.score)
    return m.IdentifiedFace(
        **_facts(face),
        subject=answer.subject,
        score=_score(answer.score),
        threshold=_score(answer.operating_point.threshold),
        fmr_at_score=fmr,
        fpir_at_score=decision.fpir_for(fmr, answer.gallery_size),
        candidates=[
            m.Candidate(subject=match.subject, score=_score(match.score))
            for match in answer.candidates
        ],
    )


@router.post(
    "/v1/galleries/{gallery}/search",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": m.Probes.model_json_schema()}},
        }
    },
)
async def search(
    request: Request, gallery: GalleryName, key: Reader, service: Serving, limit: Limit = 5
) -> m.SearchReply:
    """The people most like given vectors, best first, without a decision."""
    body = await read_body(request, service.settings)  # FastAPI itself would read without a limit
    contract, probes = await service.parsed(body, parse_probes)
    given = [_embedding(vector, contract) for vector in probes]

    def work() -> m.SearchReply:
        with service.galleries.use(gallery) as opened, service.metrics.stage("search"):
            found = opened.search_batch(given, limit)
        service.audit("search", key, gallery, count=len(given))
        return m.SearchReply(
            matches=[
                [
                    m.FoundTemplate(subject=x.subject, score=_score(x.score), template=x.template)
                    for x in matches
                ]
                for matches in found
            ]
        )

    return await service.stored(work)


def _embedding(numbers: list[float], contract: str) -> Embedding:
    vector = np.array(numbers, np.float64)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or not length:
        raise InputError("a vector without length, or with numbers that are not finite")
    return Embedding((vector / length).astype(np.float32), contract)


# ------------------------------------------------------------------------------- models and health


@router.get("/v1/models")
async def models(key: Reader, service: Serving) -> m.Models:
    """What is loaded and what was measured of it, and every network that is known."""
    bundle = service.recognizer.bundle
    points = bundle.operating_points
    return m.Models(
        version=version("mien"),
        loaded=m.LoadedModel(
            id=bundle.id,
            title=bundle.title,
            detector=bundle.detector.id,
            embedder=bundle.embedder.id,
            contract=bundle.contract,
            protocol=points[0].protocol if points else None,
            operating_points=[
                m.Point(threshold=point.threshold, fmr=point.fmr, fnmr=point.fnmr)
                for point in points
            ],
            figures=dict(bundle.figures),
        ),
        models=await service.stored(lambda: [_model(name) for name in cards.model_ids()]),
    )


@router.get("/v1/me")
async def me(key: Reader, service: Serving) -> m.Me:
    """What the key that was sent may do."""
    return m.Me(
        key=key.id, role=key.role, galleries=list(key.galleries), keys=service.keys is not None
    )


@router.get("/healthz", openapi_extra={"security": []})
async def healthz() -> m.Health:
    """The process answers."""
    return m.Health(status="ok")


@router.get("/readyz", openapi_extra={"security": []})
async def readyz(service: Serving) -> m.Health:
    """Models are loaded and galleries can be kept; raises the problem otherwise."""
    await service.stored(service.galleries.check)
    return m.Health(status="ok")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(key: Reader, service: Serving) -> Response:
    """Figures for Prometheus; sizes only of galleries that the key opens."""

    def sizes() -> dict[str, int]:
        found = {}
        for name in filter(key.opens, service.galleries.names()):
            with service.galleries.use(name) as opened:
                found[name] = len(opened)
        return found

    text = service.metrics.text(
        service.doors.inside, service.places.taken, await service.stored(sizes)
    )
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


# ----------------------------------------------------------------------------------------- encoding


def _picture(image: Image, faces: list[m.AnyFace]) -> m.PictureOf[m.AnyFace]:
    return m.PictureOf(image=image.source, width=image.width, height=image.height, faces=faces)


def _face(face: Face, quality: Any) -> m.FoundFace:
    return m.FoundFace(**_place(face), quality=quality.value, reasons=list(quality.reasons))


def _place(face: Face) -> dict[str, Any]:
    box = face.box
    return {
        "box": [round(side, 2) for side in (box.left, box.top, box.right, box.bottom)],
        "landmarks": face.landmarks.points.astype(float).round(2).tolist(),
        "confidence": round(face.confidence, 4),
    }


def _facts(face: RecognizedFace) -> dict[str, Any]:
    return {
        **_place(face.face),
        "quality": round(face.quality.value, 4),
        "reasons": list(face.quality.reasons),
    }


def _numbers(face: RecognizedFace) -> list[float]:
    numbers: list[float] = face.embedding.vector.astype(float).round(8).tolist()
    return numbers


def _score(score: float) -> float:
    return round(score, 5)


def _subject(name: str, templates: Sequence[Template]) -> dict[str, Any]:
    return {
        "subject": name,
        "created": templates[0].created,
        "templates": [
            m.TemplateReply(id=t.id, source=t.source, quality=t.quality, created=t.created)
            for t in templates
        ],
    }


def _gallery(name: str, gallery: Gallery) -> m.GalleryReply:
    stats = gallery.stats()
    return m.GalleryReply(
        gallery=name,
        subjects=stats.subjects,
        templates=stats.templates,
        dimensions=stats.dimensions,
        bytes=stats.bytes,
        contract=stats.contract,
    )


def _model(name: str) -> m.Model:
    card = cards.model_card(name)
    file = choose_file(card, preferred_precisions())
    return m.Model(
        id=card.id,
        title=card.title,
        task=card.task,
        licence=card.licence,
        commercial=card.commercial,
        training_data=card.training_data,
        cautions=card.cautions,
        bytes=file.bytes,
        sha256=file.sha256,
        present=locate(file) is not None,
    )
