"""mien gallery"""

import click

from mien.cli import options
from mien.cli.output import counted, emit, table
from mien.gallery import open_gallery


@click.group()
def command() -> None:
    """Look at the gallery, and remove people from it."""


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


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.gallery
@options.as_json
def remove(names: tuple[str, ...], yes: bool, uri: str, as_json: bool) -> int:
    """Forget people: their names and vectors are overwritten in every file of the gallery."""
    with open_gallery(uri, create=False) as gallery:
        counts = {name: len(gallery.templates(name)) for name in names}  # all known, or none goes
        if not yes:
            templates = counted(sum(counts.values()), "template")
            question = f"Remove {', '.join(counts)} ({templates}) for good?"
            if not click.confirm(question, err=True):
                click.echo("nothing removed", err=True)
                return 1
        for name in counts:
            removed = gallery.remove(name)
            if as_json:
                emit({"subject": name, "templates": removed, "status": "removed"})
            else:
                click.echo(f"removed  {name}  {counted(removed, 'template')}")
    return 0


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


@command.command()
@options.gallery
def compact(uri: str) -> None:
    """Rewrite the files without the room that removed people left, and empty the log."""
    with open_gallery(uri, create=False) as gallery:
        before = gallery.stats().bytes
        gallery.compact()
        click.echo(f"{before:,} bytes before, {gallery.stats().bytes:,} after")
