"""The coarse stage of a search: every template as one byte a dimension, and who may be the best.

Templates are kept as int8 codes of their distance from the mean of the gallery. Embeddings of some
models lie close together (strangers of the default one have a cosine of 0.83), and the codes then
spend their 256 values on the small part that tells people apart. The inner product of a probe with
a template is

    q.x  =  q.mean + q.(x - mean)  ~  q.mean + (step_q * step_x) * (codes_q . codes_x)

of which the first term and the factor are the same for all templates, so the integers in the last
parentheses rank them. What was rounded away has a known size: the rows whose integer comes within
`slack` of the one that would be enough are all kept, and the caller compares their vectors exactly.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]  # (n, dim)
Scores = NDArray[np.number]  # (n, p): one row a template, one column a probe
Scan = Callable[[Codes], Scores]
Kernel = Callable[[Codes], Scan]
"""Given the codes of p probes, a function from template codes (n, dim) to integers (n, p)."""

_CERTAIN = 6.0  # standard deviations of the rounding error that `slack` allows for
_LARGEST = 127
_HEADROOM = 1.5  # room for templates farther from the mean than any of the sample
_FEW = 256  # templates from which a mean is not yet worth estimating
_MANY = 1 << 16  # templates whose mean will not change any more
_IN_CACHE = 1 << 18  # float32 values of a block that stays in the second-level cache


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Vectors to codes: `codes = round((vector - mean) / step)`, fitted to `fitted` templates."""

    mean: NDArray[np.float32]
    step: float
    fitted: int

    @classmethod
    def fit(cls, sample: NDArray[np.float32], count: int) -> "Quantizer":
        """A quantiser for `count` templates like the ones in the sample (n, dim).

        For a handful there is no mean yet, and the one returned fits every unit vector.
        """
        if len(sample) < _FEW:
            return cls(np.zeros(sample.shape[1], np.float32), 1.0 / _LARGEST, count)
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        reach = float(np.abs(sample - mean).max())
        return cls(mean, max(reach, 1e-3) * _HEADROOM / _LARGEST, count)

    def coarser(self) -> "Quantizer":
        """One that reaches twice as far."""
        return Quantizer(self.mean, 2 * self.step, self.fitted)

    def encode(self, vectors: NDArray[np.float32]) -> Codes | None:
        """Codes of templates (n, dim), or None when one is too far out: fit again."""
        scaled = np.rint((vectors - self.mean) / self.step)
        if scaled.size and np.abs(scaled).max() > _LARGEST:
            return None
        codes: Codes = scaled.astype(np.int8)
        return codes

    def outgrown(self, count: int) -> bool:
        """Whether `count` templates are so many more that fitting again pays."""
        return self.fitted < _MANY and count >= 4 * max(self.fitted, _FEW // 4)


def encode_probes(
    quantizer: Quantizer, probes: NDArray[np.float32]
) -> tuple[Codes, NDArray[np.float64]]:
    """Codes of probes (p, dim), and for each the slack in units of its integer scores.

    The rounding error of a score is a sum of `dim` independent uniform ones, of the template's
    coordinates weighted by the probe's and the other way round. A template is left out when it is
    `_CERTAIN` standard deviations of the difference of two such errors below the mark.
    """
    steps = np.maximum(np.abs(probes).max(axis=1, keepdims=True), 1e-9) / _LARGEST
    codes = np.rint(probes / steps).astype(np.int8)
    lengths = np.linalg.norm(probes, axis=1)
    spread = np.sqrt(max(0.0, 1.0 - float(quantizer.mean @ quantizer.mean)))
    error = np.hypot(quantizer.step * lengths, steps[:, 0] * max(spread, 0.25)) / np.sqrt(12)
    return codes, _CERTAIN * np.sqrt(2) * error / (steps[:, 0] * quantizer.step)


def numpy_kernel(probes: Codes) -> Scan:
    """Products in float32, which holds these integers exactly up to 1,040 dimensions."""
    left = probes.astype(np.float32)
    height = max(1, _IN_CACHE // left.shape[1])

    def scan(codes: Codes) -> Scores:
        out = np.empty((len(codes), len(left)), np.float32)
        for i in range(0, len(codes), height):
            block = codes[i : i + height].astype(np.float32)
            if len(left) == 1:  # a matrix product this small waits for threads longer than it runs
                np.vecdot(block, left[0], out=out[i : i + height, 0])
            else:
                np.matmul(block, left.T, out=out[i : i + height])
        return out

    return scan


@cache
def fastest_kernel() -> Kernel:
    """The kernel of the extra `fast`, which uses the processor's int8 instructions, else NumPy's.

    Both give the same integers.
    """
    try:
        import numkong
    except ImportError:
        return numpy_kernel

    def kernel(probes: Codes) -> Scan:
        if len(probes) == 1:  # memory-bound: the plain product reads at full speed
            return lambda codes: np.asarray(numkong.cdist(codes, probes, "dot"))
        packed = numkong.dots_pack(probes)
        return lambda codes: np.asarray(numkong.dots_packed(codes, packed))

    return kernel


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """Some templates: ids ascending, the subject of each (0 when it was removed), codes."""

    ids: NDArray[np.int64]
    subjects: NDArray[np.int64]
    codes: Codes

    def __len__(self) -> int:
        return len(self.ids)

    def among(self, allowed: NDArray[np.int64]) -> "Block":
        """Only the templates whose ids are in `allowed`, which is sorted."""
        if not len(self.ids):
            return self
        low, high = np.searchsorted(allowed, (self.ids[0], self.ids[-1] + 1))
        rows = np.searchsorted(self.ids, allowed[low:high])
        rows = rows[self.ids[np.minimum(rows, len(self.ids) - 1)] == allowed[low:high]]
        if len(rows) == len(self.ids):
            return self
        return Block(self.ids[rows], self.subjects[rows], self.codes[rows])


def candidates(
    blocks: Iterable[Block],
    quantizer: Quantizer,
    probes: NDArray[np.float32],
    limit: int,
    kernel: Kernel,
) -> list[NDArray[np.int64]]:
    """For each probe (p, dim) the ids of every template that may be the best of its subject,
    for every subject that may be among the best `limit`.

    It is slow when there are fewer than `limit` subjects.
    """
    codes, slack = encode_probes(quantizer, probes)
    scan = kernel(codes)
    best = [_Best(limit, float(margin)) for margin in slack]
    marks = np.full(len(probes), -np.inf)
    for block in _growing(blocks):
        scores = scan(block.codes)
        hits = np.flatnonzero(scores >= marks)
        at, column = np.divmod(hits, len(probes))
        alive = block.subjects[at] != 0
        at, column, found = at[alive], column[alive], scores.reshape(-1)[hits[alive]]
        for probe in np.unique(column) if len(probes) > 1 else range(1 if len(at) else 0):
            mine = column == probe if len(probes) > 1 else slice(None)
            rows = at[mine]
            marks[probe] = best[probe].take(block.ids[rows], block.subjects[rows], found[mine])
    return [each.ids for each in best]


def _growing(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same templates, starting with few: they set the mark that most others do not reach."""
    height = 1024
    for block in blocks:
        start = 0
        while start < len(block):
            stop = min(len(block), start + height)
            yield Block(block.ids[start:stop], block.subjects[start:stop], block.codes[start:stop])
            start, height = stop, height * 4


class _Best:
    """The templates seen so far that may decide who is among the best `limit` for one probe."""

    def __init__(self, limit: int, slack: float) -> None:
        self._limit = limit
        self._slack = slack
        self.ids = np.zeros(0, np.int64)
        self._subjects = np.zeros(0, np.int64)
        self._scores = np.zeros(0, np.float64)

    def take(self, ids: NDArray[np.int64], subjects: NDArray[np.int64], scores: Scores) -> float:
        """Add templates; the score that later ones must have."""
        ids = np.concatenate([self.ids, ids])
        subjects = np.concatenate([self._subjects, subjects])
        scores = np.concatenate([self._scores, scores])
        order = np.argsort(-scores, kind="stable")
        _, first, which = np.unique(subjects[order], return_index=True, return_inverse=True)
        best = scores[order[first]]  # of each subject
        mark = -np.inf
        if len(best) >= self._limit:
            mark = float(np.partition(best, -self._limit)[-self._limit]) - self._slack
        kept = order[scores[order] >= np.maximum(mark, best[which] - self._slack)]
        self.ids, self._subjects, self._scores = ids[kept], subjects[kept], scores[kept]
        return mark
