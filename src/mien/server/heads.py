"""Fitted heads by name: which of the people that it knows does a face show, or resemble?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mien.classification import Head, load_head, recognizers
from mien.errors import InputError
from mien.recognition import Recognizer
from mien.server.problems import UnknownHead

SUFFIX = ".head"


@dataclass(frozen=True)
class Served:
    """A head and the recognisers that make the vectors it takes."""

    head: Head
    models: tuple[Recognizer, ...]


class Heads:
    """The heads in a folder, one a file NAME.head, as they are when the server starts."""

    def __init__(self, heads: Mapping[str, Served]) -> None:
        self._heads = dict(heads)

    def names(self) -> list[str]:
        """Every head there is, sorted."""
        return sorted(self._heads)

    def find(self, name: str) -> Served:
        """A head by its name. Raises `UnknownHead`."""
        if name not in self._heads:
            known = ", ".join(self.names()) or "none; the server is started with --heads FOLDER"
            raise UnknownHead(f"there is no head {name!r}; known: {known}")
        return self._heads[name]


def load_heads(folder: Path | None, recognizer: Recognizer) -> Heads:
    """The heads of a folder, with the models they need; `recognizer` is not loaded again.

    Raises `InputError` for a folder without heads and for a damaged one, `ContractMismatch` and
    what `mien.load` raises when the model of a head is not here as it was.
    """
    if folder is None:
        return Heads({})
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise InputError(
            f"there is no head in {folder}; 'mien fit PEOPLE -o {folder / 'NAME.head'}' makes one"
        )
    loaded = {recognizer.contract: recognizer}
    served = {}
    for file in files:
        head = load_head(file)
        if any(model.contract not in loaded for model in head.models):
            for found in recognizers(head, threads=recognizer.threads):
                loaded.setdefault(found.contract, found)
        models = tuple(loaded[model.contract] for model in head.models)
        served[file.name.removesuffix(SUFFIX)] = Served(head, models)
    return Heads(served)
