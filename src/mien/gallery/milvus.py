"""Galleries in Milvus, for more faces than one machine holds.

Search is exact: a FLAT index, of which every query node scans its part. A graph index would miss
2 to 5 % of enrolled people. Every call asks for strong consistency, so that what any client added
is found; the server then waits for its next clock tick, about 0.2 s. `?consistency=bounded` in the
URI answers at once and may miss what came in the last seconds.

Milvus has no transactions. A batch is one message to one shard, so it is there whole or not at all
up to 4,096 entries; of a larger one that fails, what went before is deleted again. `replace` and
`rename` add before they delete: for a moment a search can see both. What `remove` deletes is gone
for every query at once; `compact` has the server rewrite its files without it, and the server then
deletes the old ones after `dataCoord.gc.dropTolerance` (3 hours by default).

Credentials and TLS come from the environment: MIEN_MILVUS_TOKEN is `user:password` or an API key,
and MIEN_MILVUS_CA the certificates to trust, a PEM file or `system`, which also turns TLS on.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from mien.embedding import require_contract
from mien.errors import GalleryError, GalleryUnavailable, InputError, MissingExtra, UnknownSubject
from mien.gallery.store import Entry, Stats, Subject, Where, check_replacement, taken
from mien.types import Embedding, Match, Template

_BATCH = 4096
_MOST = 16_384  # rows that the server gives to one query
_TIMEOUT_SECONDS = 30.0
_COMPACTING_SECONDS = 600.0
_LONGEST_TEXT = 65_535  # bytes
_MOST_TAGS = 256
_CONSISTENCIES = {"strong": "Strong", "bounded": "Bounded"}
_FIELDS = [
    "id", "subject", "negative", "quality", "created", "source", "source_sha256", "metadata",
    "vector",
]  # fmt: skip

T = TypeVar("T")
Row = Mapping[str, Any]


class MilvusStore:
    """One collection on a server, at `milvus://HOST:PORT[/DATABASE]`.

    Raises `GalleryUnavailable` when it cannot be used.
    """

    def __init__(self, uri: str, create: bool = True, collection: str = "default") -> None:
        self._milvus = _client()
        self._uri = uri
        self._name = collection
        self._collection = "mien_" + hashlib.sha256(collection.encode()).hexdigest()[:24]
        parts = urlsplit(uri)
        asked = parse_qs(parts.query).get("consistency", ["strong"])[-1]
        if asked not in _CONSISTENCIES:
            raise InputError(f"consistency is {' or '.join(_CONSISTENCIES)}, got {asked!r}")
        if parts.username or parts.password:
            raise InputError(
                "give credentials in MIEN_MILVUS_TOKEN, not in the URI, which is shown"
            )
        self._consistency = _CONSISTENCIES[asked]
        self._lock = threading.RLock()
        self._contract: str | None = None  # it never changes once it is there
        self._dimensions = 0
        self._closed = False
        self._connection = self._ask(lambda: self._milvus.MilvusClient(**_address(parts)))
        self._uri = uri.partition("?")[0]
        if self.contract() is None and not create:
            self.close()
            raise GalleryUnavailable(
                self._uri, f"it has no collection {collection!r}; 'mien enroll' makes it"
            )

    def contract(self) -> str | None:
        with self._lock:
            if self._contract is None and self._ask(
                lambda: self._connection.has_collection(self._collection, timeout=_TIMEOUT_SECONDS)
            ):
                found = self._ask(
                    lambda: self._connection.describe_collection(
                        self._collection, timeout=_TIMEOUT_SECONDS
                    )
                )
                self._ask(  # whoever makes it may not have come to that
                    lambda: self._connection.load_collection(
                        self._collection, timeout=_TIMEOUT_SECONDS
                    )
                )
                self._read_description(found)
            return self._contract

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        contract = entries[0].embedding.contract
        lengths = {entry.embedding.vector.size for entry in entries}
        known = self.contract()
        if known is not None:
            require_contract(known, contract)
            lengths.add(self._dimensions)
        if len(lengths) > 1:
            raise InputError(f"vectors of one gallery have one length, got {sorted(lengths)}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [_row(entry, now) for entry in entries]
        with self._lock:
            if self.contract() is None:
                self._create(contract, lengths.pop())
                require_contract(str(self.contract()), contract)  # another was faster, perhaps
        ids: list[int] = []
        try:
            for some in _batches(rows):
                ids += self._insert(some)
        except BaseException:
            if ids:
                self._delete(ids)
            raise
        return [
            Template(id_, row["subject"], row["source"], row["quality"], row["created"])
            for id_, row in zip(ids, rows, strict=True)
        ]

    def search(
        self, probes: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[list[Match]]:
        if self.contract() is None:
            return [[] for _ in probes]
        if probes.shape[1] != self._dimensions:
            raise InputError(
                f"the gallery has vectors of {self._dimensions} numbers, "
                f"the probe has {probes.shape[1]}"
            )
        filters = ["negative == false", *_conditions(where or {})]
        answers: list[list[Match]] = [[] for _ in probes]
        unanswered, wanted = list(range(len(probes))), 4 * limit + 16
        while unanswered:
            asked = min(wanted, _MOST)
            found = self._nearest(probes[unanswered], asked, filters)
            best = [_best_of_each(rows) for rows in found]
            against = self._negatives(probes[unanswered], best)
            further = []
            for number, rows, mine, ruled_out in zip(unanswered, found, best, against, strict=True):
                answers[number] = [
                    m for m in mine if ruled_out.get(m.subject, -2.0) <= m.score
                ][:limit]  # fmt: skip
                if len(answers[number]) < limit and len(rows) == asked < _MOST:
                    further.append(number)
            unanswered, wanted = further, 8 * wanted
        return answers

    def entries(self, after: int = 0, subject: str | None = None) -> Iterator[tuple[int, Entry]]:
        contract = self.contract()
        filters = [] if subject is None else [_is(subject)]
        for row in self._rows(filters, _FIELDS, after) if contract else ():
            vector = np.asarray(row["vector"], np.float32)
            yield (
                int(row["id"]),
                Entry(
                    row["subject"], Embedding(vector, str(contract)), row["source"],
                    row["quality"], row["metadata"], row["negative"], row["source_sha256"],
                    row["created"],
                ),
            )  # fmt: skip

    def subjects(self) -> list[Subject]:
        """Reads a row of every template: the server cannot count by subject."""
        counts: dict[str, int] = {}
        created: dict[str, str] = {}
        for row in self._rows([], ["id", "subject", "negative", "created"]):
            name = row["subject"]
            counts[name] = counts.get(name, 0) + (not row["negative"])
            created[name] = min(row["created"], created.get(name, row["created"]))
        return [Subject(name, counts[name], created[name]) for name in sorted(counts)]

    def templates(self, subject: str) -> list[Template]:
        fields = ["id", "negative", "source", "quality", "created"]
        rows = list(self._rows([_is(subject)], fields))
        if not rows:
            raise UnknownSubject(subject)
        return [
            Template(int(row["id"]), subject, row["source"], row["quality"], row["created"])
            for row in rows
            if not row["negative"]
        ]

    def replace(self, subject: str, entries: Sequence[Entry]) -> list[Template]:
        check_replacement(subject, entries)
        with self._lock:
            old = [int(row["id"]) for row in self._rows([_is(subject)], ["id"])]
            templates = self.add(entries)
            self._delete(old)
            return templates

    def rename(self, subject: str, new: str, *, merge: bool = False) -> int:
        with self._lock:
            old = list(self.entries(subject=subject))
            if not old:
                raise UnknownSubject(subject)
            if subject != new:
                if not merge and any(True for _ in self._rows([_is(new)], ["id"])):
                    raise GalleryError(taken(subject, new))
                self.add([replace(entry, subject=new) for _, entry in old])
                self._delete([id_ for id_, _ in old])
            return len(old)

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        with self._lock:
            ids = [int(row["id"]) for row in self._rows([_is(subject)], ["id"])]
            if not ids:
                raise UnknownSubject(subject)
            gone = ids if templates is None else [id_ for id_ in ids if id_ in templates]
            self._delete(gone)
            return len(gone)

    def compact(self) -> None:
        """Have the server write its files anew, and wait until it has."""
        if self.contract() is None:
            return
        call = self._connection
        self._ask(lambda: call.flush(self._collection, timeout=_COMPACTING_SECONDS))
        job = self._ask(lambda: call.compact(self._collection, timeout=_TIMEOUT_SECONDS))
        end = time.monotonic() + _COMPACTING_SECONDS
        while self._ask(lambda: call.get_compaction_state(job, timeout=_TIMEOUT_SECONDS)) not in (
            "Completed",
            "UndefiedState",
        ):
            if time.monotonic() > end:
                raise GalleryUnavailable(
                    self._uri, f"the server has not compacted it in {_COMPACTING_SECONDS:.0f} s"
                )
            time.sleep(0.2)

    def stats(self) -> Stats:
        """Counts subjects, and so reads a row of every template. `bytes` is not known: 0."""
        contract = self.contract()
        subjects = len(self.subjects()) if contract else 0
        return Stats(self._uri, subjects, len(self), self._dimensions, 0, contract)

    def __len__(self) -> int:
        if self.contract() is None:
            return 0
        (row,) = self._query("negative == false", ["count(*)"])
        return int(row["count(*)"])

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()

    # -- the collection

    def _create(self, contract: str, dimensions: int) -> None:
        m = self._milvus
        kinds = m.DataType
        note = json.dumps({"mien": 1, "name": self._name, "contract": contract})
        schema = m.MilvusClient.create_schema(
            auto_id=True, enable_dynamic_field=False, description=note
        )
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("subject", kinds.VARCHAR, max_length=_LONGEST_TEXT)
        schema.add_field("person", kinds.VARCHAR, max_length=64)  # the digest of the name
        schema.add_field("negative", kinds.BOOL)
        schema.add_field("quality", kinds.DOUBLE)
        schema.add_field("created", kinds.VARCHAR, max_length=64)
        schema.add_field("source", kinds.VARCHAR, max_length=_LONGEST_TEXT)
        schema.add_field("source_sha256", kinds.VARCHAR, max_length=64)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field(
            "tags", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=_MOST_TAGS, max_length=64
        )
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimensions)
        index = m.MilvusClient.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._ask(
            lambda: self._connection.create_collection(
                self._collection, schema=schema, index_params=index, num_shards=1,
                consistency_level=self._consistency, timeout=_TIMEOUT_SECONDS,
            )
        )  # fmt: skip

    def _read_description(self, found: Row) -> None:
        try:
            note = json.loads(found["description"])
            contract, version = str(note["contract"]), int(note["mien"])
            dimensions = next(f for f in found["fields"] if f["name"] == "vector")["params"]["dim"]
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise GalleryUnavailable(
                self._uri, f"its collection {self._collection} was not made by mien"
            ) from error
        if version > 1:
            raise GalleryUnavailable(
                self._uri, f"it was written by a newer mien (format {version}); upgrade mien"
            )
        self._contract, self._dimensions = contract, int(dimensions)

    def _insert(self, rows: list[dict[str, Any]]) -> list[int]:
        done = self._ask(
            lambda: self._connection.insert(self._collection, rows, timeout=_TIMEOUT_SECONDS)
        )
        return [int(id_) for id_ in done["ids"]]

    def _delete(self, ids: list[int]) -> None:
        for some in _batches(ids):
            self._ask(
                partial(
                    self._connection.delete, self._collection, ids=some, timeout=_TIMEOUT_SECONDS
                )
            )

    def _rows(self, filters: list[str], fields: list[str], after: int = 0) -> Iterator[Row]:
        """Some fields of all rows that pass, oldest first, in batches."""
        if self.contract() is None:
            return
        while True:
            rows = self._query(" and ".join([*filters, f"id > {after}"]), fields, limit=_BATCH)
            rows = sorted(rows, key=lambda row: int(row["id"]))
            yield from rows
            if len(rows) < _BATCH:
                return
            after = int(rows[-1]["id"])

    def _query(self, condition: str, fields: list[str], **more: int) -> list[Row]:
        found: list[Row] = self._ask(
            lambda: self._connection.query(
                self._collection, filter=condition, output_fields=fields,
                consistency_level=self._consistency, timeout=_TIMEOUT_SECONDS, **more,
            )
        )  # fmt: skip
        return found

    def _nearest(
        self, probes: NDArray[np.float32], limit: int, filters: list[str]
    ) -> list[list[Row]]:
        """The nearest rows of each probe, best first."""
        found: list[list[Row]] = self._ask(
            lambda: self._connection.search(
                self._collection, data=probes.tolist(), limit=limit, filter=" and ".join(filters),
                output_fields=["subject"], search_params={"metric_type": "IP"},
                consistency_level=self._consistency, timeout=_TIMEOUT_SECONDS,
            )
        )  # fmt: skip
        return found

    def _negatives(
        self, probes: NDArray[np.float32], best: list[list[Match]]
    ) -> list[dict[str, float]]:
        """For each probe the best score of every subject's negatives, of the subjects found."""
        names = sorted({match.subject for matches in best for match in matches})
        if not names or not self._query("negative == true", ["id"], limit=1):
            return [{} for _ in probes]
        people = json.dumps([_digest(name) for name in names])
        found = self._nearest(probes, _MOST, ["negative == true", f"person in {people}"])
        return [{m.subject: m.score for m in _best_of_each(rows)} for rows in found]

    def _ask(self, question: Callable[[], T]) -> T:
        """The answer, tried again by the client until the timeout while the server is away."""
        if self.__dict__.get("_closed"):
            raise GalleryUnavailable(self._uri, "it was closed already")
        try:
            return question()
        except self._milvus.MilvusException as error:
            raise GalleryUnavailable(self._uri.partition("?")[0], error.message) from error


def _client() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise MissingExtra("a gallery in Milvus", "milvus") from error
    return pymilvus


def _address(parts: Any) -> dict[str, Any]:
    """What the client is connected with."""
    found: dict[str, Any] = {"timeout": _TIMEOUT_SECONDS}
    authority = os.environ.get("MIEN_MILVUS_CA", "")
    if authority and authority != "system":
        found |= {"secure": True, "server_pem_path": authority}
    scheme = "https" if authority else "http"
    found["uri"] = f"{scheme}://{parts.hostname}:{parts.port or 19530}"
    if database := parts.path.strip("/"):
        found["db_name"] = database
    if token := os.environ.get("MIEN_MILVUS_TOKEN"):
        found["token"] = token
    return found


def _row(entry: Entry, now: str) -> dict[str, Any]:
    """What is inserted. Raises `InputError` for what Milvus does not keep."""
    vector = entry.embedding.vector
    source = entry.source.encode("utf-8", "backslashreplace").decode()
    if entry.crop:
        raise InputError("pictures of faces are only kept in an encrypted, embedded gallery")
    if abs(float(vector @ vector) - 1) > 1e-3:
        raise InputError("vectors in a gallery have the length 1; see mien.embedding.normalize")
    if max(len(entry.subject.encode()), len(source.encode())) > _LONGEST_TEXT:
        raise InputError(f"Milvus keeps no text of more than {_LONGEST_TEXT:,} bytes")
    if len(entry.metadata) > _MOST_TAGS:
        raise InputError(f"at most {_MOST_TAGS} metadata a template can be kept in Milvus")
    return {
        "subject": entry.subject, "person": _digest(entry.subject), "negative": entry.negative,
        "quality": entry.quality, "created": entry.created or now, "source": source,
        "source_sha256": entry.source_sha256, "metadata": dict(entry.metadata),
        "tags": [_tag(key, value) for key, value in entry.metadata.items()],
        "vector": vector.tolist(),
    }  # fmt: skip


def _best_of_each(rows: Iterable[Row]) -> list[Match]:
    """The best row of each subject, best first; `rows` are best first."""
    found: dict[str, Match] = {}
    ordered = sorted(rows, key=lambda row: (-row["distance"], int(row["id"])))
    for row in ordered:
        subject = row["entity"]["subject"]
        if subject not in found:
            score = float(np.clip(row["distance"], -1.0, 1.0))
            found[subject] = Match(subject, int(row["id"]), score)
    return list(found.values())


def _conditions(where: Where) -> Iterator[str]:
    for key, wanted in where.items():
        values = [wanted] if isinstance(wanted, str) else list(wanted)
        tags = [f'array_contains(tags, "{_tag(key, value)}")' for value in values]
        yield f"({' or '.join(tags)})" if tags else "id < 0"


def _is(subject: str) -> str:
    return f'person == "{_digest(subject)}"'


def _digest(text: str) -> str:
    """What a condition has in place of a text, so that nothing in it needs quoting."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _tag(key: str, value: str) -> str:
    return _digest(json.dumps([key, value]))


def _batches(items: list[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _BATCH)):
        yield some
