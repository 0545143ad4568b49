"""Every embedder that is here, inside mien or fetched, at every precision."""

import pytest
from embedder_suite import EmbedderSuite

from mien.cards import model_card, model_ids
from mien.embedding import Embedder, NetworkEmbedder
from mien.errors import LicenceNotAccepted
from mien.inference import open_session
from mien.weights import locate

HERE = [
    (card, file.precision)
    for card in map(model_card, model_ids())
    if card.task == "embedding" and card.runnable
    for file in card.files
    if locate(file)
]


class TestEmbedders(EmbedderSuite):
    @pytest.fixture(scope="class", params=HERE, ids=[f"{c.id}-{how}" for c, how in HERE])
    @classmethod
    def embedder(cls, request: pytest.FixtureRequest) -> Embedder:
        card, precision = request.param
        try:
            return NetworkEmbedder(card, open_session(card, precision))
        except LicenceNotAccepted as error:
            pytest.skip(str(error))
