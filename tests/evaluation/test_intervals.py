import numpy as np
import pytest

from mien.errors import InputError
from mien.evaluation import curves, intervals
from mien.evaluation.curves import Tally, curve


def people_scores(
    seed: int, people: int = 60, each: int = 3, habit: float = 0.15
) -> tuple[np.ndarray, ...]:
    """Scores of pairs whose people have habits, so that those of one person resemble each other."""
    rng = np.random.default_rng(seed)
    person = rng.normal(0, habit, people)
    a = np.repeat(np.arange(people), each)
    genuine = 0.6 + person[a] + rng.normal(0, 0.1, a.size)
    first = rng.integers(0, people, people * each)
    second = (first + rng.integers(1, people, first.size)) % people
    impostor = 0.2 + (person[first] + person[second]) / 2 + rng.normal(0, 0.1, first.size)
    return genuine, a, impostor, first, second


def test_wilson_known_values() -> None:
    none = intervals.wilson(0, 100)
    assert none.low == 0
    assert none.high == pytest.approx(0.0370, abs=1e-4)
    half = intervals.wilson(50, 100)
    assert half.low == pytest.approx(0.4038, abs=1e-4)
    assert half.high == pytest.approx(0.5962, abs=1e-4)
    with pytest.raises(InputError, match="nothing"):
        intervals.wilson(0, 0)


def test_replicates_equal_a_naive_bootstrap() -> None:
    genuine, a, impostor, first, second = people_scores(0, people=8)
    scores = np.concatenate([genuine, impostor])
    same = np.arange(scores.size) < genuine.size
    ends = np.concatenate([a, first]), np.concatenate([a, second])
    got = intervals.verification_intervals(scores, same, *ends, [0.1], replicates=40, seed=3)
    drawn = intervals.multiplicities(8, 40, 3)
    areas, crossings, tars = [], [], []
    for row in drawn:
        if not row[a].sum() or not (row[first] * row[second]).sum():
            continue
        rates = curve(genuine, impostor, row[a], row[first] * row[second])
        areas.append(curves.auc(rates))
        crossings.append(curves.eer(rates))
        tars.append(1 - rates.fnmr[np.argmax(rates.fmr <= 0.1 + 1e-12)])
    for interval, values in (
        (got.auc, areas),
        (got.eer, crossings),
        (got.tar_at_far["1e-1"], tars),
    ):
        low, high = np.percentile(values, [2.5, 97.5])
        assert interval.low == pytest.approx(low, abs=1e-9)
        assert interval.high == pytest.approx(high, abs=1e-9)


def test_people_resampled_cover_the_truth_where_pairs_resampled_do_not() -> None:
    threshold = 0.5
    genuine, a, *_ = people_scores(99, people=20_000)
    truth = float((genuine < threshold).mean())
    by_person = by_pair = 0
    trials = 80
    for seed in range(trials):
        genuine, a, *_ = people_scores(seed, people=60, each=10)
        wrong = genuine < threshold
        by_person += truth in intervals.share_interval(wrong, a, replicates=300)
        by_pair += truth in intervals.wilson(float(wrong.sum()), wrong.size)
    assert by_person >= 0.88 * trials
    assert by_pair <= 0.8 * trials


def test_impostor_rates_cover_the_truth() -> None:
    threshold = 0.4
    *_, impostor, first, second = people_scores(99, people=40_000)
    truth = float((impostor >= threshold).mean())
    hits = 0
    for seed in range(60):
        *_, impostor, first, second = people_scores(seed, people=80, each=8)
        hits += truth in intervals.share_interval(
            impostor >= threshold, first, second, replicates=300
        )
    assert hits >= 53


def test_no_errors_still_have_an_upper_bound() -> None:
    interval = intervals.share_interval(np.zeros(1000), np.repeat(np.arange(100), 10))
    assert interval.low == 0
    assert interval.high == pytest.approx(intervals.wilson(0, 100).high)


def test_tally_intervals_agree_with_those_of_pairs() -> None:
    genuine, a, impostor, first, second = people_scores(5, people=150, each=8, habit=0.05)
    good, bad = Tally(150), Tally(150)
    good.add(genuine.clip(-1, 1), subjects=(a,))
    bad.add(impostor.clip(-1, 1), subjects=(first, second))
    quick = intervals.tally_intervals(good, bad, [1e-1, 1e-2])
    scores = np.concatenate([genuine, impostor]).clip(-1, 1)
    same = np.arange(scores.size) < genuine.size
    ends = np.concatenate([a, first]), np.concatenate([a, second])
    exact = intervals.verification_intervals(scores, same, *ends, [1e-1, 1e-2])
    for ours, theirs in ((quick.eer, exact.eer), (quick.auc, exact.auc)):
        width = theirs.high - theirs.low
        assert ours.low == pytest.approx(theirs.low, abs=0.2 * width)
        assert ours.high == pytest.approx(theirs.high, abs=0.2 * width)
    with pytest.raises(InputError, match="without subjects"):
        intervals.tally_intervals(Tally(), Tally(), [0.1])


def test_the_same_seed_gives_the_same_interval() -> None:
    genuine, a, *_ = people_scores(1)
    first, second, other = (
        intervals.share_interval(genuine < 0.5, a, seed=seed) for seed in (0, 0, 1)
    )
    assert first == second != other
