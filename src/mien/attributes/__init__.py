"""What a face looks like: quality, pose, age, gender, expression, liveness.

A task is answered by a network, and which one is data: its model card says which crop of the face
it wants, and what its outputs mean. Quality and head pose need no network and are always there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mien import cards
from mien.alignment import align
from mien.cards import ModelCard
from mien.errors import InputError, LicenceNotAccepted, ModelError
from mien.inference import open_sessions
from mien.pose import head_pose
from mien.quality import assess
from mien.types import Analysis, Answer, Face, Frame, Image
from mien.weights import is_present, require_licence

MODELS: Mapping[str, str] = {
    "age": "fairface",
    "gender": "dlib-gender-v1",
    "expression": "expression-mobilefacenet",
    "ethnicity": "fairface",
    "liveness": "minifasnet",
}
"""The network that answers a task unless another one is named."""

TASKS = ("quality", "pose", *MODELS)

UNASKED = ("age", "gender", "expression", "liveness")
"""The tasks done when none are named, as far as their models are here. Ethnicity is not among
them: what such networks sort people by is an outsider's guess from looks, not who they are."""


@runtime_checkable
class Attribute(Protocol):
    """A network that answers one or more tasks about faces."""

    @property
    def card(self) -> ModelCard: ...

    def answer(self, image: Image, faces: Sequence[Face]) -> list[dict[str, Answer]]:
        """For each face of a picture, in order: the answer to each task of the network."""
        ...


@dataclass(frozen=True)
class Analyzer:
    """Answers the tasks it was loaded for; safe to use from several threads.

    `frame` is the crop that quality is measured on. `missing` says of each task that was not
    asked for by name why it is left out.
    """

    frame: Frame
    tasks: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    missing: Mapping[str, str]

    def analyze(self, image: Image, faces: Sequence[Face]) -> list[Analysis]:
        """What each face of a picture looks like, in the order given.

        Raises `InputError` for a face whose landmarks all lie in one place.
        """
        answers: list[dict[str, Any]] = [{} for _ in faces]
        for attribute in self.attributes if faces else ():
            for known, more in zip(answers, attribute.answer(image, faces), strict=True):
                known.update({task: more[task] for task in more if task in self.tasks})
        return [
            Analysis(
                face,
                assess(face, align(image, face.landmarks, self.frame)),
                head_pose(face.landmarks),
                **known,
            )
            for face, known in zip(faces, answers, strict=True)
        ]


def load_analyzer(tasks: Iterable[str] | None = None, *, model: str = "embedded") -> Analyzer:
    """An analyzer for some of `TASKS`; None takes those of `UNASKED` whose models are here.

    `task=ID` names another network for a task than that of `MODELS`: "age=dlib-age-v1". `model`
    is the recogniser on whose crop quality is measured. Raises `InputError` for a task nobody
    knows, and for one asked for by name whose model cannot be used `UnknownModel`,
    `CorruptWeights` or `LicenceNotAccepted`: it never passes over one silently.
    """
    missing: dict[str, str] = {}
    if tasks is None:
        missing = {task: why for task in UNASKED if (why := _missing(MODELS[task]))}
        tasks = [task for task in UNASKED if task not in missing]
    wanted = _networks(tasks)
    loaded = {name: _load(cards.model_card(name)) for name in dict.fromkeys(wanted.values())}
    for task, name in wanted.items():
        _require_answer(loaded[name].card, task)
    frame = cards.bundle(model).embedder.input.frame
    if frame is None:
        raise ModelError(f"{model} has no crop that quality could be measured on")
    return Analyzer(frame, tuple(wanted), tuple(loaded.values()), missing)


def _networks(tasks: Iterable[str]) -> dict[str, str]:
    """The network of each task that needs one."""
    wanted = {}
    for name in tasks:
        task, _, card = name.partition("=")
        if task not in TASKS:
            raise InputError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
        if task in MODELS:
            wanted[task] = card or MODELS[task]
    return wanted


def _missing(name: str) -> str:
    """Why a network is not here to be used; empty when it is."""
    card = cards.model_card(name)
    try:
        require_licence(card)
    except LicenceNotAccepted as error:
        return str(error)
    return "" if is_present(card) else f"{name} is not here: 'mien models fetch {name}' brings it"


def _load(card: ModelCard) -> Attribute:
    from mien.attributes.labels import LabelNetwork
    from mien.attributes.liveness import MiniFasNet

    if card.task == "liveness":
        return MiniFasNet(card, open_sessions(card))
    if card.task == "attributes":
        return LabelNetwork(card, *open_sessions(card))
    raise ModelError(f"{card.id} answers none of {', '.join(MODELS)}: its task is {card.task}")


def _require_answer(card: ModelCard, task: str) -> None:
    known = [question.task for question in card.questions] or [card.task]
    if task not in known:
        raise InputError(f"{card.id} does not answer {task}; it answers {', '.join(known)}")
