"""Everything mien raises on purpose, split by who can put it right.

MienError
├── InputError              the caller's data cannot be used as given
│   ├── UnreadableImage       not a picture, or a damaged one
│   ├── ImageTooLarge         more bytes or pixels than the limits allow
│   ├── NoFaceFound           a face was needed and none was detected
│   ├── SeveralFacesFound     exactly one face was needed and more were detected
│   └── LowQuality            the face is too poor to be enrolled
├── ModelError              a model cannot be found, trusted or run
│   ├── UnknownModel          no card has this id
│   ├── CorruptWeights        a weight file is missing, damaged, or not the one its card describes
│   ├── FetchFailed           a weight file cannot be downloaded
│   ├── LicenceNotAccepted    the licence of these weights has to be accepted first
│   ├── NoOperatingPoint      no threshold was measured at the error rate asked for
│   └── MissingExtra          an optional dependency is not installed
└── GalleryError            the request contradicts what is enrolled
    ├── UnknownSubject        nobody is enrolled under this name
    ├── ContractMismatch      vectors made in different ways were brought together
    ├── GalleryUnavailable    the gallery cannot be opened, read or written
    └── GalleryDamaged        a warning: some of it is damaged, and was left out

Each error carries its facts as fields and says what to do about it. Applications map the classes to
exit codes and HTTP statuses by nearest ancestor, in one table each.
"""

from collections.abc import Sequence
from typing import Any


class MienError(Exception):
    """Base of all; `except mien.MienError` catches every deliberate failure."""

    def __reduce__(self) -> tuple[Any, ...]:  # to other processes, with its facts
        return _without_init, (type(self), self.args), self.__dict__


def _without_init(kind: type[MienError], args: tuple[Any, ...]) -> MienError:
    """An error with its message; the constructors take facts, which pickle sets afterwards."""
    return kind.__new__(kind, *args)


class InputError(MienError, ValueError):
    """The caller's data cannot be used as given."""


class UnreadableImage(InputError):
    """The bytes are not a picture that can be decoded."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"cannot read {source}: {reason}")
        self.source = source
        self.reason = reason


class ImageTooLarge(InputError):
    """The picture exceeds the limits on bytes or pixels; it was not decoded."""

    def __init__(self, source: str, size: int, limit: int, unit: str) -> None:
        super().__init__(
            f"{source} has {size:,} {unit}, over the limit of {limit:,}; "
            f"make it smaller (or, in Python, read it with mien.read_image and wider mien.Limits)"
        )
        self.source = source
        self.size = size
        self.limit = limit
        self.unit = unit


class NoFaceFound(InputError):
    """A face was needed and none was detected."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"no face found in {source}; "
            f"use a picture in which the face is upright and at least 20 pixels wide"
        )
        self.source = source


class SeveralFacesFound(InputError):
    """Exactly one face was needed and more were detected."""

    def __init__(self, source: str, count: int) -> None:
        super().__init__(
            f"{count} faces found in {source} where one was expected; "
            f"crop the picture, or choose with choose=mien.largest (--choose largest)"
        )
        self.source = source
        self.count = count


class LowQuality(InputError):
    """The face is too poor to be enrolled; `reasons` says in what way."""

    def __init__(self, source: str, value: float, reasons: Sequence[str]) -> None:
        super().__init__(
            f"the face in {source} is too poor to enrol (quality {value:.2f}): "
            f"{', '.join(reasons) or 'a little of everything'}; "
            f"use a sharper, larger, more frontal picture"
        )
        self.source = source
        self.value = value
        self.reasons = tuple(reasons)


class ModelError(MienError):
    """A model cannot be found, trusted or run."""


class UnknownModel(ModelError, LookupError):
    """No card has this id."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown model {model!r}; known: {', '.join(known)}")
        self.model = model
        self.known = tuple(known)


class CorruptWeights(ModelError):
    """A weight file is missing, damaged, or not the one its card describes."""

    def __init__(
        self, path: str, reason: str, remedy: str = "reinstall mien, or run 'mien models verify'"
    ) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path = path
        self.reason = reason
        self.remedy = remedy


class FetchFailed(ModelError):
    """A weight file could not be downloaded from any of its addresses; `reasons` has one each."""

    def __init__(self, name: str, reasons: Sequence[str]) -> None:
        super().__init__(
            f"cannot fetch {name}: {'; '.join(reasons)}. What arrived is kept, so try again later. "
            f"For a machine without internet: run 'mien models bundle -o models.zip ID' on one "
            f"that has the model, and 'mien models import models.zip' here"
        )
        self.name = name
        self.reasons = tuple(reasons)


class LicenceNotAccepted(ModelError):
    """The licence of these weights restricts their use and has not been accepted yet."""

    def __init__(self, model: str, licence: str) -> None:
        super().__init__(
            f"{model} is under {licence}; read 'mien models info {model}', "
            f"then accept it with 'mien models fetch {model} --accept-licence'"
        )
        self.model = model
        self.licence = licence


class NoOperatingPoint(ModelError, LookupError):
    """No threshold was measured at the error rate asked for."""

    def __init__(self, contract: str, fmr: float, lowest: float | None) -> None:
        measured = (
            "it has no measured thresholds at all; "
            "'mien evaluate folder PEOPLE --model ID --as NEW' measures some, on people of yours"
            if lowest is None
            else f"its thresholds were measured for false match rates down to {lowest:g}"
        )
        super().__init__(
            f"no threshold of {contract} is measured at a false match rate of {fmr:g}: {measured}"
        )
        self.contract = contract
        self.fmr = fmr
        self.lowest = lowest


class MissingExtra(ModelError, ImportError):
    """An optional dependency is not installed; `install` is the command that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        self.install = f"pip install 'mien[{extra}]'"
        super().__init__(f"{what} needs an optional dependency: {self.install}")
        self.what = what
        self.extra = extra


class GalleryError(MienError):
    """The request contradicts what is enrolled."""


class UnknownSubject(GalleryError, LookupError):
    """Nobody is enrolled under this name."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"nobody is enrolled as {subject!r}; 'mien gallery list' shows who is")
        self.subject = subject


class ContractMismatch(GalleryError, ValueError):
    """Vectors made by different models, detectors or alignments were brought together."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(
            f"scores between vectors of {expected!r} and of {got!r} mean nothing; "
            f"use the model that made the first, or enrol again in a new gallery with the second"
        )
        self.expected = expected
        self.got = got


class GalleryUnavailable(GalleryError):
    """The gallery cannot be opened, read or written."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"cannot use the gallery {uri}: {reason}")
        self.uri = uri
        self.reason = reason


class GalleryDamaged(GalleryError, UserWarning):
    """Some rows of the gallery are damaged; what was asked for was answered without them.

    A warning: to have it raised instead, `warnings.simplefilter("error", mien.GalleryDamaged)`.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the gallery is damaged: {what}; 'mien gallery verify' names all of it and what to do"
        )
        self.what = what
