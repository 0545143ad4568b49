"""Every store of ours, and a trivial one that shows the suite is not tied to any."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

import numpy as np
import pytest
from numpy.typing import NDArray
from store_suite import Make, StoreSuite

from mien.embedding import require_contract
from mien.errors import GalleryError, UnknownSubject
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry, Stats, Subject, Where, check_replacement
from mien.types import Match, Template


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "people.mien")


class _ListStore:
    """Rows in a list: as simple as a store can be. Handles share the rows."""

    def __init__(self, shared: "_Rows") -> None:
        self._shared = shared

    def contract(self) -> str | None:
        return self._shared.contract

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        with self._shared.lock:
            contract = entries[0].embedding.contract
            require_contract(self._shared.contract or contract, contract)
            self._shared.contract = contract
            now = datetime.now(UTC).isoformat()
            added = []
            for e in entries:
                self._shared.last += 1
                made = e.created or now
                added.append(Template(self._shared.last, e.subject, e.source, e.quality, made))
                self._shared.rows.append((added[-1], e))
            return added

    def search(
        self, probes: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[list[Match]]:
        return [self._search(probe, limit, where or {}) for probe in probes]

    def _search(self, probe: NDArray[np.float32], limit: int, where: Where) -> list[Match]:
        wanted = {key: {v} if isinstance(v, str) else set(v) for key, v in where.items()}
        against: dict[str, float] = {}
        with self._shared.lock:
            rows = [
                (Match(t.subject, t.id, float(np.clip(e.embedding.vector @ probe, -1, 1))), e)
                for t, e in self._shared.rows
            ]
        for match, e in rows:
            if e.negative:
                against[match.subject] = max(match.score, against.get(match.subject, -1.0))
        scored = [
            match
            for match, e in rows
            if not e.negative and all(e.metadata.get(k) in v for k, v in wanted.items())
        ]
        best: dict[str, Match] = {}
        for match in sorted(scored, key=lambda match: -match.score):
            best.setdefault(match.subject, match)
        kept = [m for m in best.values() if m.score >= against.get(m.subject, -1.0)]
        return kept[:limit]

    def entries(self, after: int = 0, subject: str | None = None) -> Iterator[tuple[int, Entry]]:
        for template, e in list(self._shared.rows):
            if template.id > after and subject in (None, e.subject):
                yield template.id, replace(e, created=template.created)

    def subjects(self) -> list[Subject]:
        templates = [template for template, e in self._shared.rows if not e.negative]
        return [
            Subject(name, len(mine), mine[0].created)
            for name in sorted({t.subject for t in templates})
            if (mine := [t for t in templates if t.subject == name])
        ]

    def templates(self, subject: str) -> list[Template]:
        found = [(t, e) for t, e in self._shared.rows if t.subject == subject]
        if not found:
            raise UnknownSubject(subject)
        return [template for template, e in found if not e.negative]

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        with self._shared.lock:
            self.templates(subject)
            before = len(self._shared.rows)
            self._shared.rows = [
                (t, e) for t, e in self._shared.rows
                if t.subject != subject or (templates is not None and t.id not in templates)
            ]  # fmt: skip
            return before - len(self._shared.rows)

    def replace(self, subject: str, entries: Sequence[Entry]) -> list[Template]:
        check_replacement(subject, entries)
        with self._shared.lock:
            contract = self._shared.contract or entries[0].embedding.contract
            require_contract(contract, entries[0].embedding.contract)
            self._shared.rows = [row for row in self._shared.rows if row[0].subject != subject]
            return self.add(entries)

    def rename(self, subject: str, new: str, *, merge: bool = False) -> int:
        with self._shared.lock:
            self.templates(subject)
            names = {template.subject for template, _ in self._shared.rows}
            if new != subject and new in names and not merge:
                raise GalleryError(f"{new} is taken")
            moved = [
                replace(e, subject=new, created=t.created)
                for t, e in self._shared.rows if t.subject == subject
            ]  # fmt: skip
            self.remove(subject)
            return len(self.add(moved))

    def __len__(self) -> int:
        return sum(not e.negative for _, e in self._shared.rows)

    def compact(self) -> None:
        pass

    def stats(self) -> Stats:
        rows = self._shared.rows
        dimensions = rows[0][1].embedding.vector.size if rows else 0
        subjects = len(self.subjects())
        positive = sum(not e.negative for _, e in rows)
        return Stats("list:", subjects, positive, dimensions, 0, self._shared.contract)

    def close(self) -> None:
        pass


class _Rows:
    def __init__(self) -> None:
        self.lock = RLock()
        self.rows: list[tuple[Template, Entry]] = []
        self.contract: str | None = None
        self.last = 0


class TestListStore(StoreSuite):
    @pytest.fixture
    def make(self) -> Make:
        rows = _Rows()
        return lambda: _ListStore(rows)
