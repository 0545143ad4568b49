"""mien cluster: folders a person, what the user corrects is kept, new pictures join."""

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

from mien.cli import cli
from mien.errors import ContractMismatch, InputError, UnreadableImage

PICTURES = Path(str(resources.files("mien") / "bundled" / "pictures"))


def run(*arguments: object) -> list[dict[str, object]]:
    result = CliRunner().invoke(
        cli, ["cluster", *(str(a) for a in arguments), "--json"], catch_exceptions=False,
        standalone_mode=False,
    )  # fmt: skip
    return [json.loads(line) for line in result.stdout.splitlines()]


def groups(rows: list[dict[str, object]]) -> dict[str, object]:
    return {Path(str(row["image"])).name: row["cluster"] for row in rows}


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three renditions of Grace Hopper and one of Eileen Collins."""
    folder = tmp_path / "album"
    folder.mkdir()
    grace = PIL.Image.open(PICTURES / "grace-hopper.jpg").convert("RGB")
    for number, scale in enumerate((1.0, 0.9, 0.8)):
        size = (round(grace.width * scale), round(grace.height * scale))
        grace.resize(size).save(folder / f"grace-{number}.jpg", quality=95 - 5 * number)
    shutil.copy(PICTURES / "eileen-collins.jpg", folder / "eileen.jpg")
    return folder


def test_prints_a_row_a_face(album: Path) -> None:
    rows = run(album)
    assert all(set(row) == {"image", "box", "cluster"} for row in rows)
    found = groups(rows)
    assert found["grace-0.jpg"] == found["grace-1.jpg"] == found["grace-2.jpg"] == 0
    assert found["eileen.jpg"] == -1


def test_writes_a_folder_a_person_with_sheet_and_report(album: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    run(album, "-o", people)
    names = sorted(path.name for path in (people / "person-0000").iterdir())
    assert names == ["grace-0.jpg", "grace-1.jpg", "grace-2.jpg"]
    assert (people / "person-0000" / "grace-0.jpg").read_bytes() == (
        album / "grace-0.jpg"
    ).read_bytes()
    with PIL.Image.open(people / "person-0000.jpg") as sheet:
        assert sheet.size == (3 * 128, 128)
    assert "3 faces in 1 groups, 1 alone" in (people / "report.html").read_text()
    assert not list(people.glob("*partial*"))


def test_new_pictures_join_and_numbers_stay(album: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    late = tmp_path / "late.jpg"
    shutil.move(album / "grace-2.jpg", late)
    first = groups(run(album, "-o", people))
    shutil.move(late, album / "grace-2.jpg")
    eileen = PIL.Image.open(PICTURES / "eileen-collins.jpg").convert("RGB")
    eileen.resize((eileen.width * 9 // 10, eileen.height * 9 // 10)).save(album / "eileen-1.jpg")
    second = groups(run(album, "-o", people))
    assert first["grace-0.jpg"] == second["grace-0.jpg"] == second["grace-2.jpg"] == 0
    assert second["eileen.jpg"] == second["eileen-1.jpg"] == 1
    assert (people / "person-0000" / "grace-2.jpg").exists()
    assert len(list((people / "person-0001").iterdir())) == 2


def test_corrections_are_kept(album: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    run(album, "-o", people)
    (people / "person-0000").rename(people / "Grace")  # renamed: keeps its number
    (people / "someone").mkdir()
    (people / "Grace" / "grace-1.jpg").rename(people / "someone" / "grace-1.jpg")  # moved
    (people / "Grace" / "grace-2.jpg").unlink()  # deleted: in no group any more
    for _ in range(2):
        assert groups(run(album, "-o", people)) == {
            "grace-0.jpg": 0, "grace-1.jpg": 1, "grace-2.jpg": -1, "eileen.jpg": -1,
        }  # fmt: skip
    assert [path.name for path in (people / "Grace").iterdir()] == ["grace-0.jpg"]
    assert [path.name for path in (people / "someone").iterdir()] == ["grace-1.jpg"]
    with np.load(people / "clusters.npz") as kept:  # nor is its vector kept
        assert not kept["vector"][kept["gone"]].any()


def test_a_picture_in_neither_folder_leaves_no_trace(album: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    run(album, "-o", people)
    (album / "eileen.jpg").unlink()
    run(album, "-o", people)
    with np.load(people / "clusters.npz") as kept:
        assert len(kept["vector"]) == len(kept["pictures"]) == 3


def test_one_person_twice_is_one_group(tmp_path: Path, album: Path) -> None:
    for name in ("eileen.jpg", "grace-2.jpg"):
        (album / name).unlink()
    assert groups(run(album)) == {"grace-0.jpg": 0, "grace-1.jpg": 0}


def test_what_cannot_be_used_is_refused(album: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="not a folder"):
        run(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no pictures found"):
        run(empty)
    with pytest.raises(InputError, match="lies inside"):
        run(album, "-o", album / "people")
    with pytest.raises(InputError, match="not empty"):
        run(album, "-o", tmp_path)
    people = tmp_path / "people"
    run(album, "-o", people)
    with pytest.raises(ContractMismatch):
        run(album, "-o", people, "--model", "embedded-accurate")
    (people / "clusters.npz").write_bytes(b"PK not a record")
    with pytest.raises(InputError, match="start afresh"):
        run(album, "-o", people)
