"""mien.errors: the tree as drawn, exit statuses for all, messages that name what they are about."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mien
from mien import errors
from mien.cli import EXIT_STATUS, exit_status
from mien.errors import MienError
from mien.images import formats
from mien.types import Embedding, Image

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, MienError)
}


def drawn() -> dict[str, str | None]:
    """Each class of the tree in the docstring, with the class it hangs from."""
    parents: dict[str, str | None] = {}
    trail: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        branch = re.match(r"^((?:[│ ]   )*)(├── |└── )?(\w+)(?:\s{2,}\S.*)?$", line)
        if branch and branch[3] in CLASSES:
            depth = len(branch[1]) // 4 + bool(branch[2])
            trail[depth:] = [branch[3]]
            parents[branch[3]] = trail[depth - 1] if depth else None
    return parents


def test_the_tree_is_drawn_whole() -> None:
    tree = {
        name: next(b.__name__ for b in kind.__bases__ if issubclass(b, MienError))
        if kind is not MienError
        else None
        for name, kind in CLASSES.items()
    }
    assert drawn() == tree
    assert len(tree) == 19


def test_every_error_is_public() -> None:
    assert set(CLASSES) <= set(mien.__all__)


def test_every_error_has_an_exit_status() -> None:
    statuses = {name: exit_status(kind) for name, kind in CLASSES.items() if kind is not MienError}
    assert set(statuses.values()) == {2, 3, 4}
    for branch, status in EXIT_STATUS.items():
        below = [name for name, kind in CLASSES.items() if issubclass(kind, branch)]
        assert {statuses[name] for name in below} == {status}


def examples() -> list[tuple[MienError, list[str]]]:
    """One of each leaf, with what its message has to say."""
    return [
        (mien.UnreadableImage("a.jpg", "it is empty"), ["a.jpg", "it is empty"]),
        (mien.ImageTooLarge("a.jpg", 2_000_000, 1000, "pixels"), ["a.jpg", "2,000,000", "Limits"]),
        (mien.NoFaceFound("a.jpg"), ["a.jpg", "upright"]),
        (mien.SeveralFacesFound("a.jpg", 3), ["a.jpg", "3 faces", "largest"]),
        (mien.LowQuality("a.jpg", 0.04, ["blurred", "too dark"]), ["a.jpg", "0.04", "too dark"]),
        (mien.UnknownModel("x", ["one", "two"]), ["'x'", "one, two"]),
        (mien.CorruptWeights("/w.onnx", "it is missing"), ["/w.onnx", "missing", "models verify"]),
        (mien.FetchFailed("w.onnx", ["timed out"]), ["w.onnx", "timed out", "models bundle"]),
        (mien.LicenceNotAccepted("buffalo", "NC"), ["buffalo", "NC", "--accept-licence"]),
        (mien.NoOperatingPoint("c", 1e-9, 1e-5), ["1e-09", "1e-05", "c"]),
        (mien.NoOperatingPoint("c", 1e-9, None), ["no measured thresholds"]),
        (mien.MissingExtra("reading HEIC", "heic"), ["reading HEIC", "pip install 'mien[heic]'"]),
        (mien.UnknownSubject("ada"), ["'ada'", "mien gallery list"]),
        (mien.ContractMismatch("one", "two"), ["'one'", "'two'", "enrol again"]),
        (mien.GalleryUnavailable("p.mien", "it is a folder"), ["p.mien", "it is a folder"]),
        (mien.GalleryDamaged("template 7 is left out"), ["template 7", "mien gallery verify"]),
    ]


EXAMPLES = examples()
NAMES = [type(error).__name__ for error, _ in EXAMPLES]


def test_every_leaf_has_an_example() -> None:
    parents = set(drawn().values())
    assert set(NAMES) == {name for name in CLASSES if name not in parents}


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=NAMES)
def test_messages(error: MienError, words: list[str]) -> None:
    for word in words:
        assert word in str(error)
    parameters = list(inspect.signature(type(error).__init__).parameters)[1:]
    assert all(hasattr(error, name) for name in parameters)  # facts, not only a sentence


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=NAMES)
def test_errors_travel_between_processes(error: MienError, words: list[str]) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_standard_classes_catch_them_too() -> None:
    """Code that knows nothing of mien meets the classes it expects."""
    for name, standard in {
        "InputError": ValueError, "ContractMismatch": ValueError, "MissingExtra": ImportError,
        "UnknownModel": LookupError, "UnknownSubject": LookupError, "NoOperatingPoint": LookupError,
    }.items():  # fmt: skip
        assert issubclass(CLASSES[name], standard)


def test_each_is_raised_by_what_users_call(
    recognizer: mien.Recognizer, eileen: Image, both: Image, tmp_path: Path
) -> None:
    """From the front door; LicenceNotAccepted has no model yet that could raise it."""
    gallery = mien.open_gallery(tmp_path / "g.mien")
    gallery.enroll("Eileen", eileen, recognizer)
    blank, dark = np.zeros((50, 50, 3), np.uint8), (eileen.pixels * 0.03).astype(np.uint8)
    attempts = {
        mien.UnreadableImage: lambda: recognizer.recognize(tmp_path / "missing.jpg"),
        mien.ImageTooLarge: lambda: mien.read_image(eileen.pixels, mien.Limits(pixels=100)),
        mien.NoFaceFound: lambda: recognizer.verify(blank, eileen),
        mien.SeveralFacesFound: lambda: recognizer.verify(eileen, both),
        mien.LowQuality: lambda: gallery.enroll("x", dark, recognizer),
        mien.InputError: lambda: gallery.enroll("", eileen, recognizer),
        mien.UnknownModel: lambda: mien.load("nonesuch"),
        mien.NoOperatingPoint: lambda: recognizer.operating_point(1e-12),
        mien.UnknownSubject: lambda: gallery.remove("nobody"),
        mien.ContractMismatch: lambda: gallery.search(Embedding(np.eye(128)[0], "foreign")),
        mien.GalleryUnavailable: lambda: mien.open_gallery(tmp_path),
    }
    for kind, attempt in attempts.items():
        with pytest.raises(kind) as caught:
            attempt()
        assert type(caught.value) is kind
    gallery.close()


def test_missing_extra_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    formats.reader_of.cache_clear()
    try:
        with pytest.raises(mien.MissingExtra) as caught:
            mien.read_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        assert caught.value.install == "pip install 'mien[heic]'"
    finally:
        formats.reader_of.cache_clear()
