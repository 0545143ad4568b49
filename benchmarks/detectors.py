"""Every detector that is here: faces found and false ones on WIDER FACE pictures, and speed.

    python benchmarks/detectors.py --data DIR [NETWORK]...

DIR holds detection/wider_val_subset. Times are processor seconds of one thread, medians of seven
in turn, as a ratio to the embedded default. A face is found when a box overlaps it by 0.35 (IoU)
that no larger face has taken; each detector has its own default threshold.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import PIL.Image

from mien.cards import model_card, model_ids
from mien.detection import Detector
from mien.evaluation.detection import average_precision, detections
from mien.evaluation.wider import Scene, read_wider
from mien.geometry import iou
from mien.images import read_image
from mien.recognition import load_detector
from mien.types import Face, Image
from mien.weights import is_present

DEFAULT = "retinaface-mobilenet025"
SIZES = ((640, 480), (1920, 1080))
WIDTHS = (16, 32, 64)
OVERLAP, ROUNDS = 0.35, 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the detectors that are here.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NETWORK")
    options = parser.parse_args()
    folder = options.data / "detection" / "wider_val_subset"
    (annotations,) = folder.glob("*bbx_gt.txt")
    scenes = read_wider(annotations, folder / "images")
    cards = [model_card(name) for name in options.names or model_ids()]
    here = [c for c in cards if c.task == "detection" and c.runnable and is_present(c)]
    detectors = {card.id: load_detector(card) for card in here}
    for size in SIZES:
        for name, (seconds, ratio) in speed(detectors, scenes[10], size).items():
            print(f"{name:<26}{size[0]}x{size[1]}  {1e3 * seconds:7.1f} ms  {ratio:5.2f} x")
    for name, detector in detectors.items():
        faces = [detector.detect(read_image(scene.picture.source)) for scene in scenes]
        shares, false = found(scenes, faces)
        ap = average_precision(scenes, [detections(each) for each in faces]).ap
        recalls = "  ".join(f"from {w} px {s:.1%}" for w, s in zip(WIDTHS, shares, strict=True))
        print(f"{name:<26}{recalls}  false a picture {false:.3f}  AP {ap:.3f}", flush=True)


def speed(
    detectors: dict[str, Detector], scene: Scene, size: tuple[int, int]
) -> dict[str, tuple[float, float]]:
    """Seconds a picture, and the ratio to the default, of each detector in turn."""
    pixels = PIL.Image.fromarray(read_image(scene.picture.source).pixels).resize(size)
    image = Image(np.asarray(pixels))
    taken: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(ROUNDS):
        for name, detector in detectors.items():
            start = time.process_time()
            detector.detect(image)
            taken[name].append(time.process_time() - start)
    medians = {name: float(np.median(times)) for name, times in taken.items()}
    return {name: (median, median / medians[DEFAULT]) for name, median in medians.items()}


def found(scenes: list[Scene], faces: list[list[Face]]) -> tuple[list[float], float]:
    """The share of faces found from each of `WIDTHS` on, and the false ones a picture."""
    sizes, hits, false = [], [], 0
    for scene, seen in zip(scenes, faces, strict=True):
        boxes = [(f.box.left, f.box.top, f.box.right, f.box.bottom) for f in seen]
        overlaps = iou(scene.boxes, np.array(boxes, np.float32).reshape(-1, 4))
        size = (scene.boxes[:, 2:] - scene.boxes[:, :2]).min(axis=1)
        hit = np.zeros(len(size), bool)
        for face in np.argsort(-size, kind="stable"):
            if overlaps.shape[1] and overlaps[face].max() >= OVERLAP:
                hit[face] = True
                overlaps[:, overlaps[face].argmax()] = 0
        sizes.append(size[scene.counts])
        hits.append(hit[scene.counts])
        false += len(seen) - int(hit.sum())
    size, hit = np.concatenate(sizes), np.concatenate(hits)
    return [float(hit[size >= width].mean()) for width in WIDTHS], false / len(scenes)


if __name__ == "__main__":
    main()
