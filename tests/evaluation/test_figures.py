"""Detection, classification, calibration and verification figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mien import decision
from mien.errors import InputError
from mien.evaluation import calibration, classification, detection, verification
from mien.evaluation.curves import rates_at, tally_curve
from mien.evaluation.protocols import Pairs, People, Picture
from mien.evaluation.vectors import Vectors
from mien.evaluation.wider import Scene
from mien.types import OperatingPoint

# -------------------------------------------------------------------------------------- detection


def scene(boxes: list[tuple[float, ...]], counts: list[bool]) -> Scene:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Scene(Picture("x", b""), array, np.array(counts, bool))


def found(boxes: list[tuple[float, ...]], scores: list[float]) -> detection.Detections:
    return detection.Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    )


A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def test_rules_of_matching() -> None:
    running, proposal = detection.match(
        scene([A, B], [True, False]), found([A, C, A, B], [0.9, 0.8, 0.7, 0.6])
    )
    assert running.tolist() == [1, 1, 1, 1]  # the second detection of A finds nothing new
    assert proposal.tolist() == [True, True, True, False]  # B is to be ignored


def test_average_precision_by_hand() -> None:
    one = detection.average_precision(
        [scene([A, B], [True, True]), scene([], [])],
        [found([A, B], [1.0, 0.4]), found([C], [0.7])],
    )
    # in order: right (P 1, R .5), wrong, right (P 2/3, R 1)
    assert one.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=0.002)
    assert one.faces == 2
    assert one.ap in one.interval


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_average_precision_as_scikit_learn_ranks(seed: int) -> None:
    """Boxes that are right or wrong beyond doubt: AP is that of the ranking, but for recall."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(1000)[:60] / 1000
    truth = rng.random(60) < 0.6
    scenes, items = [], []
    for score, right in zip(scores, truth, strict=True):
        scenes.append(scene([A], [True]) if right else scene([], []))
        items.append(found([A], [score]))
    if not truth.any():
        return
    got = detection.average_precision(scenes, items)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    envelope = np.maximum.accumulate(precision)
    assert got.ap == pytest.approx(float(-np.sum(np.diff(recall) * envelope[:-1])), abs=0.01)


def test_detection_without_faces_or_finds() -> None:
    with pytest.raises(InputError, match="no annotated face counts"):
        detection.average_precision([scene([A], [False])], [found([A], [1.0])])
    assert detection.average_precision([scene([A], [True])], [found([], [])]).ap == 0


# --------------------------------------------------------------------------------- classification


def test_classification_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    said = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 4, 300))
    got = classification.classify(truth, said, ("a", "b", "c", "d"))
    expected = metrics.precision_recall_fscore_support(truth, said)
    for ours, theirs in zip(
        (got.precision, got.recall, got.f1, got.support), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs)
    assert got.accuracy == pytest.approx(metrics.accuracy_score(truth, said))
    assert got.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    np.testing.assert_array_equal(got.matrix[:, :4], metrics.confusion_matrix(truth, said))
    assert got.accuracy in got.accuracy_interval


def test_no_answer_is_a_wrong_answer() -> None:
    got = classification.classify([0, 0, 1], [0, -1, -1], ("a", "b"))
    assert got.accuracy == pytest.approx(1 / 3)
    assert got.matrix.tolist() == [[1, 0, 1], [0, 0, 1]]
    assert got.recall.tolist() == [0.5, 0.0]


@pytest.mark.parametrize(("truth", "said"), [([], []), ([2], [0]), ([0], [2]), ([0, 1], [0])])
def test_classes_that_do_not_exist(truth: list[int], said: list[int]) -> None:
    with pytest.raises(InputError):
        classification.classify(truth, said, ("a", "b"))


def test_nearest_mean() -> None:
    gallery = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 0]], np.float32)
    probes = np.array([[0.9, 0.1], [0, 1], [0, 0]], np.float32)
    said = classification.nearest(gallery, np.array([0, 0, 1, 2]), probes, 3)
    assert said.tolist() == [0, 1, -1]  # the third class has nothing enrolled


# ------------------------------------------------------------------------------------ calibration


def group(seed: int, people: int = 40) -> tuple[People, Vectors]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, people)
    person = np.repeat(np.arange(people), sizes)
    rows = rng.normal(size=(people, 6))[person] + 0.6 * rng.normal(size=(person.size, 6))
    matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    matrix[3] = 0
    names = tuple(str(i) for i in range(people))
    pictures = tuple(Picture(str(i), b"") for i in range(person.size))
    return People("g", pictures, names, person), Vectors(matrix, {3: "no face"}, "c", 0)


def test_all_pairs_weigh_people_alike() -> None:
    people, vectors = group(0)
    rates = tally_curve(*calibration.all_pairs(people, vectors))
    threshold = 0.4
    by_people: dict[tuple[int, int], list[bool]] = {}
    count = people.person.size
    for i in range(count):
        for j in range(i + 1, count):
            score = float(vectors.matrix[i] @ vectors.matrix[j]) if 3 not in (i, j) else -1.0
            key = (int(people.person[i]), int(people.person[j]))
            by_people.setdefault(key, []).append(score >= threshold)
    fmr = np.mean([np.mean(v) for (a, b), v in by_people.items() if a != b])
    fnmr = np.mean([1 - np.mean(v) for (a, b), v in by_people.items() if a == b])
    got = [float(rate) for rate in rates_at(rates, threshold)]
    assert got == pytest.approx([fmr, fnmr], abs=1e-9)
    assert rates.impostors == 40 * 39 // 2


def test_thresholds_rest_on_thirty_pairs() -> None:
    rates = tally_curve(*calibration.all_pairs(*group(1)))
    points = calibration.operating_points(rates, "p", "c")
    assert [point.fmr for point in points] == [0.1, 0.05]  # 780 pairs of people
    for point in points:
        assert rates_at(rates, point.threshold)[0] <= point.fmr
    same = calibration.check(points, rates)
    assert [item.fnmr for item in same] == [point.fnmr for point in points]
    few = tally_curve(*calibration.all_pairs(*group(1, people=12)))
    with pytest.raises(InputError, match="too few"):
        calibration.operating_points(few, "p", "c")


def test_intervals_of_all_pairs() -> None:
    from mien.evaluation.intervals import tally_intervals

    genuine, impostor = calibration.all_pairs(*group(2), by_subject=True)
    bounds = tally_intervals(genuine, impostor, [0.1])
    rates = tally_curve(genuine, impostor)
    assert 1 - float(rates_at(rates, 0.0)[1]) <= 1
    from mien.evaluation.curves import auc, eer

    assert auc(rates) in bounds.auc
    assert eer(rates) in bounds.eer


def scores_of(seed: int, count: int = 2000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 0.15, count).clip(-1, 1), rng.normal(0.1, 0.15, count).clip(-1, 1)


def test_a_threshold_of_ones_own_pairs() -> None:
    genuine, impostor = scores_of(0, 5000)
    point = decision.fit_threshold(genuine, impostor, 1e-2, "c")
    assert (impostor >= point.threshold).sum() == 50
    assert point.fnmr == (genuine < point.threshold).mean()
    fresh = scores_of(1, 100_000)[1]
    assert (fresh >= point.threshold).mean() == pytest.approx(1e-2, rel=0.4)


def test_ties_never_break_the_promise() -> None:
    point = decision.fit_threshold([0.9], [0.5] * 50 + [0.1] * 50, 0.4, "c")
    assert point.threshold > 0.5
    point = decision.fit_threshold([0.9], [0.5] * 50 + [0.1] * 50, 0.5, "c")
    assert 0.1 < point.threshold <= 0.5


def test_a_threshold_needs_evidence() -> None:
    genuine, impostor = scores_of(0)
    with pytest.raises(
        InputError, match=r"needs 30,000 pairs of different people, there are 2,000"
    ):
        decision.fit_threshold(genuine, impostor, 1e-3, "c")
    assert decision.fit_threshold(genuine, impostor, 1e-3, "c", evidence=2).fmr == 1e-3
    for bad in ([], [np.nan], [np.inf]):
        with pytest.raises(InputError, match="finite"):
            decision.fit_threshold(bad, impostor, 0.1, "c")
    with pytest.raises(InputError, match="between 0 and 1"):
        decision.fit_threshold(genuine, impostor, 0.0, "c")


def test_logistic_calibration_as_scikit_learn() -> None:
    genuine, impostor = scores_of(2)
    fitted = decision._logistic(genuine, impostor)
    model = LogisticRegression(C=np.inf, tol=1e-10, class_weight="balanced").fit(
        np.concatenate([genuine, impostor])[:, None], np.repeat([1, 0], 2000)
    )
    grid = np.linspace(-1, 1, 50)
    expected = model.decision_function(grid[:, None])
    np.testing.assert_allclose(fitted.llr(grid), expected, rtol=1e-3, atol=1e-3)
    # of two normal distributions of equal width, the truth is a straight line
    np.testing.assert_allclose(fitted.llr(0.3), 0, atol=0.3)
    assert fitted.llr(0.5) == pytest.approx((0.5 - 0.3) * 0.4 / 0.15**2, rel=0.15)


def test_isotonic_calibration_as_scikit_learn() -> None:
    genuine, impostor = (np.round(scores, 2) for scores in scores_of(3, 3000))
    fitted = decision._isotonic(genuine, impostor)
    model = IsotonicRegression(y_min=0, y_max=1).fit(
        np.concatenate([genuine, impostor]), np.repeat([1.0, 0.0], 3000)
    )
    grid = np.linspace(0.1, 0.5, 30)
    np.testing.assert_allclose(fitted.probability(grid), model.predict(grid), atol=0.05)
    assert np.all(np.diff(fitted.llrs) >= 0)


def test_calibration_picks_what_is_better_on_held_out_scores() -> None:
    assert decision.fit_calibration(*scores_of(4, 2000)).method == "logistic"
    rng = np.random.default_rng(0)

    def two_levels(share: float) -> NDArray[np.float64]:
        """Scores that say which half they are in, and nothing beyond."""
        return rng.random(4000) * np.where(rng.random(4000) < share, 1, -1)

    fitted = decision.fit_calibration(two_levels(0.9), two_levels(0.1))
    assert fitted.method == "isotonic"
    assert fitted.llr(0.5) == pytest.approx(np.log(9), abs=0.3)
    assert fitted.llr(-0.5) == pytest.approx(-np.log(9), abs=0.3)


def test_probabilities_are_probabilities() -> None:
    fitted = decision.fit_calibration(*scores_of(5))
    values = fitted.probability(np.linspace(-1, 1, 99))
    assert ((values >= 0) & (values <= 1)).all()
    assert np.all(np.diff(values) >= 0)
    assert fitted.probability(0.5, prior=0.01) < fitted.probability(0.5)
    with pytest.raises(InputError, match="prior"):
        fitted.probability(0.5, prior=1.0)
    with pytest.raises(InputError, match="at least 5"):
        decision.fit_calibration([0.1] * 4, [0.2] * 9)


def test_perfectly_parted_scores_stay_finite() -> None:
    fitted = decision.fit_calibration(np.linspace(0.8, 0.9, 20), np.linspace(0.1, 0.2, 20))
    assert np.isfinite(fitted.llr([-1, 0, 1])).all()
    assert fitted.probability(0.9) > 0.9
    assert fitted.probability(0.1) < 0.1


def test_cllr_of_what_says_nothing_and_of_what_misleads() -> None:
    assert decision.cllr([0.0] * 9, [0.0] * 5) == pytest.approx(1)
    assert decision.cllr([20.0], [-20.0]) == pytest.approx(0, abs=1e-6)
    assert decision.cllr([-5.0], [5.0]) > 5


def test_reliability_of_honest_probabilities() -> None:
    genuine, impostor = scores_of(6, 5000)
    scores = np.concatenate([genuine, impostor])
    same = np.arange(scores.size) < genuine.size
    fold = np.arange(scores.size) % 5
    measured = calibration.reliability(scores, same, fold)
    assert measured is not None
    assert measured.ece < 0.02
    assert measured.count.sum() == scores.size
    filled = measured.count > 100
    assert (np.abs(measured.stated - measured.share)[filled] < 0.1).all()
    assert 0.1 < measured.cllr < 0.5
    assert calibration.reliability(scores[4960:], same[4960:], fold[4960:]) is None


# ----------------------------------------------------------------------------------- verification


def pairs_of(
    same: NDArray[np.bool_], fold: NDArray[np.int64] | None = None, **columns: object
) -> Pairs:
    count = same.size
    index = np.arange(count)
    return Pairs(
        "made up", tuple(Picture(str(i), b"") for i in range(2 * count)), 2 * index, 2 * index + 1,
        same, index, np.where(same, index, count + index), fold,
        {key: tuple(map(str, values)) for key, values in columns.items()},
    )  # fmt: skip


def test_ten_fold_accuracy_by_hand() -> None:
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.5
    scores = np.where(same, 0.6, 0.4) + rng.normal(0, 0.1, 400)
    fold = np.arange(400) // 40
    got = verification.cross_validated(pairs_of(same, fold), scores)
    rights = []
    for number in range(10):
        others, mine = fold != number, fold == number
        best = max(
            np.unique(scores[others]), key=lambda t: ((scores[others] >= t) == same[others]).mean()
        )
        rights.append(((scores[mine] >= best) == same[mine]).mean())
    assert got.mean == pytest.approx(np.mean(rights), abs=0.011)
    assert got.stderr == pytest.approx(np.std(got.folds, ddof=1) / np.sqrt(10))
    assert got.interval.low < got.mean < got.interval.high


def test_folds_are_drawn_where_there_are_none() -> None:
    same = np.arange(200) % 2 == 0
    scores = np.where(same, 0.9, 0.1) + np.linspace(0, 0.01, 200)
    got = verification.cross_validated(pairs_of(same), scores)
    assert len(got.folds) == 10
    assert got.mean == 1
    assert got.interval.low < 1  # no errors seen is not no errors


def test_folds_that_cannot_be_used() -> None:
    same = np.array([True, False] * 10)
    scores = np.linspace(0, 1, 20)
    with pytest.raises(InputError, match="fold 1 is empty"):
        pairs_of(same, np.where(np.arange(20) < 10, 0, 2))
    with pytest.raises(InputError, match="has one fold"):
        verification.cross_validated(pairs_of(same, np.zeros(20, np.int64)), scores)
    with pytest.raises(InputError, match="all comparisons are impostor"):
        verification.cross_validated(pairs_of(same, np.where(same, 0, 1)), scores)


def test_failed_pairs_count_as_non_matches() -> None:
    same = np.array([True, False] * 50)
    scores = np.where(same, 0.9, 0.1) + np.linspace(0, 0.01, 100)
    scores[:10] = -1.0
    pairs = pairs_of(same)
    point = OperatingPoint(0.5, 0.1, 0.0, "p", "c")
    got = verification.measure(pairs, scores, verification.cross_validated(pairs, scores), [point])
    assert got.failed == 10
    assert got.kept[0].fnmr == pytest.approx(0.1)
    assert got.kept[0].fmr == 0
    assert got.accuracy.mean == pytest.approx(0.95)
    assert got.d_prime is not None
    assert got.d_prime > 50  # failures have no place in a mean
    shown = verification.summary(got, 7)
    assert shown["failure_to_enrol"] == 7
    assert shown["n_pairs"] == 100


def test_scores_that_do_not_fit() -> None:
    pairs = pairs_of(np.array([True, False] * 20))
    accuracy = verification.at_threshold(pairs, np.linspace(0, 1, 40), 0.5)
    with pytest.raises(InputError, match="39 scores for the 40 pairs"):
        verification.measure(pairs, np.linspace(0, 1, 39), accuracy)
    with pytest.raises(InputError, match="score number 1 is nan"):
        verification.measure(pairs, np.array([0.1, np.nan] * 20), accuracy)


def test_slices_at_one_threshold() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(600) % 2 == 0
    age = np.where(np.arange(600) < 300, "old", "young")
    age[:4] = "rare"
    scores = np.where(same, 0.6, 0.3) + rng.normal(0, 0.1, 600) - 0.1 * (same & (age == "old"))
    pairs = pairs_of(same, None, age=age)
    old, rare, young = verification.slices(pairs, scores, "age", 0.45)
    inside = same & (age == "old")
    assert old.fnmr == pytest.approx((scores[inside] < 0.45).mean())
    assert old.fnmr_interval is not None
    assert old.fnmr in old.fnmr_interval
    assert old.fnmr > (young.fnmr or 0)
    assert (rare.fmr, rare.fnmr, rare.genuine) == (None, None, 2)
    assert verification.worst_to_best([old.fnmr, young.fnmr, None]) == pytest.approx(
        old.fnmr / (young.fnmr or 1)
    )
    assert verification.worst_to_best([0.0, 0.1]) is None
    with pytest.raises(InputError, match="no column 'sex'; there are: age"):
        verification.slices(pairs, scores, "sex", 0.45)
