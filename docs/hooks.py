"""What the pages say of the command line is printed by it, when the site is built.

A line `<!-- output: mien verify --help -->` becomes a block with what that command prints.
"""

import re
import shlex
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import mien
from mien.cli import cli

_MARK = re.compile(r"^<!-- output: mien (.+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return _MARK.sub(_output, markdown)


def _output(mark: re.Match[str]) -> str:
    result = CliRunner().invoke(cli, shlex.split(mark[1]), prog_name="mien", catch_exceptions=False)
    if result.exit_code:
        raise ValueError(f"mien {mark[1]}: exit status {result.exit_code}\n{result.output}")
    folder = str(Path(mien.__file__).parent)  # where it lies on this machine concerns no reader
    return f"```text\n{result.output.replace(folder, 'mien').rstrip()}\n```"
