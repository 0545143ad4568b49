"""The training loop, from a recipe to a network, in the order in which things happen.

Everything random is drawn from the seed and the number of the epoch or step, so that a run that was
killed at any step and resumed gives the same weights to the last bit.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.errors import InputError, ModelError
from mien.evaluation.protocols import Ints
from mien.evaluation.vectors import Progress
from mien.training import augmentation, checkpoints, parallel, sampling
from mien.training.config import Optimiser, Recipe, to_dict
from mien.training.objectives import Batch

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"

Report = Callable[[dict[str, Any]], None]
"""Told the figures of each epoch."""


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
