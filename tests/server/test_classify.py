"""Heads over the wire: whom a face shows of the people that a head was fitted on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageEnhance
from starlette.testclient import TestClient

import mien
from mien.classification import Model, save_head
from mien.server import Galleries, Settings, create_app
from mien.types import Image

from .conftest import PORTRAITS, Serve
from .test_bad_input import expect, png_of
from .test_routes import upload

pytest.importorskip("sklearn", reason="a head is fitted with scikit-learn")

PEOPLE = {"Eileen Collins": "eileen-collins.jpg", "Grace Hopper": "grace-hopper.jpg"}


def versions(file: str) -> list[Image]:
    """A portrait lighter, darker, softer and mirrored."""
    picture = Pillow.open(PORTRAITS / file).convert("RGB").resize((256, 280))
    made = [
        ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(light)).enhance(contrast)
        for light in (0.7, 0.85, 1.0, 1.15)
        for contrast in (0.8, 1.1)
    ]
    made += [one.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) for one in made[:2]]
    return [Image(np.asarray(one)) for one in made]


def fitted(recognizers: Sequence[mien.Recognizer], path: Path) -> None:
    from mien.classification.fitting import fit

    names, vectors = [], [[] for _ in recognizers]
    for name, file in PEOPLE.items():
        for image in versions(file):
            names.append(name)
            for rows, recognizer in zip(vectors, recognizers, strict=True):
                rows.append(recognizer.embed(image, mien.largest).embedding.vector)
    models = [Model(r.bundle.id, r.contract) for r in recognizers]
    save_head(fit(models, [np.stack(v) for v in vectors], names, kind="knn", folds=3), path)


@pytest.fixture(scope="module")
def heads(recognizer: mien.Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a head on the model that is served, and one on that and another."""
    folder = tmp_path_factory.mktemp("heads")
    fitted([recognizer], folder / "astronauts.head")
    fitted([recognizer, mien.load("embedded-accurate")], folder / "both.head")
    return folder


@pytest.fixture
def client(serve: Serve, heads: Path) -> TestClient:
    return serve(heads=heads)


@pytest.mark.parametrize("head", ["astronauts", "both"])
def test_faces_get_the_labels_of_a_head(client: TestClient, head: str, both_jpg: bytes) -> None:
    reply = client.post(f"/v1/classify/{head}?limit=1", files=upload(both_jpg, png_of(64, 64)))
    assert reply.status_code == 200
    both, empty = reply.json()["images"]
    assert empty["faces"] == []
    left, right = sorted(both["faces"], key=lambda face: face["box"][0])
    assert (left["label"], right["label"]) == ("Eileen Collins", "Grace Hopper")
    assert left["probability"] > 0.5
    assert left["top"] == [{"label": "Eileen Collins", "probability": left["probability"]}]


def test_which_heads_there_are(client: TestClient) -> None:
    first, second = client.get("/v1/models").json()["heads"]
    assert (first["head"], first["labels"]) == ("astronauts", sorted(PEOPLE))
    assert second["models"] == ["embedded", "embedded-accurate"]
    assert 0.5 < first["accuracy"] <= 1
    assert first["pictures"] == 20


def test_what_a_head_cannot_answer(client: TestClient, serve: Serve, grace_jpg: bytes) -> None:
    missing = expect(client.post("/v1/classify/none", files=upload(grace_jpg)), 404, "UnknownHead")
    assert "astronauts" in str(missing["detail"])
    few = client.post("/v1/classify/astronauts?unknown=0.01", files=upload(grace_jpg))
    assert "too few pictures" in str(expect(few, 422, "InputError")["detail"])
    for query in ("limit=0", "unknown=0", "unknown=1"):
        expect(client.post(f"/v1/classify/astronauts?{query}"), 422, "InputError")
    none = expect(serve().post("/v1/classify/astronauts"), 404, "UnknownHead")
    assert "--heads" in str(none["detail"])


def test_heads_that_cannot_be_served_stop_the_start(
    recognizer: mien.Recognizer, tmp_path: Path
) -> None:
    def start() -> None:
        create_app(recognizer, Galleries(tmp_path), Settings(heads=tmp_path))

    with pytest.raises(mien.InputError, match="no head in"):
        start()
    (tmp_path / "bad.head").write_bytes(b"not a head")
    with pytest.raises(mien.InputError, match=r"bad\.head"):
        start()
