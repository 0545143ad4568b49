"""mien.cards: every card is whole and true to its files; contracts tell ways of making apart."""

import hashlib
from dataclasses import replace

import pytest

import mien
from mien.cards import (
    UNKNOWN,
    Bundle,
    ModelCard,
    bundle,
    bundle_ids,
    contract_of,
    model_card,
    model_ids,
)
from mien.recognition import DETECTORS
from mien.types import Frame
from mien.weights import locate

EMBEDDERS = [name for name in model_ids() if model_card(name).task == "embedding"]


def test_what_ships() -> None:
    assert {"dlib-resnet-v1", "retinaface-mobilenet025"} <= set(model_ids())
    assert {"embedded", "embedded-accurate"} <= set(bundle_ids())


@pytest.mark.parametrize("name", model_ids())
def test_model_card(name: str) -> None:
    card = model_card(name)
    assert card.id == name
    assert card.task in ("detection", "embedding", "attributes", "liveness")
    assert card.commercial in ("yes", "no", "unclear")
    for words in (card.title, card.licence, card.training_data, card.cautions):
        assert len(words) > 2
    assert card.origin.startswith("https://")
    if card.origin_sha256 != UNKNOWN:  # honest where nobody trustworthy has published one
        assert len(bytes.fromhex(card.origin_sha256)) == 32
    assert card.files
    assert len({(file.part, file.precision) for file in card.files}) == len(card.files)
    if not card.runnable:
        assert card.cautions
        return
    if card.task == "detection":
        assert card.decoder in DETECTORS
        assert card.input.frame is None
    elif card.task != "liveness":
        frame = card.input.frame
        assert frame is not None
        assert len(frame.template) == 5
        width, height = frame.size
        assert all(0 < x < width and 0 < y < height for x, y in frame.template)
        left, right, nose, *mouth = frame.template
        assert left[0] < nose[0] < right[0]
        assert all(left[1] < nose[1] < corner[1] for corner in mouth)
    assert all(scale > 0 for scale in card.input.std)
    if card.input.dtype == "uint8":
        assert (card.input.mean, card.input.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("name", model_ids())
def test_files_are_those_of_the_card(name: str) -> None:
    for file in model_card(name).files:
        path = locate(file)
        if path is None:
            pytest.skip(f"{file.name} was not fetched")
        data = path.read_bytes()
        assert len(data) == file.bytes
        assert hashlib.sha256(data).hexdigest() == file.sha256


@pytest.mark.parametrize("name", ["retinaface-mobilenet025", "dlib-resnet-v1"])
def test_default_models_are_inside_the_package_and_free(name: str) -> None:
    card = model_card(name)
    assert card.commercial == "yes"
    for file in card.files:
        path = locate(file)
        assert path is not None
        assert path.parent.name == "bundled"


@pytest.mark.parametrize("name", bundle_ids())
def test_bundle(name: str) -> None:
    made = bundle(name)
    assert made.id == name
    assert made.detector.task == "detection"
    assert made.embedder.task == "embedding"
    assert made.views >= 1
    assert made.detector.id in made.contract
    assert made.embedder.id in made.contract


@pytest.mark.parametrize("name", bundle_ids())
def test_operating_points(name: str) -> None:
    """From lax to strict; a stricter one misses more. They carry the bundle's contract."""
    points = bundle(name).operating_points
    if not points:
        pytest.skip(f"{name} has not been measured")
    assert all(0 < point.fmr < 1 and 0 <= point.fnmr < 1 for point in points)
    assert [p.fmr for p in points] == sorted({p.fmr for p in points}, reverse=True)
    assert [p.threshold for p in points] == sorted({p.threshold for p in points})
    assert [p.fnmr for p in points] == sorted(p.fnmr for p in points)
    assert all(-1 < point.threshold < 1 for point in points)
    for point in points:
        assert point.contract == bundle(name).contract
        assert point.protocol


def test_unknown() -> None:
    with pytest.raises(mien.UnknownModel) as caught:
        model_card("nonesuch")
    assert caught.value.known == model_ids()
    assert all(name in str(caught.value) for name in model_ids())
    with pytest.raises(mien.UnknownModel) as caught:
        bundle("../models/dlib-resnet-v1")
    assert set(bundle_ids()) <= set(caught.value.known)


# ------------------------------------------------------------------------------ contracts


@pytest.fixture
def made() -> Bundle:
    return bundle("embedded")


def reframed(card: ModelCard, frame: Frame) -> ModelCard:
    return replace(card, input=replace(card.input, frame=frame))


def test_contract_changes_with_every_part(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, embedder, views = made.detector, made.embedder, made.views
    frame = embedder.input.frame
    assert frame is not None
    (x, y), *rest = frame.template
    other_hash = "0" * 64
    contracts = [
        contract_of(detector, embedder, views),
        contract_of(detector, embedder, views + 1),
        contract_of(replace(detector, origin_sha256=other_hash), embedder, views),
        contract_of(detector, replace(embedder, origin_sha256=other_hash), views),
        contract_of(detector, reframed(embedder, replace(frame, size=(112, 112))), views),
        contract_of(
            detector, reframed(embedder, replace(frame, template=((x + 0.01, y), *rest))), views
        ),
    ]
    monkeypatch.setattr("mien.cards.objects.PREPROCESSING", -1)
    contracts.append(contract_of(detector, embedder, views))
    assert len(set(contracts)) == len(contracts)


def test_contract_ignores_what_moves_no_vector(made: Bundle) -> None:
    """Titles, licences, and the precision in which the same weights are stored."""
    embedder = replace(made.embedder, title="x", licence="y", files=made.embedder.files[:1])
    assert contract_of(made.detector, embedder, made.views) == made.contract
