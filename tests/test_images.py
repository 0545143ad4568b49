"""mien.images: every format, orientation and mode arrives as upright RGB; no failure leaks."""

import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import features

from mien.errors import ImageTooLarge, InputError, UnreadableImage
from mien.images import Limits, encode_image, find_images, read_image, save_image
from mien.types import Image

pytestmark = pytest.mark.filterwarnings("error")

WIDTH, HEIGHT = 64, 48
ORIENTATION = 0x0112
FUZZ = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

needs_avif = pytest.mark.skipif(
    not features.check("avif"), reason="this build of Pillow has no AVIF"
)


def gradient(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A smooth picture in which all corners, and red, green and blue, differ."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (x * 255 // width, y * 255 // height, (x + y) * 128 // (width + height))
    return np.stack(channels, -1).astype(np.uint8)


def encoded(picture: PIL.Image.Image | np.ndarray, format: str, **options: Any) -> bytes:
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def exif_of(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int) -> bytes:
    """A tiny file whose header says that a large picture follows."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def assert_sound(image: Image) -> None:
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert image.pixels.shape == (image.height, image.width, 3)
    assert image.pixels.size


GREY_16 = (np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) * 21).astype(np.uint16)
RGB = PIL.Image.fromarray(gradient())
RGBA = RGB.copy()
RGBA.putalpha(RGB.convert("L"))

# name -> (file, largest difference from the gradient, or None where the picture is another one)
FILES: dict[str, tuple[bytes, int | None]] = {
    "png": (encoded(RGB, "PNG"), 0),
    "bmp": (encoded(RGB, "BMP"), 0),
    "tiff": (encoded(RGB, "TIFF"), 0),
    "tiff-lzw": (encoded(RGB, "TIFF", compression="tiff_lzw"), 0),
    "tiff-deflate": (encoded(RGB, "TIFF", compression="tiff_adobe_deflate"), 0),
    "tiff-palette": (encoded(RGB.quantize(64), "TIFF"), 64),
    "tiff-jpeg": (encoded(RGB, "TIFF", compression="jpeg", quality=95), 12),
    "jpeg": (encoded(RGB, "JPEG", quality=95), 12),
    "jpeg-progressive": (encoded(RGB, "JPEG", quality=95, progressive=True), 12),
    "jpeg-cmyk": (encoded(RGB.convert("CMYK"), "JPEG", quality=95), 12),
    "mpo": (encoded(RGB, "MPO", save_all=True, append_images=[RGB.convert("L")], quality=95), 12),
    "webp": (encoded(RGB, "WEBP", quality=95), 16),
    "webp-lossless": (encoded(RGB, "WEBP", lossless=True), 0),
    "gif": (encoded(RGB, "GIF"), 40),
    "png-palette": (encoded(RGB.quantize(64), "PNG"), 64),
    "png-grey-alpha": (encoded(RGB.convert("LA"), "PNG"), None),
    "png-16": (encoded(GREY_16, "PNG"), None),
    "tiff-16": (encoded(GREY_16, "TIFF"), None),
    "tiff-bilevel": (encoded(RGB.convert("1"), "TIFF", compression="group4"), None),
    "webp-alpha": (encoded(RGBA, "WEBP"), None),
    "gif-animated": (
        encoded(RGB.quantize(16), "GIF", save_all=True, append_images=[RGB.convert("P")]),
        None,
    ),
}
if features.check("avif"):
    FILES["avif"] = (encoded(RGB, "AVIF", quality=95), 16)
    FILES["avif-alpha"] = (encoded(RGBA, "AVIF"), None)


# ------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("name", FILES)
def test_reads_every_format_from_bytes_and_from_a_path(name: str, tmp_path: Path) -> None:
    data, tolerance = FILES[name]
    path = tmp_path / "a picture"
    path.write_bytes(data)

    image = read_image(data)
    from_path = read_image(path)

    assert_sound(image)
    assert (image.source, from_path.source) == ("the picture", str(path))
    assert read_image(str(path)).source == str(path)
    np.testing.assert_array_equal(from_path.pixels, image.pixels)
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    if tolerance is not None:
        difference = np.abs(image.pixels.astype(int) - gradient())
        assert difference.max() <= tolerance
        assert difference.mean() <= tolerance / 4


def test_reads_other_holders_of_bytes() -> None:
    data = FILES["png"][0]
    for holder in (bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(read_image(holder).pixels, gradient())


@pytest.mark.parametrize("name", FILES)
def test_a_single_pixel_is_a_picture(name: str) -> None:
    with PIL.Image.open(io.BytesIO(FILES["png"][0])) as picture:
        dot = picture.crop((0, 0, 1, 1))
    format = {"mpo": "jpeg", "jpeg-cmyk": "jpeg"}.get(name, name.partition("-")[0])

    assert read_image(encoded(dot, format)).pixels.shape == (1, 1, 3)


def test_a_picture_larger_than_the_copying_band_is_copied_whole() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (701, 997, 3), np.uint8)

    image = read_image(encoded(pixels, "BMP"))

    assert_sound(image)
    np.testing.assert_array_equal(image.pixels, pixels)


def test_decoded_pixels_are_read_only_whatever_their_size() -> None:
    for size in ((8, 8), (900, 900)):
        assert not read_image(encoded(gradient(*size), "BMP")).pixels.flags.writeable
    assert not read_image(FILES["png-16"][0]).pixels.flags.writeable


def test_jpeg_equals_what_pillow_decodes() -> None:
    data = FILES["jpeg"][0]
    with PIL.Image.open(io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(read_image(data).pixels, np.asarray(picture))


def test_grey_jpeg() -> None:
    pixels = read_image(encoded(RGB.convert("L"), "JPEG", quality=95)).pixels

    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert np.abs(pixels[..., 0].astype(int) - np.asarray(RGB.convert("L"))).max() <= 8


def test_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(RGB).save(stream, quality=95)

    pixels = read_image(stream.getvalue()).pixels

    assert np.abs(pixels.astype(int) - gradient()).max() <= 16
    with pytest.raises(UnreadableImage, match="truncated"):
        read_image(stream.getvalue()[:-40])


def test_heic_without_its_extra_names_the_extra() -> None:
    program = """
import sys
sys.modules["pillow_heif"] = None
from mien.errors import MissingExtra
from mien.images import read_image
for brands in (b"heic\\0\\0\\0\\0mif1", b"mif1\\0\\0\\0\\0heic"):
    try:
        read_image(b"\\0\\0\\0\\x18ftyp" + brands + bytes(100))
    except MissingExtra as error:
        assert error.extra == "heic", error.extra
    else:
        sys.exit("read without the extra")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# -------------------------------------------------------------------------------------- orientation


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores when its sensor was held the way `orientation` says."""
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, marks=needs_avif),
    ],
)
def test_every_orientation_arrives_upright(
    orientation: int, format: str, options: dict[str, Any]
) -> None:
    stored = as_stored(gradient(), orientation)

    image = read_image(encoded(stored, format, exif=exif_of(orientation), **options))

    assert_sound(image)
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert np.abs(image.pixels.astype(int) - gradient()).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pil_pictures_and_16_bits_are_turned_too(orientation: int) -> None:
    stored = as_stored(gradient(), orientation)
    with PIL.Image.open(io.BytesIO(encoded(stored, "PNG", exif=exif_of(orientation)))) as picture:
        np.testing.assert_array_equal(read_image(picture).pixels, gradient())

    deep = as_stored(np.repeat(GREY_16[..., None], 3, -1), orientation)[..., 0]
    np.testing.assert_array_equal(
        read_image(encoded(np.ascontiguousarray(deep), "PNG", exif=exif_of(orientation))).pixels,
        read_image(FILES["png-16"][0]).pixels,
    )


def test_big_endian_exif_and_exif_without_orientation() -> None:
    def jpeg_with(entry: bytes) -> bytes:
        exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
        return encoded(RGB, "JPEG", exif=exif)

    turned = read_image(jpeg_with(struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0)))
    upright = read_image(jpeg_with(struct.pack(">HHIHH", ORIENTATION + 1, 3, 1, 6, 0)))

    assert (turned.width, turned.height) == (HEIGHT, WIDTH)
    assert (upright.width, upright.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("length", [6, 8, 12, 15, 20, 27])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_neither_warns_nor_stops(format: str, length: int) -> None:
    exif = exif_of(6)
    exif[0x011A] = 72.0
    data = encoded(RGB, format, exif=exif.tobytes()[:length])

    assert_sound(read_image(data))


# ------------------------------------------------------------------------------ depth, alpha, modes


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32768, 65406, 65407, 65535]], np.uint16)

    pixels = read_image(encoded(values, format)).pixels

    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 127, 128, 254, 255, 255]
    assert (pixels == pixels[..., :1]).all()


def test_16_bit_big_endian_tiff() -> None:
    values = np.array([[0, 32768, 65535]], np.uint16)
    data = encoded(PIL.Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes()), "TIFF")

    assert read_image(data).pixels[0, :, 0].tolist() == [0, 128, 255]


def test_transparent_value_of_a_16_bit_png_is_white() -> None:
    plain = encoded(np.array([[7, 512]], np.uint16), "PNG")
    end_of_header = 8 + 25
    transparency = png_chunk(b"tRNS", struct.pack(">H", 7))

    pixels = read_image(plain[:end_of_header] + transparency + plain[end_of_header:]).pixels

    assert pixels[0, :, 0].tolist() == [255, 2]


def test_alpha_is_laid_on_white() -> None:
    red = np.zeros((1, 3, 4), np.uint8)
    red[..., 0] = 200
    red[0, :, 3] = (0, 128, 255)
    expected = [[255, 255, 255], [227, 127, 127], [200, 0, 0]]

    for source in (encoded(red, "PNG"), encoded(red, "TIFF"), red, PIL.Image.fromarray(red)):
        assert np.abs(read_image(source).pixels[0].astype(int) - expected).max() <= 1


def test_grey_with_alpha_is_laid_on_white() -> None:
    data = encoded(PIL.Image.frombytes("LA", (2, 1), bytes([10, 0, 10, 255])), "PNG")

    assert read_image(data).pixels[0, :, 0].tolist() == [255, 10]


def test_transparent_palette_entries_are_white() -> None:
    picture = PIL.Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.putdata([0, 1, 2])

    one = read_image(encoded(picture, "PNG", transparency=1)).pixels[0]
    several = read_image(encoded(picture, "PNG", transparency=b"\x00\xff\x80")).pixels[0]
    gif = read_image(encoded(picture, "GIF", transparency=1)).pixels[0]

    assert one.tolist() == gif.tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    assert several[:2].tolist() == [[255, 255, 255], [40, 50, 60]]
    assert 155 <= several[2, 0] <= 170


def test_gif_gives_its_first_frame() -> None:
    frames = [PIL.Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]

    pixels = read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).pixels

    assert (pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "PA", "RGBX"])
def test_pil_pictures_of_other_modes(mode: str) -> None:
    pixels = read_image(RGB.convert(mode)).pixels

    expected = gradient() if mode in ("CMYK", "YCbCr", "HSV", "RGBX") else None
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert expected is None or np.abs(pixels.astype(int) - expected).max() <= 16


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(mode: str) -> None:
    picture = RGB.convert("L").convert(mode)

    for source in (picture, encoded(picture, "TIFF")):
        with pytest.raises(UnreadableImage, match=f"mode {mode}, whose range is unknown"):
            read_image(source)


# ------------------------------------------------------------------------------ arrays and the like


def test_an_image_is_returned_as_it_is() -> None:
    image = Image(gradient(), "mine")
    assert read_image(image) is image


def test_rgb_arrays_are_shared_grey_ones_spread() -> None:
    array = gradient()

    assert np.shares_memory(read_image(array).pixels, array)
    flipped = read_image(array[:, ::-1])
    assert_sound(flipped)
    np.testing.assert_array_equal(flipped.pixels, array[:, ::-1])
    np.testing.assert_array_equal(read_image(array[..., 0]).pixels, array[..., [0, 0, 0]])


@pytest.mark.parametrize(
    "array",
    [
        gradient().astype(np.float32),
        gradient()[None],
        gradient()[..., :2],
        np.zeros((0, 5, 3), np.uint8),
        np.zeros(7, np.uint8),
    ],
    ids=["float", "4-d", "two channels", "no rows", "1-d"],
)
def test_other_arrays_are_refused_with_their_shape(array: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        read_image(array)
    assert str(array.dtype) in str(caught.value)
    assert str(array.shape) in str(caught.value)


def test_other_things_are_refused_by_their_type() -> None:
    with pytest.raises(InputError, match="got NoneType"):
        read_image(None)


def test_a_pil_picture_without_pixels_or_with_a_closed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_image(PIL.Image.new("RGB", (0, 0)))
    path = tmp_path / "a.png"
    path.write_bytes(FILES["png"][0])
    picture = PIL.Image.open(path)
    picture.close()
    with pytest.raises(UnreadableImage, match="closed image"):
        read_image(picture)


# ---------------------------------------------------------------------------- what is not a picture


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", r"empty \(0 bytes\)"),
        (bytes(4000), "filled with zeros"),
        (b"Dear all,\nthe picture follows.\n", "looks like text"),
        ("Schöne Grüße aus Köln\n".encode() * 99, "looks like text"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"<HTML><head>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="...">', "SVG"),
        (b'<?xml version="1.0"?><note/>', "XML"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(50), "video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"),
        (bytes(range(256)), "not a picture in a supported format"),
        (b"P6 2 2 255 " + bytes(12), "not a picture in a supported format"),
    ],
)
def test_says_what_a_file_is_instead(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(data)

    with pytest.raises(UnreadableImage, match=words) as caught:
        read_image(path)
    assert caught.value.source == str(path)
    assert str(path) in str(caught.value)


def test_says_why_a_path_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path, words in (
        (tmp_path / "absent.jpg", "it does not exist"),
        (tmp_path / "file" / "below.jpg", "it does not exist"),
        (tmp_path, "it is a folder"),
        ("a\0b.jpg", "its name is not a path"),
        ("x" * 5000, "too long"),
        ("https://example.org/face.jpg", "addresses are not fetched"),
    ):
        with pytest.raises(UnreadableImage, match=words):
            read_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_says_when_there_is_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(FILES["png"][0])
    path.chmod(0)
    with pytest.raises(UnreadableImage, match="no permission"):
        read_image(path)


@pytest.mark.parametrize("name", FILES)
def test_a_picture_cut_short_is_refused_or_complete(name: str) -> None:
    """Only what follows the pixels may be missing; what is there is never filled up."""
    data = FILES[name][0]
    whole = read_image(data).pixels
    refused = 0

    for length in range(40, len(data), max(1, len(data) // 40)):
        try:
            pixels = read_image(data[:length]).pixels
        except UnreadableImage:
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert refused


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg-progressive", "png", "webp", "bmp", "gif", "tiff", "tiff-lzw", "tiff-16"]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_picture_cut_short_is_called_truncated(name: str, share: float) -> None:
    data = FILES[name][0]
    with pytest.raises(UnreadableImage, match="it is truncated"):
        read_image(data[: int(len(data) * share)])


def test_damage_is_called_damage() -> None:
    data = bytearray(FILES["png"][0])
    data[50] ^= 0xFF
    with pytest.raises(UnreadableImage, match="damaged PNG"):
        read_image(bytes(data))


# ------------------------------------------------------------------------------------------- limits


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    data = FILES["bmp"][0]
    path = tmp_path / "a.bmp"
    path.write_bytes(data)
    limits = Limits(bytes=len(data) - 1)

    for source, name in (
        (path, str(path)),
        (data, "the picture"),
        (bytearray(data), "the picture"),
    ):
        with pytest.raises(ImageTooLarge) as caught:
            read_image(source, limits)
        error = caught.value
        assert (error.source, error.size, error.limit, error.unit) == (
            name,
            len(data),
            len(data) - 1,
            "bytes",
        )
    assert_sound(read_image(path, Limits(bytes=len(data))))


def test_a_sparse_file_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ImageTooLarge, match="1,099,511,627,776 bytes"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            path.write_bytes(FILES["bmp"][0])

    for limits, error in ((Limits(), None), (Limits(bytes=100), ImageTooLarge)):
        writer = threading.Thread(target=write)
        writer.start()
        if error is None:
            np.testing.assert_array_equal(read_image(path, limits).pixels, gradient())
        else:
            with pytest.raises(error):
                read_image(path, limits)
        writer.join()


@pytest.mark.parametrize("name", FILES)
def test_too_many_pixels_are_refused(name: str) -> None:
    limits = Limits(pixels=WIDTH * HEIGHT - 1)
    with pytest.raises(ImageTooLarge) as caught:
        read_image(FILES[name][0], limits)
    assert (caught.value.size, caught.value.unit) == (WIDTH * HEIGHT, "pixels")
    assert_sound(read_image(FILES[name][0], Limits(pixels=WIDTH * HEIGHT)))


def test_pixels_of_arrays_and_pil_pictures_count_too() -> None:
    for source in (gradient(), gradient()[..., 0], RGB):
        with pytest.raises(ImageTooLarge):
            read_image(source, Limits(pixels=100))


def gif_claiming(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    comment = b"!\xfe\x03abc\0"
    dispose = b"!\xf9\x04\x08\0\0\0\0"
    descriptor = b"," + struct.pack("<4HB", 0, 0, *frame, 0)
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    return header + comment + dispose + descriptor + b"\x02\x01\x44\0;"


def webp_claiming(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


BOMBS = {
    "png": (png_claiming(30_000, 30_000), 900_000_000),
    "png between the limits of Pillow": (png_claiming(13_000, 10_000), 130_000_000),
    "gif screen": (gif_claiming((30_000, 30_000), (1, 1)), 900_000_000),
    "gif frame": (gif_claiming((1, 1), (12_000, 11_000)), 132_000_000),
    "webp": (webp_claiming(16_000, 16_000), 256_000_000),
    "bmp": (
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 30_000, 30_000, 1, 24, *[0] * 6),
        900_000_000,
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_refused_before_decoding(name: str) -> None:
    data, pixels = BOMBS[name]
    with pytest.raises(ImageTooLarge, match=r"wider mien\.Limits") as caught:
        read_image(data)
    assert caught.value.size == pixels


# TIFF's reader applies Pillow's own limit when it allocates; the default `Limits` lie below it.
@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("tiff")])
def test_the_global_limit_of_pillow_neither_warns_nor_changes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = WIDTH * HEIGHT - 1
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)

    assert_sound(read_image(FILES[name][0]))
    assert limit == PIL.Image.MAX_IMAGE_PIXELS


def test_the_default_limits_lie_below_those_of_pillow() -> None:
    assert PIL.Image.MAX_IMAGE_PIXELS is not None
    assert Limits().pixels <= PIL.Image.MAX_IMAGE_PIXELS


def test_what_pillow_refuses_by_itself_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImage, match="MAX_IMAGE_PIXELS"):
        read_image(gif_claiming((1, 1), (WIDTH, HEIGHT)))


def test_threads_decode_side_by_side() -> None:
    expected = {name: read_image(data).pixels for name, (data, _) in FILES.items()}
    wrong: list[str] = []

    def decode() -> None:
        for _ in range(3):
            for name, (data, _) in FILES.items():
                if not np.array_equal(read_image(data).pixels, expected[name]):
                    wrong.append(name)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(warnings.filters) == filters


# ------------------------------------------------------------------------------------------ fuzzing


def assert_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        assert_sound(read_image(data, Limits(pixels=4_000_000)))


MAGIC = st.sampled_from([data[:16] for data, _ in FILES.values()] + [b"", b"<", b"BM", b"\xff\xd8"])


@FUZZ
@given(magic=MAGIC, rest=st.binary(max_size=4096))
def test_any_bytes_are_read_or_refused(magic: bytes, rest: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_read_or_refused(magic + rest)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few bytes changed, removed, inserted or cut off, mostly in its headers."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        reach = min(len(changed), chance.choice((40, 200, len(data))))
        at = chance.randrange(reach)
        match chance.choice("ssssrric"):
            case "s":
                changed[at] = chance.choice((0, 127, 128, 255, chance.randrange(256)))
            case "r":
                del changed[at : at + chance.randrange(1, 30)]
            case "i":
                changed[at:at] = chance.randbytes(chance.randrange(1, 20))
            case _:
                del changed[at + 1 :]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
@settings(FUZZ, max_examples=250)
@given(seed=st.integers(0, 2**32))
def test_mutated_files_are_read_or_refused(name: str, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_read_or_refused(mutated(FILES[name][0], random.Random(seed)))


# ------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize(
    ("format", "quality", "tolerance"), [("png", 90, 0), ("jpeg", 95, 12), ("webp", 95, 16)]
)
def test_what_is_encoded_can_be_read(format: Any, quality: int, tolerance: int) -> None:
    data = encode_image(Image(gradient()), format, quality)

    assert np.abs(read_image(data).pixels.astype(int) - gradient()).max() <= tolerance


def test_encodes_pixels_that_are_not_contiguous() -> None:
    flipped = gradient()[:, ::-1]
    np.testing.assert_array_equal(read_image(encode_image(Image(flipped))).pixels, flipped)


def test_quality_trades_size() -> None:
    noise = Image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    formats: tuple[Any, ...] = ("jpeg", "webp")
    for format in formats:
        assert len(encode_image(noise, format, 30)) < len(encode_image(noise, format, 95))


def test_refuses_what_cannot_be_encoded() -> None:
    image = Image(gradient())
    with pytest.raises(InputError, match="unknown format 'gif'"):
        encode_image(image, "gif")
    with pytest.raises(InputError, match="quality"):
        encode_image(image, "jpeg", 0)
    with pytest.raises(InputError, match="16,383"):
        encode_image(Image(np.zeros((1, 20_000, 3), np.uint8)), "webp")
    with pytest.raises(InputError, match="65,500"):
        encode_image(Image(np.zeros((70_000, 1, 3), np.uint8)), "jpeg")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_saves_in_the_format_of_the_suffix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"face{suffix}"

    save_image(Image(gradient()), path)

    with PIL.Image.open(path) as picture:
        assert picture.format == {".jpg": "JPEG"}.get(suffix, suffix[1:].upper())
    assert os.listdir(tmp_path) == [path.name]


def test_saved_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    save_image(Image(gradient()), tmp_path / "face.png")
    assert (tmp_path / "face.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_refuses_to_save_under_another_suffix_or_nowhere(tmp_path: Path) -> None:
    image = Image(gradient())
    with pytest.raises(InputError, match=r"has to end in \.png"):
        save_image(image, tmp_path / "face.tga")
    with pytest.raises(InputError, match="No such file or directory"):
        save_image(image, tmp_path / "absent" / "face.png")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "face.webp"
    path.write_bytes(b"old")

    with pytest.raises(InputError, match="16,383"):
        save_image(Image(np.zeros((1, 20_000, 3), np.uint8)), path)
    assert path.read_bytes() == b"old"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_image(Image(gradient()), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["face.webp"]


# ------------------------------------------------------------------------------------------ finding


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(root: Path, *paths: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_images(paths)]


def test_finds_pictures_in_folders_in_order(tmp_path: Path) -> None:
    make(
        tmp_path, "b.png", "a/2.JPG", "a/1.heic", "a/deep/3.webp", "c.txt", "d.jpeg/e.tif", "noext"
    )
    make(tmp_path, ".hidden.png", ".git/x.png", "a/.cache/y.jpg")

    assert found(tmp_path, tmp_path) == [
        "a/1.heic",
        "a/2.JPG",
        "a/deep/3.webp",
        "b.png",
        "d.jpeg/e.tif",
    ]


def test_files_are_taken_as_given(tmp_path: Path) -> None:
    make(tmp_path, "z.txt", ".h.png", "a/1.png", ".b/2.png")

    assert found(
        tmp_path, tmp_path / "z.txt", tmp_path / ".h.png", tmp_path / "a", tmp_path / ".b"
    ) == ["z.txt", ".h.png", "a/1.png", ".b/2.png"]


def test_a_single_path_will_do(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    assert list(find_images(tmp_path)) == list(find_images(str(tmp_path))) == [tmp_path / "a.png"]


def test_a_missing_path_is_reported_at_once(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    with pytest.raises(UnreadableImage, match=r"absent.*does not exist"):
        find_images([tmp_path, tmp_path / "absent"])


def test_a_folder_without_pictures_yields_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "empty/b.md")
    assert found(tmp_path, tmp_path) == []


def test_links_are_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "a" / "itself.png").symlink_to(tmp_path / "a" / "itself.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "a" / "1.png")

    names = [path.name for path in find_images(tmp_path)]

    assert sorted(names) == ["1.png", "2.png", "linked.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "locked/a.png")
    (tmp_path / "locked").chmod(0)
    with pytest.raises(UnreadableImage, match="no permission"):
        list(find_images(tmp_path))
