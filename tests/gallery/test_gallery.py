"""mien.gallery.Gallery: people and pictures, all or nothing, and "unknown" as an answer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest

import mien
from mien.gallery import MIN_QUALITY, Entry
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding, Image


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[mien.Gallery]:
    with mien.open_gallery(tmp_path / "people.mien") as gallery:
        yield gallery


@pytest.fixture(scope="module")
def poor(eileen: Image, recognizer: mien.Recognizer) -> Image:
    """Found by the detector, but so dark that nobody should enrol it."""
    dark = Image((eileen.pixels * 0.04).astype(np.uint8), "dark.png")
    assert recognizer.embed(dark).quality.value < MIN_QUALITY
    return dark


def entry(subject: str, vector: np.ndarray, contract: str = "one") -> Entry:
    return Entry(subject, Embedding(vector.astype(np.float32), contract), "x.jpg", 0.5)


def probe(vector: np.ndarray) -> Embedding:
    return Embedding(vector.astype(np.float32), "one")


def axis(number: int) -> np.ndarray:
    return np.eye(4)[number]


# ------------------------------------------------------------------------------ enrolling


def test_from_a_kept_crop_another_model_sees_the_same_face(
    tmp_path: Path, recognizer: mien.Recognizer, eileen: Image, both: Image
) -> None:
    pytest.importorskip("cryptography")
    with mien.open_gallery(tmp_path / "sealed.mien", key=bytes(32)) as gallery:
        gallery.enroll("Eileen", eileen, recognizer, keep_crop=True)
        gallery.enroll("left", both, recognizer, choose=mien.largest, keep_crop=True)
        for entry_ in gallery.entries():
            assert entry_.crop.startswith(b"\xff\xd8")
            again = recognizer.embed(entry_.crop, mien.central).embedding
            assert mien.similarity(again, entry_.embedding) > 0.97
        fused = gallery.fused("Eileen")
        assert mien.similarity(fused, next(gallery.entries("Eileen")).embedding) > 0.999
        with pytest.raises(mien.UnknownSubject):
            gallery.fused("nobody")


def test_a_fused_template_is_between_those_it_is_of(gallery: mien.Gallery) -> None:
    gallery.add([entry("ada", axis(0)), entry("ada", axis(1)), entry("bob", axis(2))])
    gallery.add([Entry("ada", probe(axis(3)), "x", 0.5, negative=True)])
    np.testing.assert_allclose(gallery.fused("ada").vector, [0.5**0.5, 0.5**0.5, 0, 0], atol=1e-6)


def test_replace_and_rename(gallery: mien.Gallery) -> None:
    gallery.add([entry("ada", axis(0)), entry("ada", axis(1)), entry("bob", axis(2))])
    gallery.replace("ada", [entry("ada", axis(3))])
    assert [e.embedding.vector.argmax() for e in gallery.entries("ada")] == [3]
    with pytest.raises(mien.ContractMismatch):
        gallery.replace("ada", [entry("ada", axis(0)), entry("ada", axis(1), "two")])
    gallery.rename("ada", "Ada")
    with pytest.raises(mien.GalleryError, match="merge"):
        gallery.rename("Ada", "bob")
    gallery.rename("Ada", "bob", merge=True)
    assert [(s.name, s.templates) for s in gallery.subjects()] == [("bob", 2)]


def test_main_path(
    gallery: mien.Gallery, recognizer: mien.Recognizer, eileen: Image, grace: Image, both: Image
) -> None:
    """Enrol one of two: she is named in another print, the other one is unknown."""
    (template,) = gallery.enroll("Eileen", eileen, recognizer)
    assert (template.subject, template.source) == ("Eileen", eileen.source)
    assert 0.8 < template.quality <= 1.0
    assert (len(gallery), gallery.contract) == (1, recognizer.contract)
    print_ = mien.encode_image(Image((both.pixels * 0.7).astype(np.uint8)), "jpeg", quality=70)
    answers = gallery.identify(print_, recognizer)
    by_place = sorted(answers, key=lambda answer: answer.face.box.left)
    assert [answer.subject for answer in by_place] == ["Eileen", None]
    for answer in answers:
        assert [match.subject for match in answer.candidates] == ["Eileen"]
        assert (answer.subject is not None) == (answer.score >= answer.operating_point.threshold)
        assert (answer.gallery_size, answer.fpir) == (1, 0.01)
    gallery.enroll("Grace", grace, recognizer)
    named = gallery.identify(print_, recognizer, fpir=0.05, limit=1)
    assert {answer.subject for answer in named} == {"Eileen", "Grace"}
    assert all(len(answer.candidates) == 1 for answer in named)
    assert gallery.remove("Eileen") == 1
    after = gallery.identify(print_, recognizer)
    assert sorted(str(answer.subject) for answer in after) == ["Grace", "None"]


def test_empty_gallery_calls_everyone_unknown(
    gallery: mien.Gallery, recognizer: mien.Recognizer, eileen: Image
) -> None:
    (answer,) = gallery.identify(eileen, recognizer)
    assert (answer.subject, answer.score, answer.candidates) == (None, -1.0, ())
    assert answer.gallery_size == 0
    assert gallery.identify(np.zeros((50, 50, 3), np.uint8), recognizer) == []


def test_one_picture_or_several(
    gallery: mien.Gallery, recognizer: mien.Recognizer, eileen: Image, eileen_file: Path
) -> None:
    sources = [eileen_file, str(eileen_file), eileen_file.read_bytes(), eileen.pixels, eileen]
    for source in sources:  # each is one picture, although four of them can be iterated
        assert len(gallery.enroll("Eileen", source, recognizer)) == 1
    assert len(gallery.enroll("Eileen", sources, recognizer)) == 5
    assert len(gallery.enroll("Eileen", iter(sources), recognizer)) == 5
    assert gallery.subjects()[0].templates == 15
    named = [t.source for t in gallery.templates("Eileen")[:2]]
    assert named == [str(eileen_file)] * 2


@pytest.mark.parametrize("case", ["blank", "both", "poor", "missing", "text"])
def test_all_or_nothing(
    gallery: mien.Gallery,
    recognizer: mien.Recognizer,
    eileen: Image,
    both: Image,
    poor: Image,
    tmp_path: Path,
    case: str,
) -> None:
    """The last of three pictures is bad: nothing is enrolled, and the error names it."""
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    bad, error, name = {
        "blank": (Image(np.zeros((60, 60, 3), np.uint8), "blank"), mien.NoFaceFound, "blank"),
        "both": (both, mien.SeveralFacesFound, "both.png"),
        "poor": (poor, mien.LowQuality, "dark.png"),
        "missing": (tmp_path / "missing.jpg", mien.UnreadableImage, "missing.jpg"),
        "text": (text, mien.UnreadableImage, "text.jpg"),
    }[case]
    with pytest.raises(error, match=name):
        gallery.enroll("Eileen", [eileen, eileen, bad], recognizer)
    assert len(gallery) == 0
    assert gallery.subjects() == []
    assert gallery.contract is None


def test_one_enrolment_is_one_transaction(
    recognizer: mien.Recognizer, eileen: Image, tmp_path: Path
) -> None:
    """A crash between two pictures of an enrolment leaves neither."""
    added = []

    class Noting(SqliteStore):
        def add(self, entries: Sequence[Entry]) -> list[mien.Template]:
            added.append(len(entries))
            return super().add(entries)

    with mien.Gallery(Noting(tmp_path / "people.mien")) as gallery:
        gallery.enroll("Eileen", [eileen] * 3, recognizer)
    assert added == [3]


def test_low_quality_says_why(
    gallery: mien.Gallery, recognizer: mien.Recognizer, poor: Image
) -> None:
    with pytest.raises(mien.LowQuality) as caught:
        gallery.enroll("Eileen", poor, recognizer)
    assert caught.value.value < MIN_QUALITY
    assert caught.value.reasons
    assert all(reason in str(caught.value) for reason in caught.value.reasons)
    assert gallery.enroll("Eileen", poor, recognizer, min_quality=0)


def test_choose(gallery: mien.Gallery, recognizer: mien.Recognizer, both: Image) -> None:
    gallery.enroll("Grace", both, recognizer, choose=mien.largest)
    (answer,) = gallery.identify(np.ascontiguousarray(both.pixels[:, 512:]), recognizer)
    assert answer.subject == "Grace"


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_a_subject_needs_a_name(
    gallery: mien.Gallery, recognizer: mien.Recognizer, eileen: Image, name: str
) -> None:
    with pytest.raises(mien.InputError, match="name"):
        gallery.enroll(name, eileen, recognizer)
    assert len(gallery) == 0


def test_nothing_to_enrol(gallery: mien.Gallery, recognizer: mien.Recognizer) -> None:
    with pytest.raises(mien.InputError, match="no pictures"):
        gallery.enroll("Eileen", [], recognizer)
    assert gallery.add([]) == []


@pytest.mark.parametrize("name", ["\udce9", "a\0b"])
def test_names_that_no_file_can_keep(gallery: mien.Gallery, name: str) -> None:
    """Half a character, as from a file name in another encoding: refused, or kept whole."""
    try:
        gallery.add([entry(name, axis(0))])
    except mien.InputError:
        assert gallery.subjects() == []
    else:
        assert [subject.name for subject in gallery.subjects()] == [name]


# ------------------------------------------------------------------------------ contracts


def test_foreign_recogniser_is_refused_before_any_work(
    gallery: mien.Gallery, recognizer: mien.Recognizer, eileen: Image, tmp_path: Path
) -> None:
    gallery.enroll("Eileen", eileen, recognizer)
    accurate = mien.load("embedded-accurate")
    missing = tmp_path / "never-read.jpg"
    with pytest.raises(mien.ContractMismatch):
        gallery.enroll("Eileen", missing, accurate)
    with pytest.raises(mien.ContractMismatch):
        gallery.identify(eileen, accurate)
    with pytest.raises(mien.ContractMismatch):
        gallery.search(accurate.embed(eileen).embedding)
    assert len(gallery) == 1


def test_entries_of_two_contracts(gallery: mien.Gallery) -> None:
    with pytest.raises(mien.ContractMismatch):
        gallery.add([entry("a", axis(0)), entry("b", axis(1), "two")])
    assert (len(gallery), gallery.contract) == (0, None)


def test_vectors_of_another_length(gallery: mien.Gallery) -> None:
    """One contract has one length; a gallery must not be spoilt by an entry of another."""
    gallery.add([entry("a", axis(0))])
    with pytest.raises(mien.MienError):
        gallery.add([entry("b", np.eye(8)[0])])
    assert [match.subject for match in gallery.search(probe(axis(0)))] == ["a"]


def test_probe_of_another_length(gallery: mien.Gallery) -> None:
    gallery.add([entry("a", axis(0))])
    with pytest.raises(mien.MienError):
        gallery.search(probe(np.eye(8)[0]))


@pytest.mark.parametrize("limit", [0, -1])
def test_limit(gallery: mien.Gallery, limit: int) -> None:
    with pytest.raises(mien.InputError, match="limit"):
        gallery.search(probe(axis(0)), limit)


def test_search_batch(gallery: mien.Gallery) -> None:
    gallery.add([entry("a", axis(0)), entry("b", axis(1))])
    probes = [probe(axis(number)) for number in (1, 0)]
    found = gallery.search_batch(probes, limit=1)
    assert [[match.subject for match in matches] for matches in found] == [["b"], ["a"]]
    assert gallery.search_batch([]) == []


# ------------------------------------------------------------------------------ opening


def test_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "people.mien"
    with mien.open_gallery(path) as gallery:
        gallery.add([entry("ada", axis(0))])
    monkeypatch.chdir(tmp_path)
    for uri in (str(path), "people.mien", f"sqlite:///{path}", "sqlite:///people.mien"):
        with mien.open_gallery(uri, create=False) as gallery:
            assert [subject.name for subject in gallery.subjects()] == ["ada"]
    assert list(tmp_path.glob("*")) == [path]


def test_unknown_kind() -> None:
    with pytest.raises(mien.GalleryUnavailable, match="redis"):
        mien.open_gallery("redis://localhost")


def test_not_created_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(mien.GalleryUnavailable, match="does not exist"):
        mien.open_gallery(tmp_path / "people.mien", create=False)
    assert list(tmp_path.iterdir()) == []


def test_closed(tmp_path: Path) -> None:
    gallery = mien.open_gallery(tmp_path / "people.mien")
    gallery.close()
    gallery.close()
    for use in (gallery.subjects, gallery.compact, lambda: gallery.add([entry("a", axis(0))])):
        with pytest.raises(mien.GalleryUnavailable, match="closed"):
            use()


def test_leaving_the_block_closes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), mien.open_gallery(tmp_path / "p.mien") as gallery:
        raise ZeroDivisionError
    with pytest.raises(mien.GalleryUnavailable):
        gallery.subjects()


def test_blurred_picture_of_the_same_person(
    gallery: mien.Gallery, recognizer: mien.Recognizer, eileen: Image
) -> None:
    gallery.enroll("Eileen", eileen, recognizer)
    soft = PIL.Image.fromarray(eileen.pixels).filter(PIL.ImageFilter.GaussianBlur(1.5))
    (answer,) = gallery.identify(soft, recognizer)
    assert answer.subject == "Eileen"
