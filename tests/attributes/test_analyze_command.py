"""mien analyze: rows of the contract, pictures drawn on, bad input past which it goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner, Result

from mien.cli import cli, exit_status
from mien.drawing import NAMED, UNKNOWN
from mien.errors import CorruptWeights, InputError, MienError

Run = Callable[..., Result]


@pytest.fixture
def run(fresh_home: Path) -> Run:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(cli, ["analyze", *map(str, arguments)], standalone_mode=False)

    return invoke


def test_a_row_has_the_fields_of_the_contract(run: Run, eileen_file: Path) -> None:
    result = run(eileen_file, "--json")
    row = json.loads(result.stdout)
    (face,) = row["faces"]
    assert row["image"] == str(eileen_file)
    assert {"box", "age", "gender", "expression", "ethnicity", "liveness", "quality"} <= set(face)
    assert face["gender"]["label"] == "female"
    assert face["age"] is None
    assert face["ethnicity"] is None
    assert 0 <= face["liveness"]["score"] <= 1
    assert {"live", "threshold", "apcer", "bpcer", "protocol"} <= set(face["liveness"])
    assert set(face["pose"]) == {"yaw", "pitch", "roll"}
    assert "age was left out" in result.stderr
    assert "ethnicity" not in result.stderr


def test_only_what_was_asked_for(run: Run, eileen_file: Path) -> None:
    (face,) = json.loads(run(eileen_file, "--tasks", "pose, quality", "--json").stdout)["faces"]
    assert face["quality"] > 0.9
    assert face["gender"] is None
    assert face["liveness"] is None


def test_people_read_a_line_a_face(run: Run, eileen_file: Path) -> None:
    text = run(eileen_file, "--tasks", "gender,liveness").stdout
    assert "female" in text
    assert "live" in text
    assert "needs 0." in text
    assert "yaw" in text


def test_the_colour_of_the_frame_is_the_verdict(
    run: Run, eileen_file: Path, tmp_path: Path
) -> None:
    row = json.loads(run(eileen_file, "--save", tmp_path / "marked", "--json").stdout)
    (face,) = row["faces"]
    drawn = np.asarray(PIL.Image.open(tmp_path / "marked" / f"{eileen_file.stem}.jpg"))
    enlarged = drawn.shape[1] / 512
    left, top, right, _ = (enlarged * (edge + 0.5) for edge in face["box"])
    edge = drawn[round(top), round((left + right) / 2)].astype(int)
    expected = NAMED if face["liveness"]["live"] else UNKNOWN
    assert np.abs(edge - expected).max() < 40  # JPEG


@pytest.mark.parametrize(
    ("tasks", "error"), [("beauty", InputError), ("age", CorruptWeights), ("=x", InputError)]
)
def test_tasks_that_cannot_be_done(
    run: Run, eileen_file: Path, tasks: str, error: type[MienError]
) -> None:
    result = run(eileen_file, "--tasks", tasks)
    assert isinstance(result.exception, error)
    assert exit_status(type(result.exception)) == (2 if error is InputError else 3)
    assert not result.stdout


def test_a_bad_picture_does_not_stop_the_rest(run: Run, eileen_file: Path, tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "a.jpg").write_text("not a picture")
    (tmp_path / "album" / "b.jpg").write_bytes(eileen_file.read_bytes())
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "album" / "c.jpg")
    result = run(tmp_path / "album", "--tasks", "gender", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(row["faces"]) for row in rows] == [1, 0]
    assert "a.jpg" in result.stderr
    assert isinstance(result.exception, click.exceptions.Exit) or result.return_value == 2
