"""Recipes: everything that decides what a training run gives, as frozen values read from TOML.

Unknown keys are refused, numbers are checked, and what is not said has the default stated here.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mien.cards.reading import plain
from mien.errors import InputError


@dataclass(frozen=True, slots=True)
class Data:
    """The pictures to learn from.

    `set` is a packed folder of `mien data pack`. `people` names a text file with one subject a
    line (or an LFW people list): only these are used; `exclude` one of subjects that are left
    out. Subjects with fewer than `min_pictures` are left out, of the others at most
    `max_pictures` are used (0: all), chosen by the seed.
    """

    set: str
    people: str = ""
    exclude: str = ""
    min_pictures: int = 1
    max_pictures: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """Pairs (`file1,file2,same`) that are scored while training, on people kept out of it.

    `set` is the packed folder they are in, by default that of the training data. `every` is in
    epochs; training stops after `patience` evaluations without a better accuracy and keeps the
    weights of the best (0: it never stops, and keeps the last).
    """

    pairs: str = ""
    set: str = ""
    every: int = 1
    patience: int = 0


@dataclass(frozen=True, slots=True)
class Input:
    """What the network sees: the middle `crop` of the packed crop's side, as `size` pixels."""

    size: int = 112
    crop: float = 1.0


@dataclass(frozen=True, slots=True)
class Network:
    """`name` is one of `mien.networks.NAMES`, `options` what its constructor takes.

    `start` is a safetensors file whose parameters of the same name and shape are taken; `frozen`
    lists the beginnings of names of parameters that stay as they are.
    """

    name: str
    embedding_size: int = 512
    options: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of each crop; the amounts are the most that is done, either way.

    `rotation` is in degrees, `shift` a share of the side, `scale` and `stretch` (of width against
    height) natural logarithms of a factor, as is `contrast`; `brightness` is on the scale -1 to 1.
    `grey`, `low_resolution`, `blur` and `occlusion` are probabilities; `detail` is the least share
    of the resolution that is kept, `sigma` the widest blur in pixels, `occlusion_size` the longest
    side of what is hidden as a share of the crop's.
    """

    flip: bool = True
    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    grey: float = 0.0
    low_resolution: float = 0.0
    detail: float = 0.3
    blur: float = 0.0
    sigma: float = 1.5
    occlusion: float = 0.0
    occlusion_size: float = 0.4


@dataclass(frozen=True, slots=True)
class Sampling:
    """How batches are made; `batch` is the number of crops in one, over all processes.

    "shuffle" passes over the crops once an epoch. "people" passes over the subjects, as often as
    there are crops for, up to `pictures` crops of each side by side: with `data.min_pictures` as
    large that is P times K sampling, without it those who have fewer are there as strangers.
    "pairs" and "triplets" read `file`, a table of `mien data pairs` or `triplets`, whose rows stand
    side by side.
    """

    kind: Literal["shuffle", "people", "pairs", "triplets"] = "shuffle"
    batch: int = 64
    pictures: int = 4
    file: str = ""


@dataclass(frozen=True, slots=True)
class Objective:
    """One term of the loss: `name` is one of `mien.training.objectives.NAMES`."""

    name: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Teacher:
    """The recogniser whose embeddings are learnt: `model` as for `mien.load`.

    `pictures` is the folder that the sources of the packed set are relative to. The mean of
    `views` crops, jittered and mirrored, is a better target than one.
    """

    pictures: str
    model: str = "embedded"
    views: int = 1


@dataclass(frozen=True, slots=True)
class Optimiser:
    """`rate` rises over the first `warm_up` share of the steps and falls to 0 along a cosine.

    `momentum` is that of SGD. Weight decay spares biases, slopes and normalisation. Gradients
    longer than `clip` are shortened (0: never).
    """

    name: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 0.05
    clip: float = 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """How long, and how exactly.

    `precision` "bf16" computes convolutions and products in bfloat16; "auto" does so where the
    processor or GPU has it in hardware. `ema` is the decay by step of the average of the weights
    that is evaluated and kept (0: the last weights). A checkpoint is written every
    `checkpoint_every` steps and after each epoch. `deterministic` refuses operations that differ
    from run to run. `shared_batch_norm` takes the statistics of normalisation over the batches of
    all processes. `threads` is for each process (0: as many as it may use).
    """

    epochs: int = 20
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    ema: float = 0.0
    checkpoint_every: int = 500
    deterministic: bool = False
    shared_batch_norm: bool = False
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """What the draft card says that cannot be known from the run.

    `id` is by default made of the name of the output folder. With `half` the ONNX file keeps its
    weights in half precision: half the bytes, the same speed.
    """

    id: str = ""
    title: str = ""
    half: bool = False
    licence: str = "of whoever trained it; what the pictures allow is for them to know"
    commercial: Literal["yes", "no", "unclear"] = "yes"
    cautions: str = "A draft: measure it on your own people before you rely on it."


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run."""

    data: Data
    network: Network
    objectives: tuple[Objective, ...]
    input: Input = Input()
    validation: Validation = Validation()
    augmentation: Augmentation = Augmentation()
    sampling: Sampling = Sampling()
    teacher: Teacher | None = None
    optimiser: Optimiser = Optimiser()
    run: Run = Run()
    card: Card = Card()

    def __post_init__(self) -> None:
        checks = (
            (bool(self.objectives), "objectives: at least one is needed"),
            (self.run.epochs >= 1, "run.epochs is at least 1"),
            (0 <= self.run.ema < 1, "run.ema lies in [0, 1)"),
            (self.run.checkpoint_every >= 1, "run.checkpoint_every is at least 1"),
            (self.sampling.batch >= 2, "sampling.batch is at least 2"),
            (self.sampling.pictures >= 1, "sampling.pictures is at least 1"),
            (0 < self.input.crop <= 1, "input.crop lies in (0, 1]"),
            (self.input.size >= 16, "input.size is at least 16 pixels"),
            (self.optimiser.rate > 0, "optimiser.rate is above 0"),
            (0 <= self.optimiser.warm_up < 1, "optimiser.warm_up lies in [0, 1)"),
            (self.validation.every >= 1, "validation.every is at least 1"),
        )
        for right, rule in checks:
            if not right:
                raise InputError(f"recipe: {rule}")
        try:
            plain(self.card.id or "made")
        except ValueError as error:
            raise InputError(f"recipe: card.id: {error}") from error
        if self.sampling.kind in ("pairs", "triplets") and not self.sampling.file:
            raise InputError(f"recipe: sampling.kind {self.sampling.kind!r} needs sampling.file")
        size = {"pairs": 2, "triplets": 3}.get(self.sampling.kind, 1)
        if self.sampling.batch % size:
            raise InputError(
                f"recipe: a batch of {self.sampling.batch} cannot be made of groups of {size}"
            )


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """A recipe from its file, changed by settings such as `optimiser.rate=0.01`.

    A setting's value is TOML; a word that is not is taken as text. Paths in the recipe are
    relative to the working folder. Raises `InputError` naming the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the recipe {path}: {error}") from error
    return parse(text, str(path), settings)


def parse(text: str, where: str, settings: Sequence[str] = ()) -> Recipe:
    """A recipe from TOML; `where` names it in messages. Raises `InputError`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}") from error
    for setting in settings:
        _change(data, setting)
    recipe: Recipe = _value(data, Recipe, where)
    return recipe


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, all defaults written out: what a checkpoint and a card keep."""
    return asdict(recipe)


def from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that `to_dict` wrote. Raises `InputError`."""
    recipe: Recipe = _value(dict(data), Recipe, "the recipe")
    return recipe


def _change(data: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise InputError(f"a setting is written key=value, such as run.epochs=5; got {setting!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *path, last = key.split(".")
    place: Any = data
    for name in path:
        if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
            place = place[int(name)]
        elif isinstance(place, dict):
            place = place.setdefault(name, {})
        else:
            raise InputError(f"the recipe has no {key}")
    if not isinstance(place, dict):
        raise InputError(f"the recipe has no {key}")
    place[last] = parsed


def _value(given: Any, kind: Any, where: str) -> Any:
    """`given`, as TOML has it, as a value of the annotated type `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _table(given, kind, where)
    if origin is UnionType:
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return None if given is None else _value(given, inner, where)
    if origin is tuple and isinstance(given, list | tuple):
        return tuple(_value(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(given))
    if origin is Literal and given in arguments:
        return given
    if origin is Mapping and isinstance(given, Mapping):
        return dict(given)
    if kind is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if isinstance(kind, type) and type(given) is kind:
        return given
    expected = f"one of {', '.join(map(repr, arguments))}" if origin is Literal else _name(kind)
    raise InputError(f"{where} is {given!r}; it must be {expected}")


def _table(given: Any, kind: Any, where: str) -> Any:
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {given!r}; it must be a table")
    types = get_type_hints(kind)
    unknown = sorted(set(given) - set(types))
    if unknown:
        raise InputError(
            f"{where} has the unknown key {unknown[0]!r}; there are: {', '.join(sorted(types))}"
        )
    values = {key: _value(value, types[key], f"{where}: {key}") for key, value in given.items()}
    required = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    missing = next((name for name in required if name not in values), None)
    if missing:
        raise InputError(f"{where} lacks {missing!r}")
    return kind(**values)


def _name(kind: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, "a list" if get_origin(kind) is tuple else "a table")
