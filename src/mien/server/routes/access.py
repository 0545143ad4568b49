"""Who may what: the parts of an address that name something, and the key that must open it."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from mien.server.galleries import check_name
from mien.server.keys import Key, Role
from mien.server.problems import MEDIA_TYPE, NotAllowed
from mien.server.service import Service


def new_router() -> APIRouter:
    """A router whose routes are described with the problem that each may answer."""
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return APIRouter(
        responses={
            "default": {
                "description": "Why the request was not served (RFC 9457).",
                "content": {MEDIA_TYPE: problem},
            }
        }
    )


# These are `async` only so that FastAPI calls them here and not in a thread each.


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]


def with_slashes(name: str) -> str:
    """A name from an address, with the slashes that `app._keep_segments_whole` hid."""
    return name.replace("\0", "/")


async def _gallery_name(gallery: Annotated[str, Path(max_length=600, examples=["staff"])]) -> str:
    return with_slashes(gallery)


async def _subject_name(subject: Annotated[str, Path(max_length=600, examples=["Ada"])]) -> str:
    name = with_slashes(subject)
    check_name(name, "person")
    return name


GalleryName = Annotated[str, Depends(_gallery_name)]
SubjectName = Annotated[str, Depends(_subject_name)]


def admit(service: Service, key: Key, role: Role, gallery: str | None) -> None:
    """Count a request of a key, and refuse it unless the key has the role and opens the gallery."""
    service.doors.knock(key.id)
    if gallery is not None and not key.opens(with_slashes(gallery)):
        raise NotAllowed("this key does not open this gallery")
    if not key.may(role):
        raise NotAllowed(f"this key may {key.role}; the request needs one that may {role}")


def allow(role: Role) -> Callable[..., AsyncIterator[Key]]:
    """A dependency that lets requests in whose key has this role and opens the gallery named."""

    async def enter(request: Request, service: Serving) -> AsyncIterator[Key]:
        key = service.who(request.headers.get("authorization"))
        request.state.key = key.id
        admit(service, key, role, request.path_params.get("gallery"))
        with service.doors.enter(key.id):
            yield key

    return enter


Reader = Annotated[Key, Depends(allow("read"))]
Writer = Annotated[Key, Depends(allow("write"))]
Admin = Annotated[Key, Depends(allow("admin"))]
