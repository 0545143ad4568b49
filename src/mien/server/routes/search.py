"""Who a face is among the enrolled: by pictures with a decision, by vectors without one."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import Query, Request

from mien import decision
from mien.alignment import align
from mien.errors import InputError
from mien.images import encode_image
from mien.server import messages as m
from mien.server.review import borderline
from mien.server.routes.access import GalleryName, Reader, Serving, new_router
from mien.server.routes.bodies import PICTURES, json_body, json_of, pictures_of
from mien.server.routes.pictures import facts, picture_of, rounded
from mien.server.service import Service
from mien.server.uploads import Picture
from mien.server.vision import Looking
from mien.types import Embedding, Identification, Image, Match, RecognizedFace

router = new_router()

Fpir = Annotated[
    float, Query(gt=0, lt=1, description="Share of strangers that may be named wrongly.")
]
Review = Annotated[
    bool,
    Query(description="Keep what is borderline, in the memory of the server, to be reviewed."),
]
Keep = Callable[[RecognizedFace, Identification, float], str | None]
Limit = Annotated[int, Query(ge=1, le=100, description="Candidates for each face.")]


@router.post("/v1/galleries/{gallery}/identify", openapi_extra=PICTURES)
async def identify(
    request: Request,
    gallery: GalleryName,
    key: Reader,
    service: Serving,
    limit: Limit = 5,
    fpir: Fpir = 1e-2,
    review: Review = False,
) -> m.Identifications:
    """Who each face is among the enrolled, or nobody."""
    bundle = service.recognizer.bundle

    def work(picture: Picture) -> Looking[tuple[int, m.PictureOf[m.IdentifiedFace]]]:
        seen = yield from service.recognize(picture)
        answers = yield from service.identify(seen.faces, gallery, fpir, limit)
        keep = partial(_kept_if_borderline, service, gallery, seen.image) if review else None
        faces = [
            _identified(service, face, answer, keep)
            for face, answer in zip(seen.faces, answers.faces, strict=True)
        ]
        return answers.gallery_size, picture_of(seen.image, faces)

    answered = await service.look(work, await pictures_of(request, service))
    size = answered[-1][0]
    point = decision.identification_point(bundle.search_points, fpir, size, bundle.contract)
    images = [picture for _, picture in answered]
    service.audit("search", key, gallery, count=sum(len(picture.faces) for picture in images))
    return m.Identifications(
        gallery=gallery,
        gallery_size=size,
        fpir=fpir,
        fmr=point.fmr,
        fnmr=point.fnmr,
        protocol=point.protocol,
        contract=bundle.contract,
        images=images,
    )


def _identified(
    service: Service, face: RecognizedFace, answer: Identification, keep: Keep | None
) -> m.IdentifiedFace:
    bundle = service.recognizer.bundle
    score = answer.score - decision.demanded(bundle, face.embedding)
    fmr = decision.impostor_rate(bundle.search_points, score)
    fpir_at_score = decision.fpir_for(fmr, answer.gallery_size)
    return m.IdentifiedFace(
        **facts(face),
        subject=answer.subject,
        score=rounded(answer.score),
        threshold=rounded(answer.operating_point.threshold),
        fmr_at_score=fmr,
        fpir_at_score=fpir_at_score,
        candidates=[_candidate(match) for match in answer.candidates],
        review=keep(face, answer, fpir_at_score) if keep else None,
    )


def _kept_if_borderline(
    service: Service,
    gallery: str,
    image: Image,
    face: RecognizedFace,
    answer: Identification,
    fpir_at_score: float,
) -> str | None:
    """The id of its review."""
    if not borderline(answer, fpir_at_score):
        return None
    aligned = align(image, face.face.landmarks, service.recognizer.frame)
    crop = encode_image(Image(aligned.pixels), "jpeg")
    return service.reviews.add(gallery, image.source, face, answer, fpir_at_score, crop)


def _candidate(match: Match) -> m.Candidate:
    return m.Candidate(subject=match.subject, score=rounded(match.score), template=match.template)


@router.post(
    "/v1/galleries/{gallery}/search",
    openapi_extra=json_body(m.Probes),
)
async def search(
    request: Request, gallery: GalleryName, key: Reader, service: Serving, limit: Limit = 5
) -> m.SearchReply:
    """The people most like given vectors, best first, without a decision."""
    probes = await json_of(request, service, m.Probes)
    given = [embedding_of(vector, probes.contract) for vector in probes.vectors]

    def work() -> m.SearchReply:
        with service.galleries.use(gallery) as opened, service.metrics.stage("search"):
            found = opened.search_batch(given, limit)
        service.audit("search", key, gallery, count=len(given))
        return m.SearchReply(
            matches=[[_candidate(match) for match in matches] for matches in found]
        )

    return await service.stored(work)


def embedding_of(numbers: list[float], contract: str) -> Embedding:
    """A vector of a request, brought to length one. Raises `InputError`."""
    vector = np.array(numbers, np.float64)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or not length:
        raise InputError("a vector without length, or with numbers that are not finite")
    return Embedding((vector / length).astype(np.float32), contract)
