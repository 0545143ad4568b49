"""Other engines that can search vectors in one process, for `benchmarks/gallery.py`.

Each takes part when it can be imported: faiss (faiss-cpu), turbovec, qdrant_edge (qdrant-edge-py),
usearch, lancedb. They belong in an environment of their own: they are no dependencies of mien. All
are asked for exact answers, or for what they do to come near: codes of every template and vectors
of the best, no graph of neighbours, except for one of usearch's to show what that gives.
"""

import os

for _library in ("LANCE_CPU", "TOKIO_WORKER"):  # read when LanceDB is imported
    os.environ[f"{_library}_THREADS"] = "1"

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LIMIT = 10
Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[np.int64]]  # probes (p, dim) to rows (p, LIMIT)


@dataclass(frozen=True)
class Rival:
    """An engine that holds all templates. `reopened` reads it from its folder once more."""

    search: Search
    reopened: Callable[[], Search]
    remove: Callable[[int], object] | None = None  # a row: it is not found any more


@dataclass(frozen=True)
class Cost:
    """What it took to hold the templates."""

    build_seconds: float
    memory: float  # bytes that this process has for itself
    disk: float
    open_seconds: float  # with one answer


def build(
    templates: Vectors, folder: Path, private: Callable[[], float]
) -> tuple[dict[str, Rival], dict[str, Cost]]:
    """All that can be imported; `private` says how many bytes this process has for itself."""
    found, costs = {}, {}
    for name, (package, most, make) in _ENGINES.items():
        if len(templates) > most:
            print(f"{name}: left out, it takes too long to fill with more than {most:,}")
        elif not importlib.util.find_spec(package):
            print(f"{name}: left out, the package {package} is not installed")
        else:
            place = folder / f"rival-{len(found)}"
            place.mkdir()
            importlib.import_module(package)
            before, start = private(), time.perf_counter()
            found[name] = make(templates, place)
            seconds, memory = time.perf_counter() - start, private() - before
            start = time.perf_counter()
            found[name].reopened()(templates[:1])
            opening = time.perf_counter() - start
            disk = sum(file.stat().st_blocks * 512 for file in place.rglob("*") if file.is_file())
            costs[name] = Cost(seconds, memory, disk, opening)
            print(f"{name}: filled, and on disk, in {seconds:.1f} s", flush=True)
    return found, costs


def _faiss(half: bool) -> Callable[[Vectors, Path], Rival]:
    def make(templates: Vectors, folder: Path) -> Rival:
        import faiss

        faiss.omp_set_num_threads(1)
        dimensions = templates.shape[1]
        if half:
            kind = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexScalarQuantizer(dimensions, kind, faiss.METRIC_INNER_PRODUCT)
        else:
            index = faiss.IndexFlatIP(dimensions)
        index.add(templates)
        path = str(folder / "index")
        faiss.write_index(index, path)

        def reopened() -> Search:
            again = faiss.read_index(path)
            return lambda probes: again.search(probes, LIMIT)[1]

        return Rival(
            lambda probes: index.search(probes, LIMIT)[1],
            reopened,
            lambda row: index.remove_ids(np.array([row], np.int64)),  # moves all that follow
        )

    return make


def _turbovec(templates: Vectors, folder: Path) -> Rival:
    """Four bits, and four times as many of the vectors compared: those are the benchmark's own."""
    import turbovec

    index = turbovec.TurboQuantIndex(templates.shape[1], 4)
    index.add(templates)
    index.prepare()
    index.sync(str(folder / "index"))

    def searching(index: turbovec.TurboQuantIndex) -> Search:
        def search(probes: Vectors) -> NDArray[np.int64]:
            some = np.asarray(index.search(probes, 4 * LIMIT)[1], np.int64)
            scores = np.einsum("pkd,pd->pk", templates[some], probes)
            order = np.argsort(-scores, axis=1)[:, :LIMIT]
            return np.take_along_axis(some, order, 1)

        return search

    def remove(row: int) -> None:
        index.swap_remove(row)
        index.sync(str(folder / "index"))

    return Rival(
        searching(index),
        lambda: searching(turbovec.TurboQuantIndex.load(str(folder / "index"))),
        remove,
    )


def _qdrant(templates: Vectors, folder: Path) -> Rival:
    """Its scan of all vectors: no graph, four bits, four times as many rescored."""
    import qdrant_edge as q

    shard = q.EdgeShard.create(
        str(folder),
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
    shard.flush()
    params = q.SearchParams(quantization=q.QuantizationSearchParams(rescore=True, oversampling=4.0))
    shards = [shard]

    def search(probes: Vectors) -> NDArray[np.int64]:
        asked = [
            q.QueryRequest(LIMIT, query=q.Query.Nearest(probe, using="face"), params=params)
            for probe in probes.tolist()
        ]
        return np.array([[point.id for point in shards[0].query(each)] for each in asked])

    def remove(row: int) -> None:
        shards[0].update(q.UpdateOperation.delete_points([row]))
        shards[0].flush()

    def reopened() -> Search:  # only one may have it open
        shards[0].close()
        shards[0] = q.EdgeShard.load(str(folder))
        return search

    return Rival(search, reopened, remove)


def _usearch_exact(templates: Vectors, folder: Path) -> Rival:
    """Its comparison with all of an array of float16."""
    from usearch.index import MetricKind, search

    np.save(folder / "vectors.npy", templates.astype(np.float16))

    def reopened() -> Search:
        rows = np.load(folder / "vectors.npy")
        return lambda probes: (
            search(rows, probes.astype(np.float16), LIMIT, MetricKind.IP, exact=True, threads=1)
            .keys.astype(np.int64)
            .reshape(len(probes), -1)
        )

    return Rival(reopened(), reopened)


def _usearch_graph(templates: Vectors, folder: Path) -> Rival:
    """Its graph (HNSW) with float16 and what it does by default."""
    from usearch.index import Index

    index = Index(ndim=templates.shape[1], metric="ip", dtype="f16")
    index.add(np.arange(len(templates)), templates, threads=1)
    index.save(folder / "index")

    def searching(index: Index) -> Search:
        return lambda probes: (
            index.search(probes, LIMIT, threads=1).keys.astype(np.int64).reshape(len(probes), -1)
        )

    return Rival(searching(index), lambda: searching(Index.restore(folder / "index")), index.remove)


def _lance(templates: Vectors, folder: Path) -> Rival:
    """Its scan without an index."""
    import lancedb
    import pyarrow

    def some(start: int) -> "pyarrow.Table":
        vectors = templates[start : start + 50_000]
        flat = pyarrow.array(vectors.reshape(-1))
        return pyarrow.table(
            {
                "row": np.arange(start, start + len(vectors)),
                "vector": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            }
        )

    table = lancedb.connect(folder).create_table("faces", some(0))
    for start in range(50_000, len(templates), 50_000):
        table.add(some(start))

    def searching(table: lancedb.table.Table) -> Search:
        def search(probes: Vectors) -> NDArray[np.int64]:
            query = table.search([*probes] if len(probes) > 1 else probes[0]).distance_type("dot")
            found = query.select(["row", "_distance"]).limit(LIMIT).to_arrow()
            return found["row"].to_numpy().reshape(len(probes), LIMIT)

        return search

    return Rival(
        searching(table),
        lambda: searching(lancedb.connect(folder).open_table("faces")),
        lambda row: table.delete(f"row = {row}"),
    )


_ANY = 1 << 62
_ENGINES: dict[str, tuple[str, int, Callable[[Vectors, Path], Rival]]] = {
    "FAISS flat float32": ("faiss", _ANY, _faiss(half=False)),
    "FAISS flat float16": ("faiss", _ANY, _faiss(half=True)),
    "turbovec 4-bit + rescoring": ("turbovec", _ANY, _turbovec),
    "Qdrant Edge 4-bit + rescoring": ("qdrant_edge", _ANY, _qdrant),
    "usearch exact float16": ("usearch", _ANY, _usearch_exact),
    "usearch graph float16": ("usearch", 100_000, _usearch_graph),
    "LanceDB scan": ("lancedb", _ANY, _lance),
}
