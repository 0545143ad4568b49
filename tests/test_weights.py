"""mien.weights and mien.inference: files that are proven, sessions that refuse what is not."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.cards import InputSpec, ModelCard, WeightFile, model_card
from mien.inference import Session, open_session, preferred_precisions, to_batch
from mien.weights import choose, home, locate, read_verified

CARD = model_card("dlib-resnet-v1")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of fetched models."""
    monkeypatch.setenv("MIEN_HOME", str(tmp_path))
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def described(data: bytes, name: str = "own.onnx") -> WeightFile:
    return WeightFile(name, hashlib.sha256(data).hexdigest(), len(data), "fp32")


def card_of(file: WeightFile) -> ModelCard:
    return replace(CARD, id="own", files=(file,))


# ------------------------------------------------------------------------------ files


def test_fetched_file(models: Path) -> None:
    file = described(b"some weights")
    assert locate(file) is None
    (models / file.name).write_bytes(b"some weights")
    assert locate(file) == models / file.name
    assert read_verified(file) == b"some weights"


def test_missing_file(models: Path) -> None:
    with pytest.raises(mien.CorruptWeights, match=r"own\.onnx: the file is missing") as caught:
        read_verified(described(b""))
    assert caught.value.path == "own.onnx"


@pytest.mark.parametrize("spoil", ["bit", "cut", "longer", "empty"])
def test_spoilt_file(models: Path, spoil: str) -> None:
    path = locate(CARD.files[0])
    assert path is not None
    data = bytearray(path.read_bytes())
    if spoil == "bit":
        data[len(data) // 3] ^= 4
    data = {"cut": data[:-1], "longer": data + b"\0", "empty": bytearray()}.get(spoil, data)
    file = replace(CARD.files[0], name="copy.onnx")
    (models / "copy.onnx").write_bytes(data)
    with pytest.raises(mien.CorruptWeights, match="not the one its card describes") as caught:
        open_session(card_of(file))
    assert caught.value.path == str(models / "copy.onnx")


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x07" * 500])
def test_file_that_is_as_described_but_no_network(models: Path, content: bytes) -> None:
    """A wrong hash in a card of one's own: what the runtime says is passed on."""
    file = described(content)
    (models / file.name).write_bytes(content)
    with pytest.raises(mien.CorruptWeights, match="ONNX Runtime cannot load it"):
        open_session(card_of(file))


def test_folder_in_place_of_the_file(models: Path) -> None:
    (models / "own.onnx").mkdir()
    with pytest.raises(mien.CorruptWeights, match="missing"):
        read_verified(described(b"x"))


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.setenv("MIEN_HOME", "")
    assert home().name == "mien"
    monkeypatch.delenv("MIEN_HOME")
    assert home().is_absolute()


# ------------------------------------------------------------------------------ precision


def test_choose() -> None:
    assert choose(CARD, ["int8", "fp32"]).precision == "int8"
    assert choose(CARD, ["fp32", "int8"]).precision == "fp32"
    only = replace(CARD, files=CARD.files[1:])
    assert choose(only, ["int8"]).precision == "fp32"


@pytest.mark.parametrize("vnni", [True, False])
def test_int8_only_where_it_is_exact(monkeypatch: pytest.MonkeyPatch, vnni: bool) -> None:
    monkeypatch.setattr("mien.inference._has_vnni", lambda: vnni)
    assert preferred_precisions()[0] == ("int8" if vnni else "fp32")


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "processor: 0\nflags\t\t: sse avx2 avx512_vnni\n", True),
        ("AMD64", "flags : avx_vnni fma\n", True),
        ("x86_64", "flags : avx512f avx512_vnni_not\n", False),
        ("x86_64", "", False),
        ("x86_64", None, False),
        ("aarch64", "flags : avx512_vnni\n", False),
    ],
)
def test_processor_is_recognised(
    monkeypatch: pytest.MonkeyPatch, machine: str, cpuinfo: str | None, expected: bool
) -> None:
    from mien import inference

    def read(self: Path, **options: str) -> str:
        if cpuinfo is None:
            raise FileNotFoundError
        return cpuinfo

    monkeypatch.setattr(inference.platform, "machine", lambda: machine)
    monkeypatch.setattr(inference.Path, "read_text", read)
    assert inference._has_vnni() is expected


def test_precisions_give_nearly_the_same(recognizer: mien.Recognizer, eileen: mien.Image) -> None:
    a, b = (mien.load(precision=name).embed(eileen).embedding for name in ("int8", "fp32"))
    assert 0.995 < mien.similarity(a, b) < 0.999999


# ------------------------------------------------------------------------------ input


def test_session_is_a_session() -> None:
    session = open_session(CARD, "fp32")
    assert isinstance(session, Session)
    (vectors,) = session(np.zeros((2, 150, 150, 3), np.uint8))
    assert vectors.shape == (2, 128)


RAW = InputSpec("RGB", "NHWC", "uint8", (0, 0, 0), (1, 1, 1))
PIXEL = np.array([10, 20, 30], np.uint8)  # red, green, blue
PIXELS = np.broadcast_to(PIXEL, (2, 4, 5, 3))


def test_raw_pixels_pass_through() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    assert np.array_equal(to_batch(RAW, pixels), pixels)
    assert to_batch(RAW, pixels).dtype == np.uint8


def test_bgr() -> None:
    batch = to_batch(replace(RAW, channels="BGR"), PIXELS)
    assert batch[0, 0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_normalised(channels: str, layout: str) -> None:
    """Mean and std are given in RGB order, whatever order the network eats."""
    spec = InputSpec(channels, layout, "float32", (1, 2, 3), (2, 4, 8))
    batch = to_batch(spec, PIXELS)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert batch.shape == ((2, 3, 4, 5) if layout == "NCHW" else (2, 4, 5, 3))
    first = batch[0, :, 0, 0] if layout == "NCHW" else batch[0, 0, 0]
    expected = [(10 - 1) / 2, (20 - 2) / 4, (30 - 3) / 8]
    assert first.tolist() == (expected if channels == "RGB" else expected[::-1])


def test_nchw_keeps_places() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    batch = to_batch(replace(RAW, layout="NCHW"), pixels)
    assert batch[1, 2, 3, 4] == pixels[1, 3, 4, 2]
