"""A network that is being trained, measured with the code that users measure with."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mien.evaluation.curves import auc, curve
from mien.evaluation.protocols import Ints, Pairs
from mien.evaluation.verification import cross_validated
from mien.training import augmentation
from mien.training.config import Input
from mien.training.objectives import unit
from mien.training.preparation.pack import Packed

_BATCH = 64


def embed_rows(
    network: nn.Module,
    packed: Packed,
    rows: Ints,
    shape: Input,
    precision: Callable[[], Any] = nullcontext,
    views: Sequence[bool] = (False, True),
) -> NDArray[np.float32]:
    """Unit vectors (n, d) of crops of a packed set: the mean of `views`, each mirrored or not."""
    device = next(network.parameters()).device
    was = network.training
    network.eval()
    found = []
    with torch.inference_mode(), precision():
        for start in range(0, len(rows), _BATCH):
            pixels = torch.from_numpy(packed.pixels[rows[start : start + _BATCH]]).to(device)
            vectors = []
            for mirror in views:
                changes = augmentation.unchanged(shape, len(pixels), mirror).to(device)
                faces = augmentation.apply(pixels, changes, shape.size)
                vectors.append(unit(network(faces.contiguous(memory_format=torch.channels_last))))
            found.append(unit(torch.stack(vectors).sum(0)).cpu())
    network.train(was)
    return torch.cat(found).numpy()


def validate(
    network: nn.Module,
    shape: Input,
    packed: Packed,
    pairs: Pairs,
    rows: Ints,
    precision: Callable[[], Any] = nullcontext,
) -> dict[str, float]:
    """Accuracy over folds and area under the curve of the validation pairs, mirrored crops."""
    vectors = embed_rows(network, packed, rows, shape, precision)
    scores = np.einsum("ij,ij->i", vectors[pairs.a], vectors[pairs.b]).astype(np.float64)
    accuracy = cross_validated(pairs, scores)
    area = auc(curve(scores[pairs.same], scores[~pairs.same]))
    return {
        "accuracy": round(accuracy.mean, 6),
        "accuracy_stderr": round(accuracy.stderr, 6),
        "auc": round(area, 6),
    }
