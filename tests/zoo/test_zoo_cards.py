"""What every card promises, whether its files are here or not."""

import re

import numpy as np
import pytest

from mien import cards, decision
from mien.cards import UNKNOWN, ModelCard
from mien.errors import ModelError, NoOperatingPoint
from mien.recognition import DETECTORS

MODELS = [cards.model_card(name) for name in cards.model_ids()]
each = pytest.mark.parametrize("card", MODELS, ids=lambda card: card.id)


@each
def test_hashes_are_whole_and_not_invented(card: ModelCard) -> None:
    """Real hashes look random; public lists hold some typed as ascending runs of digits."""
    for file in card.files:
        hashes = {file.sha256, file.archive_sha256} - {"", UNKNOWN}
        for digest in hashes:
            assert re.fullmatch(r"[0-9a-f]{64}", digest)
            steps = np.diff([int(digit, 16) for digit in digest])
            assert np.isin(np.abs(steps), (1, 15)).mean() < 0.5


@each
def test_addresses_are_https(card: ModelCard) -> None:
    for file in card.files:
        assert all(url.startswith("https://") for url in file.urls)
        assert bool(file.archive_sha256) <= bool(file.member or file.checkpoint)
        archived = any(url.endswith((".zip", ".bz2")) for url in file.urls)
        assert archived == bool(file.member)


@each
def test_cards_speak_plainly(card: ModelCard) -> None:
    for words in (card.title, card.licence, card.training_data, card.cautions, card.origin):
        assert words.strip()
    if "NC" in card.licence or "on-commercial" in card.licence:
        assert card.commercial == "no"
    if not card.runnable:
        assert "what is missing is" in card.cautions


@each
def test_runnable_models_have_a_decoder(card: ModelCard) -> None:
    if card.runnable and card.task == "detection":
        assert card.decoder in DETECTORS
    if card.runnable and card.task == "embedding":
        assert card.decoder == "vector"
        assert card.input.frame is not None
        corners = np.array(card.input.frame.template)
        assert (corners > 0).all()
        assert (corners < np.array(card.input.frame.size)).all()


def test_names_are_used_once() -> None:
    files: dict[str, str] = {}
    for card in MODELS:
        for file in card.files:
            assert files.setdefault(file.name, file.sha256) == file.sha256, file.name
    assert not set(cards.bundle_ids()) & set(cards.model_ids())


@pytest.mark.parametrize("name", cards.bundle_ids())
def test_bundles_are_made_of_what_runs(name: str) -> None:
    bundle = cards.bundle(name)
    assert bundle.detector.task == "detection"
    assert bundle.detector.runnable
    assert bundle.embedder.task == "embedding"
    assert bundle.embedder.runnable


@pytest.mark.parametrize("name", ["permissive", "buffalo_l", "sface"])
def test_what_nobody_measured_has_no_threshold(name: str) -> None:
    bundle = cards.bundle(name)
    with pytest.raises(NoOperatingPoint, match="mien evaluate folder PEOPLE --model ID --as NEW"):
        decision.operating_point(bundle.operating_points, 1e-3, bundle.contract)


def test_contracts_tell_recognisers_apart() -> None:
    names = [*cards.bundle_ids(), *(c.id for c in MODELS if c.task == "embedding" and c.runnable)]
    contracts = [cards.bundle(name).contract for name in names]
    same = {"dlib-resnet-v1": "embedded", "arcface-w600k-r50": "buffalo_l",
            "arcface-w600k-mbf": "buffalo_sc", "arcface-glint-r100": "antelopev2",
            "facenet-vggface2": "facenet", "hse-faceres": "faceres"}  # fmt: skip
    assert len(set(contracts)) == len(names) - len(same)
    for embedder, bundle in same.items():
        assert cards.bundle(embedder).contract == cards.bundle(bundle).contract


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('id = "dlib', 'id = "../dlib', "not a plain name"),
        ('name = "dlib', 'name = "/dlib', "not a plain name"),
        ('commercial = "yes"', 'commercial = "maybe"', "maybe"),
        ('channels = "RGB"', 'channels = "GBR"', "GBR"),
        ('title = "', 'heading = "', "title"),
        ("[input]", "[input", "not a model card"),
        ("precision = ", "accuracy = ", "accuracy"),
    ],
)
def test_what_is_no_card_is_refused(old: str, new: str, reason: str) -> None:
    text = cards.card_text("dlib-resnet-v1")
    assert old in text
    with pytest.raises(ModelError, match=reason):
        cards.parse(text.replace(old, new), "a card")
