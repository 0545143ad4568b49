"""Run a network: one protocol, so that runtimes and tests are interchangeable.

The only module that imports onnxruntime, and it does so when the first session is made, so that
`import mien` stays light.
"""

import os
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien.cards import InputSpec, ModelCard
from mien.errors import CorruptWeights, InputError, ModelError
from mien.weights import choose_all, read_verified, require_licence

Batch = NDArray[np.uint8 | np.float32]


@runtime_checkable
class Session(Protocol):
    """A loaded network: a batch in, its outputs out. Safe to call from several threads."""

    def __call__(self, batch: Batch) -> Sequence[NDArray[np.float32]]: ...


PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
}
"""What can compute: ONNX Runtime's name for it, and the package that brings it.

The packages all install one and the same module and replace each other, so none of them can be
an extra beside the base install.
"""


def open_session(
    card: ModelCard, precision: str | None = None, provider: str | None = None
) -> Session:
    """Load the one network of a model; see `open_sessions`."""
    (session,) = open_sessions(card, precision, provider)
    return session


def open_sessions(
    card: ModelCard, precision: str | None = None, provider: str | None = None
) -> tuple[Session, ...]:
    """Load a model's weights, verified, into ONNX Runtime: one session for each of its networks.

    `precision` is "int8" or "fp32"; None takes int8 where the processor multiplies it fast and
    exactly, else fp32. `provider` is one of `PROVIDERS`; None takes `MIEN_PROVIDER`, else the CPU.
    One thread per call: pictures are what runs in parallel (see `recognition`), which scales
    better than splitting one small network and keeps results the same for any number of threads.
    Raises `CorruptWeights`, `LicenceNotAccepted`, `InputError` for a precision that the model does
    not come in, and `ModelError` for a model that cannot be run
    and for a provider that is not there: nothing falls back silently.
    """
    if not card.runnable:
        raise ModelError(f"mien cannot run {card.id} as it is published. {card.cautions}")
    offered = [file.precision for file in card.files]
    if precision is not None and precision not in offered:
        raise InputError(
            f"{card.id} does not come in precision {precision!r}; known: {', '.join(offered)}"
        )
    require_licence(card)
    provider = provider or os.environ.get("MIEN_PROVIDER") or "cpu"
    precisions = preferred_precisions() if provider == "cpu" else ("fp32", "int8")
    files = choose_all(card, [precision] if precision else precisions)
    return tuple(_OnnxSession(file.name, read_verified(file), provider) for file in files)


def session_of(name: str, model: bytes, provider: str = "cpu") -> Session:
    """A session for an ONNX file that is in memory, such as one just made; `name` for messages."""
    return _OnnxSession(name, model, provider)


def preferred_precisions() -> tuple[str, ...]:
    """The precisions this processor runs well, best first.

    int8 only where the processor has VNNI: elsewhere the 16-bit intermediate sums of
    uint8 x int8 can saturate, and nothing is gained.
    """
    return ("int8", "fp32") if _has_vnni() else ("fp32", "int8")


def to_batch(spec: InputSpec, pixels: Batch) -> Batch:
    """Pictures (n, height, width, 3), RGB 0..255, in the order, type and range of a network."""
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
    """ONNX Runtime, one thread a call."""

    def __init__(self, name: str, model: bytes, provider: str) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # pictures differ in size: plans would pile up
        options.log_severity_level = 3
        wanted = _provider(provider, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[wanted])
        except _runtime_errors() as error:
            raise CorruptWeights(name, f"ONNX Runtime cannot load it ({error})") from error
        # Where a driver or library is missing the runtime only warns, and computes on the CPU.
        if (used := self._session.get_providers()[0]) != wanted:
            raise ModelError(
                f"{provider} is installed but does not start on this machine, {used} would have "
                f"been used instead; check its driver and libraries, or use provider='cpu'"
            )
        self._session.disable_fallback()
        first = self._session.get_inputs()[0]
        self._input = first.name
        self._alone = first.shape[:1] == [1]  # exported for one picture at a time
        self._name = name

    def __call__(self, batch: Batch) -> Sequence[NDArray[np.float32]]:
        if self._alone and len(batch) > 1:
            single = [self(batch[i : i + 1]) for i in range(len(batch))]
            return [np.concatenate(parts) for parts in zip(*single, strict=True)]
        try:
            outputs: Sequence[NDArray[np.float32]] = self._session.run(None, {self._input: batch})
        except _runtime_errors() as error:
            raise ModelError(
                f"{self._name} cannot compute a batch of {batch.dtype} {batch.shape} ({error})"
            ) from error
        return outputs


@cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    """All that ONNX Runtime raises: its errors have no base of their own but `Exception`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    members = vars(state).values()
    errors = (m for m in members if isinstance(m, type) and issubclass(m, Exception))
    return (*errors, RuntimeError)


def _provider(name: str, available: Sequence[str]) -> str:
    if name not in PROVIDERS:
        raise ModelError(f"unknown provider {name!r}; known: {', '.join(PROVIDERS)}")
    wanted, package = PROVIDERS[name]
    if wanted not in available:
        raise ModelError(
            f"the ONNX Runtime installed here has no {name} (it has {', '.join(available)}); "
            f"replace it: pip uninstall -y onnxruntime && pip install {package}"
            if package != "onnxruntime"
            else f"ONNX Runtime offers no {name} on this system; it has {', '.join(available)}"
        )
    return wanted


def _has_vnni() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False  # no such file outside Linux; fp32 is right everywhere
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return "avx512_vnni" in flags or "avx_vnni" in flags
