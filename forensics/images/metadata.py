"""Metadata of an image file."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from forensics.images.containers import read_parts

# Table K.1 of ITU-T T.81, the luminance quantisation steps that libjpeg scales by the quality.
# fmt: off
_STEPS_AT_50 = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])
# fmt: on
_QUALITIES = np.arange(1, 101)
_SCALES = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_STEPS = ((_STEPS_AT_50 * _SCALES[:, None] + 50) // 100).clip(1, 255)


class Metadata(NamedTuple):
    """Metadata in the header of a file.

    Attributes:
        format: ``JPEG``, ``PNG`` or ``WEBP``.
        width: in pixels, before the orientation is applied.
        height: in pixels, before the orientation is applied.
        mode: Pillow's pixel mode, such as ``RGB``.
        jpeg_quality: libjpeg's quality, 1 to 100, with the nearest luminance quantisation steps;
            None if the file is not a JPEG.
        orientation: EXIF orientation, 1 to 8; 1, upright, if the file has none.
        exif: whether the file has EXIF entries.
    """

    format: str
    width: int
    height: int
    mode: str
    jpeg_quality: int | None
    orientation: int
    exif: bool


def read_metadata(path: Path) -> Metadata:
    """Read the header of a file that `forensics.images.decode.decode` accepts."""
    with path.open("rb") as file:
        parts = read_parts(file)
    with Image.open(io.BytesIO(parts.content), formats=(parts.format,)) as image:
        return Metadata(
            parts.format,
            *image.size,
            image.mode,
            _jpeg_quality(image),
            parts.orientation.value,
            parts.orientation.entries > 0,
        )


def _jpeg_quality(image: Image.Image) -> int | None:
    steps = getattr(image, "quantization", {}).get(0)
    if steps is None:
        return None
    return int(_QUALITIES[np.abs(_STEPS - np.array(steps)).sum(axis=1).argmin()])
