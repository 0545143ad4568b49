"""What a network is trained to do: losses over the embeddings of one batch.

Each objective is a module: `objective(embeddings, batch)` is one number, where `embeddings` (n, d)
are as the network gave them, not normalised, float32. Those with a classifier keep its weights as
parameters, which are trained beside the network and thrown away after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mien.errors import InputError


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """What is known of the faces of a batch: `labels` (n,) number the people, `targets` (n, t)
    are the teacher's unit vectors, or None."""

    labels: Tensor
    targets: Tensor | None = None


def unit(vectors: Tensor) -> Tensor:
    """Rows (n, d) of length one."""
    return functional.normalize(vectors.float(), dim=1)


# ------------------------------------------------------------------------------------ classifiers


class Softmax(nn.Module):
    """Classification of people by a linear layer, which is dropped afterwards."""

    def __init__(self, size: int, people: int, *, smoothing: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(size, people)
        self.smoothing = smoothing

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        logits = self.linear(embeddings.float())
        return functional.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)


class AngularClassifier(nn.Module):
    """The part common to margin losses: cosines to unit class centres.

    `centres` above 1 keeps several centres a person, of which the nearest counts (Deng and others,
    "Sub-center ArcFace", 2020): pictures with a wrong name find a centre of their own. `share`
    below 1 compares with the people of the batch and a random part of the others (An and others,
    "Partial FC", 2021), for which memory and time do not grow with the number of people.
    """

    def __init__(
        self, size: int, people: int, scale: float, centres: int, share: float, smoothing: float
    ) -> None:
        super().__init__()
        if centres < 1 or not 0 < share <= 1:
            raise InputError(f"centres is at least 1 and share in (0, 1], got {centres}, {share:g}")
        self.scale, self.centres, self.share, self.smoothing = scale, centres, share, smoothing
        self.people = people
        self.weight = nn.Parameter(torch.empty(people, centres, size))
        nn.init.normal_(self.weight, std=0.01)

    def cosines(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines (n, classes) to the classes that count, and the labels among those."""
        weight = self.weight
        if self.share < 1:
            chosen = sampled_classes(labels, self.people, self.share)
            labels = torch.searchsorted(chosen, labels)
            weight = weight[chosen]
        centres = functional.normalize(weight.float(), dim=2).flatten(0, 1)
        cosines = (unit(embeddings) @ centres.T).unflatten(1, (-1, self.centres))
        return cosines.amax(2), labels

    def classify(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of scaled logits (n, classes)."""
        return functional.cross_entropy(logits * self.scale, labels, label_smoothing=self.smoothing)


def sampled_classes(labels: Tensor, people: int, share: float) -> Tensor:
    """The classes of the batch and random others, `share` of all in number, ascending."""
    present = labels.unique()
    count = max(len(present), round(share * people))
    order = torch.rand(people, device=labels.device)
    order[present] = 2.0  # before all others
    return order.topk(count).indices.sort().values


class ArcFace(AngularClassifier):
    """cos(angle + margin) for the right person (Deng and others, "ArcFace", 2019).

    Where angle + margin passes pi, the straight continuation cos(angle) - margin sin(margin) is
    used, as the authors' code does, so that the logit never rises again.
    """

    def __init__(
        self, size: int, people: int, *, scale: float = 64.0, margin: float = 0.5,
        centres: int = 1, share: float = 1.0, smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(size, people, scale, centres, share, smoothing)
        self.margin = margin

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        cosines, labels = self.cosines(embeddings, batch.labels)
        right = cosines.gather(1, labels[:, None])
        return self.classify(
            cosines.scatter(1, labels[:, None], with_angular_margin(right, self.margin)), labels
        )


def with_angular_margin(cosine: Tensor, margin: float | Tensor) -> Tensor:
    """cos(arccos(cosine) + margin), continued monotonically where the angle would pass pi."""
    m = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    sine = (1 - cosine.square()).clamp_min(1e-12).sqrt()
    moved = cosine * torch.cos(m) - sine * torch.sin(m)
    return torch.where(cosine > -torch.cos(m), moved, cosine - m * torch.sin(m))


class CosFace(AngularClassifier):
    """cosine - margin for the right person (Wang and others, "CosFace", 2018)."""

    def __init__(
        self, size: int, people: int, *, scale: float = 64.0, margin: float = 0.35,
        centres: int = 1, share: float = 1.0, smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(size, people, scale, centres, share, smoothing)
        self.margin = margin

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        cosines, labels = self.cosines(embeddings, batch.labels)
        margins = torch.zeros_like(cosines).scatter(1, labels[:, None], self.margin)
        return self.classify(cosines - margins, labels)


class AdaFace(AngularClassifier):
    """A margin that follows the length of the embedding, which stands for the picture's quality.

    Kim, Jain, Liu, "AdaFace" (2022), equations 9 to 13: with the length standardised over the
    recent batches and clipped, k in [-1, 1], the angular margin is -m k and the additive one
    m k + m. `concentration` is h, `memory` the share of the new batch in the running statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int, people: int, *, scale: float = 64.0, margin: float = 0.4,
        concentration: float = 0.333, memory: float = 0.01,
        centres: int = 1, share: float = 1.0, smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(size, people, scale, centres, share, smoothing)
        self.margin, self.concentration, self.memory = margin, concentration, memory
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("std", torch.tensor(100.0))

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        norms = embeddings.detach().float().norm(dim=1).clamp(0.001, 100)
        if self.training:
            self.mean.lerp_(norms.mean(), self.memory)
            self.std.lerp_(norms.std(), self.memory)
        k = ((norms - self.mean) / (self.std + 1e-3) * self.concentration).clamp(-1, 1)
        cosines, labels = self.cosines(embeddings, batch.labels)
        cosines = cosines.clamp(-1 + 1e-3, 1 - 1e-3)
        angle = cosines.gather(1, labels[:, None]).arccos() - self.margin * k[:, None]
        right = angle.clamp(1e-3, torch.pi - 1e-3).cos() - self.margin * (1 + k[:, None])
        return self.classify(cosines.scatter(1, labels[:, None], right), labels)


# --------------------------------------------------------------------------- pairs and triplets


class Contrastive(nn.Module):
    """Rows 2i and 2i + 1 are a pair: d^2 for one person, max(0, margin - d)^2 for two.

    d is the Euclidean distance of the unit vectors, in [0, 2] (Hadsell, Chopra, LeCun, 2006).
    """

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        vectors = unit(embeddings)
        distance = apart(vectors[0::2], vectors[1::2])
        same = batch.labels[0::2] == batch.labels[1::2]
        short = (self.margin - distance).clamp_min(0)
        return torch.where(same, distance.square(), short.square()).mean()


class Triplet(nn.Module):
    """Rows 3i to 3i + 2 are anchor, positive, negative: max(0, d+^2 - d-^2 + margin).

    Schroff, Kalenichenko, Philbin, "FaceNet" (2015), on unit vectors.
    """

    def __init__(self, *, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        anchor, positive, negative = unit(embeddings).unflatten(0, (-1, 3)).unbind(1)
        gap = (anchor - positive).square().sum(1) - (anchor - negative).square().sum(1)
        return (gap + self.margin).clamp_min(0).mean()


class SemiHardTriplet(nn.Module):
    """Every genuine pair of the batch with the nearest negative that is farther than its positive.

    Where there is none, with the farthest of all (Schroff and others, 2015, section 3.2, as it is
    commonly completed). Distances are squared, on unit vectors.
    """

    def __init__(self, *, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        squared = 2 - 2 * (vectors := unit(embeddings)) @ vectors.T
        same, other = relations(batch.labels)
        anchor, positive = same.nonzero(as_tuple=True)
        usable = other[anchor].any(1)
        anchor, positive = anchor[usable], positive[usable]
        if not len(anchor):
            return embeddings.sum() * 0.0
        near = squared[anchor, positive]
        candidates = squared[anchor].masked_fill(~other[anchor], torch.inf)
        beyond = candidates.masked_fill(candidates <= near[:, None], torch.inf).amin(1)
        farthest = candidates.masked_fill(~other[anchor], -torch.inf).amax(1)
        negative = torch.where(beyond.isinf(), farthest, beyond)
        return (near - negative + self.margin).clamp_min(0).mean()


class BatchHardTriplet(nn.Module):
    """Each face with its farthest positive and its nearest negative of the batch.

    Hermans, Beyer, Leibe, "In defense of the triplet loss" (2017), on Euclidean distances of unit
    vectors; `margin` 0 stands for their soft margin log(1 + exp(d+ - d-)).
    """

    def __init__(self, *, margin: float = 0.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        vectors = unit(embeddings)
        distance = apart(vectors[:, None], vectors[None])
        same, other = relations(batch.labels)
        usable = same.any(1) & other.any(1)
        if not usable.any():
            return embeddings.sum() * 0.0
        positive = distance.masked_fill(~same, -torch.inf).amax(1)[usable]
        negative = distance.masked_fill(~other, torch.inf).amin(1)[usable]
        gap = positive - negative
        loss = (gap + self.margin).clamp_min(0) if self.margin else functional.softplus(gap)
        return loss.mean()


class SupervisedContrastive(nn.Module):
    """Each face's others of the person against all of the batch, as a softmax over cosines.

    Khosla and others, "Supervised contrastive learning" (2020), equation 2. Faces that are alone
    of their person in the batch count only as negatives.
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        vectors = unit(embeddings)
        logits = vectors @ vectors.T / self.temperature
        itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        log_share = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
        same, _ = relations(batch.labels)
        count = same.sum(1)
        if not count.any():
            return embeddings.sum() * 0.0
        mean = (log_share * same).sum(1) / count.clamp_min(1)
        return -mean[count > 0].mean()


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances along the last axis, with a finite slope where they vanish."""
    return (a - b).square().sum(-1).clamp_min(1e-12).sqrt()


def relations(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs (n, n) are two faces of one person, and which of two people."""
    equal = labels[:, None] == labels[None]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return equal & ~itself, ~equal


# ----------------------------------------------------------------------------------- distillation


class Distil(nn.Module):
    """1 - cosine between the embedding and the teacher's of the same face.

    Where sizes differ a linear map, trained beside the network, carries the one to the other.
    """

    def __init__(self, size: int, target: int) -> None:
        super().__init__()
        self.map = nn.Identity() if size == target else nn.Linear(size, target, bias=False)

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return 1 - (unit(self.map(embeddings.float())) * needed(batch)).sum(1).mean()


class DistilFeature(nn.Module):
    """Squared distance between the embedding, its length included, and the teacher's vector."""

    def __init__(self, size: int, target: int) -> None:
        super().__init__()
        self.map = nn.Identity() if size == target else nn.Linear(size, target, bias=False)

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return (self.map(embeddings.float()) - needed(batch)).square().sum(1).mean()


class DistilRelations(nn.Module):
    """Squared difference between the cosines of all pairs of the batch and the teacher's.

    The distance-wise relational distillation of Park and others (2019), with cosines for
    distances: they are what is compared in use. `scale` brings it to the size of `distil`.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, embeddings: Tensor, batch: Batch) -> Tensor:
        mine, theirs = unit(embeddings), needed(batch)
        gap = (mine @ mine.T - theirs @ theirs.T).square()
        count = len(mine)
        return self.scale * gap.sum() / (count * max(1, count - 1))  # the diagonal is zero


def needed(batch: Batch) -> Tensor:
    """The teacher's vectors of a batch. Raises `InputError` where there is no teacher."""
    if batch.targets is None:
        raise InputError("distillation needs a teacher: add [teacher] to the recipe")
    return batch.targets


# ------------------------------------------------------------------------------------- by name

CLASSIFIERS: dict[str, type[nn.Module]] = {
    "softmax": Softmax,
    "arcface": ArcFace,
    "cosface": CosFace,
    "adaface": AdaFace,
}
METRICS: dict[str, type[nn.Module]] = {
    "contrastive": Contrastive,
    "triplet": Triplet,
    "triplet-semi-hard": SemiHardTriplet,
    "triplet-batch-hard": BatchHardTriplet,
    "supervised-contrastive": SupervisedContrastive,
    "distil-relations": DistilRelations,
}
DISTILLERS: dict[str, type[nn.Module]] = {"distil": Distil, "distil-feature": DistilFeature}
NAMES = (*CLASSIFIERS, *METRICS, *DISTILLERS)


def build(
    name: str, options: Mapping[str, Any], *, size: int, people: int, target: int | None
) -> nn.Module:
    """An objective by its name, for embeddings of `size`, `people` classes and a teacher's vectors
    of length `target`. Raises `InputError`."""
    try:
        if name in CLASSIFIERS:
            return CLASSIFIERS[name](size, people, **options)
        if name in METRICS:
            return METRICS[name](**options)
        if name in DISTILLERS:
            if target is None:
                raise InputError(f"{name} needs a teacher: add [teacher] to the recipe")
            return DISTILLERS[name](size, target, **options)
    except TypeError as error:
        raise InputError(f"objective {name}: {error}") from error
    raise InputError(f"there is no objective {name!r}; there are {', '.join(NAMES)}")
