"""From an upright image to the square that is scored, and the handling all images share."""

import io
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ResizeFilter(StrEnum):
    """Antialiased filters for making images smaller, as Pillow names them."""

    box = "box"
    bilinear = "bilinear"
    bicubic = "bicubic"
    lanczos = "lanczos"


MATCH_QUALITY = 75
"""Pillow's, of `Match.jpeg`: libjpeg's default, and what most files have that were not saved with
care. Of 95, 90, 75 and 50 it hid planted compressions best (``experiments/match``)."""

MATCH_SHARE = 0.5
"""Of the image size, to which `Match.resample` makes images smaller; three quarters left a planted
history to be seen."""


class Match(StrEnum):
    """Handling that every image goes through, so that codec and source size tell less.

    A function of one image, the same for real and generated ones, for training, validation, test
    and `forensics.scoring`: nothing is drawn, nothing depends on the class or on other images.

    ``jpeg``: once an image has the size that detectors see, it is saved as JPEG, 4:2:0, of quality
    `MATCH_QUALITY`, and read again. What was stored without loss gets a codec's traces too.
    ``resample``: it is made smaller, to `MATCH_SHARE` of its size, and as large as before, both by
    the data set's filter. Images of whatever size end up as ones that were enlarged twofold.

    Limits: neither takes away what it does not reach. A camera's sensor, its colours and framing
    stay; so does, under ``jpeg``, part of a compression of another quality on the same grid of
    8x8 pixels, which a second one can even bring out. Both destroy evidence with the shortcut,
    ``resample`` all of the upper octave, where many generators leave theirs.
    """

    none = "none"
    jpeg = "jpeg"
    resample = "resample"


def to_square(image: Image.Image, size: int, resize_filter: ResizeFilter) -> NDArray[np.uint8]:
    """Cut the middle square out of an image and resize it, antialiased.

    Args:
        image: mode RGB.
        size: height and width of the result in pixels.
        resize_filter: the filter; of an image that has the size already, no pixel changes.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    filter_ = Image.Resampling[resize_filter.name.upper()]
    box = (left, top, left + side, top + side)
    return np.asarray(image.crop(box).resize((size, size), filter_))


def matched(
    image: NDArray[np.uint8], match: Match, resize_filter: ResizeFilter
) -> NDArray[np.uint8]:
    """Put an image that `to_square` made through the handling that all have in common.

    Args:
        image: ``(S, S, 3)`` uint8; left as it is.
        match: which.
        resize_filter: of ``resample``.

    Returns:
        The same shape; of ``none`` the image itself.
    """
    if match is Match.jpeg:
        return recompressed(image, MATCH_QUALITY)
    if match is Match.resample:
        size = len(image)
        filter_ = Image.Resampling[resize_filter.name.upper()]
        smaller = Image.fromarray(image).resize((max(1, round(size * MATCH_SHARE)),) * 2, filter_)
        return np.asarray(smaller.resize((size, size), filter_))
    return image


def recompressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Save as JPEG, 4:2:0, with Pillow's quality from 1 to 100, and read it again."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))
