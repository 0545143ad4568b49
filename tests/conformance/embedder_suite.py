"""What any `mien.embedding.Embedder` must do. Run it on yours:

class TestMyEmbedder(EmbedderSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls):
        return MyEmbedder()
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mien
from mien.alignment import align_views
from mien.embedding import Embedder
from mien.types import AlignedFace, Image


class EmbedderSuite:
    """A subclass says how to make the embedder."""

    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls) -> Embedder:
        raise NotImplementedError("say how to make the embedder")

    @pytest.fixture(scope="class")
    @classmethod
    def crops(
        cls, embedder: Embedder, recognizer: mien.Recognizer, eileen: Image, grace: Image
    ) -> list[AlignedFace]:
        """Twenty views of Eileen, then twenty of Grace."""
        frame = embedder.card.input.frame
        assert frame is not None
        crops = []
        for image in (eileen, grace):
            (face,) = recognizer.detector.detect(image)
            crops += align_views(image, face.landmarks, frame, 20)
        return crops

    def test_is_an_embedder(self, embedder: Embedder) -> None:
        assert isinstance(embedder, Embedder)
        assert embedder.card.task == "embedding"
        frame = embedder.card.input.frame
        assert frame is not None
        assert len(frame.template) == 5

    def test_unit_vectors(self, embedder: Embedder, crops: list[AlignedFace]) -> None:
        vectors = embedder.embed_batch(crops)
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == len(crops)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)

    def test_none(self, embedder: Embedder) -> None:
        assert len(embedder.embed_batch([])) == 0

    @pytest.mark.parametrize("count", [1, 2, 31, 33, 40])
    def test_batches_of_any_size_agree_bit_for_bit(
        self, embedder: Embedder, crops: list[AlignedFace], count: int
    ) -> None:
        batch = embedder.embed_batch(crops[:count])
        single = np.concatenate([embedder.embed_batch([crop]) for crop in crops[:count]])
        assert np.array_equal(batch, single)

    def test_in_the_order_given(self, embedder: Embedder, crops: list[AlignedFace]) -> None:
        order = np.random.default_rng(0).permutation(len(crops))
        vectors = embedder.embed_batch(crops)
        assert np.array_equal(embedder.embed_batch([crops[i] for i in order]), vectors[order])

    def test_same_from_any_thread(self, embedder: Embedder, crops: list[AlignedFace]) -> None:
        expected = embedder.embed_batch(crops[:5])
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(embedder.embed_batch, [crops[:5]] * 8):
                assert np.array_equal(vectors, expected)

    def test_people_differ(self, embedder: Embedder, crops: list[AlignedFace]) -> None:
        """Every view is more like any view of the same person than like any of the other."""
        vectors = embedder.embed_batch(crops)
        scores = vectors @ vectors.T
        assert min(scores[:20, :20].min(), scores[20:, 20:].min()) > scores[:20, 20:].max()
