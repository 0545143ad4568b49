"""mien.decision: thresholds that keep their promise, and refusal where nothing was measured."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mien
from mien.cards import bundle, bundle_ids
from mien.decision import (
    demand,
    demanded,
    fmr_for,
    fpir_for,
    identification_point,
    identify,
    impostor_rate,
    nearness,
    operating_point,
    search_point,
)
from mien.types import (
    Box,
    Crowd,
    Embedding,
    Face,
    Landmarks,
    Match,
    OperatingPoint,
    Quality,
    RecognizedFace,
)

BUNDLES = [name for name in bundle_ids() if bundle(name).operating_points]
DETECTED = Face(Box(0, 0, 50, 50), Landmarks(np.zeros((5, 2), np.float32)), 0.99)


def seen(*vector: float) -> RecognizedFace:
    unit = np.array(vector, np.float32) / np.linalg.norm(vector)
    return RecognizedFace(DETECTED, Quality(1.0), Embedding(unit, "c"))


FACE = seen(1, 0, 0)


def measured(*rows: tuple[float, float, float]) -> list[OperatingPoint]:
    return [OperatingPoint(threshold, fmr, fnmr, "a test", "c") for fmr, threshold, fnmr in rows]


POINTS = measured((0.1, 0.5, 0.01), (0.001, 0.7, 0.1), (0.01, 0.6, 0.03))


# ------------------------------------------------------------------------------ one to one


@pytest.mark.parametrize("name", BUNDLES)
def test_exact_where_measured(name: str) -> None:
    points = bundle(name).operating_points
    for point in points:
        found = operating_point(points, point.fmr, point.contract)
        assert found.threshold == pytest.approx(point.threshold, abs=1e-9)
        assert found.fnmr == pytest.approx(point.fnmr, abs=1e-9)
        assert found.fmr == pytest.approx(point.fmr)
        assert (found.protocol, found.contract) == (point.protocol, point.contract)


def test_between_points_straight_in_the_logarithm() -> None:
    found = operating_point(POINTS, 10**-2.5, "c")
    assert found.threshold == pytest.approx(0.65)
    assert found.fnmr == pytest.approx(0.065)
    assert found.fmr == 10**-2.5


@pytest.mark.parametrize("name", BUNDLES)
@given(a=st.floats(5e-6, 0.99), b=st.floats(5e-6, 0.99))
def test_stricter_rate_never_lowers_the_threshold(name: str, a: float, b: float) -> None:
    points = bundle(name).operating_points
    low, high = sorted((a, b))
    strict, lax = (operating_point(points, fmr, "c") for fmr in (low, high))
    assert strict.threshold >= lax.threshold
    assert strict.fnmr >= lax.fnmr
    assert lax.fmr <= high  # never laxer than asked


def test_below_the_measured_range_is_refused() -> None:
    with pytest.raises(mien.NoOperatingPoint, match=r"down to 0\.001") as caught:
        operating_point(POINTS, 1e-4, "c")
    assert (caught.value.contract, caught.value.fmr, caught.value.lowest) == ("c", 1e-4, 1e-3)


@pytest.mark.parametrize("fmr", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_no_rate(fmr: float) -> None:
    with pytest.raises(mien.InputError):
        operating_point(POINTS, fmr, "c")
    with pytest.raises(mien.InputError):
        identification_point(POINTS, fmr, 10, "c")


def test_never_measured() -> None:
    for ask in (operating_point, lambda p, r, c: identification_point(p, r, 10, c)):
        with pytest.raises(mien.NoOperatingPoint, match="no measured thresholds") as caught:
            ask([], 1e-3, "c")
        assert caught.value.lowest is None
    with pytest.raises(mien.NoOperatingPoint):
        impostor_rate([], 0.5)


def test_a_threshold_accepts_scores_that_reach_it() -> None:
    point = POINTS[0]
    assert point.accepts(0.5)
    assert point.accepts(1.0)
    assert not point.accepts(np.nextafter(0.5, 0))


@pytest.mark.parametrize("name", BUNDLES)
def test_impostor_rate_inverts_the_table(name: str) -> None:
    points = bundle(name).operating_points
    for point in points:
        assert impostor_rate(points, point.threshold) == pytest.approx(point.fmr)
    assert impostor_rate(points, 1.0) == pytest.approx(min(p.fmr for p in points))
    assert impostor_rate(points, -1.0) == pytest.approx(max(p.fmr for p in points))


# ------------------------------------------------------------------------------ one to many


@given(fpir=st.floats(1e-9, 0.999), size=st.integers(1, 10**8))
def test_rates_are_inverse(fpir: float, size: int) -> None:
    fmr = fmr_for(fpir, size)
    assert 0 < fmr <= fpir * (1 + 1e-12)
    assert fpir_for(fmr, size) == pytest.approx(fpir, rel=1e-6)


def test_rates_known() -> None:
    assert fmr_for(0.01, 1) == pytest.approx(0.01)
    assert fpir_for(0.5, 2) == pytest.approx(0.75)
    assert fmr_for(0.01, 1000) == pytest.approx(1.00503e-5, rel=1e-4)
    assert fmr_for(0.01, 0) == fmr_for(0.01, 1)  # nobody enrolled: no rate to share out


@pytest.mark.parametrize("name", BUNDLES)
@given(
    fpir=st.floats(1e-6, 0.5), size=st.integers(1, 10**7), more=st.integers(1, 100),
    stricter=st.floats(0.01, 1),
)  # fmt: skip
def test_larger_galleries_and_lower_rates_are_stricter(
    name: str, fpir: float, size: int, more: int, stricter: float
) -> None:
    points = bundle(name).operating_points
    point = identification_point(points, fpir, size, "c")
    slack = 1e-12
    assert identification_point(points, fpir, size * more, "c").threshold >= point.threshold - slack
    assert (
        identification_point(points, fpir * stricter, size, "c").threshold
        >= point.threshold - slack
    )
    assert point.threshold <= 1
    assert ("extrapolated" in point.protocol) == (point.fmr < points[-1].fmr * (1 - 1e-9))


@pytest.mark.parametrize("name", BUNDLES)
def test_extrapolation_continues_where_measurement_ends(name: str) -> None:
    points = bundle(name).operating_points
    strictest = min(points, key=lambda point: point.fmr)
    size = 1000
    at = identification_point(points, fpir_for(strictest.fmr, size), size, "c")
    beyond = identification_point(points, fpir_for(strictest.fmr / 1.01, size), size, "c")
    assert at.threshold == pytest.approx(strictest.threshold, abs=1e-6)
    assert 0 < beyond.threshold - at.threshold < 1e-3
    assert beyond.fnmr == strictest.fnmr
    assert "extrapolated below FMR" in beyond.protocol
    assert strictest.protocol in beyond.protocol


def test_one_point_cannot_be_extended() -> None:
    """With a single measured rate there is no slope: only a perfect score is trusted below it."""
    point = identification_point(measured((0.01, 0.6, 0.03)), 0.01, 100, "c")
    assert point.threshold == 1.0


BARE = replace(bundle("embedded"), operating_points=tuple(POINTS), contract="c", crowd=None)


def candidates(*scores: float) -> list[Match]:
    return [Match(f"p{number}", number, score) for number, score in enumerate(scores)]


def test_identify() -> None:
    def ask(*scores: float, size: int = 10) -> mien.Identification:
        return identify(FACE, candidates(*scores), BARE, fpir=0.01, gallery_size=size)

    named = ask(0.71, 0.69)
    assert named.subject == "p0"
    assert (named.score, named.gallery_size, named.fpir) == (0.71, 10, 0.01)
    assert [match.subject for match in named.candidates] == ["p0", "p1"]
    assert named.operating_point.fmr == pytest.approx(fmr_for(0.01, 10))
    threshold = named.operating_point.threshold
    assert ask(threshold).subject == "p0"
    unknown = ask(np.nextafter(threshold, 0), 0.1)
    assert unknown.subject is None
    assert unknown.score < threshold
    assert len(unknown.candidates) == 2
    assert ask(0.71, size=10**6).subject is None  # the same score in a large gallery
    nobody = ask(size=0)
    assert (nobody.subject, nobody.score, nobody.candidates) == (None, -1.0, ())


# ------------------------------------------------------------------------------ the crowd

CROWD = Crowd(
    np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0]], np.float32),
    share=0.5, usual=0.6, operating_points=tuple(measured((0.1, 0.4, 0.01), (0.001, 0.6, 0.05))),
)  # fmt: skip


def test_a_face_is_held_against_the_two_nearest_groups() -> None:
    probes = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    assert nearness(CROWD.centres, probes) == pytest.approx([0.95, 0.55, 0.0])
    assert nearness(CROWD.centres[:1], probes) == pytest.approx([1, 0, 0])
    assert demand(CROWD, probes) == pytest.approx([0.175, 0, 0])


def test_whoever_resembles_many_needs_more() -> None:
    known = replace(BARE, crowd=CROWD)
    common, rare = seen(1, 0, 0), seen(0, 0, 1)
    usual = identification_point(CROWD.operating_points, 0.01, 10, "c").threshold
    for face in (common, rare):
        point = search_point(known, face.embedding, 0.01, 10)
        more = demanded(known, face.embedding)
        assert point.threshold == pytest.approx(usual + more)
        named = identify(face, candidates(point.threshold), known, fpir=0.01, gallery_size=10)
        assert (named.subject, named.score) == ("p0", point.threshold)  # a score is the cosine
        below = candidates(float(np.nextafter(point.threshold, 0)))
        assert identify(face, below, known, fpir=0.01, gallery_size=10).subject is None
    assert demanded(known, common.embedding) > 0
    assert demanded(known, rare.embedding) == 0  # nobody gets by with less than is usual
    assert search_point(known, common.embedding, 1e-9, 10**6).threshold == 1.0


def test_without_a_crowd_all_need_the_same() -> None:
    assert demanded(BARE, FACE.embedding) == 0
    assert search_point(BARE, FACE.embedding, 0.01, 10) == identification_point(
        POINTS, 0.01, 10, "c"
    )
    assert BARE.search_points == tuple(POINTS)


@pytest.mark.parametrize("name", [name for name in BUNDLES if bundle(name).crowd])
def test_the_crowd_on_a_card_is_nobody_and_helps(name: str) -> None:
    """Centres are means, so shorter than any embedding; at each rate its thresholds miss less."""
    made = bundle(name)
    assert made.crowd is not None
    lengths = np.linalg.norm(made.crowd.centres, axis=1)
    assert len(lengths) > 20
    assert (lengths < 0.995).all()
    strict = [p.fmr for p in made.crowd.operating_points if p.fmr <= 1e-3]
    assert len(strict) > 3
    for fmr in strict:
        alone = operating_point(made.operating_points, fmr, made.contract)
        together = operating_point(made.crowd.operating_points, fmr, made.contract)
        assert together.fnmr < alone.fnmr


# ------------------------------------------------------------------------------ the promise

# Scores of strangers from a known law, the logistic one: a straight tail in log(FMR), as assumed.
MIDDLE, WIDTH = 0.83, 0.01


def true_threshold(fmr: float) -> float:
    return MIDDLE + WIDTH * float(np.log((1 - fmr) / fmr))


@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize("fpir", [0.1, 0.01])
def test_strangers_are_named_no_more_often_than_promised(fpir: float, size: int) -> None:
    """Points measured down to 1e-4; the larger galleries need rates far below that."""
    points = measured(
        *((fmr, true_threshold(fmr), 0.0) for fmr in np.geomspace(1e-4, 0.1, 12).tolist())
    )
    threshold = identification_point(points, fpir, size, "c").threshold
    probes, named = 20_000, 0
    rng = np.random.default_rng(size)
    for _ in range(probes // 1000):
        best = rng.logistic(MIDDLE, WIDTH, (1000, size)).max(axis=1)
        named += int((best >= threshold).sum())
    mean, deviation = fpir * probes, (fpir * (1 - fpir) * probes) ** 0.5
    assert named <= mean + 2.58 * deviation
    assert named >= mean / 2  # and no stricter than it has to be


def test_correcting_for_the_gallery_is_what_keeps_the_promise() -> None:
    """The one-to-one threshold at the same rate would name most strangers."""
    points = measured(
        *((fmr, true_threshold(fmr), 0.0) for fmr in np.geomspace(1e-4, 0.1, 12).tolist())
    )
    naive = operating_point(points, 0.01, "c").threshold
    best = np.random.default_rng(0).logistic(MIDDLE, WIDTH, (2000, 1000)).max(axis=1)
    assert (best >= naive).mean() > 0.9


def test_points_in_any_order() -> None:
    shuffled = [POINTS[1], POINTS[0], POINTS[2]]
    for fmr in (0.5, 0.1, 0.03, 0.001):
        assert operating_point(POINTS, fmr, "c") == operating_point(shuffled, fmr, "c")
    assert replace(POINTS[0]) == POINTS[0]
