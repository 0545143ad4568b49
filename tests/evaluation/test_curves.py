import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from mien.errors import InputError
from mien.evaluation import curves
from mien.evaluation.curves import Tally, curve

Floats = NDArray[np.float64]

# Few distinct values, so that ties are common.
score_lists = st.lists(st.integers(-8, 8).map(lambda k: k / 8), min_size=1, max_size=30)


def sample(seed: int, genuine: int = 400, impostors: int = 600) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return (
        np.round(rng.normal(0.5, 0.2, genuine).clip(-1, 1), 2),
        np.round(rng.normal(0.0, 0.2, impostors).clip(-1, 1), 2),
    )


@given(score_lists, score_lists, st.floats(-1.2, 1.2))
def test_rates_equal_counting(genuine: list[float], impostor: list[float], at: float) -> None:
    rates = curve(genuine, impostor)
    for threshold in (at, *genuine, *impostor):
        fmr, fnmr = curves.rates_at(rates, threshold)
        assert fmr == pytest.approx(sum(s >= threshold for s in impostor) / len(impostor))
        assert fnmr == pytest.approx(sum(s < threshold for s in genuine) / len(genuine))


@given(score_lists, score_lists, st.data())
def test_weights_are_repetitions(
    genuine: list[float], impostor: list[float], data: st.DataObject
) -> None:
    def counts(scores: list[float]) -> list[int]:
        size = len(scores)
        return data.draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))

    g, i = counts(genuine), counts(impostor)
    weighted = curve(genuine, impostor, g, i)
    repeated = curve(np.repeat(genuine, g), np.repeat(impostor, i))
    assert np.array_equal(weighted.thresholds, repeated.thresholds)
    np.testing.assert_allclose(weighted.fmr, repeated.fmr, atol=1e-12)
    np.testing.assert_allclose(weighted.fnmr, repeated.fnmr, atol=1e-12)


@given(score_lists, score_lists)
def test_auc_is_how_often_a_genuine_score_wins(genuine: list[float], impostor: list[float]) -> None:
    wins = np.mean([(g > i) + (g == i) / 2 for g in genuine for i in impostor])
    assert curves.auc(curve(genuine, impostor)) == pytest.approx(wins)


@given(score_lists, score_lists)
def test_eer_lies_between_the_rates_around_the_crossing(
    genuine: list[float], impostor: list[float]
) -> None:
    rates = curve(genuine, impostor)
    value = curves.eer(rates)
    assert np.max(np.minimum(rates.fmr, rates.fnmr)) - 1e-12 <= value
    assert value <= np.min(np.maximum(rates.fmr, rates.fnmr)) + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_as_scikit_learn(seed: int) -> None:
    genuine, impostor = sample(seed)
    truth = np.repeat([1, 0], [genuine.size, impostor.size])
    scores = np.concatenate([genuine, impostor])
    rates = curve(genuine, impostor)
    assert curves.auc(rates) == pytest.approx(metrics.roc_auc_score(truth, scores))
    fpr, tpr, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
    fmr, fnmr = curves.rates_at(rates, thresholds[1:])
    np.testing.assert_allclose(fmr, fpr[1:])
    np.testing.assert_allclose(1 - fnmr, tpr[1:])
    got = curves.decide(scores, truth, 0.25)
    said = scores >= 0.25
    assert got.accuracy == pytest.approx(metrics.accuracy_score(truth, said))
    assert got.precision == pytest.approx(metrics.precision_score(truth, said))
    assert got.recall == pytest.approx(metrics.recall_score(truth, said))
    assert got.f1 == pytest.approx(metrics.f1_score(truth, said))
    fpr, fnr, _ = metrics.det_curve(truth, scores)
    cross = np.argmin(np.abs(fpr - fnr))
    assert curves.eer(rates) == pytest.approx((fpr[cross] + fnr[cross]) / 2, abs=0.01)


@given(score_lists, score_lists, st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0]))
def test_threshold_is_the_lowest_that_keeps_the_rate(
    genuine: list[float], impostor: list[float], rate: float
) -> None:
    rates = curve(genuine, impostor)
    if len(impostor) * rate < 1 - 1e-9:
        with pytest.raises(InputError, match="needs at least"):
            curves.threshold_at(rates, rate)
        return
    threshold = curves.threshold_at(rates, rate)
    allowed = [t for t in rates.thresholds if sum(s >= t for s in impostor) <= rate * len(impostor)]
    assert threshold == min(allowed)


def test_a_rate_without_evidence_is_refused_not_guessed() -> None:
    rates = curve(*sample(0))
    assert curves.tars(rates, [1e-2, 1e-3])["1e-3"] is None
    assert curves.tars(rates, [1e-2])["1e-2"] is not None
    with pytest.raises(InputError, match="1,000 impostor comparisons; there are 600"):
        curves.tar_at_far(rates, 1e-3)
    assert curves.supports(rates, 0.05, wrong=30)
    assert not curves.supports(rates, 0.04, wrong=30)


@given(score_lists, st.data())
def test_best_threshold_has_the_best_accuracy(scores: list[float], data: st.DataObject) -> None:
    same = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    if all(same) or not any(same):
        with pytest.raises(InputError, match="no threshold can be chosen"):
            curves.best_threshold(scores, same)
        return
    got = curves.decide(scores, same, curves.best_threshold(scores, same)).accuracy
    every = [curves.decide(scores, same, t).accuracy for t in (*scores, 2.0)]
    assert got == pytest.approx(max(every))


def test_d_prime_of_known_distributions() -> None:
    rng = np.random.default_rng(0)
    assert curves.d_prime(rng.normal(2, 1, 100_000), rng.normal(0, 1, 100_000)) == pytest.approx(
        2, abs=0.02
    )
    with pytest.raises(InputError, match="not defined"):
        curves.d_prime([1.0, 1.0], [0.0, 0.0])


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [float("inf")]])
def test_no_rate_of_nothing_and_of_what_is_not_a_number(bad: list[float]) -> None:
    for arguments in ((bad, [0.1]), ([0.1], bad)):
        with pytest.raises(InputError, match="scores"):
            curve(*arguments)


def test_weights_that_make_no_sense() -> None:
    for weights in ([1.0], [1.0, -1.0], [1.0, float("nan")], [0.0, 0.0]):
        with pytest.raises(InputError, match="weight"):
            curve([0.1, 0.2], [0.3], genuine_weights=weights)


def test_names_of_rates() -> None:
    assert [curves.name(rate) for rate in (0.1, 1e-3, 5e-6)] == ["1e-1", "1e-3", "5e-6"]


@settings(deadline=None)
@given(score_lists, score_lists)
def test_a_tally_is_the_curve_of_rounded_scores(
    genuine: list[float], impostor: list[float]
) -> None:
    good, bad = Tally(), Tally()
    for chunk in np.array_split(np.array(genuine, np.float32), 3):
        good.add(chunk)
    bad.add(np.array(impostor, np.float32))
    got, expected = curves.tally_curve(good, bad), curve(genuine, impostor)
    for threshold in {*genuine, *impostor} - {1.0}:  # eighths are exact in the bins
        for ours, theirs in zip(
            curves.rates_at(got, threshold), curves.rates_at(expected, threshold), strict=True
        ):
            assert ours == pytest.approx(float(theirs))
    clipped = curve(np.minimum(genuine, 1 - 5e-6), np.minimum(impostor, 1 - 5e-6))
    assert curves.auc(got) == pytest.approx(curves.auc(clipped))
    assert got.impostors == len(impostor)


def test_a_tally_refuses_what_is_not_a_number() -> None:
    with pytest.raises(InputError, match="not a number"):
        Tally().add(np.array([0.1, np.nan], np.float32))
    with pytest.raises(InputError, match="at least one"):
        curves.tally_curve(Tally(), Tally())
