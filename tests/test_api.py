"""The public API: light to import, complete, documented."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

import mien
from mien.types import Box, Embedding, Face, Image, Landmarks

SOURCE = Path(mien.__file__).read_text(encoding="utf-8")


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_is_light() -> None:
    loaded = modules_after("import mien")
    assert not loaded & {"numpy", "onnxruntime", "PIL", "click", "tqdm", "sqlite3", "platformdirs"}


def test_runtime_is_imported_only_to_run_a_model() -> None:
    loaded = modules_after("import mien; [getattr(mien, name) for name in mien.__all__]")
    assert "numpy" in loaded
    assert not loaded & {"onnxruntime", "click", "tqdm"}


def test_help_of_the_program_is_light() -> None:
    statement = "from click.testing import CliRunner; from mien.cli import cli; "
    statement += "assert CliRunner().invoke(cli, ['--help']).exit_code == 0"
    assert not modules_after(statement) & {"numpy", "onnxruntime", "PIL"}


def test_every_name_is_importable() -> None:
    assert len(mien.__all__) == len(set(mien.__all__)) > 40
    for name in mien.__all__:
        assert getattr(mien, name) is getattr(mien, name)
        assert name in dir(mien)
    namespace: dict[str, object] = {}
    exec("from mien import *", namespace)
    assert set(mien.__all__) <= set(namespace)


def test_type_checkers_see_the_same_names() -> None:
    """The block for type checkers and the table for run time say the same."""
    block = re.findall(r"^    from (mien[\w.]*) import (\w+) as (\w+)$", SOURCE, re.MULTILINE)
    assert all(name == alias for _, name, alias in block)
    assert {name: module for module, name, _ in block} == mien._MODULE_OF


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonesuch"):
        mien.nonesuch  # noqa: B018


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", mien.__version__)


def all_modules() -> list[str]:
    return [
        module.name
        for module in pkgutil.walk_packages(mien.__path__, "mien.")
        if not module.name.rsplit(".", 1)[-1].startswith("_")
    ]


@pytest.mark.parametrize("module", ["mien", *all_modules()])
def test_everything_public_is_documented(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__, module
    bare = []
    for name, value in vars(loaded).items():
        mine = getattr(value, "__module__", None) == module
        if name.startswith("_") or not mine or not (inspect.isclass(value) or callable(value)):
            continue
        if not has_words(value):
            bare.append(name)
        if inspect.isclass(value) and not module.startswith("mien.cli"):
            bare += [f"{name}.{method}" for method in undocumented_methods(value)]
    assert bare == []


def has_words(value: object) -> bool:
    words = inspect.getdoc(value)
    generated = inspect.isclass(value) and (words or "").startswith(f"{value.__name__}(")
    return bool(words) and not generated


def undocumented_methods(kind: type) -> list[str]:
    """Public methods without words of their own; a protocol of ours may have them instead."""
    protocols = [
        getattr(importlib.import_module(place), name)
        for place, name in (
            ("mien.detection", "Detector"),
            ("mien.embedding", "Embedder"),
            ("mien.gallery.store", "Store"),
        )
    ]
    promised = {name for protocol in protocols for name in vars(protocol)}
    if Protocol in kind.__bases__:
        promised -= {"detect", "embed_batch"}
    return [
        name
        for name, value in vars(kind).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and name not in promised
        and not inspect.getdoc(value)
        and "accepts" not in name
    ]


# ------------------------------------------------------------------------------ values


def test_values_are_frozen() -> None:
    for value, field in (
        (Box(0, 0, 1, 1), "left"),
        (Image(np.zeros((1, 1, 3), np.uint8)), "source"),
        (Embedding(np.ones(1, np.float32), "c"), "contract"),
    ):
        with pytest.raises(AttributeError):
            setattr(value, field, 0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((3, 3), np.uint8), np.zeros((3, 3, 4), np.uint8), np.zeros((3, 3, 3), np.float32),
        np.zeros((0, 3, 3), np.uint8), np.zeros((3, 0, 3), np.uint8),
    ],
)  # fmt: skip
def test_an_image_is_a_picture(pixels: np.ndarray) -> None:
    with pytest.raises(mien.InputError, match="shape"):
        Image(pixels)


@pytest.mark.parametrize(
    "points", [np.zeros((4, 2)), np.zeros((5, 3)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)]
)
def test_landmarks_are_five_finite_points(points: np.ndarray) -> None:
    with pytest.raises(mien.InputError, match="5 finite points"):
        Landmarks(points.astype(np.float32))


def test_box() -> None:
    box = Box(10, 20, 40, 60)
    assert (box.width, box.height, box.area) == (30, 40, 1200)
    inside_out = Box(40, 60, 10, 20)
    assert (inside_out.width, inside_out.height, inside_out.area) == (0, 0, 0)


def test_values_travel_between_processes(recognizer: mien.Recognizer, eileen: Image) -> None:
    import pickle

    (found,) = recognizer.recognize(eileen)
    again = pickle.loads(pickle.dumps(found))
    assert again.face.box == found.face.box
    assert np.array_equal(again.embedding.vector, found.embedding.vector)
    assert isinstance(again.face, Face)
