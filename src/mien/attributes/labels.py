"""Gender, expression, ethnicity: networks that give each label of a list a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.alignment import align
from mien.attributes.age import age
from mien.cards import ModelCard
from mien.errors import ModelError
from mien.inference import Session, to_batch
from mien.types import Answer, Category, Face, Image


@dataclass(frozen=True)
class LabelNetwork:
    """A network on aligned crops; each of its outputs is (n, labels), before the softmax."""

    card: ModelCard
    session: Session

    def answer(self, image: Image, faces: Sequence[Face]) -> list[dict[str, Answer]]:
        """See `Attribute`. Raises as `shares`."""
        answers: list[dict[str, Answer]] = [{} for _ in faces]
        for question, rows in zip(self.card.questions, self.shares(image, faces), strict=True):
            for answer, row in zip(answers, rows, strict=True):
                shares = dict(zip(question.labels, row.tolist(), strict=True))
                answer[question.task] = age(shares) if question.task == "age" else category(shares)
        return answers

    def shares(self, image: Image, faces: Sequence[Face]) -> list[NDArray[np.float64]]:
        """For each question of the card the shares of its labels, (n, labels).

        Raises `ModelError` where the outputs are not those of the card.
        """
        frame = self.card.input.frame
        if frame is None:
            raise ModelError(f"the card of {self.card.id} does not say which crop it wants")
        crops = np.stack([align(image, face.landmarks, frame).pixels for face in faces])
        outputs = self.session(to_batch(self.card.input, crops))
        questions = self.card.questions
        shapes = [output.shape for output in outputs]
        if shapes != [(len(faces), len(q.labels)) for q in questions]:
            raise ModelError(
                f"{self.card.id} gives outputs of {shapes} for {len(faces)} faces; its card "
                f"has {', '.join(f'{len(q.labels)} labels of {q.task}' for q in questions)}"
            )
        return [softmax(output) for output in outputs]


def category(shares: Mapping[str, float]) -> Category:
    """The label with the largest share; the first of them where several are equal."""
    label = max(shares, key=shares.__getitem__)
    return Category(label, shares[label], shares)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares (n, labels) that sum to 1 from the outputs of a classifier."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
