"""The files of models: find them, fetch them, and prove that they are what their cards describe."""

import bz2
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import IO

from mien import cards
from mien.cards import UNKNOWN, ModelCard, WeightFile
from mien.download import MOST_BYTES, Patience, Progress, download, locked
from mien.errors import CorruptWeights, LicenceNotAccepted, ModelError

home = cards.home

# --- files that are here -----------------------------------------------------------------


def choose(card: ModelCard, precisions: Sequence[str]) -> WeightFile:
    """The file of a card that computes in the first of `precisions` that it offers."""
    return choose_all(card, precisions)[0]


def choose_all(card: ModelCard, precisions: Sequence[str]) -> list[WeightFile]:
    """For each network of a card, in order, its file in the first of `precisions` it offers."""
    chosen = []
    for part in dict.fromkeys(file.part for file in card.files):
        files = [file for file in card.files if file.part == part]
        offered = {file.precision: file for file in files}
        chosen.append(next((offered[p] for p in precisions if p in offered), files[0]))
    return chosen


def locate(file: WeightFile) -> Path | None:
    """Where a file lies: inside the package or in `home()`; None if nowhere."""
    bundled = Path(str(resources.files("mien").joinpath("bundled", file.name)))
    return next((path for path in (bundled, _fetched(file)) if path.is_file()), None)


def is_present(card: ModelCard) -> bool:
    """Whether every network of a card has a file here."""
    here = {file.part for file in card.files if locate(file)}
    return here == {file.part for file in card.files}


def read_verified(file: WeightFile) -> bytes:
    """The bytes of a weight file, after their SHA-256 was compared with the card's.

    The bytes that were hashed are the bytes that are returned, so a file swapped in between
    cannot slip through. Raises `CorruptWeights`.
    """
    path = locate(file)
    fetch_it = "fetch it with 'mien models fetch'"
    if path is None:
        raise CorruptWeights(file.name, "the file is missing", *([fetch_it] if file.urls else []))
    if file.sha256 == UNKNOWN:
        raise CorruptWeights(
            str(path), "nobody has published its hash, nor was it pinned", fetch_it
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptWeights(str(path), f"the file cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise CorruptWeights(str(path), *_other_file(digest, file.sha256))
    return data


def _fetched(file: WeightFile) -> Path:
    return home() / "models" / file.name


def _other_file(found: str, expected: str) -> tuple[str, str]:
    reason = (
        f"the file is not the one its card describes "
        f"(sha256 {found[:12]}..., expected {expected[:12]}...)"
    )
    return reason, "remove it and fetch it again, or reinstall mien"


# --- licences ----------------------------------------------------------------------------


def require_licence(card: ModelCard) -> None:
    """Raise `LicenceNotAccepted` unless the licence is free or has been accepted as it stands."""
    if card.commercial == "yes":
        return
    try:
        record = json.loads(_licence_record(card).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    if not isinstance(record, dict) or record.get("terms_sha256") != _terms(card):
        use = "no commercial use" if card.commercial == "no" else "commercial use unclear"
        raise LicenceNotAccepted(card.id, f"{card.licence} ({use})")


def accept_licence(card: ModelCard) -> None:
    """Record, with the time, that the terms on a card were accepted; new terms ask again."""
    record = {
        "model": card.id,
        "licence": card.licence,
        "commercial": card.commercial,
        "terms_sha256": _terms(card),
        "accepted": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with _writing(_licence_record(card)) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")


def _licence_record(card: ModelCard) -> Path:
    return home() / "licences" / f"{card.id}.json"


def _terms(card: ModelCard) -> str:
    """A hash of what is accepted: the terms and what they are about, and no figures."""
    terms = [card.id, card.licence, card.commercial, card.origin, card.training_data]
    return hashlib.sha256(json.dumps(terms).encode()).hexdigest()


# --- fetching ----------------------------------------------------------------------------


Convert = Callable[[ModelCard, WeightFile, Path], bytes]
"""What makes a file of a card from the checkpoint that it names (`mien.training.conversion`)."""


def fetch(
    card: ModelCard,
    progress: Progress | None = None,
    patience: Patience | None = None,
    convert: Convert | None = None,
) -> list[Path]:
    """Bring every file of a card here that is not here yet; return where they lie.

    Each file arrives under another name, is verified, and only then takes its own; several
    processes may ask for the same one at once. A file whose hash nobody has published is pinned
    to the hash it has now. What comes as a checkpoint goes through `convert`. Raises
    `LicenceNotAccepted`, `FetchFailed` and `CorruptWeights`, and `ModelError` for a file without an
    address, such as one that a tool builds.
    """
    require_licence(card)
    return [_fetch(card, file, progress, patience, convert) for file in card.files]


def _fetch(
    card: ModelCard,
    file: WeightFile,
    progress: Progress | None,
    patience: Patience | None,
    convert: Convert | None,
) -> Path:
    target = _fetched(file)
    with _disk_errors(target), _locked(target):
        if (path := locate(file)) and _sha256(path) == file.sha256:
            return path
        if not file.urls:
            raise ModelError(f"{file.name} is not downloaded as it is. {card.cautions}")
        if file.checkpoint:
            if convert is None:
                raise ModelError(f"{card.id} is converted from a checkpoint: pass `convert`")
            checkpoint = target.with_name(file.checkpoint)  # stays beside what is made of it
            if not checkpoint.is_file():
                part = checkpoint.with_name(f"{checkpoint.name}.part")
                known = file.archive_sha256 if file.archive_sha256 not in {UNKNOWN, ""} else None
                download(
                    file.urls, part, sha256=known, size=None, progress=progress, patience=patience
                )
                part.replace(checkpoint)
            return _convert(card, file, checkpoint, convert)
        part = target.with_name(f"{target.name}.part")
        sha256, size = file.archive_sha256 if file.member else file.sha256, file.bytes
        expected = None if sha256 in {UNKNOWN, ""} else sha256
        download(
            file.urls, part, sha256=expected, size=None if file.member else size,
            progress=progress, patience=patience,
        )  # fmt: skip
        if file.member:
            with _writing(target) as out:
                _unpack(part, file, out)
            part.unlink()
        else:
            _keep(part, target, file)
    return target


def _convert(card: ModelCard, file: WeightFile, checkpoint: Path, convert: Convert) -> Path:
    """Make a file from a checkpoint, after its hash was compared, and pin what came out."""
    found = _sha256(checkpoint)
    if file.archive_sha256 not in {UNKNOWN, "", found}:
        raise CorruptWeights(str(checkpoint), *_other_file(found, file.archive_sha256))
    data = convert(card, file, checkpoint)
    target = _fetched(file)
    with _writing(target) as out:
        out.write(data)
    with _writing(cards.pin_path(file.name)) as pin:
        pin.write(f"{hashlib.sha256(data).hexdigest()}  {file.name}\n".encode())
    return target


def _unpack(archive: Path, file: WeightFile, out: IO[bytes]) -> None:
    """Copy the one member of that name, in whatever folder, out of an archive, and verify it.

    Nothing else is unpacked, and no path of the archive is used.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as box:
                (name,) = (name for name in box.namelist() if name.split("/")[-1] == file.member)
                with box.open(name) as member:
                    _copy(member, out, file)
        else:
            with bz2.open(archive) as member:
                _copy(member, out, file)
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk; damaged bz2 data is an OSError without a number
        reason = f"has no readable {file.member} in it ({error})"
        raise CorruptWeights(str(archive), reason, "remove it and fetch it again") from error


def _copy(source: IO[bytes], out: IO[bytes], file: WeightFile) -> None:
    """Copy the bytes of a weight file, no more than it has, and verify or pin them."""
    digest, left = hashlib.sha256(), file.bytes or MOST_BYTES
    while chunk := source.read(min(1 << 20, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise CorruptWeights(file.name, "is larger than its card says", "report this")
        digest.update(chunk)
        out.write(chunk)
    _check(digest.hexdigest(), file)


def _keep(part: Path, target: Path, file: WeightFile) -> None:
    _check(_sha256(part), file)
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(target)


def _check(found: str, file: WeightFile) -> None:
    """Compare a hash with the card's, or pin it where the card has none."""
    if file.sha256 == UNKNOWN:
        with _writing(cards.pin_path(file.name)) as pin:
            pin.write(f"{found}  {file.name}\n".encode())
    elif found != file.sha256:
        raise CorruptWeights(file.name, *_other_file(found, file.sha256))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock")):
        yield


@contextmanager
def _writing(target: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `target` once it is whole and on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f"{target.name}.", suffix=".new", delete=False
    ) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:  # also when interrupted: leave nothing half-written behind
            file.close()
            Path(file.name).unlink()
            raise
    Path(file.name).replace(target)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"cannot write {path}: {error.strerror or error}; "
            f"make room or set MIEN_HOME to a folder that can be written"
        ) from error


# --- for machines without internet ---------------------------------------------------------


def write_bundle(models: Sequence[ModelCard], path: Path) -> None:
    """Put the cards and files of models into one zip file, for `import_models` elsewhere.

    Every file is verified on the way. Raises `CorruptWeights` for a model that is not here.
    """
    with (
        _disk_errors(path),
        _writing(path) as out,
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as box,
    ):
        for card in models:
            box.writestr(f"cards/{card.id}.toml", cards.card_text(card.id))
            for file in card.files:
                box.writestr(f"files/{file.name}", read_verified(file))


def import_models(path: Path) -> list[ModelCard]:
    """Take in what `write_bundle` wrote, or one model by its card.

    A `.toml` is the card of a model of your own; its files lie beside it and the card names their
    SHA-256. For ids that mien knows already its own card counts, not the one in the bundle.
    Licences are asked for when a model is loaded. Raises `ModelError` and `CorruptWeights`.
    """
    try:
        if path.suffix == ".toml":
            return [_import_card(path)]
        with zipfile.ZipFile(path) as box:
            names = [name for name in box.namelist() if name.startswith("cards/")]
            if not names:
                raise ModelError(f"{path} holds no model cards; 'mien models bundle' writes them")
            return [_import_member(box, name) for name in names]
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is neither a model bundle (zip) nor a model card (toml): {error}"
        ) from error
    except OSError as error:
        raise ModelError(f"cannot import {path}: {error}") from error


def import_checkpoint(path: Path, card: ModelCard, convert: Convert) -> Path:
    """Take in a published checkpoint that is here already, as the model whose card names it.

    Returns the converted file. Raises `CorruptWeights` for another file than the card's, and
    `ModelError` for a card that is of no checkpoint.
    """
    file = next((file for file in card.files if file.checkpoint), None)
    if file is None:
        raise ModelError(f"{card.id} is not converted from a checkpoint; import its card or bundle")
    with _disk_errors(path), _locked(_fetched(file)):
        return _convert(card, file, path, convert)


def _import_card(path: Path) -> ModelCard:
    text = path.read_text(encoding="utf-8")
    card = cards.parse(text, str(path))
    if card.id in cards.model_ids() and cards.card_text(card.id) != text:
        raise ModelError(f"{path}: mien has another model called {card.id}; choose another id")
    for file in card.files:
        beside = path.with_name(file.name)
        if file.sha256 == UNKNOWN:
            digest = _sha256(beside)
            raise ModelError(f'{path} must name the file: sha256 = "{digest}" is {file.name}')
        with beside.open("rb") as source:
            _import_file(source, file)
    _install(card, text)
    return card


def _import_member(box: zipfile.ZipFile, name: str) -> ModelCard:
    text = box.read(name).decode("utf-8", errors="replace")
    card = cards.parse(text, name)
    if card.id in cards.model_ids():
        text = cards.card_text(card.id)
        card = cards.model_card(card.id)
    for file in card.files:
        try:
            source = box.open(f"files/{file.name}")
        except KeyError:
            raise ModelError(f"{box.filename} lacks {file.name} of {card.id}") from None
        with source:
            _import_file(source, file)
    _install(card, text)
    return card


def _import_file(source: IO[bytes], file: WeightFile) -> None:
    if (here := locate(file)) and _sha256(here) == file.sha256:
        return
    target = _fetched(file)
    with _locked(target), _writing(target) as out:
        _copy(source, out, file)


def _install(card: ModelCard, text: str) -> None:
    if card.id not in cards.model_ids():
        with _writing(home() / "cards" / f"{card.id}.toml") as out:
            out.write(text.encode())
