"""What can be asked of a server, about pictures and about itself: each an `Operation`."""

from collections.abc import Sequence
from urllib.parse import quote

import numpy as np

from mien.classification import Classification, Likely
from mien.client.translation import analysis, choice, face_of, recognized
from mien.client.values import Access, KnownModel
from mien.client.wire import Operation, Query, Request, upload
from mien.detection import Choose, only
from mien.embedding import require_contract
from mien.images import Source
from mien.types import Analysis, Face, Image, OperatingPoint, RecognizedFace, Verification


def detect(source: Source) -> Operation[list[Face]]:
    """The faces in a picture, most confident first.

    Raises `UnreadableImage` and `ImageTooLarge`.
    """
    reply = yield Request("POST", "/v1/detect", pictures=[source])
    return [face_of(facts) for facts in reply["images"][0]["faces"]]


def recognize(source: Source) -> Operation[list[RecognizedFace]]:
    """Every face of a picture with its embedding, most confident first.

    Raises `UnreadableImage` and `ImageTooLarge`.
    """
    reply = yield Request("POST", "/v1/embed", pictures=[source])
    return [recognized(facts, reply["contract"]) for facts in reply["images"][0]["faces"]]


def embed(source: Source, choose: Choose = only) -> Operation[RecognizedFace]:
    """The one face of a picture that `choose` picks, with its embedding.

    `choose` gets a picture that is black: only its size is known here. Raises `NoFaceFound` and,
    with the default policy, `SeveralFacesFound`.
    """
    name, data = upload(source)
    reply = yield Request("POST", "/v1/embed", pictures=[data])
    (seen,) = reply["images"]
    found = [recognized(facts, reply["contract"]) for facts in seen["faces"]]
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
    query: Query = {"fmr": fmr, "choose": choice(choose)}
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
            face_of(facts),
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
    return [analysis(facts) for facts in reply["images"][0]["faces"]]


def group(
    sources: Sequence[Source], *, fdr: float = 0.02
) -> Operation[list[list[tuple[Face, int]]]]:
    """The faces of pictures, grouped by person: for each picture its faces and their groups.

    Groups are numbered from 0, the largest first; -1 is a face that is alone.
    """
    reply = yield Request("POST", "/v1/group", {"fdr": fdr}, list(sources))
    return [
        [(face_of(facts), facts["cluster"]) for facts in picture["faces"]]
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
