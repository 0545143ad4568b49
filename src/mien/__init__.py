"""Find, verify, identify and group faces, with a measured error rate on every answer.

    >>> import mien
    >>> recognizer = mien.load()
    >>> answer = recognizer.verify("a.jpg", "b.jpg", fmr=1e-3)

Every public name is imported when it is first used, so `import mien` itself takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; `_HOME` says the same at run time
    from mien.alignment import align as align
    from mien.attributes import Analyzer as Analyzer
    from mien.attributes import load_analyzer as load_analyzer
    from mien.cards import Bundle as Bundle
    from mien.cards import InputSpec as InputSpec
    from mien.cards import ModelCard as ModelCard
    from mien.classification import Classification as Classification
    from mien.classification import Head as Head
    from mien.classification import load_head as load_head
    from mien.client import AsyncClient as AsyncClient
    from mien.client import Client as Client
    from mien.client import ServerRefused as ServerRefused
    from mien.client import ServerUnreachable as ServerUnreachable
    from mien.detection import central as central
    from mien.detection import largest as largest
    from mien.detection import only as only
    from mien.embedding import agreeing as agreeing
    from mien.embedding import fuse as fuse
    from mien.embedding import similarity as similarity
    from mien.errors import ContractMismatch as ContractMismatch
    from mien.errors import CorruptWeights as CorruptWeights
    from mien.errors import FetchFailed as FetchFailed
    from mien.errors import GalleryDamaged as GalleryDamaged
    from mien.errors import GalleryError as GalleryError
    from mien.errors import GalleryUnavailable as GalleryUnavailable
    from mien.errors import ImageTooLarge as ImageTooLarge
    from mien.errors import InputError as InputError
    from mien.errors import LicenceNotAccepted as LicenceNotAccepted
    from mien.errors import LowQuality as LowQuality
    from mien.errors import MienError as MienError
    from mien.errors import MissingExtra as MissingExtra
    from mien.errors import ModelError as ModelError
    from mien.errors import NoFaceFound as NoFaceFound
    from mien.errors import NoOperatingPoint as NoOperatingPoint
    from mien.errors import SeveralFacesFound as SeveralFacesFound
    from mien.errors import UnknownModel as UnknownModel
    from mien.errors import UnknownSubject as UnknownSubject
    from mien.errors import UnreadableImage as UnreadableImage
    from mien.gallery import Gallery as Gallery
    from mien.gallery import open_gallery as open_gallery
    from mien.images import Limits as Limits
    from mien.images import encode_image as encode_image
    from mien.images import read_image as read_image
    from mien.images import save_image as save_image
    from mien.pose import head_pose as head_pose
    from mien.recognition import Recognizer as Recognizer
    from mien.recognition import load as load
    from mien.types import Age as Age
    from mien.types import AlignedFace as AlignedFace
    from mien.types import Analysis as Analysis
    from mien.types import Box as Box
    from mien.types import Category as Category
    from mien.types import Embedding as Embedding
    from mien.types import Face as Face
    from mien.types import Frame as Frame
    from mien.types import Identification as Identification
    from mien.types import Image as Image
    from mien.types import Landmarks as Landmarks
    from mien.types import Liveness as Liveness
    from mien.types import LivenessPoint as LivenessPoint
    from mien.types import Match as Match
    from mien.types import OperatingPoint as OperatingPoint
    from mien.types import Pose as Pose
    from mien.types import Quality as Quality
    from mien.types import RecognizedFace as RecognizedFace
    from mien.types import Template as Template
    from mien.types import Verification as Verification

_HOME = {
    "mien.alignment": "align",
    "mien.attributes": "Analyzer load_analyzer",
    "mien.cards": "Bundle InputSpec ModelCard",
    "mien.classification": "Classification Head load_head",
    "mien.client": "AsyncClient Client ServerRefused ServerUnreachable",
    "mien.detection": "central largest only",
    "mien.embedding": "agreeing fuse similarity",
    "mien.errors": (
        "ContractMismatch CorruptWeights FetchFailed GalleryDamaged GalleryError "
        "GalleryUnavailable ImageTooLarge InputError LicenceNotAccepted LowQuality MienError "
        "MissingExtra ModelError NoFaceFound NoOperatingPoint SeveralFacesFound UnknownModel "
        "UnknownSubject UnreadableImage"
    ),
    "mien.gallery": "Gallery open_gallery",
    "mien.images": "Limits encode_image read_image save_image",
    "mien.pose": "head_pose",
    "mien.recognition": "Recognizer load",
    "mien.types": (
        "Age AlignedFace Analysis Box Category Embedding Face Frame Identification Image "
        "Landmarks Liveness LivenessPoint Match OperatingPoint Pose Quality RecognizedFace "
        "Template Verification"
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("mien")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
