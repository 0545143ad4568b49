"""A published checkpoint becomes a model of mien that computes what the package computes."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="conversion needs mien[train]")
pytest.importorskip("onnxscript", reason="conversion needs mien[train]")

from test_networks import REFERENCE, made_up, picture  # noqa: E402

import mien  # noqa: E402
from mien import cards, networks, weights  # noqa: E402
from mien.cli.models import command  # noqa: E402
from mien.embedding import normalize, similarity  # noqa: E402
from mien.errors import CorruptWeights, MissingExtra, ModelError  # noqa: E402
from mien.inference import session_of  # noqa: E402
from mien.training import conversion  # noqa: E402
from mien.types import Image  # noqa: E402

NAME = "inception_resnet_v1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As facenet-pytorch publishes them: all tensors of its network, a classifier too."""
    state = made_up(networks.build(NAME).state_dict())
    state["logits.weight"], state["logits.bias"] = torch.zeros(10, 512), torch.zeros(10)
    path = tmp_path_factory.mktemp("checkpoint") / "made-up.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_HOME", str(place))
        yield place


@pytest.fixture(scope="module")
def imported(home: Path, checkpoint: Path) -> Path:
    """What 'mien models import made-up.pt --as facenet-casia' leaves."""
    arguments = ["import", str(checkpoint), "--as", "facenet-casia"]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    weights.accept_licence(cards.model_card("facenet-casia"))
    return home / "models" / "facenet-casia.onnx"


def test_the_file_computes_what_the_package_does(imported: Path) -> None:
    """From the names of facenet-pytorch to ONNX Runtime, against what the package itself gave."""
    case = REFERENCE[NAME]
    (found,) = session_of("facenet", imported.read_bytes())(picture(case["size"]).numpy())
    first = normalize(found)[:, :16].ravel()
    assert np.abs(first - np.array(case["output"])).max() < 1e-5


def test_any_number_of_faces(imported: Path) -> None:
    session = session_of("facenet", imported.read_bytes())
    for count in (1, 3):
        (found,) = session(np.zeros((count, 3, 160, 160), np.float32))
        assert found.shape == (count, 512)


def test_every_verb_can_use_it(imported: Path, eileen: Image) -> None:
    assert imported.is_file()
    recognizer = mien.load("facenet-casia")
    face, mirrored = (
        recognizer.embed(Image(pixels)) for pixels in (eileen.pixels, eileen.pixels[:, ::-1].copy())
    )
    assert face.embedding.vector.shape == (512,)
    assert face.embedding.contract.startswith("retinaface-mobilenet025+facenet-casia@")
    assert similarity(face.embedding, mirrored.embedding) > 0.9
    listed = CliRunner().invoke(command, ["verify", "facenet-casia"], catch_exceptions=False)
    assert listed.output.startswith("ok  facenet-casia")


def test_the_bundle_is_there_and_says_what_is_missing(home: Path) -> None:
    assert home.is_dir()
    card = cards.bundle("facenet").embedder
    weights.accept_licence(card)
    with pytest.raises(CorruptWeights, match="missing; fetch it with 'mien models fetch'"):
        mien.load("facenet")


def test_another_file_than_the_published_is_refused(home: Path, checkpoint: Path) -> None:
    assert home.is_dir()
    with pytest.raises(CorruptWeights, match=r"not the one its card describes.*281cebca8662"):
        weights.import_checkpoint(
            checkpoint, cards.model_card("facenet-vggface2"), conversion.convert
        )
    with pytest.raises(ModelError, match="not converted from a checkpoint"):
        weights.import_checkpoint(checkpoint, cards.model_card("sface"), conversion.convert)


def test_fetched_and_converted(home: Path, checkpoint: Path, imported: Path) -> None:
    """From an address to a model, by the hash of the checkpoint."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = partial(quiet, directory=str(checkpoint.parent))
    card = cards.model_card("facenet-vggface2")
    calls = []

    def convert(card: cards.ModelCard, file: cards.WeightFile, path: Path) -> bytes:
        calls.append(path.name)
        return imported.read_bytes()

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{checkpoint.name}"
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        file = replace(card.files[0], urls=(url,), archive_sha256=digest)
        weights.accept_licence(card)
        with pytest.raises(ModelError, match="converted from a checkpoint"):
            weights.fetch(replace(card, files=(file,)))
        (path,) = weights.fetch(replace(card, files=(file,)), convert=convert)
        server.shutdown()
        thread.join()
    assert path == home / "models" / "facenet-vggface2.onnx"
    assert calls == ["20180402-114759-vggface2.pt"]
    assert cards.model_card("facenet-vggface2").files[0].sha256 != cards.UNKNOWN  # pinned
    assert mien.load("facenet").contract.startswith("retinaface-mobilenet025+facenet-vggface2@")
    path.unlink()
    cards.pin_path(path.name).unlink()


# ---------------------------------------------------------------------------------------- bad input


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": Evil()}, "other things than tensors"),
        ([1, 2], "no dictionary of tensors"),
        ({"epoch": 3}, "no dictionary of tensors"),
    ],
)
def test_only_tensors_are_read(
    tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CorruptWeights, match=message):
        conversion.read_state(tmp_path / "x.pt")
    assert "executed" not in capsys.readouterr().out


def test_damaged_and_missing_checkpoints(tmp_path: Path, checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    for content in (b"", b"not a checkpoint", data[: len(data) // 2]):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(CorruptWeights, match=r"x\.pt"):
            conversion.read_state(tmp_path / "x.pt")
    with pytest.raises(CorruptWeights, match="cannot read it"):
        conversion.read_state(tmp_path / "absent.pt")


def test_the_checkpoint_of_another_network(tmp_path: Path, checkpoint: Path) -> None:
    card = cards.model_card("facenet-casia")
    torch.save(networks.build("mobilenet_v2", 8).state_dict(), tmp_path / "x.pt")
    with pytest.raises(ModelError, match="of another network"):
        conversion.convert(card, card.files[0], tmp_path / "x.pt")
    state = conversion.read_state(checkpoint)
    del state["block8.conv2d.bias"]
    torch.save(state, tmp_path / "y.pt")
    with pytest.raises(ModelError, match=r"lacks 1 of the tensors.*block8\.conv2d\.bias"):
        conversion.convert(card, card.files[0], tmp_path / "y.pt")


def test_a_conversion_that_computes_something_else_is_not_taken_in(
    imported: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of other weights stands for a converter at fault."""
    monkeypatch.setattr(conversion, "to_onnx", lambda *_, **__: imported.read_bytes())
    state = conversion.read_state(checkpoint)
    state["last_linear.weight"] = state["last_linear.weight"].flip(0)
    torch.save(state, tmp_path / "x.pt")
    card = cards.model_card("facenet-casia")
    with pytest.raises(ModelError, match="agrees with PyTorch to"):
        conversion.convert(card, card.files[0], tmp_path / "x.pt")


def test_without_torch_the_extra_is_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"facenet-casia.*mien\[train\]"):
        CliRunner().invoke(
            command, ["import", str(checkpoint), "--as", "facenet-casia"], catch_exceptions=False
        )
