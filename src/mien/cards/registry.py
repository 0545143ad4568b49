"""Every card there is, by id: those that came with mien, and those imported or kept here."""

import base64
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from mien.cards.objects import Bundle, ModelCard, contract_of
from mien.cards.places import home
from mien.cards.reading import parse, plain
from mien.errors import InputError, ModelError, UnknownModel
from mien.types import Crowd, OperatingPoint


def model_ids() -> tuple[str, ...]:
    """The ids of all model cards, those that came with mien and those imported, sorted."""
    return tuple(sorted({*_bundled_ids("models"), *(path.stem for path in _imported())}))


def bundle_ids() -> tuple[str, ...]:
    """The ids of all bundles, those that came with mien and those kept here, sorted."""
    own = (path.stem for path in (home() / "bundles").glob("*.toml"))
    return tuple(sorted({*_bundled_ids("bundles"), *own}))


def own_bundle(name: str) -> Path:
    """Where a bundle of the user's own is kept.

    Raises `InputError` for a name that came with mien, or that is no plain name.
    """
    if name in _bundled_ids("bundles") or name in _bundled_ids("models"):
        raise InputError(f"{name!r} came with mien and stays as it was measured: use another name")
    try:
        return home() / "bundles" / f"{plain(name)}.toml"
    except ValueError as error:
        raise InputError(str(error)) from error


def model_card(model: str) -> ModelCard:
    """The card of one network. Raises `UnknownModel`."""
    return parse(card_text(model), model)


def card_text(model: str) -> str:
    """The TOML of one network's card; those that came with mien go first. Raises `UnknownModel`."""
    if model in _bundled_ids("models"):
        return _read("models", model)
    found = next((path for path in _imported() if path.stem == model), None)
    if found is None:
        raise UnknownModel(model, model_ids())
    return found.read_text(encoding="utf-8")


def bundle(name: str) -> Bundle:
    """One bundle with its parts. Raises `UnknownModel`.

    The id of an embedder alone stands for it behind the default detector, with the operating
    points that its own card has measured behind that detector (`measured`), if any. An ensemble,
    "A+B", has none until it is kept under a name of its own with what was measured
    (`mien evaluate ... --as NAME`).
    """
    if name in _bundled_ids("bundles"):
        data = tomllib.loads(_read("bundles", name))
    elif name in bundle_ids():
        data = _read_own(own_bundle(name))
    elif "+" in name:
        data = {"id": name, "title": f"Ensemble of {name}", "members": name.split("+")}
    elif name in model_ids() and (card := model_card(name)).task == "embedding":
        detector = tomllib.loads(_read("bundles", "embedded"))["detector"]
        data = {"id": name, "title": card.title, "detector": detector, "embedder": name, "views": 1}
        data |= tomllib.loads(card_text(name)).get("measured", {})
    else:
        raise UnknownModel(name, (*bundle_ids(), *model_ids()))
    figures = data.get("figures", {})
    if "members" in data:
        return _ensemble(data, figures)
    detector, embedder = model_card(data["detector"]), model_card(data["embedder"])
    contract = contract_of(detector, embedder, data["views"])
    return Bundle(
        data["id"], data["title"], detector, embedder, data["views"],
        _points(data, contract), figures, contract, _crowd(data.get("crowd"), contract),
    )  # fmt: skip


def _ensemble(data: dict[str, Any], figures: Mapping[str, str]) -> Bundle:
    members = tuple(bundle(member) for member in data["members"])
    first = members[0]
    if len({member.contract for member in members}) < len(members) or len(members) < 2:
        raise ModelError(f"{data['id']}: an ensemble has two or more members, each another")
    if any(member.members for member in members):
        raise ModelError(f"{data['id']}: a member of an ensemble is not itself one")
    other = next((m.id for m in members if m.detector.id != first.detector.id), None)
    if other is not None:
        raise ModelError(
            f"{data['id']}: the members of an ensemble share a detector, and those of {first.id} "
            f"and {other} differ"
        )
    weights = tuple(data["weights"]) if "weights" in data else _weights(members)
    parts = [[m.contract, weight] for m, weight in zip(members, weights, strict=True)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    names = "+".join(m.embedder.id + (f"x{m.views}" if m.views > 1 else "") for m in members)
    contract = f"{first.detector.id}+{names}@{digest}"
    return Bundle(
        data["id"], data["title"], first.detector, first.embedder, first.views,
        _points(data, contract), figures, contract, _crowd(data.get("crowd"), contract),
        members, weights,
    )  # fmt: skip


def _weights(members: Sequence[Bundle]) -> tuple[float, ...]:
    """How much each member counts, by its quality as measured; all alike where one was not.

    The best linear sum of independent scores weighs each by the distance of its two means over
    the variance (Fisher, 1936). Both are read off the thresholds at FMR 1e-1 and 1e-3 and the FNMR
    at the latter, for scores that are normally distributed.
    """
    normal = NormalDist()
    merits = []
    for member in members:
        at = {point.fmr: point for point in member.operating_points}
        if not {1e-1, 1e-3} <= at.keys():
            return tuple(1 / len(members) for _ in members)
        strict = at[1e-3]
        deviation = (strict.threshold - at[1e-1].threshold) / (
            normal.inv_cdf(1 - 1e-3) - normal.inv_cdf(1 - 1e-1)
        )
        missed = min(max(strict.fnmr, 1e-4), 1 - 1e-4)
        distance = normal.inv_cdf(1 - 1e-3) - normal.inv_cdf(missed)  # in deviations
        merits.append(max(distance, 0.1) / deviation)
    return tuple(round(merit / sum(merits), 3) for merit in merits)


def _points(data: dict[str, Any], contract: str) -> tuple[OperatingPoint, ...]:
    return tuple(
        OperatingPoint(threshold, fmr, fnmr, data["protocol"], contract)
        for fmr, threshold, fnmr in data.get("operating_points", [])
    )


def _crowd(data: dict[str, Any] | None, contract: str) -> Crowd | None:
    if data is None:
        return None
    rows = [np.frombuffer(base64.b64decode(row), "<f2") for row in data["centres"]]
    centres = np.stack(rows).astype(np.float32)
    return Crowd(centres, data["share"], data["usual"], _points(data, contract))


def _bundled_ids(folder: str) -> tuple[str, ...]:
    names = (entry.name for entry in resources.files("mien.cards").joinpath(folder).iterdir())
    return tuple(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _imported() -> tuple[Path, ...]:
    return tuple((home() / "cards").glob("*.toml"))


def _read(folder: str, name: str) -> str:
    path = resources.files("mien.cards").joinpath(folder, f"{name}.toml")
    return path.read_text(encoding="utf-8")


def _read_own(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        made_of = {"members", "weights"} if "members" in data else {"detector", "embedder"}
        missing = ({"id", "title", "views"} | made_of) - data.keys()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not the card of a bundle: {error}") from error
    if missing:
        raise ModelError(f"{path} is not the card of a bundle: it lacks {', '.join(missing)}")
    return data
