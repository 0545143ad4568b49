"""The routes: check who asks, decode, call the library, encode. The contract is in the OpenAPI.

A file has the routes of one thing and a `router` of its own. `access` says who may what, `pictures`
what a request brings and how a face is told.
"""

from fastapi import APIRouter

from mien.server.problems import MEDIA_TYPE
from mien.server.routes import galleries, live, recognition, search, status, subjects

router = APIRouter(
    responses={
        "default": {
            "description": "Why the request was not served (RFC 9457).",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
)
for _part in (recognition, galleries, subjects, search, live, status):
    router.include_router(_part.router)
