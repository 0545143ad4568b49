"""Peak memory of a long stream of large pictures.

    python benchmarks/memory.py --data ../shared/data [--count 1000]

Pictures of 12 megapixels are made from group photographs, and streamed through
`recognize_batch`; the resident memory of the process is printed as it goes.
"""

import argparse
import resource
import tempfile
from itertools import cycle, islice
from pathlib import Path

import PIL.Image

import mien


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sources = []
        for path in sorted((arguments.data / "detection" / "dlib_faces").glob("*.jpg")):
            target = Path(place) / path.name
            PIL.Image.open(path).convert("RGB").resize((4000, 3000)).save(target, quality=90)
            sources.append(target)
        recognizer = mien.load()
        faces = 0
        stream = recognizer.recognize_batch(islice(cycle(sources), arguments.count))
        for number, found in enumerate(stream, 1):
            faces += len(found)
            if number % (arguments.count // 10) == 0:
                print(f"{number:5} pictures  {faces:6} faces  now {_resident() / 1e6:5.0f} MB  "
                      f"peak {_peak() / 1e6:5.0f} MB", flush=True)  # fmt: skip


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * resource.getpagesize())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
