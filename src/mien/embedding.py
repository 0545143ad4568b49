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


def fuse(embeddings: Sequence[Embedding]) -> Embedding:
    """One embedding for several pictures of the same person: the direction of their mean.

    Raises `InputError` when there are none, `ContractMismatch` when they do not belong together.
    """
    if not embeddings:
        raise InputError("there is nothing to fuse: give at least one embedding")
    first = embeddings[0]
    for other in embeddings[1:]:
        require_contract(first.contract, other.contract)
    return Embedding(mean_direction(np.stack([e.vector for e in embeddings])), first.contract)


def mean_direction(vectors: NDArray[np.float32]) -> Vector:
    """The unit vector (dim,) along the mean of unit vectors (n, dim)."""
    direction: Vector = normalize(vectors.mean(axis=0, keepdims=True))[0]
    return direction


def require_contract(expected: str, got: str) -> None:
    """Raise `ContractMismatch` unless the two contracts are the same."""
    if expected != got:
        raise ContractMismatch(expected, got)
