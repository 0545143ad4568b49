"""What can be asked of a gallery, whose name is the first argument: each an `Operation`."""

from collections.abc import Collection, Iterable, Sequence
from urllib.parse import quote

from mien.client.translation import choice, face_of, templates_of
from mien.client.values import Review
from mien.client.wire import Operation, Query, Request
from mien.detection import Choose, only
from mien.embedding import require_contract
from mien.gallery import MIN_QUALITY, Stats, Subject
from mien.images import Source, listed
from mien.types import Embedding, Identification, Match, OperatingPoint, Quality, Template


def at(gallery: str, *parts: str | int) -> str:
    """An address in a gallery."""
    return "/".join(["/v1/galleries", *(quote(str(part), safe="") for part in (gallery, *parts))])


def _people(gallery: str, subject: str, *parts: str | int) -> str:
    return at(gallery, "subjects", subject, *parts)


def create(gallery: str) -> Operation[bool]:
    """Make the gallery; False when it was there already."""
    before = yield Request("GET", "/v1/galleries")
    yield Request("PUT", at(gallery))
    return gallery not in before["galleries"]


def delete(gallery: str) -> Operation[None]:
    """Delete the gallery with everyone in it."""
    yield Request("DELETE", at(gallery))


def stats(gallery: str) -> Operation[Stats]:
    """Sizes and contract of the gallery."""
    reply = yield Request("GET", at(gallery))
    sizes = [reply[name] for name in ("subjects", "templates", "dimensions", "bytes", "contract")]
    return Stats(gallery, *sizes)


def enroll(
    gallery: str,
    subject: str,
    sources: Source | Iterable[Source],
    *,
    choose: Choose = only,
    min_quality: float = MIN_QUALITY,
) -> Operation[list[Template]]:
    """Add pictures of a person: everything enrolled of them, on the server's disk.

    All or nothing. A file that is enrolled for this person already is not added again. Raises
    `NoFaceFound`, `SeveralFacesFound`, `LowQuality`, `UnreadableImage`, `ContractMismatch`.
    """
    query: Query = {"choose": choice(choose), "min_quality": min_quality}
    path = _people(gallery, subject, "images")
    reply = yield Request("POST", path, query, listed(sources))
    return templates_of(reply)


def enroll_new(
    gallery: str,
    subject: str,
    sources: Source | Iterable[Source],
    *,
    choose: Choose = only,
    min_quality: float = MIN_QUALITY,
) -> Operation[list[Template]]:
    """`enroll` for somebody who is not enrolled yet; asked again it changes nothing.

    Somebody who is enrolled with other pictures raises `ServerRefused`, with the problem
    "Conflict".
    """
    query: Query = {"choose": choice(choose), "min_quality": min_quality}
    reply = yield Request("PUT", _people(gallery, subject), query, listed(sources))
    return templates_of(reply)


def enroll_negatives(
    gallery: str,
    subject: str,
    sources: Source | Iterable[Source],
    *,
    choose: Choose = only,
    min_quality: float = MIN_QUALITY,
) -> Operation[int]:
    """Say who a person is not: faces closer to these than to the person's own no longer match.

    Returns how many were added; all or nothing. Raises `UnknownSubject` and what `enroll` raises.
    """
    query: Query = {"choose": choice(choose), "min_quality": min_quality}
    path = _people(gallery, subject, "negatives")
    reply = yield Request("POST", path, query, listed(sources), again=False)
    return int(reply["added"])


def identify(
    gallery: str, source: Source, *, fpir: float = 1e-2, limit: int = 5, review: bool = False
) -> Operation[list[Identification]]:
    """Who each face of a picture is among the enrolled, or nobody.

    `fpir` is the share of strangers that may be named wrongly, over the whole gallery. With
    `review` the server keeps what is borderline in its memory, for `reviews`. Raises
    `NoOperatingPoint` and what `detect` raises.
    """
    query: Query = {"fpir": fpir, "limit": limit, "review": str(review).lower()}
    reply = yield Request("POST", at(gallery, "identify"), query, [source])
    rates = [reply[name] for name in ("fmr", "fnmr", "protocol", "contract")]
    return [
        Identification(
            face_of(facts),
            facts["subject"],
            facts["score"],
            tuple(Match(c["subject"], c["template"], c["score"]) for c in facts["candidates"]),
            OperatingPoint(facts["threshold"], *rates),
            reply["fpir"],
            reply["gallery_size"],
        )
        for facts in reply["images"][0]["faces"]
    ]


def search(gallery: str, probe: Embedding, limit: int = 5) -> Operation[list[Match]]:
    """The subjects most like a probe, best first, each with its best template."""
    (found,) = yield from search_batch(gallery, [probe], limit)
    return found


def search_batch(
    gallery: str, probes: Sequence[Embedding], limit: int = 5
) -> Operation[list[list[Match]]]:
    """`search` for several probes at once. Raises `ContractMismatch`."""
    if not probes:
        return []
    for probe in probes:
        require_contract(probes[0].contract, probe.contract)
    body = {"vectors": [p.vector.tolist() for p in probes], "contract": probes[0].contract}
    reply = yield Request("POST", at(gallery, "search"), {"limit": limit}, json=body)
    return [
        [Match(one["subject"], one["template"], one["score"]) for one in found]
        for found in reply["matches"]
    ]


def subjects(gallery: str, contains: str = "") -> Operation[list[Subject]]:
    """Everyone enrolled, by name, or those whose name has `contains` in it."""
    found: list[Subject] = []
    after: str | None = ""
    while after is not None:
        query: Query = {"after": after, "limit": 1000, "contains": contains}
        page = yield Request("GET", at(gallery, "subjects"), query)
        found += [Subject(r["subject"], r["templates"], r["created"]) for r in page["subjects"]]
        after = page["next"]
    return found


def templates(gallery: str, subject: str) -> Operation[list[Template]]:
    """What is enrolled of one person. Raises `UnknownSubject`."""
    return templates_of((yield Request("GET", _people(gallery, subject))))


def remove(gallery: str, subject: str, templates: Collection[int] | None = None) -> Operation[int]:
    """Forget a person, or only some templates of theirs, by id: how many went.

    Raises `UnknownSubject`.
    """
    if templates is None:
        return int((yield Request("DELETE", _people(gallery, subject)))["templates"])
    count = 0
    for template in templates:
        path = _people(gallery, subject, "templates", template)
        count += (yield Request("DELETE", path))["templates"]
    return count


def rename(gallery: str, subject: str, new: str) -> Operation[list[Template]]:
    """Give a person a name that nobody has. Raises `UnknownSubject`."""
    path = _people(gallery, subject, "rename")
    return templates_of((yield Request("POST", path, json={"subject": new}, again=False)))


def merge(gallery: str, subject: str, into: str) -> Operation[list[Template]]:
    """Make a person part of another, who is enrolled already. Raises `UnknownSubject`."""
    path = _people(gallery, subject, "merge")
    return templates_of((yield Request("POST", path, json={"subject": into}, again=False)))


def reviews(gallery: str) -> Operation[list[Review]]:
    """Faces of which it is not sure whose they are, latest first; needs a key that may write."""
    reply = yield Request("GET", at(gallery, "reviews"))
    return [
        Review(
            facts["review"], facts["image"], face_of(facts),
            Quality(facts["quality"], tuple(facts["reasons"])), facts["subject"], facts["named"],
            facts["score"], facts["fpir_at_score"], facts["created"],
        )
        for facts in reply["reviews"]
    ]  # fmt: skip


def crop(gallery: str, review: Review) -> Operation[bytes]:
    """The face of a review, a JPEG."""
    return bytes((yield Request("GET", at(gallery, "reviews", review.id, "crop"))))


def confirm(gallery: str, review: Review, subject: str | None = None) -> Operation[int]:
    """Make a face another template of the person it was taken for, or of `subject`.

    Returns how many templates they have now. Raises `LowQuality` and `UnknownSubject`.
    """
    query: Query = {} if subject is None else {"subject": subject}
    path = at(gallery, "reviews", review.id, "confirm")
    return int((yield Request("POST", path, query, again=False))["templates"])


def reject(gallery: str, review: Review) -> Operation[None]:
    """Say that a face is not the person's: faces like it no longer get their name."""
    yield Request("POST", at(gallery, "reviews", review.id, "reject"), again=False)


def dismiss(gallery: str, review: Review) -> Operation[None]:
    """Forget a review without a decision."""
    yield Request("DELETE", at(gallery, "reviews", review.id))
