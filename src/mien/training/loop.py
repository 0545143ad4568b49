"""The training loop, from a recipe to a network, in the order in which things happen.

Everything random is drawn from the seed and the number of the epoch or step, so that a run that was
killed at any step and resumed gives the same weights to the last bit.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien import networks
from mien.errors import InputError, ModelError
from mien.evaluation.curves import auc, curve
from mien.evaluation.protocols import Ints, Pairs
from mien.evaluation.vectors import Progress
from mien.evaluation.verification import cross_validated
from mien.training import augmentation, checkpoints, objectives, parallel, sampling, teaching
from mien.training.config import Optimiser, Recipe, to_dict
from mien.training.dataset import (
    Examples,
    PackedSet,
    open_set,
    read_groups,
    read_pairs,
    rows_of,
    select,
)
from mien.training.objectives import Batch, unit

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"

Report = Callable[[dict[str, Any]], None]
"""Told the figures of each epoch."""


@dataclass
class Learner:
    """All that changes while training goes on: what a checkpoint holds."""

    network: nn.Module
    terms: nn.ModuleList
    average: nn.Module | None
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    """Processor seconds spent so far, over all processes and resumptions."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch that is under way: of losses, by name."""
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def final(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.network if self.average is None else self.average


@dataclass(frozen=True, eq=False)
class Material:
    """What is learnt from and measured on; it does not change."""

    packed: PackedSet
    examples: Examples
    groups: Ints | None
    targets: Tensor | None
    validation: tuple[PackedSet, Pairs] | None
    facts: dict[str, Any]


def fit(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    report: Report = lambda row: None,
    progress: Progress = lambda items, total, unit: iter(items),
) -> Learner:
    """Train a network as the recipe says; checkpoints, weights and curves go to `output`.

    With `resume`, go on from the checkpoint there. Under `torchrun` the processes share each
    batch. Raises `InputError` for a recipe that cannot be followed and `ModelError` when the loss
    is no longer finite: the last checkpoint then stands and `failure.json` says what was seen.
    """
    torch.set_num_threads(recipe.run.threads or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(recipe.run.deterministic)
    path = output / CHECKPOINT
    if path.exists() and not resume:
        raise InputError(f"{path} exists: go on with --resume, or name another folder with -o")
    with parallel.group() as team:
        device = team.device()
        material = prepare(recipe, progress)
        learner = build(recipe, material, device)
        if resume and path.exists():
            restore(learner, recipe, path)
        network = team.share(learner.network)
        precision = autocast(recipe, device)
        plan = sampling.plan(
            recipe.sampling, material.examples, material.groups, recipe.run.seed, 0
        )
        per_epoch, total = len(plan), len(plan) * recipe.run.epochs
        while learner.step < total and not _stalled(recipe, learner):
            epoch, done = divmod(learner.step, per_epoch)
            plan = sampling.plan(
                recipe.sampling, material.examples, material.groups, recipe.run.seed, epoch
            )
            clock, waited = time.process_time(), 0.0
            for rows, pixels, idle in _loaded(material, plan[done:], team):
                waited += idle
                rate = rate_at(recipe.optimiser, learner.step, total)
                values = step(
                    recipe, learner, network, material, rows, pixels, rate, team, precision
                )
                for name, value in values.items():
                    learner.sums[name] = learner.sums.get(name, 0.0) + value
                learner.step += 1
                ends = learner.step % per_epoch == 0
                if learner.step % recipe.run.checkpoint_every == 0 and not ends and team.first:
                    learner.seconds += time.process_time() - clock
                    clock = time.process_time()
                    save(learner, recipe, material, path)
            learner.seconds += time.process_time() - clock
            row = {"epoch": epoch + 1, "step": learner.step}
            row |= {name: round(value / per_epoch, 6) for name, value in learner.sums.items()}
            row |= {"rate": rate_at(recipe.optimiser, learner.step - 1, total)}
            row |= {"cpu_seconds": round(learner.seconds, 1), "idle_seconds": round(waited, 2)}
            if (
                material.validation
                and team.first
                and ((epoch + 1) % recipe.validation.every == 0 or learner.step == total)
            ):
                clock = time.process_time()
                row |= validate(learner.final, recipe, *material.validation, device, precision)
                row["evaluation_seconds"] = round(time.process_time() - clock, 1)
            learner.sums = {}
            learner.history.append(row)
            if team.first:
                save(learner, recipe, material, path)
                report(row)
        if team.first:
            facts = {"recipe": to_dict(recipe), **material.facts, "history": learner.history}
            checkpoints.write(output / WEIGHTS, learner.final.state_dict(), facts)
    return learner


def prepare(recipe: Recipe, progress: Progress) -> Material:
    """Open what a recipe names and check that it fits together. Raises `InputError`."""
    packed = open_set(Path(recipe.data.set))
    examples = select(packed, recipe.data, recipe.run.seed)
    groups = None
    if recipe.sampling.file:
        columns = {"pairs": ("file1", "file2"), "triplets": ("anchor", "positive", "negative")}
        named = read_groups(Path(recipe.sampling.file), packed, columns[recipe.sampling.kind])
        place = np.full(len(packed.subjects), -1, np.int64)
        place[examples.rows] = np.arange(len(examples.rows))
        groups = place[named]
        if (groups < 0).any():
            stranger = packed.sources[named[groups < 0][0]]
            raise InputError(
                f"{recipe.sampling.file} uses {stranger}, which the [data] of the recipe leaves out"
            )
    sizes = np.bincount(examples.labels)
    if sizes.max() == 1 and not any(term.name.startswith("distil") for term in recipe.objectives):
        raise InputError(
            f"each of the {len(sizes)} people of {packed.folder} has one picture: nothing shows "
            f"what stays the same in a person; add pictures, or distil from a teacher"
        )
    validation = None
    if recipe.validation.pairs:
        held = open_set(Path(recipe.validation.set)) if recipe.validation.set else packed
        pairs = read_pairs(Path(recipe.validation.pairs), held)
        seen = {held.subjects[row] for row in rows_of(pairs)} & set(examples.people)
        if seen:
            raise InputError(
                f"{len(seen)} people of {recipe.validation.pairs} are also learnt from, "
                f"{min(seen)} for one: accuracy on them would mean nothing; leave them out with "
                f"data.exclude or data.people"
            )
        validation = (held, pairs)
    facts: dict[str, Any] = {
        "pictures": len(examples.rows), "people": len(examples.people),
        "manifest_sha256": packed.digest, "packed_with": packed.contract,
    }  # fmt: skip
    targets = None
    if recipe.teacher:
        vectors, contract = teaching.targets(
            recipe.teacher, packed, examples.rows, recipe.run.threads or 1, progress
        )
        targets, facts["teacher"] = torch.from_numpy(vectors), contract
    return Material(packed, examples, groups, targets, validation, facts)


def build(recipe: Recipe, material: Material, device: torch.device) -> Learner:
    """The network, the objectives and the optimiser before the first step."""
    torch.manual_seed(recipe.run.seed)
    config = recipe.network
    options = {"size": recipe.input.size, **config.options}
    network = networks.build(config.name, config.embedding_size, **options)
    if config.start:
        networks.adopt(network, checkpoints.read_state(Path(config.start)))
    if material.targets is not None and config.embedding_size == material.targets.shape[1]:
        begin_at(network, material.targets)
    for name, parameter in network.named_parameters():
        if name.startswith(config.frozen):
            parameter.requires_grad = False
    if recipe.run.shared_batch_norm and torch.distributed.is_initialized():
        parallel.share_statistics(network)
    network = network.to(device, memory_format=torch.channels_last)
    target = None if material.targets is None else material.targets.shape[1]
    terms = nn.ModuleList(
        objectives.build(
            term.name, term.options, size=config.embedding_size,
            people=len(material.examples.people), target=target,
        )
        for term in recipe.objectives
    ).to(device)  # fmt: skip
    average = deepcopy(network).eval() if recipe.run.ema else None
    return Learner(network, terms, average, optimiser_of(recipe.optimiser, network, terms))


def begin_at(network: nn.Module, targets: Tensor) -> None:
    """Let the last normalisation of a network begin with the mean and spread of the targets.

    A teacher's vectors may all point much the same way (cosine 0.84 between strangers for dlib's):
    a network that begins there learns the differences from the first step.
    """
    last = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    if last:
        with torch.no_grad():
            last[-1].weight.copy_(targets.std(0))
            last[-1].bias.copy_(targets.mean(0))


def optimiser_of(config: Optimiser, network: nn.Module, terms: nn.Module) -> torch.optim.Optimizer:
    """Weight decay for matrices and kernels; none for what scales and shifts."""
    parameters = [p for p in (*network.parameters(), *terms.parameters()) if p.requires_grad]
    grouped = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(grouped, lr=config.rate)
    return torch.optim.SGD(grouped, lr=config.rate, momentum=config.momentum)


def rate_at(config: Optimiser, step: int, total: int) -> float:
    """The learning rate of a step: a straight rise, then half a cosine (Loshchilov, Hutter, 2017)."""
    rising = config.warm_up * total
    if step < rising:
        return config.rate * (step + 1) / (rising + 1)
    share = (step - rising) / max(1.0, total - rising)
    return config.rate * 0.5 * (1 + math.cos(math.pi * share))


def autocast(recipe: Recipe, device: torch.device) -> Callable[[], Any]:
    """What the network is computed in: bfloat16 where it pays, which "auto" finds out."""
    wanted = recipe.run.precision
    if wanted == "auto":
        cpu = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
        fast = torch.cpu._is_avx512_bf16_supported() if cpu else torch.cuda.is_bf16_supported()
        wanted = "bf16" if fast else "fp32"
    if wanted == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def step(
    recipe: Recipe,
    learner: Learner,
    network: nn.Module,
    material: Material,
    rows: Ints,
    pixels: Tensor,
    rate: float,
    team: parallel.Team,
    precision: Callable[[], Any],
) -> dict[str, float]:
    """One batch: change the faces, embed them, compare, correct the weights. Returns the losses."""
    device = next(learner.network.parameters()).device
    seed = _seed(recipe.run.seed, learner.step)
    changes = augmentation.draw(
        recipe.augmentation, recipe.input, len(rows), torch.Generator().manual_seed(seed)
    ).rows(team.part(len(rows)))
    faces = augmentation.apply(pixels.to(device), changes.to(device), recipe.input.size)
    torch.manual_seed(seed + team.rank)  # dropout: its own in each process
    with precision():
        part = network(faces.contiguous(memory_format=torch.channels_last))
    embeddings = team.whole(part.float())
    torch.manual_seed(seed)  # sampled classes: the same in all
    labels = torch.from_numpy(material.examples.labels[rows]).to(device)
    targets = None if material.targets is None else material.targets[rows].to(device)
    batch = Batch(labels, targets)
    values = {
        config.name: config.weight * term(embeddings, batch)
        for config, term in zip(recipe.objectives, learner.terms, strict=True)
    }
    loss = torch.stack(list(values.values())).sum()
    learner.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in learner.optimiser.param_groups for p in group["params"]]
    length = nn.utils.clip_grad_norm_(parameters, recipe.optimiser.clip or math.inf)
    if not (loss.isfinite() and length.isfinite()):
        raise NotFinite(learner.step, rate, {n: v.item() for n, v in values.items()}, float(length))
    for group in learner.optimiser.param_groups:
        group["lr"] = rate
    learner.optimiser.step()
    if learner.average is not None:
        follow(
            learner.average,
            learner.network,
            min(recipe.run.ema, (learner.step + 1) / (learner.step + 10)),
        )
    return {"loss": loss.item()} | (
        {name: value.item() for name, value in values.items()} if len(values) > 1 else {}
    )


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average of the weights, and of running statistics, towards the network."""
    own = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
    mean = [*average.parameters(), *(b for b in average.buffers() if b.is_floating_point())]
    torch._foreach_lerp_(mean, own, 1 - decay)


def embed_rows(
    network: nn.Module,
    packed: PackedSet,
    rows: Ints,
    recipe: Recipe,
    device: torch.device,
    precision: Callable[[], Any] = nullcontext,
) -> NDArray[np.float32]:
    """Unit vectors (n, d) of crops of a packed set, each with its mirror image."""
    was = network.training
    network.eval()
    found = []
    with torch.inference_mode(), precision():
        for start in range(0, len(rows), 64):
            pixels = torch.from_numpy(packed.pixels[rows[start : start + 64]]).to(device)
            both = 0
            for mirror in (False, True):
                changes = augmentation.unchanged(recipe.input, len(pixels), mirror).to(device)
                faces = augmentation.apply(pixels, changes, recipe.input.size)
                both = both + unit(network(faces.contiguous(memory_format=torch.channels_last)))
            found.append(unit(both).cpu())
    network.train(was)
    return torch.cat(found).numpy()


def validate(
    network: nn.Module,
    recipe: Recipe,
    packed: PackedSet,
    pairs: Pairs,
    device: torch.device,
    precision: Callable[[], Any],
) -> dict[str, float]:
    """Accuracy over folds and area under the curve of the validation pairs, mirrored crops."""
    vectors = embed_rows(network, packed, rows_of(pairs), recipe, device, precision)
    scores = np.einsum("ij,ij->i", vectors[pairs.a], vectors[pairs.b]).astype(np.float64)
    accuracy = cross_validated(pairs, scores)
    area = auc(curve(scores[pairs.same], scores[~pairs.same]))
    return {
        "accuracy": round(accuracy.mean, 6),
        "accuracy_stderr": round(accuracy.stderr, 6),
        "auc": round(area, 6),
    }


def save(learner: Learner, recipe: Recipe, material: Material, path: Path) -> None:
    """Write the checkpoint: afterwards, `restore` goes on as if nothing had happened."""
    tensors = {
        **checkpoints.gather("network", learner.network),
        **checkpoints.gather("objectives", learner.terms),
        **checkpoints.gather_optimiser(learner.optimiser),
    }
    if learner.average is not None:
        tensors |= checkpoints.gather("average", learner.average)
    facts = {
        "step": learner.step, "seconds": learner.seconds, "sums": learner.sums,
        "history": learner.history, "recipe": to_dict(recipe), **material.facts,
    }  # fmt: skip
    checkpoints.write(path, tensors, facts)


def restore(learner: Learner, recipe: Recipe, path: Path) -> None:
    """Put a learner where `save` left it. Raises `InputError` for the checkpoint of another."""
    tensors, facts = checkpoints.read(path)
    checkpoints.scatter("network", learner.network, tensors, path)
    checkpoints.scatter("objectives", learner.terms, tensors, path)
    if learner.average is not None:
        checkpoints.scatter("average", learner.average, tensors, path)
    checkpoints.scatter_optimiser(learner.optimiser, tensors)
    learner.step, learner.seconds = facts["step"], facts["seconds"]
    learner.sums, learner.history = facts["sums"], facts["history"]


class NotFinite(ModelError):
    """The loss or its gradient is no number any more."""

    def __init__(self, step: int, rate: float, losses: dict[str, float], gradient: float) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        super().__init__(
            f"training is no longer finite at step {step + 1} (learning rate {rate:g}; losses: "
            f"{shown}; length of the gradient {gradient:g}): lower optimiser.rate, lengthen "
            f"optimiser.warm_up, or set run.precision to fp32, and go on with --resume"
        )
        self.step, self.rate, self.losses, self.gradient = step, rate, losses, gradient


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, 3, step)).generate_state(1, np.uint32)[0])


def _stalled(recipe: Recipe, learner: Learner) -> bool:
    """Whether the last `patience` evaluations brought nothing better."""
    scores = [row["accuracy"] for row in learner.history if "accuracy" in row]
    patience = recipe.validation.patience
    return bool(patience) and len(scores) - 1 - int(np.argmax(scores or [0])) >= patience


def _loaded(
    material: Material, plan: Ints, team: parallel.Team
) -> Iterator[tuple[Ints, Tensor, float]]:
    """Batches with this process's pixels, read one ahead, and the seconds waited for each."""

    def read(rows: Ints) -> Tensor:
        mine = material.examples.rows[rows[team.part(len(rows))]]
        return torch.from_numpy(material.packed.pixels[mine])

    with ThreadPoolExecutor(1, thread_name_prefix="mien-data") as pool:
        ahead = pool.submit(read, plan[0])
        for number, rows in enumerate(plan):
            begun = time.perf_counter()
            pixels = ahead.result()
            idle = time.perf_counter() - begun
            if number + 1 < len(plan):
                ahead = pool.submit(read, plan[number + 1])
            yield rows, pixels, idle
