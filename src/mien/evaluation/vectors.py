"""Pictures to embeddings for a whole protocol: in parallel, cached by content, nothing dropped."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mien.detection import Choose, central
from mien.errors import InputError, UnreadableImage
from mien.evaluation.curves import FAILED, Floats
from mien.evaluation.protocols import Picture
from mien.images import read_image
from mien.recognition import Recognizer, ordered_map
from mien.types import Box, Embedding, Face, Image, Landmarks, Progress, silent
from mien.weights import home

_SHARD = 1024  # new vectors a file: what is lost when the machine stops


@dataclass(frozen=True, eq=False, slots=True)
class Vectors:
    """The embeddings of pictures, row by row.

    `matrix` (n, dim) float32 has unit rows, and zeros where no embedding could be made;
    `failures` says why, by row. `fresh` is how many were computed now rather than read.
    """

    matrix: NDArray[np.float32]
    failures: Mapping[int, str]
    contract: str
    fresh: int

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which rows hold an embedding: (n,)."""
        mask = np.ones(len(self.matrix), bool)
        mask[list(self.failures)] = False
        return mask

    def scores(self, a: NDArray[np.integer], b: NDArray[np.integer]) -> Floats:
        """The scores (n,) of rows a against rows b; `FAILED` where either has no embedding."""
        dots = np.einsum("ij,ij->i", self.matrix[a], self.matrix[b]).astype(np.float64)
        return np.where(self.usable[a] & self.usable[b], np.clip(dots, -1.0, 1.0), FAILED)


@dataclass(frozen=True, eq=False, slots=True)
class _Outcome:
    key: bytes
    vector: NDArray[np.float32] | None
    reason: str
    fresh: bool


def default_cache() -> Path:
    """Where evaluations keep embeddings: `cache/embeddings` in mien's folder."""
    return home() / "cache" / "embeddings"


def embed(
    recognizer: Recognizer,
    pictures: Sequence[Picture],
    *,
    choose: Choose = central,
    landmarks: Landmarks | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Vectors:
    """One embedding for each picture, of the face that `choose` picks.

    A picture that cannot be read or has no usable face is a failure to enrol, and is counted.
    `landmarks` are for pictures that are aligned crops: the five points are known and nothing is
    detected. With `cache`, a folder, embeddings are kept there by the SHA-256 of the picture's
    bytes, apart for each contract, weight file and choice; a run that was stopped goes on where
    it was. Raises `UnreadableImage` when a picture is missing.
    """
    store = _Cache(cache, recognizer, choose, landmarks)

    def one(picture: Picture) -> _Outcome:
        data = _bytes_of(picture)
        key = hashlib.sha256(data).digest()
        if key in store.known:
            return _Outcome(key, *store.known[key], fresh=False)
        try:
            image = Image(read_image(data).pixels, picture.name)
            vector: NDArray[np.float32] | None = _describe(recognizer, image, choose, landmarks)
            reason = ""
        except InputError as error:  # no face, or not a picture: counted, never dropped
            vector, reason = None, str(error)
        return _Outcome(key, vector, reason, fresh=True)

    outcomes: list[_Outcome] = []
    try:
        results = ordered_map(one, pictures, recognizer.threads)
        for outcome in progress(results, len(pictures), "picture"):
            outcomes.append(outcome)
            store.keep(outcome)
    finally:  # also when interrupted: what is done is saved
        store.flush()
    made = [outcome.vector for outcome in outcomes if outcome.vector is not None]
    matrix = np.zeros((len(outcomes), made[0].size if made else 1), np.float32)
    for row, outcome in enumerate(outcomes):
        if outcome.vector is not None:
            matrix[row] = outcome.vector
    failures = {row: o.reason for row, o in enumerate(outcomes) if o.vector is None}
    return Vectors(matrix, failures, recognizer.contract, sum(o.fresh for o in outcomes))


def _bytes_of(picture: Picture) -> bytes:
    if isinstance(picture.source, bytes):
        return picture.source
    try:
        return picture.source.read_bytes()
    except OSError as error:
        raise UnreadableImage(str(picture.source), error.strerror or str(error)) from error


def _describe(
    recognizer: Recognizer, image: Image, choose: Choose, landmarks: Landmarks | None
) -> NDArray[np.float32]:
    if landmarks is None:
        return recognizer.embed(image, choose).embedding.vector
    whole = Box(-0.5, -0.5, image.width - 0.5, image.height - 0.5)
    (face,) = recognizer.describe(image, [Face(whole, landmarks, 1.0)])
    embedding: Embedding = face.embedding
    return embedding.vector


class _Cache:
    """Embeddings in numbered npz files of one folder; a damaged file is ignored and made again."""

    def __init__(
        self,
        root: Path | None,
        recognizer: Recognizer,
        choose: Choose,
        landmarks: Landmarks | None,
    ) -> None:
        self.known: dict[bytes, tuple[NDArray[np.float32] | None, str]] = {}
        self._new: dict[bytes, tuple[NDArray[np.float32] | None, str]] = {}
        self._folder = None
        if root is None:
            return
        points = landmarks.points.tolist() if landmarks else getattr(choose, "__name__", "")
        parts = json.dumps([recognizer.contract, _fingerprint(recognizer), points])
        self._folder = root / hashlib.sha256(parts.encode()).hexdigest()[:16]
        if self._folder.is_dir():
            for path in sorted(self._folder.glob("*.npz")):
                self._load(path)

    def keep(self, outcome: _Outcome) -> None:
        if outcome.fresh and self._folder is not None:
            self._new[outcome.key] = (outcome.vector, outcome.reason)
            if len(self._new) >= _SHARD:
                self.flush()

    def flush(self) -> None:
        if self._folder is None or not self._new:
            return
        made = {key: vector for key, (vector, _) in self._new.items() if vector is not None}
        reasons = {key.hex(): why for key, (vector, why) in self._new.items() if vector is None}
        keys = np.frombuffer(b"".join(made), np.uint8).reshape(-1, 32)
        vectors = np.stack(list(made.values())) if made else np.zeros((0, 1), np.float32)
        words = np.frombuffer(json.dumps(reasons).encode(), np.uint8)
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"{hashlib.sha256(b''.join(self._new)).hexdigest()[:16]}.npz"
        partial = target.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as stream:
            np.savez(stream, keys=keys, vectors=vectors, failures=words)
        partial.replace(target)  # whole or not at all
        self._new = {}

    def _load(self, path: Path) -> None:
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
                keys, vectors = data["keys"], data["vectors"]
                reasons = json.loads(data["failures"].tobytes())
        except (OSError, ValueError, KeyError, BadZipFile):
            return
        self.known.update(
            (key.tobytes(), (vector, "")) for key, vector in zip(keys, vectors, strict=True)
        )
        self.known.update((bytes.fromhex(key), (None, why)) for key, why in reasons.items())


def _fingerprint(recognizer: Recognizer) -> str:
    """What a recogniser does to one picture: tells precisions, scan sizes and crops apart.

    Two of them may share a contract and still differ in the last digits.
    """
    picture = resources.files("mien").joinpath("bundled", "pictures", "grace-hopper.jpg")
    faces = recognizer.recognize(picture.read_bytes())
    digest = hashlib.sha256(b"".join(face.embedding.vector.tobytes() for face in faces))
    return digest.hexdigest()
