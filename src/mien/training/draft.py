"""From trained weights to a model that every verb can use: ONNX, and a draft of its card.

`mien models import DIR/ID.toml` takes it in; `mien verify --model ID` and all else then work.
"""

import hashlib
import json
import logging
import re
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien import cards
from mien.alignment import align
from mien.errors import InputError, MissingExtra
from mien.evaluation.calibration import all_pairs, operating_points
from mien.evaluation.curves import tally_curve
from mien.evaluation.protocols import Ints, Pairs, People, Picture
from mien.evaluation.vectors import Vectors
from mien.images import read_image
from mien.training.config import Input, Recipe
from mien.training.loop import best
from mien.training.material import Material
from mien.training.objectives import unit
from mien.training.preparation.pack import Packed
from mien.training.validation import embed_rows
from mien.types import Frame, Landmarks, OperatingPoint

PICTURE = "eileen-collins.jpg"
FACE = ((203.5, 100.6), (246.8, 102.6), (223.1, 128.0), (202.4, 139.0), (243.5, 140.7))
"""A face that comes with mien, and where its landmarks are: the card keeps its vector."""


def write(
    network: nn.Module,
    recipe: Recipe,
    material: Material,
    history: Sequence[Mapping[str, Any]],
    folder: Path,
) -> tuple[Path, list[OperatingPoint]]:
    """Write `ID.onnx` and the card `ID.toml` to a folder; returns the card and its thresholds.

    Thresholds are measured on all pairs of the people of the validation pairs, with the crops and
    the number of views (one) that are used afterwards; where those are too few, there are none.
    Raises `InputError` and `MissingExtra`.
    """
    name = name_of(recipe, folder)
    network = network.to("cpu").eval()
    frame = frame_of(material.packed.about.frame, recipe.input)
    model = folder / f"{name}.onnx"
    try:
        model.write_bytes(to_onnx(network, recipe.input.size, recipe.card.half))
    except OSError as error:
        raise InputError(f"cannot write {model}: {error.strerror}") from error
    vector = golden_vector(network, frame)
    points = measured(network, recipe.input, *material.validation) if material.validation else []
    text = card_text(
        name, recipe, frame, model, vector, points, {**material.facts, "history": history}
    )
    cards.parse(text, f"the draft of {name}")
    path = folder / f"{name}.toml"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return path, points


def name_of(recipe: Recipe, folder: Path) -> str:
    """The id of the card: what the recipe says, or made of the name of the folder."""
    made = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("._-")
    return recipe.card.id or made or recipe.network.name


def frame_of(packed: Frame, shape: Input) -> Frame:
    """The crop that a network sees when it sees the middle of packed crops."""
    sides = np.array(packed.size, np.float64)
    corner = (1 - shape.crop) / 2 * sides - 0.5
    scale = shape.size / (shape.crop * sides)
    template = (np.array(packed.template) - corner) * scale - 0.5
    return Frame(
        (shape.size, shape.size), tuple((round(x, 3), round(y, 3)) for x, y in template.tolist())
    )


def to_onnx(network: nn.Module, size: int, half: bool) -> bytes:
    """An ONNX file with one input (n, 3, size, size), any n, and one output (n, d).

    With `half`, large weights are kept in half precision and cast when the model is loaded: half
    the bytes, the same speed. Raises `MissingExtra`.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - what torch exports with
    except ImportError as error:
        raise MissingExtra("exporting to ONNX", "train") from error
    example = torch.zeros(2, 3, size, size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision: we do not
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program = torch.onnx.export(
            network, (example,), dynamo=True, verbose=False, external_data=False,
            input_names=["faces"], output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    model = program.model_proto
    _forget(model)
    if half:
        _halve(model, onnx)
    data: bytes = model.SerializeToString()
    return data


def _forget(model: Any) -> None:
    """Take out the exporter's notes: they are larger than a small graph, and name files here."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info,
                 *model.graph.input, *model.graph.output, *model.graph.initializer):  # fmt: skip
        del part.metadata_props[:]
        part.doc_string = ""


def _halve(model: Any, onnx: Any) -> None:
    for number, tensor in enumerate(list(model.graph.initializer)):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 256:
            continue
        name = tensor.name
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        tensor.CopyFrom(stored)
        cast = onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(number, cast)


def golden_vector(network: nn.Module, frame: Frame) -> list[float]:
    """What the network makes of the face that comes with mien."""
    picture = resources.files("mien").joinpath("bundled", "pictures", PICTURE)
    face = Landmarks(np.array(FACE, np.float32))
    crop = align(read_image(picture.read_bytes()), face, frame)
    with torch.inference_mode():
        pixels = torch.from_numpy(crop.pixels.astype(np.float32)).permute(2, 0, 1)[None]
        vector: Tensor = unit(network((pixels - 127.5) / 127.5))[0]
    return [round(number, 5) for number in vector.tolist()]


def measured(
    network: nn.Module, shape: Input, packed: Packed, pairs: Pairs, rows: Ints
) -> list[OperatingPoint]:
    """Thresholds on all pairs of the validation people; none where they are too few.

    The contract is filled in when the card is read.
    """
    names = [packed.rows[row].subject for row in rows.tolist()]
    people, person = np.unique(names, return_inverse=True)
    pictures = tuple(Picture(name, Path(name)) for name in names)
    group = People(pairs.name, pictures, tuple(people.tolist()), person.astype(np.int64))
    matrix = embed_rows(network, packed, rows, shape, views=(False,))
    protocol = (
        f"all pairs of the {len(people):,} people of {pairs.name}, none of whom was trained on, "
        f"each pair of people weighted alike"
    )
    try:
        genuine, impostor = all_pairs(group, Vectors(matrix, {}, "", 0))
        return operating_points(tally_curve(genuine, impostor), protocol, "")
    except InputError:  # too few people: the card then says nothing, and verifying asks for more
        return []


def card_text(
    name: str,
    recipe: Recipe,
    frame: Frame,
    model: Path,
    vector: list[float],
    points: list[OperatingPoint],
    facts: Mapping[str, Any],
) -> str:
    """The TOML of the card."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    about = recipe.card
    learnt = (
        f"{facts['pictures']:,} pictures of {facts['people']:,} people of the packed set "
        f"{Path(recipe.data.set).name} (manifest SHA-256 {facts['manifest_sha256']})"
    )
    if "teacher" in facts:
        learnt += f"; learnt from the vectors of {facts['teacher']}, which saw other pictures"
    if recipe.network.start:
        learnt += f"; started from {Path(recipe.network.start).name}"
    origin = f"mien {version('mien')}, mien train, seed {recipe.run.seed}, commit {commit()}"
    lines = [
        ("id", name), ("title", about.title or f"{recipe.network.name}, trained with mien"),
        ("task", "embedding"), ("decoder", "vector"), ("licence", about.licence),
        ("commercial", about.commercial), ("origin", origin), ("training_data", learnt),
        ("cautions", about.cautions),
    ]  # fmt: skip
    text = "".join(f"{key} = {_quoted(value)}\n" for key, value in lines)
    template = ", ".join(f"[{x:g}, {y:g}]" for x, y in frame.template)
    text += (
        f'\n[input]\nchannels = "RGB"\nlayout = "NCHW"\ndtype = "float32"\n'
        f"mean = [127.5, 127.5, 127.5]\nstd = [127.5, 127.5, 127.5]\n"
        f"size = [{frame.size[0]}, {frame.size[1]}]\ntemplate = [{template}]\n"
        f'\n[[files]]\nname = "{model.name}"\nprecision = "fp32"\nsha256 = "{digest}"\n'
        f"bytes = {model.stat().st_size}\n\n[figures]\n"
    )
    scored = [row for row in facts["history"] if "accuracy" in row]
    kept: Mapping[str, Any] = (
        scored[best(scored) if recipe.validation.patience else -1] if scored else {}
    )
    for key in ("accuracy", "accuracy_stderr", "auc", "cpu_seconds"):
        if key in kept:
            text += f'{key} = "{kept[key]:g}"\n'
    if kept:
        text += f"protocol = {_quoted(f'{recipe.validation.pairs}, mirrored crops averaged')}\n"
    numbers = ", ".join(f"{number:g}" for number in vector)
    where = ", ".join(f"[{x:g}, {y:g}]" for x, y in FACE)
    text += f'\n[golden]\npicture = "{PICTURE}"\nlandmarks = [{where}]\nvector = [{numbers}]\n'
    if points:
        rows = "".join(f"    [{p.fmr:g}, {p.threshold:.5f}, {p.fnmr:.5f}],\n" for p in points)
        text += (
            f'\n[measured]\ndetector = "{cards.bundle("embedded").detector.id}"\nviews = 1\n'
            f"protocol = {_quoted(points[0].protocol)}\noperating_points = [\n{rows}]\n"
        )
    return text


def commit() -> str:
    """The commit of the working folder, or "unknown" where there is none."""
    asked = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
