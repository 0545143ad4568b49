"""OpenFace's network in the format of its published file: read key by key, converted, run.

`tools/openface.py` writes such files as Torch does, and compares with OpenCV's reader of them.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="conversion needs mien[train]")
pytest.importorskip("onnxscript", reason="conversion needs mien[train]")

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import mien  # noqa: E402
import openface  # noqa: E402
from mien import cards, networks, weights  # noqa: E402
from mien.cli.models import command  # noqa: E402
from mien.errors import CorruptWeights  # noqa: E402
from mien.inference import session_of  # noqa: E402
from mien.training.torch7 import read_tensors  # noqa: E402
from mien.types import Image  # noqa: E402
from openface import Lua, written  # noqa: E402

SMALL = Lua(
    "nn.Sequential",
    modules=[
        Lua("nn.Linear", weight=np.arange(6, dtype=np.float32).reshape(2, 3), bias=np.ones(2)),
        Lua("nn.MulConstant", constant_scalar=4.0, inplace=False),
        Lua("nn.View", size=(2, 3), note=None),
    ],
)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return openface.made_up()


@pytest.fixture(scope="module")
def checkpoint(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "nn4.small2.v1.t7"
    path.write_bytes(openface.file_of(network))
    return path


def test_parameters_are_as_published() -> None:
    """What the definition of the network states at its head."""
    with torch.device("meta"):
        network = networks.build("nn4_small2", 128)
    assert sum(p.numel() for p in network.parameters()) == 3_733_968


def test_every_tensor_arrives_under_its_name(network: torch.nn.Module, checkpoint: Path) -> None:
    found, own = read_tensors(checkpoint), network.state_dict()
    assert found.keys() == {name for name in own if not name.endswith("num_batches_tracked")}
    for name, value in found.items():
        assert torch.equal(value.reshape(own[name].shape), own[name]), name


def test_it_becomes_a_model(
    network: torch.nn.Module,
    checkpoint: Path,
    eileen: Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path))
    arguments = ["import", str(checkpoint), "--as", openface.CARD]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    card = cards.model_card(openface.CARD)
    weights.accept_licence(card)
    batch = openface.faces(card)
    (found,) = session_of("made up", weights.read_verified(card.files[0]))(batch)
    with torch.inference_mode():
        np.testing.assert_allclose(found, network(torch.from_numpy(batch)).numpy(), atol=2e-5)
    assert mien.load(openface.CARD).embed(eileen).embedding.vector.shape == (128,)


def read(data: bytes, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "network.t7"
    path.write_bytes(data)
    return read_tensors(path)


def test_what_else_may_lie_in_a_file(tmp_path: Path) -> None:
    """A compiled function is passed over, a table that holds itself is read once."""
    body = b"not run"
    function = struct.pack("<iii", 8, 900, len(body)) + body + struct.pack("<i", 0)
    itself = struct.pack("<iii", 3, 901, 1) + written("me") + struct.pack("<ii", 3, 901)
    plain = written(SMALL)
    size = struct.pack("<i", 1)  # of the fields of the first object: three after this
    at = plain.index(size + written("modules"))
    more = written("f") + function + written("g") + itself
    found = read(plain[:at] + struct.pack("<i", 3) + more + plain[at + 4 :], tmp_path)
    assert list(found) == ["0.weight", "0.bias", "1.constant_scalar"]
    assert found["0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["1.constant_scalar"] == 4


def tensor(shape: tuple[int, ...], steps: tuple[int, ...], first: int) -> bytes:
    """A network of one tensor, over four numbers."""
    inside = written(np.zeros(4, np.float32), 100)
    head = inside.index(b"torch.FloatTensor") + len("torch.FloatTensor")
    storage = inside[head + 4 + 8 + 8 + 8 :]
    lied = struct.pack(f"<i{2 * len(shape)}q", len(shape), *shape, *steps)
    lied = inside[:head] + lied + struct.pack("<q", first) + storage
    whole = written(Lua("nn.Linear", weight=None))
    return whole.replace(written("weight") + struct.pack("<i", 0), written("weight") + lied)


def test_a_tensor_stays_within_its_numbers(tmp_path: Path) -> None:
    assert read(tensor((2, 2), (2, 1), 1), tmp_path)["weight"].shape == (2, 2)
    assert read(tensor((2, 2), (0, 1), 3), tmp_path)["weight"].shape == (2, 2)  # a row twice


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"PK\x03\x04 something else", "a value of kind"),
        (written(SMALL)[:-9], "cut off"),
        (written(SMALL.fields), "the file is no module"),
        (written(Lua("nn.Sequential", modules=[1.0])), "0. is no module"),
        (written(Lua("nn.Sequential", modules={"first": SMALL})), "0. is no module"),
        (written(Lua("nn.Sequential", modules=2.0)), "no table"),
        (written(Lua("torch.HalfTensor")), "torch.HalfTensor, which is not read"),
        (written(Lua("nn.SpatialBatchNormalization", eps=1e-3, running_mean=np.ones(2))), "eps"),
        (struct.pack("<iii", 3, 1, 2**30), "cut off"),
        (b"".join(struct.pack("<iii", 3, n, 1) for n in range(500)), "too deep"),
        (tensor((4, 2), (2, 1), 1), "reaches out"),
        (tensor((2, 2), (2, -1), 2), "reaches out"),
        (tensor((2, 2), (2, 1), 0), "reaches out"),
        (tensor((2**40, 2**40), (2**40, 1), 1), "reaches out"),
        (tensor((2**40, 2), (0, 1), 1), "larger"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptWeights, match=reason):
        read(data, tmp_path)


@given(data=st.data())
def test_damage_never_surprises(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes change, a file is read or refused."""
    bad = bytearray(written(SMALL))
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(bad), tmp_path_factory.mktemp("damaged"))
    except CorruptWeights:
        return
