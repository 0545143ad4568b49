"""Templates as four bits a dimension, with what is known of the error that this makes.

Embeddings of some models lie close together (strangers of the default one have a cosine of 0.83),
so a template x and a probe q are taken from the mean m of the gallery. Of their inner product

    q.x  =  (q - m).(x - m)  +  m.x  +  a number that is the same for all templates

the second term is kept as it is and the first is estimated from codes. Both differences are turned
by one fixed rotation, after which every coordinate of every vector is as good as normally
distributed, and each coordinate of the template becomes one of 16 levels. The levels are scaled so
that x - m itself is estimated without error; then the error for a probe comes only from the part
of it across x - m, and under a random rotation has mean 0 and standard deviation

    |q - m| |x - m| sqrt(1 / cos^2 - 1) / sqrt(dim - 1)

where cos is between x - m and its levels. (Gao and Long, RaBitQ, SIGMOD 2024, prove this for such
estimators; the rotation by cosine transforms and signs is that of Ailon and Chazelle, 2009.) So
each template has its own bound, whatever its length and however far out it lies.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
"""(n, w), w = ceil(dim / 2): byte j has dimension j in its low four bits and j + w in its high."""
Terms = NDArray[np.float32]
"""(3, n): what multiplies the estimate of each template, what is added, its standard deviation."""

_CERTAIN = 3.0  # standard deviations on either side: 4.2 of the difference of two scores, so that
# of 80,000 pairs that are equally close to a probe one is taken in the wrong order
_STEP = 0.335  # between levels, in standard deviations of a coordinate: best of 16 (Max, 1960)
_MIDDLE = 7.5  # codes 0 to 15 stand for -7.5 to 7.5 steps
_COARSE = 0.1  # error of a template relative to its length, at least: 0.107 in many dimensions
_LARGEST = 127
_IN_CACHE = 512  # templates that are coded together
_FEW = 256  # templates from which a mean is not yet worth estimating
_MANY = 1 << 16  # templates whose mean will not change any more


@dataclass(frozen=True, eq=False, slots=True)
class Probes:
    """Probes for a scan: codes (p, 2 * width) in -127 to 127, and the numbers that go with them.

    `weights` (p, 3) say how the upper bound of a score comes from the product of codes and the
    terms of a template (see `mien.gallery.kernels`); `margins` (p) times a template's standard
    deviation is how far below it the lower bound lies. Each probe has units of its own.
    """

    codes: NDArray[np.int8]
    weights: NDArray[np.float32]
    margins: NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Quantizer:
    """Codes relative to a mean (dim), that of `fitted` templates. A poor mean only costs time."""

    mean: NDArray[np.float32]
    fitted: int

    @classmethod
    def fit(cls, sample: NDArray[np.float32], count: int) -> "Quantizer":
        """A quantiser for `count` templates like the ones in the sample (n, dim)."""
        if len(sample) < _FEW:
            return cls(np.zeros(sample.shape[1], np.float32), count)
        return cls(sample.mean(axis=0, dtype=np.float64).astype(np.float32), count)

    def outgrown(self, count: int) -> bool:
        """Whether `count` templates are so many more that fitting again pays."""
        return self.fitted < _MANY and count >= 4 * max(self.fitted, _FEW // 4)

    def encode(self, vectors: NDArray[np.float32]) -> tuple[Terms, Codes]:
        """Terms and codes of templates (n, dim)."""
        dimensions = vectors.shape[1]
        width = (dimensions + 1) // 2
        terms = np.empty((3, len(vectors)), np.float32)
        codes = np.zeros((len(vectors), width), np.uint8)
        turn = _rotation(dimensions).T
        middle = self.mean @ turn
        for start in range(0, len(vectors), _IN_CACHE):
            rows = slice(start, start + _IN_CACHE)
            turned = vectors[rows] @ turn - middle
            squares = np.vecdot(turned, turned)
            steps = _STEP * np.sqrt(np.maximum(squares, 1e-20) / dimensions)
            turned /= steps[:, None]
            found = np.clip(turned + np.float32(8), 0, np.float32(15.5)).astype(np.uint8)
            levels = found - np.float32(_MIDDLE)
            along = np.maximum(np.vecdot(levels, turned), np.float32(1e-20))
            squares /= steps**2
            spread = np.maximum(np.vecdot(levels, levels) * squares / along**2 - 1, _COARSE**2)
            terms[0, rows] = steps * squares / along
            terms[1, rows] = vectors[rows] @ self.mean
            terms[2, rows] = steps * np.sqrt(squares * spread / max(1, dimensions - 1))
            codes[rows, : dimensions - width] = found[:, width:] << 4
            codes[rows] |= found[:, :width]
        return terms, codes

    def probes(self, vectors: NDArray[np.float32]) -> Probes:
        """Probes (p, dim) as the codes and weights of a scan."""
        count, dimensions = vectors.shape
        turned = (vectors - self.mean) @ _rotation(dimensions).T
        lengths = np.sqrt(np.vecdot(turned, turned))
        steps = np.maximum(np.abs(turned).max(axis=1), np.float32(1e-9)) / np.float32(_LARGEST)
        codes = np.zeros((count, (dimensions + 1) // 2 * 2), np.int8)
        codes[:, :dimensions] = np.rint(turned / steps[:, None])
        rounding = steps * np.float32(np.sqrt(dimensions / 12) / _COARSE)
        margins = np.float32(_CERTAIN) * np.hypot(lengths, rounding) / steps
        weights = np.empty((count, 3), np.float32)
        weights[:, 0] = -_MIDDLE * codes.sum(axis=1, dtype=np.int64)
        weights[:, 1] = 1 / steps
        weights[:, 2] = margins
        return Probes(codes, weights, 2 * margins)


@lru_cache(maxsize=4)
def _rotation(dimensions: int) -> NDArray[np.float32]:
    """Random signs and a cosine transform, twice: the same matrix everywhere and for ever."""
    k, j = np.ogrid[:dimensions, :dimensions]
    cosines = np.sqrt(2 / dimensions) * np.cos(np.pi * (j + 0.5) * k / dimensions)
    cosines[0] /= np.sqrt(2)
    raw = hashlib.shake_256(b"mien rotation").digest(2 * dimensions)
    first, second = np.where(np.frombuffer(raw, np.uint8) < 128, 1.0, -1.0).reshape(2, dimensions)
    turned: NDArray[np.float32] = ((cosines * second) @ (cosines * first)).astype(np.float32)
    return turned
