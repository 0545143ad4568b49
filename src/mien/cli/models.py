"""mien models"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Never

import click
from tqdm import tqdm

from mien import cards, golden
from mien.cards import UNKNOWN, Bundle, ModelCard, WeightFile
from mien.cli.options import as_json as json_option
from mien.cli.output import emit, fitted, one_in, table
from mien.errors import LicenceNotAccepted, MissingExtra, ModelError, UnknownModel
from mien.inference import open_sessions, preferred_precisions
from mien.weights import (
    Convert,
    accept_licence,
    choose_all,
    fetch,
    import_checkpoint,
    import_models,
    is_present,
    locate,
    read_verified,
    require_licence,
    write_bundle,
)


@click.group()
def command() -> None:
    """List, fetch and check models, their licences and files."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every network mien knows, and the recognisers made of them."""
    models = [cards.model_card(name) for name in cards.model_ids()]
    if as_json:
        for card in models:
            emit(_row(card))
        return
    bundles = sorted(map(cards.bundle, cards.bundle_ids()), key=_preference)
    fitted(
        ("recogniser", "commercial", "LFW", "missed", "size", "here", "what it is"),
        [_choice(bundle) for bundle in bundles],
    )
    click.echo(_LEGEND)
    models.sort(key=lambda card: (_TASKS.index(card.task), card.id))
    fitted(
        ("network", "task", "commercial", "size", "here", "licence"),
        [_cells(card) for card in models],
    )


@command.command()
@click.argument("name")
def info(name: str) -> None:
    """All that is known of a network or a recogniser: licence, training data, measured figures."""
    if name in cards.bundle_ids() or "+" in name:
        _print_bundle(cards.bundle(name))
    elif name in cards.model_ids():
        _print_model(cards.model_card(name))
    else:
        raise UnknownModel(name, (*cards.bundle_ids(), *cards.model_ids()))


@command.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check the SHA-256 of weight files, and what each network makes of a real face.

    A network whose card keeps golden results must give them again; one that does not fails with
    the reason, such as a wrong mean or colour order. Without names: every network that is here.
    """
    failures: list[ModelError] = []
    for card in _cards(names) or _here():
        for file in card.files:
            try:
                read_verified(file)
                status, reason = "ok", _prove(card, file.precision)
            except ModelError as error:
                failures.append(error)
                status, reason = "failed", str(error)
            if as_json:
                emit({"id": card.id, "file": file.name, "status": status, "reason": reason})
            else:
                click.echo(f"{status}  {card.id}  {file.name}" + (f"  {reason}" if reason else ""))
    if failures:
        raise failures[0]


@command.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="ID...")
@click.option("--accept-licence", "accept", is_flag=True,
              help="You have read the terms ('mien models info ID') and accept them.")  # fmt: skip
@json_option
def fetch_(names: tuple[str, ...], accept: bool, as_json: bool) -> None:
    """Download networks, or all that recognisers need, into the models folder.

    A download that was cut off goes on where it stopped. Proxies are taken from the environment;
    MIEN_HOME says where files go.
    """
    for card in _cards(names):
        if accept:
            _accept(card)
        unknown = [f.name for f in card.files if f.sha256 == UNKNOWN and not f.checkpoint]
        with tqdm(desc=card.id, unit="B", unit_scale=True, disable=None, leave=False) as bar:

            def show(arrived: int, total: int | None, bar: "tqdm[Never]" = bar) -> None:
                bar.total = total
                bar.update(arrived - bar.n)

            paths = fetch(card, show, convert=_converter(card))
        card = cards.model_card(card.id)  # noqa: PLW2901 - with the hashes that were just pinned
        for file, path in zip(card.files, paths, strict=True):
            if as_json:
                emit({**_row(card), "file": file.name, "path": str(path), "sha256": file.sha256,
                      "pinned": file.name in unknown})  # fmt: skip
                continue
            click.echo(f"ok  {card.id}  {path}")
            if file.name in unknown:
                click.echo(
                    f"    nobody has published a hash of this file; from now on it must be "
                    f"{file.sha256}",
                    err=True,
                )
        if not card.runnable:
            click.echo(f"mien: {card.id} cannot be run as it is: {card.cautions}", err=True)


@command.command("bundle")
@click.argument("names", nargs=-1, required=True, metavar="ID...")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write (.zip).",
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
def bundle_(names: tuple[str, ...], output: Path) -> None:
    """Put models into one file, for machines without internet: 'mien models import' reads it."""
    models = _cards(names)
    write_bundle(models, output)
    click.echo(f"{output}: {', '.join(card.id for card in models)}")


@command.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                metavar="FILE")  # fmt: skip
@click.option("--as", "name", metavar="ID",
              help="FILE is the published PyTorch checkpoint of this network.")  # fmt: skip
def import_(path: Path, name: str | None) -> None:
    """Take in a file of 'mien models bundle', a model of your own, or a published checkpoint.

    \b
    mien models import models.zip
    mien models import mine/mine.toml       # its card; the ONNX files lie beside it
    mien models import 20180402-114759-vggface2.pt --as facenet-vggface2

    A checkpoint is read without executing what is in it, converted to ONNX (with mien[train]), and
    taken in only if ONNX Runtime computes the same as PyTorch.
    """
    if name is not None:
        card = cards.model_card(name)
        made = import_checkpoint(path, card, _converter(card))
        click.echo(f"ok  {card.id}  {made}")
        return
    for card in import_models(path):
        if card.golden and card.runnable and card.commercial == "yes":
            golden.check(card)  # of the others when their terms are accepted: 'mien models verify'
        click.echo(f"ok  {card.id}  {card.licence}; commercial use: {card.commercial}")


def _converter(card: ModelCard) -> Convert:
    """What converts the checkpoint of a card. Raises `MissingExtra`, before anything is fetched."""
    if not any(file.checkpoint for file in card.files):
        return _nothing_to_convert
    try:
        import torch  # noqa: F401 - to tell its absence from a fault of ours

        from mien.training.conversion import convert
    except ImportError as error:
        raise MissingExtra(f"converting the checkpoint of {card.id}", "train") from error
    return convert


def _nothing_to_convert(card: ModelCard, file: WeightFile, path: Path) -> bytes:
    raise ModelError(f"{card.id} has no checkpoint to convert, {path} was given")


def _prove(card: ModelCard, precision: str) -> str:
    if not card.runnable:
        return "the hash is right; mien cannot run it as it is published"
    if card.golden is None:
        open_sessions(card, precision)
        return "the hash is right and it loads; its card has no golden results"
    return f"agrees with its card to {golden.check(card, precision):.3f}"


def _cards(names: Sequence[str]) -> list[ModelCard]:
    """The networks meant by ids of networks and of recognisers."""
    models: dict[str, ModelCard] = {}
    for name in names:
        if name in cards.bundle_ids() or "+" in name:
            models |= {card.id: card for card in _parts(cards.bundle(name))}
        else:
            models[name] = cards.model_card(name)
    return list(models.values())


def _here() -> list[ModelCard]:
    models = (cards.model_card(name) for name in cards.model_ids())
    return [card for card in models if is_present(card)]


def _accept(card: ModelCard) -> None:
    try:
        require_licence(card)
    except LicenceNotAccepted:
        accept_licence(card)
        click.echo(f"recorded: the terms of {card.id} ({card.licence}) are accepted", err=True)


def _row(card: ModelCard) -> dict[str, object]:
    files = choose_all(card, preferred_precisions())
    return {
        "id": card.id, "task": card.task, "licence": card.licence, "commercial": card.commercial,
        "bytes": _bytes(card), "sha256": ",".join(file.sha256 for file in files),
        "present": is_present(card), "runnable": card.runnable,
    }  # fmt: skip


def _bytes(card: ModelCard) -> int | None:
    sizes = [file.bytes for file in choose_all(card, preferred_precisions())]
    return None if None in sizes else sum(size for size in sizes if size is not None)


_TASKS = ("detection", "embedding", "attributes", "liveness")
_COMMERCIAL = ("yes", "unclear", "no")
_LEGEND = """
LFW is the accuracy on its 6,000 pairs, as measured by us or (*) published.
"missed" are pairs of one person, where 1 in 1,000 strangers match; what has no
number there has no thresholds until you measure it. 'mien models info ID' tells
all that is known of one.
"""


def _parts(bundle: Bundle) -> list[ModelCard]:
    members = bundle.members or (bundle,)
    parts = (bundle.detector, *(member.embedder for member in members))
    return list({card.id: card for card in parts}.values())


def _preference(bundle: Bundle) -> tuple[bool, bool, int, str]:
    """What can be used at once comes first, then what was measured, then what may be used."""
    here = all(map(is_present, _parts(bundle)))
    return not here, not bundle.operating_points, _COMMERCIAL.index(_commercial(bundle)), bundle.id


def _commercial(bundle: Bundle) -> str:
    return max((card.commercial for card in _parts(bundle)), key=_COMMERCIAL.index)


def _choice(bundle: Bundle) -> tuple[str, ...]:
    """A recogniser as a row of a table to choose from."""
    parts = _parts(bundle)
    accuracy = {**bundle.embedder.figures, **bundle.figures}.get("LFW", "-")
    sizes = [_bytes(card) for card in parts]
    missed = next((f"{p.fnmr:.1%}" for p in bundle.operating_points if p.fmr == 1e-3), "-")
    return (
        bundle.id, _commercial(bundle), accuracy.split()[0] + ("*" if "(" in accuracy else ""),
        missed, _megabytes(None if None in sizes else sum(filter(None, sizes))),
        "yes" if all(map(is_present, parts)) else "no", bundle.title,
    )  # fmt: skip


def _cells(card: ModelCard) -> tuple[str, ...]:
    here = "yes" if is_present(card) else "no" if card.runnable else "cannot run"
    return (
        card.id, card.task, card.commercial, _megabytes(_bytes(card)), here, card.licence,
    )  # fmt: skip


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:.1f} MB" if size else "?"


def _print_model(card: ModelCard) -> None:
    click.echo(click.style(f"{card.id}: {card.title}", bold=True))
    _field("task", card.task)
    _field("licence", f"{card.licence}; commercial use: {card.commercial}")
    _field("trained on", card.training_data)
    _field("cautions", card.cautions)
    _field("made from", f"{card.origin} (sha256 {card.origin_sha256})")
    for file in card.files:
        size = f"{file.bytes:,} bytes" if file.bytes else "size unknown"
        label = f"{file.part} {file.precision}".strip()
        _field(label, f"{locate(file) or 'not here'}, {size}, sha256 {file.sha256}")
        for url in file.urls:
            _field("from", url)
    for name, value in card.figures.items():
        _field(name, value)


def _print_bundle(bundle: Bundle) -> None:
    click.echo(click.style(f"{bundle.id}: {bundle.title}", bold=True))
    _field("detector", bundle.detector.id)
    for part, weight in zip(bundle.members or (bundle,), bundle.weights or (1.0,), strict=True):
        crops = f", {part.views} crops" if part.views > 1 else ""
        share = f", weight {weight:g}" if bundle.members else ""
        _field("embedder", f"{part.embedder.id}{crops}{share}")
    _field("contract", bundle.contract)
    for name, value in bundle.figures.items():
        _field(name, value)
    if bundle.crowd is not None:
        groups = len(bundle.crowd.centres)
        _field(
            "searches", f"a threshold for each face, by its likeness to {groups} groups of people"
        )
    if bundle.operating_points:
        _field("measured on", bundle.operating_points[0].protocol)
        click.echo()
        table(
            ("strangers matched (FMR)", "threshold", "same person missed (FNMR)"),
            [(one_in(p.fmr), f"{p.threshold:.4f}", f"{p.fnmr:.2%}")
             for p in bundle.operating_points],
        )  # fmt: skip


def _field(name: str, value: str) -> None:
    click.echo(textwrap.fill(value, 96, initial_indent=f"  {name:<13} ", subsequent_indent=" " * 16,
                             break_long_words=False, break_on_hyphens=False))  # fmt: skip
