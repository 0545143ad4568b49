"""mien evaluate"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from mien.cli import options
from mien.cli.batch import progress
from mien.cli.output import emit, table
from mien.detection import Choose, Detector
from mien.errors import InputError
from mien.evaluation import (
    calibration,
    cfp,
    ijb,
    lfw,
    packed,
    pages,
    protocols,
    report,
    vectors,
    verification,
    wider,
)
from mien.evaluation import classification as classes
from mien.evaluation import detection as detecting
from mien.evaluation import identification as searching
from mien.evaluation.curves import best_threshold, name, tally_curve
from mien.evaluation.pages import Part, SearchRun, VerificationRun
from mien.evaluation.protocols import Pairs, People, Picture
from mien.evaluation.report import Report, Table
from mien.evaluation.vectors import Vectors
from mien.images import read_image
from mien.recognition import Recognizer, load, ordered_map

GALLERY_SIZES = (10, 100, 200, 500, 1000)
FPIRS = (1e-2, 1e-1)

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

    def wrapped(**given: Any) -> Any:
        own = ("models", "choose", "threads", "cached", "as_json", "output")
        return function(run=Run(**{key: given.pop(key) for key in own}), **given)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
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
        wrapped = decorate(wrapped)
    return wrapped


calibrating = click.option(
    "--calibrate", is_flag=True,
    help="Measure thresholds at false match rates of 1e-1 to 5e-6, and check them on others.",
)  # fmt: skip
writing = click.option(
    "--write", "card", type=file, metavar="CARD.toml",
    help="Put the thresholds into this bundle's card instead of printing them.",
)  # fmt: skip


@click.group()
def command() -> None:
    """Measure error rates, with intervals, on public protocols or on your own pictures.

    Every picture counts: one without a face is a failure to enrol and matches nobody.
    """


@command.command("lfw")
@click.option("--data", type=folder, required=True, metavar="DIR",
              help="LFW: its protocol files and its pictures.")  # fmt: skip
@click.option("--view", type=click.Choice(["1", "2"]), default="2", show_default=True,
              help="2: ten folds, for results. 1: one split, for development.")  # fmt: skip
@calibrating
@writing
@running
def lfw_(run: Run, data: Path, view: str, calibrate: bool, card: Path | None) -> None:
    """Labeled Faces in the Wild, View 2 (6,000 pairs) or View 1.

    Thresholds are calibrated on the people of peopleDevTrain and checked on peopleDevTest.

    \b
    mien evaluate lfw --data lfw --json
    mien evaluate lfw --data lfw --model embedded --model embedded-accurate -o report.html
    mien evaluate lfw --data lfw --calibrate
    """
    _refuse_several(run, card)
    pairs = lfw.view2(data) if view == "2" else lfw.view1(data, "Test")
    train = lfw.view1(data, "Train") if view == "1" else None
    groups = None
    if calibrate:
        groups = (lfw.album(data, "DevTrain"), lfw.album(data, "DevTest"))
    source = (
        "LFW View 1 (deep-funneled), all pairs of the {people:,} people of peopleDevTrain, "
        "each pair of people weighted alike"
    )
    _verify(run, pairs, data, train=train, groups=groups, source=source, card=card)


@command.command("pairs")
@click.argument("path", type=file, metavar="TABLE")
@click.option("--root", type=folder, metavar="DIR",
              help="Where the pictures lie.  [default: beside the table]")  # fmt: skip
@click.option("--slice", "columns", multiple=True, metavar="COLUMN",
              help="Rates for each value of a column, at one threshold.")  # fmt: skip
@click.option("--fmr", default=1e-3, show_default=True, metavar="RATE",
              help="The operating point at which slices are compared.")  # fmt: skip
@running
def pairs_(run: Run, path: Path, root: Path | None, columns: tuple[str, ...], fmr: float) -> None:
    """Your own pairs, or a .bin set of the ArcFace lineage.

    TABLE is CSV with the columns file1, file2, same (1 or 0), and if you like fold, person1,
    person2, and any others to slice by.

    \b
    mien evaluate pairs pairs.csv --root pictures -o report.html
    mien evaluate pairs pairs.csv --slice age --slice sex --fmr 1e-3
    mien evaluate pairs agedb_30.bin
    """
    is_packed = path.suffix.lower() == ".bin"
    pairs = packed.read_bin(path) if is_packed else protocols.read_pairs_csv(path, root)
    _verify(run, pairs, path, columns=columns, fmr=fmr)


@command.command("folder")
@click.argument("path", type=folder, metavar="FOLDER")
@click.option("--pairs", "count", type=click.IntRange(min=10), default=3000, show_default=True,
              help="How many genuine and how many impostor pairs to draw.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Which pairs are drawn.")
@calibrating
@writing
@running
def folder_(
    run: Run, path: Path, count: int, seed: int, calibrate: bool, card: Path | None
) -> None:
    """Your own people: one sub-folder of FOLDER a person.

    With --calibrate every pair counts: thresholds come from one half of the people and are
    checked on the other.

    \b
    mien evaluate folder people -o report.html
    mien evaluate folder people --calibrate
    """
    _refuse_several(run, card)
    group = protocols.read_people(path)
    groups = protocols.halves(group, seed) if calibrate else None
    source = f"{group.name}, all pairs of {{people:,}} people, each pair of people weighted alike"
    pairs = protocols.draw_pairs(group, count, seed)
    _verify(run, pairs, path, groups=groups, source=source, card=card)


@command.command("cfp")
@click.option("--data", type=folder, required=True, metavar="DIR", help="CFP: Data and Protocol.")
@click.option("--kind", type=click.Choice(["FF", "FP"]), default="FP", show_default=True,
              help="Frontal to frontal, or frontal to profile.")  # fmt: skip
@running
def cfp_(run: Run, data: Path, kind: Literal["FF", "FP"]) -> None:
    """Celebrities in Frontal-Profile."""
    _verify(run, cfp.read_cfp(data, kind), data)


@command.command("templates")
@click.argument("media", type=file)
@click.argument("pairs", type=file)
@click.option("--root", type=folder, required=True, metavar="DIR", help="Where the pictures lie.")
@running
def templates_(run: Run, media: Path, pairs: Path, root: Path) -> None:
    """Templates of several pictures, as in IJB-B and IJB-C.

    MEDIA has a picture, its template and its medium a line; PAIRS two templates and 1 or 0.
    Templates that genuine pairs link are taken to be one person.
    """
    protocol = ijb.read_templates(media, pairs, root)
    results = {}
    runs = []
    for model in run.models:
        recognizer = run.recognizer(model)
        made = run.embed(recognizer, protocol.pictures)
        scores = ijb.template_scores(protocol, ijb.fuse(protocol, made))
        as_pairs = ijb.as_pairs(protocol)
        figures = verification.measure(
            as_pairs, scores, verification.cross_validated(as_pairs, scores)
        )
        results[model] = verification.summary(figures, len(made.failures))
        runs.append(VerificationRun(model, made, figures))
    run.show(pages.verification_table(runs))
    run.finish(
        protocol.name, recognizer, media, results, lambda: pages.verification(as_pairs, runs)
    )


@command.command("identification")
@click.argument("path", type=folder, metavar="FOLDER")
@click.option("--people", "listed", type=file, metavar="FILE",
              help="Only the people named there, one a line.")  # fmt: skip
@click.option("--keep-back", type=click.IntRange(min=1), default=1, show_default=True,
              help="How many pictures of each enrolled person are searched with.")  # fmt: skip
@click.option("--sizes", default=",".join(map(str, GALLERY_SIZES)), show_default=True,
              metavar="N,N", help="Gallery sizes to check the threshold's promise at.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Which pictures and people are drawn.")
@running
def identification_(
    run: Run, path: Path, listed: Path | None, keep_back: int, sizes: str, seed: int
) -> None:
    """Open-set search: some people are enrolled, the others are strangers.

    FOLDER has one sub-folder a person. Those with more pictures than are kept back are enrolled;
    everybody else is a stranger. The promise of the thresholds is checked in galleries drawn at
    random, one picture a person: use people whom the model's thresholds were not measured on.

    \b
    mien evaluate identification lfw/lfw-deepfunneled --people lfw/peopleDevTest.txt
    """
    group = protocols.read_people(path)
    if listed is not None:
        group = protocols.only(group, protocols.read_names(listed), listed.stem)
    wanted = [size for size in _numbers(sizes) if size < len(group.names)]
    split = searching.split_by_pictures(group, keep_back, seed)
    results, runs = {}, []
    for model in run.models:
        recognizer = run.recognizer(model)
        made = run.embed(recognizer, group.pictures)
        found = searching.run(group, made, split)
        strangers = np.unique(found.person[~found.mated]).size
        at = [searching.open_set(found, rate, seed) for rate in FPIRS if rate * strangers >= 1]
        points = recognizer.bundle.operating_points
        promises = searching.check_promise(group, made, points, FPIRS, wanted, seed=seed)
        runs.append(SearchRun(model, made, found, at, promises))
        results[model] = _search_figures(runs[-1], split)
    run.show(pages.identification_table(runs))
    for item in runs:
        run.show(pages.promises_table(item.promises))
    title = f"open-set identification, {group.name}"
    run.finish(title, recognizer, path, results, lambda: pages.identification(group.pictures, runs))


@command.command("classification")
@click.argument("known", type=folder, metavar="KNOWN")
@click.argument("probes", type=folder, metavar="PROBES")
@running
def classification_(run: Run, known: Path, probes: Path) -> None:
    """Closed set: who of KNOWN is on each picture of PROBES?

    Both have one sub-folder a person. The answer is the person whose mean embedding is nearest.
    """
    learnt, asked = protocols.read_people(known), protocols.read_people(probes)
    place = {person: number for number, person in enumerate(learnt.names)}
    strangers = [person for person in asked.names if person not in place]
    if strangers:
        raise InputError(f"{probes / strangers[0]} shows somebody who is not in {known}")
    truth = np.array([place[asked.names[number]] for number in asked.person.tolist()])
    results, measured = {}, {}
    for model in run.models:
        recognizer = run.recognizer(model)
        base, made = run.embed(recognizer, learnt.pictures), run.embed(recognizer, asked.pictures)
        said = classes.nearest(base.matrix, learnt.person, made.matrix, len(learnt.names))
        outcome = classes.classify(truth, said, learnt.names)
        measured[model] = outcome
        results[model] = {
            "accuracy": round(outcome.accuracy, 6),
            "accuracy_interval": verification.pair(outcome.accuracy_interval),
            "macro_f1": round(outcome.macro_f1, 6),
            "failure_to_enrol": len(base.failures) + len(made.failures),
            "n_probes": int(outcome.support.sum()),
            "n_classes": len(outcome.names),
        }
    rows = [
        [model, report.percent(item.accuracy, item.accuracy_interval), f"{item.macro_f1:.4f}"]
        for model, item in measured.items()
    ]
    run.show(Table("Figures", ["model", "accuracy", "macro F1"], rows))
    run.finish(
        f"closed-set classification, {asked.name}", recognizer, probes, results,
        lambda: [part for item in measured.values() for part in pages.classification(item)],
    )  # fmt: skip


@command.command("detection")
@click.argument("data", type=folder, metavar="DIR")
@running
def detection_(run: Run, data: Path) -> None:
    """Average precision of the detector by the rules of WIDER FACE.

    DIR has annotations `*bbx_gt.txt`, a folder `images`, and, for the levels easy, medium and
    hard, the lists wider_easy_val.mat and so on; without them every valid face counts.
    """
    annotations = sorted(data.glob("*bbx_gt.txt"))
    if len(annotations) != 1:
        raise InputError(f"{data} has {len(annotations)} files *bbx_gt.txt; one was expected")
    scenes = wider.read_wider(annotations[0], data / "images")
    levels = wider.levels(data, scenes)
    results, measured = {}, {}
    for model in run.models:
        recognizer = run.recognizer(model)
        detector = recognizer.detector

        def detect(scene: wider.Scene, detector: Detector = detector) -> detecting.Detections:
            return detecting.detections(detector.detect(read_image(scene.picture.source)))

        found = ordered_map(detect, scenes, recognizer.threads)
        boxes = list(progress(found, len(scenes), "picture"))
        items = {
            level: detecting.average_precision(chosen, boxes) for level, chosen in levels.items()
        }
        measured.update({f"{model}, {level}": item for level, item in items.items()})
        results[model] = {
            "average_precision": {level: round(item.ap, 6) for level, item in items.items()},
            "intervals": {level: verification.pair(i.interval) for level, i in items.items()},
            "n_pictures": len(scenes),
            "n_faces": {level: item.faces for level, item in items.items()},
        }
    parts = pages.detection(measured)
    run.show(next(part for part in parts if isinstance(part, Table)))
    run.finish(f"detection, {annotations[0].stem}", recognizer, data, results, lambda: parts)


def _verify(
    run: Run,
    pairs: Pairs,
    data: Path,
    *,
    train: Pairs | None = None,
    groups: tuple[People, People] | None = None,
    source: str = "",
    card: Path | None = None,
    columns: Sequence[str] = (),
    fmr: float = 1e-3,
) -> None:
    results, runs = {}, []
    for model in run.models:
        recognizer = run.recognizer(model)
        made = run.embed(recognizer, pairs.pictures, pairs)
        scores = made.scores(pairs.a, pairs.b)
        if train is None:
            accuracy = verification.cross_validated(pairs, scores)
        else:
            before = run.embed(recognizer, train.pictures, train)
            threshold = best_threshold(before.scores(train.a, train.b), train.same)
            accuracy = verification.at_threshold(pairs, scores, threshold)
        impostors = int((~pairs.same).sum())
        points = [p for p in recognizer.bundle.operating_points if p.fmr * impostors >= 1]
        figures = verification.measure(pairs, scores, accuracy, points)
        fold = protocols.folds_of(pairs)
        slices = [
            item
            for column in columns
            for item in verification.slices(
                pairs, scores, column, recognizer.operating_point(fmr).threshold
            )
        ]
        checks = _calibrate(run, recognizer, groups, source) if groups else []
        runs.append(
            VerificationRun(
                model, made, figures, calibration.reliability(scores, pairs.same, fold),
                slices, checks,
            )
        )  # fmt: skip
        results[model] = _verification_figures(runs[-1])
    run.show(pages.verification_table(runs))
    for item in runs:
        _show_details(run, item)
        if item.checks and card is not None:
            _write_card(card, item)
        elif item.checks and not run.as_json:
            points = [check.point for check in item.checks]
            click.echo("\n" + calibration.to_toml(points, points[0].protocol).rstrip())
    run.finish(pairs.name, recognizer, data, results, lambda: pages.verification(pairs, runs))


def _show_details(run: Run, item: VerificationRun) -> None:
    if item.figures.kept:
        run.show(pages.kept_table(item))
    if item.slices:
        run.show(pages.slices_table(item.slices))
    if item.checks:
        run.show(pages.checks_table(item.checks))


def _calibrate(
    run: Run, recognizer: Recognizer, groups: tuple[People, People], source: str
) -> list[calibration.Check]:
    """Thresholds from all pairs of the first people, checked on all pairs of the second."""
    curves = [
        tally_curve(*calibration.all_pairs(group, run.embed(recognizer, group.pictures)))
        for group in groups
    ]
    protocol = source.format(people=len(groups[0].names))
    points = calibration.operating_points(curves[0], protocol, recognizer.contract)
    return calibration.check(points, curves[1])


def _write_card(card: Path, item: VerificationRun) -> None:
    """Replace the thresholds of a bundle's card, and leave the rest of the file alone."""
    points = [check.point for check in item.checks]
    fresh = calibration.to_toml(points, points[0].protocol)
    try:
        text = card.read_text(encoding="utf-8")
        kept, count = re.subn(
            r'protocol = "[^"\n]*"\noperating_points = \[.*?\n?\]\n', lambda _: fresh, text,
            flags=re.DOTALL,
        )  # fmt: skip
        if count != 1:
            raise InputError(f"{card} has no 'protocol' followed by 'operating_points'")
        card.write_text(kept, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {card}: {error.strerror}") from error
    click.echo(f"{len(points)} thresholds of {item.model} written to {card}", err=True)


def _refuse_several(run: Run, card: Path | None) -> None:
    if card is not None and len(run.models) > 1:
        raise InputError("one card takes the thresholds of one model: give --model once")


def _verification_figures(item: VerificationRun) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "contract": item.vectors.contract,
        **verification.summary(item.figures, len(item.vectors.failures)),
    }
    if item.reliability is not None:
        figures["ece"] = round(item.reliability.ece, 6)
        figures["cllr"] = round(item.reliability.cllr, 6)
    if item.slices:
        figures["slices"] = [
            {
                "column": s.column, "value": s.value, "genuine": s.genuine,
                "impostors": s.impostors,
                "fmr": s.fmr, "fmr_interval": s.fmr_interval and verification.pair(s.fmr_interval),
                "fnmr": s.fnmr,
                "fnmr_interval": s.fnmr_interval and verification.pair(s.fnmr_interval),
            }
            for s in item.slices
        ]  # fmt: skip
    if item.checks:
        figures["calibration"] = [
            {
                "fmr": check.point.fmr, "threshold": round(check.point.threshold, 5),
                "fnmr": round(check.point.fnmr, 6), "other_people_fmr": check.fmr,
                "other_people_fnmr": round(check.fnmr, 6),
            }
            for check in item.checks
        ]  # fmt: skip
    return figures


def _search_figures(item: SearchRun, split: searching.Split) -> dict[str, Any]:
    shares = searching.cmc(item.found, 5)
    mated = int(item.found.mated.sum())
    return {
        "contract": item.vectors.contract,
        "rank_1": round(float(shares[0]), 6),
        "rank_5": round(float(shares[4]), 6),
        "fnir_at_fpir": {name(at.fpir): round(at.fnir, 6) for at in item.open_set},
        "fnir_at_fpir_intervals": {
            name(at.fpir): verification.pair(at.fnir_interval) for at in item.open_set
        },
        "failure_to_enrol": len(item.vectors.failures),
        "n_enrolled": len(split.enrolled),
        "n_mated": mated,
        "n_unknown": int(item.found.mated.size - mated),
        "promises": [
            {
                "gallery_size": p.gallery_size, "fpir": p.asked, "threshold": round(p.threshold, 5),
                "measured_fpir": round(p.measured, 6),
                "measured_fpir_interval": verification.pair(p.interval),
                "verdict": pages.verdict(p),
                "fnir": None if p.fnir is None else round(p.fnir, 6),
            }
            for p in item.promises
        ],
    }  # fmt: skip


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"{text!r} is not a list of numbers such as 10,100,1000") from error
