import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import vectors

from mien.gallery.scan import (
    Block,
    Kernel,
    Quantizer,
    candidates,
    encode_probes,
    fastest_kernel,
    numpy_kernel,
)

KERNELS = [numpy_kernel]
if importlib.util.find_spec("numkong"):
    KERNELS.append(fastest_kernel())


def block(rows: np.ndarray, quantizer: Quantizer, per_person: int = 1) -> Block:
    ids = np.arange(1, len(rows) + 1)
    codes = quantizer.encode(rows)
    assert codes is not None
    return Block(ids, 1 + (ids - 1) // per_person, codes)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 300),
    probes=st.integers(1, 70),
    dimensions=st.sampled_from([1, 8, 128, 512]),
)
def test_kernels_give_the_exact_integers(rows: int, probes: int, dimensions: int) -> None:
    random = np.random.default_rng(rows * probes)
    codes = random.integers(-127, 128, (rows, dimensions), dtype=np.int8)
    asked = random.integers(-127, 128, (probes, dimensions), dtype=np.int8)
    expected = codes.astype(np.int64) @ asked.T.astype(np.int64)
    for kernel in [*KERNELS, fastest_kernel()]:
        assert np.array_equal(kernel(asked)(codes), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dimensions", "squeeze"), [(128, 0.83), (512, 0.0), (128, 0.97)])
def test_the_exact_best_is_always_among_the_candidates(
    kernel: Kernel, dimensions: int, squeeze: float
) -> None:
    rows = vectors(8000, dimensions, squeeze=squeeze)
    probes = np.concatenate([
        vectors(8000, dimensions, squeeze=squeeze, seed=0)[::160],
        vectors(50, dimensions, squeeze=squeeze, seed=0),
    ])  # fmt: skip
    noise = np.random.default_rng(5).standard_normal(probes.shape) * 0.02
    probes = (probes + noise).astype(np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    quantizer = Quantizer.fit(rows[:4000], len(rows))
    found = candidates([block(rows, quantizer)], quantizer, probes, 10, kernel)
    exact = np.argsort(-(probes @ rows.T), axis=1)[:, :10] + 1
    for some, best in zip(found, exact, strict=True):
        assert set(best) <= set(some)
        assert len(some) < 800  # and they are few


def test_the_rounding_error_is_within_what_the_slack_allows() -> None:
    rows, probes = vectors(5000, 128, squeeze=0.83), vectors(40, 128, squeeze=0.83, seed=3)
    quantizer = Quantizer.fit(rows, len(rows))
    codes = quantizer.encode(rows)
    assert codes is not None
    asked, slack = encode_probes(quantizer, probes)
    steps = np.abs(probes).max(axis=1) / 127 * quantizer.step
    coarse = asked.astype(np.int64) @ codes.astype(np.int64).T * steps[:, None]
    error = coarse + (probes @ quantizer.mean)[:, None] - probes @ rows.T
    error -= error.mean(axis=1, keepdims=True)  # what all templates share ranks nothing
    assert np.abs(error).max() < (slack * steps).max()


def test_ties_and_copies_are_all_kept() -> None:
    rows = np.repeat(vectors(1, 64), 500, axis=0)
    quantizer = Quantizer.fit(rows, len(rows))
    (found,) = candidates([block(rows, quantizer)], quantizer, rows[:1], 3, numpy_kernel)
    assert len(found) == 500


def test_a_vector_too_far_out_is_refused_not_clipped() -> None:
    rows = vectors(1000, 64, squeeze=0.95)
    quantizer = Quantizer.fit(rows, len(rows))
    outlier = np.eye(1, 64, dtype=np.float32)
    assert quantizer.encode(outlier) is None
    while (wider := quantizer.coarser()).encode(outlier) is None:
        quantizer = wider


def test_few_templates_are_all_within_reach_of_the_first_quantizer() -> None:
    quantizer = Quantizer.fit(vectors(3, 8), 3)
    assert quantizer.encode(np.eye(8, dtype=np.float32)) is not None
    assert quantizer.encode(-np.eye(8, dtype=np.float32)) is not None
    assert quantizer.outgrown(256)
    assert not quantizer.outgrown(200)


def test_a_person_with_very_many_templates_does_not_hide_the_others() -> None:
    crowd = vectors(4000, 64, per_person=4000)
    others = vectors(40, 64, seed=2)
    rows = np.concatenate([crowd, others])
    quantizer = Quantizer.fit(rows, len(rows))
    whole = block(rows, quantizer)
    whole.subjects[:4000] = 1
    (found,) = candidates([whole], quantizer, crowd[:1], 5, numpy_kernel)
    exact = np.argsort(-(others @ crowd[0]))[:4] + 4001
    assert set(exact) <= set(found)
    assert len(found) < 100


def test_removed_templates_are_no_candidates() -> None:
    rows = vectors(2000, 64)
    quantizer = Quantizer.fit(rows, len(rows))
    whole = block(rows, quantizer)
    whole.subjects[:1500] = 0
    (found,) = candidates([whole], quantizer, rows[:1], 5, numpy_kernel)
    assert found.min() > 1500


def test_among_takes_exactly_the_allowed() -> None:
    rows = vectors(100, 16)
    whole = block(rows, Quantizer.fit(rows, 100))
    assert whole.among(np.array([0, 5, 50, 100, 101])).ids.tolist() == [5, 50, 100]
    assert len(whole.among(np.zeros(0, np.int64))) == 0
    assert whole.among(whole.ids) is whole
