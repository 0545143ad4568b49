"""Search, enrolment, opening and removal in galleries, beside physical limits and rivals.

python benchmarks/gallery.py [--sizes 10000,100000,1000000] [--dimensions 128,512] [--folder DIR]

Everything runs in one process on one thread, one query of each contender in turn, so that what
else the machine does harms all alike: trust ratios and CPU milliseconds. Vectors are made: people
with five faces in eight groups, an uneven spectrum, and for 128 dimensions the squeeze of the
embedded default (strangers at 0.83). `--vectors FILE.npz` (array `vector`, as `mien embed` and
`mien gallery export` write it) measures real ones instead: a tenth becomes the probes.
Rivals (`benchmarks/gallery_rivals.py`) take part when they can be imported; LanceDB, which takes a
second for an answer from a million, for fewer rounds, as it says. `x read` is the time of one core
to read the codes of all templates at four bits a dimension, which is what limits any exact scan.
A million faces of 512 numbers need 8 GB of memory and 11 GB of disk; 4 GB of each with `--alone`,
which leaves the rivals and mien's own NumPy kernel out.
"""

import os

for _library in ("OMP", "OPENBLAS", "MKL", "RAYON"):  # read when NumPy is imported
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gallery_rivals import LIMIT, Search, Vectors, build
from numpy.typing import NDArray

from mien.gallery import Entry, Where
from mien.gallery.kernels import fastest_kernel, numpy_kernel
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding

FACES = 5  # of each person
_SECONDS = 15.0  # what a contender gets for its rounds: slow ones do fewer


def people(count: int, dimensions: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Templates, and 300 probes: new faces of 270 of the people and 30 strangers.

    After the first 50,000 come the same with other signs of the coordinates, a mirror image of
    everyone for each: as unlike them as strangers are, and made in a tenth of the time.
    """
    random = np.random.default_rng(seed)
    spectrum = np.linspace(1.6, 0.4, dimensions, dtype=np.float32)
    groups = random.standard_normal((8, dimensions), dtype=np.float32)
    common = random.standard_normal(dimensions).astype(np.float32)
    common *= np.sqrt(0.83 if dimensions == 128 else 0.0) / np.linalg.norm(common)

    def identities(number: int) -> Vectors:
        own = random.standard_normal((number, dimensions), dtype=np.float32) * spectrum
        return own + 0.15 * groups[random.integers(0, 8, number)]

    def faces(of: Vectors) -> Vectors:
        noise = random.standard_normal(of.shape, dtype=np.float32) * spectrum
        return normalized(0.81 * of + 0.59 * noise)

    def squeezed(rows: Vectors) -> Vectors:
        return normalized(np.sqrt(1 - common @ common) * rows + common) if common.any() else rows

    enrolled = identities(min(50_000, count) // FACES)
    first = faces(np.repeat(enrolled, FACES, axis=0))
    signs = random.choice(np.float32([-1, 1]), (-(-count // len(first)), dimensions))
    templates = np.empty((count, dimensions), np.float32)
    for number, sign in enumerate(signs):
        start = number * len(first)
        templates[start : start + len(first)] = squeezed(first[: count - start] * sign)
    again = faces(enrolled[random.integers(0, len(enrolled), 270)])
    again *= signs[random.integers(0, len(signs), 270)]
    return templates, squeezed(np.concatenate([again, faces(identities(30))]))


def normalized(rows: Vectors) -> Vectors:
    found: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def plain(templates: Vectors) -> Search:
    """Float32 in NumPy."""

    def search(probes: Vectors) -> NDArray[np.int64]:
        scores = probes @ templates.T
        best = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    return search


def fill(templates: Vectors, path: Path) -> float:
    """A gallery of them, and how many faces a second were enrolled."""
    store = SqliteStore(path)
    taken = 0.0
    for first in range(0, len(templates), 2000):
        entries = [  # one template a subject: the rows of the rivals can then be compared
            Entry(str(row), Embedding(templates[row], "bench"), "x.jpg", 0.5,
                  {"site": str(row % 100)})
            for row in range(first, min(len(templates), first + 2000))
        ]  # fmt: skip
        start = time.perf_counter()
        store.add(entries)
        taken += time.perf_counter() - start
    store.close()
    return len(templates) / taken


def enrolment(templates: Vectors, folder: Path) -> None:
    """With and without metadata, in turn, so that what else the machine does harms both alike."""
    count = min(len(templates), 40_000) // 2000 * 2000
    stores = [SqliteStore(folder / f"enrol-{name}.mien") for name in ("without", "with")]
    wall, cpu = np.zeros((2, count // 2000)), np.zeros((2, count // 2000))
    for number, first in enumerate(range(0, count, 2000)):
        for which, store in enumerate(stores):
            entries = [
                Entry(str(row), Embedding(templates[row], "bench"), "x.jpg", 0.5,
                      {"site": str(row % 100)} if which else {})
                for row in range(first, first + 2000)
            ]  # fmt: skip
            start, start_cpu = time.perf_counter(), time.process_time()
            store.add(entries)
            wall[which, number] = time.perf_counter() - start
            cpu[which, number] = time.process_time() - start_cpu
    for which, store in enumerate(stores):
        store.close()
        print(f"enrolment            {count / wall[which].sum():12,.0f} faces/s "
              f"{'with one' if which else 'without'} metadata, 2,000 a transaction, forced to disk "
              f"({count / cpu[which].sum():,.0f} a second of processor time)",
              flush=True)  # fmt: skip
    for file in folder.glob("enrol-*.mien*"):
        file.unlink()


def costs_of_mien(path: Path, probes: Vectors, count: int) -> None:
    """One enrolment and one removal, the index, disk, memory and opening."""
    store = SqliteStore(path)
    singles, removals = [], []
    for number in range(20):
        start = time.perf_counter()
        store.add([Entry(f"s{number}", Embedding(probes[number], "bench"), "x", 0.5)])
        singles.append(time.perf_counter() - start)
    start = time.perf_counter()
    store.search(probes[:1], 1)
    print(f"first index          {time.perf_counter() - start:12.2f} s")
    for number in range(20):
        start = time.perf_counter()
        store.remove(f"s{number}")
        removals.append(time.perf_counter() - start)
    store.close()
    print(f"one enrolment        {np.median(singles) * 1e3:12.2f} ms (median of 20)")
    print(f"one removal          {np.median(removals) * 1e3:12.2f} ms (median of 20)")
    disk, index = (
        sum(file.stat().st_blocks * 512 for file in path.parent.glob(pattern))
        for pattern in (f"{path.name}*", f"{path.name}-index/*")
    )
    print(f"disk                 {(disk + index) / count:12,.0f} bytes a face, of which index "
          f"{index / count:,.0f}")  # fmt: skip
    opened = []
    for _ in range(5):
        before, start = _private_bytes(), time.perf_counter()
        store = SqliteStore(path)
        store.search(probes[:1], 1)
        opened.append(time.perf_counter() - start)
        own = _private_bytes() - before
        store.close()
    print(f"open + first answer  {np.median(opened):12.3f} s (median of 5), {own / 1e6:,.0f} MB of "
          f"its own memory, {index / 1e6:,.0f} MB shared with other processes",
          flush=True)  # fmt: skip


def measure(templates: Vectors, probes: Vectors, folder: Path, rounds: int, alone: bool) -> None:
    count, dimensions = templates.shape
    print(f"\n## {count:,} templates of {dimensions} numbers\n", flush=True)
    path = folder / "bench.mien"
    enrolment(templates, folder)
    print(f"enrolment of all     {fill(templates, path):12,.0f} faces/s with one metadata")
    costs_of_mien(path, probes, count)

    contenders: dict[str, Search] = {}
    stores = []
    kernels = {"mien": numpy_kernel, "mien[fast]": fastest_kernel()}
    if alone or fastest_kernel() is numpy_kernel:
        kernels.pop("mien" if alone else "mien[fast]")
    for name, kernel in kernels.items():
        stores.append(SqliteStore(path, kernel=kernel))
        contenders[name] = _rows_of(stores[-1])
    fast = list(contenders)[-1]
    contenders[f"{fast}, only the best"] = _rows_of(stores[-1], limit=1)
    contenders[f"{fast}, the best five"] = _rows_of(stores[-1], limit=5)
    contenders[f"{fast}, filter: 1 %"] = _rows_of(stores[-1], {"site": "7"})
    contenders[f"{fast}, filter: 50 %"] = _rows_of(
        stores[-1], {"site": [str(site) for site in range(50)]}
    )
    contenders["NumPy float32"] = plain(templates)
    rivals, costs = ({}, {}) if alone else build(templates, folder, _private_bytes)
    contenders |= {name: rival.search for name, rival in rivals.items()}
    probes = probes[: max(rounds, 3 * 64 if count <= 100_000 else 64)]
    exact = contenders["NumPy float32"](probes)
    memory = np.ones(count * dimensions // 16, np.int64)
    limit = "read, 4 bits a dimension"
    contenders = {limit: lambda probes: memory.max()} | contenders

    wall_ms: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_ms: dict[str, list[float]] = {name: [] for name in contenders}
    rows: dict[str, list[NDArray[np.int64]]] = {name: [] for name in contenders}
    asked: dict[str, int] = {}
    for name, search in contenders.items():
        warming = []
        for _ in range(9 if "mien" in name else 2):  # then mien has a copy of the index in memory
            start = time.perf_counter()
            search(probes[:1])
            warming.append(time.perf_counter() - start)
        asked[name] = min(rounds, max(8, int(_SECONDS / min(warming))))
    for number in range(rounds):
        probe = probes[number % len(probes)][None]
        for name, search in contenders.items():
            if number < asked[name]:
                start, start_cpu = time.perf_counter(), time.process_time()
                found = search(probe)
                wall_ms[name].append((time.perf_counter() - start) * 1e3)
                cpu_ms[name].append((time.process_time() - start_cpu) * 1e3)
                if name != limit:
                    rows[name].append(found[0])
    batches: dict[str, list[float]] = {name: [] for name in contenders}
    for first in range(0, (3 if count <= 100_000 else 1) * 64, 64):
        for name, search in contenders.items():
            start_cpu = time.process_time()
            search(probes[first : first + 64])
            batches[name].append((time.process_time() - start_cpu) / 64 * 1e3)
    reference = float(np.median(cpu_ms[limit]))
    print(f"\n{'one query':<31}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'x read':>9}"
          f"{'recall@1':>10}{'@10':>8}{'of 64: CPU ms':>15}{'worst':>8}")  # fmt: skip
    for name, times in wall_ms.items():
        cpu = float(np.median(cpu_ms[name]))
        line = (f"{name:<31}{np.median(times):9.2f}{np.quantile(times, 0.99):9.2f}"
                f"{cpu:9.2f}{cpu / reference:9.2f}")  # fmt: skip
        if name != limit:
            recalls = f"{'':18}"
            if "," not in name:
                truth = exact[np.arange(asked[name]) % len(probes)]
                pairs = list(zip(rows[name], truth, strict=True))
                first = np.mean([a[0] == b[0] for a, b in pairs])
                recalls = f"{first:10.4f}{np.mean([_shared(a, b) for a, b in pairs]):8.4f}"
            line += f"{recalls}{np.median(batches[name]):15.2f}{max(batches[name]):8.2f}"
        print(line + (f"  ({asked[name]} rounds)" if asked[name] < rounds else ""), flush=True)
    for each in stores:
        each.close()
    if costs:
        print(f"\n{'rival':<31}{'faces/s':>11}{'memory a face':>15}{'disk a face':>13}"
              f"{'open s':>9}{'remove ms':>11}")  # fmt: skip
    for name, cost in costs.items():
        remove, removals = rivals[name].remove, []
        for row in range(20 if remove else 0):
            start = time.perf_counter()
            remove(row * 7)
            removals.append(time.perf_counter() - start)
        print(f"{name:<31}{count / cost.build_seconds:11,.0f}{cost.memory / count:15,.0f}"
              f"{cost.disk / count:13,.0f}{cost.open_seconds:9.2f}"
              + (f"{np.median(removals) * 1e3:11.2f}" if removals else f"{'-':>11}"))  # fmt: skip


def _shared(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return len(set(found.tolist()) & set(truth.tolist())) / LIMIT


def _rows_of(store: SqliteStore, where: Where | None = None, limit: int = LIMIT) -> Search:
    def search(probes: Vectors) -> NDArray[np.int64]:
        return np.array(
            [
                [int(match.subject) for match in found]
                for found in store.search(probes, limit, where)
            ]
        )

    return search


def _private_bytes() -> float:
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return sum(int(line.split()[1]) for line in text.split("\n") if "Anonymous:" in line) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--dimensions", default="128,512")
    parser.add_argument("--vectors", type=Path, help="real vectors instead of made ones")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--alone", action="store_true", help="no rivals")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
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
            measure(*make(), folder, arguments.rounds, arguments.alone)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
