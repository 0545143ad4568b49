"""mien evaluate"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from mien import cards
from mien.cards import Bundle
from mien.cli.batch import progress
from mien.cli.measuring import Run, file, folder, running
from mien.detection import Detector
from mien.errors import InputError
from mien.evaluation import (
    card,
    cfp,
    ijb,
    lfw,
    packed,
    pages,
    protocols,
    report,
    runs,
    verification,
    wider,
)
from mien.evaluation import classification as classes
from mien.evaluation import detection as detecting
from mien.evaluation import identification as searching
from mien.evaluation.curves import best_threshold
from mien.evaluation.protocols import Pairs, People
from mien.evaluation.report import Table
from mien.evaluation.runs import Calibrated, SearchRun, StreamedRun, VerificationRun
from mien.images import read_image
from mien.recognition import ordered_map

GALLERY_SIZES = (10, 100, 200, 500, 1000)
FPIRS = (1e-2, 1e-1)

Keeping = Callable[[Bundle, Calibrated], None]
"""What becomes of thresholds that were measured now."""


def calibrating(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of measuring thresholds; they arrive as `calibrate` and `keeping`."""

    @wraps(function)
    def wrapped(calibrate: bool, target: Path | None, own: str | None, **given: Any) -> Any:
        keeping = _keeping(target, own)
        if keeping and len(given["models"]) > 1:
            raise InputError("one card takes the thresholds of one model: give --model once")
        return function(calibrate=calibrate or keeping is not None, keeping=keeping, **given)

    made: Callable[..., Any] = wrapped
    for decorate in (
        click.option("--write", "target", type=file, metavar="CARD.toml",
                     help="Calibrate, and put what was measured into this bundle's card."),
        click.option("--as", "own", metavar="ID",
                     help="Calibrate, and keep the model under this name with what was measured, "
                     "for --model ID."),
        click.option("--calibrate", is_flag=True,
                     help="Measure thresholds at false match rates of 1e-1 to 5e-6, those of "
                     "searches among them, and check them on others."),
    ):  # fmt: skip
        made = decorate(made)
    return made


def _keeping(target: Path | None, own: str | None) -> Keeping | None:
    if target is not None and own is not None:
        raise InputError("--write changes a card, --as makes one: give one of the two")
    if own is not None:
        cards.own_bundle(own)  # refuses a name before an hour is spent on it

    def keep(bundle: Bundle, made: Calibrated) -> None:
        if own is not None:
            place = card.keep(own, bundle, made.points, made.crowd)
            click.echo(f"{bundle.id} with these thresholds is --model {own} ({place})", err=True)
        elif target is not None:
            card.write(target, made.points, made.crowd)
            click.echo(
                f"{len(made.points)} thresholds of {bundle.id} written to {target}", err=True
            )

    return keep if target or own else None


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
@running
def lfw_(run: Run, data: Path, view: str, calibrate: bool, keeping: Keeping | None) -> None:
    """Labeled Faces in the Wild, View 2 (6,000 pairs) or View 1.

    Thresholds are calibrated on the people of peopleDevTrain and checked on peopleDevTest.

    \b
    mien evaluate lfw --data lfw --json
    mien evaluate lfw --data lfw --model embedded --model embedded-accurate -o report.html
    mien evaluate lfw --data lfw --calibrate
    """
    pairs = lfw.view2(data) if view == "2" else lfw.view1(data, "Test")
    train = lfw.view1(data, "Train") if view == "1" else None
    groups = None
    if calibrate:
        groups = (lfw.album(data, "DevTrain"), lfw.album(data, "DevTest"))
    source = (
        "LFW View 1 (deep-funneled), all pairs of {people:,} people of peopleDevTrain, "
        "each pair of people weighted alike"
    )
    _verify(run, pairs, data, train=train, groups=groups, source=source, keeping=keeping)


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
@click.option("--all-pairs", "every", is_flag=True,
              help="Draw none: count every pair, each pair of people once.")  # fmt: skip
@calibrating
@running
def folder_(
    run: Run,
    path: Path,
    count: int,
    seed: int,
    every: bool,
    calibrate: bool,
    keeping: Keeping | None,
) -> None:
    """Your own people: one sub-folder of FOLDER a person.

    With --calibrate every pair counts: thresholds come from one half of the people and are
    checked on the other. --as keeps them, for every verb that takes --model.

    \b
    mien evaluate folder people -o report.html
    mien evaluate folder people --all-pairs
    mien evaluate folder people --model sface --calibrate
    mien evaluate folder people --model sface --as sface-ours
    """
    group = protocols.read_people(path)
    if every:
        if calibrate:
            raise InputError("--calibrate counts every pair anyway: leave --all-pairs out")
        _stream(run, group, path)
        return
    groups = protocols.halves(group, seed) if calibrate else None
    source = f"{group.name}, all pairs of {{people:,}} people, each pair of people weighted alike"
    pairs = protocols.draw_pairs(group, count, seed)
    _verify(run, pairs, path, groups=groups, source=source, keeping=keeping)


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
    as_pairs = ijb.as_pairs(protocol)
    made: list[VerificationRun] = []
    for model in run.models:
        recognizer = run.recognizer(model)
        vectors = run.embed(recognizer, protocol.pictures)
        scores = ijb.template_scores(protocol, ijb.fuse(protocol, vectors))
        accuracy = verification.cross_validated(as_pairs, scores)
        figures = verification.measure(as_pairs, scores, accuracy)
        made.append(VerificationRun(model, vectors, figures))
    run.show(pages.verification_table(made))
    results = {item.model: runs.verification_json(item) for item in made}
    run.finish(
        protocol.name, recognizer, media, results, lambda: pages.verification(as_pairs, made)
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
    made: list[SearchRun] = []
    for model in run.models:
        recognizer = run.recognizer(model)
        vectors = run.embed(recognizer, group.pictures)
        people = (group, vectors)
        made.append(runs.search(recognizer.bundle, people, split, FPIRS, wanted, seed))
    run.show(pages.identification_table(made))
    for item in made:
        if item.promises:
            run.show(pages.promises_table(item))
    title = f"open-set identification, {group.name}"
    results = {item.model: runs.search_json(item) for item in made}
    run.finish(title, recognizer, path, results, lambda: pages.identification(group.pictures, made))


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


def _stream(run: Run, group: People, data: Path) -> None:
    made: list[StreamedRun] = []
    for model in run.models:
        recognizer = run.recognizer(model)
        people = (group, run.embed(recognizer, group.pictures))
        made.append(runs.stream(recognizer.bundle, people))
    run.show(pages.streamed_table(made))
    results = {item.model: runs.streamed_json(item) for item in made}
    title = f"all pairs of {group.name}"
    run.finish(title, recognizer, data, results, lambda: pages.streamed(group.pictures, made))


def _verify(
    run: Run,
    pairs: Pairs,
    data: Path,
    *,
    train: Pairs | None = None,
    groups: tuple[People, People] | None = None,
    source: str = "",
    keeping: Keeping | None = None,
    columns: Sequence[str] = (),
    fmr: float = 1e-3,
) -> None:
    made: list[VerificationRun] = []
    for model in run.models:
        recognizer = run.recognizer(model)
        vectors = run.embed(recognizer, pairs.pictures, pairs)
        scores = vectors.scores(pairs.a, pairs.b)
        if train is None:
            accuracy = verification.cross_validated(pairs, scores)
        else:
            before = run.embed(recognizer, train.pictures, train)
            threshold = best_threshold(before.scores(train.a, train.b), train.same)
            accuracy = verification.at_threshold(pairs, scores, threshold)
        slices = [
            part
            for column in columns
            for part in verification.slices(
                pairs, scores, column, recognizer.operating_point(fmr).threshold
            )
        ]
        calibrated = None
        if groups is not None:
            some, others = ((group, run.embed(recognizer, group.pictures)) for group in groups)
            calibrated = runs.calibrate(some, others, source)
        made.append(
            runs.verify(
                recognizer.bundle, pairs, vectors, accuracy, slices=slices, calibrated=calibrated
            )
        )
        if calibrated is not None and keeping is not None:
            keeping(recognizer.bundle, calibrated)
    run.show(pages.verification_table(made))
    for item in made:
        for part in pages.verification_tables(item):
            run.show(part)
        if item.calibrated is not None and keeping is None and not run.as_json:
            click.echo("\n" + card.points_toml(item.calibrated.points).rstrip())
    results = {item.model: runs.verification_json(item) for item in made}
    run.finish(pairs.name, recognizer, data, results, lambda: pages.verification(pairs, made))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"{text!r} is not a list of numbers such as 10,100,1000") from error
