"""Closed-set heads on embeddings: which of the known people does a face show?

`heads` (a fitted head, and using one), `file` (saving and loading it), `learners` (ways
to learn; they need scikit-learn), `strangers` (who is somebody else), `fitting` (choosing, weighing
and measuring learners), `report` (what was measured), `faces` (pictures to a head's vectors).
"""

from mien.classification.faces import describe, recognizers
from mien.classification.file import load_head, save_head
from mien.classification.heads import Classification, Head, Likely, Model
from mien.classification.report import Report, Suspect

__all__ = [
    "Classification", "Head", "Likely", "Model", "Report", "Suspect", "describe", "load_head",
    "recognizers", "save_head",
]  # fmt: skip
