"""What several tests do to pictures."""

import numpy as np
import PIL.Image

from mien.types import Image


def resized(image: Image, width: int, height: int) -> Image:
    """A picture brought to another size, as a photo program would."""
    picture = PIL.Image.fromarray(image.pixels)
    return Image(np.asarray(picture.resize((width, height), PIL.Image.Resampling.LANCZOS)))
