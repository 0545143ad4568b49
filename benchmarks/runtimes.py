"""OpenVINO in place of ONNX Runtime: the same files, in pairs, on one and two threads.

    pip install openvino        # in an environment of its own
    python benchmarks/runtimes.py [--seconds 2]

Every network that is here, on one picture and on a batch of eight. Both compute in turn; what is
printed is ONNX Runtime's time and OpenVINO's as a share of it, medians, and how far the results
lie apart. OpenVINO computes in 32-bit floats, and in the next column in the precision that it
chooses for the processor by itself.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard, WeightFile, model_card, model_ids
from mien.errors import LicenceNotAccepted
from mien.inference import to_batch
from mien.weights import locate, read_verified, require_licence

Run = Callable[[], list[NDArray[np.float32]]]
SCENES = ((480, 640), (1088, 1920))  # multiples of 32, as detectors give them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each comparison")
    given = parser.parse_args()
    print(
        f"{'file':32} {'input':18} threads  ORT ms  OpenVINO f32  its choice  apart (f32, choice)"
    )
    for card, file in here():
        model = read_verified(file)
        for batch, threads in itertools.product(inputs(card), (1, 2)):
            runs = [onnxruntime(model, batch, threads)]
            runs += [openvino(model, batch, threads, precision) for precision in ("f32", "")]
            ours, *theirs = (run() for run in runs)
            apart = [difference(ours, other) for other in theirs]
            first, *others = in_turn(runs, given.seconds)
            shares = "  ".join(f"{other / first:11.2f}" for other in others)
            size = "x".join(map(str, batch.shape))
            print(
                f"{file.name:32} {size:18} {threads:7} {1e3 * first:7.2f}  {shares}  "
                f"{apart[0]:.1e}, {apart[1]:.1e}",
                flush=True,
            )


def here() -> list[tuple[ModelCard, WeightFile]]:
    found = []
    for card in map(model_card, model_ids()):
        try:
            require_licence(card)
        except LicenceNotAccepted:
            continue
        one = len({file.part for file in card.files}) == 1
        found += [(card, file) for file in card.files if one and locate(file)]
    return found


def inputs(card: ModelCard) -> list[NDArray[np.generic]]:
    """Noise as pictures: the time does not depend on what is seen."""
    rng = np.random.default_rng(0)
    shapes = [(1, *scene) for scene in SCENES]
    if card.input.frame is not None:
        shapes = [(count, *card.input.frame.size[::-1]) for count in (1, 8)]
    pictures = (rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes)
    return [to_batch(card.input, some) for some in pictures]


def onnxruntime(model: bytes, batch: NDArray[np.generic], threads: int) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: list(session.run(None, {name: batch}))


def openvino(model: bytes, batch: NDArray[np.generic], threads: int, precision: str) -> Run:
    import openvino as ov

    core = ov.Core()
    network = core.read_model(model, b"")
    network.reshape(list(batch.shape))  # as if it had been made for this size
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    request = core.compile_model(network, "CPU", settings).create_infer_request()

    def run() -> list[NDArray[np.float32]]:
        request.infer([batch])
        return [np.array(tensor.data) for tensor in request.output_tensors]

    return run


def difference(ours: list[NDArray[np.float32]], theirs: list[NDArray[np.float32]]) -> float:
    """The largest, as a share of the largest number of that output."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-9)) for a, b in pairs)


def in_turn(runs: list[Run], seconds: float) -> list[float]:
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for run, measured in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in times]


if __name__ == "__main__":
    main()
