"""What requests and replies consist of, in the words of the library and of `mien --json`."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

BoxSides = Annotated[
    list[float],
    Field(min_length=4, max_length=4, examples=[[196.2, 81.5, 292.9, 201.0]],
          description="Left, top, right and bottom in pixels of the picture."),
]  # fmt: skip
Name = Annotated[str, Field(examples=["Ada Lovelace"])]
Score = Annotated[
    float,
    Field(ge=-1, le=1, examples=[0.9312],
          description="Cosine similarity; what it is worth depends on the model."),
]  # fmt: skip
Contract = Annotated[
    str,
    Field(examples=["retinaface-mobilenet025+dlib-resnet-v1@9d74ebd8"],
          description="What made a vector; vectors of two contracts are never compared."),
]  # fmt: skip
Time = Annotated[
    str, Field(examples=["2026-11-23T09:30:00+00:00"], description="ISO 8601, in UTC.")
]


class Message(BaseModel):
    """A part of a request or a reply."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------- requests


class Pictures(Message):
    """One picture in base64, or several."""

    image: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        examples=["iVBORw0KGgoAAAANSUhEUg..."]
    )


class LiveRequest(Message):
    """The first message of a live camera. `key` is needed unless a header brought it."""

    key: str | None = Field(default=None, max_length=200)
    fpir: float = Field(default=1e-2, gt=0, lt=1, description="For each track, not each frame.")
    liveness: bool = Field(default=False, description="Whether faces are checked for liveness.")


class Probes(Message):
    """Vectors to be looked up, as `embed` gives them, and the contract that made them."""

    vectors: list[list[float]] = Field(
        min_length=1, max_length=256, examples=[[[0.081, -0.034, 0.102]]]
    )
    contract: Contract


class VectorsOfFaces(Message):
    """Faces to be grouped: vectors as `embed` gives them, and what is known of each face.

    `pictures` names the picture that each face is in: two faces of one picture are two people.
    """

    contract: Contract
    vectors: list[list[float]] = Field(
        min_length=1, max_length=10_000, examples=[[[0.081, -0.034, 0.102]]]
    )
    pictures: list[str] | None = Field(None, examples=[["party.jpg"]])
    qualities: list[float] | None = Field(None, examples=[[0.83]])


class NewName(Message):
    """The name that a person shall have, or of whom they shall be part."""

    subject: Annotated[str, Field(max_length=600, examples=["Ada King"])]


# ----------------------------------------------------------------------------------------- replies


class FaceQuality(Message):
    """How usable a face is, 0 to 1, and what limits it."""

    value: float = Field(ge=0, le=1, examples=[0.83])
    reasons: list[str] = Field(examples=[["blurred"]])


class FoundFace(Message):
    """A face and where it is."""

    box: BoxSides
    landmarks: list[list[float]] = Field(
        description="Left eye, right eye, nose, left and right mouth corner, as x and y."
    )
    confidence: float = Field(ge=0, le=1, description="How sure the detector is.")
    quality: float = Field(ge=0, le=1)
    reasons: list[str] = Field(description="What limits the quality.", examples=[["too small"]])


AnyFace = TypeVar("AnyFace", bound=Message)


class PictureOf(Message, Generic[AnyFace]):
    """One picture and its faces, most confident first."""

    # pydantic gives the docstring of a generic class to none of its forms
    model_config = ConfigDict(json_schema_extra={"description": "One picture and its faces."})

    image: str = Field(description="The name it was uploaded under.", examples=["door.jpg"])
    width: int
    height: int
    faces: list[AnyFace]


class Detections(Message):
    """The faces in each picture."""

    images: list[PictureOf[FoundFace]]


class EmbeddedFace(FoundFace):
    """A face with its vector."""

    vector: list[float] = Field(description="A unit vector.")


class Embeddings(Message):
    """The faces in each picture with their vectors."""

    contract: Contract
    images: list[PictureOf[EmbeddedFace]]


class VerificationReply(Message):
    """Whether two pictures show the same person, and how often such an answer is wrong."""

    match: bool
    score: Score
    threshold: Score
    fmr: float = Field(description="Share of different people that match.", examples=[0.001])
    fnmr: float = Field(description="Share of same people that do not match.", examples=[0.012])
    protocol: str = Field(description="What the rates were measured on.")
    contract: Contract
    fmr_at_score: float = Field(
        description="Share of different people that score at least this, within what was measured."
    )
    faces: list[FoundFace] = Field(description="The face compared in each picture.")
    images: list[str]


class Label(Message):
    """A label of a head and its probability, among the labels of that head."""

    label: Name
    probability: float = Field(ge=0, le=1, examples=[0.87])


class LabelledFace(FoundFace):
    """Whom a face shows, or resembles, of those a head knows. `label` is null for "unknown"."""

    label: Name | None
    probability: float = Field(ge=0, le=1, description="Of the likeliest label.", examples=[0.87])
    top: list[Label] = Field(description="The likeliest labels, best first.")


class Classifications(Message):
    """Whom the faces in each picture show, or resemble, of those a head knows."""

    head: Name
    protocol: str = Field(description="What the head was measured on.")
    accuracy: float = Field(description="Share of pictures held back that got their own label.")
    images: list[PictureOf[LabelledFace]]


class Candidate(Message):
    """A person enrolled, how much the face is like them, and like which template of theirs."""

    subject: Name
    score: Score
    template: int = Field(description="The template of theirs that is most alike.", examples=[7])


class IdentifiedFace(FoundFace):
    """Who a face is. `subject` is null for "unknown"."""

    subject: Name | None
    score: Score
    threshold: Score
    fmr_at_score: float = Field(
        description="Share of different people that score at least this, one to one."
    )
    fpir_at_score: float = Field(
        description="Share of strangers that score at least this against somebody in this gallery."
    )
    candidates: list[Candidate]
    review: str | None = Field(
        description="Names its review, if it is borderline and the request asked for reviews.",
        examples=["9f86d081884c7d65"],
    )


class Identifications(Message):
    """Who is in each picture."""

    gallery: Name
    gallery_size: int = Field(description="Templates in the gallery.")
    fpir: float = Field(description="Share of strangers that may be named wrongly.")
    fmr: float = Field(description="Share of pairs of different people that reach the threshold.")
    fnmr: float = Field(description="Share of pairs of one person that fall short of it.")
    protocol: str = Field(description="What the thresholds were measured on.")
    contract: Contract
    images: list[PictureOf[IdentifiedFace]]


class LivenessAnswer(Message):
    """Whether a face is a person or a picture of one, and how often such an answer is wrong."""

    live: bool
    score: float = Field(ge=0, le=1)
    threshold: float
    apcer: float = Field(description="Share of attacks that pass.")
    bpcer: float = Field(description="Share of real faces that do not pass.")
    protocol: str


class LiveReady(Message):
    """The answer to the first message: frames may come."""

    kind: Literal["ready"] = "ready"
    gallery: Name
    gallery_size: int
    fpir: float
    frame_bytes: int = Field(description="The largest frame that is taken.")


class LiveTrack(Message):
    """Somebody who is followed. `state` is "looking" until there is a decision."""

    track: int
    box: BoxSides
    quality: float | None = Field(description="Of the face on this frame; null if none was found.")
    state: Literal["looking", "named", "unknown"]
    subject: Name | None
    score: Score
    threshold: Score | None
    fmr_at_score: float | None
    fpir_at_score: float | None
    candidates: list[Candidate]
    faces: int = Field(description="Faces so far that were good enough to be looked up.")
    liveness: LivenessAnswer | None = Field(
        description="Over the faces so far; null unless it was asked for and has a model here."
    )


class LiveEvent(Message):
    """Something was decided about a track, as `mien watch` tells it."""

    event: Literal["decided", "ended"]
    track: int
    first_frame: int
    last_frame: int
    subject: Name | None
    score: Score


class LiveScene(Message):
    """The answer to a frame."""

    kind: Literal["scene"] = "scene"
    frame: int = Field(description="Which frame: they are counted from 0 as they arrive.")
    dropped: int = Field(description="Frames so far that newer ones replaced.")
    width: int
    height: int
    seconds: float = Field(description="From the arrival of the frame to this answer.")
    tracks: list[LiveTrack]
    events: list[LiveEvent]


class SearchReply(Message):
    """For each vector the people most like it, best first. No threshold is applied."""

    matches: list[list[Candidate]]


class HeadPose(Message):
    """Where a head points, in degrees; all 0 for a face that looks into the camera."""

    yaw: float = Field(description="Over 0: turned to the right of the picture.")
    pitch: float = Field(description="Over 0: raised.")
    roll: float = Field(description="Over 0: leaning to the right of the picture.")


class ApparentAge(Message):
    """Apparent age in years, and the middle 80% of what the network holds possible."""

    years: float = Field(examples=[42.5])
    low: float
    high: float


class LikelyLabel(Message):
    """The likeliest of several labels, and what the network gives each; not calibrated."""

    label: str
    probability: float = Field(ge=0, le=1)
    probabilities: dict[str, float]


class AnalysedFace(FoundFace):
    """What a face looks like. Null is what was not asked for, or has no model here."""

    pose: HeadPose
    age: ApparentAge | None
    gender: LikelyLabel | None
    expression: LikelyLabel | None
    ethnicity: LikelyLabel | None
    liveness: LivenessAnswer | None


class Analyses(Message):
    """What the faces in each picture look like: guesses from looks, not who somebody is."""

    missing: dict[str, str] = Field(description="Tasks that were left out, and why.")
    images: list[PictureOf[AnalysedFace]]


class GroupedFace(FoundFace):
    """A face and the number of its group; -1 for a face that is alone."""

    cluster: int = Field(ge=-1, examples=[0])


class Groups(Message):
    """The faces of several pictures, grouped by person. Groups are numbered by size from 0."""

    contract: Contract
    clusters: int = Field(description="How many groups of two faces or more there are.")
    images: list[PictureOf[GroupedFace]]


class GroupNumbers(Message):
    """The number of each face's group, in the order of the vectors; -1 for a face alone."""

    clusters: int = Field(description="How many groups of two faces or more there are.")
    numbers: list[int] = Field(examples=[[0, 0, -1, 0]])


class Review(FoundFace):
    """A face of which it is not sure whether it is this person's."""

    review: str = Field(description="Names the review.", examples=["9f86d081884c7d65"])
    image: str = Field(description="The name of its picture.")
    subject: Name
    named: bool = Field(description="Whether the server gave it the name.")
    score: Score
    fpir_at_score: float = Field(description="Share of strangers that score as high.")
    created: Time


class ReviewList(Message):
    """What waits to be reviewed, latest first."""

    kept: int = Field(description="How many this server keeps for a gallery; 0: none.")
    reviews: list[Review]


class Decided(Message):
    """What became of a review: a template of the person, or a negative of theirs."""

    subject: Name
    templates: int = Field(description="Templates that the person has now.")
    negative: bool


class TemplateReply(Message):
    """One enrolled picture of a person; the picture itself is not kept."""

    id: int
    source: str = Field(description="The name of the picture and a digest of the file.",
                        examples=["ada1.jpg sha256:3f786850e387550f"])  # fmt: skip
    quality: float
    created: Time


class SubjectReply(Message):
    """A person enrolled."""

    subject: Name
    templates: list[TemplateReply]
    created: Time


class EnrolledImage(Message):
    """What became of one picture. "present": the same file was enrolled before."""

    image: str
    status: Literal["enrolled", "present"]
    quality: FaceQuality


class Enrolment(SubjectReply):
    """A person after an enrolment, and what became of each picture."""

    images: list[EnrolledImage]


class Negatives(Message):
    """Pictures of somebody who was taken for a person and is not."""

    subject: Name
    added: int


class SubjectRow(Message):
    """One line of the list of people."""

    subject: Name
    templates: int
    created: Time


class SubjectPage(Message):
    """Part of the list of people, by name. Ask again with `after` = `next` for more."""

    subjects: list[SubjectRow]
    total: int = Field(description="People in the whole list.")
    next: Name | None


class Receipt(Message):
    """A signed proof of erasure; 'mien gallery receipt' checks it. `subject` is a keyed digest."""

    gallery: str
    collection: str
    subject: str
    templates: int
    time: Time
    line: str
    signature: str


class Erased(Message):
    """What was erased, for the record. `receipt` is null where the gallery's store signs none."""

    subject: Name
    templates: int
    erased: Time
    receipt: Receipt | None


class GalleryReply(Message):
    """The size of a gallery and what its vectors were made by."""

    gallery: Name
    subjects: int
    templates: int
    dimensions: int
    bytes: int
    contract: Contract | None


class GalleryList(Message):
    """The galleries that the key opens."""

    galleries: list[Name]


class Model(Message):
    """A network: its licence and whether its file is here."""

    id: str
    title: str
    task: str
    licence: str
    commercial: Literal["yes", "no", "unclear"]
    training_data: str
    cautions: str
    bytes: int | None
    sha256: str
    present: bool


class Point(Message):
    """A threshold and the rates measured at it."""

    threshold: Score
    fmr: float
    fnmr: float


class LoadedModel(Message):
    """The recogniser that answers here, and what was measured of it."""

    id: str
    title: str
    detector: str
    embedder: str
    contract: Contract
    protocol: str | None
    operating_points: list[Point]
    figures: dict[str, str]


class HeadRow(Message):
    """A head: whom it tells apart, and how well, on pictures that were held back from it."""

    head: Name
    kind: str = Field(examples=["stack"])
    labels: list[Name]
    models: list[str]
    protocol: str
    accuracy: float
    pictures: int


class Models(Message):
    """What is loaded, and every network that is known."""

    version: str
    min_quality: float = Field(
        description="Faces below this quality are not enrolled, unless a request asks for it.",
        examples=[0.2],
    )
    loaded: LoadedModel
    heads: list[HeadRow]
    models: list[Model]


class Me(Message):
    """What the key that was sent may do."""

    key: str
    role: Literal["read", "write", "admin"]
    galleries: list[str] = Field(description='Names, or "*" for every gallery.')
    keys: bool = Field(description="Whether this server asks for keys.")


class Health(Message):
    """Whether the server is well."""

    status: Literal["ok"]


class Problem(BaseModel):
    """Why a request was not served (RFC 9457), with the facts of the error beside."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/SeveralFacesFound",
                    "title": "Exactly one face was needed and more were detected.",
                    "status": 422,
                    "detail": "3 faces found in party.jpg where one was expected; ...",
                    "source": "party.jpg",
                    "count": 3,
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
