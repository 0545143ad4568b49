"""The training loop, from a recipe to a network, in the order in which things happen.

Everything random is drawn from the seed and the number of the epoch or step, so that a run that was
killed at any step and resumed gives the same weights to the last bit.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.errors import InputError, ModelError
from mien.evaluation.protocols import Ints
from mien.recognition import processors
from mien.training import augmentation, checkpoints, parallel, sampling
from mien.training.config import Optimiser, Recipe, to_dict
from mien.training.learner import Learner, build, restore, save
from mien.training.material import Material, batches, prepare
from mien.training.objectives import Batch
from mien.training.validation import validate
from mien.types import Progress, silent

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
FAILURE = "failure.json"

Report = Callable[[dict[str, Any]], None]
"""Told the figures of each epoch."""


def fit(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    report: Report = lambda row: None,
    progress: Progress = silent,
) -> tuple[Learner, Material]:
    """Train a network as the recipe says; checkpoints and weights go to `output`.

    The weights kept are the last, or with `validation.patience` those of the best evaluation, which
    may be the one before the first step, of the weights that `network.start` names. With
    `resume`, go on from the checkpoint there. Under `torchrun` the processes share each
    batch. Raises `InputError` for a recipe that cannot be followed and `NotFinite` when the loss
    is no number any more: the last checkpoint then stands and `failure.json` says what was seen.
    """
    torch.set_num_threads(recipe.run.threads or processors())
    torch.use_deterministic_algorithms(recipe.run.deterministic)
    path = output / CHECKPOINT
    if path.exists() and not resume:
        raise InputError(f"{path} exists: go on with --resume, or name another folder with -o")
    with parallel.group() as team:
        material = prepare(recipe, progress)
        learner = build(recipe, material, team)
        if path.exists():
            restore(learner, path)
        network = team.share(learner.network)
        precision = autocast(recipe.run.precision, team.device())
        per_epoch = len(planned(recipe, material, 0))
        total = per_epoch * recipe.run.epochs
        if recipe.network.start and material.validation and team.first and not learner.history:
            scored = validate(learner.final, recipe.input, *material.validation, precision)
            learner.history.append({"epoch": 0, "step": 0, **scored})
            keep(learner, recipe, material, output)
            report(learner.history[0])
        while learner.step < total and not team.agree(stalled(recipe, learner)):
            epoch, done = divmod(learner.step, per_epoch)
            plan = planned(recipe, material, epoch)[done:]
            begun, waited = time.process_time(), 0.0
            read = batches(material, plan, team)
            for rows, pixels, idle in progress(read, len(plan), "batch") if team.first else read:
                rate = rate_at(recipe.optimiser, learner.step, total)
                try:
                    losses = step(
                        recipe, learner, network, material, rows, pixels, rate, team, precision
                    )
                except NotFinite as failure:
                    write_failure(output / FAILURE, failure, material, rows)
                    raise
                for name, value in losses.items():
                    learner.sums[name] = learner.sums.get(name, 0.0) + value
                learner.step += 1
                learner.seconds += time.process_time() - begun
                begun, waited = time.process_time(), waited + idle
                ends = learner.step % per_epoch == 0  # saved below, with the epoch's figures
                if learner.step % recipe.run.checkpoint_every == 0 and not ends and team.first:
                    save(learner, recipe, material, path)
                    begun = time.process_time()
            row = figures(learner, per_epoch, rate, waited)
            due = (epoch + 1) % recipe.validation.every == 0 or learner.step == total
            if material.validation and due and team.first:
                row |= validate(learner.final, recipe.input, *material.validation, precision)
            learner.sums = {}
            learner.history.append(row)
            if team.first:
                keep(learner, recipe, material, output)
                report(row)
        team.wait()
        learner.final.load_state_dict(checkpoints.read(output / WEIGHTS)[0])
    return learner, material


def figures(learner: Learner, per_epoch: int, rate: float, waited: float) -> dict[str, Any]:
    """What is known at the end of an epoch: mean losses, learning rate, processor seconds so far,
    seconds of this epoch in which the loop waited for crops."""
    losses = {name: round(value / per_epoch, 6) for name, value in learner.sums.items()}
    spent = {"cpu_seconds": round(learner.seconds, 1), "idle_seconds": round(waited, 2)}
    return {
        "epoch": learner.step // per_epoch,
        "step": learner.step,
        **losses,
        "rate": rate,
    } | spent


def keep(learner: Learner, recipe: Recipe, material: Material, output: Path) -> None:
    """Write the weights, unless early stopping has seen better ones, and the checkpoint."""
    if not recipe.validation.patience or best(learner.history) == len(learner.history) - 1:
        facts = {"recipe": to_dict(recipe), **material.facts, "history": learner.history}
        checkpoints.write(output / WEIGHTS, learner.final.state_dict(), facts)
    save(learner, recipe, material, output / CHECKPOINT)


def planned(recipe: Recipe, material: Material, epoch: int) -> Ints:
    """The batches of an epoch."""
    return sampling.plan(
        recipe.sampling, material.examples, material.groups, recipe.run.seed, epoch
    )


def write_failure(path: Path, failure: "NotFinite", material: Material, rows: Ints) -> None:
    """What was seen when the loss was no number any more, the crops of the batch among it."""
    crops = [material.packed.rows[row].source for row in material.examples.rows[rows].tolist()]
    seen = {
        "step": failure.step, "rate": failure.rate, "gradient": f"{failure.gradient:g}",
        "losses": {name: f"{value:g}" for name, value in failure.losses.items()},
        "reason": str(failure), "batch": crops,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(seen, indent=1), encoding="utf-8")


def rate_at(config: Optimiser, step: int, total: int) -> float:
    """The learning rate of a step: a straight rise, then half a cosine (SGDR, 2017)."""
    rising = config.warm_up * total
    if step < rising:
        return config.rate * (step + 1) / (rising + 1)
    share = (step - rising) / max(1.0, total - rising)
    return config.rate * 0.5 * (1 + math.cos(math.pi * share))


def autocast(wanted: str, device: torch.device) -> Callable[[], Any]:
    """What the network is computed in: bfloat16 where it pays, which "auto" finds out."""
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
        decay = min(recipe.run.ema, (learner.step + 1) / (learner.step + 10))
        follow(learner.average, learner.network, decay)
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


def best(history: Sequence[Mapping[str, Any]]) -> int:
    """The place in the history of the evaluation with the highest accuracy, the first of equals;
    that of the last epoch where nothing was evaluated."""
    scored = [n for n, row in enumerate(history) if "accuracy" in row]
    if not scored:
        return len(history) - 1
    return max(scored, key=lambda n: (history[n]["accuracy"], -n))


def stalled(recipe: Recipe, learner: Learner) -> bool:
    """Whether the last `patience` evaluations brought nothing better."""
    since = sum("accuracy" in row for row in learner.history[best(learner.history) + 1 :])
    return 0 < recipe.validation.patience <= since
