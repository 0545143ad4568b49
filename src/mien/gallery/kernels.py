"""Which templates may be among the best for a few probes, from four-bit codes.

The upper bound of the score of template i and probe p is

    terms[0, i] * (codes_i . codes_p + weights[p, 0]) + terms[1, i] * weights[p, 1]
                                                      + terms[2, i] * weights[p, 2]

and a kernel finds those that reach the mark of their probe. The product of codes is a whole number,
which float32 holds exactly up to 8,800 dimensions, and what follows is done in this order: every
kernel gives the same bits. The one of the extra `fast` is compiled for the
processor at hand (`mien.gallery.machine_code`). It keeps nothing but what reaches a mark, so it
reads templates about as fast as memory gives them.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.gallery.machine_code import program
from mien.gallery.quantizer import Codes, Probes, Terms


class Hits(NamedTuple):
    """Templates and probes (by position) whose upper bound reaches the mark, in any order."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    bounds: NDArray[np.float32]


Marks = NDArray[np.float32]  # (p): of each probe
Scan = Callable[[Terms, Codes, Marks], Hits]
Kernel = Callable[[Probes], Scan]
"""Given p probes, a function from terms (3, n), codes (n, width) and marks (p) to hits."""

_IN_CACHE = 1 << 17  # float32 values of a block that stays in the second-level cache
_TOGETHER = 8  # probes that are compared with some templates while these are in registers


def numpy_kernel(probes: Probes) -> Scan:
    """What every machine has."""
    width = probes.codes.shape[1] // 2
    low, high = np.split(probes.codes.astype(np.float32), 2, axis=1)
    shift, first, second = probes.weights.T
    height = max(1, _IN_CACHE // width)

    def scan(terms: Terms, codes: Codes, marks: Marks) -> Hits:
        out = np.empty((len(codes), len(low)), np.float32)
        for i in range(0, len(codes), height):
            block, part = codes[i : i + height], out[i : i + height]
            lower, upper = (block & 15).astype(np.float32), (block >> 4).astype(np.float32)
            if len(low) == 1:  # a matrix product this small waits for threads longer than it runs
                np.add(np.vecdot(lower, low[0]), np.vecdot(upper, high[0]), out=part[:, 0])
            else:
                np.matmul(lower, low.T, out=part)
                part += upper @ high.T
        out += shift
        out *= terms[0][:, None]
        out += terms[1][:, None] * first + terms[2][:, None] * second
        rows, columns = np.divmod(np.flatnonzero(out >= marks), len(low))
        return Hits(rows, columns, out[rows, columns])

    return scan


def compiled_kernel(probes: Probes) -> Scan:
    """Needs llvmlite; for multiples of 128 dimensions, else NumPy's."""
    count, width = len(probes.codes), probes.codes.shape[1] // 2
    if width % 64:
        return numpy_kernel(probes)
    together = min(_TOGETHER, 1 << (count - 1).bit_length())
    groups = -(-count // together)
    codes = np.zeros((groups * together, 2 * width), np.int8)
    codes[:count] = probes.codes
    if together > 1:  # four bytes of every probe in turn, of the low and of the high dimensions
        codes = codes.reshape(groups, together, 2, width // 4, 4).transpose(0, 3, 2, 1, 4)
    codes = np.ascontiguousarray(codes)
    weights = np.zeros((groups * together, 4), np.float32)
    weights[:count, :3], weights[count:, 3] = probes.weights, np.inf  # no template reaches that
    lanes, run = _compile(width, together)
    asked, weighing = codes.ctypes, weights.ctypes  # which keep the arrays

    def scan(terms: Terms, templates: Codes, marks: Marks) -> Hits:
        templates = np.ascontiguousarray(templates)
        if terms.strides[1] != terms.itemsize:
            terms = np.ascontiguousarray(terms)
        whole = len(templates) // lanes * lanes
        weights[:count, 3] = marks
        found = np.empty((3, whole * count), np.int32)
        term, out = ((array.ctypes.data, array.strides[0]) for array in (terms, found))
        size = run(
            templates.ctypes.data, whole, *(term[0] + row * term[1] for row in range(3)),
            asked.data, weighing.data, groups, *(out[0] + row * out[1] for row in range(3)),
        )  # fmt: skip
        rows, columns = found[:2, :size].astype(np.int64)
        bounds = found[2, :size].view(np.float32)
        if whole < len(templates):
            rest = numpy_kernel(probes)(terms[:, whole:], templates[whole:], marks)
            rows = np.concatenate([rows, rest.rows + whole])
            columns = np.concatenate([columns, rest.columns])
            bounds = np.concatenate([bounds, rest.bounds])
        return Hits(rows, columns, bounds)

    return scan


@cache
def fastest_kernel() -> Kernel:
    """The compiled one, if llvmlite is there."""
    try:
        import llvmlite.binding  # noqa: F401
    except ImportError:
        return numpy_kernel
    return compiled_kernel


_LOCK = threading.Lock()
_ENGINES: dict[tuple[int, int], tuple[object, int, Callable[..., int]]] = {}


def _compile(width: int, together: int) -> tuple[int, Callable[..., int]]:
    """Templates at a time, and the machine code, made once in a process: about 50 ms."""
    with _LOCK:
        if (width, together) not in _ENGINES:
            from llvmlite import binding

            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
            features = binding.get_host_cpu_features()
            lanes, instruction = _dot_product(features)
            module = binding.parse_assembly(program(width, together, lanes, instruction))
            module.verify()
            machine = binding.Target.from_default_triple().create_target_machine(
                cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=3
            )
            engine = binding.create_mcjit_compiler(module, machine)
            engine.finalize_object()
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            kind = ctypes.CFUNCTYPE(number, pointer, number, *[pointer] * 5, number, *[pointer] * 3)
            run = kind(engine.get_function_address("scan"))
            _ENGINES[width, together] = engine, lanes, run  # code lives as long as its engine
        return _ENGINES[width, together][1:]


def _dot_product(features: Mapping[str, bool]) -> tuple[int, str]:
    """How many sums of four products of bytes a vector holds, and the instruction that makes them
    (of x86, whose first bytes are unsigned, or of ARM): none, and LLVM finds another way."""
    if features.get("avx512vnni"):
        return 16, "llvm.x86.avx512.vpdpbusd.512"
    if features.get("avxvnni"):
        return 8, "llvm.x86.avx512.vpdpbusd.256"
    if features.get("dotprod"):
        return 4, "llvm.aarch64.neon.sdot.v4i32.v16i8"
    return (8 if features.get("avx2") else 4), ""
