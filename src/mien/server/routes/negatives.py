"""Faces that were taken for a person and are not: what a reviewer rejects."""

from typing import Annotated

from fastapi import Query, Request

from mien.gallery import MIN_QUALITY, Entry, usable
from mien.server import messages as m
from mien.server.routes.access import GalleryName, Serving, SubjectName, Writer, new_router
from mien.server.routes.bodies import PICTURES, pictures_of
from mien.server.routes.pictures import At, ChooseName, chooser
from mien.server.service import Seen
from mien.server.uploads import Picture
from mien.server.vision import Looking

router = new_router()


@router.post(
    "/v1/galleries/{gallery}/subjects/{subject}/negatives", openapi_extra=PICTURES, status_code=201
)
async def add_negatives(
    request: Request,
    gallery: GalleryName,
    subject: SubjectName,
    key: Writer,
    service: Serving,
    choose: ChooseName = "only",
    at: At = None,
    min_quality: Annotated[
        float, Query(ge=0, le=1, description="Faces below this quality are refused.")
    ] = MIN_QUALITY,
) -> m.Negatives:
    """Say who this person is not: faces closer to these than to the person's own no longer match.

    All pictures are taken or none. They are erased with the person.
    """
    chosen = chooser(choose, at)

    def work(picture: Picture) -> Looking[Seen]:
        image = service.read(picture)
        (face,) = yield from service.describe(image, [chosen(service.detect(image), image)])
        return Seen(picture, image, [usable(face, picture.name, min_quality)])

    seen = await service.look(work, await pictures_of(request, service))

    def write() -> None:
        with service.galleries.change(gallery) as opened:
            opened.require(service.recognizer.contract)
            opened.templates(subject)  # somebody who is enrolled
            opened.add([_entry(subject, one) for one in seen])
        service.audit("reject", key, gallery, subject, len(seen))

    await service.stored(write)
    return m.Negatives(subject=subject, added=len(seen))


def _entry(subject: str, seen: Seen) -> Entry:
    (face,) = seen.faces
    source = f"{seen.picture.name} sha256:{seen.picture.digest}"
    return Entry(subject, face.embedding, source, face.quality.value, negative=True)
