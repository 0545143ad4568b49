"""Search, enrolment, opening and removal in galleries, beside physical limits and rivals.

python benchmarks/gallery.py [--sizes 10000,100000,1000000] [--dimensions 128,512] [--folder DIR]

Everything runs in one process on one thread, one query of each contender in turn, so that what
else the machine does harms all alike: trust ratios and CPU milliseconds. Vectors are made: people
with five faces in eight groups, an uneven spectrum, and for 128 dimensions the squeeze of the
embedded default (strangers at 0.83). `--vectors FILE.npz` (array `vector`, as `mien embed` and
`mien gallery export` write it) measures real ones instead: a tenth becomes the probes.
Rivals take part when they can be imported: faiss (faiss-cpu), turbovec, qdrant_edge
(qdrant-edge-py, up to 100,000 faces: it takes minutes to fill with more). They belong in an
environment of their own: they are no dependencies of mien. `x read` is the time of one core to read
the codes of all templates at four bits a dimension, which is what limits any exact scan of them.
A million faces of 512 numbers need 9 GB of memory and 4 GB of disk; half of that with `--alone`,
which leaves the rivals and mien's own NumPy kernel out.
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

from mien.gallery import Entry, Where
from mien.gallery.kernels import fastest_kernel, numpy_kernel
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding

FACES = 5  # of each person
LIMIT = 10
Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[np.int64]]  # probes (p, dim) to rows (p, LIMIT)


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


def rivals(templates: Vectors, folder: Path, alone: bool) -> dict[str, Search]:
    found: dict[str, Search] = {}

    def plain(probes: Vectors) -> NDArray[np.int64]:
        scores = probes @ templates.T
        best = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    found["NumPy float32"] = plain
    if alone:
        return found
    if importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatIP(templates.shape[1])
        flat.add(templates)
        found["FAISS flat float32"] = lambda probes: flat.search(probes, LIMIT)[1]
        half = faiss.IndexScalarQuantizer(
            templates.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        half.add(templates)
        found["FAISS flat float16"] = lambda probes: half.search(probes, LIMIT)[1]
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
    if importlib.util.find_spec("qdrant_edge") and len(templates) <= 100_000:
        found["Qdrant Edge 4-bit + rescoring"] = _qdrant(templates, folder)
    return found


def _qdrant(templates: Vectors, folder: Path) -> Search:
    """Its scan of all vectors: no graph, four bits, four times as many rescored."""
    import qdrant_edge as q

    (folder / "edge").mkdir()
    shard = q.EdgeShard.create(
        str(folder / "edge"),
        q.EdgeConfig(
            vectors={
                "face": q.EdgeVectorParams(
                    templates.shape[1], q.Distance.Dot, datatype=q.VectorStorageDatatype.Float16
                )
            },
            hnsw_config=q.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10),
            quantization_config=q.TurboQuantQuantizationConfig(
                always_ram=True, bits=q.TurboQuantBitSize.Bits4
            ),
            max_search_threads=1,
            wal_enabled=False,
        ),
    )
    for start in range(0, len(templates), 5000):
        some = templates[start : start + 5000].tolist()
        shard.update(
            q.UpdateOperation.upsert_points(
                [q.Point(start + i, {"face": vector}) for i, vector in enumerate(some)]
            )
        )
    shard.optimize()
    params = q.SearchParams(quantization=q.QuantizationSearchParams(rescore=True, oversampling=4.0))

    def search(probes: Vectors) -> NDArray[np.int64]:
        return np.array(
            [
                [
                    point.id
                    for point in shard.query(
                        q.QueryRequest(
                            LIMIT, query=q.Query.Nearest(probe, using="face"), params=params
                        )
                    )
                ]
                for probe in probes.tolist()
            ]
        )

    return search


def measure(templates: Vectors, probes: Vectors, folder: Path, rounds: int, alone: bool) -> None:
    count, dimensions = templates.shape
    print(f"\n## {count:,} templates of {dimensions} numbers\n", flush=True)
    path = folder / "bench.mien"
    store = SqliteStore(path)
    start, taken = time.perf_counter(), 0.0
    for first in range(0, count, 2000):
        making = time.perf_counter()
        entries = [  # one template a subject: the rows of the rivals can then be compared
            Entry(str(row), Embedding(templates[row], "bench"), "x.jpg", 0.5,
                  {"site": str(row % 100)})
            for row in range(first, min(count, first + 2000))
        ]  # fmt: skip
        taken += time.perf_counter() - making
        store.add(entries)
    wall = time.perf_counter() - start - taken
    print(f"enrolment            {count / wall:12,.0f} faces/s, with one metadata each, "
          f"2,000 a transaction, forced to disk")  # fmt: skip
    plain = SqliteStore(folder / "plain.mien")
    entries = [
        Entry(str(row), Embedding(templates[row], "bench"), "x.jpg", 0.5)
        for row in range(min(count, 40_000))
    ]
    start, start_cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(entries), 2000):
        plain.add(entries[first : first + 2000])
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    plain.close()
    print(f"enrolment            {len(entries) / wall:12,.0f} faces/s, without metadata "
          f"({len(entries) / cpu:,.0f} a second of processor time)")  # fmt: skip
    del entries
    for file in folder.glob("plain.mien*"):
        file.unlink()
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
    print(f"one enrolment        {np.median(singles) * 1e3:12.2f} ms (median of 20)")
    print(f"one removal          {np.median(removals) * 1e3:12.2f} ms (median of 20)")
    disk = sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
    index = sum(file.stat().st_blocks * 512 for file in folder.glob("bench.mien-index/*"))
    print(f"disk                 {disk / count:12,.0f} bytes a face, of which index "
          f"{index / count:,.0f}")  # fmt: skip
    store.close()
    opened = []
    for _ in range(5):
        before, start = _private_megabytes(), time.perf_counter()
        store = SqliteStore(path)
        store.search(probes[:1], 1)
        opened.append(time.perf_counter() - start)
        own = _private_megabytes() - before
        store.close()
    print(f"open + first answer  {np.median(opened):12.3f} s (median of 5), {own:,.0f} MB of its "
          f"own memory, {index / 1e6:,.0f} MB shared with other processes", flush=True)  # fmt: skip

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
    contenders |= rivals(templates, folder, alone)
    probes = probes[: max(rounds, 3 * 64 if count <= 100_000 else 64)]
    exact = contenders["NumPy float32"](probes)
    memory = np.ones(count * dimensions // 16, np.int64)
    limit = "read, 4 bits a dimension"

    wall_ms: dict[str, list[float]] = {name: [] for name in [limit, *contenders]}
    cpu_ms: dict[str, list[float]] = {name: [] for name in wall_ms}
    rows: dict[str, list[NDArray[np.int64]]] = {name: [] for name in contenders}
    for search in contenders.values():
        for _ in range(8):  # then mien has a copy of the index in memory
            search(probes[:1])
    for number in range(rounds):
        probe = probes[number % len(probes)][None]
        for name in wall_ms:
            start, start_cpu = time.perf_counter(), time.process_time()
            if name == limit:
                memory.max()
            else:
                rows[name].append(contenders[name](probe)[0])
            wall_ms[name].append((time.perf_counter() - start) * 1e3)
            cpu_ms[name].append((time.process_time() - start_cpu) * 1e3)
    batches: dict[str, list[float]] = {name: [] for name in contenders}
    for first in range(0, (3 if count <= 100_000 else 1) * 64, 64):
        for name, search in contenders.items():
            start_cpu = time.process_time()
            search(probes[first : first + 64])
            batches[name].append((time.process_time() - start_cpu) / 64 * 1e3)
    reference = float(np.median(cpu_ms[limit]))
    print(f"\n{'one query':<31}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'x read':>9}"
          f"{'recall@1':>10}{'@10':>8}{'of 64: CPU ms':>15}{'worst':>8}")  # fmt: skip
    truth = exact[np.arange(rounds) % len(probes)]
    for name, times in wall_ms.items():
        cpu = float(np.median(cpu_ms[name]))
        line = (f"{name:<31}{np.median(times):9.2f}{np.quantile(times, 0.99):9.2f}"
                f"{cpu:9.2f}{cpu / reference:9.2f}")  # fmt: skip
        if name in contenders:
            found = rows[name]
            recalls = f"{'':18}"
            if "," not in name:
                first = np.mean([a[0] == b[0] for a, b in zip(found, truth, strict=True)])
                ten = [len(set(a) & set(b)) / LIMIT for a, b in zip(found, truth, strict=True)]
                recalls = f"{first:10.4f}{np.mean(ten):8.4f}"
            line += f"{recalls}{np.median(batches[name]):15.2f}{max(batches[name]):8.2f}"
        print(line, flush=True)
    for each in stores:
        each.close()


def _rows_of(store: SqliteStore, where: Where | None = None, limit: int = LIMIT) -> Search:
    def search(probes: Vectors) -> NDArray[np.int64]:
        return np.array(
            [
                [int(match.subject) for match in found]
                for found in store.search(probes, limit, where)
            ]
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
