"""Fit a head on the vectors of labelled pictures, and measure it on pictures held back.

Everything that is learnt of a picture is learnt from other pictures: learners are fitted on all
folds but one and asked about that one, settings, calibration and the weights of a stack are
fitted on those answers, and the report counts answers whose weights were fitted on the other
folds (stacked generalization: Wolpert, 1992). At the end the learners are fitted once more, on all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.classification.heads import (
    Acquaintance,
    Head,
    Learner,
    Model,
    Part,
    Scores,
    Vectors,
    pool,
)
from mien.classification.learners import KINDS, STACK, Labels
from mien.classification.report import (
    Candidate,
    Report,
    Suspect,
    calibration_error,
    confusion,
)
from mien.classification.strangers import Meeting, meet
from mien.errors import InputError, MissingExtra
from mien.types import Progress, silent

_ENOUGH = 2000  # pictures to fit a few weights on


# ------------------------------------------------------------------------------------------ fitting


@dataclass(frozen=True, slots=True)
class Task:
    """One learner to be fitted and asked: on which model's vectors, of which kind, how set."""

    model: int
    kind: str
    setting: float

    def fit(self, vectors: Sequence[Vectors], labels: Labels) -> Learner:
        """The learner, from one matrix for each model and the class (n,) of each row."""
        return KINDS[self.kind].learn(vectors[self.model], labels, self.setting)


def fit(
    models: Sequence[Model],
    vectors: Sequence[Vectors],
    people: Sequence[str],
    *,
    kind: str = "stack",
    sources: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> Head:
    """Learn to tell people apart, from one matrix (n, dim) of unit vectors for each model.

    `people` (n,) names the person of each picture, `sources` (n,) the pictures in the list of
    suspects. `kind` is "knn", "logistic", "svm", "mlp", or "stack" for several of them. With
    several models each has its own learners, and their answers are weighed against each other.

    People with one picture are learnt but cannot be measured: it is never held back. Copies of a
    picture are held back together. Raises `InputError` when there is too little to learn from,
    `MissingExtra` without scikit-learn.
    """
    names, labels = np.unique(np.asarray(people, np.str_), return_inverse=True)
    labels = labels.astype(np.int64)
    _require(models, vectors, labels, kind, folds)
    fold = assign_folds(labels, _copies(vectors[0], labels), folds, seed)
    held = np.flatnonzero(fold != NEVER)
    if not held.size:
        raise InputError(
            f"each of the {len(names)} people has one picture: give at least two different "
            f"pictures of somebody, so that one can be held back to measure with"
        )
    truth, held_fold = labels[held], fold[held]
    kinds = STACK if kind == "stack" else (kind,)
    tasks = [
        Task(number, name, setting)
        for number in range(len(models))
        for name in kinds
        for setting in KINDS[name].settings
    ]
    tried: dict[tuple[int, str], _Tried] = {}
    for task in progress(tasks, len(tasks), "setting"):
        said = out_of_fold(task, vectors, labels, fold)[held]
        cost = _bits(pool([said], weigh([said], truth)), truth)
        place = task.model, task.kind
        if place not in tried or cost < tried[place].cost:
            tried[place] = _Tried(task, said, cost)
    answers = held_out([one.said for one in tried.values()], truth, held_fold)
    meeting = meet(vectors, labels, len(names))
    sources = sources or [str(row) for row in range(len(labels))]
    return Head(
        kind,
        tuple(names.tolist()),
        tuple(models),
        tuple(
            Part(one.name(models), one.task.model, one.task.fit(vectors, labels))
            for one in tried.values()
        ),
        weigh([one.said for one in tried.values()], truth),
        Acquaintance(meeting.means, meeting.middle, meeting.spread, meeting.points(kind)),
        Report(
            f"{fold.max() + 1} folds, each answered by learners fitted on the others",
            confusion(truth, answers.argmax(axis=1), len(names)),
            calibration_error(np.exp(answers.max(axis=1)), answers.argmax(axis=1) == truth),
            _bits(answers, truth),
            tuple(one.candidate(models, truth) for one in tried.values()),
            _suspects(answers, meeting, labels, held, names.tolist(), sources),
        ),
    )


def _require(
    models: Sequence[Model], vectors: Sequence[Vectors], labels: Labels, kind: str, folds: int
) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtra("fitting a head", "heads") from error
    if kind != "stack" and kind not in KINDS:
        raise InputError(f"unknown kind of head {kind!r}; known: {', '.join([*KINDS, 'stack'])}")
    if folds < 2:
        raise InputError(f"folds must be at least 2, got {folds}")
    if not models or len(models) != len(vectors):
        raise InputError(f"{len(models)} models and {len(vectors)} matrices: give one for each")
    if len({model.contract for model in models}) < len(models):
        raise InputError("two models with one contract say the same: give each once")
    for model, rows in zip(models, vectors, strict=True):
        if rows.shape != (len(labels), rows.shape[-1]) or not np.isfinite(rows).all():
            raise InputError(
                f"vectors of {model.id} must be finite, one for each of the {len(labels)} "
                f"pictures, got shape {rows.shape}"
            )
    people = len(np.unique(labels))
    if people < 2:
        raise InputError(
            f"there is nothing to tell apart: usable pictures show {people} "
            f"{'person' if people == 1 else 'people'}, and a head needs at least two"
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Tried:
    """What a task answered about pictures held back (n, classes), and what that cost in bits."""

    task: Task
    said: Scores
    cost: float

    def name(self, models: Sequence[Model]) -> str:
        return f"{models[self.task.model].id} {self.task.kind}"

    def candidate(self, models: Sequence[Model], truth: Labels) -> Candidate:
        setting = f"{KINDS[self.task.kind].setting} {self.task.setting:g}"
        right = self.said.argmax(axis=1) == truth
        return Candidate(self.name(models), setting, float(right.mean()))


# -------------------------------------------------------------------------------------------- folds


NEVER = -1


def assign_folds(labels: Labels, copies: Labels, folds: int, seed: int) -> Labels:
    """Which fold holds each picture back (n,); `NEVER` for somebody's only picture.

    Pictures with the same number in `copies` (n,) are held back together. Every person is spread
    over the folds evenly, so that each fold leaves some of their pictures to learn from.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(len(labels), NEVER, np.int64)
    dealt = 0
    for person in np.unique(labels):
        rows = np.flatnonzero(labels == person)
        _, group = np.unique(copies[rows], return_inverse=True)
        groups = int(group.max()) + 1
        if groups > 1:
            fold[rows] = ((rng.permutation(groups) + dealt) % folds)[group]
            dealt += groups
    used, numbers = np.unique(fold, return_inverse=True)
    dense: Labels = numbers.astype(np.int64) - (used[0] == NEVER)
    return dense


def _copies(vectors: Vectors, labels: Labels) -> Labels:
    """One number for all pictures of a person whose vectors are the same."""
    rows = np.column_stack([labels.astype(np.float32), np.round(vectors, 5)])
    _, number = np.unique(rows, axis=0, return_inverse=True)
    return number.reshape(-1).astype(np.int64)


def out_of_fold(task: Task, vectors: Sequence[Vectors], labels: Labels, fold: Labels) -> Scores:
    """What is said of each picture (n, classes) by a learner that has not seen it.

    Rows of pictures that are never held back are NaN.
    """
    said = np.full((len(labels), int(labels.max()) + 1), np.nan)
    for number in range(int(fold.max()) + 1):
        inside = fold == number
        learner = task.fit([rows[~inside] for rows in vectors], labels[~inside])
        said[inside] = learner.log_probabilities(vectors[task.model][inside])
    return said


# ------------------------------------------------------------------------------------------ weights


def weigh(said: Sequence[Scores], truth: Labels) -> NDArray[np.float64]:
    """The weight of each part (parts,), at least 0, that makes the truth most probable.

    `said` are their log-probabilities (n, classes) on pictures they have not seen. The truth is
    taken to be certain up to one picture in n + 2 (Platt, 1999): a few pictures without a mistake
    do not make a head infallible. As little pulls the weights towards each other.
    """
    from scipy.optimize import minimize

    doubt = 1 / (len(truth) + 2)
    step = -(-len(truth) // _ENOUGH)
    said, truth = [one[::step] for one in said], truth[::step]
    logs = np.stack(said)
    count, classes = logs.shape[1:]
    target = np.full((count, classes), doubt / classes)
    target[np.arange(count), truth] += 1 - doubt
    wanted = (target * logs).sum(axis=(1, 2)) / count

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = pool(said, weights)
        apart = weights - weights.mean()
        loss = -float((target * mixed).sum() / count) + float(apart @ apart) / count
        slope = np.einsum("nk,pnk->p", np.exp(mixed), logs) / count - wanted
        return loss, slope + 2 * apart / count

    start = np.full(len(said), 1 / len(said))
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(said))
    weights: NDArray[np.float64] = np.maximum(found.x, 0)
    return weights


def held_out(said: Sequence[Scores], truth: Labels, fold: Labels) -> Scores:
    """The log-probabilities (n, classes) of the parts together, weighed on the other folds."""
    answers = np.empty_like(said[0])
    for number in np.unique(fold):
        inside = fold == number
        others = ~inside if (~inside).any() else inside
        weights = weigh([one[others] for one in said], truth[others])
        answers[inside] = pool([one[inside] for one in said], weights)
    return answers


def _bits(answers: Scores, truth: Labels) -> float:
    return float(-answers[np.arange(len(truth)), truth].mean() / np.log(2))


# ----------------------------------------------------------------------------------------- suspects


def _suspects(
    answers: Scores, meeting: Meeting, labels: Labels, held: Labels, names: Sequence[str],
    sources: Sequence[str],
) -> tuple[Suspect, ...]:  # fmt: skip
    """Pictures that look like another person (Northcutt and others, 2021), or like nobody here.

    Another: the head gives that label a probability as high as it gives it on average to
    pictures that have it. Nobody: the picture resembles the others of its person less than half
    of all strangers resemble somebody.
    """
    stated = np.exp(answers)
    truth = labels[held]
    given = stated[np.arange(len(held)), truth]
    usual = np.array([
        given[truth == person].mean() if (truth == person).any() else 1.0
        for person in range(len(names))
    ])  # fmt: skip
    said = answers.argmax(axis=1)
    another = (said != truth) & (stated.max(axis=1) >= usual[said])
    own = meeting.own[held]
    nobody = ~another & (own < np.median(meeting.other))
    found = np.flatnonzero(another | nobody)
    return tuple(
        Suspect(
            sources[held[i]],
            names[truth[i]],
            names[said[i]] if another[i] else None,
            float(given[i]),
        )
        for i in found[np.argsort(own[found], kind="stable")]
    )
