"""mien doctor"""

import importlib.metadata
import os
import platform
import sys
from importlib.util import find_spec

import click

from mien import cards
from mien.cli.options import default_gallery
from mien.cli.output import counted
from mien.errors import MienError
from mien.gallery import open_gallery
from mien.inference import open_sessions, preferred_precisions
from mien.recognition import processors
from mien.weights import choose, home, is_present, locate

_EXTRAS = {"heic": ("pillow_heif", "HEIC pictures"), "parquet": ("pyarrow", "Parquet files")}


@click.command()
def command() -> int:
    """Check the installation: versions, processor, models, gallery, what is missing.

    Exit status 0 when everything that mien needs works, 3 when a model does not.
    """
    click.echo(f"mien {importlib.metadata.version('mien')}, Python {platform.python_version()}, "
               f"{platform.system()} {platform.machine()}, {sys.executable}")  # fmt: skip
    for package in ("numpy", "onnxruntime", "pillow", "click"):
        _line("ok", package, importlib.metadata.version(package))
    precision = preferred_precisions()[0]
    why = "VNNI found" if precision == "int8" else "no VNNI on this processor"
    _line("ok", "processor", f"{processors()} usable, computes in {precision} ({why})")
    here = [name for name in cards.model_ids() if is_present(cards.model_card(name))]
    broken = sum(not _check(name) for name in here)
    for extra, (module, what) in _EXTRAS.items():
        if find_spec(module):
            _line("ok", what, f"supported ({module} {importlib.metadata.version(module)})")
        else:
            _line("--", what, f"not installed; for them: pip install 'mien[{extra}]'")
    state = "" if home().is_dir() else ", made when it is needed"
    _line("ok", "data folder", f"{home()} (MIEN_HOME){state}")
    _gallery(os.environ.get("MIEN_GALLERY") or default_gallery())
    return 3 if broken else 0


def _check(name: str) -> bool:
    card = cards.model_card(name)
    file = choose(card, preferred_precisions())
    try:
        open_sessions(card)
    except MienError as error:
        _line("BAD", name, str(error))
        return False
    _line("ok", name, f"{card.licence}, verified, {locate(file)}")
    return True


def _gallery(uri: str) -> None:
    try:
        with open_gallery(uri, create=False) as gallery:
            stats = gallery.stats()
    except MienError as error:
        _line("--", "gallery", str(error))
    else:
        _line(
            "ok",
            "gallery",
            f"{uri}: {counted(stats.subjects, 'person', 'people')}, "
            f"{counted(stats.templates, 'template')}",
        )


def _line(status: str, what: str, words: str) -> None:
    colour = {"ok": "green", "--": "yellow"}.get(status, "red")
    click.echo(f"  {click.style(status.ljust(3), fg=colour)} {what:<26} {words}")
