"""What can be asked of a server, and of one of its galleries: each an `Operation`.

The first argument of those of a gallery is its name.
"""

from collections.abc import Collection, Iterable, Sequence
from urllib.parse import quote

import numpy as np

from mien.classification import Classification, Likely
from mien.client.values import Access, KnownModel, Review
from mien.client.wire import Json, Operation, Query, Request, upload
from mien.detection import Choose, central, largest, only
from mien.embedding import require_contract
from mien.errors import InputError
from mien.gallery import MIN_QUALITY, Stats, Subject
from mien.images import Source, listed
from mien.types import (
    Age,
    Analysis,
    Box,
    Category,
    Embedding,
    Face,
    Identification,
    Image,
    Landmarks,
    Liveness,
    LivenessPoint,
    Match,
    OperatingPoint,
    Pose,
    Quality,
    RecognizedFace,
    Template,
    Verification,
)

_CHOICES: dict[Choose, str] = {only: "only", largest: "largest", central: "central"}


def _choice(choose: Choose) -> str:
    if choose not in _CHOICES:
        raise InputError("a server knows mien.only, mien.largest and mien.central")
    return _CHOICES[choose]


def at(gallery: str, *parts: str | int) -> str:
    """An address in a gallery."""
    return "/".join(["/v1/galleries", *(quote(str(part), safe="") for part in (gallery, *parts))])


def _people(gallery: str, subject: str, *parts: str | int) -> str:
    return at(gallery, "subjects", subject, *parts)


def _face(facts: Json) -> Face:
    points = np.array(facts["landmarks"], np.float32)
    return Face(Box(*facts["box"]), Landmarks(points), facts["confidence"])


def _recognized(facts: Json, contract: str) -> RecognizedFace:
    quality = Quality(facts["quality"], tuple(facts["reasons"]))
    vector = np.array(facts["vector"], np.float32)
    return RecognizedFace(_face(facts), quality, Embedding(vector, contract))


def _analysis(facts: Json) -> Analysis:
    age = facts["age"]
    labelled = {
        task: found and Category(**found)
        for task in ("gender", "expression", "ethnicity")
        for found in [facts[task]]
    }
    return Analysis(
        _face(facts),
        Quality(facts["quality"], tuple(facts["reasons"])),
        Pose(**facts["pose"]),
        age=age and Age(**age),
        liveness=liveness_of(facts["liveness"]),
        **labelled,
    )


def liveness_of(facts: Json) -> Liveness | None:
    """What a reply says of liveness."""
    if facts is None:
        return None
    rates = [facts[name] for name in ("threshold", "apcer", "bpcer", "protocol")]
    return Liveness(facts["live"], facts["score"], LivenessPoint(*rates))


def _templates(person: Json) -> list[Template]:
    return [
        Template(t["id"], person["subject"], t["source"], t["quality"], t["created"])
        for t in person["templates"]
    ]


# ------------------------------------------------------------------------------ what can be asked


def detect(source: Source) -> Operation[list[Face]]:
    """The faces in a picture, most confident first.

    Raises `UnreadableImage` and `ImageTooLarge`.
    """
    reply = yield Request("POST", "/v1/detect", pictures=[source])
    return [_face(facts) for facts in reply["images"][0]["faces"]]


def recognize(source: Source) -> Operation[list[RecognizedFace]]:
    """Every face of a picture with its embedding, most confident first.

    Raises `UnreadableImage` and `ImageTooLarge`.
    """
    reply = yield Request("POST", "/v1/embed", pictures=[source])
    return [_recognized(facts, reply["contract"]) for facts in reply["images"][0]["faces"]]


def embed(source: Source, choose: Choose = only) -> Operation[RecognizedFace]:
    """The one face of a picture that `choose` picks, with its embedding.

    `choose` gets a picture that is black: only its size is known here. Raises `NoFaceFound` and,
    with the default policy, `SeveralFacesFound`.
    """
    name, data = upload(source)
    reply = yield Request("POST", "/v1/embed", pictures=[data])
    (seen,) = reply["images"]
    found = [_recognized(facts, reply["contract"]) for facts in seen["faces"]]
    black = np.broadcast_to(np.uint8(0), (seen["height"], seen["width"], 3))
    chosen = choose([one.face for one in found], Image(black, name))
    return next(one for one in found if one.face is chosen)


def verify(
    a: Source, b: Source, *, fmr: float = 1e-3, choose: Choose = only
) -> Operation[Verification]:
    """Whether two pictures show the same person.

    `fmr` is the share of pairs of different people that may be taken for the same one. Raises
    `NoOperatingPoint`, `NoFaceFound`, `SeveralFacesFound` and what `detect` raises.
    """
    query: Query = {"fmr": fmr, "choose": _choice(choose)}
    reply = yield Request("POST", "/v1/verify", query, [a, b])
    point = OperatingPoint(
        *(reply[name] for name in ("threshold", "fmr", "fnmr", "protocol", "contract"))
    )
    return Verification(reply["match"], reply["score"], point)


def classify(
    source: Source, head: str, *, top: int = 5, unknown: float | None = None
) -> Operation[list[tuple[Face, Classification]]]:
    """Whom each face of a picture shows, or resembles, of the people that a head knows.

    `unknown` is the share of strangers that may be given a label; without it every face gets one.
    """
    query: Query = {"limit": top, **({} if unknown is None else {"unknown": unknown})}
    reply = yield Request("POST", f"/v1/classify/{quote(head, safe='')}", query, [source])
    return [
        (
            _face(facts),
            Classification(
                facts["label"],
                facts["probability"],
                tuple(Likely(one["label"], one["probability"]) for one in facts["top"]),
            ),
        )
        for facts in reply["images"][0]["faces"]
    ]


def analyze(source: Source, tasks: Sequence[str] | None = None) -> Operation[list[Analysis]]:
    """What each face of a picture looks like: quality, pose, and the answers to `tasks`.

    A task that is named and has no model on the server raises `LicenceNotAccepted` or
    `CorruptWeights`; without `tasks` all are answered whose models are there, except ethnicity.
    """
    query: Query = {} if tasks is None else {"tasks": ",".join(tasks)}
    reply = yield Request("POST", "/v1/analyze", query, [source])
    return [_analysis(facts) for facts in reply["images"][0]["faces"]]


def group(
    sources: Sequence[Source], *, fdr: float = 0.02
) -> Operation[list[list[tuple[Face, int]]]]:
    """The faces of pictures, grouped by person: for each picture its faces and their groups.

    Groups are numbered from 0, the largest first; -1 is a face that is alone.
    """
    reply = yield Request("POST", "/v1/group", {"fdr": fdr}, list(sources))
    return [
        [(_face(facts), facts["cluster"]) for facts in picture["faces"]]
        for picture in reply["images"]
    ]


def group_faces(
    faces: Sequence[RecognizedFace], pictures: Sequence[str] | None = None, *, fdr: float = 0.02
) -> Operation[list[int]]:
    """`group` for faces that `recognize` described, of more pictures than fit in a request.

    `pictures` names the picture of each: two faces of one picture are two people. Raises
    `ContractMismatch`.
    """
    if not faces:
        return []
    for face in faces:
        require_contract(faces[0].embedding.contract, face.embedding.contract)
    body = {
        "contract": faces[0].embedding.contract,
        "vectors": [face.embedding.vector.tolist() for face in faces],
        "qualities": [face.quality.value for face in faces],
        **({} if pictures is None else {"pictures": list(pictures)}),
    }
    reply = yield Request("POST", "/v1/group/vectors", {"fdr": fdr}, json=body)
    return [int(number) for number in reply["numbers"]]


def contract() -> Operation[str]:
    """What makes the vectors of this server; vectors of two contracts are never compared."""
    reply = yield Request("GET", "/v1/models")
    return str(reply["loaded"]["contract"])


def galleries() -> Operation[list[str]]:
    """The names of the galleries that the key opens."""
    reply = yield Request("GET", "/v1/galleries")
    return list(reply["galleries"])


def models() -> Operation[list[KnownModel]]:
    """Every network that the server knows, with its licence."""
    reply = yield Request("GET", "/v1/models")
    names = ("id", "title", "task", "licence", "commercial", "present")
    return [KnownModel(*(row[name] for name in names)) for row in reply["models"]]


def heads() -> Operation[list[str]]:
    """The names of the heads that `classify` takes."""
    reply = yield Request("GET", "/v1/models")
    return [str(row["head"]) for row in reply["heads"]]


def access() -> Operation[Access]:
    """What the key may do."""
    reply = yield Request("GET", "/v1/me")
    return Access(reply["key"], reply["role"], tuple(reply["galleries"]), reply["keys"])


def alive() -> Operation[bool]:
    """True from a server that runs; anything else raises, as everywhere."""
    reply = yield Request("GET", "/healthz")
    return bool(reply["status"] == "ok")


def ready() -> Operation[bool]:
    """True from a server whose galleries can be used. Raises `GalleryUnavailable`."""
    reply = yield Request("GET", "/readyz")
    return bool(reply["status"] == "ok")


def metrics() -> Operation[str]:
    """Figures in the text format of Prometheus."""
    reply = yield Request("GET", "/metrics")
    return str(reply, "utf-8")


# ------------------------------------------------------------------ what can be asked of a gallery


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
    query: Query = {"choose": _choice(choose), "min_quality": min_quality}
    path = _people(gallery, subject, "images")
    reply = yield Request("POST", path, query, listed(sources))
    return _templates(reply)


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
    query: Query = {"choose": _choice(choose), "min_quality": min_quality}
    reply = yield Request("PUT", _people(gallery, subject), query, listed(sources))
    return _templates(reply)


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
    query: Query = {"choose": _choice(choose), "min_quality": min_quality}
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
            _face(facts),
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
    return _templates((yield Request("GET", _people(gallery, subject))))


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
    return _templates((yield Request("POST", path, json={"subject": new}, again=False)))


def merge(gallery: str, subject: str, into: str) -> Operation[list[Template]]:
    """Make a person part of another, who is enrolled already. Raises `UnknownSubject`."""
    path = _people(gallery, subject, "merge")
    return _templates((yield Request("POST", path, json={"subject": into}, again=False)))


def reviews(gallery: str) -> Operation[list[Review]]:
    """Faces of which it is not sure whose they are, latest first; needs a key that may write."""
    reply = yield Request("GET", at(gallery, "reviews"))
    return [
        Review(
            facts["review"], facts["image"], _face(facts),
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
