"""`mien models list`: a table to choose from, at any width of the terminal."""

import json

import pytest
from click.testing import CliRunner

from mien import cards
from mien.cli import cli


@pytest.mark.parametrize("width", [80, 100, 140])
def test_it_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = CliRunner().invoke(cli, ["models", "list"], catch_exceptions=False).output.splitlines()
    assert max(map(len, lines)) <= width
    assert ("what it is" in lines[0]) == (width > 90)
    named = {line.split()[0] for line in lines if line}
    assert {*cards.bundle_ids(), *cards.model_ids()} <= named


def test_what_can_be_used_at_once_stands_first() -> None:
    lines = CliRunner().invoke(cli, ["models", "list"], catch_exceptions=False).output.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["embedded", "embedded-accurate"]
    assert lines[1].split()[1:] == ["yes", "99.08%", "5.8%", "7.4", "MB", "yes"]
    (permissive,) = (line for line in lines if line.startswith("permissive"))
    assert permissive.split()[1:] == ["yes", "99.40%*", "-", "39.0", "MB", "no"]


def test_the_worst_terms_of_its_parts_are_those_of_a_recogniser() -> None:
    lines = CliRunner().invoke(cli, ["models", "list"], catch_exceptions=False).output.splitlines()
    terms = {line.split()[0]: line.split()[1] for line in lines if line}
    assert terms["buffalo_l"] == "no"
    assert terms["embedded-faceres"] == terms["facenet"] == "unclear"


def test_json_has_a_network_a_line() -> None:
    done = CliRunner().invoke(cli, ["models", "list", "--json"], catch_exceptions=False)
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [row["id"] for row in rows] == list(cards.model_ids())
