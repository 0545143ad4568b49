"""Several processes on one batch, started by `torchrun`: alone, everything here does nothing.

Each process computes the embeddings of its part of the batch; all of them are then gathered, so
that every loss sees the whole batch as it would in one process, and gradients are those of one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mien.errors import InputError


@dataclass(frozen=True, slots=True)
class Team:
    """This process among `size`: its `rank` from 0, and its number on this machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    def device(self) -> torch.device:
        """Where this process computes: its own GPU if there are any, else the processor."""
        return (
            torch.device("cuda", self.local) if torch.cuda.is_available() else torch.device("cpu")
        )

    def part(self, batch: int) -> slice:
        """This process's rows of a batch. Raises `InputError` when they do not divide."""
        if batch % self.size:
            raise InputError(f"a batch of {batch} cannot be shared by {self.size} processes")
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def share(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes."""
        return network if self.size == 1 else DistributedDataParallel(network)

    def whole(self, embeddings: Tensor) -> Tensor:
        """The embeddings of the whole batch from each process's part, with their gradients.

        Each process then computes the same loss; summed by the gather and averaged by `share`,
        the gradients of the network are those of that one loss.
        """
        return embeddings if self.size == 1 else _Gathered.apply(embeddings)

    def agree(self, mine: bool) -> bool:
        """What the first process says."""
        if self.size == 1:
            return mine
        said = torch.tensor([float(mine)], device=self.device())
        dist.broadcast(said, 0)
        return bool(said.item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def group() -> Iterator[Team]:
    """The team that `torchrun` started this process in, or a team of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Team(dist.get_rank(), size, int(os.environ["LOCAL_RANK"]))
    finally:
        dist.destroy_process_group()


class _Summed(torch.autograd.Function):
    """The sum over processes; slopes are summed likewise."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> Tensor:
        total = slopes.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gathered(torch.autograd.Function):
    """The rows of all processes, in order of rank; each gets the sum of the slopes of its own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> Tensor:
        total = slopes.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


class SharedBatchNorm(nn.Module):
    """Batch normalisation with the statistics of all processes' batches, on any device.

    Takes the place of a `BatchNorm1d` or `2d` and shares its parameters and names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, own: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = own.weight, own.bias
        self.eps, self.momentum = own.eps, own.momentum if own.momentum is not None else 0.1
        self.register_buffer("running_mean", own.running_mean)
        self.register_buffer("running_var", own.running_var)
        self.register_buffer("num_batches_tracked", own.num_batches_tracked)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = dist.get_world_size() * x.numel() / x.shape[1]
        sums = torch.stack([x.float().sum(axes), x.float().square().sum(axes)])
        mean, square = (_Summed.apply(sums) / count).unbind()
        variance = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        shape = [1, -1, *(1 for _ in axes[1:])]
        scale = (self.weight * (variance + self.eps).rsqrt()).view(shape)
        return (x.float() - mean.view(shape)) * scale + self.bias.view(shape)


def share_statistics(network: nn.Module) -> None:
    """Replace every batch normalisation of a network, in place."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(network, name, SharedBatchNorm(child))
        else:
            share_statistics(child)
