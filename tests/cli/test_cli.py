"""The program `mien` as users meet it: a process with arguments, output and an exit status."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import mien
from mien.cli import VERBS
from mien.cli import cli as program
from mien.drawing import FOUND, NAMED, UNKNOWN
from mien.types import Image

# A program that was started in the background may have inherited a SIGINT that is ignored.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mien.cli import main; main()"
)


# As in most locales; in the "C" locale of build machines Python is more forgiving.
STRICT = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}


@dataclass(frozen=True)
class Run:
    """What a finished process left behind."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row


Cli = Callable[..., Run]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user who never ran mien before."""
    home = tmp_path / "home"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIEN_")}
    return kept | {"MIEN_HOME": str(home / "mien"), "NO_COLOR": "1"} | STRICT


@pytest.fixture
def cli(tmp_path: Path, environment: dict[str, str]) -> Cli:
    """Run `mien` in an empty folder; no run may end in a traceback."""

    def run(*arguments: str | Path, stdin: bytes = b"", **variables: str) -> Run:
        process = subprocess.run(
            [sys.executable, "-c", START, *map(str, arguments)],
            input=stdin, capture_output=True, check=False, cwd=tmp_path,
            env=environment | variables,
        )  # fmt: skip
        out, err = (
            text.decode("utf-8", "surrogateescape") for text in (process.stdout, process.stderr)
        )
        assert "Traceback" not in err, err
        assert "Warning" not in err, err
        return Run(process.returncode, out, err)

    return run


@pytest.fixture(scope="module")
def pictures(
    tmp_path_factory: pytest.TempPathFactory, eileen: Image, grace: Image, both: Image
) -> Path:
    """eileen.jpg, eileen2.png (mirrored, darker), grace.jpg, both.jpg, blank.png, text.jpg."""
    folder = tmp_path_factory.mktemp("pictures")
    mien.save_image(eileen, folder / "eileen.jpg")
    other_print = (eileen.pixels[:, ::-1] * 0.8).astype(np.uint8)
    mien.save_image(Image(np.ascontiguousarray(other_print)), folder / "eileen2.png")
    mien.save_image(grace, folder / "grace.jpg")
    mien.save_image(both, folder / "both.jpg")
    mien.save_image(Image(np.full((90, 120, 3), 200, np.uint8)), folder / "blank.png")
    (folder / "text.jpg").write_text("this is no picture")
    return folder


@pytest.fixture
def staff(tmp_path: Path, pictures: Path) -> Path:
    """One sub-folder a person, with one picture in it that cannot be enrolled."""
    folder = tmp_path / "staff"
    for person, names in {
        "Eileen Collins": ["eileen.jpg", "eileen2.png"],
        "Grace": ["grace.jpg", "blank.png"],
    }.items():
        (folder / person).mkdir(parents=True)
        for name in names:
            shutil.copy(pictures / name, folder / person)
    (folder / "readme.txt").write_text("not a person")
    return folder


@pytest.fixture
def enrolled(tmp_path: Path, recognizer: mien.Recognizer, eileen: Image, grace: Image) -> Path:
    """A gallery that knows Eileen and Grace."""
    path = tmp_path / "people.mien"
    with mien.open_gallery(path) as gallery:
        gallery.enroll("Eileen", eileen, recognizer)
        gallery.enroll("Grace", grace, recognizer)
    return path


def near(pixels: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """Where a JPEG has about this colour."""
    return np.abs(pixels.astype(int) - np.array(colour)).max(axis=2) < 40


def is_framed(picture: Path, box: Sequence[float], colour: Sequence[int]) -> bool:
    """Whether the edges of a box are drawn in a colour, on a picture that was not enlarged."""
    pixels = mien.read_image(picture).pixels
    left, top, right, bottom = (round(edge) for edge in box)
    hits = near(pixels, colour)
    edges = (
        hits[top : (top + bottom) // 2, left - 4 : left + 5],
        hits[top : (top + bottom) // 2, right - 4 : right + 5],
    )
    return all(edge.any(axis=1).mean() > 0.8 for edge in edges)


# ------------------------------------------------------------------------------ detect


def test_detect(cli: Cli, pictures: Path, eileen_face: mien.Face) -> None:
    run = cli("detect", pictures / "eileen.jpg", "--json")
    assert (run.status, run.err) == (0, "")
    row = run.row
    assert set(row) >= {"image", "width", "height", "faces"}
    assert (row["image"], row["width"], row["height"]) == (str(pictures / "eileen.jpg"), 512, 512)
    (face,) = row["faces"]
    assert set(face) >= {"box", "landmarks", "confidence", "quality"}
    box = eileen_face.box
    np.testing.assert_allclose(face["box"], [box.left, box.top, box.right, box.bottom], atol=2)
    np.testing.assert_allclose(face["landmarks"], eileen_face.landmarks.points, atol=2)
    assert 0.9 < face["confidence"] <= 1
    assert 0.9 < face["quality"] <= 1


def test_detect_in_words(cli: Cli, pictures: Path) -> None:
    run = cli("detect", pictures / "both.jpg", pictures / "blank.png")
    assert run.status == 0
    assert "both.jpg  1024 x 512  2 faces" in run.out
    assert "blank.png  120 x 90  no face" in run.out


def test_detect_save(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    run = cli("detect", pictures / "both.jpg", "--save", "marked/deep", "--json")
    assert run.status == 0
    marked = tmp_path / "marked" / "deep" / "both.jpg"
    assert mien.read_image(marked).pixels.shape == (512, 1024, 3)
    for face in run.row["faces"]:
        assert is_framed(marked, face["box"], FOUND)
        assert not is_framed(pictures / "both.jpg", face["box"], FOUND)


def test_save_never_overwrites_the_originals(
    cli: Cli, pictures: Path, enrolled: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures / "eileen.jpg", tmp_path / "a.jpg")
    (tmp_path / "sub").mkdir()
    shutil.copy(pictures / "grace.jpg", tmp_path / "sub" / "a.jpg")
    before = [(tmp_path / name).read_bytes() for name in ("a.jpg", "sub/a.jpg")]
    assert cli("detect", "sub/a.jpg", "a.jpg", "--save", ".").status == 0
    assert cli("identify", "sub", "--save", "sub", "--gallery", enrolled).status == 0
    assert [(tmp_path / name).read_bytes() for name in ("a.jpg", "sub/a.jpg")] == before
    assert len(list(tmp_path.glob("a-*.jpg"))) == 2
    assert len(list(tmp_path.glob("sub/a-*.jpg"))) == 1


def test_save_where_nothing_can_be_written(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for verb in (["detect", pictures / "eileen.jpg"], ["demo"]):
        run = cli(*verb, "--save", "file/there")
        assert run.status == 2
        assert "file" in run.err


def test_folder_with_a_bad_file(cli: Cli, pictures: Path) -> None:
    """It goes on, names what is bad and why, and says so in its exit status."""
    run = cli("detect", pictures, "--json", "--threads", "2")
    assert run.status == 2
    names = [Path(row["image"]).name for row in run.rows]
    assert names == ["blank.png", "both.jpg", "eileen.jpg", "eileen2.png", "grace.jpg"]
    assert [len(row["faces"]) for row in run.rows] == [0, 2, 1, 1, 1]
    assert "text.jpg" in run.err
    assert "looks like text" in run.err
    assert "1 picture could not be used" in run.err


def test_threads_change_nothing(cli: Cli, pictures: Path) -> None:
    runs = [cli("detect", pictures, "--json", "--threads", str(n)) for n in (1, 4)]
    assert runs[0] == runs[1]


def test_heic_without_its_reader_among_good_ones(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    if find_spec("pillow_heif"):
        pytest.skip("HEIC can be read here")
    folder = tmp_path / "album"
    folder.mkdir()
    (folder / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    for name in ("a.jpg", "c.jpg"):
        shutil.copy(pictures / "eileen.jpg", folder / name)
    run = cli("detect", folder, "--json")
    assert [Path(row["image"]).name for row in run.rows] == ["a.jpg", "c.jpg"]
    assert run.status in (2, 3)
    assert "mien[heic]" in run.err


def test_empty_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = cli("detect", "empty")
    assert (run.status, run.out) == (2, "")
    assert "no pictures" in run.err


@pytest.mark.parametrize("verb", ["detect", "identify", "embed"])
def test_missing_path_among_good_ones(cli: Cli, pictures: Path, enrolled: Path, verb: str) -> None:
    more = {"embed": ["-o", "x.npz"], "identify": ["--gallery", enrolled]}.get(verb, [])
    run = cli(verb, "no-such.jpg", pictures / "eileen.jpg", "--json", *more)
    assert run.status == 2
    assert run.row["image"] == str(pictures / "eileen.jpg")
    assert re.search(r"no-such\.jpg: it does not exist", run.err)


def test_picture_from_standard_input(cli: Cli, pictures: Path, enrolled: Path) -> None:
    data = (pictures / "eileen.jpg").read_bytes()
    run = cli("detect", "-", "--json", stdin=data)
    assert run.status == 0
    assert (run.row["image"], len(run.row["faces"])) == ("-", 1)
    run = cli("identify", "-", "--json", "--gallery", enrolled, stdin=data)
    assert run.row["faces"][0]["subject"] == "Eileen"
    assert cli("verify", "-", pictures / "eileen2.png", stdin=data).status == 0
    run = cli("detect", "-", stdin=b"")
    assert run.status == 2
    assert "empty" in run.err


ODD_NAMES = ["käse 王小明 🙂.jpg", "two\nlines.jpg", "-dash.jpg", "quote\"'$(x).jpg", "%s{0}.jpg"]


def test_odd_names(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ödd földer"
    folder.mkdir()
    for name in ODD_NAMES:
        shutil.copy(pictures / "eileen.jpg", folder / name)
    run = cli("detect", folder, "--json", "--save", "out")
    assert (run.status, run.err) == (0, "")
    assert {row["image"] for row in run.rows} == {str(folder / name) for name in ODD_NAMES}
    assert len(list((tmp_path / "out").iterdir())) == len(ODD_NAMES)
    assert cli("detect", folder).status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
@pytest.mark.parametrize("verb", ["detect", "embed", "enroll", "enroll --from", "identify"])
def test_names_of_another_encoding(
    cli: Cli, pictures: Path, tmp_path: Path, enrolled: Path, verb: str
) -> None:
    """Bytes that are no text, in the names of a folder and of a picture."""
    person = tmp_path / "other" / os.fsdecode(b"Ren\xe9")
    person.mkdir(parents=True)
    shutil.copy(pictures / "eileen.jpg", person / os.fsdecode(b"caf\xe9.jpg"))
    arguments = {
        "detect": ["detect", "other"],
        "embed": ["embed", "other", "-o", "x.npz"],
        "enroll": ["enroll", "ada", "other", "--gallery", "g.mien"],
        "enroll --from": ["enroll", "--from", "other", "--gallery", "g.mien"],
        "identify": ["identify", "other", "--gallery", str(enrolled)],
    }[verb]
    for as_json in ([], ["--json"]):
        run = cli(*arguments, *as_json)
        assert run.status == (2 if verb == "enroll --from" else 0), run.err
        assert "caf" in run.out
    if verb == "detect":
        assert os.fsencode(run.row["image"]).endswith(b"caf\xe9.jpg")  # and back again


def test_usage_errors(cli: Cli) -> None:
    for arguments in (
        ["detect"], ["nonesuch"], ["verify", "a"], ["enroll", "ada"], ["enroll", "ada", "-"],
    ):  # fmt: skip
        run = cli(*arguments)
        assert (run.status, run.out) == (2, ""), arguments
        assert run.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "--nonesuch", "x"], ["detect", "x", "--threads", "0"], ["embed", "x"],
        ["identify", "x", "--limit", "0"], ["verify", "a", "b", "--choose", "best"],
        ["enroll", "ada", "x", "--from", "y"], ["gallery", "remove"], ["completion", "dos"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_are_checked(arguments: list[str]) -> None:
    result = CliRunner().invoke(program, arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output


# ------------------------------------------------------------------------------ verify


@pytest.mark.parametrize(
    ("a", "b", "status", "match"),
    [("eileen.jpg", "eileen2.png", 0, True), ("eileen.jpg", "grace.jpg", 1, False)],
)
def test_verify(cli: Cli, pictures: Path, a: str, b: str, status: int, match: bool) -> None:
    run = cli("verify", pictures / a, pictures / b, "--json", "--fmr", "1e-2")
    assert (run.status, run.err) == (status, "")
    row = run.row
    assert set(row) >= {"match", "score", "threshold", "fmr", "fnmr", "protocol", "contract"}
    assert row["match"] is match
    assert (row["score"] >= row["threshold"]) is match
    assert row["fmr"] == 0.01
    assert 0 < row["fnmr"] < 0.05
    assert "LFW" in row["protocol"]
    assert "@" in row["contract"]
    words = cli("verify", pictures / a, pictures / b)
    assert words.status == status
    assert words.out.startswith("same person" if match else "different people")


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ("blank.png", "no face found in .*blank.png"),
        ("both.jpg", "2 faces found in .*both.jpg"),
        ("text.jpg", "cannot read .*text.jpg"),
        ("missing.jpg", "cannot read .*missing.jpg"),
    ],
)
def test_verify_what_cannot_be_verified(cli: Cli, pictures: Path, b: str, words: str) -> None:
    run = cli("verify", pictures / "eileen.jpg", pictures / b, "--json")
    assert (run.status, run.out) == (2, "")
    assert re.search(words, run.err)


def test_verify_options(cli: Cli, pictures: Path) -> None:
    pair = pictures / "both.jpg", pictures / "grace.jpg"
    assert cli("verify", *pair, "--choose", "largest").status == 0
    assert cli("verify", *pair, "--fmr", "1.5").status == 2
    run = cli("verify", *pair, "--choose", "largest", "--fmr", "1e-12")
    assert run.status == 3
    assert "no threshold" in run.err
    run = cli("verify", *pair, "--model", "nonesuch")
    assert run.status == 3
    assert "embedded" in run.err


# ------------------------------------------------------------------------------ enroll, identify


def test_first_steps_of_a_new_user(cli: Cli, pictures: Path) -> None:
    """No gallery named, no folder there yet: the default one is made."""
    run = cli("enroll", "Eileen", pictures / "eileen.jpg")
    assert run.status == 0, run.err
    run = cli("identify", pictures / "both.jpg", "--json")
    assert sorted(str(face["subject"]) for face in run.row["faces"]) == ["Eileen", "None"]
    assert cli("doctor").status == 0


def test_gallery_of_the_environment(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    run = cli("enroll", "Eileen", pictures / "eileen.jpg", MIEN_GALLERY="mine.mien")
    assert run.status == 0
    assert (tmp_path / "mine.mien").exists()
    run = cli("gallery", "list", "--json", MIEN_GALLERY="mine.mien")
    assert run.row["subject"] == "Eileen"


def test_enroll_from_a_folder(cli: Cli, staff: Path) -> None:
    run = cli("enroll", "--from", staff, "--gallery", "g.mien", "--json")
    assert run.status == 2  # one was refused
    assert all(set(row) >= {"subject", "image", "status", "reason"} for row in run.rows)
    report = [(r["subject"], Path(r["image"]).name, r["status"]) for r in run.rows]
    assert report == [
        ("Eileen Collins", "eileen.jpg", "enrolled"),
        ("Eileen Collins", "eileen2.png", "enrolled"),
        ("Grace", "blank.png", "refused"),
        ("Grace", "grace.jpg", "enrolled"),
    ]
    reasons = [row["reason"] for row in run.rows]
    assert reasons[:2] == [None, None]
    assert "no face found" in reasons[2]
    listed = cli("gallery", "list", "--gallery", "g.mien", "--json").rows
    assert [(row["subject"], row["templates"]) for row in listed] == [
        ("Eileen Collins", 2), ("Grace", 1),
    ]  # fmt: skip


def test_several_pictures_fused_into_one_template_more(cli: Cli, staff: Path) -> None:
    run = cli("enroll", "--from", staff, "--fuse", "--gallery", "g.mien", "--json")
    assert run.rows[-1]["subject"] == "Eileen Collins"
    assert run.rows[-1]["image"] == "fused from 2 pictures"
    listed = cli("gallery", "list", "--gallery", "g.mien", "--json").rows
    assert [row["templates"] for row in listed] == [3, 1]
    found = cli(
        "identify", staff / "Eileen Collins" / "eileen.jpg", "--gallery", "g.mien", "--json"
    )
    assert found.row["faces"][0]["subject"] == "Eileen Collins"


def test_enroll_goes_on_past_bad_pictures(cli: Cli, pictures: Path) -> None:
    bad = ["both.jpg", "text.jpg", "missing.jpg"]
    run = cli(
        "enroll", "Eileen", *(pictures / name for name in bad), pictures / "eileen.jpg",
        "--gallery", "g.mien", "--json",
    )  # fmt: skip
    assert run.status == 2
    assert [row["status"] for row in run.rows] == ["refused"] * 3 + ["enrolled"]
    for name, row in zip(bad, run.rows, strict=False):
        assert name in row["reason"]


def test_enroll_refuses_poor_pictures(cli: Cli, pictures: Path) -> None:
    where = ["--gallery", "g.mien", "--json"]
    run = cli("enroll", "E", pictures / "eileen.jpg", "--min-quality", "1.01", *where)
    assert run.status == 2
    assert "too poor" in run.row["reason"]


def test_enroll_from_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in (["--from", "empty"], ["--from", "missing"], ["ada", "empty"]):
        run = cli("enroll", *arguments, "--gallery", "g.mien")
        assert run.status == 2
        assert run.err
    assert not (tmp_path / "g.mien").exists()


def test_identify(cli: Cli, pictures: Path, enrolled: Path, tmp_path: Path) -> None:
    with mien.open_gallery(enrolled) as gallery:
        gallery.remove("Grace")
    run = cli(
        "identify", pictures / "both.jpg", "--gallery", enrolled, "--json", "--save", "named",
        "--fpir", "0.005", "--limit", "3",
    )  # fmt: skip
    assert run.status == 0
    faces = sorted(run.row["faces"], key=lambda face: face["box"][0])
    assert [face["subject"] for face in faces] == ["Eileen", None]
    for face in faces:
        assert set(face) >= {"box", "subject", "score", "threshold", "candidates"}
        assert [set(match) for match in face["candidates"]] == [{"subject", "score"}]
        assert (face["score"] >= face["threshold"]) is (face["subject"] is not None)
        assert face["fpir"] == 0.005
    marked = tmp_path / "named" / "both.jpg"
    assert is_framed(marked, faces[0]["box"], NAMED)
    assert is_framed(marked, faces[1]["box"], UNKNOWN)
    assert not is_framed(marked, faces[1]["box"], NAMED)


def test_identify_in_words(cli: Cli, pictures: Path, enrolled: Path) -> None:
    with mien.open_gallery(enrolled) as gallery:
        gallery.remove("Grace")
    run = cli("identify", pictures / "both.jpg", pictures / "blank.png", "--gallery", enrolled)
    assert run.status == 0
    assert re.search(r"Eileen  score \d\.\d\d\d", run.out)
    assert re.search(r"unknown  score 0\.\d\d\d", run.out)
    assert "blank.png  no face" in run.out


def test_identify_with_nobody_enrolled(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    mien.open_gallery(tmp_path / "empty.mien").close()
    where = ["--gallery", "empty.mien", "--save", "named"]
    run = cli("identify", pictures / "eileen.jpg", "--json", *where)
    assert run.status == 0
    (face,) = run.row["faces"]
    assert (face["subject"], face["candidates"]) == (None, [])
    assert cli("identify", pictures / "eileen.jpg", *where).status == 0


def test_identify_without_a_gallery(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    run = cli("identify", pictures / "eileen.jpg", "--gallery", "none.mien")
    assert (run.status, run.out) == (4, "")
    assert "mien enroll" in run.err
    assert not (tmp_path / "none.mien").exists()


def test_gallery_of_another_contract(cli: Cli, pictures: Path, enrolled: Path) -> None:
    where = ["--gallery", str(enrolled), "--model", "embedded-accurate"]
    for verb in (["identify", pictures / "eileen.jpg"], ["enroll", "x", pictures / "eileen.jpg"]):
        run = cli(*verb, *where)
        assert (run.status, run.out) == (4, "")
        assert "mean nothing" in run.err
    with mien.open_gallery(enrolled) as gallery:
        assert len(gallery) == 2


def test_a_picture_is_no_gallery(cli: Cli, pictures: Path) -> None:
    run = cli("identify", pictures / "eileen.jpg", "--gallery", pictures / "grace.jpg")
    assert run.status == 4
    assert "not a mien gallery" in run.err


# ------------------------------------------------------------------------------ gallery


def test_gallery_verbs(cli: Cli, enrolled: Path) -> None:
    where = ["--gallery", str(enrolled), "--json"]
    rows = cli("gallery", "list", *where).rows
    assert [set(row) >= {"subject", "templates", "created"} for row in rows] == [True, True]
    shown = cli("gallery", "show", "Eileen", *where).row
    assert shown["subject"] == "Eileen"
    assert shown["quality"] > 0.9
    stats = cli("gallery", "stats", *where).row
    assert (stats["subjects"], stats["templates"], stats["dimensions"]) == (2, 2, 128)
    assert stats["bytes"] > 0
    assert "@" in stats["contract"]
    run = cli("gallery", "remove", "Eileen", "--yes", *where)
    assert (run.status, run.row["templates"], run.row["status"]) == (0, 1, "removed")
    assert b"Eileen" not in enrolled.read_bytes()
    assert cli("gallery", "compact", "--gallery", enrolled).status == 0
    assert [row["subject"] for row in cli("gallery", "list", *where).rows] == ["Grace"]
    for verb in ("list", "stats"):
        assert "Grace" in cli("gallery", "list", "--gallery", enrolled).out
        assert cli("gallery", verb, "--gallery", enrolled).status == 0


def test_gallery_remove_asks(cli: Cli, enrolled: Path) -> None:
    where = ["--gallery", str(enrolled)]
    run = cli("gallery", "remove", "Eileen", *where, stdin=b"n\n")
    assert run.status == 1
    assert "Eileen" in run.err
    assert b"Eileen" in enrolled.read_bytes()
    assert cli("gallery", "remove", "Eileen", *where, stdin=b"").status == 130
    assert cli("gallery", "remove", "Eileen", *where, stdin=b"y\n").status == 0
    assert b"Eileen" not in enrolled.read_bytes()


def test_gallery_remove_someone_unknown(cli: Cli, enrolled: Path) -> None:
    """All are known, or none goes."""
    run = cli("gallery", "remove", "Eileen", "Nobody", "--yes", "--gallery", enrolled)
    assert run.status == 4
    assert "Nobody" in run.err
    assert cli("gallery", "show", "Eileen", "--gallery", enrolled).status == 0
    assert cli("gallery", "show", "Nobody", "--gallery", enrolled).status == 4
    assert cli("gallery", "list", "--gallery", "none.mien").status == 4


# ------------------------------------------------------------------------------ embed


def test_embed(
    cli: Cli, pictures: Path, tmp_path: Path, recognizer: mien.Recognizer, both: Image
) -> None:
    good = [pictures / name for name in ("both.jpg", "blank.png", "grace.jpg")]
    run = cli("embed", *good, "-o", "faces.npz", "--json")
    assert run.status == 0
    assert [row["faces"] for row in run.rows] == [2, 0, 1]
    with np.load(tmp_path / "faces.npz", allow_pickle=False) as file:
        assert set(file) == {"image", "box", "vector", "contract"}
        assert file["image"].tolist() == [str(good[0]), str(good[0]), str(good[2])]
        assert file["box"].shape == (3, 4)
        assert (file["vector"].shape, file["vector"].dtype) == ((3, 128), np.float32)
        assert set(file["contract"]) == {recognizer.contract}
        expected = [found.embedding.vector for found in recognizer.recognize(good[0])]
        np.testing.assert_array_equal(file["vector"][:2], expected)
    assert sorted(path.name for path in tmp_path.glob("faces*")) == ["faces.npz"]


def test_embed_nothing(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    assert cli("embed", pictures / "blank.png", "-o", "faces.npz").status == 0
    with np.load(tmp_path / "faces.npz", allow_pickle=False) as file:
        assert [len(file[column]) for column in ("image", "box", "vector", "contract")] == [0] * 4


def test_embed_where_nothing_can_be_written(cli: Cli, pictures: Path) -> None:
    for output in ("faces.csv", "no/such/folder/faces.npz"):
        run = cli("embed", pictures / "eileen.jpg", "-o", output)
        assert run.status == 2
        assert output in run.err


# ------------------------------------------------------------------------------ models, doctor, ...


def test_models_list(cli: Cli) -> None:
    rows = cli("models", "list", "--json").rows
    fields = {"id", "task", "licence", "commercial", "bytes", "sha256", "present"}
    assert all(set(row) >= fields for row in rows)
    assert all(row["commercial"] in ("yes", "no", "unclear") for row in rows)
    assert all(row["present"] is True for row in rows if row["id"] == "dlib-resnet-v1")
    words = cli("models", "list").out
    for name in ("retinaface-mobilenet025", "embedded-accurate"):
        assert name in words


@pytest.mark.parametrize("name", ["embedded", "embedded-accurate", "dlib-resnet-v1"])
def test_models_info(cli: Cli, name: str) -> None:
    run = cli("models", "info", name)
    assert run.status == 0
    assert name in run.out
    assert ("FMR" if name.startswith("embedded") else "CC0") in run.out


def test_models_unknown(cli: Cli) -> None:
    for verb in ("info", "verify"):
        run = cli("models", verb, "nonesuch")
        assert run.status == 3
        assert "dlib-resnet-v1" in run.err


def test_models_verify(cli: Cli) -> None:
    run = cli("models", "verify", "--json")
    assert run.status == 0
    assert {row["status"] for row in run.rows} == {"ok"}


SPOILT = """
import mien.weights, pathlib
place = pathlib.Path({place!r})
mien.weights.resources = type("Elsewhere", (), {{"files": staticmethod(lambda name: place)}})
"""


def test_corrupt_model(tmp_path: Path, pictures: Path, environment: dict[str, str]) -> None:
    """A copy of the weights with one bit changed, found in the place of the bundled ones."""
    bundled = Path(mien.__file__).parent / "bundled"
    shutil.copytree(bundled, tmp_path / "copy" / "bundled")
    for file in (tmp_path / "copy" / "bundled").glob("*.onnx"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    start = SPOILT.format(place=str(tmp_path / "copy")) + START
    picture = str(pictures / "eileen.jpg")
    for arguments, words in {
        ("verify", picture, picture): "not the one its card describes",
        ("detect", picture): "not the one its card describes",
        ("models", "verify"): "failed",
        ("doctor",): "BAD",
    }.items():
        run = subprocess.run(
            [sys.executable, "-c", start, *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert run.returncode == 3, run.stderr
        assert words in run.stdout + run.stderr


def test_doctor(cli: Cli, enrolled: Path) -> None:
    run = cli("doctor", MIEN_GALLERY=str(enrolled))
    assert run.status == 0
    for words in ("onnxruntime", "retinaface-mobilenet025", "dlib-resnet-v1", "2 people"):
        assert words in run.out
    assert "BAD" not in run.out


def test_demo(cli: Cli, tmp_path: Path) -> None:
    run = cli("demo")
    assert run.status == 0
    assert "Eileen Collins" in run.out
    assert re.search(r"left, right: Eileen Collins .*; unknown", run.out)
    assert "same person" in run.out
    assert "different people" in run.out
    picture = mien.read_image(tmp_path / "mien-demo" / "identified.jpg")
    assert near(picture.pixels, NAMED).sum() > 200
    assert near(picture.pixels, UNKNOWN).sum() > 200


def test_demo_on_a_folder(cli: Cli, staff: Path, tmp_path: Path) -> None:
    (staff / "Grace" / "blank.png").unlink()
    run = cli("demo", staff, "--save", "shown")
    assert run.status == 0
    assert re.search(r"Eileen Collins: Eileen Collins \(", run.out)
    assert re.search(r"Grace \(not enrolled\): unknown \(", run.out)
    assert (tmp_path / "shown" / "identified.jpg").exists()
    assert cli("demo", "missing").status == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str) -> None:
    run = cli("completion", shell)
    assert run.status == 0
    assert "_MIEN_COMPLETE" in run.out


def test_version(cli: Cli) -> None:
    assert re.fullmatch(r"mien \d+\.\d+\.\d+\S*\n", cli("--version").out)


GROUPS = {"gallery": ["list", "show", "remove", "stats", "compact"]}
GROUPS["models"] = ["list", "info", "verify"]
HELP = [[verb] for verb in VERBS] + [[g, verb] for g, verbs in GROUPS.items() for verb in verbs]


@pytest.mark.parametrize("verb", HELP, ids=" ".join)
def test_help(verb: list[str]) -> None:
    """Every verb says what it does, and what each of its options means."""
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(program, [*verb, flag])
        assert result.exit_code == 0
        assert "Usage:" in result.output
    command: click.Command = program
    for name in verb:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    assert command.help
    assert len(command.help.split()) >= 3
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{verb} {parameter.name}"
    if verb[0] in ("detect", "embed", "verify", "enroll", "identify", "completion"):
        assert f"mien {verb[0]}" in command.help  # an example


def test_every_verb_is_listed(cli: Cli) -> None:
    out = cli("--help").out
    assert all(re.search(rf"^  {verb} ", out, re.MULTILINE) for verb in VERBS)
    assert cli().err or cli().out


def test_the_installed_program(environment: dict[str, str]) -> None:
    script = Path(sys.executable).with_name("mien.exe" if os.name == "nt" else "mien")
    if not script.exists():
        pytest.skip("mien is not installed as a program here")
    run = subprocess.run(
        [script, "--version"], capture_output=True, text=True, check=False, env=environment
    )
    assert (run.returncode, run.stderr) == (0, "")


# ------------------------------------------------------------------------------ being interrupted


@pytest.fixture
def many(tmp_path: Path, eileen: Image) -> Path:
    """Three hundred people, each in one small picture."""
    folder = tmp_path / "many"
    small = PIL.Image.fromarray(eileen.pixels).resize((320, 320))
    small.save(tmp_path / "small.jpg", quality=90)
    for number in range(300):
        person = folder / f"p{number:03}"
        person.mkdir(parents=True)
        shutil.copy(tmp_path / "small.jpg", person / "1.jpg")
    return folder


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupted_enrolment_keeps_what_it_reported(
    many: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START, "enroll", "--from", str(many), "--gallery", "g.mien",
         "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out, process.stderr as words:
        first = out.readline()
        process.send_signal(signal.SIGINT)
        rest, err = out.read(), words.read()
    assert process.wait(60) == 130, err
    assert "Traceback" not in err
    assert "stopped" in err
    reported = {json.loads(line)["subject"] for line in (first + rest).splitlines()}
    with mien.open_gallery(tmp_path / "g.mien") as gallery:
        stored = {subject.name for subject in gallery.subjects()}
    assert reported <= stored
    assert 0 < len(stored) < 300


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_reader_goes_away(many: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START, "detect", str(many), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out:
        assert out.readline()
    with process.stderr as words:
        err = words.read()
    assert process.wait(60) == 141  # neither "yes" nor "no"
    assert err == ""


def test_rename_and_merge(cli: Cli, enrolled: Path) -> None:
    where = ["--gallery", str(enrolled)]
    run = cli("gallery", "rename", "Eileen", "E. Collins", *where)
    assert (run.status, run.out) == (0, "renamed  Eileen  to E. Collins, 1 template\n")
    refused = cli("gallery", "rename", "Grace", "E. Collins", *where)
    assert refused.status == 4
    assert "merge" in refused.err
    assert cli("gallery", "rename", "Grace", "E. Collins", "--merge", *where).status == 0
    rows = cli("gallery", "list", "--json", *where).rows
    assert [(row["subject"], row["templates"]) for row in rows] == [("E. Collins", 2)]
    assert cli("gallery", "rename", "Grace", "x", *where).status == 4


def test_what_the_gallery_verbs_refuse(cli: Cli, enrolled: Path, tmp_path: Path) -> None:
    """In words, with the exit status of the contract, and without leaving files behind."""
    where = ["--gallery", str(enrolled)]
    before = sorted(file.name for file in enrolled.parent.iterdir())
    for status, words, said in (
        (2, ["export", "no/such/folder/all.npz"], "cannot write no/such/folder/all.npz"),
        (2, ["import", "missing.npz", "--gallery", "new.mien"], "missing.npz does not exist"),
        (2, ["import", str(enrolled), "--gallery", "new.mien"], "not an exported gallery"),
        (2, ["migrate", "--to", str(enrolled)], "itself"),
        (4, ["migrate", "--switch"], "nothing to switch to"),
        (3, ["migrate", "--to-model", "nonesuch"], "nonesuch"),
        (4, ["migrate", "--switch"], "nothing to switch to"),
        (2, ["expire", "--days", "3", "--for-ever"], "not both"),
        (130, ["remove", "Grace"], "--yes"),  # nobody answers the question
    ):
        run = cli("gallery", *words, *([] if "--gallery" in words else where))
        assert (run.status, run.out) == (status, ""), words
        assert said in run.err
    assert sorted(file.name for file in enrolled.parent.iterdir()) == before
    assert not (tmp_path / "new.mien").exists()


def test_a_dry_run_of_another_model_changes_nothing(cli: Cli, enrolled: Path) -> None:
    where = ["--gallery", str(enrolled)]
    wanted = ["migrate", "--to-model", "embedded-accurate"]
    dry = cli("gallery", *wanted, "--dry-run", "--json", *where)
    assert (dry.status, {row["status"] for row in dry.rows}) == (0, {"usable"})
    assert "threshold of embedded-accurate" in dry.err
    assert cli("gallery", "migrate", "--switch", *where).status == 4  # nothing was begun
    made = cli("gallery", *wanted, "--json", *where)
    assert [row["status"] for row in made.rows] == ["embedded"] * len(dry.rows)
    assert cli("gallery", "migrate", "--switch", *where).status == 0


def test_expire_tells_the_period(cli: Cli, enrolled: Path) -> None:
    where = ["--gallery", str(enrolled)]
    assert "for ever" in cli("gallery", "expire", *where).err
    for words in (["--days", "30"], []):
        said = cli("gallery", "expire", *words, *where).err
        assert said == "0 templates expired; the period is 30 days\n"
    assert "for ever" in cli("gallery", "expire", "--for-ever", *where).err
