"""Search, enrolment, opening and removal in galleries, beside physical limits and rivals.

python benchmarks/gallery.py [--sizes 10000,100000] [--dimensions 128,512] [--folder /var/tmp]

Everything runs in one process on one thread, one query of each contender in turn, so that what
else the machine does harms all alike: trust ratios and CPU milliseconds. Vectors are made: people
with five faces in eight groups, an uneven spectrum, and for 128 dimensions the squeeze of the
embedded default (strangers at 0.83). `--vectors FILE.npz` (array `vector`, as `mien embed` and
`mien gallery export` write it) measures real ones instead: a tenth becomes the probes.
Rivals take part when they can be imported: faiss, turbovec. A million faces of 512 numbers need
8 GB of memory and 3 GB of disk.
"""

import os

for _library in ("OMP", "OPENBLAS", "MKL", "RAYON"):  # read when NumPy is imported
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse
import importlib.util
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.gallery import Entry
from mien.gallery.scan import fastest_kernel, numpy_kernel
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding

FACES = 5  # of each person
LIMIT = 10
Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[np.int64]]  # probes (p, dim) to rows (p, LIMIT)


def people(count: int, dimensions: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Templates, and 300 probes: new faces of 270 of the people and 30 strangers."""
    random = np.random.default_rng(seed)
    spectrum = np.linspace(1.6, 0.4, dimensions, dtype=np.float32)
    groups = random.standard_normal((8, dimensions), dtype=np.float32)
    common = random.standard_normal(dimensions).astype(np.float32)
    squeeze = 0.83 if dimensions == 128 else 0.0

    def faces(of: Vectors) -> Vectors:
        noise = random.standard_normal(of.shape, dtype=np.float32) * spectrum
        each = normalized(0.81 * of + 0.59 * noise)
        return normalized(
            np.sqrt(1 - squeeze) * each + np.sqrt(squeeze) * common / np.linalg.norm(common)
        )

    def identities(number: int) -> Vectors:
        own = random.standard_normal((number, dimensions), dtype=np.float32) * spectrum
        return own + 0.15 * groups[random.integers(0, 8, number)]

    templates = np.empty((count, dimensions), np.float32)
    enrolled: list[Vectors] = []
    for start in range(0, count, 50_000):
        some = identities(min(50_000, count - start) // FACES)
        enrolled.append(some[:: max(1, len(some) // 300)])
        templates[start : start + len(some) * FACES] = faces(np.repeat(some, FACES, axis=0))
    chosen = np.concatenate(enrolled)
    chosen = chosen[random.choice(len(chosen), 270)]
    return templates, np.concatenate([faces(chosen), faces(identities(30))])


def normalized(rows: Vectors) -> Vectors:
    found: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def rivals(templates: Vectors) -> dict[str, Search]:
    found: dict[str, Search] = {}

    def plain(probes: Vectors) -> NDArray[np.int64]:
        scores = probes @ templates.T
        best = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    found["NumPy float32"] = plain
    if importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatIP(templates.shape[1])
        flat.add(templates)
        found["FAISS flat"] = lambda probes: flat.search(probes, LIMIT)[1]
    if importlib.util.find_spec("turbovec"):
        import turbovec

        quantized = turbovec.TurboQuantIndex(templates.shape[1], 4)
        quantized.add(templates)
        quantized.prepare()

        def rescored(probes: Vectors) -> NDArray[np.int64]:
            some = np.asarray(quantized.search(probes, 40)[1], np.int64)
            scores = np.einsum("pkd,pd->pk", templates[some], probes)
            order = np.argsort(-scores, axis=1)[:, :LIMIT]
            return np.take_along_axis(some, order, 1)

        found["turbovec 4-bit + rescoring"] = rescored
    return found


def measure(templates: Vectors, probes: Vectors, folder: Path, rounds: int) -> None:
    count, dimensions = templates.shape
    print(f"\n## {count:,} templates of {dimensions} numbers\n")
    path = folder / "bench.mien"
    store = SqliteStore(path)
    entries = [
        Entry(str(row), Embedding(vector, "bench"), "x.jpg", 0.5)  # one template a subject: the
        for row, vector in enumerate(templates)  # rows of the rivals can then be compared
    ]
    start = time.perf_counter()
    for first in range(0, count, 2000):
        store.add(entries[first : first + 2000])
    print(f"enrolment            {count / (time.perf_counter() - start):12,.0f} faces/s, "
          f"2,000 a transaction, forced to disk")  # fmt: skip
    del entries
    singles = []
    for number in range(20):
        start = time.perf_counter()
        store.add([Entry(f"s{number}", Embedding(probes[number], "bench"), "x", 0.5)])
        singles.append(time.perf_counter() - start)
    removals = []
    start = time.perf_counter()
    store.search(probes[:1], 1)
    print(f"first index          {time.perf_counter() - start:12.2f} s")
    for number in range(20):
        start = time.perf_counter()
        store.remove(f"s{number}")
        removals.append(time.perf_counter() - start)
    print(f"one enrolment        {np.median(singles) * 1e3:12.2f} ms (median of 20)")
    print(f"one removal          {np.median(removals) * 1e3:12.2f} ms (median of 20)")
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"disk                 {disk / count:12,.0f} bytes a face")
    store.close()
    before = _private_megabytes()
    start = time.perf_counter()
    store = SqliteStore(path)
    store.search(probes[:1], 1)
    print(f"open + first answer  {time.perf_counter() - start:12.3f} s, "
          f"{_private_megabytes() - before:,.0f} MB of its own memory")  # fmt: skip

    exact = rivals(templates)["NumPy float32"](probes)
    contenders: dict[str, Search] = {}
    stores = [store]
    kernels = {"mien": numpy_kernel}
    if fastest_kernel() is not numpy_kernel:
        kernels["mien[fast]"] = fastest_kernel()
    for name, kernel in kernels.items():
        stores.append(SqliteStore(path, kernel=kernel))
        contenders[name] = _rows_of(stores[-1])
    contenders |= rivals(templates)
    memory = np.ones(count * dimensions // 8, np.int64)
    half = memory[: max(1, len(memory) // 2)]
    limits = {"read of N x dim bytes": memory, "read of N x dim/2 bytes": half}

    wall: dict[str, list[float]] = {name: [] for name in [*limits, *contenders]}
    cpu: dict[str, list[float]] = {name: [] for name in wall}
    rows: dict[str, list[NDArray[np.int64]]] = {name: [] for name in contenders}
    for search in contenders.values():
        search(probes[:1])
    for number in range(rounds):
        probe = probes[number % len(probes)][None]
        for name in wall:
            start, start_cpu = time.perf_counter(), time.process_time()
            if name in limits:
                limits[name].max()
            else:
                rows[name].append(contenders[name](probe)[0])
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    reference = float(np.median(cpu["read of N x dim/2 bytes"]))
    print(f"\n{'one query':<28}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'x read':>9}"
          f"{'recall@1':>10}{'@10':>8}{'64: ms/q':>10}")  # fmt: skip
    batch = probes[:64]
    for name in wall:
        line = (f"{name:<28}{np.median(wall[name]) * 1e3:9.2f}"
                f"{np.quantile(wall[name], 0.99) * 1e3:9.2f}{np.median(cpu[name]) * 1e3:9.2f}"
                f"{np.median(cpu[name]) / reference:9.2f}")  # fmt: skip
        if name in contenders:
            truth = exact[np.arange(rounds) % len(probes)]
            found = np.stack(rows[name])
            first = np.mean(found[:, 0] == truth[:, 0])
            ten = np.mean([len(set(a) & set(b)) / LIMIT for a, b in zip(found, truth, strict=True)])
            times = []
            for _ in range(3):
                start_cpu = time.process_time()
                contenders[name](batch)
                times.append(time.process_time() - start_cpu)
            line += f"{first:10.4f}{ten:8.4f}{min(times) / len(batch) * 1e3:10.2f}"
        print(line)
    for each in stores:
        each.close()


def _rows_of(store: SqliteStore) -> Search:
    def search(probes: Vectors) -> NDArray[np.int64]:
        return np.array(
            [[int(match.subject) for match in found] for found in store.search(probes, LIMIT)]
        )

    return search


def _private_megabytes() -> float:
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return sum(int(line.split()[1]) for line in text.split("\n") if "Anonymous:" in line) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--dimensions", default="128,512")
    parser.add_argument("--vectors", type=Path, help="real vectors instead of made ones")
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {platform.machine()}, "
          f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, one thread")  # fmt: skip
    sets: list[Callable[[], tuple[Vectors, Vectors]]] = []
    if arguments.vectors:
        with np.load(arguments.vectors) as file:
            real = normalized(file["vector"])
        real = real[np.random.default_rng(0).permutation(len(real))]
        sets.append(lambda: (real[len(real) // 10 :], real[: len(real) // 10]))
    else:
        sets += [
            lambda count=int(count), wide=int(wide): people(count, wide)
            for wide in arguments.dimensions.split(",")
            for count in arguments.sizes.split(",")
        ]
    for make in sets:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            measure(*make(), folder, arguments.rounds)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
