"""The codes of one collection, kept in step with the record, and the search over them.

The index file is derived and disposable: whatever is wrong with it (missing, stale, torn by a
crash, damaged, another gallery's), the codes are made again from the record, and no answer is
taken from them alone: they say which vectors to fetch and compare. What the file does not hold
yet, the newest few thousand templates, each process keeps in memory; a small gallery has no file.

Two facts make this safe. Template ids only grow, in the order of commits, so what is new is what
is larger than the last one held. And the record decides: a removed template that an index still
holds is not found when its vector is fetched.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.gallery import sound
from mien.gallery.filters import passes
from mien.gallery.index_file import Identity, IndexFile, StaleIndex, Tail
from mien.gallery.kernels import Kernel
from mien.gallery.quantizer import Quantizer
from mien.gallery.rows import Rows
from mien.gallery.scan import Block, Found, candidates, filtered, people_in
from mien.gallery.sound import TEMPLATE, Row
from mien.gallery.store import Where
from mien.types import Match

_FILE_ROWS = 4096  # templates in memory from which they are worth writing to the index file
_OFTEN = 8  # searches from which a copy of the file in memory pays
_BATCH = 4096
_SAMPLE = 8192
_SPARE = 8  # candidates that are read with as many as are asked for
_AMONG = "IN (SELECT value FROM json_each(?))"


class Index:
    """The codes of one collection. `path` is None when they may only be in memory."""

    def __init__(self, rows: Rows, path: Path | None, kernel: Kernel) -> None:
        self._rows = rows
        self._collection = rows.collection
        self._path = path
        self._kernel = kernel
        self._file: IndexFile | None = None
        self._tail = Tail()
        self._quantizer: Quantizer | None = None
        self._version: int | None = None  # of the collection, when it was last looked at
        self._counted: int | None = None  # the version of which `missing` was asked
        self._erasures = ""
        self._people = 0  # and how many there were then, also such as have only negatives
        self._write_from = _FILE_ROWS
        self._searches = 0
        self._unusable: set[int] = set()  # removed meanwhile, or damaged

    @property
    def wants_writing(self) -> bool:
        """Whether the file should be written, or erase what another process removed."""
        if self._path is None:
            return False
        behind = self._file is not None and self._file.erasures != self._erasures
        return behind or len(self._tail) >= self._write_from

    @property
    def _in_step(self) -> bool:
        """Whether the file has no removed template left."""
        return self._file is None or self._file.erasures == self._erasures

    def refresh(self, db: sqlite3.Connection) -> None:
        """Learn what any process changed since the last time."""
        stated = sound.collection(db, self._collection)
        version, erasures, templates, people = (
            stated[name] for name in ("version", "erasures", "templates", "subjects")
        )
        if version == self._version:
            return
        if self._version is None or self._replaced():
            self._reopen(db)
        elif erasures != self._erasures:
            self._tail.forget(self._gone(db, self._tail.ids()))
        self._load(db, templates)
        self._version, self._erasures, self._people = version, erasures, people

    @property
    def unchecked(self) -> bool:
        """Whether `missing` has not been asked since the collection changed."""
        return self._counted != self._version

    def missing(self, db: sqlite3.Connection) -> int:
        """How many templates there are no codes of: those that cannot be read.

        It is certain while the caller holds the write lock: another process may be erasing.
        """
        self._counted = self._version
        if not self._in_step:
            return 0
        stated: int = sound.collection(db, self._collection)["templates"]
        return stated - sum(int(np.count_nonzero(block.subjects)) for block in self._blocks())

    def search(
        self,
        db: sqlite3.Connection,
        probes: NDArray[np.float32],
        limit: int,
        allowed: NDArray[np.bool_] | None,
        where: Where,
    ) -> list[list[Match]]:
        """The best subjects for each probe (p, dim), of all or of the templates `allowed`.

        `allowed` has a truth value for every id up to the newest: whether it passes `where`.
        """
        if self._quantizer is None:
            return [[] for _ in probes]
        self._searches += 1
        if self._file is not None and self._searches % _OFTEN == 0:
            self._file.settle()
        unusable = -1
        while unusable != len(self._unusable):  # again without those that turned out to be
            unusable = len(self._unusable)
            answers = self._ranked(
                db, self._quantizer, probes, limit, self._usable(db, allowed), where
            )
        return answers

    def _usable(
        self, db: sqlite3.Connection, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Of those allowed, without those that the record does not have as they were coded."""
        if not self._unusable:
            return allowed
        usable = np.ones(sound.newest(db) + 1, np.bool_) if allowed is None else allowed.copy()
        usable[list(self._unusable)] = False
        return usable

    def _ranked(
        self,
        db: sqlite3.Connection,
        quantizer: Quantizer,
        probes: NDArray[np.float32],
        limit: int,
        allowed: NDArray[np.bool_] | None,
        where: Where,
    ) -> list[list[Match]]:
        blocks = self._blocks()
        if allowed is not None:
            blocks = filtered(blocks, allowed)
        answers: list[list[Match]] = [[] for _ in probes]
        wanted, unanswered = limit, list(range(len(probes)))
        while unanswered:
            there = min(wanted, self._people)
            if allowed is not None:
                there = people_in(blocks, wanted, allowed)
            if not there:
                break
            found = candidates(blocks, quantizer, probes[unanswered], there, self._kernel, allowed)
            for number, some in zip(unanswered, found, strict=True):
                rows = self._read(db, probes[number], some, there, where)
                answers[number] = self._exact(db, probes[number], rows, limit)
            if there < wanted:
                break  # everyone has been looked at
            # Subjects that a negative ruled out, or that were just removed: look further.
            unanswered = [n for n in unanswered if len(answers[n]) < limit]
            wanted *= 8
        return answers

    def write(self, db: sqlite3.Connection) -> None:
        """Bring the file up to date. The caller holds the write lock. Raises `OSError`."""
        assert self._path is not None
        if self._file is None or self._replaced():
            if self._path.exists():
                self._version = None  # another process has made one: start from that
        else:
            self._reload()
        self.refresh(db)
        if self._file is not None and self._file.erasures != self._erasures:
            known = np.concatenate([block.ids for block in self._file.blocks()])
            self._file.forget(self._gone(db, known), self._erasures)
        if len(self._tail) < self._write_from or self._quantizer is None:
            return
        blocks = list(self._tail.blocks())
        if self._file is None:
            identity = self._identity(db)
            IndexFile.write(self._path, identity, self._erasures, self._quantizer, blocks)
            self._version = None
        else:
            self._file.append(blocks)
            self._tail = Tail()

    def do_without_file(self) -> None:
        """It cannot be written: try again when there is much more."""
        self._write_from = max(4 * self._write_from, 2 * len(self._tail))

    def forget(self, db: sqlite3.Connection, ids: NDArray[np.int64]) -> None:
        """Overwrite removed templates (ids ascending). The caller holds the write lock."""
        self._tail.forget(ids)
        if self._file is None or self._replaced():
            self._version = None
            self._reopen(db)
        else:
            self._reload()
        if self._file is not None:
            row = db.execute(
                "SELECT erasures FROM collection WHERE id = ?", (self._collection,)
            ).fetchone()
            self._file.forget(ids, row[0])

    def close(self) -> None:
        """Let go of the file and the memory."""
        self._start_again()
        self._quantizer, self._version = None, None
        self._unusable.clear()

    def _start_again(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._tail = None, Tail()

    def _blocks(self) -> list[Block]:
        return [*(self._file.blocks() if self._file else ()), *self._tail.blocks()]

    def _read(
        self,
        db: sqlite3.Connection,
        probe: NDArray[np.float32],
        found: Found,
        people: int,
        where: Where,
    ) -> list[Row]:
        """The rows of candidates that may be among the best so many people: of the first, and of
        the others that may reach the scores of as many people among these."""
        some = people + _SPARE
        rows = self._sound(db, found.ids[:some], where)
        if len(found.ids) > some:
            scores = [score for score, _ in self._best(rows, probe).values()]
            reached = scores[people - 1] if len(scores) >= people else -np.inf
            rows += self._sound(db, found.ids[some:][found.most[some:] >= reached], where)
        return rows

    def _sound(
        self, db: sqlite3.Connection, candidates: NDArray[np.int64], where: Where
    ) -> list[Row]:
        read = sound.by_key(db, TEMPLATE, candidates.tolist())
        rows = read.told("template")
        if len(rows) < len(candidates):
            gone = set(candidates.tolist()).difference(row[0] for row in rows)
            self._unusable |= gone
            if self._in_step and (lost := gone.difference(read.damaged)):
                sound.warn(f"{sound.named('template', sorted(lost))} not there and left out")
        if where:
            rows = [row for row in rows if passes(self._rows.metadata(row), where)]
        return rows

    def _best(
        self, rows: Sequence[Row], probe: NDArray[np.float32]
    ) -> dict[int, tuple[float, int]]:
        """Of each subject the best score and the template that has it, best first."""
        if not rows:
            return {}
        ids, subjects, vectors = self._decode(rows)
        scores = vectors @ probe
        best: dict[int, tuple[float, int]] = {}
        for row in np.lexsort((ids, -scores)).tolist():
            best.setdefault(int(subjects[row]), (float(scores[row]), int(ids[row])))
        return best

    def _exact(
        self, db: sqlite3.Connection, probe: NDArray[np.float32], rows: Sequence[Row], limit: int
    ) -> list[Match]:
        """The best subjects by the vectors in rows of templates."""
        best = self._best(rows, probe)
        ruled_out = self._negatives(db, probe, {s: score for s, (score, _) in best.items()})
        chosen = [subject for subject in best if subject not in ruled_out][:limit]
        names = self._rows.names(db, chosen)
        if nameless := {subject for subject in chosen if subject not in names}:
            self._unusable.update(row[0] for row in rows if row[2] in nameless)
        return [
            Match(names[subject], best[subject][1], float(np.clip(best[subject][0], -1.0, 1.0)))
            for subject in chosen
            if subject in names
        ]

    def _negatives(
        self, db: sqlite3.Connection, probe: NDArray[np.float32], scores: dict[int, float]
    ) -> set[int]:
        """Of subjects and their scores, those whose negatives are closer to the probe."""
        ids = self._rows.negatives_of(db, list(scores))
        rows = sound.by_key(db, TEMPLATE, ids).told("template") if ids else []
        if not rows:
            return set()
        _, subjects, vectors = self._decode(rows)
        against = vectors @ probe
        return {
            int(subject)
            for subject, score in zip(subjects, against, strict=True)
            if score > scores[int(subject)]
        }

    def _decode(
        self, rows: Sequence[Row]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Ids, subjects and vectors of sound rows of templates."""
        ids, _, subjects, _, _, _, stored, *_ = zip(*rows, strict=True)
        vectors = b"".join(self._rows.open_vectors(ids, stored))
        found = np.frombuffer(vectors, "<f4").reshape(len(rows), -1)
        return np.array(ids, np.int64), np.array(subjects, np.int64), found

    def _identity(self, db: sqlite3.Connection) -> Identity:
        gallery = db.execute("SELECT value FROM meta WHERE key = 'gallery'").fetchone()[0]
        contract, dimensions = db.execute(
            "SELECT contract, dimensions FROM collection WHERE id = ?", (self._collection,)
        ).fetchone()
        return Identity(gallery, self._collection, contract or "", dimensions)

    def _gone(self, db: sqlite3.Connection, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of ids (ascending) those that are no longer in the record."""
        if not len(ids):
            return ids
        rows = db.execute(
            "SELECT id FROM template WHERE collection = ? AND negative = 0 AND id BETWEEN ? AND ?",
            (self._collection, int(ids[0]), int(ids[-1])),
        )
        alive = np.fromiter((i for (i,) in rows), np.int64)
        return ids[~np.isin(ids, alive, assume_unique=True)]

    def _replaced(self) -> bool:
        if self._file is None:
            return self._path is not None and self._path.exists()
        return self._file.replaced()

    def _reload(self) -> None:
        assert self._file is not None
        try:
            self._file.reload()
        except StaleIndex:
            self._version = None
        if len(self._tail) and self._file.last >= self._tail.ids()[0]:
            self._version = None  # another process has appended what our tail holds

    def _reopen(self, db: sqlite3.Connection) -> None:
        self.close()
        if self._path is None:
            return
        identity = self._identity(db)
        for pause in (0.0, 0.02, 0.1):  # another process may be erasing from it
            time.sleep(pause)
            try:
                self._file = IndexFile(self._path, identity)
            except StaleIndex:
                continue
            except (OSError, ValueError):  # none yet, or one that cannot be mapped
                return
            self._quantizer = self._file.quantizer
            return

    def _load(self, db: sqlite3.Connection, templates: int) -> None:
        """Codes of all that is newer than what is held; of everything, when they do not fit."""
        if self._quantizer is not None and self._quantizer.outgrown(templates):
            self._quantizer = None
        if self._quantizer is None:
            if not templates:
                return
            self._quantizer = self._fit(db, templates)
            self._start_again()
            if self._quantizer is None:
                return
        self._extend(db, self._quantizer)

    def _extend(self, db: sqlite3.Connection, quantizer: Quantizer) -> None:
        """Add what is newer to the tail."""
        last = self._tail.last or (self._file.last if self._file else 0)
        while page := sound.templates_after(db, self._collection, last, _BATCH):
            read, last = page
            rows = [row for row in read.told("template") if not row[3]]
            if rows:
                ids, subjects, vectors = self._decode(rows)
                self._tail.append(Block(ids, subjects, *quantizer.encode(vectors)))

    def _fit(self, db: sqlite3.Connection, templates: int) -> Quantizer | None:
        """To templates evenly spread over the collection; None when none is sound."""
        ids = np.array(self._rows.positives(db), np.int64)
        if len(ids) > _SAMPLE:
            ids = ids[np.linspace(0, len(ids) - 1, _SAMPLE).astype(np.int64)]
        sample = sound.by_key(db, TEMPLATE, ids.tolist()).rows
        return Quantizer.fit(self._decode(sample)[2], templates) if sample else None
