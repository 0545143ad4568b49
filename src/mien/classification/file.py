"""A head as one file: a .npz of plain arrays and a JSON text, and nothing that can run code."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from mien.classification.heads import (
    Acquaintance,
    Head,
    Layers,
    Learner,
    Linear,
    Model,
    Neighbours,
    Part,
)
from mien.classification.report import Candidate, Report, Suspect
from mien.errors import InputError
from mien.types import OperatingPoint

FORMAT = "mien head"
VERSION = 1

LEARNERS: dict[str, type[Learner]] = {"linear": Linear, "layers": Layers, "neighbours": Neighbours}

_REFUSED = "is not a head, or is damaged ({}); 'mien fit FOLDER -o HEAD' makes one"

Arrays = Mapping[str, NDArray[Any]]


def save_head(head: Head, path: str | os.PathLike[str]) -> None:
    """Write a head; the file is whole or absent. Raises `InputError` when that is not possible."""
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, **_arrays(head))
        partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_head(path: str | os.PathLike[str]) -> Head:
    """A head that `mien fit` or `save_head` wrote.

    Raises `InputError` for a file that is missing, damaged, or something else.
    """
    try:
        with open(path, "rb") as stream:
            if not is_zipfile(stream):
                raise ValueError("it is no archive")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as found:
                return _head(found)
    except OSError as error:
        raise InputError(f"cannot read the head {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} {_REFUSED.format(error)}") from error


def _arrays(head: Head) -> dict[str, Any]:
    learnt = {type_: name for name, type_ in LEARNERS.items()}
    met, report = head.acquaintance, head.report
    text = {
        "format": FORMAT,
        "version": VERSION,
        "kind": head.kind,
        "labels": head.labels,
        "models": [asdict(model) for model in head.models],
        "parts": [
            {"name": part.name, "model": part.model, "learner": learnt[type(part.learner)]}
            for part in head.parts
        ],
        "weights": head.weights.tolist(),
        "middle": met.middle,
        "spread": met.spread,
        "points": [asdict(point) for point in met.points],
        "report": {
            "protocol": report.protocol,
            "ece": report.ece,
            "bits": report.bits,
            "candidates": [asdict(candidate) for candidate in report.candidates],
            "suspects": [asdict(suspect) for suspect in report.suspects],
        },
    }
    arrays: dict[str, Any] = {"head": np.frombuffer(json.dumps(text).encode(), np.uint8)}
    arrays["confusion"] = report.confusion
    for number, means in enumerate(met.means):
        arrays[f"means.{number}"] = means
    for number, part in enumerate(head.parts):
        for field in fields(part.learner):
            arrays[f"part.{number}.{field.name}"] = np.asarray(getattr(part.learner, field.name))
    return arrays


def _head(arrays: Arrays) -> Head:
    text = json.loads(arrays["head"].tobytes())
    if text["format"] != FORMAT:
        raise ValueError(f"its format is {text['format']!r}")
    if text["version"] != VERSION:
        raise InputError(
            f"this head has format version {text['version']}, this mien reads {VERSION}: fit it "
            f"again, or use the mien that wrote it"
        )
    models = tuple(Model(**model) for model in text["models"])
    parts = tuple(
        Part(part["name"], part["model"], _learner(arrays, number, part["learner"]))
        for number, part in enumerate(text["parts"])
    )
    report = text["report"]
    head = Head(
        text["kind"],
        tuple(text["labels"]),
        models,
        parts,
        np.array(text["weights"], np.float64),
        Acquaintance(
            tuple(arrays[f"means.{number}"] for number in range(len(models))),
            tuple(text["middle"]),
            tuple(text["spread"]),
            tuple(OperatingPoint(**point) for point in text["points"]),
        ),
        Report(
            report["protocol"],
            arrays["confusion"],
            report["ece"],
            report["bits"],
            tuple(Candidate(**found) for found in report["candidates"]),
            tuple(Suspect(**found) for found in report["suspects"]),
        ),
    )
    _try(head)
    return head


def _learner(arrays: Arrays, number: int, name: str) -> Learner:
    kind = LEARNERS[name]
    return kind(**{field.name: arrays[f"part.{number}.{field.name}"] for field in fields(kind)})


def _try(head: Head) -> None:
    """Answer for one made-up face: what does not fit together fails here and not in use."""
    rows = [
        np.full((1, means.shape[1]), means.shape[1] ** -0.5) for means in head.acquaintance.means
    ]
    said = head.probabilities(rows)
    met = head.acquaintance.scores(rows)
    shape = (len(head.labels), len(head.labels))
    if head.weights.shape != (len(head.parts),):
        raise ValueError("it needs one weight for each part")
    if said.shape != (1, shape[0]) or head.report.confusion.shape != shape or met.shape != (1,):
        raise ValueError("its arrays do not fit its labels")
    if not (np.isfinite(said).all() and np.isfinite(met).all()):
        raise ValueError("its arrays hold numbers that are not finite")
