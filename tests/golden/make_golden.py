"""Write golden.json: what mien answers on the portraits that come with it.

    python tests/golden/make_golden.py

Run it only when answers are meant to change, and say in the commit why they did. The vectors are
those of the fp32 weights.
"""

import json
from importlib import resources
from pathlib import Path

import mien


def main() -> None:
    recognizer = mien.load(precision="fp32")
    answers = {}
    for name in ("eileen-collins.jpg", "grace-hopper.jpg"):
        picture = resources.files("mien").joinpath("bundled", "pictures", name)
        (found,) = recognizer.recognize(picture.read_bytes())
        box = found.face.box
        answers[name] = {
            "box": [round(edge, 2) for edge in (box.left, box.top, box.right, box.bottom)],
            "landmarks": found.face.landmarks.points.astype(float).round(2).tolist(),
            "confidence": round(found.face.confidence, 4),
            "vector": found.embedding.vector.astype(float).round(6).tolist(),
        }
    target = Path(__file__).with_name("golden.json")
    text = json.dumps({"contract": recognizer.contract, "pictures": answers}, indent=None)
    target.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
