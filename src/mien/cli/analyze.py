"""mien analyze"""

from pathlib import Path

import click

from mien import cards
from mien.attributes import TASKS, Analyzer, load_analyzer
from mien.cli import options
from mien.cli.batch import Album, Batch
from mien.cli.output import emit, rounded
from mien.drawing import FOUND, NAMED, UNKNOWN, Mark, annotate
from mien.images import Source, read_image
from mien.recognition import load_detector, processors
from mien.types import Analysis, Category, Image, Liveness

LABELLED = ("gender", "expression", "ethnicity")


@click.command()
@options.pictures
@click.option("--tasks", metavar="TASK[,TASK...]",
              help=f"Which of: {', '.join(TASKS)}. TASK=ID takes another model.  "
              "[default: all whose models are here, except ethnicity]")  # fmt: skip
@options.save
@options.min_face
@options.model
@options.threads
@options.as_json
def command(
    paths: tuple[str, ...],
    tasks: str | None,
    save: Path | None,
    min_face: float | None,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say what faces look like: quality, pose, age, gender, expression, liveness.

    Quality and pose need no model and are always there. A task named with --tasks fails when its
    model is not here; without --tasks it is left out, and said to be. These are guesses from
    looks: gender, age and ethnicity are not who somebody is.

    \b
    mien analyze photo.jpg
    mien analyze door.jpg --tasks liveness --json
    mien analyze party/ --save marked/
    """
    names = None if tasks is None else [task.strip() for task in tasks.split(",") if task.strip()]
    analyzer = load_analyzer(names, model=model)
    detector = load_detector(cards.bundle(model).detector, min_face=min_face)
    batch = Batch(paths)
    album = Album(save, batch.items) if save else None

    def work(source: Source) -> tuple[Image, list[Analysis]]:
        image = read_image(source)
        return image, analyzer.analyze(image, detector.detect(image))

    for name, (image, seen) in batch.run(work, threads or processors()):
        if album:
            album.save(name, annotate(image, [_mark(face) for face in seen]))
        if as_json:
            emit({"image": name, "faces": [_row(face) for face in seen]})
        else:
            _print(name, seen)
    _say_missing(analyzer)
    batch.finish()


def _say_missing(analyzer: Analyzer) -> None:
    for task, why in analyzer.missing.items():
        click.echo(f"mien: {task} was left out: {why}", err=True)


def _row(seen: Analysis) -> dict[str, object]:
    """One face as JSON; null stands for what was not asked for or has no model here."""
    box, pose = seen.face.box, seen.pose
    return {
        "box": rounded((box.left, box.top, box.right, box.bottom)),
        "confidence": round(seen.face.confidence, 4),
        "quality": round(seen.quality.value, 3),
        "reasons": list(seen.quality.reasons),
        "pose": dict(zip(("yaw", "pitch", "roll"),
                         rounded((pose.yaw, pose.pitch, pose.roll), 1), strict=True)),
        "age": seen.age and {"years": round(seen.age.years, 1), "low": round(seen.age.low, 1),
                             "high": round(seen.age.high, 1)},
        **{task: _category(getattr(seen, task)) for task in LABELLED},
        "liveness": _liveness(seen.liveness),
    }  # fmt: skip


def _category(found: Category | None) -> dict[str, object] | None:
    if found is None:
        return None
    shares = {label: round(share, 4) for label, share in found.probabilities.items()}
    return {"label": found.label, "probability": round(found.probability, 4),
            "probabilities": shares}  # fmt: skip


def _liveness(found: Liveness | None) -> dict[str, object] | None:
    if found is None:
        return None
    point = found.operating_point
    return {
        "live": found.live, "score": round(found.score, 4), "threshold": point.threshold,
        "apcer": point.apcer, "bpcer": point.bpcer, "protocol": point.protocol,
    }  # fmt: skip


def _print(name: str, faces: list[Analysis]) -> None:
    click.echo(name if faces else f"{name}  no face")
    for seen in faces:
        box = seen.face.box
        why = f" ({', '.join(seen.quality.reasons)})" if seen.quality.reasons else ""
        words = [f"quality {seen.quality.value:.2f}{why}", _pose(seen), *_answers(seen)]
        click.echo(f"  at ({box.left:.0f}, {box.top:.0f})  " + "  ".join(words))


def _pose(seen: Analysis) -> str:
    pose = seen.pose
    return f"yaw {round(pose.yaw):+d} pitch {round(pose.pitch):+d} roll {round(pose.roll):+d}"


def _answers(seen: Analysis) -> list[str]:
    """The answers of the networks, a phrase each."""
    words = []
    if seen.age:
        words.append(f"age {seen.age.years:.0f} ({seen.age.low:.0f} to {seen.age.high:.0f})")
    labels = (getattr(seen, task) for task in LABELLED)
    words += [f"{found.label} {found.probability:.2f}" for found in labels if found]
    if seen.liveness:
        point = seen.liveness.operating_point
        verdict = "live" if seen.liveness.live else "not live"
        words.append(f"{verdict} {seen.liveness.score:.2f}, needs {point.threshold:.2f}")
    return words


def _mark(seen: Analysis) -> Mark:
    lines = (*_answers(seen), f"quality {seen.quality.value:.2f}", _pose(seen))
    colour = FOUND if seen.liveness is None else NAMED if seen.liveness.live else UNKNOWN
    return Mark(seen.face.box, lines, colour, seen.face.landmarks)
