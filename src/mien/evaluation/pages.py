"""Figures to the parts of a report: what each kind of evaluation shows, and in which order."""

from collections.abc import Mapping, Sequence

import numpy as np

from mien import decision
from mien.evaluation import plots
from mien.evaluation.calibration import Check
from mien.evaluation.classification import Classes
from mien.evaluation.curves import FAILED, FARS, auc, decide, eer, tars
from mien.evaluation.curves import name as key_of
from mien.evaluation.detection import Precision
from mien.evaluation.identification import cmc, rank_interval
from mien.evaluation.protocols import Pairs, Picture
from mien.evaluation.report import Part, Plate, Plates, Plots, Table, percent
from mien.evaluation.runs import Calibrated, SearchRun, StreamedRun, VerificationRun
from mien.evaluation.vectors import Vectors
from mien.evaluation.verification import Slice, Verification, worst_to_best

WORST = 12  # pairs of a kind on a page


def verification_table(runs: Sequence[VerificationRun]) -> Table:
    """The headline, a column for each model."""
    rows: list[list[str]] = [["accuracy"], ["standard error"], ["AUC"], ["EER"]]
    rows += [[f"TAR at FAR {key_of(far)}"] for far in FARS]
    rows += [["precision"], ["recall"], ["F1"]]
    rows += [["d'"], ["pictures without an embedding"], ["pairs"]]
    for run in runs:
        f, i = run.figures, run.figures.intervals
        tars = [(f.tar_at_far[key_of(far)], i.tar_at_far.get(key_of(far))) for far in FARS]
        column = [
            percent(f.accuracy.mean, f.accuracy.interval),
            percent(f.accuracy.stderr),
            f"{f.auc:.5f} ({i.auc.low:.5f} .. {i.auc.high:.5f})",
            percent(f.eer, i.eer),
            *(percent(*tar) if tar[0] is not None else "too few impostors" for tar in tars),
            *(percent(share) for share in _at_best(f)),
            "-" if f.d_prime is None else f"{f.d_prime:.2f}",
            str(len(run.vectors.failures)),
            f"{len(f.scores):,}, {f.failed} of them failed",
        ]
        for row, cell in zip(rows, column, strict=True):
            row.append(cell)
    note = (
        "In brackets: 95% intervals, people resampled. A failed pair counts as not matching. "
        "Precision, recall and F1 are at the mean of the folds' thresholds."
    )
    return Table("Figures", ["", *(run.model for run in runs)], rows, note)


def _at_best(figures: Verification) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 at the threshold of the accuracy."""
    threshold = float(np.mean(figures.accuracy.thresholds))
    at = decide(figures.scores, figures.same, threshold)
    return at.precision, at.recall, at.f1


def verification(pairs: Pairs, runs: Sequence[VerificationRun]) -> list[Part]:
    """The page of a verification protocol."""
    curves = {run.model: (run.figures.curve, run.figures.intervals) for run in runs}
    drawn = [plots.roc(curves), plots.det(curves)]
    for run in runs:
        f = run.figures
        decades = [kept.point for kept in run.figures.kept if _is_decade(kept.point.fmr)]
        drawn.append(
            plots.histogram(f.scores[f.same], f.scores[~f.same], decades, run.model)
        )  # fmt: skip
        if run.reliability is not None:
            fitted = decision.fit_calibration(f.scores[f.same], f.scores[~f.same])
            drawn.append(plots.reliability(run.reliability, fitted))
    parts: list[Part] = [verification_table(runs), Plots("Curves", drawn)]
    for run in runs:
        parts += _verification_details(pairs, run)
    return parts


def verification_tables(run: VerificationRun) -> list[Table]:
    """What was asked for beside the headline: the card's promise, fresh thresholds, slices."""
    tables = []
    if run.figures.kept:
        tables.append(kept_table(run))
    if run.slices:
        tables.append(slices_table(run.slices))
    if run.calibrated is not None:
        tables += calibration_tables(run.calibrated)
    return tables


def _verification_details(pairs: Pairs, run: VerificationRun) -> list[Part]:
    parts: list[Part] = [*verification_tables(run)]
    scores, same = run.figures.scores, run.figures.same
    alive = scores > FAILED
    genuine = np.flatnonzero(same & alive)
    impostor = np.flatnonzero(~same & alive)
    worst = genuine[np.argsort(scores[genuine], kind="stable")[:WORST]]
    closest = impostor[np.argsort(-scores[impostor], kind="stable")[:WORST]]
    for title, rows in (
        (f"Same person, lowest scores ({run.model})", worst),
        (f"Different people, highest scores ({run.model})", closest),
    ):
        plates = [
            Plate(ends, f"{scores[row]:.4f}  {ends[0].name} / {ends[1].name}")
            for row in rows.tolist()
            for ends in [(pairs.pictures[pairs.a[row]], pairs.pictures[pairs.b[row]])]
        ]
        parts.append(Plates(title, plates, "Wrong labels gather here too: look before you judge."))
    parts += failures(run.model, pairs.pictures, run.vectors)
    return parts


def failures(model: str, pictures: Sequence[Picture], vectors: Vectors) -> list[Part]:
    """The pictures that gave no embedding, if there are any."""
    if not vectors.failures:
        return []
    shown = list(vectors.failures.items())[:48]
    plates = [Plate([pictures[row]], f"{pictures[row].name}: {why}") for row, why in shown]
    note = f"{len(vectors.failures)} of {len(pictures)} pictures; all count against the model."
    return [Plates(f"No embedding ({model})", plates, note)]


def _is_decade(rate: float) -> bool:
    return f"{rate:e}".startswith("1.000000e")


def kept_table(run: VerificationRun) -> Table:
    """What the card's thresholds promise and what these pairs gave."""
    rows = [
        [
            f"{kept.point.fmr:g}",
            f"{kept.point.threshold:.5f}",
            percent(kept.fmr, kept.fmr_interval, 3),
            percent(kept.point.fnmr),
            percent(kept.fnmr, kept.fnmr_interval),
        ]
        for kept in run.figures.kept
    ]
    header = ["FMR promised", "threshold", "FMR measured", "FNMR on the card", "FNMR measured"]
    return Table(f"Operating points of {run.model} on these pairs", header, rows)


def calibration_tables(made: Calibrated) -> list[Table]:
    """Fresh thresholds, on the people they were chosen on and on others."""
    tables = [_checks("Thresholds measured now", made.checks)]
    if made.crowd is not None:
        title = f"Thresholds of searches, with {made.crowd.share:g} of the demand of a crowd"
        tables.append(_checks(title, made.crowd_checks))
    return tables


def _checks(title: str, checks: Sequence[Check]) -> Table:
    rows = [
        [f"{c.point.fmr:g}", f"{c.point.threshold:.5f}", percent(c.point.fnmr),
         f"{c.fmr:.2e}", percent(c.fnmr)]
        for c in checks
    ]  # fmt: skip
    header = ["FMR", "threshold", "FNMR", "FMR of other people", "FNMR of other people"]
    return Table(title, header, rows, checks[0].point.protocol)


def slices_table(slices: Sequence[Slice]) -> Table:
    """Rates by slice at one threshold, with the ratio of worst to best."""
    rows = [
        [f"{s.column} = {s.value}", f"{s.genuine:,}", percent(s.fnmr, s.fnmr_interval),
         f"{s.impostors:,}", percent(s.fmr, s.fmr_interval)]
        for s in slices
    ]  # fmt: skip
    for column in dict.fromkeys(s.column for s in slices):
        mine = [s for s in slices if s.column == column]
        ratios = [worst_to_best([s.fnmr for s in mine]), worst_to_best([s.fmr for s in mine])]
        fnmr, fmr = ("-" if ratio is None else f"x {ratio:.2f}" for ratio in ratios)
        rows.append([f"{column}: worst / best", "", fnmr, "", fmr])
    header = ["slice", "genuine", "FNMR", "impostor", "FMR"]
    return Table("Slices at one threshold for all", header, rows)


def streamed_table(runs: Sequence[StreamedRun]) -> Table:
    """The headline of all pairs, a column for each model."""
    rows: list[list[str]] = [["AUC"], ["EER"], *([f"TAR at FAR {key_of(far)}"] for far in FARS)]
    rows += [["pictures without an embedding"], ["people with two pictures"], ["pairs of people"]]
    for run in runs:
        i = run.intervals
        found = tars(run.curve)
        column = [
            f"{auc(run.curve):.5f} ({i.auc.low:.5f} .. {i.auc.high:.5f})",
            percent(eer(run.curve), i.eer),
            *(
                "too few impostors" if tar is None else percent(tar, i.tar_at_far.get(key))
                for key, tar in found.items()
            ),
            str(len(run.vectors.failures)),
            f"{run.curve.genuine:,}",
            f"{run.curve.impostors:,}",
        ]
        for row, cell in zip(rows, column, strict=True):
            row.append(cell)
    note = (
        "All pairs of pictures, each pair of people counted once; in brackets 95% intervals, "
        "people resampled. A failed picture matches nobody."
    )
    return Table("Figures", ["", *(run.model for run in runs)], rows, note)


def streamed(pictures: Sequence[Picture], runs: Sequence[StreamedRun]) -> list[Part]:
    """The page of all pairs."""
    curves = {run.model: (run.curve, run.intervals) for run in runs}
    parts: list[Part] = [
        streamed_table(runs),
        Plots("Curves", [plots.roc(curves), plots.det(curves)]),
    ]
    for run in runs:
        parts += failures(run.model, pictures, run.vectors)
    return parts


def identification_table(runs: Sequence[SearchRun]) -> Table:
    """The headline of a search, a column for each model."""
    rates = [item.fpir for item in runs[0].open_set]
    rows: list[list[str]] = [["rank 1"], ["rank 5"]]
    rows += [[f"FNIR at FPIR {key_of(rate)}"] for rate in rates]
    rows += [["mated probes"], ["unknown probes"], ["pictures without an embedding"]]
    for run in runs:
        shares = cmc(run.found, 5)
        mated = int(run.found.mated.sum())
        column = [
            percent(float(shares[0]), rank_interval(run.found, 1)),
            percent(float(shares[4]), rank_interval(run.found, 5)),
            *(percent(item.fnir, item.fnir_interval) for item in run.open_set),
            f"{mated:,}",
            f"{run.found.mated.size - mated:,}",
            str(len(run.vectors.failures)),
        ]
        for row, cell in zip(rows, column, strict=True):
            row.append(cell)
    note = (
        "People count alike, however many pictures they have; intervals resample people. "
        "DIR at a FAR is what FNIR at the same FPIR leaves of 100%."
    )
    return Table("Figures", ["", *(run.model for run in runs)], rows, note)


def promises_table(run: SearchRun) -> Table:
    """The FPIR that thresholds promise and what strangers gave, by gallery size."""
    rows = [
        [f"{p.gallery_size:,}", f"{p.asked:g}", f"{p.threshold:.5f}",
         percent(p.measured, p.interval), p.verdict, percent(p.fnir)]
        for p in run.promises
    ]  # fmt: skip
    header = ["gallery", "FPIR promised", "threshold", "FPIR measured", "promise", "FNIR"]
    note = (
        "One picture a person is enrolled, in galleries drawn at random; everybody else is a "
        "stranger. The interval is that of one such gallery."
    )
    return Table(f"The promise of the threshold rule ({run.model})", header, rows, note)


def identification(pictures: Sequence[Picture], runs: Sequence[SearchRun]) -> list[Part]:
    """The page of an identification protocol."""
    found = {run.model: run.found for run in runs}
    marks = {run.model: run.open_set for run in runs}
    parts: list[Part] = [
        identification_table(runs),
        Plots("Curves", [plots.identification(found, marks), plots.cumulative_match(found)]),
    ]
    for run in runs:
        if run.promises:
            parts.append(promises_table(run))
        parts += failures(run.model, pictures, run.vectors)
    return parts


def detection(measured: Mapping[str, Precision]) -> list[Part]:
    """The page of a detection protocol."""
    rows = [
        [label, percent(item.ap, item.interval), f"{item.faces:,}"]
        for label, item in measured.items()
    ]
    table = Table("Figures", ["faces", "average precision", "number"], rows)
    return [table, Plots("Curves", [plots.precision_recall(measured)])]


def classification(classes: Classes) -> list[Part]:
    """The page of a closed-set classification."""
    rows = [
        [name, *(percent(None if np.isnan(v) else float(v), None, 1) for v in values), str(support)]
        for name, *values, support in zip(
            classes.names, classes.precision, classes.recall, classes.f1,
            classes.support.tolist(), strict=True,
        )
    ]  # fmt: skip
    rows.append(["accuracy", "", percent(classes.accuracy, classes.accuracy_interval), "", ""])
    rows.append(["macro F1", "", "", percent(classes.macro_f1), ""])
    header = ["class", "precision", "recall", "F1", "probes"]
    return [Plots("Confusion", [plots.confusion(classes)]), Table("By class", header, rows)]
