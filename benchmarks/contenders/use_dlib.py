"""face_recognition and the dlib below it as a contender."""

import dlib
import face_recognition
import face_recognition_models
import numpy as np
from worker import serve

network = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())
chips = {}


def embed(path, batch):
    """Embed the 150 x 150 chips of a file, so many at a time; returns faces."""
    if path not in chips:
        chips[path] = list(np.load(path))
    faces, size = chips[path], int(batch)
    for start in range(0, len(faces), size):
        if size == 1:
            network.compute_face_descriptor(faces[start])
        else:
            network.compute_face_descriptor(faces[start : start + size])
    return len(faces)


def pictures(*paths):
    """Find and embed every face of some pictures with the defaults; returns faces."""
    return sum(
        len(face_recognition.face_encodings(face_recognition.load_image_file(path)))
        for path in paths
    )


serve({"embed": embed, "pictures": pictures})
