"""LFW of every embedder that is here behind every detector that is here, and what mistakes cost.

    python benchmarks/evaluation_zoo.py --data LFW [--view 2] [NETWORK]... [--crops 1 8]
    python benchmarks/evaluation_zoo.py --data LFW --ablation [--thin 2]

"Here" means inside mien or fetched (`mien models fetch`, `mien models import`). With networks
named, only those; a picture is looked at once by a detector, whatever embeds its faces; with
--crops as many crops a face as `embedded-accurate` has. The ablation changes one step between the
detector and the embedder of the default and measures on the 1,000 test pairs of View 1: accuracy
over ten folds with the threshold chosen anew, and FNMR at the thresholds on the card, which are
those of the unchanged path.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mien
from mien.cards import Bundle, ModelCard, contract_of, model_card, model_ids
from mien.detection import Detector
from mien.embedding import Embedder, NetworkEmbedder
from mien.evaluation import lfw, vectors, verification
from mien.evaluation.protocols import Pairs, subset
from mien.inference import open_session
from mien.recognition import Recognizer, load_detector, processors
from mien.types import AlignedFace, Face, Frame, Image, Landmarks
from mien.weights import is_present


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="LFW")
    parser.add_argument("--view", choices=("1", "2"), default="2")
    parser.add_argument("--crops", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--thin", type=int, default=1, metavar="N", help="every Nth pair only")
    parser.add_argument("names", nargs="*", metavar="NETWORK")
    given = parser.parse_args()
    if given.ablation:
        ablation(thinned(lfw.view1(given.data, "Test"), given.thin))
        return
    pairs = lfw.view2(given.data) if given.view == "2" else lfw.view1(given.data, "Test")
    pairs = thinned(pairs, given.thin)
    here = [card for card in map(model_card, model_ids()) if card.runnable and is_present(card)]
    chosen = [card for card in here if card.id in given.names] if given.names else here
    embedders = [c for c in chosen if c.task == "embedding"] or [model_card("dlib-resnet-v1")]
    for detector in (card for card in chosen if card.task == "detection"):
        finder = Remembered(load_detector(detector), {})
        for embedder, crops in itertools.product(embedders, given.crops):
            recognizer = together(finder, embedder, crops)
            made = vectors.embed(recognizer, pairs.pictures, cache=vectors.default_cache())
            report(f"{detector.id} + {embedder.id} x{crops}", pairs, made)


def thinned(pairs: Pairs, every: int) -> Pairs:
    """Every Nth pair, with only the pictures that it needs."""
    if every == 1:
        return pairs
    part = subset(pairs, np.arange(0, len(pairs), every), f"{pairs.name}, 1 in {every}")
    used, place = np.unique(np.concatenate([part.a, part.b]), return_inverse=True)
    a, b = np.split(place.reshape(-1), 2)
    pictures = tuple(part.pictures[row] for row in used)
    return dataclasses.replace(part, pictures=pictures, a=a, b=b)


def together(detector: Detector, embedder: ModelCard, crops: int) -> Recognizer:
    card = detector.card
    contract = contract_of(card, embedder, crops)
    bundle = Bundle(f"{card.id}+{embedder.id}", "", card, embedder, crops, (), {}, contract)
    network = NetworkEmbedder(embedder, open_session(embedder))
    return Recognizer(bundle, detector, network, processors())


def report(label: str, pairs: Pairs, made: vectors.Vectors) -> None:
    scores = made.scores(pairs.a, pairs.b)
    accuracy = verification.cross_validated(pairs, scores)
    figures = verification.measure(pairs, scores, accuracy)
    tar = figures.tar_at_far["1e-2"]
    bounds = figures.intervals.tar_at_far["1e-2"]
    print(
        f"{label:48} {accuracy.mean:.4f} ± {accuracy.stderr:.4f}  AUC {figures.auc:.5f}  "
        f"EER {figures.eer:.4f}  "
        f"TAR at FAR 1e-2 {tar:.4f} ({bounds.low:.4f} .. {bounds.high:.4f})  "
        f"without a face {len(made.failures)}",
        flush=True,
    )


# ------------------------------------------------------------------------------------- ablation


@dataclasses.dataclass(frozen=True)
class Remembered:
    """A detector that looks at each picture once, however often it is asked."""

    inner: Detector
    faces: dict[str, list[Face]]
    change: Callable[[Face], NDArray[np.floating]] = lambda face: face.landmarks.points

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    def detect(self, image: Image) -> list[Face]:
        if image.source not in self.faces:
            self.faces[image.source] = self.inner.detect(image)
        return [
            dataclasses.replace(face, landmarks=Landmarks(self.change(face).astype(np.float32)))
            for face in self.faces[image.source]
        ]


@dataclasses.dataclass(frozen=True)
class Changed:
    """An embedder that gets other pixels than were aligned for it."""

    inner: Embedder
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    def embed_batch(self, faces: Sequence[AlignedFace]) -> NDArray[np.float32]:
        return self.inner.embed_batch(
            [
                dataclasses.replace(face, pixels=np.ascontiguousarray(self.change(face.pixels)))
                for face in faces
            ]
        )


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels.mean(axis=2, keepdims=True).round().astype(np.uint8).repeat(3, axis=2)


def ablation(pairs: Pairs) -> None:
    base = mien.load()
    frame = base.frame
    template = np.array(frame.template)
    middle = (np.array(frame.size) - 1) / 2
    seen: dict[str, list[Face]] = {}

    def points(change: Callable[[Face], NDArray[np.floating]]) -> Recognizer:
        return dataclasses.replace(base, detector=Remembered(base.detector, seen, change))

    def pixels(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Recognizer:
        return dataclasses.replace(
            base,
            detector=Remembered(base.detector, seen),
            embedder=Changed(base.embedder, change),
        )

    def framed(margin: float) -> Recognizer:
        """The crop shows `margin` times as much of the picture around the same middle."""
        smaller = middle + (template - middle) / margin
        spec = dataclasses.replace(
            base.bundle.embedder.input, frame=Frame(frame.size, tuple(map(tuple, smaller)))
        )
        card = dataclasses.replace(base.bundle.embedder, input=spec)
        bundle = dataclasses.replace(base.bundle, embedder=card)
        return dataclasses.replace(base, bundle=bundle, detector=Remembered(base.detector, seen))

    def boxed(face: Face) -> NDArray[np.floating]:
        """The frame laid over the box: cut out, not turned upright."""
        corner = np.array([face.box.left, face.box.top])
        return corner + template / frame.size * (face.box.width, face.box.height)

    def shifted(share: float) -> Callable[[Face], NDArray[np.floating]]:
        return lambda face: face.landmarks.points + np.array([share * face.box.width, 0])

    rng = np.random.default_rng(0)
    ways = {
        "unchanged": points(lambda face: face.landmarks.points),
        "red and blue exchanged": pixels(lambda crop: crop[..., ::-1]),
        "grey": pixels(grey),
        "half as bright": pixels(lambda crop: crop // 2),
        "half the resolution": pixels(lambda crop: crop[::2, ::2].repeat(2, 0).repeat(2, 1)),
        "no alignment: the box, scaled": points(boxed),
        "points shifted by 2% of the face": points(shifted(0.02)),
        "points shifted by 5%": points(shifted(0.05)),
        "points shifted by 10%": points(shifted(0.10)),
        "each point off by 3% (sigma)": points(
            lambda face: face.landmarks.points + rng.normal(0, 0.03 * face.box.width, (5, 2))
        ),
        **{f"{margin:.0%} of the margin": framed(margin) for margin in (0.8, 0.9, 1.1, 1.25)},
    }
    loose, strict = (base.operating_point(fmr).threshold for fmr in (1e-2, 1e-3))
    for label, recognizer in ways.items():
        made = vectors.embed(recognizer, pairs.pictures)
        scores = made.scores(pairs.a, pairs.b)
        accuracy = verification.cross_validated(pairs, scores)
        good, bad = scores[pairs.same], scores[~pairs.same]
        gap = (good.mean() - bad.mean()) / np.sqrt((good.var() + bad.var()) / 2)
        print(
            f"{label:34} {accuracy.mean:.3f} ± {accuracy.stderr:.3f}  d' {gap:.2f}  "
            f"at the card's FMR 1e-2: FMR {(bad >= loose).mean():.3f} FNMR "
            f"{(good < loose).mean():.3f}  at 1e-3: FNMR {(good < strict).mean():.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
