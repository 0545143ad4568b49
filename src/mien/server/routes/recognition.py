"""Faces in pictures, their vectors, and whether two are of one person: without any gallery."""

from typing import Annotated

from fastapi import Path, Query, Request

from mien import decision
from mien.classification import Classification, describe
from mien.classification.faces import Described
from mien.embedding import similarity
from mien.errors import InputError
from mien.server import messages as m
from mien.server.routes.access import Reader, Serving, new_router
from mien.server.routes.bodies import PICTURES, pictures_of
from mien.server.routes.pictures import (
    ChooseName,
    chooser,
    facts,
    found_face,
    numbers,
    picture_of,
    rounded,
)
from mien.server.uploads import Picture
from mien.server.vision import Looking
from mien.types import RecognizedFace

router = new_router()

Fmr = Annotated[
    float, Query(gt=0, lt=1, description="Share of pairs of different people that may match.")
]


@router.post("/v1/detect", openapi_extra=PICTURES)
async def detect(request: Request, key: Reader, service: Serving) -> m.Detections:
    """The faces in pictures, how usable each is and why."""

    def work(picture: Picture) -> m.PictureOf[m.FoundFace]:
        image = service.read(picture)
        found = service.detect(image)
        assess = service.recognizer.assess
        return picture_of(image, [found_face(face, assess(image, face)) for face in found])

    pictures = await pictures_of(request, service)
    return m.Detections(images=await service.each(work, pictures))


@router.post("/v1/embed", openapi_extra=PICTURES)
async def embed(request: Request, key: Reader, service: Serving) -> m.Embeddings:
    """The faces in pictures and the vector of each."""
    seen = await service.look(service.recognize, await pictures_of(request, service))
    return m.Embeddings(
        contract=service.recognizer.contract,
        images=[
            picture_of(
                one.image,
                [m.EmbeddedFace(**facts(face), vector=numbers(face)) for face in one.faces],
            )
            for one in seen
        ],
    )


@router.post("/v1/verify", openapi_extra=PICTURES)
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
    pictures = await pictures_of(request, service)
    if len(pictures) != 2:
        raise InputError(f"two pictures are compared, the request has {len(pictures)}")

    choosing = chooser(choose)

    def work(picture: Picture) -> Looking[RecognizedFace]:
        image = service.read(picture)
        (face,) = yield from service.describe(image, [choosing(service.detect(image), image)])
        return face

    a, b = await service.look(work, pictures)
    score = similarity(a.embedding, b.embedding)
    return m.VerificationReply(
        match=point.accepts(score),
        score=rounded(score),
        threshold=rounded(point.threshold),
        fmr=point.fmr,
        fnmr=point.fnmr,
        protocol=point.protocol,
        contract=point.contract,
        fmr_at_score=decision.impostor_rate(recognizer.bundle.operating_points, score),
        faces=[m.FoundFace(**facts(a)), m.FoundFace(**facts(b))],
        images=[picture.name for picture in pictures],
    )


@router.post("/v1/classify/{head}", openapi_extra=PICTURES)
async def classify(
    request: Request,
    head: Annotated[str, Path(max_length=200, examples=["celebrities"])],
    key: Reader,
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=100, description="Labels for each face.")] = 5,
    unknown: Annotated[
        float | None,
        Query(
            gt=0,
            lt=1,
            description="Share of strangers that may be given a label; without it "
            "every face gets one.",
        ),
    ] = None,
) -> m.Classifications:
    """Whom each face shows, or resembles, of the people that a head was fitted on."""
    served = service.heads.find(head)
    if unknown is not None:
        served.head.operating_point(unknown)  # refused at once, not once a picture

    def work(picture: Picture) -> Looking[m.PictureOf[m.LabelledFace]]:
        if served.models == (service.recognizer,):
            seen = yield from service.recognize(picture)
            image = seen.image
            faces = [Described(f.face, f.quality, (f.embedding,)) for f in seen.faces]
        else:
            image = service.read(picture)
            faces = describe(image, served.models)
        with service.metrics.stage("classify"):
            said = served.head.classify(
                [face.embeddings for face in faces], top=limit, unknown=unknown
            )
        return picture_of(image, list(map(_labelled, faces, said)))

    return m.Classifications(
        head=head,
        protocol=served.head.report.protocol,
        accuracy=served.head.report.accuracy,
        images=await service.look(work, await pictures_of(request, service)),
    )


def _labelled(face: Described, answer: Classification) -> m.LabelledFace:
    return m.LabelledFace(
        **facts(face),
        label=answer.label,
        probability=answer.probability,
        top=[m.Label(label=one.label, probability=one.probability) for one in answer.top],
    )
