"""Measure the value ranges that the int8 face embedder is quantised with.

    python tools/calibrate_dlib_resnet.py --data LFW --packages DIR

LFW is the folder with `pairs.txt` and `lfw-deepfunneled/`; DIR holds the original
wheels (see build_models.py). Writes dlib_resnet_ranges.json, which is committed so
that a rebuild needs no pictures, and reports on other pictures how close the int8
model then stays to the float one. Needs onnxruntime and Pillow.

Pictures of the evaluation pairs are never used: a range fitted to them would
flatter the accuracy that the models are reported with.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import build_models
import dlib_resnet

CALIBRATION, CHECK = 300, 200  # pictures
SEED = 20170928
BATCH = 20

# Where RetinaFace's five points lie in dlib's chips: medians over LFW pictures that
# are in no evaluation pair. Left and right eye, nose, left and right mouth corner.
TEMPLATE = np.array(
    [[46.61, 45.40], [102.19, 45.28], [73.54, 77.99], [50.62, 104.99], [96.37, 104.98]]
)

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Calibrate the int8 face embedder on LFW.")
    parser.add_argument("--data", type=Path, required=True, metavar="LFW")
    parser.add_argument("--packages", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=build_models.RANGES, metavar="FILE")
    options = parser.parse_args(arguments)
    for needed in (options.data / "pairs.txt", options.data / "lfw-deepfunneled"):
        if not needed.exists():
            parser.error(f"{needed} is missing: --data wants a folder with LFW and its protocols")

    pictures = unpaired_pictures(options.data)
    random.Random(SEED).shuffle(pictures)
    detector = _session(build_models.build_retinaface(options.packages))
    chips = np.stack([face_chip(detector, p) for p in pictures[: CALIBRATION + CHECK]])

    resnet = dlib_resnet.read_resnet(build_models.dlib_weights(options.packages))
    ranges = measure_ranges(resnet, chips[:CALIBRATION])
    record = {
        "data": f"LFW deep-funnelled, {CALIBRATION} pictures in no pair of pairs.txt, seed {SEED}",
        "ranges": ranges,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")

    real = _embed(dlib_resnet.float_model(resnet), chips[CALIBRATION:])
    int8 = _embed(dlib_resnet.int8_model(resnet, ranges), chips[CALIBRATION:])
    cosines = (real * int8).sum(axis=1)
    print(f"int8 to float on {CHECK} others, cosine: ", end="")
    print(f"mean {cosines.mean():.5f}, min {cosines.min():.5f}")
    return 0


def unpaired_pictures(lfw: Path) -> list[Path]:
    """The pictures of LFW that no line of pairs.txt names, in a fixed order."""
    paired = set()
    for line in (lfw / "pairs.txt").read_text().splitlines()[1:]:
        match line.split("\t"):
            case [name, first, second]:
                paired |= {(name, int(first)), (name, int(second))}
            case [name, first, other, second]:
                paired |= {(name, int(first)), (other, int(second))}
    named = {f"{name}_{number:04}.jpg" for name, number in paired}
    return sorted(p for p in (lfw / "lfw-deepfunneled").glob("*/*.jpg") if p.name not in named)


def measure_ranges(resnet: dlib_resnet.ResNet, chips: Pixels) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every tensor that int8 arithmetic stores.

    Extremes, not percentiles, which an earlier study found worse: mean cosine to the
    float model .9984 against .9995.
    """
    names = dlib_resnet.quantized_tensors(resnet)
    session = _session(dlib_resnet.float_model(resnet, expose=names))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for batch in _batches(chips):
        values = session.run(names, {"pixels": batch})
        low = np.minimum(low, [v.min() for v in values])
        high = np.maximum(high, [v.max() for v in values])
    return {n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}


# --- from a picture to an aligned face ------------------------------------------------


def face_chip(detector: onnxruntime.InferenceSession, path: Path) -> Pixels:
    """The face nearest to the middle, warped to dlib's frame. LFW centres the named one."""
    picture = Image.open(path).convert("RGB")
    # Filled up to whole cells of the coarsest plane, which the graph asks for.
    width, height = (-(-side // 32) * 32 for side in picture.size)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture)
    scores, _, offsets = detector.run(None, {"pixels": np.asarray(canvas)[None]})

    points = _decode_points(offsets[0], width, height)
    sure = points[scores[0] > 0.5 * scores.max()]
    middle = np.array(picture.size) / 2
    nearest = sure[np.linalg.norm(sure.mean(axis=1) - middle, axis=1).argmin()]
    matrix = _similarity(TEMPLATE, nearest)
    side = (dlib_resnet.SIDE, dlib_resnet.SIDE)
    # Pillow measures from the corner of a pixel, the points from its centre.
    matrix[:, 2] += 0.5 - matrix[:, :2] @ (0.5, 0.5)
    chip = picture.transform(
        side, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR
    )
    return np.asarray(chip)


def _decode_points(offsets: NDArray[np.float32], width: int, height: int) -> Points:
    """Five points an anchor, from offsets in tenths of the anchor's size."""
    anchors = []
    for stride, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        y, x = np.mgrid[: height // stride, : width // stride]
        centres = (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride
        for_each_size = np.repeat(centres, len(sizes), axis=0)
        size = np.tile(sizes, len(centres))[:, None]
        anchors.append(np.hstack([for_each_size, size]))
    centre, size = np.split(np.concatenate(anchors), [2], axis=1)
    points: Points = centre[:, None] + offsets.reshape(-1, 5, 2) * 0.1 * size[:, None]
    return points


def _similarity(source: Points, target: Points) -> Points:
    """The 2x3 rotation, scale and shift that best takes `source` to `target`.

    Over complex numbers that is a line, target = a * source + b, fitted by least squares.
    """
    x, y = source @ (1, 1j), target @ (1, 1j)
    dx, dy = x - x.mean(), y - y.mean()
    a = (np.conj(dx) @ dy) / (np.conj(dx) @ dx)
    b = y.mean() - a * x.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


# --- running the models ---------------------------------------------------------------


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _embed(model: bytes, chips: Pixels) -> NDArray[np.float32]:
    session = _session(model)
    vectors = np.concatenate([session.run(None, {"pixels": b})[0] for b in _batches(chips)])
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _batches(chips: Pixels) -> Iterator[Pixels]:
    for start in range(0, len(chips), BATCH):
        yield chips[start : start + BATCH]


if __name__ == "__main__":
    sys.exit(main())
