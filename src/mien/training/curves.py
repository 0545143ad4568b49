"""What happened while a network was trained, as a table, a picture and TensorBoard events."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import MissingExtra
from mien.evaluation.plots import BLUE, COLOURS, ORANGE, png

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

History = Sequence[Mapping[str, Any]]
"""The figures of each epoch, as `fit` reports them."""


def table(history: History) -> str:
    """The figures of each epoch as CSV; a cell is empty where nothing was measured."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def picture(history: History) -> bytes:
    """Loss and, where it was measured, validation accuracy by epoch, as PNG.

    Raises `MissingExtra` without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing the curves", "train") from error
    measured = [row for row in history if "accuracy" in row]
    panels = 2 if measured else 1
    figure = Figure(figsize=(4.5 * panels, 3.6), layout="constrained")
    losses, *others = figure.subplots(1, panels, squeeze=False)[0]
    trained = [row for row in history if "loss" in row]
    epochs = [row["epoch"] for row in trained]
    known = {"epoch", "step", "rate", "cpu_seconds", "idle_seconds"}
    known |= {"accuracy", "accuracy_stderr", "auc"}
    names = [name for name in trained[0] if name not in known] if trained else []
    for name, colour in zip(names, COLOURS, strict=False):
        losses.plot(epochs, [row[name] for row in trained], color=colour, label=name)
    losses.set(xlabel="epoch", ylabel="loss", title="Training")
    losses.legend(frameon=False)
    for accuracy in others:
        at = [row["epoch"] for row in measured]
        accuracy.errorbar(
            at, [row["accuracy"] for row in measured],
            [row["accuracy_stderr"] for row in measured],
            color=BLUE, marker="o", capsize=2, label="accuracy, standard error",
        )  # fmt: skip
        accuracy.plot(at, [row["auc"] for row in measured], color=ORANGE, marker=".", label="AUC")
        accuracy.legend(frameon=False, loc="lower right")
        accuracy.set(xlabel="epoch", title="Validation pairs, people not trained on")
    for axes in (losses, *others):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#dddddd", linewidth=0.6)
    return png(figure)


def event_writer() -> type["SummaryWriter"]:
    """What writes TensorBoard events. Raises `MissingExtra` without the package tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("writing TensorBoard events", "tensorboard") from error
    return SummaryWriter


def events(history: History, folder: Path) -> None:
    """The same for TensorBoard, by step; what an earlier run wrote there is superseded.

    Raises `MissingExtra`.
    """
    with event_writer()(str(folder), purge_step=0) as writer:
        for row in history:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    writer.add_scalar(name, value, row["step"])
