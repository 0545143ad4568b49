"""mien fit and mien classify, on the portraits inside the package and what can be made of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import mien
from mien.classification import describe, recognizers
from mien.cli import cli
from mien.errors import ContractMismatch, InputError, NoOperatingPoint, UnknownModel
from mien.types import Image

BOXES = {"eileen": (130, 20, 330, 260), "grace": (130, 70, 400, 380)}


def run(verb: str, *arguments: object) -> tuple[list[dict[str, Any]], int, str]:
    """The rows of JSON, the exit status, and the words on stderr."""
    result = CliRunner().invoke(
        cli, [verb, *(str(a) for a in arguments), "--json"], catch_exceptions=False,
        standalone_mode=False,
    )  # fmt: skip
    status = result.return_value if isinstance(result.return_value, int) else result.exit_code
    return [json.loads(line) for line in result.stdout.splitlines()], status, result.stderr


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, eileen_file: Path, grace_file: Path) -> Path:
    """Four renditions of each of two people."""
    place = tmp_path_factory.mktemp("two people")
    for name, file in (("eileen", eileen_file), ("grace", grace_file)):
        (place / name).mkdir()
        picture = PIL.Image.open(file).convert("RGB")
        for number, scale in enumerate((1.0, 0.8, 0.65, 0.9)):
            size = (round(picture.width * scale), round(picture.height * scale))
            turned = picture.resize(size).rotate(4 * number - 4)
            turned.save(place / name / f"{number}.jpg", quality=92 - 8 * number)
    return place


@pytest.fixture(scope="session")
def head(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "two.head"
    rows, status, _ = run(
        "fit", folder, "-o", path, "--models", "embedded,embedded-accurate", "--no-cache"
    )
    (row,) = rows
    assert status == 0
    assert row["labels"] == 2
    assert row["accuracy"] == 1
    assert row["pictures"] == 8
    assert row["refused"] == 0
    assert row["models"] == ["embedded", "embedded-accurate"]
    assert row["accuracy_interval"][0] < 1 == row["accuracy_interval"][1]
    return path


def test_every_face_gets_a_label(head: Path, both: Image, tmp_path: Path) -> None:
    mien.save_image(both, tmp_path / "both.png")
    (row,), status, _ = run("classify", tmp_path / "both.png", "--with", head)
    assert status == 0
    assert set(row) == {"image", "faces"}
    said = {face["label"]: face for face in row["faces"]}
    assert set(said) == {"eileen", "grace"}
    assert said["eileen"]["box"][0] < 512 < said["grace"]["box"][0]
    for face in row["faces"]:
        assert set(face) == {"box", "label", "probability", "top"}
        assert face["top"][0]["label"] == face["label"]
        assert face["probability"] == face["top"][0]["probability"] > 0.6
        assert sum(likely["probability"] for likely in face["top"]) == pytest.approx(1, abs=1e-4)


def test_words_and_pictures_for_people(head: Path, grace_file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli,
        ["classify", str(grace_file), "--with", str(head), "--save", str(tmp_path), "--limit", "1"],
    )
    assert "grace" in result.output
    with PIL.Image.open(tmp_path / "grace-hopper.jpg") as drawn:
        assert drawn.width >= 512


def test_the_library_takes_the_same_steps(head: Path, both: Image) -> None:
    """What the server does with a picture."""
    loaded = mien.load_head(head)
    models = recognizers(loaded, threads=1)
    faces = describe(both, models)
    assert [len(face.embeddings) for face in faces] == [2, 2]
    assert {answer.label for answer in loaded.classify([face.embeddings for face in faces])} == {
        "eileen", "grace",
    }  # fmt: skip
    first = models[0].recognize(both)
    for face, alone in zip(faces, first, strict=True):
        assert np.array_equal(face.embeddings[0].vector, alone.embedding.vector)
        assert face.quality == alone.quality
    assert describe(Image(np.zeros((64, 64, 3), np.uint8)), models) == []


def test_a_report_is_a_page_data_and_a_picture(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "fit.html"
    run("fit", folder, "-o", tmp_path / "a.head", "--report", page, "--head", "knn", "--no-cache")
    assert "eileen" in page.read_text()
    assert json.loads((tmp_path / "fit.json").read_text())["accuracy"] == 1
    with PIL.Image.open(tmp_path / "fit.png") as drawn:
        assert min(drawn.size) > 300


def test_what_cannot_be_used_is_reported_and_the_rest_is_fitted(
    folder: Path, tmp_path: Path
) -> None:
    for person in ("eileen", "grace"):
        (tmp_path / person).mkdir()
        for number in (0, 1):
            name = f"{person}/{number}.jpg"
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "grace" / "bad.jpg").write_text("not a picture")
    PIL.Image.new("RGB", (80, 80)).save(tmp_path / "grace" / "black.png")
    rows, status, words = run(
        "fit", tmp_path, "-o", tmp_path / "a.head", "--head", "knn", "--no-cache"
    )
    assert status == 2
    assert rows[0]["refused"] == 2
    assert "bad.jpg" in words
    assert "no face found in grace/black.png" in words
    assert mien.load_head(tmp_path / "a.head").report.pictures == 4


def test_folders_without_enough_in_them_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.head"

    def album(*names: str) -> Path:
        place = tmp_path / "-".join(name.replace("/", "") for name in names)
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes((folder / name).read_bytes())
        return place

    with pytest.raises(InputError, match="holds pictures of 1 people"):  # one person twice
        run("fit", album("eileen/0.jpg", "eileen/1.jpg"), "-o", out)
    with pytest.raises(InputError, match="each of the 2 people has one picture"):
        run("fit", album("eileen/0.jpg", "grace/0.jpg"), "-o", out, "--no-cache")
    one_left = album("eileen/2.jpg", "eileen/3.jpg")
    (one_left / "grace").mkdir()
    (one_left / "grace" / "bad.jpg").write_text("not a picture")
    with pytest.raises(InputError, match="usable pictures show 1 person"):
        run("fit", one_left, "-o", out, "--no-cache")
    with pytest.raises(InputError, match="not a folder"):
        run("fit", tmp_path / "absent", "-o", out)
    with pytest.raises(UnknownModel):
        run("fit", folder, "-o", out, "--models", "embedded,nothing")
    with pytest.raises(InputError, match="one contract"):
        run("fit", folder, "-o", out, "--models", "embedded,embedded", "--no-cache")
    assert not out.exists()


def test_a_head_of_other_vectors_is_refused(head: Path, grace_file: Path, tmp_path: Path) -> None:
    """A model of the same name that makes other vectors today."""
    with np.load(head) as found:
        arrays = dict(found)
    text = json.loads(arrays["head"].tobytes())
    text["models"][0]["contract"] = "embedded@older"
    arrays["head"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(ContractMismatch):
        run("classify", grace_file, "--with", tmp_path / "old.npz")
    with pytest.raises(InputError, match="cannot read"):
        run("classify", grace_file, "--with", tmp_path / "absent")
    with pytest.raises((InputError, NoOperatingPoint), match="too few pictures"):
        run("classify", grace_file, "--with", head, "--unknown", 0.01)


def test_a_bad_picture_does_not_stop_the_batch(
    head: Path, grace_file: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a picture")
    rows, status, words = run("classify", bad, grace_file, "--with", head)
    assert status == 2
    assert [row["faces"][0]["label"] for row in rows] == ["grace"]
    assert "bad.jpg" in words
