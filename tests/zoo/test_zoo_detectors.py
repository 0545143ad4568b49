"""The fetched detectors against their originals, and against what every detector must do.

Their weights are no part of the repository: YuNet's lie beside the test data, those of MTCNN are
rebuilt from the facenet-pytorch package where that is installed.
"""

import hashlib
import os
import pickle
import shutil
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from detector_suite import DetectorSuite
from numpy.typing import NDArray

import mien
import mtcnn as converter
from mien import golden
from mien.cards import model_card
from mien.detection import Detector
from mien.detection.mtcnn import _average, _summed
from mien.detection.scan import Sight, levels
from mien.detection.yunet import YuNet
from mien.geometry import iou
from mien.recognition import load_detector
from mien.types import Box, Image

DATA = Path(os.environ.get("MIEN_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
YUNET = DATA.parent / "weights" / "yunet_n_dynamic.onnx"
SCENES = DATA / "detection" / "wider_val_subset"
PORTRAITS = Path(str(resources.files("mien").joinpath("bundled", "pictures")))

# What facenet-pytorch 2.6.0 finds (min_face_size=20): box, then five points. Its boxes count
# pixels from 1, its points lie one pixel further right and down than where they point to.
MTCNN_FINDS = {
    "eileen-collins.jpg": (
        [180.04, 59.68, 268.83, 173.3],
        [[205.09, 101.09], [248.03, 103.45], [224.94, 129.21], [202.13, 139.82], [245.92, 142.45]],
    ),
    "grace-hopper.jpg": (
        [174.33, 119.57, 355.75, 340.67],
        [[221.65, 192.24], [309.93, 186.21], [269.32, 239.33], [232.63, 279.77], [306.67, 276.12]],
    ),
}


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the weights that can be had here."""
    home = tmp_path_factory.mktemp("weights")
    (home / "models").mkdir()
    if YUNET.is_file():
        shutil.copy(YUNET, home / "models")
    if (package := find_spec("facenet_pytorch")) and package.origin:
        data = Path(package.origin).parent / "data"
        found = {n: converter.read_checkpoint((data / f"{n}.pt").read_bytes())
                 for n in converter.MEMBERS}  # fmt: skip
        for name, model in converter.build(found).items():
            (home / "models" / name).write_bytes(model)
    return home


def load(name: str, weights: Path) -> Detector:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_HOME", str(weights))
        card = model_card(name)
        missing = [f.name for f in card.files if not (weights / "models" / f.name).is_file()]
        if missing:
            pytest.skip(f"the weights of {name} are not here: {', '.join(missing)}")
        return load_detector(card)


class TestYuNet(DetectorSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, weights: Path) -> Detector:
        return load("yunet-n", weights)


class TestMtcnn(DetectorSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls, weights: Path) -> Detector:
        return load("mtcnn", weights)


@pytest.mark.parametrize("name", ["yunet-n", "mtcnn"])
def test_agrees_with_its_card(name: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(name, weights)
    monkeypatch.setenv("MIEN_HOME", str(weights))
    assert golden.check(model_card(name)) > 0.995


def array(box: Box) -> NDArray[np.float32]:
    return np.array([[box.left, box.top, box.right, box.bottom]], np.float32)


def test_yunet_finds_what_opencv_finds(weights: Path) -> None:
    """Box by box, at the same size and thresholds. OpenCV counts from the pixel's corner."""
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV where it is installed")
    ours = load("yunet-n", weights)
    assert isinstance(ours, YuNet)
    pictures = [*PORTRAITS.glob("*.jpg"), *sorted(SCENES.rglob("*.jpg"))[::20]]
    once = YuNet(ours.card, ours.session, max_face=1.0)  # one scale, as OpenCV
    for picture in pictures:
        pixels = mien.read_image(picture).pixels
        height, width = (side // 32 * 32 for side in pixels.shape[:2])
        pixels = np.ascontiguousarray(pixels[:height, :width])
        theirs = cv2.FaceDetectorYN.create(
            str(YUNET), "", (width, height), ours.confidence, ours.overlap, 5000
        )
        _, expected = theirs.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        found = once.detect(Image(pixels))
        assert len(found) == (0 if expected is None else len(expected)), picture
        for row in [] if expected is None else expected - np.float32(0.5):
            corners = np.array([[*row[:2], *(row[:2] + row[2:4] + 0.5)]], np.float32)
            best = max(found, key=lambda face: iou(array(face.box), corners)[0, 0])
            assert iou(array(best.box), corners)[0, 0] >= 0.99
            np.testing.assert_allclose(best.landmarks.points, row[4:14].reshape(5, 2), atol=0.01)


@pytest.mark.parametrize("picture", sorted(MTCNN_FINDS))
def test_mtcnn_finds_what_facenet_pytorch_finds(picture: str, weights: Path) -> None:
    (face,) = load("mtcnn", weights).detect(mien.read_image(PORTRAITS / picture))
    box, points = MTCNN_FINDS[picture]
    assert iou(array(face.box), np.array([box], np.float32) - 1)[0, 0] >= 0.99
    np.testing.assert_allclose(face.landmarks.points, np.array(points) - 1, atol=0.1)


@pytest.mark.parametrize("size", [(12, 12), (7, 31), (40, 64), (1, 1)])
def test_average_is_the_mean_of_what_a_pixel_touches(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8)
    near, far = np.array([[3, 5]]), np.array([[61, 38]])
    (found,) = _average(_summed(pixels), near, far, size)
    part = pixels[5:38, 3:61].astype(float)
    rows, columns = size
    for y in range(rows):
        for x in range(columns):
            top, bottom = y * 33 // rows, -(-(y + 1) * 33 // rows)
            left, right = x * 58 // columns, -(-(x + 1) * 58 // columns)
            mean = part[top:bottom, left:right].mean(axis=(0, 1))
            np.testing.assert_allclose(found[y, x], mean, rtol=1e-5)


def test_the_sums_may_overflow() -> None:
    """More than 2^32 in total: 17 million white pixels."""
    pixels = np.full((4200, 4200, 3), 255, np.uint8)
    near, far = np.array([[4000, 4000]]), np.array([[4200, 4200]])
    (found,) = _average(_summed(pixels), near, far, (4, 4))
    np.testing.assert_allclose(found, 255)


@pytest.mark.parametrize("name", ["yunet-n", "mtcnn"])
@pytest.mark.parametrize("width", [24, 60, 150, 700])
def test_faces_of_all_sizes_are_found(name: str, width: int, weights: Path) -> None:
    """The same portrait reduced and enlarged; 700 pixels needs a coarser scale in YuNet."""
    with PIL.Image.open(PORTRAITS / "eileen-collins.jpg") as portrait:
        side = round(512 * width / 96)
        pixels = np.asarray(portrait.convert("RGB").resize((side, side)))
    detector = load(name, weights)
    (face,) = detector.detect(Image(pixels))
    assert face.box.width == pytest.approx(width, rel=0.2)


def test_the_largest_face_sought_ends_the_coarser_scales() -> None:
    everything = levels(1920, 1080, sight=Sight(10, 240, 3))
    assert [level.width for level in everything] == [1920, 640, 213]
    assert len(levels(1920, 1080, max_face=700, sight=Sight(10, 240, 3))) == 2
    assert len(levels(1920, 1080, max_face=240, sight=Sight(10, 240, 3))) == 1


def test_the_checkpoint_reader_executes_nothing() -> None:
    evil = b"".join(pickle.dumps(part, protocol=2) for part in (1, 2, {}, os.getcwd, []))
    with pytest.raises(pickle.UnpicklingError, match="unexpected"):
        converter.read_checkpoint(evil)


def test_the_cards_hashes_are_those_of_the_rebuild(weights: Path) -> None:
    load("mtcnn", weights)
    for file in model_card("mtcnn").files:
        data = (weights / "models" / file.name).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)
