"""Write golden.npz: what the original code answers, for tests that run without it.

    python tests/tools/make_golden.py DIR      DIR holds the original wheels

The pictures come from scikit-image's astronaut (NASA, public domain). Needs dlib,
onnxruntime, Pillow and scikit-image.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import dlib
import numpy as np
import onnxruntime
from PIL import Image, ImageFilter, ImageOps
from skimage.data import astronaut

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))

import build_models  # noqa: E402
import retinaface  # noqa: E402


def main(packages: Path) -> None:
    picture = Image.fromarray(astronaut())
    chips = face_chips(picture)
    scene = np.asarray(picture.resize((192, 192)).crop((16, 0, 144, 96)))
    scores, boxes, landmarks = original_detector(packages, scene)
    np.savez_compressed(
        HERE / "golden.npz",
        chips=chips,
        descriptors=original_descriptors(packages, chips),
        scene=scene,
        scores=scores,
        boxes=boxes,
        landmarks=landmarks,
    )


def face_chips(picture: Image.Image) -> np.ndarray:
    """The face, roughly framed, and the same shifted, mirrored, blurred and darkened."""

    def chip(left: int, top: int, side: int) -> Image.Image:
        box = (left, top, left + side, top + side)
        return picture.resize((150, 150), Image.Resampling.BILINEAR, box)

    face = chip(165, 55, 120)
    variants = [
        face,
        chip(175, 45, 130),
        ImageOps.mirror(face),
        face.filter(ImageFilter.GaussianBlur(2)),
        face.point(lambda value: value // 3),
    ]
    return np.stack([np.asarray(v) for v in variants])


def original_descriptors(packages: Path, chips: np.ndarray) -> np.ndarray:
    with tempfile.NamedTemporaryFile(suffix=".dat") as weights:
        weights.write(build_models.dlib_weights(packages))
        weights.flush()
        model = dlib.face_recognition_model_v1(weights.name)
    return np.array([model.compute_face_descriptor(c) for c in chips], np.float32)


def original_detector(packages: Path, scene: np.ndarray) -> tuple[np.ndarray, ...]:
    session = onnxruntime.InferenceSession(
        build_models.retinaface_weights(packages), providers=["CPUExecutionProvider"]
    )
    centred = scene.astype(np.float32) - np.array(retinaface.MEAN_RGB, np.float32)
    planes = np.ascontiguousarray(centred[None, :, :, ::-1].transpose(0, 3, 1, 2))
    boxes, classes, landmarks = session.run(["loc", "conf", "landmarks"], {"input": planes})
    return classes[..., 1], boxes, landmarks


if __name__ == "__main__":
    main(Path(sys.argv[1]))
