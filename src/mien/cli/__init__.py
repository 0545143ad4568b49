"""The command line: `mien VERB`. Parse, make one library call, print.

Results go to stdout, words and progress to stderr. Exit status: 0 yes or done, 1 no, 2 the input
cannot be used, 3 a model cannot be used, 4 the gallery refuses.
"""

import os
import sys
from importlib import import_module
from typing import Any

import click

from mien.errors import GalleryError, InputError, MienError, ModelError

EXIT_STATUS: dict[type[MienError], int] = {InputError: 2, ModelError: 3, GalleryError: 4}

VERBS = {
    "detect": "Find the faces in pictures.",
    "embed": "Turn every face into a vector and save the vectors.",
    "verify": "Say whether two pictures show the same person.",
    "enroll": "Add people to the gallery.",
    "identify": "Name the people in pictures, or call them unknown.",
    "gallery": "Look at the gallery, and remove people from it.",
    "serve": "Start the server: REST interface and web page.",
    "models": "List models, their licences and files.",
    "demo": "See it work, on pictures that come with it or on your own.",
    "doctor": "Check the installation and say how to repair it.",
    "completion": "Print the shell completion script.",
}


def exit_status(error: type[MienError]) -> int:
    """The exit status of an error: that of its nearest listed ancestor."""
    return next(EXIT_STATUS[kind] for kind in error.__mro__ if kind in EXIT_STATUS)


class _Verbs(click.Group):
    """Imports a verb's module when it is asked for, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"mien.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


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


def main() -> Any:
    """The program `mien`."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except MienError as error:
        click.echo(f"mien: {error}", err=True)
        sys.exit(exit_status(type(error)))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mien: stopped; what was reported as done is saved", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as in `mien ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
