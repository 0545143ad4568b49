"""Random changes to a batch of packed faces, on the device that trains: one warp for all.

What is drawn depends only on the generator and the size of the batch, never on the pixels, so that
a batch divided among processes is changed as it would have been in one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mien.drawing import contact_sheet
from mien.training.config import Augmentation, Input, Recipe
from mien.training.preparation.pack import Packed
from mien.types import Image

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, eq=False, slots=True)
class Changes:
    """What is done to each face of a batch; every field has one row a face.

    `theta` (n, 2, 3) maps the network's input to the packed crop in the coordinates of
    `torch.nn.functional.affine_grid`. `gain`, `offset`, `grey` (n,) change the colours, `detail`
    (n,) is the share of the resolution that is kept, `sigma` (n,) the blur in pixels, `box` (n, 4)
    the left, top, right and bottom of what is hidden (shares of the side), `fill` (n, 3) by what.
    """

    theta: Tensor
    gain: Tensor
    offset: Tensor
    grey: Tensor
    detail: Tensor
    sigma: Tensor
    box: Tensor
    fill: Tensor

    def rows(self, which: slice) -> "Changes":
        """Those of some faces."""
        return Changes(*(getattr(self, name)[which] for name in self.__slots__))

    def to(self, device: torch.device) -> "Changes":
        """The same on another device."""
        return Changes(*(getattr(self, name).to(device) for name in self.__slots__))


def draw(config: Augmentation, shape: Input, count: int, generator: torch.Generator) -> Changes:
    """Random changes for `count` faces; amounts are uniform within the ranges of `config`."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def happens(probability: float) -> Tensor:
        return torch.rand(count, generator=generator) < probability

    angle = torch.deg2rad(uniform(-config.rotation, config.rotation))
    zoom = shape.crop / torch.exp(uniform(-1, 1) * config.scale)
    stretch = torch.exp(uniform(-1, 1) * config.stretch)
    mirror = torch.where(happens(0.5 if config.flip else 0.0), -1.0, 1.0)
    shift = uniform(-config.shift, config.shift, 2) * 2  # the side is 2 in these coordinates
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([
        torch.stack([cosine * mirror * stretch, -sine / stretch, shift[:, 0]], 1),
        torch.stack([sine * mirror * stretch, cosine / stretch, shift[:, 1]], 1),
    ], 1)  # fmt: skip
    side = uniform(0.5, 1.0, 2) * config.occlusion_size
    corner = uniform(0.0, 1.0, 2) * (1 - side)
    hidden = happens(config.occlusion)
    box = torch.cat([corner, corner + side], 1) * hidden[:, None]
    return Changes(
        theta,
        torch.exp(uniform(-1, 1) * config.contrast),
        uniform(-config.brightness, config.brightness),
        happens(config.grey).float(),
        torch.where(happens(config.low_resolution), uniform(config.detail, 1.0), 1.0),
        torch.where(happens(config.blur), uniform(0.3, config.sigma), 0.0),
        box,
        uniform(-1.0, 1.0, 3),
    )


def unchanged(shape: Input, count: int, mirror: bool = False) -> Changes:
    """The crop that is used after training, or its mirror image."""
    theta = torch.tensor([[shape.crop, 0.0, 0.0], [0.0, shape.crop, 0.0]])
    if mirror:
        theta[0, 0] *= -1
    one, zero = torch.ones(count), torch.zeros(count)
    return Changes(
        theta.repeat(count, 1, 1), one, zero, zero, one, zero,
        torch.zeros(count, 4), torch.zeros(count, 3),
    )  # fmt: skip


def preview(recipe: Recipe, packed: Packed, faces: int = 6, versions: int = 8) -> Image:
    """A contact sheet: each row is one face, first as it is used and then as training shows it."""
    count = min(faces, len(packed.rows))
    rows = np.linspace(0, len(packed.rows) - 1, count).astype(np.int64).repeat(versions)
    pixels = torch.from_numpy(packed.pixels[rows])
    generator = torch.Generator().manual_seed(recipe.run.seed)
    shown = apply(
        pixels, draw(recipe.augmentation, recipe.input, len(rows), generator), recipe.input.size
    )
    plain = apply(pixels, unchanged(recipe.input, len(rows)), recipe.input.size)
    shown[::versions] = plain[::versions]
    tiles = ((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return contact_sheet(
        [Image(np.ascontiguousarray(tile)) for tile in tiles], versions, recipe.input.size + 4
    )


def apply(pixels: Tensor, changes: Changes, size: int) -> Tensor:
    """Packed faces (n, h, w, 3) uint8 to network input (n, 3, size, size) float32 in [-1, 1]."""
    faces = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    grid = functional.affine_grid(changes.theta, [len(faces), 3, size, size], align_corners=False)
    # Beyond the packed crop the picture goes on: its border is nearer to that than black.
    faces = functional.grid_sample(
        faces, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    faces = _colours(faces, changes)
    faces = _coarser(faces, changes.detail)
    faces = _blurred(faces, changes.sigma)
    return _hidden(faces, changes.box, changes.fill)


def _colours(faces: Tensor, changes: Changes) -> Tensor:
    luma = (faces * faces.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    faces = torch.lerp(faces, luma.expand_as(faces), changes.grey[:, None, None, None])
    mean = luma.mean((2, 3), keepdim=True)
    gain, offset = changes.gain[:, None, None, None], changes.offset[:, None, None, None]
    return ((faces - mean) * gain + mean + offset).clamp(-1, 1)


def _coarser(faces: Tensor, detail: Tensor) -> Tensor:
    """Each face reduced to its share of the resolution and enlarged again; eight sizes at most."""
    size = faces.shape[-1]
    sides = (detail * 8).ceil().div(8).mul(size).round().long()
    for side in sides.unique().tolist():
        if side < size:
            rows = (sides == side).nonzero()[:, 0]
            small = functional.interpolate(faces[rows], side, mode="area")
            large = functional.interpolate(small, size, mode="bilinear", align_corners=False)
            faces = faces.index_copy(0, rows, large)
    return faces


def _blurred(faces: Tensor, sigma: Tensor) -> Tensor:
    """A Gaussian of its own width for each face, as one grouped convolution per axis."""
    rows = (sigma > 0).nonzero()[:, 0]
    if not len(rows):
        return faces
    radius = 3
    offsets = torch.arange(-radius, radius + 1, device=faces.device, dtype=faces.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[rows, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    channels, size = 3 * len(rows), faces.shape[-1]
    some = faces[rows].reshape(1, channels, size, size)
    some = functional.pad(some, [radius] * 4, mode="replicate")
    some = functional.conv2d(some, kernel[:, None, :, None], groups=channels)
    some = functional.conv2d(some, kernel[:, None, None, :], groups=channels)
    return faces.index_copy(0, rows, some.reshape(len(rows), 3, size, size))


def _hidden(faces: Tensor, box: Tensor, fill: Tensor) -> Tensor:
    size = faces.shape[-1]
    place = (torch.arange(size, device=faces.device) + 0.5) / size
    across = (place >= box[:, 0, None]) & (place < box[:, 2, None])
    down = (place >= box[:, 1, None]) & (place < box[:, 3, None])
    mask = down[:, None, :, None] & across[:, None, None, :]
    return torch.where(mask, fill[:, :, None, None], faces)
