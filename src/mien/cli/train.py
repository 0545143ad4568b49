"""mien train"""

from pathlib import Path

import click

from mien.cli.batch import progress
from mien.cli.options import as_json as json_option
from mien.cli.output import emit
from mien.errors import InputError, MissingExtra
from mien.images import encode_image


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Change one value of the recipe, such as run.epochs=5. Repeatable.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Where everything goes.  [default: the recipe's name]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in DIR, if there is one.")
@click.option("--preview", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.jpg",
              help="Draw faces as the network will be shown them, and stop.")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write events for TensorBoard, too.")
@json_option
def command(
    recipe: Path,
    settings: tuple[str, ...],
    output: Path | None,
    resume: bool,
    preview: Path | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Fit a network as RECIPE says, and write a model that all of mien can use.

    \b
    mien data crop photos/ -o crops/ --size 112     # one sub-folder a person
    mien data pack crops/ -o packed/
    mien train recipes/fine-tune.toml --set data.set=packed --preview faces.jpg
    mien train recipes/fine-tune.toml --set data.set=packed -o runs/mine
    mien models import runs/mine/mine.toml
    mien verify a.jpg b.jpg --model mine

    DIR gets checkpoint.safetensors (what --resume goes on from, after a kill at any step, with the
    same result to the last bit), weights.safetensors, metrics.csv, curves.png, ID.onnx and the
    draft of a card, ID.toml. Prints the figures of each epoch.

    Several processes share each batch: torchrun --nproc-per-node 2 --no-python mien train RECIPE.
    """
    try:
        from mien.training import augmentation, curves, draft
        from mien.training.config import read_recipe
        from mien.training.loop import best, fit
        from mien.training.preparation.pack import open_packed
    except ImportError as error:
        raise MissingExtra("training", "train") from error
    if tensorboard:
        curves.event_writer()  # now, not when the training is over
    parsed = read_recipe(recipe, settings)
    if preview:
        sheet = augmentation.preview(parsed, open_packed(Path(parsed.data.set)))
        write_file(preview, encode_image(sheet, "jpeg", quality=92))
        click.echo(f"{preview}: a face a row, first as it is used later, then as training shows it")
        return
    folder = output or Path(recipe.stem)

    def report(row: dict[str, object]) -> None:
        if as_json:
            emit(row)
        else:
            click.echo("  ".join(f"{key} {_short(value)}" for key, value in row.items()))

    learner, material = fit(parsed, folder, resume=resume, report=report, progress=progress)
    if not learner.first:
        return
    write_file(folder / "metrics.csv", curves.table(learner.history).encode())
    write_file(folder / "curves.png", curves.picture(learner.history))
    if tensorboard:
        curves.events(learner.history, folder / "events")
    card, points = draft.write(learner.final, parsed, material, learner.history, folder)
    lowest = min((point.fmr for point in points), default=None)
    row = {"card": str(card), "epochs": learner.history[-1]["epoch"], "lowest_fmr": lowest}
    if as_json:
        emit(row)
    else:
        if parsed.validation.patience and learner.history[best(learner.history)]["epoch"] == 0:
            click.echo("no epoch was better than the start: its weights are kept")
        few = (
            "too few people in the validation pairs"
            if material.validation
            else "no validation pairs"
        )
        thresholds = (
            f"thresholds for false match rates down to {lowest:g}"
            if lowest
            else f"no thresholds ({few})"
        )
        click.echo(f"{card}: a draft with {thresholds}")
        click.echo(f"take the model in: mien models import {card}")


def write_file(path: Path, data: bytes) -> None:
    """Write a file. Raises `InputError` when that cannot be done."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
