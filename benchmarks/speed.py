"""Speed of mien against dlib, face_recognition and the processor, one thread each.

python benchmarks/rivals.py
python benchmarks/speed.py --data ../shared/data [--rounds 9]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

import mien

HERE = Path(__file__).resolve().parent
RIVALS = HERE.parent / ".venv-rivals"
EMBEDDER_FLOP = 2 * 0.2709e9  # a face: multiplications and additions of dlib's network


class Contender:
    """A process that runs tasks when told to."""

    def __init__(self, name: str, python: Path | str, script: str, *arguments: str) -> None:
        self.name = name
        threads = {f"{kind}_NUM_THREADS": "1" for kind in ("OMP", "OPENBLAS", "MKL")}
        self._process = subprocess.Popen(
            [str(python), str(HERE / "contenders" / script), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **threads, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        while self._line() != "ready\n":
            pass

    def run(self, *task: str) -> dict[str, float]:
        """Wall and CPU seconds of a task, and its result."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(task) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with {self._process.wait()}")
        return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with lfw/ and detection/")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, "
          f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    contenders = [
        Contender("mien int8", sys.executable, "use_mien.py", "embedded", "int8"),
        Contender("mien fp32", sys.executable, "use_mien.py", "embedded", "fp32"),
        *(
            Contender(name, RIVALS / folder / "bin" / "python", "use_dlib.py")
            for name, folder in (("dlib wheel", "wheel"), ("dlib OpenBLAS", "openblas"))
            if (RIVALS / folder).exists()
        ),
    ]
    with tempfile.TemporaryDirectory() as place:
        tasks = _tasks(arguments.data, Path(place))
        _embedding(contenders, tasks, arguments.rounds)
        _pictures(contenders, tasks, arguments.rounds)


def _tasks(data: Path, place: Path) -> dict[str, list[str]]:
    """Chips, LFW pictures, and group photographs brought to 1280 pixels."""
    lfw = sorted((data / "lfw" / "lfw-deepfunneled").glob("*/*_0001.jpg"))[::120][:48]
    recognizer = mien.load()
    crops = []
    for path in lfw[:32]:
        image = mien.read_image(path)
        face = mien.central(recognizer.detector.detect(image), image)
        crops.append(mien.align(image, face.landmarks, recognizer.frame).pixels)
    np.save(place / "chips.npy", np.stack(crops))
    groups = []
    for path in sorted((data / "detection" / "dlib_faces").glob("*.jpg")):
        picture = PIL.Image.open(path).convert("RGB")
        scale = min(1280 / picture.width, 720 / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        canvas = PIL.Image.new("RGB", (1280, 720))
        canvas.paste(picture.resize(size), ((1280 - size[0]) // 2, (720 - size[1]) // 2))
        canvas.save(place / path.name, quality=92)
        groups.append(str(place / path.name))
    return {
        "chips": [str(place / "chips.npy")],
        "lfw": [str(path) for path in lfw],
        "groups": groups,
    }


def _embedding(contenders: list[Contender], tasks: dict[str, list[str]], rounds: int) -> None:
    """Faces a second from the same aligned crops, and the share of the sgemm rate."""
    sgemm = Contender("sgemm", sys.executable, "use_sgemm.py")
    for batch in ("1", "32"):
        seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
        peak = []
        for warm in range(rounds + 1):
            answer = sgemm.run("multiply")
            measured = [(c, c.run("embed", *tasks["chips"], batch)) for c in contenders]
            if warm:
                peak.append(answer["result"] / answer["cpu"])
                for contender, result in measured:
                    seconds[contender.name].append(result["cpu"] / result["result"])
        rate = statistics.median(peak)
        print(f"\nEmbedding, batch {batch} (CPU; sgemm {rate / 1e9:.0f} GFLOP/s, "
              f"{min(peak) / 1e9:.0f} to {max(peak) / 1e9:.0f})")  # fmt: skip
        base = statistics.median(seconds["mien int8"])
        for name, times in seconds.items():
            middle = statistics.median(times)
            print(f"  {name:<14} {middle * 1e3:7.2f} ms a face "
                  f"({min(times) * 1e3:.2f} to {max(times) * 1e3:.2f})   "
                  f"mien int8 is {middle / base:5.1f}x as fast   "
                  f"{EMBEDDER_FLOP / middle / rate:5.0%} of sgemm")  # fmt: skip


def _pictures(contenders: list[Contender], tasks: dict[str, list[str]], rounds: int) -> None:
    """From file to vectors of all faces, with each one's defaults."""
    for kind in ("lfw", "groups"):
        paths = tasks[kind]
        seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
        faces = {}
        for warm in range(max(3, rounds // 2) + 1):
            for contender in contenders:
                result = contender.run("pictures", *paths)
                faces[contender.name] = result["result"]
                if warm:
                    seconds[contender.name].append(result["cpu"] / len(paths))
        what = "250 x 250 (LFW)" if kind == "lfw" else "1280 x 720 (groups)"
        print(f"\nFile to vectors, {len(paths)} pictures of {what} (CPU)")
        base = statistics.median(seconds["mien int8"])
        for name, times in seconds.items():
            middle = statistics.median(times)
            print(f"  {name:<14} {middle * 1e3:7.1f} ms a picture "
                  f"({min(times) * 1e3:.1f} to {max(times) * 1e3:.1f})   "
                  f"{faces[name]} faces   mien int8 is {middle / base:4.1f}x as fast")  # fmt: skip


if __name__ == "__main__":
    main()
