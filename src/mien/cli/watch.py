"""mien watch"""

import queue
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

import click

from mien import decision
from mien.cli import options
from mien.cli.batch import progress
from mien.cli.output import counted, emit, one_in
from mien.drawing import FOUND, NAMED, UNKNOWN, Mark, annotate
from mien.errors import InputError
from mien.gallery import Gallery, open_gallery
from mien.recognition import Recognizer, load
from mien.video import Event, Film, Scene, Tracked, VideoFrame, Watcher, is_live, watch
from mien.video.reading import frame_count, read_video, shown

T = TypeVar("T")

_AHEAD = 8  # results of the threads that may wait to be printed and saved


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.mp4",
              help="Write the video there with tracks and names drawn on it; of several sources, "
              "to FILE-1.mp4, FILE-2.mp4, ...")  # fmt: skip
@click.option("--every", default=5, show_default=True, type=click.IntRange(min=1), metavar="N",
              help="Search every N-th frame for faces; in between they move on.")  # fmt: skip
@click.option("--patience", default=2.0, show_default=True, type=click.FloatRange(min=0),
              metavar="SECONDS", help="A face that is not found for so long has left.")  # fmt: skip
@click.option("--fpir", default=1e-2, show_default=True, metavar="RATE",
              help="Share of strangers, counted as tracks, that may be given a name.")  # fmt: skip
@options.min_face
@options.gallery
@options.model
@options.threads
@options.as_json
def command(
    sources: tuple[str, ...],
    save: Path | None,
    every: int,
    patience: float,
    fpir: float,
    min_face: float | None,
    uri: str,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say who appears in a video: one decision for each person followed, not one a frame.

    SOURCE is a video file, the number of a camera, or an address such as rtsp://... or http://...
    Live sources drop frames rather than fall behind, and are connected again when they are lost;
    Ctrl-C stops them. "decided" tells of a person as soon as there is a name or, after several
    looks, none; "ended" sums up when they have gone.

    \b
    mien watch 0
    mien watch hall.mp4 --save marked.mp4
    mien watch rtsp://door.local/1 rtsp://gate.local/1 --json
    """
    recognizer = load(model, threads=threads, min_face=min_face)
    refused: list[InputError] = []
    with (
        open_gallery(uri, create=False) as gallery,
        ExitStack() as stack,
        _stopped_by_signals() as stop,
    ):
        films = [stack.enter_context(Film(path)) for path in _targets(save, sources)]
        watchers = [Watcher(recognizer, gallery, fpir=fpir, patience=patience) for _ in sources]
        _explain(gallery, recognizer, fpir)

        def steps(source: str, watcher: Watcher) -> Iterator[_Step]:
            frames = read_video(source, stop=stop, report=_say)
            ahead = 1 if is_live(source) else recognizer.threads
            try:
                for frame, scene in watch(frames, recognizer, watcher, every=every, threads=ahead):
                    yield _Step(frame, scene)
            except InputError as error:
                refused.append(error)
                _say(str(error))
            yield _Step(None, Scene((), tuple(watcher.finish())))

        streams = [steps(*one) for one in zip(sources, watchers, strict=True)]
        for number, step in progress(merged(streams, stop), _total(sources), "frame"):
            for event in step.scene.events:
                if as_json:
                    emit(_row(shown(sources[number]), event, fpir))
                else:
                    _print(shown(sources[number]) if len(sources) > 1 else "", event)
            if films and step.frame is not None:
                marks = [_mark(track) for track in step.scene.tracks]
                films[number].add(annotate(step.frame.decode(), marks), step.frame.time)
        if stop.is_set():
            raise KeyboardInterrupt
    if refused:
        click.get_current_context().exit(2)


@dataclass(frozen=True, slots=True)
class _Step:
    """What a source gives: a frame and its scene, or, at its end, no frame and the last events."""

    frame: VideoFrame | None
    scene: Scene


def merged(streams: Sequence[Iterable[T]], stop: threading.Event) -> Iterator[tuple[int, T]]:
    """The items of several streams as they come, with the number of the stream.

    Each stream has a thread of its own. When the consumer gives up, `stop` is set, which the
    streams are to obey. Raises what a stream raises, when all have ended.
    """
    waiting: queue.Queue[tuple[int, T] | None] = queue.Queue(_AHEAD)

    def follow(number: int) -> None:
        try:
            for item in streams[number]:
                waiting.put((number, item))
        finally:
            waiting.put(None)

    with ThreadPoolExecutor(len(streams), thread_name_prefix="mien-watch") as pool:
        jobs = [pool.submit(follow, number) for number in range(len(streams))]
        going = len(streams)
        try:
            while going:
                found = waiting.get()
                if found is None:
                    going -= 1
                else:
                    yield found
        except BaseException:
            stop.set()
            raise
        finally:
            while going:
                going -= waiting.get() is None
        for job in jobs:
            job.result()


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, or SIGTERM, sets; the second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _targets(save: Path | None, sources: Sequence[str]) -> list[Path]:
    """Where the annotated video of each source goes. Raises `InputError` over a source."""
    if save is None:
        return []
    numbers = range(1, len(sources) + 1)
    paths = [save.with_stem(f"{save.stem}-{n}") for n in numbers] if len(sources) > 1 else [save]
    for path in paths:
        if path.resolve() in {Path(source).resolve() for source in sources}:
            raise InputError(f"--save {path} would overwrite a source; name another file")
    return paths


def _total(sources: Sequence[str]) -> int | None:
    """Frames to come in all, and one step for each end; None if a source does not say."""
    counts = []
    for source in sources:
        with suppress(InputError):  # reading it then says what is wrong
            counts.append(frame_count(source) or 0)
    return sum(counts) + len(sources) if all(counts) else None


def _say(words: str) -> None:
    click.echo(f"mien: {words}", err=True)


def _explain(gallery: Gallery, recognizer: Recognizer, fpir: float) -> None:
    """Where the threshold comes from, once."""
    size = len(gallery)
    if not size:
        _say("nobody is enrolled yet, so everybody is unknown")
        return
    point = decision.identification_point(
        recognizer.bundle.search_points, decision.repeated(fpir), size, recognizer.contract
    )
    click.echo(
        f"A name needs about {point.threshold:.3f}: with {counted(size, 'template')} enrolled, "
        f"{one_in(fpir)} strangers reach that, however long they are watched.",
        err=True,
    )


def _row(source: str, event: Event, fpir: float) -> dict[str, object]:
    answer = event.answer
    return {
        "source": source,
        "event": event.kind,
        "track": event.track,
        "first_frame": event.first_frame,
        "last_frame": event.last_frame,
        "first_time": round(event.first_time, 3),
        "last_time": round(event.last_time, 3),
        "subject": event.subject,
        "score": round(event.score, 5),
        "threshold": round(answer.operating_point.threshold, 5) if answer else None,
        "fpir": fpir,
        "faces": event.faces,
        "candidates": [
            {"subject": match.subject, "score": round(match.score, 5)}
            for match in (answer.candidates if answer else ())
        ],
    }


def _print(source: str, event: Event) -> None:
    name = click.style(event.subject or "unknown", bold=True,
                       fg="green" if event.subject else "yellow")  # fmt: skip
    answer = event.answer
    if answer is None:
        why = "no face was good enough to be looked up"
    else:
        why = f"score {event.score:.3f}, needs {answer.operating_point.threshold:.3f}"
    where = f"{source}  " if source else ""
    click.echo(
        f"{where}{_clock(event.first_time)}-{_clock(event.last_time)}  track {event.track}  "
        f"{event.kind:7}  {name}  {why}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _mark(track: Tracked) -> Mark:
    if track.subject:
        assert track.answer is not None
        return Mark(
            track.box, (track.subject, f"track {track.track}, {track.answer.score:.3f}"), NAMED
        )
    if track.answer is None:
        return Mark(track.box, (f"track {track.track}",), FOUND)
    return Mark(track.box, ("unknown", f"track {track.track}, {track.answer.score:.3f}"), UNKNOWN)
