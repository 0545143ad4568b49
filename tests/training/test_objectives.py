"""Every loss against a loop that follows the formula of its paper, and against a known library."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mien.errors import InputError
from mien.training import objectives
from mien.training.objectives import Batch

PEOPLE, SIZE = 7, 5


def some(seed: int, count: int = 12) -> tuple[Tensor, Batch]:
    """Embeddings, labels of which some occur once, and a teacher's unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(count, SIZE, generator=generator) * 3
    labels = torch.randint(0, PEOPLE, (count,), generator=generator)
    labels[:2] = labels[2]
    targets = torch.nn.functional.normalize(torch.randn(count, SIZE, generator=generator), dim=1)
    return embeddings, Batch(labels, targets)


def made(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(1)
    return objectives.build(name, options, size=SIZE, people=PEOPLE, target=SIZE)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def cross_entropy(logits: list[float], right: int) -> float:
    return -logits[right] + math.log(sum(math.exp(value) for value in logits))


def arc(cosine: float, margin: float) -> float:
    angle = math.acos(cosine)
    if angle + margin <= math.pi:
        return math.cos(angle + margin)
    return cosine - margin * math.sin(margin)


@pytest.mark.parametrize("centres", [1, 3])
@pytest.mark.parametrize("name", ["arcface", "cosface"])
@settings(max_examples=12)
@given(seed=st.integers(0, 50))
def test_margin_losses(name: str, centres: int, seed: int) -> None:
    embeddings, batch = some(seed)
    term = made(name, scale=8.0, margin=0.3, centres=centres)
    weight = term.weight.detach().numpy().astype(np.float64)
    total = 0.0
    for row, label in zip(
        embeddings.numpy().astype(np.float64), batch.labels.tolist(), strict=True
    ):
        cosines = [max(float(unit(row) @ unit(centre)) for centre in person) for person in weight]
        right = cosines[label]
        cosines[label] = arc(right, 0.3) if name == "arcface" else right - 0.3
        total += cross_entropy([8 * cosine for cosine in cosines], label)
    assert term(embeddings, batch).item() == pytest.approx(total / len(embeddings), rel=1e-4)


def test_the_angular_margin_never_rewards_a_wider_angle() -> None:
    cosine = torch.linspace(-0.999, 0.999, 2001)
    moved = objectives.with_angular_margin(cosine, 0.5)
    assert (moved.diff() > 0).all()
    assert (moved <= cosine).all()


@settings(max_examples=12)
@given(seed=st.integers(0, 50))
def test_adaface(seed: int) -> None:
    embeddings, batch = some(seed)
    term = made("adaface", scale=8.0, margin=0.4, memory=0.25)
    norms = np.linalg.norm(embeddings.numpy().astype(np.float64), axis=1)
    mean = 0.75 * 20 + 0.25 * norms.mean()
    std = 0.75 * 100 + 0.25 * norms.std(ddof=1)
    weight = term.weight.detach().numpy()[:, 0].astype(np.float64)
    total = 0.0
    for row, norm, label in zip(embeddings.numpy(), norms, batch.labels.tolist(), strict=True):
        k = min(1.0, max(-1.0, (norm - mean) / (std + 1e-3) * 0.333))
        cosines = [float(unit(row.astype(np.float64)) @ unit(person)) for person in weight]
        cosines = [min(1 - 1e-3, max(1e-3 - 1, cosine)) for cosine in cosines]
        angle = min(math.pi - 1e-3, max(1e-3, math.acos(cosines[label]) - 0.4 * k))
        cosines[label] = math.cos(angle) - (0.4 + 0.4 * k)
        total += cross_entropy([8 * cosine for cosine in cosines], label)
    assert term(embeddings, batch).item() == pytest.approx(total / len(embeddings), rel=1e-4)


def test_a_sampled_classifier_compares_with_the_people_of_the_batch_and_some_others() -> None:
    embeddings, batch = some(3)
    torch.manual_seed(5)
    chosen = objectives.sampled_classes(batch.labels, 40, 0.5)
    assert len(chosen) == 20
    assert set(batch.labels.tolist()) <= set(chosen.tolist())
    assert (chosen.diff() > 0).all()
    term = made("cosface", scale=8.0, share=0.7)
    whole = made("cosface", scale=8.0)
    torch.manual_seed(5)
    kept = objectives.sampled_classes(batch.labels, PEOPLE, 0.7).tolist()
    total = 0.0
    cosines = (objectives.unit(embeddings) @ objectives.unit(whole.weight[:, 0]).T).tolist()
    for row, label in zip(cosines, batch.labels.tolist(), strict=True):
        logits = [8 * (row[c] - 0.35 * (c == label)) for c in kept]
        total += cross_entropy(logits, kept.index(label))
    torch.manual_seed(5)
    loss = term(embeddings, batch)
    assert loss.item() == pytest.approx(total / len(embeddings), rel=1e-4)
    loss.backward()
    outside = sorted(set(range(PEOPLE)) - set(kept))
    assert not outside or not term.weight.grad[outside].any()


@settings(max_examples=12)
@given(seed=st.integers(0, 50))
def test_contrastive(seed: int) -> None:
    embeddings, batch = some(seed)
    rows = [unit(row) for row in embeddings.numpy().astype(np.float64)]
    labels = batch.labels.tolist()
    total = 0.0
    for i in range(0, len(rows), 2):
        distance = float(np.linalg.norm(rows[i] - rows[i + 1]))
        same = labels[i] == labels[i + 1]
        total += distance**2 if same else max(0.0, 1.2 - distance) ** 2
    loss = made("contrastive", margin=1.2)(embeddings, batch).item()
    assert loss == pytest.approx(total / (len(rows) / 2), rel=1e-4, abs=1e-6)


@settings(max_examples=12)
@given(seed=st.integers(0, 50))
def test_triplets(seed: int) -> None:
    embeddings, batch = some(seed)
    rows = [unit(row) for row in embeddings.numpy().astype(np.float64)]
    labels = batch.labels.tolist()

    def gap(a: int, b: int) -> float:
        return float(((rows[a] - rows[b]) ** 2).sum())

    count = range(len(rows))
    offline = [max(0.0, gap(i, i + 1) - gap(i, i + 2) + 0.2) for i in range(0, len(rows), 3)]
    assert made("triplet")(embeddings, batch).item() == pytest.approx(
        np.mean(offline), rel=1e-4, abs=1e-6
    )
    semi, hard = [], []
    for a in count:
        positives = [p for p in count if p != a and labels[p] == labels[a]]
        negatives = [n for n in count if labels[n] != labels[a]]
        if not positives or not negatives:
            continue
        for p in positives:
            beyond = [gap(a, n) for n in negatives if gap(a, n) > gap(a, p)]
            chosen = min(beyond) if beyond else max(gap(a, n) for n in negatives)
            semi.append(max(0.0, gap(a, p) - chosen + 0.2))
        far = max(math.sqrt(gap(a, p)) for p in positives)
        near = min(math.sqrt(gap(a, n)) for n in negatives)
        hard.append(math.log1p(math.exp(far - near)))
    assert made("triplet-semi-hard")(embeddings, batch).item() == pytest.approx(
        np.mean(semi), rel=1e-3, abs=1e-5
    )
    assert made("triplet-batch-hard")(embeddings, batch).item() == pytest.approx(
        np.mean(hard), rel=1e-4
    )


@settings(max_examples=12)
@given(seed=st.integers(0, 50))
def test_supervised_contrastive(seed: int) -> None:
    embeddings, batch = some(seed)
    rows = [unit(row) for row in embeddings.numpy().astype(np.float64)]
    labels = batch.labels.tolist()
    terms = []
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        total = sum(math.exp(row @ rows[j] / 0.5) for j in others)
        if positives:
            shares = [math.log(math.exp(row @ rows[j] / 0.5) / total) for j in positives]
            terms.append(-float(np.mean(shares)))
    loss = made("supervised-contrastive", temperature=0.5)(embeddings, batch).item()
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)


@settings(max_examples=12)
@given(seed=st.integers(0, 50))
def test_distillation(seed: int) -> None:
    embeddings, batch = some(seed)
    assert batch.targets is not None
    mine = [unit(row) for row in embeddings.numpy().astype(np.float64)]
    theirs = batch.targets.numpy().astype(np.float64)
    count = len(mine)
    cosine = np.mean([1 - a @ b for a, b in zip(mine, theirs, strict=True)])
    assert made("distil")(embeddings, batch).item() == pytest.approx(cosine, rel=1e-4)
    feature = np.mean(
        [((a - b) ** 2).sum() for a, b in zip(embeddings.numpy(), theirs, strict=True)]
    )
    assert made("distil-feature")(embeddings, batch).item() == pytest.approx(feature, rel=1e-4)
    gaps = [
        (mine[i] @ mine[j] - theirs[i] @ theirs[j]) ** 2
        for i in range(count) for j in range(count) if i != j
    ]  # fmt: skip
    relations = made("distil-relations", scale=2.0)(embeddings, batch).item()
    assert relations == pytest.approx(2 * np.mean(gaps), rel=1e-3)


def test_softmax_is_the_linear_layer_and_its_cross_entropy() -> None:
    embeddings, batch = some(0)
    term = made("softmax", smoothing=0.1)
    logits = embeddings @ term.linear.weight.T + term.linear.bias
    expected = 0.0
    for row, label in zip(logits.tolist(), batch.labels.tolist(), strict=True):
        wrong = np.mean([cross_entropy(row, other) for other in range(PEOPLE)])
        expected += 0.9 * cross_entropy(row, label) + 0.1 * float(wrong)
    assert term(embeddings, batch).item() == pytest.approx(expected / len(logits), rel=1e-4)


@pytest.mark.parametrize("name", objectives.NAMES)
def test_every_objective_pulls_the_embeddings_and_has_finite_slopes(name: str) -> None:
    embeddings, batch = some(2)
    embeddings[1] = embeddings[0]  # a crop seen twice: distance zero
    embeddings.requires_grad_()
    made(name)(embeddings, batch).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert embeddings.grad.any()


@pytest.mark.parametrize("name", ["triplet-semi-hard", "triplet-batch-hard"])
def test_a_batch_without_two_of_a_person_teaches_nothing_and_breaks_nothing(name: str) -> None:
    embeddings = torch.randn(4, SIZE, requires_grad=True)
    loss = made(name)(embeddings, Batch(torch.arange(4)))
    loss.backward()
    assert loss.item() == 0
    assert not embeddings.grad.any()


def test_unknown_names_options_and_a_missing_teacher_are_refused() -> None:
    with pytest.raises(InputError, match="there is no objective 'arcfce'; there are"):
        made("arcfce")
    with pytest.raises(InputError, match=r"objective arcface: .*margn"):
        made("arcface", margn=1)
    with pytest.raises(InputError, match="needs a teacher"):
        objectives.build("distil", {}, size=4, people=2, target=None)
    with pytest.raises(InputError, match=r"share in \(0, 1\]"):
        made("arcface", share=0.0)


def test_parity_with_pytorch_metric_learning() -> None:
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses, miners, reducers

    embeddings, batch = some(7, 24)
    labels = batch.labels
    for name, theirs, options in (
        (
            "arcface",
            losses.ArcFaceLoss(PEOPLE, SIZE, margin=math.degrees(0.3), scale=8),
            {"margin": 0.3},
        ),
        ("cosface", losses.CosFaceLoss(PEOPLE, SIZE, margin=0.3, scale=8), {"margin": 0.3}),
    ):
        mine = made(name, scale=8.0, **options)
        with torch.no_grad():
            theirs.W.copy_(mine.weight[:, 0].T)
        assert mine(embeddings, batch).item() == pytest.approx(
            theirs(embeddings, labels).item(), rel=1e-4
        )
    mine = made("arcface", scale=8.0, margin=0.3, centres=3)
    other = losses.SubCenterArcFaceLoss(
        num_classes=PEOPLE, embedding_size=SIZE, margin=math.degrees(0.3), scale=8, sub_centers=3
    )
    with torch.no_grad():
        other.W.copy_(mine.weight.flatten(0, 1).T)
    assert mine(embeddings, batch).item() == pytest.approx(
        other(embeddings, labels).item(), rel=1e-4
    )
    contrast = losses.SupConLoss(temperature=0.5)(embeddings, labels)
    own = made("supervised-contrastive", temperature=0.5)(embeddings, batch)
    assert own.item() == pytest.approx(contrast.item(), rel=1e-4)
    mined = miners.BatchHardMiner()(embeddings, labels)
    hard = losses.TripletMarginLoss(margin=0.2, reducer=reducers.MeanReducer())
    own = made("triplet-batch-hard", margin=0.2)(embeddings, batch)
    assert own.item() == pytest.approx(hard(embeddings, labels, mined).item(), rel=1e-4)
