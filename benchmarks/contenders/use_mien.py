"""mien as a contender. Arguments: bundle, precision (int8, fp32)."""

import sys

import numpy as np
from worker import serve

import mien

recognizer = mien.load(sys.argv[1], threads=1, precision=sys.argv[2])
chips = {}


def embed(path, batch):
    """Embed the 150 x 150 chips of a file, so many at a time; returns faces."""
    if path not in chips:
        chips[path] = [mien.AlignedFace(c, np.eye(2, 3), 0.0) for c in np.load(path)]
    faces, size = chips[path], int(batch)
    for start in range(0, len(faces), size):
        recognizer.embedder.embed_batch(faces[start : start + size])
    return len(faces)


def pictures(*paths):
    """Find and embed every face of some pictures; returns faces."""
    return sum(len(recognizer.recognize(path)) for path in paths)


serve({"embed": embed, "pictures": pictures})
