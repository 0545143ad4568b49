"""The commands as users type them: what they print, what they write, how they fail."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mien
from mien.cli import cli
from mien.errors import InputError, ModelError
from mien.training.preparation.pack import open_packed
from mien.types import Image


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "home"))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["data", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_from_photos_to_a_packed_set(photos: Path, tmp_path: Path) -> None:
    crops, lists, packed = tmp_path / "crops", tmp_path / "lists", tmp_path / "packed"
    said = run("crop", photos, "-o", crops, "--frame", "sface", "--min-quality", 0.01)
    assert "8 crops of 3 people" in said.stdout
    assert "2 pictures gave no crop" in said.stderr
    assert "refused  1 picture: no face found in" in said.stdout
    run("split", crops, "-o", lists, "--parts", "train=50,test=50", "--min-pictures", 2)
    parts = [rows(lists / f"{name}.csv") for name in ("train", "test")]
    assert {row["subject"] for row in parts[0]}.isdisjoint(row["subject"] for row in parts[1])
    assert sum(map(len, parts)) == 7
    people = (lists / "train-people.txt").read_text(encoding="utf-8").splitlines()
    assert people == sorted({row["subject"] for row in parts[0]})
    run("pack", crops, "-o", packed, "--only", lists / "train.csv")
    assert [row.source for row in open_packed(packed).rows] == [r["source"] for r in parts[0]]
    assert open_packed(packed).about.size == (112, 112)


def test_json_of_a_crop(photos: Path, tmp_path: Path) -> None:
    lines = run("crop", photos, "-o", tmp_path / "crops", "--json").stdout.splitlines()
    by_image = {row["image"]: row for row in map(json.loads, lines)}
    assert len(by_image) == 10
    assert by_image["eileen/1.jpg"]["files"] == ["crops/eileen/1.png"]
    assert by_image["eileen/1.jpg"]["reason"] is None
    assert "no face" in by_image["eileen/wall.png"]["reason"]


def test_upright_crops_of_another_size_and_format(photos: Path, tmp_path: Path) -> None:
    arguments = ("--margin", 0.2, "--size", 100, "--format", "jpeg", "--model", "embedded")
    run("crop", photos, "-o", tmp_path / "crops", *arguments)
    picture = mien.read_image(tmp_path / "crops" / "crops" / "eileen" / "1.jpg")
    assert (picture.width, picture.height) == (100, 100)


def test_the_frame_of_a_detector_is_the_default(photos: Path, tmp_path: Path) -> None:
    run("crop", photos, "-o", tmp_path / "crops", "--model", "retinaface-mobilenet025")
    assert json.loads((tmp_path / "crops" / "set.json").read_text())["size"] == [150, 150]


def test_what_crop_refuses(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies inside"):
        run("crop", photos, "-o", photos / "crops")
    with pytest.raises(ModelError, match="unknown model"):
        run("crop", photos, "-o", tmp_path / "a", "--frame", "nobody")
    walls = tmp_path / "walls"
    walls.mkdir()
    shutil.copy(photos / "eileen" / "wall.png", walls)
    with pytest.raises(InputError, match="gave a crop"):
        run("crop", walls, "-o", tmp_path / "b")


def test_a_check_writes_what_it_found(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "photos"
    shutil.copytree(photos, place)
    shutil.copy(place / "eileen" / "1.jpg", place / "eileen" / "again.jpg")
    greys = next(path for path in place.iterdir() if "Amazing" in path.name)
    shutil.copy(greys / "1.jpg", place / "eileen" / "wrong.jpg")
    mien.save_image(Image(mien.read_image(greys / "2.jpg").pixels), greys / "more.png")
    (place / "solo" / "1.jpg").unlink()  # of the same person as those of eileen
    found = json.loads(run("check", place, "-o", tmp_path / "out", "--json").stdout)
    assert found["pictures"] == 12
    assert found["exact_copies"] == 2
    assert found["near_copies"] >= 1
    assert found["copies_between_subjects"] == 1
    assert found["unreadable"] == 1
    assert found["without_face"] == 2
    doubted = rows(tmp_path / "out" / "suspects.csv")
    assert (doubted[0]["source"], doubted[0]["like"]) == ("eileen/wrong.jpg", greys.name)
    kept = {row["source"] for row in rows(tmp_path / "out" / "keep.csv")}
    assert not kept & {"eileen/again.jpg", "eileen/wrong.jpg", "solo/notes.jpg", "eileen/wall.png"}
    assert "eileen/1.jpg" in kept
    sheet = mien.read_image(tmp_path / "out" / "suspects.jpg")
    assert sheet.width >= 3 * 150
    why = {row["source"] for row in rows(tmp_path / "out" / "unusable.csv")}
    assert why == {"eileen/wall.png", "solo/notes.jpg"}
    said = run("check", place, "--only", tmp_path / "out" / "keep.csv").stdout
    assert "exact copies" in said


def test_people_of_an_evaluation_set_are_found(photos: Path, tmp_path: Path) -> None:
    """By the same picture, by name and by face, under another name too."""
    other = tmp_path / "evaluation"
    for name, new in (("eileen", "Collins, E."), ("solo", "Solo")):
        shutil.copytree(photos / name, other / new)
    found = json.loads(
        run("check", photos, "-o", tmp_path / "out", "--against", other, "--json").stdout
    )
    by = {(row["here"], row["by"]) for row in rows(tmp_path / "out" / "overlap.csv")}
    assert ("eileen/1.jpg", "picture") in by
    assert ("solo", "name") in by
    assert found["overlap"] == len(rows(tmp_path / "out" / "overlap.csv"))
    kept = {row["subject"] for row in rows(tmp_path / "out" / "keep.csv")}
    assert "solo" not in kept


def test_pairs_and_triplets(photos: Path, tmp_path: Path) -> None:
    said = run("pairs", photos, "-o", tmp_path / "pairs.csv", "--count", 5).stdout
    assert "5 genuine and 5 impostor pairs" in said
    assert {row["same"] for row in rows(tmp_path / "pairs.csv")} == {"0", "1"}
    run("triplets", photos, "-o", tmp_path / "t.csv", "--count", 7, "--mine", "embedded")
    drawn = rows(tmp_path / "t.csv")
    assert len(drawn) == 7
    assert not {"eileen/wall.png", "solo/notes.jpg"} & {v for row in drawn for v in row.values()}
    again = run("pairs", photos, "-o", tmp_path / "again.csv", "--count", 5, "--json").stdout
    assert json.loads(again)["genuine"] == 5
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "pairs.csv").read_bytes()


def test_lists_are_checked(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name\nada\n")
    with pytest.raises(InputError, match="no column 'source'"):
        run("split", photos, "-o", tmp_path / "x", "--only", tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("source\nada/1.jpg\n")
    with pytest.raises(InputError, match="none of the 1 pictures"):
        run("split", photos, "-o", tmp_path / "x", "--only", tmp_path / "list.csv")
    with pytest.raises(InputError, match="cannot read"):
        run("split", photos, "-o", tmp_path / "x", "--only", tmp_path / "absent.csv")
    for parts in ("train", "train=1,train=2", "a/b=1,c=1"):
        result = CliRunner().invoke(
            cli, ["data", "split", str(photos), "-o", str(tmp_path / "x"), "--parts", parts]
        )
        assert result.exit_code == 2
        assert "--parts" in result.output


def test_an_incomplete_copy_of_lfw_says_what_it_lacks(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(InputError, match="holds no LFW pictures"):
        run("lfw", photos)
    person = tmp_path / "lfw" / "lfw" / "Ada_One"
    person.mkdir(parents=True)
    shutil.copy(photos / "eileen" / "1.jpg", person / "Ada_One_0001.jpg")
    result = CliRunner().invoke(cli, ["data", "lfw", str(tmp_path / "lfw"), "--json"])
    assert isinstance(result.exception, InputError)
    assert "lacks pairs.txt" in str(result.exception)
    found = json.loads(result.stdout)
    assert found["complete"] is False
    assert "peopleDevTest.txt" in found["missing"]
