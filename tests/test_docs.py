"""What the documentation says is complete, and true: its commands and code are run.

How blocks are written is in CONTRIBUTING.md, "Writing documentation".
"""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import mien
from mien import cards, errors
from mien.cli import VERBS, cli, exit_status

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<excuse>not run: [^\n]+) -->\n)?"
    r"```(?P<kind>python|console|bash)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_OUTPUT = re.compile(r"^<!-- output: (mien .+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    where: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page that are to be run, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        shell = found["kind"] == "bash" and not found["text"].startswith("mien ")
        if not found["excuse"] and not shell:
            yield Block(found["kind"], found["text"], f"{page.relative_to(ROOT)}:{line}")


WITH_BLOCKS = [page for page in PAGES if any(blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ------------------------------------------------------------------------------------- blocks run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documentation speaks of, made from the portraits of `mien demo`."""
    place = tmp_path_factory.mktemp("pictures")
    portraits = resources.files("mien").joinpath("bundled", "pictures")
    ada, grace = (
        mien.read_image(portraits.joinpath(name).read_bytes()).pixels
        for name in ("eileen-collins.jpg", "grace-hopper.jpg")
    )
    both = np.concatenate([ada[:, ::-1], grace[:512, ::-1]], axis=1)
    prints = {
        "a.jpg": ada, "b.jpg": 0.7 * ada[:, ::-1], "c.jpg": grace, "door.jpg": 0.6 * ada[:, ::-1],
        "group.jpg": 0.7 * both, "ada1.jpg": ada, "ada2.jpg": 0.9 * ada[:, ::-1],
        "grace1.jpg": grace, "staff/ada/1.jpg": ada, "staff/ada/2.jpg": ada[:, ::-1],
        "staff/grace/1.jpg": grace,
    }  # fmt: skip
    for name, pixels in prints.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        mien.save_image(mien.Image(pixels.astype(np.uint8)), place / name)
    (place / "notes.jpg").write_text("not a picture")
    return place


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_blocks_run(
    page: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "page"
    shutil.copytree(pictures, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "home"))  # a fresh machine has no such folder
    monkeypatch.delenv("MIEN_GALLERY", raising=False)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.kind == "python":
            exec(compile(block.text, block.where, "exec"), namespace)
        else:
            run_commands(block)


def run_commands(block: Block) -> None:
    """Run each command of a block, and compare what it prints with what stands below it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here to run the commands of the documentation")
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    for command, expected in commands(block):
        done = subprocess.run(
            [bash, "-c", command], env={**os.environ, "PATH": path}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", check=False, timeout=120,
        )  # fmt: skip
        said = f"{block.where}: $ {command}\n{done.stdout}"
        status = re.search(r"# exit (\d+)$", command)
        assert done.returncode == (int(status[1]) if status else 0), said
        if expected:
            exact = command.startswith("mien models info")  # the same on every machine
            assert matches(expected, done.stdout, exact), f"{said}\ndocumented as\n{expected}"


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """(command, output below it); in a bash block every line is a command, and nothing is said."""
    if block.kind == "bash":
        yield from ((line, "") for line in block.text.splitlines() if line)
    else:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output.strip()


def matches(expected: str, actual: str, exact: bool) -> bool:
    """Whether an output is the documented one; "..." stands for anything.

    Unless `exact`, any number may stand for any other: scores differ a little between processors.
    """

    def plain(text: str) -> str:
        return text if exact else re.sub(r"\d[\d.,]*", "0", text)

    pattern = ".*".join(re.escape(plain(part.strip())) for part in expected.split("..."))
    pattern = re.sub(r"(\\[ \n])+", r"\\s+", pattern)
    return re.fullmatch(rf"\s*{pattern}\s*", plain(actual), re.DOTALL) is not None


# ------------------------------------------------------------------------------ blocks not run


def told() -> Iterator[tuple[str, str]]:
    """(where, command) of every `mien ...` that stands in a block not run, or in a help text."""
    for page in PAGES:
        for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
            lines = block["text"].replace("\\\n", " ").splitlines()
            for line in lines if block["excuse"] else ():
                if line.removeprefix("$ ").startswith("mien "):
                    yield name_of(page), line.removeprefix("$ ")
    for verb in commands_of(cli, "mien"):
        command, _ = command_of(verb.split()[1:])
        for line in (command.help or "").replace("\\\n", " ").splitlines():
            if line.startswith("mien "):
                yield f"{verb} --help", line


def command_of(words: Sequence[str]) -> tuple[click.Command, Sequence[str]]:
    """The command that some words begin with, and the words after it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        inner = command.get_command(click.Context(command), words[0])
        if inner is None:
            break
        command, words = inner, words[1:]
    return command, words


def test_commands_not_run_would_be_understood() -> None:
    """Their options exist and values have the right form; whether files exist is not asked."""
    checked = 0
    for where, line in told():
        command, words = command_of(shlex.split(line, comments=True)[1:])
        context = click.Context(command, info_name=command.name)
        try:
            values, left, _ = command.make_parser(context).parse_args([*words])
            if not isinstance(command, click.Group):
                assert not left, f"{where}: {line}: what is {left}?"
            for parameter in command.params:
                if not isinstance(parameter.type, click.Path):
                    parameter.process_value(context, values.get(parameter.name))
        except click.UsageError as error:
            pytest.fail(f"{where}: {line}: {error.format_message()}")
        checked += 1
    assert checked > 50


# ------------------------------------------------------------------------------ nothing is missing


def commands_of(command: click.Command, name: str) -> Iterator[str]:
    """`mien verify`, `mien gallery list`, ...: everything that can be asked for."""
    yield name
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            inner = command.get_command(context, verb)
            assert inner is not None
            yield from commands_of(inner, f"{name} {verb}")


def test_every_verb_is_documented() -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    helped = {mark.removesuffix(" --help") for mark in _OUTPUT.findall(text)}
    headings = set(re.findall(r"^##+ (mien .+)$", text, re.MULTILINE))
    verbs = set(commands_of(cli, "mien"))
    assert helped == verbs
    assert headings == verbs - {"mien"}
    assert {f"mien {verb}" for verb in VERBS} <= headings


def test_every_error_is_documented_with_its_exit_status() -> None:
    text = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(\w+)` \| (\d) \|", text, re.MULTILINE))
    kinds = {
        name: kind for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.MienError)
    }  # fmt: skip
    del kinds["MienError"]
    assert stated == {name: str(exit_status(kind)) for name, kind in kinds.items()}
    assert errors.__doc__ is not None
    tree = errors.__doc__[errors.__doc__.index("MienError") :].split("\n\n")[0]
    assert tree in text


def test_every_public_name_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = set()
    for target in re.findall(r"^::: (mien[\w.]+)$", text, re.MULTILINE):
        module, _, name = target.rpartition(".")
        assert getattr(importlib.import_module(module), name).__doc__, f"{target}: no docstring"
        documented.add(name)
    assert set(mien.__all__) <= documented


def test_every_model_is_documented() -> None:
    text = (DOCS / "reference" / "models.md").read_text(encoding="utf-8")
    told = {mark.removeprefix("mien models info ") for mark in _OUTPUT.findall(text)}
    assert told - {"mien models list"} == {*cards.bundle_ids(), *cards.model_ids()}


def test_the_rates_in_the_readme_are_those_of_the_cards() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| 1 in ([\d,]+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", text, re.M)
    assert rows
    for one_in, *stated in rows:
        fmr = 1 / int(one_in.replace(",", ""))
        points = [mien.load(name).operating_point(fmr) for name in cards_in_table]
        assert stated == [cell for p in points for cell in (f"{p.threshold:.4f}", f"{p.fnmr:.2%}")]


cards_in_table = ("embedded", "embedded-accurate")


# --------------------------------------------------------------------------------- the site builds


@pytest.fixture(scope="module")
def hooks() -> Iterator[Mapping[str, Any]]:
    """What mkdocs imports from docs/hooks.py."""
    sys.path.insert(0, str(DOCS))
    try:
        yield vars(importlib.import_module("hooks"))
    finally:
        sys.path.remove(str(DOCS))


def test_outputs_are_filled_in(hooks: Mapping[str, Any]) -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        filled = hooks["on_page_markdown"](text)
        assert not _OUTPUT.search(filled)
        if _OUTPUT.search(text):
            assert str(ROOT) not in filled  # no path of the machine that builds it


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in link and not link.startswith("#"):
                target = (page.parent / link.partition("#")[0]).resolve()
                assert target.exists(), f"{name_of(page)} links to {link}"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"- (?:.+: )?(\S+\.md)$", text, re.MULTILINE))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
