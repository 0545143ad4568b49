"""What training bought: the default model beside the same network untrained, and beside pixels.

    python benchmarks/evaluation_baselines.py --data LFW [--view 1|2]

The same crops of the same detector go to three embedders: the trained ResNet; the same ResNet with
weights as they are before training (He and others, 2015; biases 0); the crop itself, as 32 x 32
grey pixels less their mean. Needs the development dependency onnx.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL.Image
from numpy.typing import NDArray
from onnx import numpy_helper

import mien
from mien.cards import ModelCard
from mien.embedding import NetworkEmbedder, normalize
from mien.evaluation import lfw, vectors, verification
from mien.evaluation.verification import Verification
from mien.recognition import Recognizer
from mien.types import AlignedFace
from mien.weights import choose, read_verified


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--view", choices=("1", "2"), default="2")
    given = parser.parse_args()
    pairs = lfw.view2(given.data) if given.view == "2" else lfw.view1(given.data, "Test")
    trained = mien.load()
    card = trained.bundle.embedder
    models = {
        "trained": trained,
        "untrained": replace(trained, embedder=NetworkEmbedder(card, untrained(card))),
        "pixels": replace(trained, embedder=Pixels(card)),
    }
    print(pairs.name)
    for name, model in models.items():
        print(f"{name:10} {row(figures(model, pairs))}")


def figures(recognizer: Recognizer, pairs: lfw.Pairs) -> Verification:
    cache = vectors.default_cache()
    made = vectors.embed(recognizer, pairs.pictures, cache=cache)
    scores = made.scores(pairs.a, pairs.b)
    return verification.measure(pairs, scores, verification.cross_validated(pairs, scores))


def row(found: Verification) -> str:
    tar = found.tar_at_far["1e-2"]
    return (
        f"accuracy {found.accuracy.mean:.4f} +- {found.accuracy.stderr:.4f}  "
        f"AUC {found.auc:.4f}  EER {found.eer:.4f}  TAR at FAR 1e-2 {tar or 0:.4f}"
    )


@dataclass(frozen=True)
class Runtime:
    """A session of ONNX Runtime on one thread."""

    session: onnxruntime.InferenceSession

    def __call__(self, batch: NDArray[np.generic]) -> Sequence[NDArray[np.float32]]:
        outputs: Sequence[NDArray[np.float32]] = self.session.run(None, {"pixels": batch})
        return outputs


def untrained(card: ModelCard, seed: int = 0) -> Runtime:
    """The network of a card with random weights."""
    rng = np.random.default_rng(seed)
    model = onnx.load_from_string(read_verified(choose(card, ["fp32"])))
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if not np.issubdtype(weights.dtype, np.floating):
            continue  # shapes and paddings
        if weights.ndim == 1:
            fresh = np.zeros_like(weights)
        elif weights.ndim > 1:
            inputs = weights[0].size if weights.ndim == 4 else weights.shape[0]
            fresh = rng.normal(0, np.sqrt(2 / inputs), weights.shape).astype(weights.dtype)
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(fresh, tensor.name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    data = model.SerializeToString()
    return Runtime(onnxruntime.InferenceSession(data, options, providers=providers))


@dataclass(frozen=True)
class Pixels:
    """The crop itself as an embedding."""

    card: ModelCard

    def embed_batch(self, faces: Sequence[AlignedFace]) -> NDArray[np.float32]:
        if not faces:
            return np.zeros((0, 0), np.float32)
        grey = [PIL.Image.fromarray(face.pixels).convert("L").resize((32, 32)) for face in faces]
        rows = np.stack([np.asarray(picture, np.float32).ravel() for picture in grey])
        return normalize(rows - rows.mean(axis=1, keepdims=True) + np.float32(1e-6))


if __name__ == "__main__":
    main()
