"""Training as a whole: it learns, goes on after a kill unchanged, and fails clearly."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from mien.cli import cli
from mien.errors import InputError, MissingExtra, ModelError
from mien.images import read_image
from mien.training import checkpoints, loop, parallel
from mien.training.config import Recipe, parse
from mien.training.loop import CHECKPOINT, FAILURE, WEIGHTS, NotFinite, fit, rate_at
from mien.training.preparation.pack import Packed
from mien.training.validation import validate

R = TypeVar("R")


def made(text: str, *settings: str) -> Recipe:
    return parse(text, "test.toml", settings)


class Killed(Exception):
    """In place of a signal, where no process of its own is needed."""


@pytest.fixture(scope="session")
def straight(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted; see `recipe_text`."""
    return tmp_path_factory.mktemp("straight")


def weights(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    if not (folder / WEIGHTS).exists():
        fit(recipe, folder)
    return load_file(folder / WEIGHTS)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_to_tell_the_faces_apart(recipe_text: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    shown: list[tuple[int | None, str]] = []

    def progress(items: Iterable[R], total: int | None, unit: str) -> Iterator[R]:
        shown.append((total, unit))
        yield from items

    recipe = made(recipe_text, "run.epochs=12", "optimiser.rate=0.01", "run.ema=0.0")
    learner, material = fit(recipe, tmp_path, report=rows.append, progress=progress)
    assert shown == [(3, "batch")] * 12
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    first, last = float(str(rows[0]["loss"])), float(str(rows[-1]["loss"]))
    assert last < 0.9 * first
    assert material.validation is not None
    found = validate(learner.final, recipe.input, *material.validation)
    assert found["auc"] == rows[-1]["auc"]
    assert found["auc"] > 0.6  # the faces learnt from, made darker: by chance 0.5


@pytest.mark.parametrize("at", [1, 2, 5, 8])
def test_stopped_at_any_step_it_gives_the_same_weights(
    recipe_text: str, straight: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = made(recipe_text)
    expected = weights(recipe, straight)
    step, done = loop.step, 0

    def dying(*args: object) -> dict[str, float]:
        nonlocal done
        if done == at:
            raise Killed
        done += 1
        return step(*args)

    monkeypatch.setattr(loop, "step", dying)
    with pytest.raises(Killed):
        fit(recipe, tmp_path)
    monkeypatch.setattr(loop, "step", step)
    fit(recipe, tmp_path, resume=True)
    assert same(load_file(tmp_path / WEIGHTS), expected)


def test_a_killed_process_leaves_a_checkpoint_that_goes_on(
    recipe_text: str, straight: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipe_text.replace("checkpoint_every = 2", "checkpoint_every = 1"))
    output = tmp_path / "out"
    code = "from mien.cli import main; main()"
    command = [sys.executable, "-c", code, "train", str(recipe), "-o", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while not (output / CHECKPOINT).exists() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= checkpoints.read(output / CHECKPOINT)[1]["step"] < 9
    fit(made(recipe.read_text()), output, resume=True)
    assert same(load_file(output / WEIGHTS), weights(made(recipe_text), straight))


def test_two_processes_give_what_one_gives(recipe_text: str, tmp_path: Path) -> None:
    text = recipe_text.replace("dropout = 0.2", "dropout = 0.0")
    text = text.replace('name = "adamw"\nrate = 0.002', 'name = "sgd"\nrate = 0.002')
    text = text.replace("batch = 4", "batch = 12")  # of few faces rounding is all that is left
    text += "shared_batch_norm = true\n"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    fit(made(text), tmp_path / "one")
    code = (
        "import sys; from pathlib import Path; from mien.training.config import read_recipe; "
        "from mien.training.loop import fit; fit(read_recipe(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         str(script), str(recipe), str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-2000:]
    one, two = load_file(tmp_path / "one" / WEIGHTS), load_file(tmp_path / "two" / WEIGHTS)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor.float(), two[name].float(), rtol=2e-3, atol=2e-4), name
    losses = [checkpoints.read(tmp_path / n / WEIGHTS)[1]["history"] for n in ("one", "two")]
    for mine, theirs in zip(*losses, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    assert parallel.Team(1, 2).part(6) == slice(3, 6)
    with pytest.raises(InputError, match="a batch of 5 cannot be shared by 2 processes"):
        parallel.Team(0, 2).part(5)


def test_an_existing_run_is_not_overwritten(recipe_text: str, tmp_path: Path) -> None:
    recipe = made(recipe_text, "run.epochs=1")
    fit(recipe, tmp_path)
    with pytest.raises(InputError, match="go on with --resume"):
        fit(recipe, tmp_path)


def test_the_checkpoint_of_another_network_is_refused(recipe_text: str, tmp_path: Path) -> None:
    fit(made(recipe_text, "run.epochs=1"), tmp_path)
    other = made(recipe_text, "network.options.width=0.25")
    with pytest.raises(InputError, match=r"the checkpoint of another network.*the first is"):
        fit(other, tmp_path, resume=True)


def test_a_file_that_is_no_checkpoint_is_refused(recipe_text: str, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(InputError, match="is no checkpoint of 'mien train'"):
        fit(made(recipe_text), tmp_path, resume=True)
    save_file({"a": torch.zeros(2)}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="is no checkpoint of 'mien train'"):
        fit(made(recipe_text), tmp_path, resume=True)


def test_weights_of_another_network_to_start_from_are_refused(
    recipe_text: str, tmp_path: Path
) -> None:
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    text = recipe_text.replace("[sampling]", "[sampling]", 1)
    recipe = made(text, f"network.start={tmp_path / 'other.safetensors'}")
    with pytest.raises(ModelError, match="this checkpoint is of another network"):
        fit(recipe, tmp_path / "out")


def test_a_start_and_frozen_layers_are_kept(
    recipe_text: str, straight: Path, tmp_path: Path
) -> None:
    before = weights(made(recipe_text), straight)
    settings = (f"network.start={straight / WEIGHTS}", 'network.frozen=["layers.0"]', "run.ema=0.0")
    after = weights(made(recipe_text, *settings), tmp_path)
    learnt = [name for name in before if name.endswith((".weight", ".running_mean"))]
    for name in learnt:
        assert torch.equal(after[name], before[name]) == name.startswith("layers.0"), name


def test_a_start_that_no_epoch_beats_is_kept(
    recipe_text: str, straight: Path, tmp_path: Path
) -> None:
    before = weights(made(recipe_text), straight)
    settings = (f"network.start={straight / WEIGHTS}", 'network.frozen=[""]', "run.epochs=9",
                "validation.patience=2", "run.ema=0.0")  # fmt: skip
    learner, _ = fit(made(recipe_text, *settings), tmp_path)
    start, *epochs = learner.history
    assert (start["epoch"], start["step"]) == (0, 0)
    assert "loss" not in start
    assert [row["accuracy"] for row in epochs] == [start["accuracy"]] * 2  # all of it is frozen
    after, facts = checkpoints.read(tmp_path / WEIGHTS)
    assert facts["history"] == [start]
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_full_disk_leaves_the_checkpoint_before(recipe_text: str, tmp_path: Path) -> None:
    recipe = made(recipe_text, "run.epochs=1")
    fit(recipe, tmp_path)
    path = tmp_path / CHECKPOINT
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a disk with so much left
    try:
        with pytest.raises(InputError, match=r"cannot save .*the checkpoint before is intact"):
            fit(made(recipe_text, "run.epochs=2"), tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_loss_that_is_no_number_stops_with_a_report(recipe_text: str, tmp_path: Path) -> None:
    recipe = made(recipe_text, "objectives.0.options.scale=inf", "run.epochs=1")
    with pytest.raises(NotFinite, match=r"no longer finite at step 1 .*lower optimiser.rate"):
        fit(recipe, tmp_path)
    seen = json.loads((tmp_path / FAILURE).read_text())
    assert seen["step"] == 0
    assert len(seen["batch"]) == 4
    assert not (tmp_path / CHECKPOINT).exists()


def test_one_person_is_too_few(recipe_text: str, packed_folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "one.txt"
    names.write_text("eileen\n")
    with pytest.raises(InputError, match="a network learns from two people at least"):
        fit(made(recipe_text, f"data.people={names}"), tmp_path)


def test_one_picture_a_person_is_too_few_unless_a_teacher_knows_more(
    recipe_text: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"each of the 2 people .* has one picture"):
        fit(made(recipe_text, "data.max_pictures=1"), tmp_path)


def test_people_of_the_validation_are_not_learnt_from(recipe_text: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"2 people of .* are also learnt from, eileen-dim for one"
    ):
        fit(made(recipe_text, 'data.people=""'), tmp_path)


def test_pairs_of_people_left_out_are_refused(
    recipe_text: str, packed_folder: Path, tmp_path: Path
) -> None:
    settings = ("sampling.kind=pairs", f"sampling.file={packed_folder / 'pairs.csv'}")
    with pytest.raises(InputError, match=r"which the .data. of the recipe leaves out"):
        fit(made(recipe_text, *settings), tmp_path)


def test_it_stops_early_when_nothing_gets_better(recipe_text: str, tmp_path: Path) -> None:
    settings = ("optimiser.rate=1e-12", "run.epochs=50", "validation.patience=2", "run.ema=0.0")
    learner, _ = fit(made(recipe_text, *settings), tmp_path)
    assert len(learner.history) < 50


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    config = made('[data]\nset=""\n[network]\nname=""\n[[objectives]]\nname=""\n').optimiser
    rates = [rate_at(config, step, 100) for step in range(101)]
    assert int(np.argmax(rates)) == 5
    assert max(rates) == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    middle = 5 + 95 / 2
    assert np.interp(middle, range(101), rates) == pytest.approx(0.05, rel=1e-3)


def test_what_was_measured_is_in_the_table_and_the_picture(
    recipe_text: str, straight: Path, packed: Packed
) -> None:
    from mien.training import curves

    weights(made(recipe_text), straight)
    history = checkpoints.read(straight / CHECKPOINT)[1]["history"]
    rows = list(csv.DictReader(curves.table(history).splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["accuracy"]) == history[2]["accuracy"]
    drawn = [read_image(curves.picture(rows)) for rows in (history, [{"epoch": 1, "loss": 2.0}])]
    assert drawn[0].width == 2 * drawn[1].width  # without validation there is no panel for it


def test_tensorboard_reads_every_figure_back(
    recipe_text: str, straight: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from mien.training import curves

    weights(made(recipe_text), straight)
    history = checkpoints.read(straight / CHECKPOINT)[1]["history"]
    curves.events(history[:2], tmp_path)
    time.sleep(1.1)  # files are told apart, and put in order, by the second
    curves.events(history, tmp_path)  # the same run, resumed
    seen = EventAccumulator(str(tmp_path)).Reload()
    names = {name for row in history for name in row} - {"epoch", "step"}
    assert set(seen.Tags()["scalars"]) == names
    for name in names:
        points = [(event.step, event.value) for event in seen.Scalars(name)]
        figures = [(row["step"], row[name]) for row in history if name in row]
        assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in figures]


def test_without_tensorboard_it_says_so_before_it_trains(
    recipe_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = tmp_path / "small.toml"
    recipe.write_text(recipe_text)
    output = tmp_path / "out"
    run = CliRunner().invoke(cli, ["train", str(recipe), "-o", str(output), "--tensorboard"])
    assert isinstance(run.exception, MissingExtra)
    assert run.exception.extra == "tensorboard"
    assert not output.exists()
