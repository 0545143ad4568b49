import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import vectors

from mien.gallery import kernels
from mien.gallery.kernels import Kernel, compiled_kernel, fastest_kernel, numpy_kernel
from mien.gallery.quantizer import Probes, Quantizer, _rotation
from mien.gallery.scan import Block, candidates, filtered, people_in

KERNELS = [numpy_kernel]
if importlib.util.find_spec("llvmlite"):
    KERNELS.append(compiled_kernel)


def block(rows: np.ndarray, quantizer: Quantizer, per_person: int = 1) -> Block:
    ids = np.arange(1, len(rows) + 1)
    return Block(ids, 1 + (ids - 1) // per_person, *quantizer.encode(rows))


def unpacked(codes: np.ndarray) -> np.ndarray:
    return np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.int64)


def scores(kernel: Kernel, asked: Probes, terms: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """All upper bounds (n, p)."""
    everything = np.full(len(asked.codes), -np.inf, np.float32)
    found = np.full((len(codes), len(asked.codes)), np.nan, np.float32)
    hits = kernel(asked)(terms, codes, everything)
    assert len(hits.rows) == found.size
    found[hits.rows, hits.columns] = hits.bounds
    return found


def asking(codes: np.ndarray, weights: object = (0, 0, 0)) -> Probes:
    return Probes(
        codes,
        np.broadcast_to(np.array(weights, np.float32), (len(codes), 3)),
        np.zeros(len(codes), np.float32),
    )


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 300),
    probes=st.integers(1, 70),
    width=st.sampled_from([1, 4, 64, 128, 192, 256, 512]),
)
def test_kernels_give_the_same_bits_and_the_exact_product(
    rows: int, probes: int, width: int
) -> None:
    random = np.random.default_rng(rows * probes)
    codes = random.integers(0, 256, (rows, width), dtype=np.uint8)
    asked = random.integers(-127, 128, (probes, 2 * width), dtype=np.int8)
    terms = np.array([[1.0], [0.0], [0.0]], np.float32).repeat(rows, axis=1)
    expected = unpacked(codes) @ asked.T.astype(np.int64)
    for kernel in [*KERNELS, fastest_kernel()]:
        assert np.array_equal(scores(kernel, asking(asked), terms, codes), expected)
    terms = random.standard_normal((3, rows), dtype=np.float32)
    weights = random.standard_normal((probes, 3), dtype=np.float32) * 1000
    first, *others = [scores(k, asking(asked, weights), terms, codes) for k in KERNELS]
    for other in others:
        assert first.tobytes() == other.tobytes()
    marks = np.quantile(first, 0.9, axis=0).astype(np.float32)
    for kernel in KERNELS:
        hits = kernel(asking(asked, weights))(terms, codes, marks)
        reached = np.zeros(first.shape, bool)
        reached[hits.rows, hits.columns] = True
        assert np.array_equal(reached, first >= marks)
        assert np.array_equal(hits.bounds, first[hits.rows, hits.columns])
    exact = terms[0][:, None] * (expected + weights[:, 0].astype(float))
    exact += terms[1:].T.astype(float) @ weights[:, 1:].T
    np.testing.assert_allclose(first, exact, rtol=1e-5, atol=1)


@pytest.mark.skipif(len(KERNELS) == 1, reason="needs the extra 'fast'")
@pytest.mark.parametrize("features", [{}, {"avx2": True}, {"avxvnni": True}, {"avx512vnni": True}])
@pytest.mark.parametrize("probes", [1, 5])
def test_programs_for_other_processors(
    features: dict[str, bool], probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way to multiply bytes that this processor can run gives the same bits."""
    from llvmlite import binding

    here = binding.get_host_cpu_features()
    if any(not here.get(name) for name in features) and not here.get("avx512vnni"):
        pytest.skip(f"this processor has no {', '.join(features)}")
    shape = kernels._dot_product(features)
    monkeypatch.setattr(kernels, "_dot_product", lambda _: shape)
    monkeypatch.setattr(kernels, "_ENGINES", {})
    random = np.random.default_rng(probes)
    codes = random.integers(0, 256, (100, 128), dtype=np.uint8)
    asked = random.integers(-127, 128, (probes, 256), dtype=np.int8)
    terms = random.standard_normal((3, 100), dtype=np.float32)
    found: list[np.ndarray] = [scores(k, asking(asked, (1, 2, 3)), terms, codes) for k in KERNELS]
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_hold_the_largest_sums_and_many_blocks(kernel: Kernel) -> None:
    """Every product at its extreme, more rows than a block, no row mistaken for another."""
    codes = np.full((9000, 512), 255, np.uint8)
    asked = np.full((5, 1024), -127, np.int8)
    codes[4097], asked[3] = 0, 127
    terms = np.stack([np.ones(9000), np.arange(9000), np.zeros(9000)]).astype(np.float32)
    found = scores(kernel, asking(asked, (0, 1, 0)), terms, codes)
    expected = unpacked(codes) @ asked.T.astype(np.int64) + np.arange(9000)[:, None]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dimensions", [1, 2, 7, 128, 200, 512])
def test_the_rotation_keeps_inner_products_and_spreads_every_vector(dimensions: int) -> None:
    turn = _rotation(dimensions)
    np.testing.assert_allclose(turn @ turn.T, np.eye(dimensions), atol=2e-5)
    if dimensions >= 128:  # an axis, which is the least spread of all vectors, becomes bell-shaped
        assert np.abs(turn).max() * np.sqrt(dimensions) < 6
        assert 2.5 < (turn**4).mean() * dimensions**2 < 3.5


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("dimensions", "squeeze"), [(128, 0.83), (512, 0.0), (128, 0.97), (33, 0.0)]
)
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
    for (some, _), best in zip(found, exact, strict=True):
        assert set(best) <= set(some)
        if dimensions >= 128:
            assert len(some) < 1600  # and they are few


@pytest.mark.parametrize(
    "kind", ["faces", "squeezed", "axes", "copies of a few", "sparse", "another mean"]
)
def test_the_error_is_as_large_as_the_bound_says_for_any_data(kind: str) -> None:
    """In units of its standard deviation the error is normal: mean 0, deviation 1, no outliers.

    A bound that holds only for well-behaved vectors would lose whoever has another kind.
    """
    random = np.random.default_rng(0)
    dimensions = 256
    rows = vectors(4000, dimensions, squeeze=0.83 if kind == "squeezed" else 0.0)
    if kind == "axes":
        rows = np.eye(dimensions, dtype=np.float32)
    elif kind == "copies of a few":
        rows = rows[:5].repeat(300, axis=0)
    elif kind == "sparse":
        rows[random.random(rows.shape) < 0.98] = 0
        rows[:, 0] += 1e-3
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    quantizer = Quantizer.fit(rows, len(rows))
    if kind == "another mean":
        quantizer = Quantizer(vectors(1, dimensions, seed=9)[0] * 0.7, len(rows))
    probes = vectors(200, dimensions, seed=3)
    probes[:50] = rows[:: max(1, len(rows) // 50)][:50]
    terms, codes = quantizer.encode(rows)
    asked = quantizer.probes(probes)
    coarse = (unpacked(codes) @ asked.codes.astype(np.int64).T) * terms[0][:, None]
    coarse = coarse + terms.T.astype(np.float64) @ (asked.weights * [1, 1, 0]).T
    estimate = coarse / asked.weights[:, 1] + probes.astype(np.float64) @ quantizer.mean
    estimate -= float(quantizer.mean @ quantizer.mean)
    margins = asked.margins / asked.weights[:, 1] * terms[2][:, None]  # both sides together
    errors = (estimate - rows.astype(np.float64) @ probes.T) / (margins / 2 / 3 + 1e-9)
    alike = rows.astype(np.float64) @ probes.T > 1 - 1e-6  # of these nothing is across
    assert np.abs(errors).max() < 6
    assert 0.7 < errors[~alike].std() < 1.1  # less where much of a probe is along a template
    assert abs(errors[~alike].mean()) < 0.3  # of five templates a chance value


@pytest.mark.parametrize("squeeze", [0.0, 0.83, 0.97])
def test_no_score_is_above_what_it_may_be_at_most(squeeze: float) -> None:
    """But for one in 80,000 whose codes happen to be far off."""
    rows = vectors(8000, 128, squeeze=squeeze)
    quantizer = Quantizer.fit(rows[:4000], len(rows))
    found = candidates([block(rows, quantizer)], quantizer, rows[:2000:40], 10, numpy_kernel)
    for (some, most), probe in zip(found, rows[:2000:40], strict=True):
        scores = rows[some - 1] @ probe
        assert (scores <= most + 1e-5).all()
        assert (np.diff(most) <= 0).all()
        assert (most - scores).max() < 0.2  # and it is near


def test_ties_and_copies_are_all_kept() -> None:
    rows = np.repeat(vectors(1, 64), 500, axis=0)
    quantizer = Quantizer.fit(rows, len(rows))
    ((found, _),) = candidates([block(rows, quantizer)], quantizer, rows[:1], 3, numpy_kernel)
    assert len(found) == 500


def test_outliers_and_the_mean_itself_are_found_too() -> None:
    rows = vectors(1000, 64, squeeze=0.95)
    quantizer = Quantizer.fit(rows, len(rows))
    middle = quantizer.mean / np.linalg.norm(quantizer.mean)
    rows[0], rows[1] = np.eye(64, dtype=np.float32)[0], middle
    exactly = Quantizer(middle, len(rows))  # this one has nothing left to be coded
    for using in (quantizer, exactly):
        held = block(rows, using)
        assert np.isfinite(held.terms).all()
        found = candidates([held], using, rows[:2], 1, numpy_kernel)
        assert 1 in found[0].ids
        assert 2 in found[1].ids


def test_a_mean_is_fitted_when_there_are_enough() -> None:
    assert not Quantizer.fit(vectors(3, 8), 3).mean.any()
    assert Quantizer.fit(vectors(300, 8), 300).mean.any()
    few = Quantizer.fit(vectors(3, 8), 3)
    assert few.outgrown(256)
    assert not few.outgrown(200)


def test_a_person_with_very_many_templates_does_not_hide_the_others() -> None:
    crowd = vectors(4000, 64, per_person=4000)
    others = vectors(40, 64, seed=2)
    rows = np.concatenate([crowd, others])
    quantizer = Quantizer.fit(rows, len(rows))
    whole = block(rows, quantizer)
    whole.subjects[:4000] = 1
    ((found, _),) = candidates([whole], quantizer, crowd[:1], 5, numpy_kernel)
    exact = np.argsort(-(others @ crowd[0]))[:4] + 4001
    assert set(exact) <= set(found)
    assert people_in([whole], 100) == 41
    assert people_in([whole], 7) == 7


def test_removed_templates_are_no_candidates() -> None:
    rows = vectors(2000, 64)
    quantizer = Quantizer.fit(rows, len(rows))
    whole = block(rows, quantizer)
    whole.subjects[:1500] = 0
    ((found, _),) = candidates([whole], quantizer, rows[:1], 5, numpy_kernel)
    assert found.min() > 1500
    assert people_in([whole], 10_000) == 500


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.99, 1.0])
def test_a_filter_lets_exactly_the_allowed_through(share: float) -> None:
    rows = vectors(1000, 64)
    quantizer = Quantizer.fit(rows, len(rows))
    whole = block(rows, quantizer)
    allowed = np.random.default_rng(1).random(1001) < share
    among = whole.among(allowed)
    assert set(among.ids) == set(np.flatnonzero(allowed[1:]) + 1)
    scanned = filtered([whole], allowed)
    there = people_in(scanned, 1000, allowed)
    assert there == len(among)
    if there:
        found = candidates(scanned, quantizer, rows[:20], min(5, there), numpy_kernel, allowed)
        for (some, _), probe in zip(found, rows[:20], strict=True):
            scores = np.where(allowed[1:], rows @ probe, -2)
            assert set(np.argsort(-scores)[: min(5, there)] + 1) <= set(some)
            assert allowed[some].all()
