"""Images of a source as detectors see them, for the scripts beside this file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forensics.images.decode import decode
from forensics.images.geometry import ResizeFilter, to_square
from forensics.images.listing import list_images

SIDE = 128


def last_images(folder: Path, count: int) -> NDArray[np.uint8]:
    """A source's last images, which are those tested; ``(count, SIDE, SIDE, 3)``."""
    files = list_images(folder).images[-count:]
    squares = (decode(folder / file.path, 1).pixels for file in files)
    return np.stack([to_square(square, SIDE, ResizeFilter.lanczos) for square in squares])
