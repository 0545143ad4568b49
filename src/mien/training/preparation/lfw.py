"""Labeled Faces in the Wild: fetch it, check a copy of it, write its protocols as our lists.

Huang, Ramesh, Berg, Learned-Miller, "Labeled Faces in the Wild" (2007). The pictures are published
for research. Hashes of the protocol files and of "funneled" are those that scikit-learn keeps;
nobody publishes a SHA-256 of "deepfunneled", so its pictures are compared, after unpacking, with
the digest of all 13,233 as they were when this was written.
"""

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mien.download import Patience, Progress, download
from mien.errors import InputError
from mien.evaluation import lfw, protocols
from mien.evaluation.protocols import Pairs
from mien.training.preparation.pairs import PAIRS
from mien.training.preparation.sets import cannot_write, write_table, writing

OFFICIAL = "http://vis-www.cs.umass.edu/lfw/"
MIRROR = "https://ndownloader.figshare.com/files/"

PICTURES, PEOPLE = 13_233, 5_749


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as it is published: `sha256` is None where only what is in it can be checked."""

    name: str
    sha256: str | None
    urls: tuple[str, ...]
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One alignment of the pictures: its archive, and the digest of its pictures where known.

    The digest is the SHA-256 of what `sha256sum` prints for all of them, in order of their paths.
    """

    archive: Remote
    digest: str | None = None


VARIANTS = {
    "deepfunneled": Variant(
        Remote("lfw-deepfunneled.tgz", None, (f"{OFFICIAL}lfw-deepfunneled.tgz",)),
        "d74b84a8b052eb400a6d69dcce66460240bf4cd659d924c13bc90ce1fced9bce",
    ),
    "funneled": Variant(
        Remote(
            "lfw-funneled.tgz",
            "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
            (f"{MIRROR}5976015", f"{OFFICIAL}lfw-funneled.tgz"),
        )
    ),
    "original": Variant(
        Remote(
            "lfw.tgz",
            "055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
            (f"{MIRROR}5976018", f"{OFFICIAL}lfw.tgz"),
        )
    ),
}

PROTOCOLS = (
    Remote("pairs.txt", "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
           (f"{MIRROR}5976006", f"{OFFICIAL}pairs.txt")),
    Remote("pairsDevTrain.txt", "1d454dada7dfeca0e7eab6f65dc4e97a6312d44cf142207be28d688be92aabfa",
           (f"{MIRROR}5976012", f"{OFFICIAL}pairsDevTrain.txt")),
    Remote("pairsDevTest.txt", "7cb06600ea8b2814ac26e946201cdb304296262aad67d046a16a7ec85d0ff87c",
           (f"{MIRROR}5976009", f"{OFFICIAL}pairsDevTest.txt")),
    Remote("people.txt", "bc8fa2b7f25c895cf7efb6de4f4fc27ca8b8d1cfa63350ad8b96eae2b198d365",
           (f"{OFFICIAL}people.txt",)),
    Remote("peopleDevTrain.txt", "2e58df13ba4cc143189336e001cc2c195f1dfa5b29a6475c02857be353c2a2fa",
           (f"{OFFICIAL}peopleDevTrain.txt",)),
    Remote("peopleDevTest.txt", "c3ed1f90499473401542101a56c14c1d82396bb8218c67a356d7460601047555",
           (f"{OFFICIAL}peopleDevTest.txt",)),
)  # fmt: skip


def fetch(
    folder: Path,
    variant: Variant,
    files: Sequence[Remote] = PROTOCOLS,
    *,
    counts: tuple[int, int] | None = (PICTURES, PEOPLE),
    progress: Callable[[str], Progress | None] = lambda name: None,
    patience: Patience | None = None,
) -> list[str]:
    """Bring what `folder` lacks of LFW; returns the names of what was fetched.

    What is there is adopted: pictures in any folder of `folder`, protocol files in it. The archive
    is unpacked beside its place and put there whole; `counts` of pictures and people, and the
    digest of the variant, are checked before. Raises `FetchFailed`, `InputError` for an archive
    that is not what was meant and for a disk that is full.
    """
    fetched = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in missing_files(folder, files):
            _download(file, folder / file.name, progress(file.name), patience)
            fetched.append(file.name)
        if not has_pictures(folder):
            archive = folder / variant.archive.name
            _download(variant.archive, archive, progress(archive.name), patience)
            _unpack(archive, folder / archive.stem, variant.digest, counts)
            archive.unlink()
            fetched.append(archive.name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return fetched


def missing_files(folder: Path, files: Sequence[Remote] = PROTOCOLS) -> list[Remote]:
    """The protocol files that are not there. Raises `InputError` for one that is another."""
    missing = []
    for file in files:
        path = folder / file.name
        if not path.is_file():
            missing.append(file)
        elif file.sha256 and (found := _sha256(path)) != file.sha256:
            raise InputError(
                f"{path} is not the published file (sha256 {found[:12]}..., expected "
                f"{file.sha256[:12]}...); remove it, or keep it under another name"
            )
    return missing


def has_pictures(folder: Path) -> bool:
    """Whether there are pictures of LFW in a folder or in one of its folders."""
    try:
        lfw.picture_folder(folder)
    except InputError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Found:
    """What a copy of LFW has. `variant` is the name of the known one it equals, else ""."""

    pictures: int
    people: int
    variant: str

    @property
    def complete(self) -> bool:
        return (self.pictures, self.people) == (PICTURES, PEOPLE)


def inspect(folder: Path) -> Found:
    """Count and digest the pictures of a copy. Raises `InputError` when there are none."""
    files = _pictures(lfw.picture_folder(folder))
    digest = _digest(files)
    names = [name for name, variant in VARIANTS.items() if variant.digest == digest]
    return Found(len(files), len({path.parent for _, path in files}), names[0] if names else "")


def write_lists(folder: Path, output: Path) -> list[tuple[str, int]]:
    """The protocols of a copy as lists of ours; returns (file, rows) of each.

    `pairsDevTrain.csv`, `pairsDevTest.csv` and `view2.csv` (with its ten folds) name pictures as
    NAME/NAME_0001.jpg. `view2-strangers.csv` are those of View 2, without folds, in which nobody of
    `peopleDevTrain` is: a network that learnt from these can be tested on them. `train.csv` and
    `test.csv` list the pictures of the people of View 1, `train-people.txt` and `test-people.txt`
    the people; `train-fold-K-people.txt` are the people whom a network may learn from that is
    tested on fold K of View 2 (K from 0). Raises `InputError`.
    """
    done = []
    views = {f"pairsDev{part}": lfw.view1(folder, part) for part in ("Train", "Test")}
    views["view2"] = lfw.view2(folder)
    views["view2-strangers"] = _without(views["view2"], lfw.album(folder, "DevTrain").names)
    for name, pairs in views.items():
        done.append((f"{name}.csv", _write_pairs(output / f"{name}.csv", pairs)))
    for part in ("Train", "Test"):
        group = lfw.album(folder, f"Dev{part}")
        names = [group.names[number] for number in group.person.tolist()]
        rows = [[name, f"{name}/{p.name.split('/')[-1]}"]
                for name, p in zip(names, group.pictures, strict=True)]  # fmt: skip
        write_table(output / f"{part.lower()}.csv", ("subject", "source"), rows)
        done.append((f"{part.lower()}.csv", len(rows)))
        done.append(_write_names(output / f"{part.lower()}-people.txt", group.names))
    folds = list(_folds(folder / "people.txt"))
    for number in range(len(folds)):
        others = [name for k, fold in enumerate(folds) if k != number for name in fold]
        done.append(_write_names(output / f"train-fold-{number}-people.txt", others))
    return done


def _without(pairs: Pairs, people: Sequence[str]) -> Pairs:
    """The pairs in which nobody of `people` is, without their folds."""
    listed = set(people)
    known = np.array([Path(str(p.source)).parent.name in listed for p in pairs.pictures])
    kept = ~(known[pairs.a] | known[pairs.b])
    return replace(
        pairs, a=pairs.a[kept], b=pairs.b[kept], same=pairs.same[kept],
        person_a=pairs.person_a[kept], person_b=pairs.person_b[kept], fold=None,
    )  # fmt: skip


def _write_pairs(path: Path, pairs: Pairs) -> int:
    rows = []
    for row, (a, b, same) in enumerate(
        zip(pairs.a.tolist(), pairs.b.tolist(), pairs.same.tolist(), strict=True)
    ):
        ends = [Path(str(pairs.pictures[i].source)) for i in (a, b)]
        people = [end.parent.name for end in ends]
        sources = [f"{end.parent.name}/{end.name}" for end in ends]
        fold = [] if pairs.fold is None else [str(int(pairs.fold[row]))]
        rows.append([*sources, str(int(same)), *people, *fold])
    write_table(path, PAIRS if pairs.fold is None else (*PAIRS, "fold"), rows)
    return len(rows)


def _write_names(path: Path, names: Sequence[str]) -> tuple[str, int]:
    with writing(path) as stream:
        stream.write("".join(f"{name}\n" for name in names).encode())
    return path.name, len(names)


def _folds(path: Path) -> Iterator[list[str]]:
    """The people of each fold of `people.txt`: how many folds, then of each a count and names."""
    lines = [line for line in protocols.read_lines(path) if line.strip()]
    at = 1
    for _ in range(int(lines[0])):
        count = int(lines[at])
        yield [line.split("\t")[0].strip() for line in lines[at + 1 : at + 1 + count]]
        at += 1 + count


# ------------------------------------------------------------------------------------- the archive


def _download(
    remote: Remote, path: Path, progress: Progress | None, patience: Patience | None
) -> None:
    part = path.with_name(f"{path.name}.part")
    download(
        remote.urls, part, sha256=remote.sha256, size=remote.size, progress=progress,
        patience=patience,
    )  # fmt: skip
    os.replace(part, path)


def _unpack(
    archive: Path, target: Path, digest: str | None, counts: tuple[int, int] | None
) -> None:
    """Unpack NAME/NAME_0001.jpg and nothing else, check it, and put it in its place."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive, "r:*") as box:
            for member in box:
                name = re.search(r"([^/]+)/(\1_\d{4}\.jpg)$", member.name)
                if not name or not member.isfile():
                    continue
                content = box.extractfile(member)
                assert content is not None  # of a file
                path = partial / name[1] / name[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
        files = _pictures(partial)
        found = (len(files), len({path.parent for _, path in files}))
        if not files or (counts and found != counts):
            expected = f"{counts[0]:,} of {counts[1]:,} people" if counts else "some"
            raise InputError(
                f"{archive} has {found[0]:,} pictures of {found[1]:,} people where {expected} are "
                f"expected; remove it and fetch it again"
            )
        if digest and _digest(files) != digest:
            raise InputError(
                f"the pictures in {archive} are not those of LFW as they were published; "
                f"do not use them for figures that are compared with others"
            )
        partial.replace(target)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{archive} is damaged ({error}); remove it and fetch it again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pictures(folder: Path) -> list[tuple[str, Path]]:
    """The pictures of a copy with their names, in the order of their names' bytes."""
    found = [(path.relative_to(folder).as_posix(), path) for path in folder.glob("*/*.jpg")]
    return sorted(found, key=lambda entry: entry[0].encode())


def _digest(files: Sequence[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{_sha256(path)}  {name}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
