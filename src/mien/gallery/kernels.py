"""Upper bounds of the scores of a few probes with many templates, from four-bit codes.

Of template i and probe p that is

    terms[0, i] * (codes_i . codes_p + weights[p, 0]) + terms[1, i] * weights[p, 1]
                                                      + terms[2, i] * weights[p, 2]

The product of codes is a whole number, which float32 holds exactly up to 8,800 dimensions, and
what follows is done in this order: every kernel gives the same bits. The one of the extra `fast` is
a page of LLVM's language, which llvmlite compiles for the processor at hand (with its int8 dot
products, where there are such); it reads templates about as fast as memory gives them.
"""

import ctypes
import threading
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mien.gallery.quantizer import Codes, Probes, Terms

Scores = NDArray[np.float32]  # (n, p): one row a template, one column a probe
Scan = Callable[[Terms, Codes], Scores]
Kernel = Callable[[Probes], Scan]
"""Given p probes, a function from terms (3, n) and codes (n, width) to upper bounds."""

_IN_CACHE = 1 << 17  # float32 values of a block that stays in the second-level cache
_TOGETHER = 4  # probes that are compared with a template while it is in registers
_BLOCK = 4096  # templates that stay in the second-level cache while all probes come by


def numpy_kernel(probes: Probes) -> Scan:
    """What every machine has."""
    width = probes.codes.shape[1] // 2
    low, high = np.split(probes.codes.astype(np.float32), 2, axis=1)
    shift, first, second = probes.weights.T
    height = max(1, _IN_CACHE // width)

    def scan(terms: Terms, codes: Codes) -> Scores:
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
        return out

    return scan


def compiled_kernel(probes: Probes) -> Scan:
    """Needs llvmlite; for multiples of 128 dimensions, else NumPy's."""
    count, width = len(probes.codes), probes.codes.shape[1] // 2
    if width % 64:
        return numpy_kernel(probes)
    together = 1 if count == 1 else _TOGETHER
    piece, groups = _piece(width), -(-count // together)
    codes = np.zeros((groups * together, 2 * width), np.int8)
    codes[:count] = probes.codes
    codes = codes.reshape(-1, 2, width // piece, piece).transpose(0, 2, 1, 3)
    codes = np.ascontiguousarray(codes).reshape(groups, -1)
    weights = np.zeros((groups, together, 3), np.float32)
    weights.reshape(-1, 3)[:count] = probes.weights
    run = _compile(width, together)

    def scan(terms: Terms, templates: Codes) -> Scores:
        templates = np.ascontiguousarray(templates)
        each = [np.ascontiguousarray(term).ctypes.data for term in terms]
        out = np.empty((len(templates), groups * together), np.float32)
        at, to = templates.ctypes.data, out.ctypes.data
        height = len(templates) if groups == 1 else _BLOCK
        for i in range(0, len(templates), height):
            for group in range(groups):
                run(
                    at + i * width, min(height, len(templates) - i), *(t + 4 * i for t in each),
                    codes[group].ctypes.data, weights[group].ctypes.data,
                    to + 4 * (i * groups + group) * together, groups * together,
                )  # fmt: skip
        return out[:, :count]

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
_ENGINES: dict[tuple[int, int], tuple[object, Callable[..., None]]] = {}


def _compile(width: int, together: int) -> Callable[..., None]:
    """The machine code, made once in a process: about 50 ms."""
    with _LOCK:
        if (width, together) not in _ENGINES:
            from llvmlite import binding

            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
            module = binding.parse_assembly(_program(width, together))
            module.verify()
            machine = binding.Target.from_default_triple().create_target_machine(
                cpu=binding.get_host_cpu_name(),
                features=binding.get_host_cpu_features().flatten(),
                opt=3,
            )
            engine = binding.create_mcjit_compiler(module, machine)
            engine.finalize_object()
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            kind = ctypes.CFUNCTYPE(None, pointer, number, *[pointer] * 6, number)
            run = kind(engine.get_function_address("scan"))
            _ENGINES[width, together] = engine, run  # the code lives as long as its engine
        return _ENGINES[width, together][1]


def _piece(width: int) -> int:
    """Bytes of a template that are one vector of the program: a power of two from 64 to 256."""
    return min(256, width & -width)


def _program(width: int, together: int) -> str:
    """`scan(codes, rows, terms (three), probes, weights, out, stride)`, of `together` probes.

    The bits of a piece are taken apart into one vector of low and high ones, multiplied with the
    probe's and added up. LLVM knows this pattern, a sum of products of unsigned and signed bytes,
    as the instruction that it is on many processors, as long as no optimisation comes before it.
    """
    piece = _piece(width)
    both = 2 * piece
    bytes_, pair, ints = f"<{piece} x i8>", f"<{both} x i8>", f"<{both} x i32>"
    order = ", ".join(f"i32 {i}" for i in range(both))
    lines = [
        f"declare i32 @llvm.vector.reduce.add.v{both}i32({ints})",
        "define void @scan(ptr %codes, i64 %rows, ptr %terms0, ptr %terms1, ptr %terms2, "
        "ptr %probes, ptr %weights, ptr %out, i64 %stride) {",
        "entry:",
        "  br label %each",
        "each:",
        "  %i = phi i64 [0, %entry], [%next, %each]",
        f"  %at = mul i64 %i, {width}",
        "  %row = getelementptr i8, ptr %codes, i64 %at",
        "  %place = mul i64 %i, %stride",
        "  %to = getelementptr float, ptr %out, i64 %place",
    ]
    for t in range(3):
        lines += [
            f"  %e{t} = getelementptr float, ptr %terms{t}, i64 %i",
            f"  %term{t} = load float, ptr %e{t}",
        ]
    sums = ["0"] * together
    for n in range(width // piece):
        lines += [
            f"  %p{n} = getelementptr i8, ptr %row, i64 {n * piece}",
            f"  %c{n} = load {bytes_}, ptr %p{n}, align 1",
            f"  %l{n} = and {bytes_} %c{n}, <{', '.join(['i8 15'] * piece)}>",
            f"  %h{n} = lshr {bytes_} %c{n}, <{', '.join(['i8 4'] * piece)}>",
            f"  %b{n} = shufflevector {bytes_} %l{n}, {bytes_} %h{n}, <{both} x i32> <{order}>",
            f"  %u{n} = zext {pair} %b{n} to {ints}",
        ]
        for k in range(together):
            x = f"{n}.{k}"
            lines += [
                f"  %a{x} = getelementptr i8, ptr %probes, i64 {2 * k * width + n * both}",
                f"  %q{x} = load {pair}, ptr %a{x}, align 1",
                f"  %s{x} = sext {pair} %q{x} to {ints}",
                f"  %m{x} = mul nsw {ints} %u{n}, %s{x}",
                f"  %r{x} = call i32 @llvm.vector.reduce.add.v{both}i32({ints} %m{x})",
                f"  %t{x} = add i32 {sums[k]}, %r{x}",
            ]
            sums[k] = f"%t{x}"
    for k in range(together):
        lines += [
            f"  %f{k} = sitofp i32 {sums[k]} to float",
            *(
                line
                for t in range(3)
                for line in (
                    f"  %g{k}.{t} = getelementptr float, ptr %weights, i64 {3 * k + t}",
                    f"  %w{k}.{t} = load float, ptr %g{k}.{t}",
                )
            ),
            f"  %shifted{k} = fadd float %f{k}, %w{k}.0",
            f"  %first{k} = fmul float %shifted{k}, %term0",
            f"  %second{k} = fmul float %term1, %w{k}.1",
            f"  %third{k} = fmul float %term2, %w{k}.2",
            f"  %rest{k} = fadd float %second{k}, %third{k}",
            f"  %bound{k} = fadd float %first{k}, %rest{k}",
            f"  %o{k} = getelementptr float, ptr %to, i64 {k}",
            f"  store float %bound{k}, ptr %o{k}",
        ]
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %rows",
        "  br i1 %more, label %each, label %done",
        "done:",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)
