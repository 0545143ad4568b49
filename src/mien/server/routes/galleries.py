"""Galleries: make, show, list and delete them, and list the people in one."""

from typing import Annotated

from fastapi import Query, Response

from mien.gallery import Gallery
from mien.server import messages as m
from mien.server.routes.access import Admin, GalleryName, Reader, Serving, new_router

router = new_router()


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
        service.reviews.forget(gallery)
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
