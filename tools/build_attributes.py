"""Rebuild the attribute and liveness networks that mien carries, from their originals.

    python tools/build_attributes.py --from DIR            rebuild from the originals in DIR, write
    python tools/build_attributes.py --from DIR --check    rebuild and compare with what is there
    python tools/build_attributes.py                       fetch the originals first

The originals are pinned by hash and the rebuild gives the same bytes each time. Needs torch (which
reads the liveness weights, as tensors only), numpy and onnx.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dlib_gender
import minifasnet
from build_models import BUNDLED, report_differences
from mien.download import download

LIVENESS = (
    "https://github.com/minivision-ai/Silent-Face-Anti-Spoofing/raw/master/resources/"
    "anti_spoof_models/"
)


@dataclass(frozen=True)
class Original:
    """A published file, where it is, and how a bundled one is made of it."""

    name: str
    folder: str
    sha256: str
    build: Callable[[bytes], bytes]


ORIGINALS: Mapping[str, Original] = {
    "dlib-gender-v1.onnx": Original(
        "dnn_gender_classifier_v1.dat.bz2",
        "https://github.com/davisking/dlib-models/raw/master/gender-classifier/",
        "2f59f7a3c36a4d9487920b5b4ad4fa445269efd47f3f17b40a4c521c868aae30",
        dlib_gender.build,
    ),
    "minifasnet-v2.onnx": Original(
        "2.7_80x80_MiniFASNetV2.pth",
        LIVENESS,
        "a5eb02e1843f19b5386b953cc4c9f011c3f985d0ee2bb9819eea9a142099bec0",
        lambda data: minifasnet.build(minifasnet.load(data), "MiniFASNetV2"),
    ),
    "minifasnet-v1se.onnx": Original(
        "4_0_0_80x80_MiniFASNetV1SE.pth",
        LIVENESS,
        "84ee1d37d96894d5e82de5a57df044ef80a58be2b218b5ed7cdfd875ec2f5990",
        lambda data: minifasnet.build(minifasnet.load(data), "MiniFASNetV1SE"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rebuild the attribute and liveness networks.")
    parser.add_argument("--from", dest="folder", type=Path, metavar="DIR",
                        help="folder with the originals; without it they are fetched")  # fmt: skip
    parser.add_argument("--out", type=Path, default=BUNDLED, metavar="DIR")
    parser.add_argument("--check", action="store_true",
                        help="write nothing; exit 1 if a file in --out differs")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.folder is not None:
        models = build(options.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            fetch(Path(folder))
            models = build(Path(folder))
    for name, data in models.items():
        print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>10,}  {name}")
    if options.check:
        return report_differences(models, options.out)
    for name, data in models.items():
        (options.out / name).write_bytes(data)
    return 0


def fetch(folder: Path) -> None:
    """Download the originals into a folder."""
    for original in ORIGINALS.values():
        target = folder / original.name
        download((original.folder + original.name,), target, sha256=original.sha256, size=None)


def build(folder: Path) -> dict[str, bytes]:
    """The bundled files by name, from the originals in a folder."""
    built = {}
    for name, original in ORIGINALS.items():
        data = (folder / original.name).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != original.sha256:
            raise ValueError(f"{original.name} has sha256 {found}, {original.sha256} expected")
        built[name] = original.build(data)
    return built


if __name__ == "__main__":
    sys.exit(main())
