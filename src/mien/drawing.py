"""Draw what was found onto a picture: boxes, points and labels that read well at any size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps

from mien.types import Box, Image, Landmarks

Colour = tuple[int, int, int]

# Distinguishable with the common forms of colour blindness (Okabe and Ito, 2008).
FOUND: Colour = (86, 180, 233)
NAMED: Colour = (0, 158, 115)
UNKNOWN: Colour = (213, 94, 0)


@dataclass(frozen=True, slots=True)
class Mark:
    """One face to draw: its box, its label (title and smaller lines), its colour, its points."""

    box: Box
    lines: tuple[str, ...]
    colour: Colour
    landmarks: Landmarks | None = None


def annotate(image: Image, marks: Sequence[Mark]) -> Image:
    """A copy of a picture with marks on it; small pictures are enlarged so that labels fit."""
    enlarge = max(1, -(-640 // max(image.width, image.height)))
    canvas = PIL.Image.fromarray(image.pixels)
    if enlarge > 1:
        size = (image.width * enlarge, image.height * enlarge)
        canvas = canvas.resize(size, PIL.Image.Resampling.BICUBIC)
    draw = PIL.ImageDraw.Draw(canvas, "RGBA")
    labels: list[Box] = []
    for mark in sorted(marks, key=lambda mark: -mark.box.area):  # small faces stay on top
        box = Box(*(enlarge * (edge + 0.5) for edge in _edges(mark.box)))
        width = max(2, round(max(canvas.size) / 400))
        draw.rectangle(_edges(box), outline=mark.colour, width=width)
        if mark.landmarks is not None:
            for x, y in (mark.landmarks.points + 0.5) * enlarge:
                draw.ellipse((x - width, y - width, x + width, y + width), fill=mark.colour)
        labels.append(_label(draw, canvas.size, box, mark, labels))
    return Image(np.asarray(canvas), image.source)


def contact_sheet(images: Sequence[Image], columns: int, side: int = 320) -> Image:
    """Pictures in a grid, each fitted into a square of `side` pixels, in reading order."""
    rows = -(-len(images) // columns)
    sheet = PIL.Image.new("RGB", (columns * side, max(1, rows) * side), (24, 24, 24))
    for number, image in enumerate(images):
        tile = PIL.Image.fromarray(image.pixels)
        tile.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
        row, column = divmod(number, columns)
        left, top = column * side, row * side
        sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
    return Image(np.asarray(sheet))


def captioned(image: Image, lines: Sequence[str], side: int) -> Image:
    """A picture fitted into a square of `side` pixels, with small lines of text below it."""
    font = PIL.ImageFont.load_default(max(11.0, side / 12))
    step = round(1.3 * max(11.0, side / 12))
    canvas = PIL.Image.new("RGB", (side, side + step * len(lines) + 4), (24, 24, 24))
    tile = PIL.ImageOps.pad(PIL.Image.fromarray(image.pixels), (side, side), color=(24, 24, 24))
    canvas.paste(tile, (0, 0))
    draw = PIL.ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        fits = next(n for n in range(len(line), -1, -1) if draw.textlength(line[:n], font) < side)
        draw.text((3, side + step * number), line[:fits], font=font, fill=(235, 235, 235))
    return Image(np.asarray(canvas), image.source)


def _edges(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


def _label(
    draw: PIL.ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Box,
    mark: Mark,
    taken: Sequence[Box],
) -> Box:
    """Write a label by a box, inside the picture and off the other labels where possible."""
    large = float(np.clip(box.height / 6, max(size) / 60, max(size) / 22))
    fonts = [
        PIL.ImageFont.load_default(max(11.0, large if i == 0 else large * 0.72))
        for i in range(len(mark.lines))
    ]
    extents = [draw.textbbox((0, 0), t, font=f) for t, f in zip(mark.lines, fonts, strict=True)]
    pad = max(3.0, large / 4)
    heights = [bottom + pad / 2 for _, _, _, bottom in extents]
    width = max((right for _, _, right, _ in extents), default=0.0) + 2 * pad
    height = sum(heights) + pad
    left = min(max(0.0, box.left), max(0.0, size[0] - width))
    tops = (box.bottom, box.top - height, box.top, box.bottom - height)
    spots = [
        Box(left, top, left + width, top + height)
        for top in (min(max(0.0, top), max(0.0, size[1] - height)) for top in tops)
    ]
    spot = next((s for s in spots if not any(_overlap(s, t) for t in taken)), spots[0])
    draw.rectangle(_edges(spot), fill=(*mark.colour, 225))
    top = spot.top + pad / 2
    for text, font, step in zip(mark.lines, fonts, heights, strict=True):
        draw.text((spot.left + pad, top), text, font=font, fill=_ink(mark.colour))
        top += step
    return spot


def _overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever stands out more on a colour (relative luminance, WCAG 2)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
