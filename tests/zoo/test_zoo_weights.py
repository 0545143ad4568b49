"""From a card to a verified file: hashes, pins, licences, archives, bundles, own models."""

import bz2
import hashlib
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from misbehaving import HASTE, Server, in_turn, ranged, status, whole

from mien import cards, weights
from mien.cli import cli
from mien.errors import (
    CorruptWeights,
    FetchFailed,
    LicenceNotAccepted,
    ModelError,
    UnknownModel,
)
from mien.inference import open_session

# Any real network serves; this one is small and lies in the package.
NETWORK = weights.read_verified(cards.model_card("retinaface-mobilenet025").files[0])
SHA256 = hashlib.sha256(NETWORK).hexdigest()


def card_text(id_: str, file: str, commercial: str = "yes") -> str:
    return f"""
id = "{id_}"
title = "A detector of one's own"
task = "detection"
decoder = "retinaface"
licence = "MIT"
commercial = "{commercial}"
origin = "https://models.example/own"
training_data = "none"
cautions = "A copy of the default, under another name."
[input]
channels = "RGB"
layout = "NHWC"
dtype = "uint8"
mean = [0, 0, 0]
std = [1, 1, 1]
[[files]]
{file}
"""


Install = Callable[..., cards.ModelCard]


@pytest.fixture
def install(home: Path, server: Server) -> Install:
    """Puts a card into the home folder, of a file that the server has."""

    def install(path: str = "/own.onnx", *, sha256: str = SHA256, commercial: str = "yes",
                size: int | None = len(NETWORK), more: str = "") -> cards.ModelCard:  # fmt: skip
        file = (
            f'name = "own.onnx"\nprecision = "fp32"\nsha256 = "{sha256}"\n'
            f'urls = ["{server.url(path)}"]\n{more}\n' + (f"bytes = {size}\n" if size else "")
        )
        (home / "cards").mkdir(parents=True, exist_ok=True)
        (home / "cards" / "own.toml").write_text(card_text("own", file, commercial))
        return cards.model_card("own")

    return install


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_fetched_models_run(install: Install, server: Server, home: Path) -> None:
    card = install()
    server.replies["/own.onnx"] = ranged(NETWORK, cut=1_000_000)
    assert not weights.is_present(card)
    with pytest.raises(CorruptWeights, match="mien models fetch"):
        open_session(card)
    assert weights.fetch(card, patience=HASTE) == [home / "models" / "own.onnx"]
    assert files(home / "models") == {"own.onnx"}
    assert open_session(card) is not None
    asked = len(server.asked)
    weights.fetch(card, patience=HASTE)
    assert len(server.asked) == asked, "what is here is not fetched again"


def test_a_cut_off_download_is_kept_and_continued(
    install: Install, server: Server, home: Path
) -> None:
    card = install()
    server.replies["/own.onnx"] = in_turn(ranged(NETWORK, cut=1_000_000), status(404))
    with pytest.raises(FetchFailed, match="What arrived is kept"):
        weights.fetch(card, patience=HASTE)
    assert files(home / "models") == {"own.onnx.part"}
    server.replies["/own.onnx"] = ranged(NETWORK)
    weights.fetch(card, patience=HASTE)
    assert server.ranges()[-1] == "bytes=1000000-"
    assert files(home / "models") == {"own.onnx"}


def test_a_damaged_file_is_refused_and_replaced(
    install: Install, server: Server, home: Path
) -> None:
    card = install()
    (home / "models").mkdir()
    (home / "models" / "own.onnx").write_bytes(NETWORK[:-1] + b"?")
    with pytest.raises(CorruptWeights, match="not the one its card describes"):
        open_session(card)
    server.replies["/own.onnx"] = whole(NETWORK)
    weights.fetch(card, patience=HASTE)
    assert open_session(card) is not None


def test_a_file_without_a_published_hash_is_pinned_once(
    install: Install, server: Server, home: Path
) -> None:
    card = install(sha256="unknown", size=None)
    server.replies["/own.onnx"] = whole(NETWORK)
    result = CliRunner().invoke(cli, ["models", "fetch", "own"])
    assert result.exit_code == 0, result.output
    assert f"from now on it must be {SHA256}" in " ".join(result.output.split())
    assert (home / "models" / "own.onnx.sha256").read_text() == f"{SHA256}  own.onnx\n"
    assert cards.model_card("own").files[0].sha256 == SHA256
    assert cards.model_card("own").origin_sha256 == SHA256, "the contract tells files apart"
    (home / "models" / "own.onnx").write_bytes(NETWORK + b"?")
    with pytest.raises(CorruptWeights, match="not the one"):
        open_session(cards.model_card("own"))
    server.replies["/own.onnx"] = whole(NETWORK + b"changed at its source")
    with pytest.raises(FetchFailed, match="serves another file"):
        weights.fetch(cards.model_card("own"), patience=HASTE)
    with pytest.raises(CorruptWeights, match="nobody has published its hash"):
        weights.read_verified(card.files[0])


@pytest.mark.parametrize("commercial", ["no", "unclear"])
def test_licences_are_accepted_once(
    install: Install, server: Server, home: Path, commercial: str
) -> None:
    card = install(commercial=commercial)
    server.replies["/own.onnx"] = whole(NETWORK)
    with pytest.raises(LicenceNotAccepted):
        weights.fetch(card, patience=HASTE)
    assert server.asked == []
    refused = CliRunner().invoke(cli, ["models", "fetch", "own"])
    assert isinstance(refused.exception, LicenceNotAccepted)
    accepted = CliRunner().invoke(cli, ["models", "fetch", "own", "--accept-licence"])
    assert accepted.exit_code == 0, accepted.output
    record = json.loads((home / "licences" / "own.json").read_text())
    assert record["model"] == "own"
    assert record["accepted"].startswith("20")
    assert open_session(card) is not None
    assert CliRunner().invoke(cli, ["models", "fetch", "own"]).exit_code == 0
    with pytest.raises(LicenceNotAccepted):  # other terms, another answer
        weights.require_licence(replace(card, licence="a stricter one"))


def test_a_file_put_there_by_hand_needs_its_licence_too(install: Install, home: Path) -> None:
    card = install(commercial="no")
    (home / "models").mkdir()
    (home / "models" / "own.onnx").write_bytes(NETWORK)
    with pytest.raises(LicenceNotAccepted):
        open_session(card)
    weights.accept_licence(card)
    assert open_session(card) is not None


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as box:
        for name, data in members.items():
            box.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def test_one_member_is_read_out_of_a_zip(install: Install, server: Server, home: Path) -> None:
    archive = zipped(**{"..__..__evil.onnx": b"x", "pack__own.onnx": NETWORK})
    digest = hashlib.sha256(archive).hexdigest()
    card = install("/p.zip", more=f'member = "own.onnx"\narchive_sha256 = "{digest}"')
    server.replies["/p.zip"] = ranged(archive, cut=1_000_000)
    weights.fetch(card, patience=HASTE)
    assert files(home / "models") == {"own.onnx"}
    assert weights.read_verified(card.files[0]) == NETWORK
    assert not list(home.parent.rglob("evil*"))


def test_bz2_is_read(install: Install, server: Server) -> None:
    card = install("/own.onnx.bz2", more='member = "own.onnx"')
    server.replies["/own.onnx.bz2"] = whole(bz2.compress(NETWORK, 1))
    weights.fetch(card, patience=HASTE)
    assert weights.read_verified(card.files[0]) == NETWORK


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (zipped(other=NETWORK), "has no readable own.onnx"),
        (zipped(**{"own.onnx": NETWORK[:-1] + b"?"}), "not the one its card describes"),
        (zipped(**{"own.onnx": b"\0" * 50_000_000}), "larger than its card says"),
        (bz2.compress(b"\0" * 50_000_000), "larger than its card says"),
        (b"neither zip nor bz2", "has no readable own.onnx"),
        (zipped(**{"own.onnx": NETWORK})[:-30], "has no readable own.onnx"),
        (bz2.compress(NETWORK, 1)[:-9], "has no readable own.onnx"),
    ],
)
def test_bad_archives_are_refused(
    install: Install, server: Server, home: Path, archive: bytes, reason: str
) -> None:
    card = install("/p.zip", more='member = "own.onnx"')
    server.replies["/p.zip"] = whole(archive)
    with pytest.raises(CorruptWeights, match=reason):
        weights.fetch(card, patience=HASTE)
    assert files(home / "models") <= {"own.onnx.part"}


def test_concurrent_fetches_download_once(install: Install, server: Server) -> None:
    card = install()
    server.replies["/own.onnx"] = whole(NETWORK)
    threads = [threading.Thread(target=weights.fetch, args=(card,)) for _ in range(4)]
    script = "from mien import cards, weights; weights.fetch(cards.model_card('own'))"
    with subprocess.Popen([sys.executable, "-c", script]) as other:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert other.returncode == 0
    assert len(server.asked) == 1
    assert weights.read_verified(card.files[0]) == NETWORK


def test_a_home_that_cannot_be_written_is_an_error(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = install()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="MIEN_HOME"):
        weights.fetch(card, patience=HASTE)


def test_a_bundle_takes_models_to_another_machine(
    install: Install, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = install(commercial="no")
    server.replies["/own.onnx"] = whole(NETWORK)
    weights.accept_licence(card)
    weights.fetch(card, patience=HASTE)
    box = tmp_path / "models.zip"
    made = CliRunner().invoke(cli, ["models", "bundle", "-o", str(box), "own", "embedded"])
    assert made.exit_code == 0, made.output
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(UnknownModel):
        cards.model_card("own")
    taken = CliRunner().invoke(cli, ["models", "import", str(box)])
    assert taken.exit_code == 0, taken.output
    assert files(tmp_path / "elsewhere" / "models") == {"own.onnx"}, "what mien has stays out"
    with pytest.raises(LicenceNotAccepted):  # whoever uses it accepts it
        open_session(cards.model_card("own"))
    weights.accept_licence(cards.model_card("own"))
    assert open_session(cards.model_card("own")) is not None


def test_a_bundle_that_was_tampered_with_is_refused(install: Install, tmp_path: Path) -> None:
    card = install()
    box = tmp_path / "models.zip"
    with zipfile.ZipFile(box, "w") as out:
        out.writestr("cards/own.toml", cards.card_text("own"))
        out.writestr("files/own.onnx", NETWORK[:-1] + b"?")
    with pytest.raises(CorruptWeights):
        weights.import_models(box)
    assert not weights.is_present(card)
    evil = card_text("evil", f'name = "../evil"\nprecision = "fp32"\nsha256 = "{SHA256}"')
    with zipfile.ZipFile(box, "w") as out:
        out.writestr("cards/evil.toml", evil)
        out.writestr("files/../evil", NETWORK)
    with pytest.raises(ModelError, match="not a plain name"):
        weights.import_models(box)


def test_known_models_keep_their_own_card(tmp_path: Path) -> None:
    """A bundle cannot bring another card, hence another hash, for a model that mien knows."""
    box = tmp_path / "models.zip"
    text = cards.card_text("dlib-resnet-v1").replace("CC0-1.0", "anything goes")
    with zipfile.ZipFile(box, "w") as out:
        out.writestr("cards/dlib-resnet-v1.toml", text)
        for file in cards.model_card("dlib-resnet-v1").files:
            out.writestr(f"files/{file.name}", b"not these")
    (card,) = weights.import_models(box)
    assert card.licence == "CC0-1.0"
    assert weights.read_verified(card.files[0])


def test_a_model_of_ones_own_is_imported_by_its_card(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(NETWORK)
    card = tmp_path / "mine.toml"
    card.write_text(card_text("mine", 'name = "mine.onnx"\nprecision = "fp32"\nsha256 = "unknown"'))
    with pytest.raises(ModelError, match=SHA256):
        weights.import_models(card)
    card.write_text(card.read_text().replace("unknown", SHA256))
    assert CliRunner().invoke(cli, ["models", "import", str(card)]).exit_code == 0
    assert "mine" in cards.model_ids()
    assert open_session(cards.model_card("mine")) is not None


@pytest.mark.parametrize("content", [b"not a card", b"PK\3\4 not a zip", b""])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("models.zip", "models.toml"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"models\."):
            weights.import_models(tmp_path / name)


def test_another_model_of_the_same_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(NETWORK)
    card = tmp_path / "x.toml"
    file = f'name = "x.onnx"\nprecision = "fp32"\nsha256 = "{SHA256}"'
    card.write_text(card_text("dlib-resnet-v1", file))
    with pytest.raises(ModelError, match="choose another id"):
        weights.import_models(card)


def test_what_a_tool_builds_is_not_fetched() -> None:
    card = cards.model_card("mtcnn")
    with pytest.raises(ModelError, match=r"mtcnn-pnet\.onnx is not downloaded.*tools/mtcnn\.py"):
        weights.fetch(card)
