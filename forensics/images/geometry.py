"""From an upright image to the scored square, and processing that matches all images."""

import io
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ResizeFilter(StrEnum):
    """Antialiased filters for downscaling, by Pillow's names."""

    box = "box"
    bilinear = "bilinear"
    bicubic = "bicubic"
    lanczos = "lanczos"


class View(StrEnum):
    """Part of an image that detectors see.

    ``resize``: the centre square, resized. Enlarging or reducing an image removes most of what a
    generator's upsampling leaves at the highest frequencies.
    ``crop``: a square of native pixels from the centre. Training takes random crops of it; the test
    scores all of it.
    """

    resize = "resize"
    crop = "crop"


MATCH_QUALITY = 75
"""JPEG quality of `Match.jpeg`: the default of Pillow and libjpeg. Of 95, 90, 75 and 50 it hid
planted compressions best (``experiments/match``)."""

MATCH_SHARE = 0.5
"""Downscaling factor of `Match.resample`; with 0.75, planted processing was still visible."""


class Match(StrEnum):
    """Processing of images, so that codec and source size are weaker shortcuts.

    But for ``codec``, a function of one image, the same for real and generated images, for
    training, validation, test and `forensics.scoring`: not random, and independent of the class and
    of other images.

    ``jpeg``: at the size that detectors see, an image is saved as JPEG, 4:2:0, of quality
    `MATCH_QUALITY`, and read again. Losslessly stored images get a codec's traces, too.
    ``resample``: it is downscaled to `MATCH_SHARE` of its size and upscaled back, both with the
    data set's filter, so that every image has been enlarged twofold.

    ``codec``: the real images' own: at its own size, before it is cropped or resized, a generated
    image is saved as JPEG, 4:2:0, of a quality that its sha256 chooses among those of the real
    training images, and read again. Real images stay as they are, and so does every image that is
    scored without its data set, by `forensics.scoring` or evaluate.py: it has no source.

    Limits: other differences remain. Sensor noise, colours and framing are unchanged; under
    ``jpeg``, an earlier compression of another quality on the same grid of 8x8 pixels partly
    remains and can even become more visible. Both remove evidence together with the shortcut,
    ``resample`` the entire upper octave, where many generators leave traces.
    """

    none = "none"
    jpeg = "jpeg"
    resample = "resample"
    codec = "codec"


def to_square(
    image: Image.Image, size: int, resize_filter: ResizeFilter, view: View = View.resize
) -> NDArray[np.uint8]:
    """Crop the centre square of an image and, for `View.resize`, resize it, antialiased.

    Args:
        image: mode RGB.
        size: height and width of the result in pixels; for `View.crop`, at most the image's.
        resize_filter: the filter; if the square already has the size, no pixel changes.
        view: the centre square as large as possible and resized, or ``size`` native pixels of it.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    width, height = image.size
    side = size if view is View.crop else min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    filter_ = Image.Resampling[resize_filter.name.upper()]
    box = (left, top, left + side, top + side)
    # A crop is a copy, four bytes a pixel, which takes as long as an eighth of the decoding.
    square = image if (width, height) == (side, side) else image.crop(box)
    return np.asarray(square.resize((size, size), filter_))


def matched(
    image: NDArray[np.uint8], match: Match, resize_filter: ResizeFilter
) -> NDArray[np.uint8]:
    """Apply the common processing to an image of `to_square`.

    Args:
        image: ``(S, S, 3)`` uint8; not modified.
        match: the processing.
        resize_filter: filter of ``resample``.

    Returns:
        An image of the same shape; for ``none`` and ``codec`` the image itself.
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
