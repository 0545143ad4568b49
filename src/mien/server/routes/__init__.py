"""The routes: check who asks, decode, call the library, encode. The contract is in the OpenAPI.

A file has the routes of one thing and a `router` of its own. `access` says who may what, `bodies`
what a request brings, `pictures` which face counts and how faces are told.
"""

from mien.server.routes import (
    attributes,
    galleries,
    groups,
    live,
    negatives,
    recognition,
    reviews,
    search,
    status,
    subjects,
)

PARTS = (
    search, recognition, attributes, groups, galleries, subjects, negatives, reviews, live, status,
)  # fmt: skip
"""In the order in which routes are tried: what is asked most often comes first. The routes are put
into the app itself: routers in routers are searched anew at every level."""

ROUTES = [route for part in PARTS for route in part.router.routes]
