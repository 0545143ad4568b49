"""Which templates pass a filter on metadata.

What is found is remembered for the filters used last. It is never wrong later: ids only grow, the
metadata of a template never change, and what was removed is not in the index. So only the newest
templates are looked up again.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mien.gallery.rows import Rows
from mien.gallery.store import Where

_REMEMBERED = 8


def passes(metadata: Mapping[str, str], where: Where) -> bool:
    """Whether metadata have every key asked for, with the value, or one of the values, given."""
    return all(
        metadata.get(key) == wanted if isinstance(wanted, str) else metadata.get(key) in wanted
        for key, wanted in where.items()
    )


class Filters:
    """Filters of one collection."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._known: OrderedDict[tuple[tuple[str, tuple[str, ...]], ...], NDArray[np.bool_]] = (
            OrderedDict()
        )

    def allowed(self, db: sqlite3.Connection, where: Where) -> NDArray[np.bool_]:
        """For every template id from 0 to the newest, whether its metadata pass."""
        key = tuple(
            (name, (wanted,) if isinstance(wanted, str) else tuple(sorted(wanted)))
            for name, wanted in sorted(where.items())
        )
        known = self._known.pop(key, np.zeros(1, np.bool_))
        newest, last = self._rows.newest(db), len(known) - 1
        if newest > last:
            passes = np.ones(newest - last, np.bool_)
            for name, values in key:
                tagged = np.zeros(newest - last, np.bool_)
                for value in values:
                    tagged[self._rows.tagged(db, name, value, last) - last - 1] = True
                passes &= tagged
            known = np.concatenate([known, passes])
        self._known[key] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known
