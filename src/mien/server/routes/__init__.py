"""The routes: check who asks, decode, call the library, encode. The contract is in the OpenAPI.

A file has the routes of one thing and a `router` of its own. `access` says who may what, `bodies`
what a request brings, `pictures` which face counts and how faces are told.
"""

<<<<<<< HEAD
from fastapi import APIRouter

from mien.server.problems import MEDIA_TYPE
from mien.server.routes import (
    galleries,
    groups,
    live,
    negatives,
    recognition,
    search,
    status,
    subjects,
)

router = APIRouter(
    responses={
        "default": {
            "description": "Why the request was not served (RFC 9457).",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
)
for _part in (recognition, groups, galleries, subjects, negatives, search, live, status):
    router.include_router(_part.router)
=======
from mien.server.routes import galleries, groups, recognition, search, status, subjects

PARTS = (recognition, groups, galleries, subjects, search, status)
"""Their routes are put into the app itself: routers in routers are searched anew at every level."""

ROUTES = [route for part in PARTS for route in part.router.routes]
>>>>>>> main
