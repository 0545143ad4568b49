"""mien fit"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from mien.classification import Head, Model, save_head
from mien.classification.fitting import fit
from mien.classification.learners import KINDS
from mien.cli import options
from mien.cli.batch import progress
from mien.cli.output import counted, emit, table
from mien.errors import InputError
from mien.evaluation import classification, pages, plots, protocols, report, vectors
from mien.evaluation.classification import Classes
from mien.evaluation.verification import pair
from mien.recognition import Recognizer, load

_SUSPECTS = 10  # shown on the terminal; the report has all


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              metavar="HEAD", help="Where the head goes.")  # fmt: skip
@click.option("--head", "kind", type=click.Choice([*KINDS, "stack"]), default="stack",
              show_default=True, help="What is fitted; a stack weighs several.")  # fmt: skip
@click.option("--models", default="embedded", show_default=True, metavar="A,B",
              help="Whose vectors it takes, separated by commas.")  # fmt: skip
@click.option("--choose", type=click.Choice(["largest", "central", "only"]), default="largest",
              show_default=True, help="Which face counts when a picture has several.")  # fmt: skip
@click.option("--report", "page", type=click.Path(dir_okay=False, path_type=Path),
              metavar="REPORT.html", help="Write a page with the confusion matrix, the figures of "
              "each label and the suspects; beside it data (.json) and matrix (.png).")  # fmt: skip
@click.option("--folds", default=5, show_default=True, type=click.IntRange(min=2),
              help="Into how many parts the pictures are dealt, to measure on.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of the dealing.")
@click.option("--cached/--no-cache", default=True, help="Keep embeddings for the next time.")
@options.threads
@options.as_json
def command(
    folder: Path,
    output: Path,
    kind: str,
    models: str,
    choose: str,
    page: Path | None,
    folds: int,
    seed: int,
    cached: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Learn to tell people apart, from a folder with one sub-folder a person.

    Needs the extra 'heads'. Writes a head for 'mien classify', and prints how often it is right,
    counted on pictures that were held back. Pictures that look as if they were filed under the
    wrong name are listed: look at them, move what is wrong, and fit again.

    \b
    mien fit celebrities/ -o celebrities.head
    mien fit celebrities/ -o celebrities.head --models embedded,embedded-accurate --report fit.html
    """
    people = protocols.read_people(folder)
    loaded = [load(model.strip(), threads=threads) for model in models.split(",")]
    made = [
        vectors.embed(
            recognizer, people.pictures, choose=options.CHOICES[choose], progress=progress,
            cache=vectors.default_cache() if cached else None,
        )
        for recognizer in loaded
    ]  # fmt: skip
    usable = np.logical_and.reduce([one.usable for one in made])
    refused = {row: why for one in made for row, why in one.failures.items()}
    for row in sorted(refused):
        click.echo(f"mien: {people.pictures[row].name}: {refused[row]}", err=True)
    head = fit(
        [Model(recognizer.bundle.id, recognizer.contract) for recognizer in loaded],
        [one.matrix[usable] for one in made],
        [people.names[number] for number in people.person[usable]],
        kind=kind,
        sources=[str(people.pictures[row].source) for row in np.flatnonzero(usable)],
        folds=folds,
        seed=seed,
        progress=progress,
    )
    save_head(head, output)
    measured = classification.of_confusion(head.labels, head.report.confusion)
    figures = _figures(head, measured, len(refused))
    if page:
        _write(page, loaded[0], folder, head, measured, figures)
    if as_json:
        emit({"head": str(output), **figures})
    else:
        _print(head, measured)
    click.echo(f"{counted(len(head.labels), 'label')} in {output}", err=True)
    if refused:
        click.echo(
            f"mien: {counted(len(refused), 'picture')} could not be used (see above)", err=True
        )
        click.get_current_context().exit(2)


def _figures(head: Head, measured: Classes, refused: int) -> dict[str, Any]:
    found = head.report
    return {
        "kind": head.kind,
        "models": [model.id for model in head.models],
        "labels": len(head.labels),
        "pictures": found.pictures,
        "refused": refused,
        "protocol": found.protocol,
        "accuracy": round(found.accuracy, 6),
        "accuracy_interval": pair(measured.accuracy_interval),
        "macro_f1": round(measured.macro_f1, 6),
        "ece": round(found.ece, 6),
        "bits": round(found.bits, 6),
        "parts": [
            {**asdict(candidate), "weight": round(float(weight), 4)}
            for candidate, weight in zip(found.candidates, head.weights, strict=True)
        ],
        "unknown": [
            {"strangers_named": point.fmr, "known_called_unknown": round(point.fnmr, 6)}
            for point in head.acquaintance.points
        ],
        "suspects": [asdict(suspect) for suspect in found.suspects],
    }


def _print(head: Head, measured: Classes) -> None:
    found = head.report
    table(
        ("part", "setting", "weight", "right, held back"),
        [
            (one.name, one.setting, f"{weight:.3g}", f"{one.accuracy:.2%}")
            for one, weight in zip(found.candidates, head.weights, strict=True)
        ],
    )
    right = report.percent(measured.accuracy, measured.accuracy_interval)
    click.echo(f"\n{head.kind}: {right} right of {counted(found.pictures, 'picture')}, "
               f"{found.protocol}")  # fmt: skip
    click.echo(f"probabilities: off by {found.ece:.2%} on average, {found.bits:.3f} bits a picture")
    for point in head.acquaintance.points:
        click.echo(f"--unknown {point.fmr:g}: that share of strangers gets a label, "
                   f"{point.fnmr:.2%} of the known are called unknown")  # fmt: skip
    if not head.acquaintance.points:
        click.echo(
            "--unknown: too few pictures to measure how often strangers would be given a label"
        )
    if found.suspects:
        click.echo(f"\nperhaps under the wrong name: {counted(len(found.suspects), 'picture')}")
        for suspect in found.suspects[:_SUSPECTS]:
            like = f"looks like {suspect.likelier}" if suspect.likelier else "resembles nobody here"
            click.echo(f"  {suspect.source}  {like}")


def _write(
    page: Path, recognizer: Recognizer, folder: Path, head: Head, measured: Classes,
    figures: Mapping[str, Any],
) -> None:  # fmt: skip
    """The page, its data, and the confusion matrix as a picture of its own."""
    parts = pages.classification(measured)
    plates = [
        report.Plate(
            [protocols.Picture(suspect.source, Path(suspect.source))],
            f"{suspect.label}? {suspect.likelier or 'nobody here'}",
        )
        for suspect in head.report.suspects
    ]
    if plates:
        parts.append(report.Plates("Perhaps under the wrong name", plates))
    facts = report.provenance(recognizer, str(folder), head.report.protocol)
    facts["model"] = ", ".join(model.id for model in head.models)
    facts["contract"] = ", ".join(model.contract for model in head.models)
    title = f"{head.kind} of {folder.name}, {counted(len(head.labels), 'label')}"
    beside = report.write(report.Report(title, facts, parts, figures), page)
    picture = page.with_suffix(".png")
    try:
        picture.write_bytes(plots.png(plots.confusion(measured)))
    except OSError as error:
        raise InputError(f"cannot write {picture}: {error.strerror}") from error
    click.echo(f"report: {page}, data: {beside}, confusion: {picture}", err=True)
