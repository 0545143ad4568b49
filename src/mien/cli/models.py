"""mien models"""

import textwrap

import click

from mien import cards
from mien.cards import Bundle, ModelCard
from mien.cli.options import as_json as json_option
from mien.cli.output import emit, one_in, table
from mien.errors import ModelError, UnknownModel
from mien.inference import open_session, preferred_precisions
from mien.weights import choose, locate, read_verified


@click.group()
def command() -> None:
    """List models, their licences and files."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every network mien knows, and the recognisers made of them."""
    models = [cards.model_card(name) for name in cards.model_ids()]
    if as_json:
        for card in models:
            emit(_row(card))
        return
    header = ("network", "task", "licence", "commercial use", "size", "present")
    table(header, [_cells(card) for card in models])
    click.echo()
    bundles = [cards.bundle(name) for name in cards.bundle_ids()]
    table(
        ("recogniser (--model)", "made of", "what it is"),
        [(b.id, f"{b.detector.id} + {b.embedder.id}" + (f" x{b.views}" if b.views > 1 else ""),
          b.title) for b in bundles],
    )  # fmt: skip


@command.command()
@click.argument("name")
def info(name: str) -> None:
    """All that is known of a network or a recogniser: licence, training data, measured figures."""
    if name in cards.bundle_ids():
        _print_bundle(cards.bundle(name))
    elif name in cards.model_ids():
        _print_model(cards.model_card(name))
    else:
        raise UnknownModel(name, (*cards.bundle_ids(), *cards.model_ids()))


@command.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check the SHA-256 of weight files and load each of them."""
    failures: list[ModelError] = []
    for name in names or cards.model_ids():
        card = cards.model_card(name)
        for file in card.files:
            try:
                read_verified(file)
                open_session(card, file.precision)
                status, reason = "ok", None
            except ModelError as error:
                failures.append(error)
                status, reason = "failed", str(error)
            if as_json:
                emit({"id": card.id, "file": file.name, "status": status, "reason": reason})
            else:
                click.echo(f"{status}  {card.id}  {file.name}" + (f"  {reason}" if reason else ""))
    if failures:
        raise failures[0]


def _row(card: ModelCard) -> dict[str, object]:
    file = choose(card, preferred_precisions())
    return {
        "id": card.id, "task": card.task, "licence": card.licence, "commercial": card.commercial,
        "bytes": file.bytes, "sha256": file.sha256, "present": locate(file) is not None,
    }  # fmt: skip


def _cells(card: ModelCard) -> tuple[str, ...]:
    file = choose(card, preferred_precisions())
    present = "yes" if locate(file) else "no"
    size = f"{file.bytes / 1e6:.1f} MB"
    return card.id, card.task, card.licence, card.commercial, size, present


def _print_model(card: ModelCard) -> None:
    click.echo(click.style(f"{card.id}: {card.title}", bold=True))
    _field("task", card.task)
    _field("licence", f"{card.licence}; commercial use: {card.commercial}")
    _field("trained on", card.training_data)
    _field("cautions", card.cautions)
    _field("made from", f"{card.origin} (sha256 {card.origin_sha256})")
    for file in card.files:
        where = locate(file)
        _field(file.precision, f"{where or 'not here'}, {file.bytes:,} bytes, sha256 {file.sha256}")
    for name, value in card.figures.items():
        _field(name, value)


def _print_bundle(bundle: Bundle) -> None:
    click.echo(click.style(f"{bundle.id}: {bundle.title}", bold=True))
    _field("detector", bundle.detector.id)
    _field("embedder", bundle.embedder.id + (f", {bundle.views} crops" if bundle.views > 1 else ""))
    _field("contract", bundle.contract)
    for name, value in bundle.figures.items():
        _field(name, value)
    if bundle.operating_points:
        _field("measured on", bundle.operating_points[0].protocol)
        click.echo()
        table(
            ("strangers matched (FMR)", "threshold", "same person missed (FNMR)"),
            [(one_in(p.fmr), f"{p.threshold:.4f}", f"{p.fnmr:.2%}")
             for p in bundle.operating_points],
        )  # fmt: skip


def _field(name: str, value: str) -> None:
    click.echo(textwrap.fill(value, 96, initial_indent=f"  {name:<14}", subsequent_indent=" " * 16,
                             break_long_words=False, break_on_hyphens=False))  # fmt: skip
