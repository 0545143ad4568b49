"""What can be asked of a server, and of one of its galleries: each an `Operation`.

The first argument of those of a gallery is its name.
"""

from collections.abc import Collection, Iterable, Sequence
from urllib.parse import quote

import numpy as np

from mien.classification import Classification, Likely
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


def _at(gallery: str, *parts: str | int) -> str:
    return "/".join(["/v1/galleries", *(quote(str(part), safe="") for part in (gallery, *parts))])


def _people(gallery: str, subject: str, *parts: str | int) -> str:
    return _at(gallery, "subjects", subject, *parts)


def _face(facts: Json) -> Face:
    points = np.array(facts["landmarks"], np.float32)
    return Face(Box(*facts["box"]), Landmarks(points), facts["confidence"])


def _recognized(facts: Json, contract: str) -> RecognizedFace:
    quality = Quality(facts["quality"], tuple(facts["reasons"]))
    vector = np.array(facts["vector"], np.float32)
    return RecognizedFace(_face(facts), quality, Embedding(vector, contract))


def _analysis(facts: Json) -> Analysis:
    age, live = facts["age"], facts["liveness"]
    labelled = {
        task: found and Category(**found)
        for task in ("gender", "expression", "ethnicity")
        for found in [facts[task]]
    }
    point = live and LivenessPoint(
        *(live[name] for name in ("threshold", "apcer", "bpcer", "protocol"))
    )
    return Analysis(
        _face(facts),
        Quality(facts["quality"], tuple(facts["reasons"])),
        Pose(**facts["pose"]),
        age=age and Age(**age),
        liveness=live and Liveness(live["live"], live["score"], point),
        **labelled,
    )


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


def contract() -> Operation[str]:
    """What makes the vectors of this server; vectors of two contracts are never compared."""
    reply = yield Request("GET", "/v1/models")
    return str(reply["loaded"]["contract"])


def galleries() -> Operation[list[str]]:
    """The names of the galleries that the key opens."""
    reply = yield Request("GET", "/v1/galleries")
    return list(reply["galleries"])


# ------------------------------------------------------------------ what can be asked of a gallery


def create(gallery: str) -> Operation[bool]:
    """Make the gallery; False when it was there already."""
    before = yield Request("GET", "/v1/galleries")
    yield Request("PUT", _at(gallery))
    return gallery not in before["galleries"]


def delete(gallery: str) -> Operation[None]:
    """Delete the gallery with everyone in it."""
    yield Request("DELETE", _at(gallery))


def stats(gallery: str) -> Operation[Stats]:
    """Sizes and contract of the gallery."""
    reply = yield Request("GET", _at(gallery))
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


def identify(
    gallery: str, source: Source, *, fpir: float = 1e-2, limit: int = 5
) -> Operation[list[Identification]]:
    """Who each face of a picture is among the enrolled, or nobody.

    `fpir` is the share of strangers that may be named wrongly, over the whole gallery. Raises
    `NoOperatingPoint` and what `detect` raises.
    """
    query: Query = {"fpir": fpir, "limit": limit}
    reply = yield Request("POST", _at(gallery, "identify"), query, [source])
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
    reply = yield Request("POST", _at(gallery, "search"), {"limit": limit}, json=body)
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
        page = yield Request("GET", _at(gallery, "subjects"), query)
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
