"""Sessions: providers by name without silent fall-backs, models that cannot be run."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import mien
from mien import cards
from mien.errors import CorruptWeights, ModelError
from mien.inference import PROVIDERS, open_session, open_sessions

CARD = cards.model_card("retinaface-mobilenet025")
MISSING = [
    name for name, (wanted, _) in PROVIDERS.items()
    if wanted not in onnxruntime.get_available_providers()
]  # fmt: skip


def test_the_processor_is_the_default() -> None:
    batch = np.zeros((1, 64, 64, 3), np.uint8)
    for by_default, by_name in zip(
        open_session(CARD)(batch), open_session(CARD, provider="cpu")(batch), strict=True
    ):
        np.testing.assert_array_equal(by_default, by_name)


@pytest.mark.parametrize("provider", MISSING)
def test_a_missing_provider_is_an_error_that_says_what_to_do(provider: str) -> None:
    with pytest.raises(ModelError, match=rf"has no {provider}|offers no {provider}"):
        mien.load(provider=provider)


def test_the_environment_chooses_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MISSING, "onnxruntime for the processor alone is what the tests install"
    monkeypatch.setenv("MIEN_PROVIDER", MISSING[0])
    with pytest.raises(ModelError, match=MISSING[0]):
        open_session(CARD)


def test_an_unknown_provider_is_an_error() -> None:
    with pytest.raises(ModelError, match="known: cpu, cuda"):
        open_session(CARD, provider="gpu")


def test_a_provider_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package for CUDA is installed and its driver is not: the runtime only warns."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), \
            pytest.raises(ModelError, match="does not start on this machine"):  # fmt: skip
        open_session(CARD, provider="cuda")


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08\x12\x00" * 20])
def test_what_the_runtime_cannot_load_is_corrupt(home: Path, content: bytes) -> None:
    (home / "models").mkdir(parents=True)
    (home / "models" / "x.onnx").write_bytes(content)
    file = cards.WeightFile("x.onnx", hashlib.sha256(content).hexdigest(), "fp32")
    with pytest.raises(CorruptWeights, match="cannot load it"):
        open_session(replace(CARD, files=(file,)))


def test_a_batch_of_the_wrong_shape_is_an_error_with_shapes() -> None:
    with pytest.raises(ModelError, match=r"\(1, 3, 64, 64\)"):
        open_session(CARD)(np.zeros((1, 3, 64, 64), np.uint8))


@pytest.mark.parametrize("name", ["topofr-r50", "magface-r100"])
def test_models_that_cannot_run_say_what_is_missing(name: str) -> None:
    with pytest.raises(ModelError, match="what is missing is"):
        open_sessions(cards.model_card(name))
