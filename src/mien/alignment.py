"""Warp a face to the frame that an embedder's card asks for."""

from functools import cache

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.errors import InputError
from mien.geometry import compose, invert, scale_of, similarity_transform, transform_points
from mien.types import Affine, AlignedFace, Box, Frame, Image, Landmarks, Pixels


def align(image: Image, landmarks: Landmarks, frame: Frame) -> AlignedFace:
    """Rotate, scale and shift a face so that its landmarks fall on the frame's template.

    What lies outside the picture is black. The crop is sampled bilinearly from a copy of the
    region reduced by whole factors first, so that large faces do not alias. Raises `InputError`
    for landmarks that all lie in one place.
    """
    return align_views(image, landmarks, frame, 1)[0]


def align_views(image: Image, landmarks: Landmarks, frame: Frame, views: int) -> list[AlignedFace]:
    """`views` crops of one face, the first of them exactly aligned, the rest slightly off.

    Averaging the embeddings of jittered and mirrored crops cancels part of the noise of
    alignment (King, dlib `face_recognition.py`, num_jitters). The offsets are fixed, not random:
    the same picture gives the same vectors on every machine.
    """
    template = np.array(frame.template, np.float64)
    straight = similarity_transform(landmarks.points, template)
    if not scale_of(straight):
        raise InputError("the five landmarks lie in one place: this is no face that can be aligned")
    miss = transform_points(straight, landmarks.points) - template
    eyes = float(np.linalg.norm(template[1] - template[0]))
    residual = float(np.sqrt((miss**2).sum(axis=1).mean())) / eyes
    return [
        AlignedFace(_warp(image.pixels, transform, frame.size), transform, residual)
        for transform in (compose(view, straight) for view in _views(frame.size, views))
    ]


def cut(image: Image, box: Box, size: tuple[int, int], margin: float = 0.0) -> AlignedFace:
    """The square around a face's box, upright, with `margin` of its side added on every side.

    For networks that learnt from crops of boxes and not of landmarks. `size` is (width, height);
    what lies outside the picture is black, and `residual` is 0: no landmarks are looked at.
    Raises `InputError` for an empty box.
    """
    transform = box_transform(box, size, margin)
    return AlignedFace(_warp(image.pixels, transform, size), transform, 0.0)


def box_transform(box: Box, size: tuple[int, int], margin: float) -> Affine:
    """The map from a picture to what `cut` makes of it. Raises `InputError` for an empty box."""
    side = max(box.width, box.height) * (1 + 2 * margin)
    if not side > 0:
        raise InputError("the box of the face is empty")
    scale = max(size) / side
    middle = np.array([(box.left + box.right) / 2, (box.top + box.bottom) / 2])
    centre = (np.array(size) - 1) / 2
    return np.column_stack([scale * np.eye(2), centre - scale * middle])


def resized(frame: Frame, side: int) -> Frame:
    """The same frame with crops of another size: `side` is the longer one, in pixels."""
    scale = side / max(frame.size)
    width, height = (round(scale * length) for length in frame.size)
    template = ((np.array(frame.template) + 0.5) * scale - 0.5).tolist()
    return Frame((width, height), tuple((x, y) for x, y in template))


@cache
def _views(size: tuple[int, int], count: int) -> tuple[Affine, ...]:
    """Maps of the frame onto itself: identity, then jitters of a fixed low-discrepancy sequence.

    Rotation within 5 degrees, shift within 3% of the frame, scale 0.97 to 1.06, every second one
    mirrored: the widest of a few ranges tried, and the one with the lowest error rates on the
    people of LFW View 1.
    """
    width, height = size
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    # additive recurrence on the powers of the plastic-number generalisation for 4 dimensions
    steps = np.array([0.8566749, 0.7338919, 0.6287068, 0.5385973])
    maps: list[Affine] = []
    for index in range(count):
        angle, scale, right, down = (0.5 + index * steps) % 1.0
        theta = np.radians(10 * angle - 5) if index else 0.0
        zoom = 0.97 + 0.09 * scale if index else 1.0
        shift = np.array([right - 0.5, down - 0.5]) * 0.06 * width if index else np.zeros(2)
        linear = zoom * np.array(
            [[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]]
        )  # fmt: skip
        if index % 2:
            linear = np.diag([-1.0, 1.0]) @ linear
        maps.append(np.column_stack([linear, centre + shift - linear @ centre]))
    return tuple(maps)


def _warp(pixels: Pixels, transform: Affine, size: tuple[int, int]) -> Pixels:
    width, height = size
    back = invert(transform)
    # Only the part of the picture under the crop is touched: a face costs the same in any picture.
    corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]], np.float64)
    footprint = transform_points(back, corners)
    factor = max(1, int(scale_of(back)))
    margin = 2 * factor
    limit = (pixels.shape[1], pixels.shape[0])
    left, top = (
        int(np.clip(np.floor(low) - margin, 0, end))
        for low, end in zip(footprint.min(axis=0), limit, strict=True)
    )
    right, bottom = (
        int(np.clip(np.ceil(high) + margin, 0, end))
        for high, end in zip(footprint.max(axis=0), limit, strict=True)
    )
    if right <= left or bottom <= top:  # the face lies wholly outside the picture
        return np.zeros((height, width, 3), np.uint8)
    region = PIL.Image.fromarray(pixels[top:bottom, left:right])
    if factor > 1:
        region = region.reduce(factor)
    # Pillow counts from pixel corners, mien from pixel centres: half a pixel on either side.
    linear = back[:, :2] / factor
    offset = (back[:, 2] - _half(back) + 0.5 - (left, top)) / factor
    coefficients = (
        linear[0, 0], linear[0, 1], offset[0], linear[1, 0], linear[1, 1], offset[1],
    )  # fmt: skip
    crop = region.transform(
        size, PIL.Image.Transform.AFFINE, coefficients, PIL.Image.Resampling.BILINEAR
    )
    return np.asarray(crop)


def _half(transform: Affine) -> NDArray[np.float64]:
    """Where the linear part of a transform carries (0.5, 0.5)."""
    half: NDArray[np.float64] = transform[:, :2].sum(axis=1) / 2
    return half
