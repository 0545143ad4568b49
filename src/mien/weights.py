"""Find the file of a model and prove that it is the one its card describes."""

import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import platformdirs

from mien.cards import ModelCard, WeightFile
from mien.errors import CorruptWeights


def home() -> Path:
    """Where fetched models are kept: `MIEN_HOME`, else the user's data folder."""
    return Path(os.environ.get("MIEN_HOME") or platformdirs.user_data_path("mien"))


def choose(card: ModelCard, precisions: Sequence[str]) -> WeightFile:
    """The file of a card that computes in the first of `precisions` that it offers."""
    offered = {file.precision: file for file in card.files}
    return next((offered[p] for p in precisions if p in offered), card.files[0])


def locate(file: WeightFile) -> Path | None:
    """Where a file lies: inside the package or in `home()`; None if nowhere."""
    bundled = Path(str(resources.files("mien").joinpath("bundled", file.name)))
    fetched = home() / "models" / file.name
    return next((path for path in (bundled, fetched) if path.is_file()), None)


def read_verified(file: WeightFile) -> bytes:
    """The bytes of a weight file, after their SHA-256 was compared with the card's.

    The bytes that were hashed are the bytes that are returned, so a file swapped in between
    cannot slip through. Raises `CorruptWeights`.
    """
    path = locate(file)
    if path is None:
        raise CorruptWeights(file.name, "the file is missing")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptWeights(str(path), f"the file cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise CorruptWeights(
            str(path),
            f"the file is not the one its card describes "
            f"(sha256 {digest[:12]}..., expected {file.sha256[:12]}...)",
        )
    return data
