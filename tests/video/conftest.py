"""The two portraits as people who move, and a gallery that knows one of them."""

from collections.abc import Iterator

import pytest
from filming import Sprite, sprite

import mien
from mien.types import Face, Image


@pytest.fixture(scope="session")
def grace_face(recognizer: mien.Recognizer, grace: Image) -> Face:
    (face,) = recognizer.detector.detect(grace)
    return face


@pytest.fixture(scope="session")
def walking_eileen(eileen: Image, eileen_face: Face) -> Sprite:
    return sprite("Eileen", eileen, eileen_face)


@pytest.fixture(scope="session")
def walking_grace(grace: Image, grace_face: Face) -> Sprite:
    return sprite("Grace", grace, grace_face)


@pytest.fixture(scope="session")
def knows_eileen(
    recognizer: mien.Recognizer, eileen: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[mien.Gallery]:
    with mien.open_gallery(tmp_path_factory.mktemp("gallery") / "people.mien") as gallery:
        gallery.enroll("Eileen", eileen, recognizer)
        yield gallery
