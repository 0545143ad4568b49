"""Turn aligned faces into unit vectors; compare them; fuse several of one person."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard
from mien.errors import ContractMismatch, InputError
from mien.inference import Session, to_batch
from mien.types import AlignedFace, Embedding, Vector

_BATCH = 32  # more is no faster on a CPU and costs memory


@runtime_checkable
class Embedder(Protocol):
    """Aligned faces to unit vectors."""

    @property
    def card(self) -> ModelCard: ...

    def embed_batch(self, faces: Sequence[AlignedFace]) -> NDArray[np.float32]:
        """Unit vectors (n, dim), one for each face, in the order given."""
        ...


@dataclass(frozen=True)
class NetworkEmbedder:
    """Every embedding network: what differs between them is in the card."""

    card: ModelCard
    session: Session

    def embed_batch(self, faces: Sequence[AlignedFace]) -> NDArray[np.float32]:
        if not faces:
            return np.zeros((0, 0), np.float32)
        chunks = [faces[i : i + _BATCH] for i in range(0, len(faces), _BATCH)]
        return normalize(np.concatenate([self._run(chunk) for chunk in chunks]))

    def _run(self, faces: Sequence[AlignedFace]) -> NDArray[np.float32]:
        (vectors,) = self.session(to_batch(self.card.input, np.stack([f.pixels for f in faces])))
        return vectors


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (n, dim) scaled to length one. Raises `InputError` for a row without a direction."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise InputError("a zero or non-finite vector has no direction and cannot be compared")
    unit: NDArray[np.float32] = (vectors / norms).astype(np.float32, copy=False)
    return unit


def similarity(a: Embedding, b: Embedding) -> float:
    """Cosine similarity in [-1, 1]; higher means more alike.

    What a score is worth depends on the model: see `Recognizer.operating_point`.
    Raises `ContractMismatch` when the two were made in different ways.
    """
    require_contract(a.contract, b.contract)
    return float(np.clip(a.vector @ b.vector, -1.0, 1.0))


def fuse(embeddings: Sequence[Embedding], qualities: Sequence[float] | None = None) -> Embedding:
    """One embedding for several pictures of the same person: the direction of their mean.

    Of three or more, those that do not agree with the rest are left out (see `agreeing`).
    `qualities`, in [0, 1], weigh the pictures by their square roots. Raises `InputError` when there
    are none or the numbers differ, `ContractMismatch` when they do not belong together.
    """
    vectors = _stacked(embeddings)
    weights = np.ones(len(vectors), np.float32)
    if qualities is not None:
        if len(qualities) != len(vectors) or not all(0 <= quality <= 1 for quality in qualities):
            raise InputError(f"{len(vectors)} embeddings need as many qualities, from 0 to 1")
        weights = np.sqrt(np.maximum(qualities, _LEAST_QUALITY)).astype(np.float32)
    weights = weights * _agreeing(vectors)
    return Embedding(mean_direction(vectors * weights[:, None]), embeddings[0].contract)


def agreeing(embeddings: Sequence[Embedding]) -> tuple[bool, ...]:
    """Which pictures of one person agree with the others: what `fuse` takes, and what is suspect.

    A picture is left out when its cosine with the mean of the others lies more than three
    deviations below the median of the same for all; the deviation is 1.48 times the median absolute
    one (Hampel, 1974), and not less than a quarter of what the median lacks to 1. More than
    half are always kept, and all of fewer than three. Raises as `fuse`.
    """
    return tuple(_agreeing(_stacked(embeddings)).tolist())


_LEAST_QUALITY = 0.05  # a poor picture still counts for something
_DEVIATIONS = 3.0


def _agreeing(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    kept = np.ones(len(vectors), bool)
    for _ in range(2):  # the second look is not blurred by what the first one left out
        shares = vectors * kept[:, None]
        others = shares.sum(axis=0) - shares
        norms = np.maximum(np.linalg.norm(others, axis=1), 1e-12)
        cosines = np.einsum("ij,ij->i", vectors, others) / norms
        median = np.median(cosines[kept])
        spread = 1.4826 * np.median(np.abs(cosines[kept] - median))
        near = cosines >= median - _DEVIATIONS * max(spread, (1 - median) / 4)
        if len(vectors) < 3 or 2 * near.sum() <= len(vectors):
            break
        kept = near
    return kept


def _stacked(embeddings: Sequence[Embedding]) -> NDArray[np.float32]:
    if not embeddings:
        raise InputError("there is nothing to fuse: give at least one embedding")
    for other in embeddings[1:]:
        require_contract(embeddings[0].contract, other.contract)
    return np.stack([embedding.vector for embedding in embeddings])


def mean_direction(vectors: NDArray[np.float32]) -> Vector:
    """The unit vector (dim,) along the mean of unit vectors (n, dim)."""
    direction: Vector = normalize(vectors.mean(axis=0, keepdims=True))[0]
    return direction


def require_contract(expected: str, got: str) -> None:
    """Raise `ContractMismatch` unless the two contracts are the same."""
    if expected != got:
        raise ContractMismatch(expected, got)
