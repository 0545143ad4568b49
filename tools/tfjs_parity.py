"""Compare a network that tools/tfjs.py rebuilt with the original under TensorFlow.js.

    npm install --prefix DIR @tensorflow/tfjs@4.22.0
    python tools/tfjs_parity.py --node DIR --from TGZ [NETWORK]...

The faces of the pictures inside mien, and their mirror images, go through both; what is printed
is the largest difference of each answer, as a share of its largest number. Needs node.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mien
from mien import cards
from mien.inference import session_of, to_batch
from tfjs import RECIPES, Recipe, convert, members, read_graph

AGREEMENT = 1e-4

ORIGINAL = """
const [topology, weights, pictures, answers, ...wanted] = process.argv.slice(1)
const fs = require('fs')
const tf = require('@tensorflow/tfjs')
const numbers = (path) => new Uint8Array(fs.readFileSync(path)).buffer
const graph = JSON.parse(fs.readFileSync(topology))
async function main() {
  const model = await tf.loadGraphModel({ load: async () => ({
    modelTopology: graph.modelTopology, format: graph.format, signature: graph.signature,
    weightSpecs: graph.weightsManifest.flatMap((group) => group.weights),
    weightData: numbers(weights) }) })
  const all = new Float32Array(numbers(pictures))
  const side = model.inputs[0].shape[1]
  const given = tf.tensor(all, [all.length / (side * side * 3), side, side, 3])
  const made = wanted.map((name) => model.execute(given, name))
  fs.writeFileSync(answers, Buffer.concat(made.map((t) => Buffer.from(t.dataSync().buffer))))
}
main()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--node", type=Path, required=True, metavar="DIR")
    parser.add_argument("--from", dest="archive", type=Path, required=True, metavar="TGZ")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(RECIPES))
    given = parser.parse_args()
    worst = 0.0
    for name in given.networks or RECIPES:
        recipe = RECIPES[name]
        topology, weights = members(given.archive, recipe)
        card = cards.model_card(name)
        planes = to_batch(card.input, faces(card))
        ours = session_of(name, convert(name, read_graph(topology, weights), recipe))(planes)
        theirs = original(given.node, recipe, topology, weights, planes.transpose(0, 2, 3, 1))
        for answer, found in zip(recipe.answers, ours, strict=True):
            column = found[:, -1] if answer in recipe.binary else found.reshape(-1)
            expected, theirs = theirs[: column.size], theirs[column.size :]
            off = float(np.abs(column - expected).max() / np.abs(expected).max())
            print(f"{name:20} {answer:8} {len(planes)} faces, differs by at most {off:.1e}")
            worst = max(worst, off)
    return 0 if worst < AGREEMENT else 1


def faces(card: cards.ModelCard) -> NDArray[np.uint8]:
    """Crops (n, height, width, 3) of the faces in the pictures inside mien, mirrored too."""
    frame = card.input.frame
    if frame is None:
        raise SystemExit(f"the card of {card.id} does not say which crop it wants")
    detector, crops = mien.load().detector, []
    for picture in resources.files("mien").joinpath("bundled", "pictures").iterdir():
        image = mien.read_image(picture.read_bytes())
        for face in detector.detect(image):
            pixels = mien.align(image, face.landmarks, frame).pixels
            crops += [pixels, pixels[:, ::-1]]
    return np.stack(crops)


def original(
    node: Path, recipe: Recipe, topology: bytes, weights: bytes, batch: NDArray[np.generic]
) -> NDArray[np.float32]:
    """What TensorFlow.js makes of a batch (n, height, width, 3): one answer after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents = {"json": topology, "bin": weights, "in": batch.astype("<f4").tobytes()}
        paths = [folder / suffix for suffix in (*contents, "out")]
        for path, data in zip(paths, contents.values(), strict=False):
            path.write_bytes(data)
        command = ["node", "-e", ORIGINAL, *map(str, paths), *recipe.answers.values()]
        subprocess.run(command, check=True, cwd=node)
        return np.fromfile(paths[-1], np.float32)


if __name__ == "__main__":
    sys.exit(main())
