"""Every embedder of ours, at every precision."""

import pytest
from embedder_suite import EmbedderSuite

from mien.cards import model_card
from mien.embedding import Embedder, NetworkEmbedder
from mien.inference import open_session


class TestDlibInt8(EmbedderSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls) -> Embedder:
        card = model_card("dlib-resnet-v1")
        return NetworkEmbedder(card, open_session(card, "int8"))


class TestDlibFp32(EmbedderSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls) -> Embedder:
        card = model_card("dlib-resnet-v1")
        return NetworkEmbedder(card, open_session(card, "fp32"))
