"""People of a gallery: enrol, show, add to and erase them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Path, Query, Request, Response

from mien.errors import UnknownSubject
from mien.gallery import MIN_QUALITY, Entry, Gallery, usable
from mien.gallery.sqlite import SqliteStore
from mien.server import messages as m
from mien.server.galleries import check_name
from mien.server.problems import Conflict, PreconditionFailed, UnknownTemplate
from mien.server.routes.access import GalleryName, Reader, Serving, SubjectName, Writer, new_router
from mien.server.routes.bodies import PICTURES, json_body, json_of, pictures_of
from mien.server.routes.pictures import At, ChooseName, chooser
from mien.server.service import Seen
from mien.server.uploads import Picture
from mien.server.vision import Looking
from mien.types import Template

router = new_router()

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
    response.headers["ETag"] = etag(templates)
    return m.SubjectReply(**_subject(subject, templates))


@dataclass(frozen=True)
class Enrolling:
    """What both ways to enrol are asked with."""

    request: Request
    response: Response
    gallery: GalleryName
    subject: SubjectName
    key: Writer
    service: Serving
    choose: ChooseName = "only"
    at: At = None
    min_quality: MinQuality = MIN_QUALITY
    if_match: IfMatch = None

    async def enrol(
        self, check: Callable[[Sequence[Template], Sequence[Seen]], None]
    ) -> m.Enrolment:
        """Enrol the pictures of the request, each file once, if `check` lets them in.

        `check` gets what is enrolled of the person, and the pictures; nobody else writes meanwhile.
        """
        service, choose = self.service, chooser(self.choose, self.at)

        def work(picture: Picture) -> Looking[Seen]:
            image = service.read(picture)
            (face,) = yield from service.describe(image, [choose(service.detect(image), image)])
            return Seen(picture, image, [usable(face, picture.name, self.min_quality)])

        seen = await service.look(work, await pictures_of(self.request, service))

        def write() -> tuple[list[Template], list[Seen]]:
            with service.galleries.change(self.gallery) as opened:
                opened.require(service.recognizer.contract)
                present = _templates(opened, self.subject)
                require_state(self.if_match, present)
                check(present, seen)
                known = {_digest_of(template) for template in present}
                new = {one.picture.digest: one for one in seen if one.picture.digest not in known}
                fresh = list(new.values())
                opened.add([_entry(self.subject, one) for one in fresh])
                templates = opened.templates(self.subject)
            if fresh:
                service.audit("enrol", self.key, self.gallery, self.subject, len(fresh))
            return templates, fresh

        templates, fresh = await service.stored(write)
        self.response.headers["ETag"] = etag(templates)
        self.response.status_code = 201 if fresh else 200
        return m.Enrolment(
            **_subject(self.subject, templates), images=[_enrolled(one, fresh) for one in seen]
        )


@dataclass(frozen=True)
class Moving:
    """What both ways to move the templates of a person to another name are asked with."""

    request: Request
    response: Response
    gallery: GalleryName
    subject: SubjectName
    key: Writer
    service: Serving
    if_match: IfMatch = None

    async def move(self, action: Literal["rename", "merge"]) -> m.SubjectReply:
        """To a name that nobody has ("rename"), or that somebody has ("merge")."""
        service, gallery = self.service, self.gallery
        new = (await json_of(self.request, service, m.NewName)).subject
        check_name(new, "person")

        def write() -> list[Template]:
            with service.galleries.change(gallery) as opened:
                require_state(self.if_match, opened.templates(self.subject))
                if action == "merge":
                    opened.templates(new)
                elif new != self.subject and _templates(opened, new):
                    raise Conflict("somebody has this name; merge makes the two one")
                count = opened.rename(self.subject, new, merge=action == "merge")
                service.reviews.rename(gallery, self.subject, new)
                service.audit(action, self.key, gallery, self.subject, count, new)
                return opened.templates(new)

        templates = await service.stored(write)
        self.response.headers["ETag"] = etag(templates)
        return m.SubjectReply(**_subject(new, templates))


Asked = Annotated[Enrolling, Depends()]


@router.put(
    "/v1/galleries/{gallery}/subjects/{subject}",
    openapi_extra=PICTURES,
    responses={201: {"model": m.Enrolment}},
)
async def put_subject(asked: Asked) -> m.Enrolment:
    """Enrol a new person with exactly these pictures. Sent again, it changes nothing.

    A person who is enrolled with other pictures is a conflict: add to them by POST to `images`,
    or DELETE them first. All pictures are enrolled or none.
    """

    def check(present: Sequence[Template], seen: Sequence[Seen]) -> None:
        others = {_digest_of(t) for t in present} ^ {one.picture.digest for one in seen}
        if present and others:
            raise Conflict("this person is enrolled with other pictures")

    return await asked.enrol(check)


@router.post(
    "/v1/galleries/{gallery}/subjects/{subject}/images",
    openapi_extra=PICTURES,
    responses={201: {"model": m.Enrolment}},
)
async def add_images(asked: Asked) -> m.Enrolment:
    """Add pictures of a person, new or enrolled already. All are enrolled or none.

    A file that is enrolled for this person already is not added again.
    """
    return await asked.enrol(lambda present, seen: None)


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
            require_state(if_match, opened.templates(subject))
            erased = _erase(opened, subject)
            service.reviews.forget(gallery, subject)
        service.audit("erase", key, gallery, subject, erased.templates)
        return erased

    return await service.stored(work)


@router.delete("/v1/galleries/{gallery}/subjects/{subject}/templates/{template}")
async def erase_template(
    gallery: GalleryName,
    subject: SubjectName,
    template: Annotated[int, Path(ge=1, le=2**63 - 1)],
    key: Writer,
    service: Serving,
    if_match: IfMatch = None,
) -> m.Erased:
    """Erase one template of a person, and with the last of them the person."""

    def work() -> m.Erased:
        with service.galleries.change(gallery) as opened:
            present = opened.templates(subject)
            require_state(if_match, present)
            if template not in [one.id for one in present]:
                raise UnknownTemplate(f"this person has no template {template}")
            erased = _erase(opened, subject, [template])
        service.audit("erase", key, gallery, subject, erased.templates)
        return erased

    return await service.stored(work)


@router.post(
    "/v1/galleries/{gallery}/subjects/{subject}/rename", openapi_extra=json_body(m.NewName)
)
async def rename_subject(moving: Annotated[Moving, Depends()]) -> m.SubjectReply:
    """Give a person another name. Nothing of the old one is left; a taken name is a conflict."""
    return await moving.move("rename")


@router.post("/v1/galleries/{gallery}/subjects/{subject}/merge", openapi_extra=json_body(m.NewName))
async def merge_subject(moving: Annotated[Moving, Depends()]) -> m.SubjectReply:
    """Make a person part of another, who is enrolled already: two names were one person."""
    return await moving.move("merge")


def _templates(gallery: Gallery, subject: str) -> list[Template]:
    try:
        return gallery.templates(subject)
    except UnknownSubject:
        return []


def _erase(gallery: Gallery, subject: str, templates: list[int] | None = None) -> m.Erased:
    """Erase, with a receipt where the store signs them."""
    receipt = None
    if isinstance(gallery.store, SqliteStore):
        signed = gallery.store.erase(subject, templates)
        count, receipt = signed.templates, m.Receipt(**asdict(signed))
    else:
        count = gallery.remove(subject, templates)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return m.Erased(subject=subject, templates=count, erased=now, receipt=receipt)


def _entry(subject: str, seen: Seen) -> Entry:
    (face,) = seen.faces
    source = f"{seen.picture.name} sha256:{seen.picture.digest}"
    return Entry(subject, face.embedding, source, face.quality.value)


def _enrolled(seen: Seen, fresh: list[Seen]) -> m.EnrolledImage:
    quality = seen.faces[0].quality
    return m.EnrolledImage(
        image=seen.picture.name,
        status="enrolled" if any(seen is one for one in fresh) else "present",
        quality=m.FaceQuality(value=quality.value, reasons=list(quality.reasons)),
    )


def _digest_of(template: Template) -> str:
    return template.source.rpartition(" sha256:")[2]


def etag(templates: Sequence[Template]) -> str:
    """Names the state of a person, for `If-Match`."""
    state = " ".join(f"{template.id}" for template in templates)
    return f'"{hashlib.sha256(state.encode()).hexdigest()[:16]}"'


def require_state(if_match: str | None, templates: Sequence[Template]) -> None:
    """Raise `PreconditionFailed` unless `if_match` allows a change of this state."""
    if if_match is None or (if_match.strip() == "*" and templates):
        return
    if not templates or etag(templates) not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed("the person was changed meanwhile; look again, then decide")


def _subject(name: str, templates: Sequence[Template]) -> dict[str, Any]:
    return {
        "subject": name,
        "created": templates[0].created,
        "templates": [
            m.TemplateReply(id=t.id, source=t.source, quality=t.quality, created=t.created)
            for t in templates
        ],
    }
