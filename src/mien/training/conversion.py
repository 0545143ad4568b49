"""A published checkpoint to the ONNX file that its card asks for, proven on the way."""

import pickle
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mien import networks
from mien.alignment import align
from mien.cards import ModelCard, WeightFile
from mien.embedding import normalize
from mien.errors import CorruptWeights, ModelError
from mien.images import read_image
from mien.inference import Batch, session_of, to_batch
from mien.training.draft import FACE, PICTURE, to_onnx
from mien.training.torch7 import read_tensors
from mien.types import Landmarks

AGREEMENT = 0.9999  # cosine of what PyTorch and ONNX Runtime make of the same crop


def convert(card: ModelCard, file: WeightFile, checkpoint: Path) -> bytes:
    """The ONNX file of a card from the checkpoint it names, which is read but never executed.

    Only tensors are accepted (`weights_only`), every tensor of the network has to be among them,
    and the file is returned only if it gives the same vectors of a real face as PyTorch does.
    Raises `CorruptWeights`, and `ModelError` for the checkpoint of another network.
    """
    state = (read_tensors if checkpoint.suffix == ".t7" else read_state)(checkpoint)
    frame = card.input.frame
    if frame is None:
        raise ModelError(f"the card of {card.id} has no template to align to")
    network = networks.build(file.network, file.dimensions, size=frame.size[0])
    missing, _ = networks.adopt(network, state)
    lacking = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lacking:
        raise ModelError(
            f"{checkpoint} lacks {len(lacking)} of the tensors of {file.network}, the first is "
            f"{sorted(lacking)[0]}"
        )
    network.eval()
    model = to_onnx(network, frame.size[0], half=False)
    batch = _faces(card)
    (found,) = session_of(file.name, model)(batch)
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch)).numpy()
    agreement = float(np.einsum("ij,ij->i", normalize(found), normalize(expected)).min())
    if not agreement >= AGREEMENT:
        raise ModelError(
            f"the conversion of {checkpoint} agrees with PyTorch to {agreement:.5f} only, "
            f"{AGREEMENT} is needed; report this with the versions of torch and onnxruntime"
        )
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint saved by PyTorch; no code in it is executed.

    Raises `CorruptWeights` for what is none, or holds anything else.
    """
    remedy = "fetch it again, or use the file that the card of the model names"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CorruptWeights(str(path), f"PyTorch cannot read it ({error})", remedy) from error
    except pickle.UnpicklingError as error:
        raise CorruptWeights(str(path), "it holds other things than tensors", remedy) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CorruptWeights(str(path), "it is no dictionary of tensors", remedy)
    return dict(state)


def _faces(card: ModelCard) -> Batch:
    """The face that comes with mien as the network is given it, and its mirror image."""
    frame = card.input.frame
    assert frame is not None  # looked at by `convert`
    picture = resources.files("mien").joinpath("bundled", "pictures", PICTURE)
    face = Landmarks(np.array(FACE, np.float32))
    pixels = align(read_image(picture.read_bytes()), face, frame).pixels
    return to_batch(card.input, np.stack([pixels, pixels[:, ::-1]]))
