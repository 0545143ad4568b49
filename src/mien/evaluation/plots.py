"""Curves drawn for reports; the only module that imports matplotlib (extra `evaluation`).

Each function returns a matplotlib Figure; `svg` and `png` turn it into bytes. Nothing global is
changed: no pyplot, no style that outlives the call.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mien.decision import Calibration
from mien.errors import MissingExtra
from mien.evaluation.calibration import Reliability
from mien.evaluation.classification import Classes, most_confused
from mien.evaluation.curves import FAILED, Curve, Floats, auc
from mien.evaluation.detection import Precision
from mien.evaluation.identification import OpenSet, Searches, cmc, tradeoff
from mien.evaluation.intervals import VerificationIntervals
from mien.types import OperatingPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008: told apart with the common forms of colour blindness.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
GREY = "#555555"

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "mien",
}

Curves = Mapping[str, tuple[Curve, VerificationIntervals]]


def roc(curves: Curves) -> "Figure":
    """True accept rate against false accept rate, the latter on a logarithmic axis."""
    figure, axes = _figure()
    lowest = min(0.1, *(1 / rates.impostors for rates, _ in curves.values()))
    floor = 1.0
    for (label, (rates, bounds)), colour in zip(curves.items(), COLOURS, strict=False):
        x, y = _thinned(np.maximum(rates.fmr, lowest / 2), 1 - rates.fnmr)
        axes.plot(x, y, color=colour, label=f"{label} (AUC {auc(rates):.4f})", linewidth=1.8)
        axes.fill_between(
            bounds.fmr_grid, 1 - bounds.fnmr_high, 1 - bounds.fnmr_low,
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        floor = min(floor, float(np.interp(lowest, x[::-1], y[::-1])))
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1)
    axes.set_ylim(max(0.0, 1 - 1.6 * max(0.02, 1 - floor)), 1.002)
    axes.set_xlabel("False accept rate (FMR)")
    axes.set_ylabel("True accept rate (1 - FNMR)")
    axes.set_title("ROC, with 95% band over people")
    axes.legend(loc="lower right")
    return figure


def det(curves: Curves) -> "Figure":
    """FNMR against FMR, both on normal-deviate axes (Martin and others, 1997)."""
    figure, axes = _figure()
    least = min(
        [1 / rates.impostors for rates, _ in curves.values()]
        + [1 / rates.genuine for rates, _ in curves.values()]
    )
    lowest, highest = min(0.1, max(least, 1e-6)), 0.5
    for (label, (rates, bounds)), colour in zip(curves.items(), COLOURS, strict=False):
        inside = (rates.fmr > 0) & (rates.fnmr > 0) & (rates.fmr < 1) & (rates.fnmr < 1)
        x, y = _thinned(_probit(rates.fmr[inside]), _probit(rates.fnmr[inside]))
        axes.plot(x, y, color=colour, label=label, linewidth=1.8, drawstyle="steps-post")
        low, high = (
            _probit(np.clip(edge, lowest / 2, 0.999))
            for edge in (bounds.fnmr_low, bounds.fnmr_high)
        )
        grid = _probit(np.clip(bounds.fmr_grid, lowest / 2, 0.999))
        axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
    ticks = [t for t in (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5) if t >= lowest / 2]
    places = _probit(np.array(ticks))
    names = [f"{100 * tick:g}%" for tick in ticks]
    edges = _probit(np.array([lowest, highest]))
    axes.plot(edges, edges, color=GREY, linewidth=0.8, linestyle=":", label="equal error")
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set_xlim(*edges)
    axes.set_ylim(*edges)
    axes.set_xlabel("FMR")
    axes.set_ylabel("FNMR")
    axes.set_title("DET on normal-deviate axes, with 95% band over people")
    axes.legend(loc="upper right")
    return figure


def histogram(
    genuine: Floats, impostor: Floats, points: Sequence[OperatingPoint], title: str = ""
) -> "Figure":
    """How scores of both kinds are spread, with the thresholds of operating points."""
    figure, axes = _figure()
    alive = [scores[scores > FAILED] for scores in (genuine, impostor)]
    together = np.concatenate(alive)
    low, high = float(together.min()), float(together.max())
    bins = np.linspace(low - 1e-9, high + 1e-9, 80)
    labels = ("same person", "different people")
    for scores, colour, label in zip(alive, (GREEN, RED), labels, strict=True):
        axes.hist(
            scores, bins=bins.tolist(), density=True, color=colour, alpha=0.55,
            label=f"{label} ({scores.size:,})",
        )  # fmt: skip
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * 1.18)
    for step, point in enumerate(points):
        if low <= point.threshold <= high:
            axes.axvline(point.threshold, color=GREY, linewidth=0.9, linestyle="--")
            axes.text(
                point.threshold, top * (1.15 - 0.055 * (step % 3)), f" FMR {point.fmr:g}",
                fontsize=8, color=GREY, va="top",
            )  # fmt: skip
    failed = sum(int((scores <= FAILED).sum()) for scores in (genuine, impostor))
    note = f"; {failed} failed pairs not drawn" if failed else ""
    axes.set_title(f"Scores{' of ' if title else ''}{title}{note}")
    axes.set_xlabel("Score (cosine)")
    axes.set_ylabel("Density")
    axes.legend(loc="upper left")
    return figure


def reliability(measured: Reliability, fitted: Calibration) -> "Figure":
    """How often pairs of a stated probability are the same person, on held-out folds."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfect")
    filled = measured.count > 0
    low = measured.share[filled] - measured.low[filled]
    high = measured.high[filled] - measured.share[filled]
    axes.errorbar(
        measured.stated[filled], measured.share[filled], yerr=[low, high], fmt="o", color=BLUE,
        capsize=3, markersize=5, linewidth=1.2, label="measured, with 95% interval",
    )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("Stated probability of the same person")
    axes.set_ylabel("Share that is the same person")
    axes.set_title(
        f"Reliability ({fitted.method}): ECE {measured.ece:.4f}, Cllr {measured.cllr:.4f}"
    )
    axes.legend(loc="upper left")
    return figure


def cumulative_match(found: Mapping[str, Searches], ranks: int = 20) -> "Figure":
    """The share of enrolled people found among the first 1, 2, ... ranks."""
    figure, axes = _figure()
    lowest = 1.0
    for (label, searches), colour in zip(found.items(), COLOURS, strict=False):
        shares = cmc(searches, ranks)
        lowest = min(lowest, float(shares[0]))
        axes.plot(
            np.arange(1, ranks + 1), shares, color=colour, marker="o", markersize=4,
            label=f"{label} (rank 1: {shares[0]:.4f})",
        )  # fmt: skip
    axes.set_xlabel("Rank")
    axes.set_ylabel("Share of mated probes found")
    axes.set_ylim(max(0.0, lowest - 0.25 * (1 - lowest) - 0.005), 1.002)
    axes.set_xticks([1, *range(5, ranks + 1, 5)])
    axes.set_title("Cumulative match characteristic")
    axes.legend(loc="lower right")
    return figure


def identification(
    found: Mapping[str, Searches], marks: Mapping[str, Sequence[OpenSet]]
) -> "Figure":
    """FNIR against FPIR, both logarithmic, with the intervals of the figures that are quoted."""
    figure, axes = _figure()
    lowest = 1.0
    for (label, searches), colour in zip(found.items(), COLOURS, strict=False):
        _, false, miss = tradeoff(searches)
        people = np.unique(searches.person[~searches.mated]).size
        lowest = min(lowest, 1 / people)
        x, y = _thinned(false, miss)
        axes.plot(x, y, color=colour, label=label, linewidth=1.8)
        for mark in marks.get(label, ()):
            spread = [
                [mark.fnir - mark.fnir_interval.low],
                [mark.fnir_interval.high - mark.fnir],
            ]
            axes.errorbar(
                [mark.fpir], [mark.fnir], yerr=np.maximum(0, spread), fmt="o", color=colour,
                capsize=4, markersize=5,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(lowest, 1)
    axes.set_ylim(None, 1)
    axes.set_xlabel("FPIR: strangers who are named")
    axes.set_ylabel("FNIR: enrolled people who are missed")
    axes.set_title("Open-set identification")
    axes.legend(loc="lower left")
    return figure


def precision_recall(measured: Mapping[str, Precision]) -> "Figure":
    """Precision against recall of a detector, for each level of difficulty."""
    figure, axes = _figure()
    for (label, item), colour in zip(measured.items(), COLOURS, strict=False):
        axes.plot(item.recall, item.precision, color=colour, label=f"{label} (AP {item.ap:.4f})")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("Recall")
    axes.set_ylabel("Precision")
    axes.set_title("Detection at IoU 0.5")
    axes.legend(loc="lower left")
    return figure


_CLASSES = 60  # more are not legible


def confusion(classes: Classes) -> "Figure":
    """Which class was taken for which; the last column holds probes without an answer.

    Of more than 60 classes, those with the most mistakes.
    """
    title = f"Confusion, {int(classes.support.sum())} probes"
    if len(classes.names) > _CLASSES:
        title = f"{_CLASSES} of {len(classes.names)} classes, those with most mistakes"
        classes = most_confused(classes, _CLASSES)
    count = len(classes.names)
    figure, axes = _figure(size=max(6.0, 0.24 * count + 2.5))
    shares = classes.matrix / np.maximum(1, classes.support)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(count + 1), [*classes.names, "no answer"], rotation=90, fontsize=7)
    axes.set_yticks(range(count), classes.names, fontsize=7)
    for row, column in zip(*np.nonzero(classes.matrix), strict=True):
        dark = shares[row, column] > 0.5
        axes.text(
            column, row, str(classes.matrix[row, column]), ha="center", va="center", fontsize=6,
            color="white" if dark else "black",
        )  # fmt: skip
    axes.set_xlabel("Said")
    axes.set_ylabel("True")
    axes.set_title(title)
    return figure


def svg(figure: "Figure") -> bytes:
    """A figure as SVG, the same bytes for the same data."""
    return _saved(figure, "svg")


def png(figure: "Figure") -> bytes:
    """A figure as PNG."""
    return _saved(figure, "png")


def _saved(figure: "Figure", form: str) -> bytes:
    from matplotlib import rc_context

    target = BytesIO()
    with rc_context(_STYLE):
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(target, format=form, dpi=130, metadata=metadata)
    return target.getvalue()


def _figure(size: float = 6.0) -> "tuple[Figure, Axes]":
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("drawing a report", "evaluation") from error
    with rc_context(_STYLE):
        figure = Figure(figsize=(size, size * 0.8), layout="constrained")
        return figure, figure.add_subplot()


def _probit(rates: Floats) -> Floats:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(rate)) for rate in rates])


def _thinned(x: Floats, y: Floats, most: int = 2000) -> tuple[Floats, Floats]:
    """Points that differ from the one before, and not more than a page can show."""
    keep: NDArray[np.bool_] = np.ones(x.size, bool)
    keep[1:-1] = (np.diff(x)[:-1] != 0) | (np.diff(y)[:-1] != 0)
    x, y = x[keep], y[keep]
    if x.size > most:
        even = np.linspace(0, x.size - 1, most // 2)
        ends = np.geomspace(1, x.size, most // 4) - 1  # logarithmic axes show the ends enlarged
        index = np.unique(np.concatenate([even, ends, x.size - 1 - ends]).astype(np.int64))
        x, y = x[index], y[index]
    return x, y
