"""Group photographs with boxes drawn by hand, where they lie beside."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.geometry import iou


def test_finds_the_people_in_group_photographs(data: Path, recognizer: mien.Recognizer) -> None:
    folder = data / "detection" / "dlib_faces"
    lists = sorted(folder.rglob("*.xml"))
    if not lists:
        pytest.skip(f"no group photographs in {folder}")
    found_faces = missed = 0
    for image in (image for file in lists for image in ET.parse(file).iter("image")):
        path = folder / image.attrib["file"]
        boxes = [
            [float(box.attrib[k]) for k in ("left", "top", "width", "height")]
            for box in image.iter("box")
            if box.attrib.get("ignore") != "1"
        ]
        if not boxes or not path.exists():
            continue
        drawn = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32)
        faces = recognizer.detector.detect(mien.read_image(path))
        found = np.array(
            [[f.box.left, f.box.top, f.box.right, f.box.bottom] for f in faces], np.float32
        ).reshape(-1, 4)
        best = iou(drawn, found).max(axis=1, initial=0)
        found_faces += int((best > 0.3).sum())
        missed += int((best <= 0.3).sum())
    assert found_faces + missed > 20
    assert found_faces / (found_faces + missed) > 0.95
