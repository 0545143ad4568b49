"""mien gallery"""

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from mien import decision
from mien.cli import options
from mien.cli.batch import progress
from mien.cli.output import counted, emit, table
from mien.errors import GalleryDamaged, GalleryError, GalleryUnavailable, InputError
from mien.gallery import Gallery, Receipt, open_gallery, transfer
from mien.gallery.cipher import read_key
from mien.gallery.rows import OTHER_MODEL
from mien.gallery.schema import DEFAULT_COLLECTION
from mien.gallery.sqlite import SqliteStore
from mien.recognition import Recognizer, load

_REMEDY = """
What to do: restore the gallery from a backup. Without one:
  only indexes are damaged         mien gallery compact
  some templates are damaged       mien gallery remove NAME of those people, and enrol them again
  more than that, or that fails    mien gallery migrate --to NEW.mien --accept-loss, which copies
                                   all that is sound; use NEW.mien from then on"""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Look at the gallery, check it, move it, and remove people from it.

    An encrypted gallery is opened with the key in MIEN_GALLERY_KEY_FILE (a file, or keyring:NAME)
    or MIEN_GALLERY_KEY (64 hex digits).
    """


@command.command("list")
@options.gallery
@options.as_json
def list_(uri: str, as_json: bool) -> None:
    """Who is enrolled."""
    with open_gallery(uri, create=False) as gallery:
        subjects = gallery.subjects()
    if as_json:
        for subject in subjects:
            emit({"subject": subject.name, "templates": subject.templates,
                  "created": subject.created})  # fmt: skip
    elif subjects:
        table(("subject", "templates", "enrolled"),
              [(s.name, str(s.templates), s.created) for s in subjects])  # fmt: skip
    else:
        click.echo(f"nobody is enrolled in {uri}", err=True)


@command.command()
@click.argument("name")
@options.gallery
@options.as_json
def show(name: str, uri: str, as_json: bool) -> None:
    """The templates of one person."""
    with open_gallery(uri, create=False) as gallery:
        templates = gallery.templates(name)
    if as_json:
        for t in templates:
            emit({"template": t.id, "subject": t.subject, "image": t.source,
                  "quality": round(t.quality, 3), "created": t.created})  # fmt: skip
    else:
        table(("template", "picture", "quality", "enrolled"),
              [(str(t.id), t.source, f"{t.quality:.2f}", t.created)
               for t in templates])  # fmt: skip


@command.command(short_help="Forget people, with a receipt if you like.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--receipts", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write a signed receipt for each person there.")  # fmt: skip
@options.gallery
@options.as_json
def remove(
    names: tuple[str, ...], yes: bool, receipts: Path | None, uri: str, as_json: bool
) -> int:
    """Forget people: their names and vectors are overwritten in every file of the gallery."""
    with open_gallery(uri, create=False) as gallery:
        counts = {name: len(gallery.templates(name)) for name in names}  # all known, or none goes
        if not yes:
            templates = counted(sum(counts.values()), "template")
            question = f"Remove {', '.join(counts)} ({templates}) for good?"
            try:
                sure = click.confirm(question, err=True)
            except click.Abort:  # nobody is there to answer
                click.echo("\nnothing removed; --yes removes without asking", err=True)
                raise
            if not sure:
                click.echo("nothing removed", err=True)
                return 1
        for name in counts:
            receipt = _embedded(gallery).erase(name) if receipts else None
            removed = receipt.templates if receipt else gallery.remove(name)
            if receipts and receipt:
                receipts.mkdir(parents=True, exist_ok=True)
                file = receipts / f"{receipt.line[:16]}.json"
                file.write_text(receipt.to_json() + "\n")
            if as_json:
                emit({"subject": name, "templates": removed, "status": "removed"})
            else:
                click.echo(f"removed  {name}  {counted(removed, 'template')}")
    return 0


@command.command(short_help="Give a person another name.")
@click.argument("name")
@click.argument("new_name")
@click.option("--merge", is_flag=True, help="Join the templates of whoever has NEW_NAME already.")
@options.gallery
def rename(name: str, new_name: str, merge: bool, uri: str) -> None:
    """Give a person another name; the old one is overwritten in every file of the gallery."""
    with open_gallery(uri, create=False) as gallery:
        gallery.rename(name, new_name, merge=merge)
        templates = counted(len(gallery.templates(new_name)), "template")
    click.echo(f"renamed  {name}  to {new_name}, {templates}")


@command.command(short_help="Check a receipt of erasure.")
@click.argument("file", type=_FILE)
@click.option("--subject", metavar="NAME", help="Also check that it is about this person.")
@options.gallery
def receipt(file: Path, subject: str | None, uri: str) -> None:
    """Check a receipt of erasure: exit status 0 if this gallery signed it, else 1."""
    try:
        found = Receipt.from_json(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    with open_gallery(uri, create=False) as gallery:
        store = _embedded(gallery)
        logged = any(line.chain == found.line for line in store.history())
        genuine = logged and found.genuine(store.receipt_key(), subject)
    click.echo(f"genuine: {found.templates} templates erased at {found.time}" if genuine
               else "not genuine, or not about this person")  # fmt: skip
    click.get_current_context().exit(0 if genuine else 1)


@command.command(short_help="What was done to it, without names.")
@options.gallery
@options.as_json
def log(uri: str, as_json: bool) -> None:
    """Everything that was done to the gallery, without names."""
    with open_gallery(uri, create=False) as gallery:
        lines = _embedded(gallery).history()
    if as_json:
        for line in lines:
            emit({"time": line.time, "operation": line.operation, "collection": line.collection,
                  "subject": line.subject or None, "templates": line.templates})  # fmt: skip
    else:
        table(("time", "operation", "collection", "templates", "person"),
              [(line.time, line.operation, line.collection, str(line.templates),
                line.subject[:16]) for line in lines])  # fmt: skip


@command.command(short_help="Erase what is older than its retention period.")
@click.option("--days", type=float, help="Let templates live so long from now on.")
@click.option("--for-ever", is_flag=True, help="Let them live for ever.")
@options.gallery
def expire(days: float | None, for_ever: bool, uri: str) -> None:
    """Erase what is older than the retention period; --days and --for-ever set the period."""
    if days is not None and for_ever:
        raise click.UsageError("give --days or --for-ever, not both")
    with open_gallery(uri, create=False) as gallery:
        store = _embedded(gallery)
        if days is not None or for_ever:
            store.retain(None if for_ever else days)
        expired, period = counted(store.expire(), "template"), store.retention()
    click.echo(f"{expired} expired; " + (f"the period is {period:g} days" if period else
               "they live for ever, until --days sets a period"), err=True)  # fmt: skip


@command.command()
@options.gallery
@options.as_json
def stats(uri: str, as_json: bool) -> None:
    """Sizes, and what made the vectors."""
    with open_gallery(uri, create=False) as gallery:
        numbers = gallery.stats()
    row = {"gallery": numbers.uri, "subjects": numbers.subjects, "templates": numbers.templates,
           "dimensions": numbers.dimensions, "bytes": numbers.bytes,
           "contract": numbers.contract}  # fmt: skip
    if as_json:
        emit(row)
    else:
        for key, value in row.items():
            click.echo(f"{key:<12}{value:,}" if isinstance(value, int) else f"{key:<12}{value}")


@command.command(short_help="Give back the room that removed people left.")
@options.gallery
def compact(uri: str) -> None:
    """Rewrite the files without the room that removed people left, and empty the log."""
    with open_gallery(uri, create=False) as gallery:
        before = gallery.stats().bytes
        gallery.compact()
        click.echo(f"{before:,} bytes before, {gallery.stats().bytes:,} after")


@command.command(short_help="Check everything; what is damaged is named.")
@options.gallery
@options.as_json
def verify(uri: str, as_json: bool) -> None:
    """Read every template and check all that can be checked; exit status 1 if anything is wrong.

    What is damaged is named, with whose it is. Everything else can be used as before. Of a gallery
    with several collections (#NAME) it checks the file and the one that is named.
    """
    with open_gallery(uri, create=False) as gallery:
        wrong = _embedded(gallery).check(progress)
        templates = len(gallery)
    if as_json:
        emit({"gallery": uri, "templates": templates, "problems": wrong})
    else:
        click.echo("\n".join(wrong) or f"{templates:,} templates, all well")
        if wrong:
            click.echo(_REMEDY, err=True)
    click.get_current_context().exit(1 if wrong else 0)


@command.command("export")
@click.argument("file", type=_FILE)
@click.option("--accept-loss", is_flag=True, help="Even though some templates are damaged.")
@options.gallery
def export_(file: Path, accept_loss: bool, uri: str) -> None:
    """Write everything to FILE (.npz or .parquet), in the clear."""
    with open_gallery(uri, create=False) as gallery, _whole(uri, accept_loss):
        count = transfer.export_entries(gallery.store, file, progress)
    click.echo(f"{count:,} templates written to {file}", err=True)


@command.command("import")
@click.argument("file", type=_FILE)
@options.gallery
def import_(file: Path, uri: str) -> None:
    """Enrol everything in FILE, which 'mien gallery export' wrote."""
    exported = transfer.exported(file)  # before a gallery is made for it
    with open_gallery(uri) as gallery:
        count = transfer.import_entries(gallery.store, progress(exported, None, "template"))
    click.echo(f"{count:,} templates added to {uri}", err=True)


@command.command()
@click.option("--to", "target", metavar="URI", help="Copy the collection to another gallery.")
@click.option("--to-key", type=_FILE, metavar="FILE", help="With --to: encrypt it with this key.")
@click.option("--without-crops", is_flag=True, help="With --to: leave pictures of faces behind.")
@click.option("--to-model", metavar="ID", help="Embed original pictures, or kept crops, anew.")
@click.option("--dry-run", is_flag=True, help="With --to-model: only check the original pictures.")
@click.option(
    "--switch",
    is_flag=True,
    help="Let the re-embedded templates take the place of the present ones, or back.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Even though some templates are damaged (--to) or could not be embedded anew (--switch).",
)
@options.choose
@options.gallery
@options.threads
@options.as_json
def migrate(
    target: str | None,
    to_key: Path | None,
    without_crops: bool,
    to_model: str | None,
    dry_run: bool,
    switch: bool,
    accept_loss: bool,
    choose: str,
    uri: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Move the gallery to another store, or to another model.

    \b
    mien gallery migrate --to postgresql://db/faces     # copied and compared row by row
    mien gallery migrate --to-model ID --dry-run        # which original pictures can be used?
    mien gallery migrate --to-model ID                  # embed them; can be interrupted
    mien gallery migrate --switch                       # use the new ones; once more: go back

    While it runs, and until --switch, the gallery answers from the present templates.
    """
    if sum((target is not None, to_model is not None, switch)) != 1:
        raise click.UsageError("give one of --to, --to-model and --switch")
    with open_gallery(uri, create=False) as gallery:
        if target is not None:
            if target == uri:
                raise InputError(f"{uri} cannot be copied to itself; give --to another URI")
            key = read_key(to_key) if to_key else None
            with open_gallery(target, key=key) as other, _whole(uri, accept_loss):
                count = transfer.copy_entries(
                    gallery.store, other.store, crops=not without_crops, progress=progress
                )
            click.echo(f"{count:,} templates copied to {target}; all compared", err=True)
            return
        base, _, collection = uri.partition("#")
        beside = (collection or DEFAULT_COLLECTION) + OTHER_MODEL
        if to_model is not None:
            recognizer = load(to_model, threads=threads)
            _require_new(gallery, recognizer)
            if dry_run:
                _tell_of_pictures(gallery, as_json)
                return
            with open_gallery(f"{base}#{beside}") as other:
                _reembed(gallery, other, recognizer, choose, as_json)
            return
        if beside not in _embedded(gallery).collections():
            raise GalleryUnavailable(
                uri, "there is nothing to switch to; 'mien gallery migrate --to-model ID' makes it"
            )
        with open_gallery(f"{base}#{beside}", create=False) as other:
            lost = len(gallery) - len(other)
            if lost > 0 and not accept_loss:
                raise GalleryUnavailable(
                    uri, f"{lost:,} of {len(gallery):,} templates have no counterpart of the "
                    f"other model; --accept-loss leaves them behind",
                )  # fmt: skip
            found = transfer.self_search(other.store) if len(other) else 0.0
            if found < 0.99:
                raise GalleryUnavailable(
                    uri, f"only {found:.1%} of the other templates find their own person; "
                    f"nothing was switched",
                )  # fmt: skip
            _embedded(gallery).swap(beside)
            click.echo(f"{uri} now answers from {other.contract}; the templates of "
                       f"{gallery.contract} are kept in {beside}", err=True)  # fmt: skip


@command.command("new-key", short_help="Make a key for encrypted galleries.")
@click.argument("file", type=_FILE)
def new_key(file: Path) -> None:
    """Make FILE with a new random key; MIEN_GALLERY_KEY_FILE=FILE encrypts new galleries with it.

    Without this file an encrypted gallery cannot be read by anyone: keep a copy elsewhere.
    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InputError(f"cannot make {file}: {error.strerror}") from error
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_hex(32) + "\n")
    click.echo(
        f"{file} made; keep a copy elsewhere, and set MIEN_GALLERY_KEY_FILE={file}", err=True
    )


@command.command(short_help="Let another key open an encrypted gallery.")
@click.argument("file", type=_FILE)
@options.gallery
def rekey(file: Path, uri: str) -> None:
    """Let the key in FILE open an encrypted gallery from now on, instead of the present one."""
    with open_gallery(uri, create=False) as gallery:
        _embedded(gallery).rekey(read_key(file))
    click.echo(f"{uri} now opens with {file}", err=True)


def _tell_of_pictures(gallery: Gallery, as_json: bool) -> None:
    found = progress(transfer.pictures(gallery.store), len(gallery), "template")
    refused = _tell(found, "usable", as_json)
    click.echo(f"{refused:,} of {len(gallery):,} templates could not be embedded", err=True)
    click.get_current_context().exit(2 if refused else 0)


def _reembed(
    gallery: Gallery, other: Gallery, recognizer: Recognizer, choose: str, as_json: bool
) -> None:
    other.require(recognizer.contract)
    embed = partial(recognizer.embed, choose=options.CHOICES[choose])
    made = transfer.reembed(gallery.store, other.store, embed)
    refused = _tell(progress(made, len(gallery), "template"), "embedded", as_json)
    click.echo(f"{len(other):,} of {len(gallery):,} templates embedded, {refused:,} refused; "
               f"'mien gallery migrate --switch' puts them to use", err=True)  # fmt: skip
    click.get_current_context().exit(2 if refused else 0)


def _require_new(gallery: Gallery, recognizer: Recognizer) -> None:
    """Raise unless it is another model, with a threshold; and tell that."""
    if gallery.contract == recognizer.contract:
        raise GalleryError(f"the gallery has vectors of {recognizer.contract!r} already")
    point = decision.identification_point(
        recognizer.bundle.operating_points, 1e-2, max(1, len(gallery)), recognizer.contract
    )
    click.echo(f"threshold of {recognizer.bundle.id} for {len(gallery):,} templates and 1 % of "
               f"strangers named: {point.threshold:.3f}", err=True)  # fmt: skip


def _tell(found: Iterable[transfer.Reembedded], status: str, as_json: bool) -> int:
    """A line for each template as it comes: how many were refused."""
    refused = 0
    for done in found:
        refused += done.reason is not None
        if as_json:
            emit({"subject": done.entry.subject, "image": done.entry.source,
                  "status": "refused" if done.reason else status,
                  "reason": done.reason})  # fmt: skip
        elif done.reason:
            click.echo(f"refused  {done.entry.subject}  {done.reason}")
    return refused


@contextmanager
def _whole(uri: str, accept_loss: bool) -> Iterator[None]:
    """Refuse to go on when something of the gallery is damaged, unless the loss is accepted."""
    with warnings.catch_warnings():
        if not accept_loss:
            warnings.simplefilter("error", GalleryDamaged)
        try:
            yield
        except GalleryDamaged as damage:
            raise GalleryUnavailable(
                uri, f"{damage.what}; 'mien gallery verify' says more, and --accept-loss leaves "
                f"behind what is damaged",
            ) from damage  # fmt: skip


def _embedded(gallery: Gallery) -> SqliteStore:
    """The store, if it has what only the embedded one offers."""
    if not isinstance(gallery.store, SqliteStore):
        raise GalleryUnavailable(gallery.stats().uri, "only an embedded gallery can do this")
    return gallery.store
