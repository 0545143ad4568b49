"""Borderline identifications: listed, confirmed, rejected. `identify?review=true` keeps them."""

from typing import Annotated

from fastapi import Path, Query, Response

from mien.gallery import MIN_QUALITY, Entry, usable
from mien.server import messages as m
from mien.server.galleries import check_name
from mien.server.keys import Key
from mien.server.review import Review
from mien.server.routes.access import GalleryName, Serving, Writer, new_router
from mien.server.routes.pictures import facts, rounded
from mien.server.service import Service

router = new_router()

ReviewId = Annotated[str, Path(max_length=64, examples=["9f86d081884c7d65"])]


@router.get("/v1/galleries/{gallery}/reviews")
async def list_reviews(gallery: GalleryName, key: Writer, service: Serving) -> m.ReviewList:
    """Faces of which it is not sure whose they are, latest first."""

    def work() -> list[Review]:
        with service.galleries.use(gallery):
            return service.reviews.listed(gallery)

    reviews = await service.stored(work)
    return m.ReviewList(kept=service.settings.reviews, reviews=[_row(one) for one in reviews])


@router.get(
    "/v1/galleries/{gallery}/reviews/{review}/crop",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string"}}}}},
)
async def show_crop(
    gallery: GalleryName, review: ReviewId, key: Writer, service: Serving
) -> Response:
    """The face of a review, as it was aligned."""
    return Response(service.reviews.find(gallery, review).crop, media_type="image/jpeg")


@router.post("/v1/galleries/{gallery}/reviews/{review}/confirm")
async def confirm(
    gallery: GalleryName,
    review: ReviewId,
    key: Writer,
    service: Serving,
    subject: Annotated[
        str | None,
        Query(max_length=600, description="Who it is, when it is not whom the review names."),
    ] = None,
) -> m.Decided:
    """Say that the face is this person's. It becomes one of their templates."""
    if subject is not None:
        check_name(subject, "person")
    return await _decide(service, key, gallery, review, subject, negative=False)


@router.post("/v1/galleries/{gallery}/reviews/{review}/reject")
async def reject(
    gallery: GalleryName, review: ReviewId, key: Writer, service: Serving
) -> m.Decided:
    """Say that the face is not this person's. Faces like it no longer get their name."""
    return await _decide(service, key, gallery, review, None, negative=True)


@router.delete("/v1/galleries/{gallery}/reviews/{review}", status_code=204)
async def dismiss(gallery: GalleryName, review: ReviewId, key: Writer, service: Serving) -> None:
    """Forget a face without saying whose it is."""
    service.reviews.drop(service.reviews.find(gallery, review))


async def _decide(
    service: Service, key: Key, gallery: str, name: str, subject: str | None, negative: bool
) -> m.Decided:
    def work() -> m.Decided:
        with service.galleries.change(gallery) as opened:
            review = service.reviews.find(gallery, name)
            whose = subject or review.subject
            if subject is None:
                opened.templates(whose)  # somebody erased meanwhile does not come back
            face = usable(review.face, review.image, MIN_QUALITY)
            quality = face.quality.value
            opened.add([Entry(whose, face.embedding, review.image, quality, negative=negative)])
            service.reviews.drop(review)
            count = len(opened.templates(whose))
        service.audit("reject" if negative else "enrol", key, gallery, whose, 1)
        return m.Decided(subject=whose, templates=count, negative=negative)

    return await service.stored(work)


def _row(review: Review) -> m.Review:
    return m.Review(
        **facts(review.face),
        review=review.id,
        image=review.image,
        subject=review.subject,
        named=review.named,
        score=rounded(review.score),
        fpir_at_score=review.fpir_at_score,
        created=review.created,
    )
