"""`mien evaluate`: what users type, on little data, with the real models."""

import json
import pickle
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner, Result

from mien.cli import cli
from mien.errors import InputError

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "home"))

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(
            cli, ["evaluate", *arguments], standalone_mode=False, catch_exceptions=False
        )

    return call


@pytest.fixture(scope="session")
def astronauts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, and pictures of them that differ by a crop: one sub-folder each."""
    root = tmp_path_factory.mktemp("people")
    bundled = resources.files("mien").joinpath("bundled", "pictures")
    for name in ("eileen-collins", "grace-hopper"):
        (root / name).mkdir()
        with bundled.joinpath(f"{name}.jpg").open("rb") as stream:
            whole = PIL.Image.open(stream).convert("RGB")
        for number in range(6):
            cut = 3 * number
            whole.crop((cut, cut, whole.width, whole.height)).save(root / name / f"{number}.jpg")
    return root


@pytest.fixture(scope="session")
def table(astronauts: Path) -> Path:
    rows = ["file1,file2,same,fold,light"]
    for fold in range(2):
        for i in range(3):
            a, b = fold * 3 + i, fold * 3 + (i + 1) % 3
            light = ("day", "night")[i % 2]
            for one, other in (("eileen-collins", "grace-hopper"), ("grace-hopper",) * 2,
                               ("eileen-collins",) * 2):  # fmt: skip
                rows.append(f"{one}/{a}.jpg,{other}/{b}.jpg,{int(one == other)},{fold},{light}")
    path = astronauts / "pairs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_pairs_json_has_the_keys_of_the_contract(run: Run, table: Path) -> None:
    result = run("pairs", str(table), "--json", "--slice", "light")
    last = json.loads(result.stdout.splitlines()[-1])
    assert {"accuracy", "accuracy_stderr", "auc", "eer", "tar_at_far", "failure_to_enrol",
            "n_pairs"} <= set(last)  # fmt: skip
    assert last["n_pairs"] == 18
    assert last["accuracy"] == 1
    assert last["failure_to_enrol"] == 0
    assert last["tar_at_far"]["1e-3"] is None
    assert [s["value"] for s in last["slices"]] == ["day", "night"]
    assert last["slices"][0]["fmr"] is None  # too few pairs for a rate


def test_a_picture_without_a_face_counts(run: Run, table: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    PIL.Image.new("RGB", (99, 99), (90, 90, 90)).save(grey)
    other = tmp_path / "more.csv"
    text = table.read_text(encoding="utf-8")
    other.write_text(text + f"{grey},grace-hopper/0.jpg,1,1,day\n", encoding="utf-8")
    result = run("pairs", str(other), "--root", str(table.parent), "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["n_pairs"], last["n_pairs_failed"], last["failure_to_enrol"]) == (19, 1, 1)
    assert last["accuracy"] < 1


def test_a_report_holds_everything(run: Run, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "out" / "report.html"
    run("pairs", str(table), "-o", str(target))
    page = target.read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")
    data = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert data["models"]["embedded"]["n_pairs"] == 18
    for key in ("data", "protocol", "contract", "mien", "machine", "time", "command"):
        assert data["provenance"][key]
        assert key in page


def test_without_matplotlib_the_extra_is_named(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from mien.errors import MissingExtra

    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"mien\[evaluation\]"):
        run("pairs", str(table), "-o", str(tmp_path / "report.html"))
    assert not (tmp_path / "report.html").exists()


def test_folder(run: Run, astronauts: Path) -> None:
    result = run("folder", str(astronauts), "--pairs", "12", "--json")
    assert json.loads(result.stdout.splitlines()[-1])["n_pairs"] == 24


def test_two_models_side_by_side(run: Run, table: Path) -> None:
    result = run("pairs", str(table), "--model", "embedded", "--model", "embedded-accurate")
    header = result.stdout.splitlines()[1]
    assert header.split() == ["Figures", "embedded", "embedded-accurate"]


def test_packed_crops(run: Run, astronauts: Path, tmp_path: Path) -> None:
    import mien
    from mien.evaluation.packed import ARCFACE_112
    from mien.types import Frame

    recognizer, frame = mien.load(), Frame((112, 112), ARCFACE_112)

    def crop(path: Path) -> bytes:
        image = mien.read_image(path)
        (face,) = recognizer.detector.detect(image)
        aligned = mien.align(image, face.landmarks, frame)
        return mien.encode_image(mien.Image(aligned.pixels), "jpeg", quality=95)

    ada, grace = ([crop(p) for p in sorted((astronauts / n).glob("*.jpg"))]
                  for n in ("eileen-collins", "grace-hopper"))  # fmt: skip
    pictures, same = [], []
    for i in range(12):
        pictures += [ada[i % 6], (ada if i % 2 else grace)[(i + 1) % 6]]
        same.append(bool(i % 2))
    path = tmp_path / "tiny.bin"
    path.write_bytes(pickle.dumps((pictures, same)))
    result = run("pairs", str(path), "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["auc"], last["failure_to_enrol"]) == (1, 0)


def test_every_pair_of_a_folder(run: Run, astronauts: Path, tmp_path: Path) -> None:
    page = tmp_path / "all.html"
    result = run("folder", str(astronauts), "--all-pairs", "--json", "-o", str(page))
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["n_people_genuine"], last["n_pairs_of_people"]) == (2, 1)
    assert (last["auc"], last["failure_to_enrol"]) == (1, 0)
    assert last["tar_at_far"]["1e-1"] is None  # one pair of people supports no rate
    assert "pairs of people" in page.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="leave --all-pairs out"):
        run("folder", str(astronauts), "--all-pairs", "--calibrate")


def test_classification(run: Run, astronauts: Path) -> None:
    result = run("classification", str(astronauts), str(astronauts), "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["accuracy"], last["n_probes"], last["n_classes"]) == (1, 12, 2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["lfw", "--data", "{tmp}"], "no pairs.txt"),
        (["folder", "{tmp}"], "0 people"),
        (["identification", "{people}"], "everybody in"),
        (["identification", "{people}", "--sizes", "ten"], "'ten' is not a list of numbers"),
        (["detection", "{tmp}"], "0 files"),
        (["classification", "{people}", "{tmp}"], "0 people"),
        (["lfw", "--data", "{tmp}", "--model", "a", "--model", "b", "--write", "x.toml"], "once"),
        (["folder", "{people}", "--calibrate"], "needs two people"),
        (["folder", "{people}", "--as", "embedded"], "came with mien"),
        (["folder", "{people}", "--as", "a b"], "not a plain name"),
        (["folder", "{people}", "--as", "x", "--write", "x.toml"], "give one of the two"),
        (["cfp", "--data", "{tmp}"], "cannot read"),
    ],
)
def test_bad_input_is_named(
    run: Run, astronauts: Path, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    words = [word.format(tmp=tmp_path, people=astronauts) for word in arguments]
    with pytest.raises(InputError, match=problem):
        run(*words)


def test_calibration_of_lfw_and_its_card(run: Run, lfw_data: Path, tmp_path: Path) -> None:
    """A tenth of the people of View 1, in LFW's layout; the card keeps its other lines."""
    data = tmp_path / "lfw"
    (data / "pictures").mkdir(parents=True)
    for part in ("DevTrain", "DevTest"):
        lines = (lfw_data / f"people{part}.txt").read_text(encoding="utf-8").splitlines()
        chosen = [line for line in lines[1:] if int(line.split("\t")[1]) < 4][::25]
        text = "\n".join([str(len(chosen)), *chosen]) + "\n"
        (data / f"people{part}.txt").write_text(text, encoding="utf-8")
        for line in chosen:
            name = line.split("\t")[0]
            (data / "pictures" / name).symlink_to(lfw_data / "lfw-deepfunneled" / name)
    pairs = (lfw_data / "pairsDevTest.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in pairs[1:]]
    genuine = [row for row in rows if len(row) == 3][:20]
    impostor = [row for row in rows if len(row) == 4][:20]
    for name in {row[0] for row in genuine + impostor} | {row[2] for row in impostor}:
        if not (data / "pictures" / name).exists():
            (data / "pictures" / name).symlink_to(lfw_data / "lfw-deepfunneled" / name)
    table = ["1\t20", *("\t".join(row) for row in genuine + impostor)]
    (data / "pairs.txt").write_text("\n".join(table * 1) + "\n", encoding="utf-8")
    card = tmp_path / "card.toml"
    card.write_text(
        'id = "x"\nviews = 1\nprotocol = "old"\n'
        "operating_points = [\n    [0.5, 0.1, 0.1],\n]\n\n[figures]\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match="one fold"):
        run("lfw", "--data", str(data), "--calibrate", "--write", str(card))
    two = [
        "2\t10",
        *("\t".join(r) for r in genuine[:10] + impostor[:10] + genuine[10:] + impostor[10:]),
    ]
    (data / "pairs.txt").write_text("\n".join(two) + "\n", encoding="utf-8")
    run("lfw", "--data", str(data), "--calibrate", "--write", str(card))
    import tomllib

    made = tomllib.loads(card.read_text(encoding="utf-8"))
    assert (made["id"], made["views"], made["figures"]) == ("x", 1, {})
    assert "peopleDevTrain" in made["protocol"]
    rates = [row[0] for row in made["operating_points"]]
    thresholds = [row[1] for row in made["operating_points"]]
    assert rates[0] == 0.1
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == pytest.approx(0.878, abs=0.01)
    run("lfw", "--data", str(data), "--as", "mine")
    from mien import cards

    mine = cards.bundle("mine")
    assert mine.contract == cards.bundle("embedded").contract
    assert [point.threshold for point in mine.operating_points] == thresholds
    card.write_text("id = 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="not the card of a bundle"):
        run("lfw", "--data", str(data), "--calibrate", "--write", str(card))


def test_identification_of_people_on_a_list(run: Run, lfw_data: Path, tmp_path: Path) -> None:
    lines = (lfw_data / "peopleDevTest.txt").read_text(encoding="utf-8").splitlines()[1:]
    chosen = [line for line in lines if int(line.split("\t")[1]) < 4][::15]
    people = tmp_path / "some.txt"
    people.write_text("\n".join(chosen), encoding="utf-8")
    result = run(
        "identification", str(lfw_data / "lfw-deepfunneled"), "--people", str(people), "--json",
        "--sizes", "20",
    )  # fmt: skip
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["rank_1"] > 0.8
    assert set(last["fnir_at_fpir"]) == {"1e-1"}  # too few strangers for 1e-2
    assert [p["verdict"] for p in last["promises"]] == ["kept", "kept"]


def test_detection_of_a_subset(run: Run, lfw_data: Path, tmp_path: Path) -> None:
    source = lfw_data.parent / "detection" / "wider_val_subset"
    if not source.is_dir():
        pytest.skip(f"no WIDER subset at {source}")
    lines = (source / "wider_face_val_subset_bbx_gt.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "few_bbx_gt.txt").write_text("\n".join(lines[: int(lines[1]) + 2]))
    (tmp_path / "images").symlink_to(source / "images")
    last = json.loads(run("detection", str(tmp_path), "--json").stdout.splitlines()[-1])
    assert last["n_faces"] == {"all": int(lines[1])}
    assert last["average_precision"]["all"] > 0.9
