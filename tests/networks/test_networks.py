"""Networks are the published ones: names, shapes, outputs, sizes; and can be trained from random.

`reference.json` holds what the packages that publish checkpoints gave on the same made-up weights;
tools/reference_networks.py wrote it, and compares with the packages themselves.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need mien[train]")

from mien import networks  # noqa: E402
from mien.errors import InputError, MissingExtra, ModelError  # noqa: E402
from mien.networks import vit  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from reference_networks import described, made_up, ours, picture  # noqa: E402

REFERENCE: Mapping[str, Any] = json.loads(
    (Path(__file__).parent / "reference.json").read_text(encoding="utf-8")
)
LIGHT = ("mobilenet_v2", "resnet18", "vit_tiny")

# Numbers in the network before the embedding. Those of the package's network with a classifier of
# 1,000 classes, as its own documentation states them, less that classifier.
PARAMETERS = {
    "inception_resnet_v1": 22_564_096,  # 23,482,624 with 512 numbers and their normalisation
    "inception_resnet_v2": 55_843_464 - 1_537_000,
    "mobilenet_v2": 3_504_872 - 1_281_000,
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "vgg19": 143_667_240 - 123_642_856,
    "vgg19_bn": 143_678_248 - 123_642_856,
    "vit_tiny": 5_717_416 - 193_000,
    "vit_small": 22_050_664 - 385_000,
}

# Multiplications in units of 1e9 at a size, of the network without its classifier: the papers, and
# torchvision's and timm's tables for their checkpoints.
MULTIPLICATIONS = {
    "inception_resnet_v1": (160, 1.42), "inception_resnet_v2": (299, 13.18),
    "mobilenet_v2": (224, 0.30), "resnet18": (224, 1.81), "resnet34": (224, 3.66),
    "resnet50": (224, 4.09), "vgg19": (224, 19.51), "vgg19_bn": (224, 19.51),
    "vit_tiny": (224, 1.25), "vit_small": (224, 4.6),
}  # fmt: skip


def options(name: str) -> dict[str, int]:
    return {"patch": 16} if name.startswith("vit") else {}


# ------------------------------------------------------------------------------- the published ones


def test_every_network_has_a_reference() -> None:
    assert set(REFERENCE) == set(PARAMETERS) == set(MULTIPLICATIONS)
    assert set(REFERENCE) <= set(networks.NAMES)


@pytest.mark.parametrize("name", REFERENCE)
def test_names_and_shapes_are_those_of_the_package(name: str) -> None:
    case = REFERENCE[name]
    with torch.device("meta"):
        state = ours(name, case["size"], case["options"]).state_dict()
    assert len(state) == case["tensors"]
    assert described(state) == case["names_sha256"]


@pytest.mark.parametrize("name", ["inception_resnet_v1", "mobilenet_v2", "resnet18", "vit_tiny"])
def test_outputs_are_those_of_the_package(name: str) -> None:
    case = REFERENCE[name]
    network = ours(name, case["size"], case["options"])
    network.load_state_dict(made_up(network.state_dict()), strict=True)
    with torch.no_grad():
        found = network(picture(case["size"]))
    if name == "inception_resnet_v1":
        found = torch.nn.functional.normalize(found)
    assert float(found.norm()) == pytest.approx(case["length"], rel=1e-4)
    first = found[:, :16].flatten().numpy()
    scale = float(np.abs(case["output"]).max())
    assert np.abs(first - np.array(case["output"])).max() < 1e-4 * scale


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_published(name: str) -> None:
    with torch.device("meta"):
        network = networks.build(name, size=MULTIPLICATIONS[name][0], **options(name))
    count = sum(
        p.numel()
        for key, p in network.named_parameters()
        if not key.startswith(("embedding.", "last_"))
    )
    assert count == PARAMETERS[name]


@pytest.mark.parametrize("name", MULTIPLICATIONS)
def test_multiplications_are_as_published(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    size, billions = MULTIPLICATIONS[name]
    with torch.device("meta"):
        network = networks.build(name, size=size, **options(name)).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, 3, size, size))
    assert counter.get_total_flops() / 2e9 == pytest.approx(billions, rel=0.015)


def test_facenet_in_full() -> None:
    """With 512 numbers: what facenet-pytorch states for its network without a classifier."""
    with torch.device("meta"):
        network = networks.build("inception_resnet_v1")
    assert sum(p.numel() for p in network.parameters()) == 23_482_624
    assert network.last_bn.eps == 1e-3


# ------------------------------------------------------------------------------- ready for training


@pytest.mark.parametrize("name", networks.NAMES)
@pytest.mark.parametrize("embedding_size", [1, 128])
def test_any_embedding_size(name: str, embedding_size: int) -> None:
    size = 160 if name.startswith("inception") else 112
    with torch.device("meta"):
        network = networks.build(name, embedding_size, size=size).eval()
        assert network(torch.empty(3, 3, size, size)).shape == (3, embedding_size)


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("mobilenet_v2", 80), ("vgg19", 33), ("inception_resnet_v1", 75),
     ("inception_resnet_v2", 75), ("vit_tiny", 64), ("resnet50", 161)],
)  # fmt: skip
def test_sizes_down_to_the_least(name: str, size: int) -> None:
    with torch.device("meta"):
        network = networks.build(name, 64, size=size).eval()
        assert network(torch.empty(2, 3, size, size)).shape == (2, 64)


@pytest.mark.parametrize("name", [*LIGHT, "inception_resnet_v1"])
def test_random_weights_are_not_degenerate(name: str) -> None:
    """Two pictures give two directions, and every parameter of the network is learnt."""
    torch.manual_seed(0)
    size = 96
    network = networks.build(name, 32, size=size, dropout=0.0).train()
    x = torch.rand(4, 3, size, size) * 2 - 1
    y = network(x)
    unit = torch.nn.functional.normalize(y - y.mean(dim=0))
    assert y.isfinite().all()
    assert y.std() > 0.1
    assert (unit @ unit.T - torch.eye(4)).max() < 0.999
    (y * torch.randn(4, 32)).sum().backward()
    idle = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # what batch normalisation takes away again, and the keys' offset that softmax ignores
    assert not [key for key in idle if "qkv.bias" not in key], idle


@pytest.mark.parametrize("name", LIGHT)
def test_no_scale_starts_at_zero(name: str) -> None:
    """With zeros there an exported or tested network would be the identity in part."""
    network = networks.build(name, 16)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            assert (module.weight == 1).all()


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = networks.build("mobilenet_v2", 16, size=32, dropout=0.5)
    x = torch.rand(4, 3, 32, 32)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


# --------------------------------------------------------------------------------- from checkpoints


def test_a_checkpoint_with_a_classifier_and_a_prefix() -> None:
    """As saved by DataParallel: the backbone is taken, the embedding stays, the classifier goes."""
    network = networks.build("resnet18", 32)
    state = {key: torch.full_like(v, 0.25) for key, v in network.state_dict().items()}
    given = {f"module.{k}": v for k, v in state.items() if not k.startswith("embedding")}
    given["module.fc.weight"] = torch.zeros(1000, 512)
    left, unused = networks.adopt(network, given)
    assert set(unused) == {"fc.weight"}
    assert all(key.startswith("embedding.") for key in left)
    assert (network.layer4[1].conv2.weight == 0.25).all()
    assert not (network.embedding.linear.weight == 0.25).all()


def test_a_checkpoint_of_another_embedding_size() -> None:
    source, target = (networks.build("inception_resnet_v1", size) for size in (64, 32))
    left, unused = networks.adopt(target, source.state_dict())
    assert set(left) == set(unused) == {
        "last_linear.weight", "last_bn.weight", "last_bn.bias", "last_bn.running_mean",
        "last_bn.running_var",
    }  # fmt: skip
    assert torch.equal(target.conv2d_1a.conv.weight, source.conv2d_1a.conv.weight)


def test_a_checkpoint_of_another_network_changes_nothing() -> None:
    network = networks.build("resnet18", 32)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    other = networks.build("mobilenet_v2", 32).state_dict()
    with pytest.raises(ModelError, match=r"another network.*begins with features"):
        networks.adopt(network, other)
    with pytest.raises(ModelError, match="begins with nothing"):
        networks.adopt(network, {})
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_positions_are_interpolated_to_another_size() -> None:
    """A plane of positions that rises evenly still does on a finer grid."""
    source = networks.build("vit_tiny", 16, size=64, patch=16)
    target = networks.build("vit_tiny", 16, size=128, patch=16)
    ramp = torch.linspace(0, 1, 4)
    plane = (ramp[:, None] + 10 * ramp[None]).reshape(1, 16, 1).expand(1, 16, 192)
    state = source.state_dict()
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], plane], dim=1)
    left, _ = networks.adopt(target, state)
    assert not left
    found = target.pos_embed.detach()[0, 1:, 0].reshape(8, 8)
    assert torch.equal(target.pos_embed[:, :1], state["pos_embed"][:, :1])
    assert (found[:, 1:] > found[:, :-1]).all()
    assert (found[1:] > found[:-1]).all()
    assert float(found.mean()) == pytest.approx(5.5, rel=0.01)
    assert vit._resize(state["pos_embed"], 17) is state["pos_embed"]


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("resnet19", {}, "unknown network 'resnet19'; known: .*resnet18"),
        ("resnet18", {"width": 2}, "takes no option 'width'; it takes size, dropout"),
        ("resnet18", {"size": 31}, "at least 32 pixels"),
        ("inception_resnet_v1", {"size": 74}, "at least 75 pixels"),
        ("vit_tiny", {"size": 100}, "a multiple of 8"),
        ("resnet18", {"embedding_size": 0}, "at least one number"),
    ],
)
def test_what_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        networks.build(name, **given)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"mien\[train\]"):
        networks.build("resnet18")


def test_the_package_is_light() -> None:
    import subprocess

    code = "import sys, mien.networks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
