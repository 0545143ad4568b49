"""What every kind of `mien evaluate` is told, and what it does with its results."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mien.cli import options
from mien.cli.batch import progress
from mien.cli.output import emit, table
from mien.detection import Choose
from mien.evaluation import report, vectors
from mien.evaluation.protocols import Pairs, Picture
from mien.evaluation.report import Part, Report, Table
from mien.evaluation.vectors import Vectors
from mien.recognition import Recognizer, load

folder = click.Path(file_okay=False, path_type=Path)
file = click.Path(dir_okay=False, path_type=Path)


class Run:
    """What every evaluation is told: which models, how pictures are read, where results go."""

    def __init__(
        self,
        models: tuple[str, ...],
        choose: str,
        threads: int | None,
        cached: bool,
        as_json: bool,
        output: Path | None,
    ) -> None:
        self.models = models
        self.as_json = as_json
        self.output = output
        self._choose: Choose = options.CHOICES[choose]
        self._threads = threads
        self._cache = vectors.default_cache() if cached else None

    def recognizer(self, model: str) -> Recognizer:
        return load(model, threads=self._threads)

    def embed(
        self, recognizer: Recognizer, pictures: Sequence[Picture], pairs: Pairs | None = None
    ) -> Vectors:
        return vectors.embed(
            recognizer,
            pictures,
            choose=self._choose,
            landmarks=pairs.landmarks if pairs else None,
            cache=self._cache,
            progress=progress,
        )

    def show(self, part: Table) -> None:
        """A table, unless JSON was asked for."""
        if not self.as_json:
            click.echo()
            if part.header[0]:
                click.echo(part.title)
            table([part.header[0] or part.title, *part.header[1:]], part.rows)
            if part.note:
                click.echo(part.note)

    def finish(
        self,
        title: str,
        recognizer: Recognizer,
        data: Path,
        results: Mapping[str, Mapping[str, Any]],
        parts: Callable[[], Sequence[Part]],
    ) -> None:
        """Print the figures of each model as JSON, and write the report if one was asked for."""
        if self.as_json:
            for model, figures in results.items():
                emit({"model": model, "protocol": title, **figures})
        if self.output is not None:
            facts = report.provenance(recognizer, str(data), title)
            facts["model"] = ", ".join(results)
            page = Report(f"{title}: {facts['model']}", facts, parts(), {"models": dict(results)})
            beside = report.write(page, self.output)
            click.echo(f"report: {self.output}, data: {beside}", err=True)


def running(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every evaluation has; they arrive as the argument `run`."""

    @wraps(function)
    def wrapped(**given: Any) -> Any:
        own = ("models", "choose", "threads", "cached", "as_json", "output")
        return function(run=Run(**{key: given.pop(key) for key in own}), **given)

    made: Callable[..., Any] = wrapped
    for decorate in (
        options.as_json,
        click.option("-o", "output", type=file, metavar="REPORT.html",
                     help="Write a report with plots, and its data as JSON beside it."),
        click.option("--cache/--no-cache", "cached", default=True, show_default=True,
                     help="Keep embeddings in mien's folder, by content, for the next time."),
        options.threads,
        click.option("--choose", type=click.Choice(list(options.CHOICES)), default="central",
                     show_default=True, help="Which face counts when a picture has several."),
        click.option("--model", "models", multiple=True, default=("embedded",), metavar="ID",
                     show_default=True, help="Which recogniser; give several to compare them."),
    ):  # fmt: skip
        made = decorate(made)
    return made
