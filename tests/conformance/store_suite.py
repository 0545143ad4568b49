"""What any `mien.gallery.Store` must do. Run it on yours:

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda: MyStore(tmp_path / "gallery")

`make()` opens a handle to a store that is empty at first; called again within a test, it opens
another handle to the same store.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import numpy as np
import pytest
from numpy.typing import NDArray

from mien.errors import ContractMismatch, GalleryError, InputError, UnknownSubject
from mien.gallery.store import Entry, Store
from mien.types import Embedding

CONTRACT = "detector+embedder@01234567"

Make = Callable[[], Store]


def unit_vectors(count: int, seed: int, dim: int = 128) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def entry(
    subject: str, vector: NDArray[np.float32], contract: str = CONTRACT, quality: float = 0.5
) -> Entry:
    return Entry(subject, Embedding(vector, contract), f"{subject}.jpg", quality)


def entries(subjects: Sequence[str], vectors: NDArray[np.float32]) -> list[Entry]:
    return [entry(name, vector) for name, vector in zip(subjects, vectors, strict=True)]


class StoreSuite:
    """A subclass says how to make the store."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError("say how to make the store")

    @pytest.fixture
    def store(self, make: Make) -> Iterator[Store]:
        store = make()
        yield store
        store.close()

    # ------------------------------------------------------------------ an empty store

    def test_has_every_method(self, store: Store) -> None:
        assert isinstance(store, Store)

    def test_empty(self, store: Store) -> None:
        assert store.contract() is None
        assert store.subjects() == []
        assert store.search(unit_vectors(3, 0), 5) == [[], [], []]
        stats = store.stats()
        assert (stats.subjects, stats.templates, stats.contract) == (0, 0, None)
        assert len(store) == 0

    # ------------------------------------------------------------------ search

    @pytest.mark.parametrize("limit", [1, 3, 10, 1000])
    def test_search_equals_brute_force(self, store: Store, limit: int) -> None:
        """Every score, the order, one row a subject, its best template, and the limit."""
        vectors, probes = unit_vectors(300, 1), unit_vectors(20, 2)
        names = [f"person {number % 40:02}" for number in range(300)]
        added = store.add(entries(names, vectors))
        scores = probes.astype(np.float64) @ vectors.T.astype(np.float64)
        for row, found in zip(scores, store.search(probes, limit), strict=True):
            best: dict[str, int] = {}
            for index in np.argsort(-row):
                best.setdefault(names[index], int(index))
            expected = list(best.items())[:limit]
            assert [match.subject for match in found] == [name for name, _ in expected]
            assert [match.template for match in found] == [added[i].id for _, i in expected]
            np.testing.assert_allclose(
                [match.score for match in found], [row[i] for _, i in expected], atol=2e-6
            )

    def test_one_subject_with_most_templates_hides_nobody(self, store: Store) -> None:
        """However many templates of one person lead, the second person is found."""
        crowd = unit_vectors(1, 3) + 0.01 * unit_vectors(200, 4)
        crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
        store.add(entries(["crowd"] * 200, crowd.astype(np.float32)))
        store.add([entry("lone", unit_vectors(1, 5)[0])])
        (found,) = store.search(unit_vectors(1, 3), 2)
        assert [match.subject for match in found] == ["crowd", "lone"]

    def test_scores_stay_in_range(self, store: Store) -> None:
        """A vector against itself gives 1, not 1 + rounding; against its opposite, -1."""
        vectors = unit_vectors(50, 6)
        store.add(entries([f"p{n}" for n in range(50)], vectors))
        for number, (match, *_) in enumerate(store.search(vectors, 1)):
            assert match.subject == f"p{number}"
            assert 1 - 1e-6 <= match.score <= 1.0
        for found in store.search(-vectors, 50):
            assert -1.0 <= found[-1].score <= -1 + 1e-6

    # ------------------------------------------------------------------ filters and negatives

    def test_a_filter_of_one_percent_misses_nobody(self, store: Store) -> None:
        vectors, probes = unit_vectors(2000, 20), unit_vectors(10, 21)
        store.add(
            [
                Entry(f"p{n}", Embedding(v, CONTRACT), "x", 0.5, {"site": f"s{n % 100}", "b": "1"})
                for n, v in enumerate(vectors)
            ]
        )
        for sites in (["s7"], ["s7", "s8"]):
            rows = [n for n in range(2000) if f"s{n % 100}" in sites]
            for probe, found in zip(
                probes, store.search(probes, 10, {"site": sites, "b": "1"}), strict=True
            ):
                order = np.argsort(-(vectors[rows] @ probe))[:10]
                assert [match.subject for match in found] == [f"p{rows[n]}" for n in order]
        assert store.search(probes, 10, {"site": "s7", "b": "2"}) == [[]] * 10
        assert store.search(probes, 10, {"'; --": "s7"}) == [[]] * 10

    def test_a_closer_negative_rules_a_subject_out(self, store: Store) -> None:
        crowd = unit_vectors(1, 22) + 0.03 * unit_vectors(60, 23)
        crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
        store.add(entries([f"p{n}" for n in range(60)], crowd))
        probe = unit_vectors(1, 22)
        ranking = [match.subject for match in store.search(probe, 60)[0]]
        store.add(
            [
                Entry(name, Embedding(probe[0], CONTRACT), "x", 0.5, negative=True)
                for name in ranking[1:40]
            ]
        )
        found = [match.subject for match in store.search(probe, 3)[0]]
        assert found == [ranking[0], *ranking[40:42]]
        assert len(store.templates(ranking[1])) == 1
        assert store.stats().templates == 60
        assert store.remove(ranking[1]) == 2

    # ------------------------------------------------------------------ export

    def test_entries_come_back_as_they_went_in(self, store: Store) -> None:
        vectors = unit_vectors(5000, 24, dim=8)
        given = [
            Entry(
                f"p{n // 2}", Embedding(v, CONTRACT), f"{n}.jpg", 0.25, {"n": str(n), "ü": "'"},
                n % 3 == 0, f"{n:064x}", "2020-01-02T03:04:05+00:00",
            )
            for n, v in enumerate(vectors)
        ]  # fmt: skip
        added = store.add(given)
        back = list(store.entries())
        assert [id_ for id_, _ in back] == [template.id for template in added]
        for (_, got), entry_ in zip(back, given, strict=True):
            assert got.embedding.vector.tobytes() == entry_.embedding.vector.tobytes()
            assert got.embedding.contract == CONTRACT
            assert (got.subject, got.source, got.quality, dict(got.metadata)) == (
                entry_.subject, entry_.source, entry_.quality, dict(entry_.metadata),
            )  # fmt: skip
            assert (got.negative, got.source_sha256, got.created) == (
                entry_.negative, entry_.source_sha256, entry_.created,
            )  # fmt: skip
        after = added[4000].id
        assert [id_ for id_, _ in store.entries(after)] == [t.id for t in added[4001:]]

    def test_entries_of_one_subject(self, store: Store) -> None:
        vectors = unit_vectors(6, 25)
        store.add(entries(["ada", "bob", "ada", "bob", "eve", "ada"], vectors))
        store.add([Entry("ada", Embedding(vectors[1], CONTRACT), "x", 0.5, negative=True)])
        found = list(store.entries(subject="ada"))
        assert [e.negative for _, e in found] == [False, False, False, True]
        for (_, got), row in zip(found, (0, 2, 5, 1), strict=True):
            assert got.embedding.vector.tobytes() == vectors[row].tobytes()
        assert [i for i, _ in store.entries(found[1][0], "ada")] == [i for i, _ in found[2:]]
        assert list(store.entries(subject="nobody")) == []

    # ------------------------------------------------------------------ contract

    def test_first_add_fixes_the_contract(self, store: Store) -> None:
        vectors = unit_vectors(2, 7)
        store.add([entry("ada", vectors[0], "one")])
        assert store.contract() == "one"
        with pytest.raises(ContractMismatch) as caught:
            store.add([entry("bob", vectors[1], "two")])
        assert (caught.value.expected, caught.value.got) == ("one", "two")
        assert store.contract() == "one"
        assert [subject.name for subject in store.subjects()] == ["ada"]

    def test_contract_outlives_the_last_template(self, store: Store) -> None:
        vectors = unit_vectors(2, 8)
        store.add([entry("ada", vectors[0], "one")])
        store.remove("ada")
        assert store.contract() == "one"
        with pytest.raises(ContractMismatch):
            store.add([entry("bob", vectors[1], "two")])

    # ------------------------------------------------------------------ subjects and templates

    def test_several_templates_oldest_first(self, store: Store) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        vectors = unit_vectors(4, 9)
        first = store.add([Entry("ada", Embedding(vectors[0], CONTRACT), "a.jpg", 0.25)])
        rest = store.add(
            [
                Entry("ada", Embedding(vectors[1], CONTRACT), "b.jpg", 0.5),
                entry("bob", vectors[2]),
                Entry("ada", Embedding(vectors[3], CONTRACT), "c.jpg", 1.0),
            ]
        )
        templates = store.templates("ada")
        assert [(t.source, t.quality) for t in templates] == [
            ("a.jpg", 0.25), ("b.jpg", 0.5), ("c.jpg", 1.0),
        ]  # fmt: skip
        assert [t.id for t in templates] == [first[0].id, rest[0].id, rest[2].id]
        assert len({t.id for t in (*first, *rest)}) == 4
        for template in templates:
            created = datetime.fromisoformat(template.created)
            assert before <= created <= datetime.now(UTC) + timedelta(seconds=2)
        assert [(s.name, s.templates) for s in store.subjects()] == [("ada", 3), ("bob", 1)]
        stats = store.stats()
        assert (stats.subjects, stats.templates, stats.dimensions) == (2, 4, 128)
        assert stats.contract == CONTRACT

    @pytest.mark.parametrize(
        "name",
        [
            "Łukasz Żółć", "王小明", "نور", "🙂", "O'Brien", 'say "x"; DROP TABLE subject; --',
            "two\nlines", " leading", "%", "_", "ada\u0301", "x" * 3000,
        ],
    )  # fmt: skip
    def test_any_name(self, store: Store, name: str) -> None:
        vectors = unit_vectors(2, 10)
        store.add([entry(name, vectors[0]), entry("ada", vectors[1])])
        assert {subject.name for subject in store.subjects()} == {name, "ada"}
        assert [template.subject for template in store.templates(name)] == [name]
        assert store.search(vectors[:1], 1)[0][0].subject == name
        assert store.remove(name) == 1
        assert [subject.name for subject in store.subjects()] == ["ada"]

    def test_subjects_are_sorted(self, store: Store) -> None:
        names = ["Zoe", "adam", "Bea", "Ärne", "10", "9"]
        store.add(entries(names, unit_vectors(len(names), 11)))
        assert [subject.name for subject in store.subjects()] == sorted(names)

    # ------------------------------------------------------------------ removal

    def test_remove_forgets(self, store: Store) -> None:
        vectors = unit_vectors(30, 12)
        store.add(entries([f"p{number % 10}" for number in range(30)], vectors))
        assert store.remove("p3") == 3
        assert "p3" not in [subject.name for subject in store.subjects()]
        assert store.stats().templates == 27
        for found in store.search(vectors, 10):
            assert "p3" not in [match.subject for match in found]
            assert len(found) == 9
        for again in (store.templates, store.remove):
            with pytest.raises(UnknownSubject) as caught:
                again("p3")
            assert caught.value.subject == "p3"

    def test_remove_and_enrol_again(self, store: Store) -> None:
        vectors = unit_vectors(3, 13)
        old = store.add([entry("ada", vectors[0]), entry("bob", vectors[1])])
        store.remove("ada")
        (new,) = store.add([entry("ada", vectors[2])])
        assert new.id not in {template.id for template in old}
        ((match, *_),) = store.search(vectors[2:], 1)
        assert (match.subject, match.template) == ("ada", new.id)
        ((match, *_),) = store.search(vectors[:1], 1)
        assert match.score < 0.9

    def test_single_templates_are_removed(self, store: Store) -> None:
        vectors = unit_vectors(4, 30)
        ada = store.add(entries(["ada"] * 3, vectors[:3]))
        (bob,) = store.add([entry("bob", vectors[3])])
        assert store.remove("ada", [ada[1].id, bob.id, 10**6]) == 1
        assert [template.id for template in store.templates("ada")] == [ada[0].id, ada[2].id]
        assert store.stats().templates == 3
        ((match, *_),) = store.search(vectors[1:2], 1)
        assert match.score < 0.9
        assert store.remove("ada", []) == 0
        assert store.remove("ada", [ada[0].id, ada[2].id]) == 2
        assert [(s.name, s.templates) for s in store.subjects()] == [("bob", 1)]
        assert store.stats().subjects == 1
        with pytest.raises(UnknownSubject):
            store.remove("ada", [])

    def test_rename_moves_everything(self, store: Store) -> None:
        vectors = unit_vectors(3, 31)
        given = [
            Entry("ada", Embedding(vectors[0], CONTRACT), "a.jpg", 0.25, {"site": "s"}, False,
                  "ab" * 32, "2020-01-02T03:04:05+00:00"),
            Entry("ada", Embedding(vectors[1], CONTRACT), "b.jpg", 0.5, negative=True),
        ]  # fmt: skip
        store.add(given)
        store.add([entry("bob", vectors[2])])
        assert store.rename("ada", "Ada Łucja") == 2
        assert [subject.name for subject in store.subjects()] == ["Ada Łucja", "bob"]
        assert store.subjects()[0].created == "2020-01-02T03:04:05+00:00"  # when the first came
        assert (store.stats().subjects, store.stats().templates) == (2, 2)
        with pytest.raises(UnknownSubject):
            store.templates("ada")
        (kept,) = store.templates("Ada Łucja")
        assert (kept.source, kept.quality) == ("a.jpg", 0.25)
        assert kept.created == "2020-01-02T03:04:05+00:00"
        back = [e for _, e in store.entries() if e.subject == "Ada Łucja"]
        assert [(e.negative, e.source, dict(e.metadata), e.source_sha256) for e in back] == [
            (e.negative, e.source, dict(e.metadata), e.source_sha256) for e in given
        ]
        found = store.search(vectors[:1], 1, {"site": "s"})[0]
        assert [match.subject for match in found] == ["Ada Łucja"]
        assert store.search(vectors[1:2], 1)[0][0].subject == "bob"  # still ruled out

    def test_rename_to_somebody_makes_the_two_one(self, make: Make, store: Store) -> None:
        other = make()
        try:
            vectors = unit_vectors(5, 32)
            store.add(entries(["ada", "bob", "ada", "bob", "eve"], vectors))
            assert [match.subject for match in other.search(vectors[:1], 5)[0]][:1] == ["ada"]
            with pytest.raises(GalleryError, match="bob"):
                store.rename("ada", "bob")
            assert len(store.templates("ada")) == 2
            assert store.rename("ada", "bob", merge=True) == 2
            for handle in (store, other):
                assert [(s.name, s.templates) for s in handle.subjects()] == [
                    ("bob", 4),
                    ("eve", 1),
                ]
                for vector in vectors[:4]:
                    found = handle.search(vector[None], 2)[0]
                    assert [match.subject for match in found] == ["bob", "eve"]
                    assert found[0].score > 0.999
            assert store.rename("bob", "bob") == 4
            with pytest.raises(UnknownSubject):
                store.rename("ada", "eve")
        finally:
            other.close()

    def test_replace_leaves_only_the_new(self, store: Store) -> None:
        vectors = unit_vectors(8, 26)
        store.add(entries(["ada", "bob", "ada"], vectors[:3]))
        store.add([Entry("ada", Embedding(vectors[3], CONTRACT), "x", 0.5, negative=True)])
        new = store.replace("ada", entries(["ada", "ada"], vectors[4:6]))
        assert [t.id for t in store.templates("ada")] == [t.id for t in new]
        assert [i for i, _ in store.entries(subject="ada")] == [t.id for t in new]
        stats = store.stats()
        assert (stats.subjects, stats.templates, len(store)) == (2, 3, 3)
        ((match, *_),) = store.search(vectors[4:5], 1)
        assert (match.subject, match.template) == ("ada", new[0].id)
        assert max(m.score for found in store.search(vectors[[0, 2]], 2) for m in found) < 0.9
        store.replace("eve", entries(["eve"], vectors[6:7]))  # nothing was enrolled of her
        assert [s.name for s in store.subjects()] == ["ada", "bob", "eve"]

    def test_replace_that_cannot_be_changes_nothing(self, store: Store) -> None:
        vectors = unit_vectors(4, 27)
        store.add(entries(["ada", "bob"], vectors[:2]))
        for wrong in ([], entries(["ada", "bob"], vectors[2:])):
            with pytest.raises(InputError):
                store.replace("ada", wrong)
        with pytest.raises(ContractMismatch):
            store.replace("ada", [entry("ada", vectors[2], "another")])
        assert store.search(vectors[:1], 1)[0][0].score > 0.99
        assert store.stats().templates == 2

    def test_unknown_subject(self, store: Store) -> None:
        store.add([entry("ada", unit_vectors(1, 14)[0])])
        for ask in (store.templates, store.remove):
            for name in ("nobody", "ADA", "ada ", ""):
                with pytest.raises(UnknownSubject):
                    ask(name)

    def test_compact_changes_no_answer(self, store: Store) -> None:
        vectors = unit_vectors(60, 15)
        store.add(entries([f"p{number % 20:02}" for number in range(60)], vectors))
        for number in range(0, 20, 2):
            store.remove(f"p{number:02}")
        before = store.subjects(), store.search(vectors, 5), store.stats().templates
        store.compact()
        assert (store.subjects(), store.search(vectors, 5), store.stats().templates) == before

    # ------------------------------------------------------------------ several handles, threads

    def test_sees_what_another_handle_did(self, make: Make, store: Store) -> None:
        other = make()
        vectors = unit_vectors(6, 16)
        try:
            store.add([entry("ada", vectors[0])])
            assert other.contract() == CONTRACT
            assert other.search(vectors[:1], 1)[0][0].subject == "ada"
            other.add([entry("bob", vectors[1])])
            assert store.search(vectors[1:2], 1)[0][0].subject == "bob"
            store.remove("ada")
            assert [match.subject for match in other.search(vectors[:1], 5)[0]] == ["bob"]
            other.add([entry("eve", vectors[2])])
            other.remove("bob")
            assert [match.subject for match in store.search(vectors[:1], 5)[0]] == ["eve"]
            with pytest.raises(UnknownSubject):
                store.templates("bob")
        finally:
            other.close()

    def test_is_there_when_opened_again(self, make: Make) -> None:
        vectors = unit_vectors(3, 17)
        store = make()
        store.add(entries(["ada", "bob", "ada"], vectors))
        store.close()
        store = make()
        assert [(s.name, s.templates) for s in store.subjects()] == [("ada", 2), ("bob", 1)]
        assert store.search(vectors[1:2], 1)[0][0].subject == "bob"
        store.close()

    def test_threads_share_a_handle(self, store: Store) -> None:
        vectors = unit_vectors(80, 18)
        start = Barrier(4)

        def enrol(worker: int) -> list[str]:
            start.wait()
            found = []
            for number in range(worker, 80, 4):
                store.add([entry(f"p{number:02}", vectors[number])])
                found.append(store.search(vectors[number : number + 1], 1)[0][0].subject)
            return found

        with ThreadPoolExecutor(4) as pool:
            for worker, found in enumerate(pool.map(enrol, range(4))):
                assert found == [f"p{number:02}" for number in range(worker, 80, 4)]
        assert store.stats().templates == 80
