"""Make the environments of the rivals: `python benchmarks/rivals.py [wheel] [openblas]`."""

import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".venv-rivals"
# face_recognition_models is a source package that imports pkg_resources: an old setuptools.
COMMON = ["setuptools<80", "wheel", "numpy", "pillow", "click"]
DLIB = {
    "wheel": ["dlib-bin"],
    "openblas": ["--no-binary", "dlib", "--no-build-isolation", "dlib"],
}


def main() -> None:
    for name in sys.argv[1:] or DLIB:
        python = HOME / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(HOME / name)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *COMMON], check=True)
        subprocess.run([*pip, *DLIB[name]], check=True)
        packages = ["face_recognition_models==0.3.0", "face_recognition==1.3.0"]
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", *packages], check=True)
        print(f"{name}: {python}")


if __name__ == "__main__":
    main()
