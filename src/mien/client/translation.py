"""The library's values in the words of a server, and back."""

import numpy as np

from mien.client.wire import Json
from mien.detection import Choose, central, largest, only
from mien.errors import InputError
from mien.types import (
    Age,
    Analysis,
    Box,
    Category,
    Embedding,
    Face,
    Landmarks,
    Liveness,
    LivenessPoint,
    Pose,
    Quality,
    RecognizedFace,
    Template,
)

_CHOICES: dict[Choose, str] = {only: "only", largest: "largest", central: "central"}


def choice(choose: Choose) -> str:
    """How a server calls a policy. Raises `InputError` for one of your own."""
    if choose not in _CHOICES:
        raise InputError("a server knows mien.only, mien.largest and mien.central")
    return _CHOICES[choose]


def face_of(facts: Json) -> Face:
    """A face that was found."""
    points = np.array(facts["landmarks"], np.float32)
    return Face(Box(*facts["box"]), Landmarks(points), facts["confidence"])


def recognized(facts: Json, contract: str) -> RecognizedFace:
    """A face with its embedding, which has this contract."""
    quality = Quality(facts["quality"], tuple(facts["reasons"]))
    vector = np.array(facts["vector"], np.float32)
    return RecognizedFace(face_of(facts), quality, Embedding(vector, contract))


def analysis(facts: Json) -> Analysis:
    """What a face looks like."""
    age = facts["age"]
    labelled = {
        task: found and Category(**found)
        for task in ("gender", "expression", "ethnicity")
        for found in [facts[task]]
    }
    return Analysis(
        face_of(facts),
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


def templates_of(person: Json) -> list[Template]:
    """What is enrolled of a person."""
    return [
        Template(t["id"], person["subject"], t["source"], t["quality"], t["created"])
        for t in person["templates"]
    ]
