"""What a user waits for and installs: import, a cold verification, wheel, installation.

python benchmarks/startup.py [--rounds 9]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    folder = resources.files("mien").joinpath("bundled", "pictures")
    pair = [str(folder.joinpath(f"{name}.jpg")) for name in ("eileen-collins", "grace-hopper")]
    mien = "from mien.cli import main; main()"
    commands = {
        "python -c pass": ["-c", "pass"],
        "import numpy": ["-c", "import numpy"],
        "import mien": ["-c", "import mien"],
        "import mien; mien.load": ["-c", "import mien; mien.load"],
        "mien verify a b": ["-c", mien, "verify", *pair],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=False)
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f"{name:<24} {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f})")
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip"]
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", place, str(ROOT)], check=True)
        (wheel,) = Path(place).glob("*.whl")
        print(f"{'wheel':<24} {wheel.stat().st_size / 1e6:.1f} MB")
        target = Path(place) / "installed"
        subprocess.run([*pip, "install", "-q", "--target", str(target), str(wheel)], check=True)
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
        print(f"{'installed, with all':<24} {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
