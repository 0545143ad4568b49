"""All that changes while training goes on: made from a recipe, saved, and put back."""

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mien import networks
from mien.training import checkpoints, objectives, parallel
from mien.training.config import Optimiser, Recipe, to_dict
from mien.training.material import Material


@dataclass
class Learner:
    """All that changes while training goes on: what a checkpoint holds."""

    network: nn.Module
    terms: nn.ModuleList
    average: nn.Module | None
    optimiser: torch.optim.Optimizer
    first: bool = True
    """Whether this process writes and reports, where several share the work."""
    step: int = 0
    seconds: float = 0.0
    """Processor seconds spent so far by this process, over all resumptions."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch that is under way: of losses, by name."""
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def final(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.network if self.average is None else self.average


def build(recipe: Recipe, material: Material, team: parallel.Team) -> Learner:
    """The network, the objectives and the optimiser before the first step."""
    torch.manual_seed(recipe.run.seed)
    config = recipe.network
    options = {"size": recipe.input.size, **config.options}
    network = networks.build(config.name, config.embedding_size, **options)
    if config.start:
        networks.adopt(network, checkpoints.read_state(Path(config.start)))
    elif material.targets is not None and config.embedding_size == material.targets.shape[1]:
        begin_at(network, material.targets)
    for name, parameter in network.named_parameters():
        if name.startswith(config.frozen):
            parameter.requires_grad = False
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name.startswith(config.frozen):
            module.momentum = 0.0  # nor do its statistics move
    device = team.device()
    if recipe.run.shared_batch_norm and team.size > 1:
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
    optimiser = optimiser_of(recipe.optimiser, network, terms)
    return Learner(network, terms, average, optimiser, team.first)


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


def restore(learner: Learner, path: Path) -> None:
    """Put a learner where `save` left it. Raises `InputError` for the checkpoint of another."""
    tensors, facts = checkpoints.read(path)
    checkpoints.scatter("network", learner.network, tensors, path)
    checkpoints.scatter("objectives", learner.terms, tensors, path)
    if learner.average is not None:
        checkpoints.scatter("average", learner.average, tensors, path)
    checkpoints.scatter_optimiser(learner.optimiser, tensors)
    learner.step, learner.seconds = facts["step"], facts["seconds"]
    learner.sums, learner.history = facts["sums"], facts["history"]
