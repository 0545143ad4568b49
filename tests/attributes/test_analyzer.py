"""mien.load_analyzer: every task is answered by the network its card describes, or refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mien
from mien import cards
from mien.attributes import MODELS, TASKS, UNASKED, Analyzer
from mien.attributes.age import age
from mien.attributes.labels import LabelNetwork, softmax
from mien.errors import CorruptWeights, InputError, LicenceNotAccepted, ModelError, UnknownModel
from mien.types import Face, Image

from .conftest import Import

AGES = [("0-2", 0.0), ("3-9", 0.0), ("10-19", 0.0), ("20-29", 9.0), ("30-39", 9.0), ("40+", -9.0)]
GROUPS = [("one", 1.0), ("other", 3.0)]


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return mien.load_analyzer(["gender", "liveness"])


def test_pose_and_quality_need_no_model(
    recognizer: mien.Recognizer, eileen: Image, eileen_face: Face
) -> None:
    (seen,) = mien.load_analyzer(["quality", "pose"]).analyze(eileen, [eileen_face])
    assert seen.face is eileen_face
    assert seen.quality == recognizer.assess(eileen, eileen_face)
    assert abs(seen.pose.yaw) < 8
    assert (seen.age, seen.gender, seen.expression, seen.ethnicity, seen.liveness) == (None,) * 5


def test_answers_belong_to_their_faces(
    analyzer: Analyzer, recognizer: mien.Recognizer, both: Image
) -> None:
    """In one batch as one by one."""
    faces = recognizer.detector.detect(both)
    together = analyzer.analyze(both, faces)
    assert [seen.face for seen in together] == faces
    for face, seen in zip(faces, together, strict=True):
        (alone,) = analyzer.analyze(both, [face])
        assert seen.gender
        assert alone.gender
        assert seen.gender.probability == pytest.approx(alone.gender.probability, abs=1e-5)
        assert seen.liveness
        assert alone.liveness
        assert seen.liveness.score == pytest.approx(alone.liveness.score, abs=1e-5)


def test_no_faces(analyzer: Analyzer, eileen: Image) -> None:
    assert analyzer.analyze(eileen, []) == []


def test_gender_of_a_portrait(analyzer: Analyzer, eileen: Image, eileen_face: Face) -> None:
    (seen,) = analyzer.analyze(eileen, [eileen_face])
    assert seen.gender
    assert seen.gender.label == "female"
    assert seen.gender.probability > 0.9
    assert sum(seen.gender.probabilities.values()) == pytest.approx(1)


def test_without_names_what_is_here_is_done_and_the_rest_is_told(fresh_home: Path) -> None:
    analyzer = mien.load_analyzer()
    assert set(analyzer.tasks) == {"gender", "liveness"}
    assert set(analyzer.missing) == {"age", "expression"}
    assert "mien models fetch fairface" in analyzer.missing["age"]


def test_ethnicity_is_never_done_unasked() -> None:
    assert "ethnicity" not in UNASKED
    assert set(UNASKED) | {"ethnicity"} == set(MODELS)


@pytest.mark.parametrize("task", ["age", "expression", "ethnicity"])
def test_a_task_asked_for_by_name_fails_where_its_model_is_missing(
    fresh_home: Path, task: str
) -> None:
    with pytest.raises(CorruptWeights, match="mien models fetch"):
        mien.load_analyzer([task])


def test_liveness_is_never_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its networks there is no answer, and in particular not "live"."""
    monkeypatch.setattr("mien.weights.locate", lambda file: None)
    monkeypatch.setattr("mien.attributes.is_present", lambda card: False)
    with pytest.raises(CorruptWeights):
        mien.load_analyzer(["liveness"])
    analyzer = mien.load_analyzer()
    assert "liveness" not in analyzer.tasks
    assert "liveness" in analyzer.missing


def test_a_known_network(import_network: Import, eileen: Image, eileen_face: Face) -> None:
    """All its outputs in their order; the pixels in the order and range of its card."""
    import_network("toy", {"ethnicity": GROUPS, "age": AGES})
    analyzer = mien.load_analyzer(["age=toy", "ethnicity=toy"])
    (seen,) = analyzer.analyze(eileen, [eileen_face])
    assert seen.ethnicity
    assert seen.ethnicity.label == "other"
    assert seen.ethnicity.probability == pytest.approx(np.e**3 / (np.e + np.e**3), abs=1e-5)
    assert seen.age
    assert seen.age.years == pytest.approx(30, abs=0.2)
    assert (seen.age.low, seen.age.high) == pytest.approx((22, 38), abs=0.1)
    assert seen.gender is None


def test_only_tasks_asked_for_are_answered(
    import_network: Import, eileen: Image, eileen_face: Face
) -> None:
    import_network("toy", {"ethnicity": GROUPS, "age": AGES})
    (seen,) = mien.load_analyzer(["age=toy"]).analyze(eileen, [eileen_face])
    assert seen.age
    assert seen.ethnicity is None


def test_pixels_arrive_as_the_card_says(import_network: Import, eileen_face: Face) -> None:
    """A blue picture adds 1/1000 to every logit, a red one nothing."""
    import_network("toy", {"gender": GROUPS})
    (network,) = mien.load_analyzer(["gender=toy"]).attributes
    assert isinstance(network, LabelNetwork)
    logits = []
    session = network.session

    def spy(batch: np.ndarray) -> list[np.ndarray]:
        (output,) = session(batch)
        logits.append(output[0])
        return [output]

    watched = LabelNetwork(network.card, spy)
    for colour in ((255, 0, 0), (0, 0, 255)):
        picture = Image(np.full((512, 512, 3), colour, np.uint8))
        watched.answer(picture, [eileen_face])
    np.testing.assert_allclose(logits[0], [1, 3], atol=1e-6)
    np.testing.assert_allclose(logits[1], [1.001, 3.001], atol=1e-6)


def test_a_card_that_lies_about_its_outputs(
    import_network: Import, eileen: Image, eileen_face: Face, fresh_home: Path
) -> None:
    import_network("toy", {"gender": GROUPS})
    card = fresh_home / "home" / "cards" / "toy.toml"
    card.write_text(card.read_text().replace('["one", "other"]', '["one", "two", "three"]'))
    with pytest.raises(ModelError, match="3 labels of gender"):
        mien.load_analyzer(["gender=toy"]).analyze(eileen, [eileen_face])


def test_licences_are_asked_for(import_network: Import) -> None:
    import_network("toy", {"gender": GROUPS}, "no")
    with pytest.raises(LicenceNotAccepted):
        mien.load_analyzer(["gender=toy"])


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        ("beauty", InputError, "known: quality, pose, age"),
        ("", InputError, "unknown task ''"),
        ("gender=nonesuch", UnknownModel, "nonesuch"),
        ("age=dlib-gender-v1", InputError, "it answers gender"),
        ("liveness=dlib-gender-v1", InputError, "it answers gender"),
        ("gender=minifasnet", InputError, "it answers liveness"),
        ("gender=dlib-resnet-v1", ModelError, "its task is embedding"),
    ],
)
def test_bad_tasks(task: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mien.load_analyzer([task])


@pytest.mark.parametrize("name", sorted(set(MODELS.values())))
def test_cards_answer_what_they_are_chosen_for(name: str) -> None:
    card = cards.model_card(name)
    for task, chosen in MODELS.items():
        if chosen == name:
            assert task in [*(question.task for question in card.questions), card.task]
    assert card.runnable
    assert all(question.task in TASKS for question in card.questions)
    for question in card.questions:
        assert len(set(question.labels)) == len(question.labels)
        if question.task == "age":
            age(dict.fromkeys(question.labels, 1 / len(question.labels)))


# --- ages ------------------------------------------------------------------------------------


def test_one_certain_year() -> None:
    found = age({"33": 0.0, "34": 1.0, "35": 0.0})
    assert found.years == 34.5  # somebody of 34 is between 34 and 35
    assert (found.low, found.high) == pytest.approx((34.1, 34.9))


@given(st.lists(st.floats(0.01, 1), min_size=9, max_size=9))
def test_ages_lie_in_their_interval_and_agree_with_sampling(weights: list[float]) -> None:
    labels = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"]
    edges = [0, 3, 10, 20, 30, 40, 50, 60, 70, 90]
    found = age(dict(zip(labels, weights, strict=True)))
    shares = np.array(weights) / sum(weights)
    fine = np.linspace(0, 1, 2001)[1:-1]
    samples = np.concatenate(
        [np.repeat(low + fine * (high - low), max(1, round(2000 * share)))
         for low, high, share in zip(edges, edges[1:], shares, strict=False)]
    )  # fmt: skip
    assert found.low < found.high
    assert found.years == pytest.approx(samples.mean(), abs=0.5)
    assert found.low == pytest.approx(np.quantile(samples, 0.1), abs=0.6)
    assert found.high == pytest.approx(np.quantile(samples, 0.9), abs=0.6)


@pytest.mark.parametrize("labels", [["young"], ["20-29", "10-19"], ["0-9", "20-29"], ["9-3"]])
def test_labels_that_are_no_ages(labels: list[str]) -> None:
    with pytest.raises(ModelError, match="age"):
        age(dict.fromkeys(labels, 1.0))


@given(st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=8))
def test_softmax_against_its_naive_twin(logits: list[float]) -> None:
    with np.errstate(over="ignore"):
        powers = [np.exp(np.longdouble(x) - np.longdouble(max(logits))) for x in logits]
    expected = [float(power / sum(powers)) for power in powers]
    np.testing.assert_allclose(softmax(np.array([logits], np.float32))[0], expected, atol=1e-9)
