"""Checkpoints: one safetensors file each, whole or not at all, with its facts as JSON inside."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mien.errors import InputError

_FACTS = "mien"


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint beside the one before and put it in its place when it is on the disk.

    Raises `InputError` when it cannot be written, a full disk included; the one before is intact.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(save(plain, {_FACTS: json.dumps(facts)}))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        kept = f"; the checkpoint before is intact: {path}" if path.is_file() else ""
        raise InputError(f"cannot save {path}: {error.strerror or error}{kept}") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a checkpoint. Raises `InputError`."""
    try:
        with safe_open(path, "pt") as stream:
            facts = json.loads((stream.metadata() or {})[_FACTS])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint of 'mien train': {error!r}") from error
    return tensors, facts


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, such as published weights. Raises `InputError`."""
    try:
        with safe_open(path, "pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read weights from {path}: {error}") from error


def gather(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """The state of a module under names that begin with `prefix`."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def scatter(prefix: str, module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put back what `gather` took. Raises `InputError` for the state of another network."""
    state = {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }
    own = module.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [n for n in own if own[n].shape != state[n].shape]
    if wrong:
        raise InputError(
            f"{path} is the checkpoint of another {prefix}: {len(wrong)} of {len(own)} tensors "
            f"differ, the first is {wrong[0]!r}; resume with the recipe it was made with"
        )
    module.load_state_dict(state)


def gather_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, numbered in its order."""
    return {
        f"optimiser.{number}.{name}": value
        for number, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def scatter_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `gather_optimiser` took, in the memory layout of each parameter."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            parameter = parameters[int(number)]
            fits = value.shape == parameter.shape
            copy = torch.empty_like(parameter).copy_(value) if fits else value.clone()
            optimiser.state[parameter][name] = copy
