"""Every store of ours, and a trivial one that shows the suite is not tied to any."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

import numpy as np
import pytest
from numpy.typing import NDArray
from store_suite import Make, StoreSuite

from mien.embedding import require_contract
from mien.errors import UnknownSubject
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry, Stats, Subject
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
                added.append(Template(self._shared.last, e.subject, e.source, e.quality, now))
                self._shared.rows.append((added[-1], e.embedding.vector))
            return added

    def search(self, probes: NDArray[np.float32], limit: int) -> list[list[Match]]:
        return [self._search(probe, limit) for probe in probes]

    def _search(self, probe: NDArray[np.float32], limit: int) -> list[Match]:
        with self._shared.lock:
            scored = [
                Match(t.subject, t.id, float(np.clip(v @ probe, -1, 1)))
                for t, v in self._shared.rows
            ]
        best: dict[str, Match] = {}
        for match in sorted(scored, key=lambda match: -match.score):
            best.setdefault(match.subject, match)
        return list(best.values())[:limit]

    def subjects(self) -> list[Subject]:
        templates = [template for template, _ in self._shared.rows]
        return [
            Subject(name, len(mine), mine[0].created)
            for name in sorted({t.subject for t in templates})
            if (mine := [t for t in templates if t.subject == name])
        ]

    def templates(self, subject: str) -> list[Template]:
        found = [template for template, _ in self._shared.rows if template.subject == subject]
        if not found:
            raise UnknownSubject(subject)
        return found

    def remove(self, subject: str) -> int:
        with self._shared.lock:
            count = len(self.templates(subject))
            self._shared.rows = [row for row in self._shared.rows if row[0].subject != subject]
            return count

    def compact(self) -> None:
        pass

    def stats(self) -> Stats:
        rows = self._shared.rows
        dimensions = rows[0][1].size if rows else 0
        subjects = len(self.subjects())
        return Stats("list:", subjects, len(rows), dimensions, 0, self._shared.contract)

    def close(self) -> None:
        pass


class _Rows:
    def __init__(self) -> None:
        self.lock = RLock()
        self.rows: list[tuple[Template, NDArray[np.float32]]] = []
        self.contract: str | None = None
        self.last = 0


class TestListStore(StoreSuite):
    @pytest.fixture
    def make(self) -> Make:
        rows = _Rows()
        return lambda: _ListStore(rows)
