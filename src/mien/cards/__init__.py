"""Model cards: everything needed to run, trust and cite a model, as data (one TOML file each).

Two kinds of card. A `ModelCard` describes one network: its files and their hashes, its licence,
what it was trained on, what it wants as input. A `Bundle` names a detector and an embedder that
were measured together, and carries what was measured: the operating points. What differs between
models is written here and never in a subclass.

`objects` says what a card is, `reading` makes one of TOML, `registry` finds them by id, `places`
is where this machine keeps its own.
"""

from mien.cards.objects import (
    DECODERS,
    PREPROCESSING,
    UNKNOWN,
    Bundle,
    Golden,
    InputSpec,
    ModelCard,
    Question,
    Task,
    WeightFile,
    contract_of,
)
from mien.cards.places import home, pin_path
from mien.cards.reading import parse
from mien.cards.registry import bundle, bundle_ids, card_text, model_card, model_ids, own_bundle

__all__ = [
    "DECODERS", "PREPROCESSING", "UNKNOWN", "Bundle", "Golden", "InputSpec", "ModelCard",
    "Question", "Task", "WeightFile", "bundle", "bundle_ids", "card_text", "contract_of", "home",
    "model_card", "model_ids", "own_bundle", "parse", "pin_path",
]  # fmt: skip
