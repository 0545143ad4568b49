"""Read the layers of a dlib network out of its serialised `.dat` stream.

dlib writes a network with its own C++ serialiser: no schema, no lengths, no
end mark. A reader that misjudges one field reads every later one wrong, so each
value that has only one sensible reading is checked and the stream must end
exactly where the last layer does.

Only the layers of dlib's face networks (recognition, gender, age) are known here;
the format of each was taken from the `serialize` functions in dlib's
`dnn/core.h`, `dnn/layers.h` and `dnn/loss.h`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
Array = TypeVar("Array", Weights, NDArray[np.float64])


class CorruptStream(ValueError):
    """The bytes are not a dlib face network, or not all of one."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"not a dlib face network: {reason} (at byte {offset})")
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True)
class InputLayer:
    mean_rgb: tuple[float, float, float]
    rows: int
    columns: int


@dataclass(frozen=True)
class Convolution:
    weight: Weights  # (filters, channels, rows, columns)
    bias: Weights
    stride: int
    padding: int


@dataclass(frozen=True)
class Affine:
    """Batch normalisation, frozen: one gain and one offset a channel."""

    gain: Weights
    offset: Weights


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class AddPrevious:
    """Add the block's input, either side extended with zeros to the larger shape."""


@dataclass(frozen=True)
class Pool:
    kind: str  # "max" or "avg"
    size: int  # 0: the whole plane
    stride: int


@dataclass(frozen=True)
class Multiply:
    """Multiply everything by a constant: what dropout becomes once training is over."""

    factor: float


@dataclass(frozen=True)
class FullyConnected:
    weight: Weights  # (inputs, outputs)
    bias: Weights  # (outputs,); empty in the recognition network


Layer = Convolution | Affine | Relu | AddPrevious | Pool | Multiply | FullyConnected


class Reader:
    """A cursor over dlib's encoding of numbers, strings and tensors."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0

    def fail(self, reason: str) -> CorruptStream:
        return CorruptStream(self.offset, reason)

    def take(self, count: int) -> bytes:
        chunk = self._data[self.offset : self.offset + count]
        if len(chunk) != count:
            raise self.fail(f"{count} bytes expected, {len(chunk)} left")
        self.offset += count
        return chunk

    def integer(self) -> int:
        """A control byte (sign, number of bytes) and a little-endian magnitude."""
        control = self.take(1)[0]
        size = control & 0x0F
        if control & 0x70 or not 1 <= size <= 8:
            raise self.fail(f"{control:#04x} does not start an integer")
        magnitude = int.from_bytes(self.take(size), "little")
        return -magnitude if control & 0x80 else magnitude

    def count(self) -> int:
        """An integer that cannot be negative: a size, a stride, a dimension."""
        value = self.integer()
        if value < 0:
            raise self.fail(f"{value} where a count was expected")
        return value

    def boolean(self) -> bool:
        byte = self.take(1)
        if byte not in (b"0", b"1"):
            raise self.fail(f"{byte!r} is no boolean")
        return byte == b"1"

    def string(self) -> str:
        raw = self.take(self.count())
        try:
            return raw.decode("ascii")
        except UnicodeDecodeError:
            raise self.fail("a name that is not ASCII") from None

    def real(self) -> float:
        """mantissa * 2**exponent; exponents from 32000 mark infinities and NaN."""
        mantissa, exponent = self.integer(), self.integer()
        if exponent >= 32000:
            raise self.fail("a number that is not finite")
        return math.ldexp(mantissa, exponent)

    def shape(self) -> tuple[int, int, int, int]:
        return (self.count(), self.count(), self.count(), self.count())

    def tensor(self) -> Weights:
        self.expect_version(2, "tensor")
        shape = self.shape()
        return np.frombuffer(self.take(4 * math.prod(shape)), "<f4").reshape(shape)

    def alias(self) -> tuple[int, int, int, int]:
        """The shape of a view into the layer's parameter tensor."""
        self.expect_version(1, "alias tensor")
        return self.shape()

    def expect_version(self, wanted: int, what: str) -> None:
        found = self.integer()
        if found != wanted:
            raise self.fail(f"{what} version {found}, {wanted} expected")

    def expect_end(self) -> None:
        if self.offset != len(self._data):
            raise self.fail(f"{len(self._data) - self.offset} bytes after the last layer")


def read_network(data: bytes) -> tuple[InputLayer, list[Layer]]:
    """Return the input layer and the layers in the order pixels pass them."""
    reader = Reader(data)
    reader.expect_version(1, "loss layer")
    match reader.string():
        case "loss_metric_2":
            reader.real(), reader.real()  # margin and distance threshold: training only
        case "loss_multiclass_log_":
            pass
        case loss:
            raise reader.fail(f"unknown loss layer {loss!r}")

    payloads = _read_nesting(reader)
    source = _read_input(reader)
    layers = []
    for position in range(payloads):
        layers.append(_read_layer(reader))
        _skip_layer_state(reader)
        if position == 0:
            reader.integer()  # how many tensors one sample makes: 1 for pictures
    reader.expect_end()
    return source, layers


def _read_nesting(reader: Reader) -> int:
    """Count the layers that store something.

    The C++ types nest, outermost first, and each writes its version before it
    writes what it wraps: 2 for a layer, 1 for a tag or a skip to one (they store
    nothing else), 3 for the layer that holds the input and ends the list.
    """
    layers = 0
    while (version := reader.integer()) in (1, 2):
        layers += version == 2
    if version != 3:
        raise reader.fail(f"nested layer version {version}")
    return layers + 1


def _read_input(reader: Reader) -> InputLayer:
    if (name := reader.string()) != "input_rgb_image_sized":
        raise reader.fail(f"input layer {name!r}, 'input_rgb_image_sized' expected")
    mean_rgb = (reader.real(), reader.real(), reader.real())
    return InputLayer(mean_rgb, rows=reader.count(), columns=reader.count())


def _read_layer(reader: Reader) -> Layer:
    match reader.string():
        case "con_4":
            return _read_convolution(reader)
        case "affine_":
            return _read_affine(reader)
        case "bn_con2":
            return _read_batch_normalisation(reader)
        case "relu_":
            return Relu()
        case "add_prev_":
            return AddPrevious()
        case "max_pool_2":
            return _read_pool(reader, "max")
        case "avg_pool_2":
            return _read_pool(reader, "avg")
        case "multiply_":
            return Multiply(reader.real())
        case "dropout_":
            return _read_dropout(reader)
        case "fc_2":
            return _read_fully_connected(reader)
        case unknown:
            raise reader.fail(f"unknown layer {unknown!r}")


def _read_convolution(reader: Reader) -> Convolution:
    params = reader.tensor().ravel()
    filters = reader.count()
    rows, columns = reader.count(), reader.count()
    stride = _same(reader, "stride")
    padding = _same(reader, "padding")
    weight_shape, bias_shape = reader.alias(), reader.alias()
    _skip_learning_rates(reader)
    if weight_shape[0] != filters or weight_shape[2:] != (rows, columns):
        raise reader.fail(f"{filters} filters of {rows}x{columns} shaped {weight_shape}")
    weight, bias = _split(reader, params, weight_shape, bias_shape)
    return Convolution(weight, bias.ravel(), stride, padding)


def _read_affine(reader: Reader) -> Affine:
    params = reader.tensor().ravel()
    gain_shape, offset_shape = reader.alias(), reader.alias()
    if reader.integer() != 0:
        raise reader.fail("an affine layer that is not per channel")
    gain, offset = _split(reader, params, gain_shape, offset_shape)
    return Affine(gain.ravel(), offset.ravel())


def _read_batch_normalisation(reader: Reader) -> Affine:
    """Frozen as dlib freezes it when the network is read for use."""
    params = reader.tensor().ravel().astype(np.float64)
    gain_shape, offset_shape = reader.alias(), reader.alias()
    gain, offset = _split(reader, params, gain_shape, offset_shape)
    reader.tensor(), reader.tensor()  # means and deviations of the last training batch
    means, variances = (reader.tensor().ravel().astype(np.float64) for _ in range(2))
    reader.count(), reader.count()  # updates so far, window of the running statistics
    _skip_learning_rates(reader)
    frozen = gain.ravel() / np.sqrt(variances + reader.real())
    shift = offset.ravel() - frozen * means
    return Affine(frozen.astype(np.float32), shift.astype(np.float32))


def _read_dropout(reader: Reader) -> Multiply:
    """Drops nothing after training; every value shrinks by the share that was kept."""
    rate = reader.real()
    reader.tensor()  # the mask of the last training batch
    return Multiply(1 - rate)


def _read_pool(reader: Reader, kind: str) -> Pool:
    size = _same(reader, "pool size")
    stride = _same(reader, "stride")
    if _same(reader, "padding") != 0:
        raise reader.fail("a padded pool")
    return Pool(kind, size, stride)


def _read_fully_connected(reader: Reader) -> FullyConnected:
    outputs, inputs = reader.count(), reader.count()
    params = reader.tensor().ravel()
    weight_shape, bias_shape = reader.alias(), reader.alias()
    reader.integer()  # bias mode: an empty bias alias says as much
    _skip_learning_rates(reader)
    weight, bias = _split(reader, params, weight_shape, bias_shape)
    if bias.size not in (0, outputs) or weight.size != inputs * outputs:
        raise reader.fail("a fully connected layer of another kind")
    return FullyConnected(weight.reshape(inputs, outputs), bias.ravel())


def _same(reader: Reader, what: str) -> int:
    """A pair (vertical, horizontal) that this network always has equal."""
    vertical, horizontal = reader.count(), reader.count()
    if vertical != horizontal:
        raise reader.fail(f"{what} {vertical}x{horizontal} is not square")
    return vertical


def _split(
    reader: Reader, params: Array, first: tuple[int, ...], second: tuple[int, ...]
) -> tuple[Array, Array]:
    """dlib keeps a layer's parameters in one tensor, the views one after the other."""
    cut = math.prod(first)
    if cut + math.prod(second) != params.size:
        raise reader.fail(f"{params.size} parameters do not fill {first} and {second}")
    return params[:cut].reshape(first), params[cut:].reshape(second)


def _skip_learning_rates(reader: Reader) -> None:
    """Learning rate and weight decay multipliers, of the weights and of the bias."""
    for _ in range(4):
        reader.real()


def _skip_layer_state(reader: Reader) -> None:
    """Three training flags, then gradient and cached output, empty in a clean file."""
    for _ in range(3):
        reader.boolean()
    for _ in range(3):
        reader.tensor()
