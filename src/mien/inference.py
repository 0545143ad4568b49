"""Run a network: one protocol, so that runtimes and tests are interchangeable.

The only module that imports onnxruntime, and it does so when the first session is made, so that
`import mien` stays light.
"""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien.cards import InputSpec, ModelCard
from mien.errors import CorruptWeights, InputError
from mien.weights import choose, read_verified

Batch = NDArray[np.uint8 | np.float32]


@runtime_checkable
class Session(Protocol):
    """A loaded network: a batch in, its outputs out. Safe to call from several threads."""

    def __call__(self, batch: Batch) -> Sequence[NDArray[np.float32]]: ...


def open_session(card: ModelCard, precision: str | None = None) -> Session:
    """Load a model's weights, verified, into ONNX Runtime on the CPU.

    `precision` is "int8" or "fp32"; None takes int8 where the processor multiplies it fast and
    exactly, else fp32. One thread per call: pictures are what runs in parallel (see
    `recognition`), which scales better than splitting one small network and keeps results the
    same for any number of threads. Raises `CorruptWeights`, and `InputError` for a precision that
    the model does not come in.
    """
    offered = [file.precision for file in card.files]
    if precision is not None and precision not in offered:
        raise InputError(
            f"{card.id} does not come in precision {precision!r}; known: {', '.join(offered)}"
        )
    file = choose(card, [precision] if precision else preferred_precisions())
    return _OnnxSession(file.name, read_verified(file))


def preferred_precisions() -> tuple[str, ...]:
    """The precisions this processor runs well, best first.

    int8 only where the processor has VNNI: elsewhere the 16-bit intermediate sums of
    uint8 x int8 can saturate, and nothing is gained.
    """
    return ("int8", "fp32") if _has_vnni() else ("fp32", "int8")


def to_batch(spec: InputSpec, pixels: NDArray[np.uint8]) -> Batch:
    """Pictures (n, height, width, 3), uint8 RGB, in the order, type and range of a network."""
    ordered = pixels if spec.channels == "RGB" else pixels[..., ::-1]
    batch: Batch = ordered
    if spec.dtype == "float32":
        mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
        if spec.channels == "BGR":
            mean, std = mean[::-1], std[::-1]
        batch = (ordered.astype(np.float32) - mean) / std
    if spec.layout == "NCHW":
        batch = batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch)


class _OnnxSession:
    """ONNX Runtime on the CPU, one thread a call."""

    def __init__(self, name: str, model: bytes) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as refusal

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # pictures differ in size: plans would pile up
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except (
            refusal.Fail, refusal.InvalidArgument, refusal.InvalidGraph, refusal.InvalidProtobuf,
            refusal.NoModel, refusal.NotImplemented, refusal.RuntimeException,
        ) as error:  # fmt: skip
            raise CorruptWeights(name, f"ONNX Runtime cannot load it ({error})") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Batch) -> Sequence[NDArray[np.float32]]:
        outputs: Sequence[NDArray[np.float32]] = self._session.run(None, {self._input: batch})
        return outputs


def _has_vnni() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False  # no such file outside Linux; fp32 is right everywhere
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return "avx512_vnni" in flags or "avx_vnni" in flags
