"""What lets a threshold differ from face to face, and the cards it is kept on."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import mien
from mien import cards, decision
from mien.errors import InputError, ModelError
from mien.evaluation import calibration, card, runs
from mien.evaluation import identification as idn
from mien.evaluation.crowd import LEAST, centres_of, fit_crowd, measured
from mien.evaluation.curves import rates_at, tally_curve
from mien.evaluation.protocols import People, Picture
from mien.evaluation.vectors import Vectors
from mien.types import Crowd, OperatingPoint

BUNDLE = cards.bundle("embedded")
DIM = 24


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        np.float32
    )
    return made


def town(seed: int, people: int = 900, alike: float = 1.5) -> runs.Embedded:
    """Two people of three resemble others of their kind, of which there are eight; one nobody."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(99).normal(size=(8, DIM))  # the same in every town
    kind = rng.integers(0, 12, people)
    common = np.where((kind < 8)[:, None], alike * shapes[kind % 8], 0.0)
    faces = common + rng.normal(size=(people, DIM))
    person = np.repeat(np.arange(people), rng.integers(1, 4, people))
    matrix = unit(faces[person] + 0.5 * rng.normal(size=(person.size, DIM)))
    failed = np.flatnonzero(rng.random(person.size) < 0.01)
    matrix[failed] = 0
    pictures = tuple(Picture(str(number), b"") for number in range(person.size))
    group = People("town", pictures, tuple(f"p{number}" for number in range(people)), person)
    return group, Vectors(matrix, dict.fromkeys(failed.tolist(), "no face"), "c", 0)


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    made = fit_crowd(*town(0), "all pairs of {people} people")
    assert made is not None
    return made


def test_groups_are_means_of_ten_people_or_more() -> None:
    rng = np.random.default_rng(1)
    kinds = unit(rng.normal(size=(3, DIM)))
    faces = unit(kinds[np.repeat(np.arange(3), (40, 30, LEAST - 1))] + 0.02)
    centres = centres_of(faces, 3, np.random.default_rng(2))
    best = (centres @ kinds.T).argmax(axis=1)
    assert set(best) <= {0, 1} or len(centres) < 3
    for centre, which in zip(centres, best, strict=True):
        mine = faces[np.repeat(np.arange(3), (40, 30, LEAST - 1)) == which]
        assert centre == pytest.approx(mine.mean(axis=0), abs=1e-5)


def test_thresholds_are_of_scores_less_the_demand_by_loops() -> None:
    """Every pair of people counts alike, and either picture of a pair is the probe in turn."""
    group, vectors = town(3, people=30)
    crowd = Crowd(unit(np.random.default_rng(4).normal(size=(5, DIM))), 0.4, 0.1, ())
    curve = measured(crowd, group, vectors)
    demand = decision.demand(crowd, vectors.matrix)
    for threshold in (0.1, 0.4, 0.7):
        pairs: dict[tuple[int, int], list[bool]] = {}
        for i in range(group.person.size):
            for j in range(group.person.size):
                a, b = sorted((int(group.person[i]), int(group.person[j])))
                if i != j:
                    score = -9.0
                    if i not in vectors.failures and j not in vectors.failures:
                        score = float(vectors.matrix[i] @ vectors.matrix[j]) - demand[i]
                    pairs.setdefault((a, b), []).append(score >= threshold)
        fmr = np.mean([np.mean(hits) for (a, b), hits in pairs.items() if a != b])
        fnmr = np.mean([1 - np.mean(hits) for (a, b), hits in pairs.items() if a == b])
        got = [float(rate) for rate in rates_at(curve, threshold)]
        assert got == pytest.approx([fmr, fnmr], abs=1e-3)  # scores are counted in bins


def test_a_crowd_lowers_the_misses_of_other_people(crowd: Crowd) -> None:
    others = town(7)
    alone = tally_curve(*calibration.all_pairs(*town(0)))
    points = calibration.operating_points(alone, "p", "c")
    plain = calibration.check(points, tally_curve(*calibration.all_pairs(*others)))
    moved = calibration.check(crowd.operating_points, measured(crowd, *others))
    strict = {check.point.fmr: check for check in plain}
    for check in moved[-2:]:
        assert check.fnmr < strict[check.point.fmr].fnmr
        assert check.fmr == pytest.approx(check.point.fmr, rel=0.5)


def test_and_keeps_the_promise_in_galleries_of_other_people(crowd: Crowd) -> None:
    known = replace(BUNDLE, crowd=crowd, contract="c")
    bare = replace(known, crowd=None, operating_points=tuple(_plain()))
    others = town(8)
    (kept,) = idn.check_promise(*others, known, [0.1], [100], galleries=5)
    (before,) = idn.check_promise(*others, bare, [0.1], [100], galleries=5)
    assert kept.verdict == "kept"
    assert kept.measured == pytest.approx(0.1, rel=0.3)
    assert kept.fnir is not None
    assert before.fnir is not None
    assert kept.fnir < before.fnir


def _plain() -> list[OperatingPoint]:
    return calibration.operating_points(tally_curve(*calibration.all_pairs(*town(0))), "p", "c")


def test_searches_decide_on_scores_less_the_demand(crowd: Crowd) -> None:
    group, vectors = town(9, people=60)
    split = idn.split_by_pictures(group)
    plain, moved = idn.run(group, vectors, split), idn.run(group, vectors, split, crowd)
    more = decision.demand(crowd, vectors.matrix[split.probes])
    alive = plain.best > -1
    assert moved.best[alive] == pytest.approx((plain.best - more)[alive])
    assert (moved.best[~alive] == -1).all()
    assert (moved.own[~plain.mated] == -1).all()
    assert np.array_equal(moved.rank, plain.rank)


def test_where_it_does_not_help_there_is_none() -> None:
    nobody_alike = town(5, alike=0.0)
    made = fit_crowd(*nobody_alike, "p {people}")
    assert made is None or made.share < 0.5  # no kinds: little to gain
    assert fit_crowd(*town(6, people=60), "p {people}") is None  # too few people


# ------------------------------------------------------------------------------------- its card


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path))
    return tmp_path


def test_a_bundle_kept_under_a_name_is_loaded_by_it(home: Path, crowd: Crowd) -> None:
    points = [replace(p, protocol='of "our" people') for p in BUNDLE.operating_points]
    place = card.keep("ours", BUNDLE, points, crowd)
    assert place.parent.parent == home
    made = cards.bundle("ours")
    assert made.contract == BUNDLE.contract  # galleries stay usable
    assert "ours" in cards.bundle_ids()
    assert made.operating_points[0].protocol == 'of "our" people'
    assert [p.threshold for p in made.operating_points] == pytest.approx(
        [p.threshold for p in points]
    )
    assert made.crowd is not None
    assert np.array_equal(made.crowd.centres, crowd.centres)  # they were rounded when fitted
    assert made.crowd.share == crowd.share
    assert made.crowd.usual == pytest.approx(crowd.usual, abs=1e-5)
    assert len(made.search_points) == len(crowd.operating_points)
    assert mien.load("ours").contract == BUNDLE.contract
    card.keep("ours", BUNDLE, points, None)  # measured anew, without a crowd
    assert cards.bundle("ours").crowd is None


@pytest.mark.parametrize("name", ["embedded", "sface", "../up", "", "a b"])
def test_names_that_cannot_be_taken(home: Path, name: str) -> None:
    with pytest.raises(InputError):
        card.keep(name, BUNDLE, BUNDLE.operating_points, None)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("text", ["", "id = ", 'id = "x"\n', "\xff"])
def test_a_damaged_bundle_of_ones_own_is_named(home: Path, text: str) -> None:
    (home / "bundles").mkdir()
    (home / "bundles" / "bad.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"bad\.toml is not the card of a bundle"):
        cards.bundle("bad")


def test_a_card_gets_its_thresholds_and_keeps_the_rest(crowd: Crowd) -> None:
    bare = 'id = "x"\nviews = 2\n\n[figures]\nlfw = "99"\n'
    first = card.with_measured(bare, BUNDLE.operating_points, crowd)
    made = tomllib.loads(first)
    assert (made["id"], made["views"], made["figures"]) == ("x", 2, {"lfw": "99"})
    assert len(made["crowd"]["centres"]) == len(crowd.centres)
    again = card.with_measured(first, BUNDLE.operating_points[:3], crowd)
    assert len(tomllib.loads(again)["operating_points"]) == 3
    assert again.count("[crowd]") == 1
    without = tomllib.loads(card.with_measured(again, BUNDLE.operating_points, None))
    assert "crowd" not in without
    assert without["figures"] == {"lfw": "99"}
    with pytest.raises(InputError, match="not the card of a bundle"):
        card.with_measured("id = 1\n", BUNDLE.operating_points, crowd)
