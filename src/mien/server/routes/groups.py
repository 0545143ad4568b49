"""Faces grouped by person, of pictures or of vectors; nothing is kept."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from fastapi import Query, Request

from mien.clustering import MIN_QUALITY, Labels, cluster, linkage, same_picture
from mien.embedding import require_contract
from mien.errors import InputError
from mien.server import messages as m
from mien.server.routes.access import Reader, Serving, new_router
from mien.server.routes.bodies import PICTURES, json_body, json_of, pictures_of
from mien.server.routes.pictures import facts, picture_of
from mien.server.routes.search import embedding_of
from mien.server.service import Service
from mien.types import Embedding

router = new_router()

_PAIRS = 2_000_000  # of faces in one picture: each is a cannot-link, kept in memory

Fdr = Annotated[
    float,
    Query(gt=0, lt=1, description="Of the pairs put together, the share that may be strangers."),
]


@router.post("/v1/group", openapi_extra=PICTURES)
async def group(request: Request, key: Reader, service: Serving, fdr: Fdr = 0.02) -> m.Groups:
    """The faces in pictures, grouped by person. Two faces of one picture are two people."""
    seen = await service.look(service.recognize, await pictures_of(request, service))
    faces = [face for one in seen for face in one.faces]
    places = [f"{number}" for number, one in enumerate(seen) for _ in one.faces]

    def work(_: None) -> Labels:
        embeddings = [face.embedding for face in faces]
        return _group(service, embeddings, places, [f.quality.value for f in faces], fdr)

    (labels,) = await service.each(work, [None])
    numbers = iter(labels.tolist())
    return m.Groups(
        contract=service.recognizer.contract,
        clusters=_count(labels),
        images=[
            picture_of(
                one.image,
                [m.GroupedFace(**facts(face), cluster=next(numbers)) for face in one.faces],
            )
            for one in seen
        ],
    )


@router.post("/v1/group/vectors", openapi_extra=json_body(m.VectorsOfFaces))
async def group_vectors(
    request: Request, key: Reader, service: Serving, fdr: Fdr = 0.02
) -> m.GroupNumbers:
    """Faces that `embed` described, grouped by person: for more pictures than fit in a request."""
    given = await json_of(request, service, m.VectorsOfFaces)
    count = len(given.vectors)
    pictures = given.pictures or [f"{number}" for number in range(count)]
    qualities = given.qualities or [1.0] * count
    if not len(pictures) == len(qualities) == count:
        raise InputError(f"{count} vectors need as many pictures and qualities, or none")
    if sum(faces * faces for faces in Counter(pictures).values()) > _PAIRS + count:
        raise InputError("more faces in one picture than can be kept apart")

    def work(_: None) -> Labels:
        require_contract(service.recognizer.contract, given.contract)
        embeddings = [embedding_of(vector, given.contract) for vector in given.vectors]
        if len({embedding.vector.size for embedding in embeddings}) > 1:
            raise InputError("vectors of one contract have one length")
        return _group(service, embeddings, pictures, qualities, fdr)

    (labels,) = await service.each(work, [None])
    return m.GroupNumbers(clusters=_count(labels), numbers=labels.tolist())


def _group(
    service: Service,
    embeddings: Sequence[Embedding],
    pictures: Sequence[str],
    qualities: Sequence[float],
    fdr: float,
) -> Labels:
    if not embeddings:
        return np.zeros(0, np.int64)
    recognizer = service.recognizer
    points, contract = recognizer.bundle.operating_points, recognizer.contract
    vectors = np.stack([embedding.vector for embedding in embeddings])
    with service.metrics.stage("group"):
        return cluster(
            vectors,
            linkage(points, vectors, contract, fdr=fdr),
            apart=same_picture(pictures),
            usable=np.array([quality >= MIN_QUALITY for quality in qualities]),
        )


def _count(labels: Labels) -> int:
    return int(labels.max(initial=-1)) + 1
