"""mien serve"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mien.cli import options
from mien.cli.output import emit, table
from mien.server.keys import EVERY_GALLERY, ROLES, KeyFile, Role
from mien.weights import home

if TYPE_CHECKING:
    from mien.server import Galleries

_keys = click.option(
    "--keys", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    default=lambda: home() / "keys.json",
    help="File of the bearer keys.  [default: keys.json in your data folder]",
)  # fmt: skip


@click.group(invoke_without_command=True)
@click.option("--gallery", "uri", envvar="MIEN_GALLERY", metavar="URI",
              help="A folder with one file a gallery, or one gallery.  "
              "[default: MIEN_GALLERY, else your data folder]")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535),
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="TLS certificate chain (PEM).")  # fmt: skip
@click.option("--private-key", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="Private key of the certificate (PEM).")  # fmt: skip
@click.option("--proxies", metavar="ADDRESSES",
              help="Believe X-Forwarded-For from these.  [default: from nobody]")  # fmt: skip
@click.option("--audit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              default=lambda: home() / "audit.jsonl",
              help="Who searched, enrolled and erased.  "
              "[default: audit.jsonl in your data folder]")  # fmt: skip
@click.option("--heads", type=click.Path(exists=True, file_okay=False, path_type=Path),
              metavar="DIR", help="Folder of heads that 'mien fit' made, one a file NAME.head.  "
              "[default: none]")  # fmt: skip
@click.option("--reviews", default=200, type=click.IntRange(0, 10_000), metavar="N",
              show_default=True,
              help="How many borderline identifications of each gallery may wait in memory to be "
              "confirmed or rejected, if a request asks for it; 0 for none.")  # fmt: skip
@click.option("--rate", default=100.0, show_default=True, type=click.FloatRange(min=0.1),
              metavar="N", help="Requests a second that each key may send.")  # fmt: skip
@_keys
@click.option("--no-keys", is_flag=True,
              help="Ask nobody for a key, and listen to this machine only.")  # fmt: skip
@options.model
@options.threads
@click.pass_context
def command(
    context: click.Context,
    uri: str | None,
    host: str,
    port: int,
    certificate: Path | None,
    private_key: Path | None,
    proxies: str | None,
    audit: Path,
    heads: Path | None,
    reviews: int,
    rate: float,
    keys: Path,
    no_keys: bool,
    model: str,
    threads: int | None,
) -> None:
    """Start the server: REST interface and web page.

    Whoever asks sends a key. The first start makes one that may do everything and prints it, once;
    'mien serve keys' makes more. For other machines, with TLS:

    \b
    mien serve --host 0.0.0.0 --certificate chain.pem --private-key key.pem
    mien serve keys add --role write --gallery staff --note "front desk"
    """
    if context.invoked_subcommand is not None:
        return
    from mien.recognition import load
    from mien.server import Settings, create_app
    from mien.server.running import require_loopback, run

    if no_keys:
        require_loopback(host)
    settings = Settings(
        keys=None if no_keys else keys,
        audit=audit,
        heads=heads,
        rate=rate,
        burst=int(2 * rate) + 1,
        reviews=reviews,
    )
    app = create_app(load(model, threads=threads), _galleries(uri), settings)
    scheme = "https" if certificate else "http"
    click.echo(f"mien serves {scheme}://{host}:{port}/ - stop it with Ctrl-C", err=True)
    if no_keys:
        click.echo("no keys: it answers only this machine, and everybody on it may do everything",
                   err=True)  # fmt: skip
    elif not keys.exists():
        click.echo(KeyFile(keys).add("admin", (), "made at the first start"))
        click.echo("the key above opens everything and is not shown again; "
                   f"its hash is in {keys}", err=True)  # fmt: skip
    elif not KeyFile(keys).listed():
        click.echo("every key was revoked: nobody gets in; 'mien serve keys add' makes a key",
                   err=True)  # fmt: skip
    run(app, host, port, certificate, private_key, proxies)


def _galleries(uri: str | None) -> "Galleries":
    from mien.server import Galleries

    if uri is None:
        home().mkdir(parents=True, exist_ok=True)
        return Galleries(home())
    if "://" not in uri and (Path(uri).is_dir() or uri.endswith("/")):
        Path(uri).mkdir(parents=True, exist_ok=True)
        return Galleries(Path(uri))
    return Galleries(None, {Path(uri).stem: uri})


@command.group("keys")
def keys_() -> None:
    """Make, list and revoke the keys that open this server."""


@keys_.command()
@click.option("--role", type=click.Choice(ROLES), required=True,
              help="read: look and search; write: also enrol and erase people; "
              "admin: also make and delete galleries.")  # fmt: skip
@click.option("--gallery", "galleries", multiple=True, metavar="NAME",
              help="Open only this one; may be repeated.  [default: every gallery]")  # fmt: skip
@click.option("--note", default="", help="Whose key this is, for the list.")
@_keys
def add(role: Role, galleries: tuple[str, ...], note: str, keys: Path) -> None:
    """Make a key and print it, once: only its hash is kept."""
    click.echo(KeyFile(keys).add(role, galleries, note))
    click.echo(f"the key above is not shown again; its hash is in {keys}", err=True)


@keys_.command("list")
@_keys
@options.as_json
def list_(keys: Path, as_json: bool) -> None:
    """Every key: its id, role, galleries, and when it was last used."""
    file = KeyFile(keys)
    used = file.last_used()
    rows = [
        {"id": key.id, "role": key.role, "galleries": list(key.galleries), "created": key.created,
         "last_used": used.get(key.id), "note": key.note}
        for key in file.listed()
    ]  # fmt: skip
    if as_json:
        for row in rows:
            emit(row)
        return
    table(
        ("key", "role", "galleries", "created", "last used", "note"),
        [
            (key.id, key.role, "every gallery" if EVERY_GALLERY in key.galleries
             else ", ".join(key.galleries), key.created, used.get(key.id, "never"), key.note)
            for key in file.listed()
        ],
    )  # fmt: skip


@keys_.command()
@click.argument("name", metavar="ID")
@_keys
def revoke(name: str, keys: Path) -> None:
    """Make a key useless, at once, also for a server that is running."""
    KeyFile(keys).revoke(name)
    click.echo(f"{name} opens nothing any more", err=True)
