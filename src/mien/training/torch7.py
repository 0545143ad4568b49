"""The tensors of a network that Torch (the one in Lua) wrote to a binary .t7 file.

Everything in such a file is data: numbers, strings, tables, tensors and objects, which are a class
name and a table. Compiled functions may lie in it; they are passed over and never run.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.errors import CorruptWeights

TENSORS = ("weight", "bias", "running_mean", "running_var", "constant_scalar")
"""The fields of a module that are part of what it computes and are learnt, or stand for it."""

EPS = 1e-5  # of batch normalisation, in Torch and in PyTorch
_DEPTH = 100
_TYPES = {"Float": "<f4", "Double": "<f8", "Long": "<i8", "Int": "<i4", "Byte": "u1"}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the modules of a network, named by their places: "13.0.2.1.weight".

    Places count from 0, in the order of `modules`. Raises `CorruptWeights` for a file that is cut
    off or none of Torch's, and for a network that computes otherwise than a place and name say.
    """
    remedy = "fetch it again, or use the file that the card of the model names"
    try:
        data = path.read_bytes()
        network = _Reader(data).read()
        return dict(_tensors(network, ""))
    except OSError as error:
        reason = f"the file cannot be read ({error.strerror})"
        raise CorruptWeights(str(path), reason, remedy) from error
    except _Malformed as error:
        raise CorruptWeights(str(path), f"it is no network of Torch ({error})", remedy) from error


class _Malformed(ValueError):
    pass


@dataclass
class _Object:
    """An instance of a Lua class: its name and its fields."""

    name: str
    fields: dict[Any, Any] = field(default_factory=dict)


def _tensors(module: object, place: str) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(module, _Object):
        raise _Malformed(f"{place or 'the file'} is no module")
    fields = module.fields
    if "running_mean" in fields and abs(fields.get("eps", EPS) - EPS) > 1e-9:
        raise _Malformed(f"{module.name} at {place} has an eps of {fields['eps']}, not {EPS}")
    for name in TENSORS:
        value = fields.get(name)
        if isinstance(value, float):
            value = np.array(value, np.float32)
        if isinstance(value, np.ndarray) and value.size:
            yield f"{place}{name}", torch.from_numpy(value.astype(np.float32))
    children = fields.get("modules", {})
    if not isinstance(children, Mapping):
        raise _Malformed(f"the modules of {module.name} at {place or 'the top'} are no table")
    for number in range(1, len(children) + 1):
        yield from _tensors(children.get(float(number)), f"{place}{number - 1}.")


class _Reader:
    """Reads one value after another; what was read before is known by its number."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._depth = data, 0, 0
        self._known: dict[int, Any] = {}

    def read(self) -> Any:
        """The next value: None, float, bool, str, dict, array, `_Object`."""
        self._depth += 1
        if self._depth > _DEPTH:
            raise _Malformed("values lie too deep in one another")
        kind = self._int()
        readers: Mapping[int, Callable[[], Any]] = {
            0: lambda: None, 1: self._double, 2: self._text, 5: lambda: bool(self._int()),
            3: lambda: self._shared(self._table),
            4: lambda: self._shared(self._object),
            **dict.fromkeys((6, 7, 8), lambda: self._shared(self._function)),
        }  # fmt: skip
        if kind not in readers:
            raise _Malformed(f"a value of kind {kind} at byte {self._at}")
        value = readers[kind]()
        self._depth -= 1
        return value

    def _shared(self, read: Callable[[int], Any]) -> Any:
        number = self._int()
        if number not in self._known:
            self._known[number] = None  # what holds itself holds nothing there
            self._known[number] = read(number)
        return self._known[number]

    def _table(self, number: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        self._known[number] = found
        for _ in range(self._count(self._int(), 8)):
            key, value = self.read(), self.read()
            if isinstance(key, float | str | bool):
                found[key] = value
        return found

    def _function(self, number: int) -> None:
        del number
        self._take(self._count(self._int(), 1))
        self.read()  # what it refers to

    def _object(self, number: int) -> Any:
        name = self._text()
        if name.startswith("V "):  # the version; older files begin with the name
            name = self._text()
        kind = name.removeprefix("torch.")
        if kind.endswith("Tensor") and kind.removesuffix("Tensor") in _TYPES:
            return self._tensor()
        if kind.endswith("Storage") and kind.removesuffix("Storage") in _TYPES:
            numbers = np.dtype(_TYPES[kind.removesuffix("Storage")])
            count = self._count(self._long(), numbers.itemsize)
            return np.frombuffer(self._take(count * numbers.itemsize), numbers)
        if name.startswith("torch."):
            raise _Malformed(f"a {name}, which is not read here")
        made = _Object(name)
        self._known[number] = made
        fields = self.read()
        if not isinstance(fields, dict):
            raise _Malformed(f"the fields of a {name} are no table")
        made.fields.update(fields)
        return made

    def _tensor(self) -> NDArray[Any]:
        dimensions = self._count(self._int(), 16)
        shape = [self._long() for _ in range(dimensions)]
        steps = [self._long() for _ in range(dimensions)]
        first, storage = self._long() - 1, self.read()
        if not dimensions or storage is None:
            return np.zeros(0, np.float32)
        if not isinstance(storage, np.ndarray) or storage.ndim != 1:
            raise _Malformed("a tensor without numbers")
        last = first + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if min([first, *steps, *(n - 1 for n in shape)]) < 0 or last >= len(storage):
            raise _Malformed(f"a tensor of shape {shape} reaches out of its numbers")
        if math.prod(shape) > len(storage):  # steps of nothing repeat numbers without end
            raise _Malformed(f"a tensor of shape {shape} is larger than its numbers")
        inside = storage[first:]
        strides = [step * inside.itemsize for step in steps]
        return np.array(np.lib.stride_tricks.as_strided(inside, shape, strides))

    def _take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise _Malformed("it is cut off")
        self._at += count
        return self._data[self._at - count : self._at]

    def _count(self, count: int, bytes_each: int) -> int:
        """A number of things that each take at least so many bytes, if they can be there."""
        if not 0 <= count * bytes_each <= len(self._data) - self._at:
            raise _Malformed("it is cut off")
        return count

    def _int(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _long(self) -> int:
        return int(struct.unpack("<q", self._take(8))[0])

    def _double(self) -> float:
        return float(struct.unpack("<d", self._take(8))[0])

    def _text(self) -> str:
        return self._take(self._count(self._int(), 1)).decode("latin-1")
