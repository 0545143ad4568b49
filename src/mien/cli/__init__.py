"""The command line: `mien VERB`. Parse, make one library call, print.

Results go to stdout, words and progress to stderr. Exit status: 0 yes or done, 1 no, 2 the input
cannot be used, 3 a model cannot be used, 4 the gallery refuses.
"""

import os
import sys
import warnings
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from mien.errors import ContractMismatch, GalleryError, InputError, MienError, ModelError

EXIT_STATUS: dict[type[MienError], int] = {InputError: 2, ModelError: 3, GalleryError: 4}

VERBS = {
    "detect": "Find the faces in pictures.",
    "embed": "Turn every face into a vector and save the vectors.",
    "verify": "Say whether two pictures show the same person.",
    "enroll": "Add people to the gallery.",
    "identify": "Name the people in pictures, or call them unknown.",
    "watch": "Name the people in a video: a camera, a file or a stream.",
    "analyze": "Say what faces look like: quality, pose, age, gender, liveness.",
    "cluster": "Group the faces of an album by person.",
    "fit": "Learn to tell the people of a folder apart.",
    "classify": "Say which of the people a head was fitted on a face shows.",
    "gallery": "Look at the gallery, and remove people from it.",
    "train": "Fit a network to pictures of people, by a recipe.",
    "evaluate": "Measure error rates on public protocols or on your own pictures.",
    "data": "Prepare pictures for training: crop, check, split, pair, pack.",
    "models": "List, fetch and check models, their licences and files.",
    "serve": "Start the server: REST interface and web page.",
    "demo": "See it work, on pictures that come with it or on your own.",
    "doctor": "Check the installation and say how to repair it.",
    "completion": "Print the shell completion script.",
}


def exit_status(error: type[MienError]) -> int:
    """The exit status of an error: that of its nearest listed ancestor."""
    return next(EXIT_STATUS[kind] for kind in error.__mro__ if kind in EXIT_STATUS)


class _ReaderGone(Exception):
    """The reader of our output went away, as in `mien ... | head`."""


class _Verbs(click.Group):
    """Imports a verb's module when it is asked for, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"mien.cli.{name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would exit with 1, which means "no" here
            raise _ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _hint(error: MienError) -> str:
    """What only the command line can add to an error: which --model fits a gallery."""
    if not isinstance(error, ContractMismatch):
        return ""
    from mien import cards

    bundles = (cards.bundle(name) for name in cards.bundle_ids())
    fitting = [bundle.id for bundle in bundles if bundle.contract == error.expected]
    return f" (the first was made with --model {fitting[0]})" if fitting else ""


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"mien {version('mien')}")
        ctx.exit()


@click.command(
    cls=_Verbs,
    epilog="Start with 'mien demo'. Each command explains itself: 'mien verify --help'.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Print the version and exit.")  # fmt: skip
def cli() -> None:
    """Face recognition with a measured error rate on every answer.

    Works offline with the models inside it. Pictures may be files, folders (searched through) or
    '-' for one picture from standard input. Exit status: 0 yes or done, 1 no, 2 unusable input,
    3 unusable model, 4 gallery refuses.
    """


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: object,
    **__: object,
) -> None:
    """Our own warnings as words; those of others, which users can do nothing about, as they are."""
    own = issubclass(category, MienError)
    text = (
        f"mien: {message}" if own else warnings.formatwarning(message, category, filename, lineno)
    )
    click.echo(text, err=True, nl=own)


def main() -> Any:
    """The program `mien`."""
    warnings.showwarning = _show
    for stream in (sys.stdout, sys.stderr):  # file names need not be text in its encoding
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # in a JSON string, a valid escape
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except MienError as error:
        click.echo(f"mien: {error}{_hint(error)}", err=True)
        sys.exit(exit_status(type(error)))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mien: stopped; what was reported as done is saved", err=True)
        sys.exit(130)
    except _ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
