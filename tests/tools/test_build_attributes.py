"""The bundled attribute and liveness networks compute what their originals do."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import build_models
from mien.alignment import align
from mien.attributes.liveness import CONTEXTS, crop
from mien.cards import model_card
from mien.types import Face, Image

GOLDEN = Path(__file__).with_name("gender_golden.npz")


def run(name: str, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of the labels, from a bundled file."""
    path = build_models.BUNDLED / name
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": pixels})
    powers = np.exp(logits.astype(np.float64))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def originals() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "weights"
    if not folder.is_dir():
        pytest.skip(f"the original weight files are not at {folder}")
    return folder


def test_gender_as_dlib_itself_says() -> None:
    """Chips of faces and of noise, and what dlib 20.0.1 made of them, compiled from its example."""
    with np.load(GOLDEN) as golden:
        found = run("dlib-gender-v1.onnx", golden["chips"])
        np.testing.assert_allclose(found, golden["probabilities"], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "original", "context"),
    [
        ("minifasnet-v2.onnx", "2.7_80x80_MiniFASNetV2.pth", CONTEXTS[0]),
        ("minifasnet-v1se.onnx", "4_0_0_80x80_MiniFASNetV1SE.pth", CONTEXTS[1]),
    ],
)
def test_liveness_as_torch_says(
    name: str, original: str, context: float, originals: Path, eileen: Image, eileen_face: Face
) -> None:
    torch = pytest.importorskip("torch", reason="reads the published weights")
    import minifasnet

    net = minifasnet.load((originals / original).read_bytes())
    noise = np.random.default_rng(1).integers(0, 256, (6, 80, 80, 3), np.uint8)
    views = [crop(eileen, eileen_face.box, context * factor) for factor in (0.5, 0.8, 1, 1.2)]
    pixels = np.concatenate([np.stack(views), noise])
    bgr = torch.from_numpy(pixels[..., ::-1].copy()).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = torch.softmax(net(bgr), dim=1).numpy()
    np.testing.assert_allclose(run(name, pixels), expected, atol=1e-5)


def test_the_bundled_files_are_rebuilt_byte_for_byte(originals: Path) -> None:
    pytest.importorskip("torch", reason="reads the published weights")
    import build_attributes

    for name, data in build_attributes.build(originals).items():
        assert (build_models.BUNDLED / name).read_bytes() == data


def test_a_changed_original_is_refused(originals: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="reads the published weights")
    import build_attributes

    for original in build_attributes.ORIGINALS.values():
        data = bytearray((originals / original.name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / original.name).write_bytes(data)
    with pytest.raises(ValueError, match="expected"):
        build_attributes.build(tmp_path)


def test_the_gender_crop_is_the_chip_of_dlib(eileen: Image, eileen_face: Face) -> None:
    """A fifth more than the embedder's padding of a quarter: the same face, a little larger."""
    embedder = model_card("dlib-resnet-v1").input.frame
    gender = model_card("dlib-gender-v1").input.frame
    assert embedder
    assert gender
    wide = align(eileen, eileen_face.landmarks, embedder).transform
    near = align(eileen, eileen_face.landmarks, gender).transform
    ratio = (near[0, 0] / 32) / (wide[0, 0] / 150)
    assert ratio == pytest.approx(1.5 / 1.4, abs=0.005)
