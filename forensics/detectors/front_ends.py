"""Fixed transforms between an image and a network's first layer; none has a parameter.

Three of them are residuals: of each pixel what its neighbours do not tell. Those are differences
of few grey levels, in `RESIDUAL_UNIT`s; over faces of 128 px they have a standard deviation of 0.2
to 0.9. Slices, sums and comparisons make them, which autocast leaves in float32: with bfloat16's 8
bits a difference of one grey level between bright pixels would be lost.
"""

from collections.abc import Callable
from enum import StrEnum

from torch import Tensor, maximum, minimum
from torch.nn.functional import interpolate, pad

from forensics.detectors.base import to_unit_range

RESIDUAL_UNIT = 32.0
"""Grey levels that are 1 in a residual."""


class FrontEnd(StrEnum):
    """What a network's first layer gets, by name: see `FRONT_ENDS`."""

    none = "none"
    nearest = "nearest"
    median = "median"
    laplacian = "laplacian"


def nearest_residual(images: Tensor) -> Tensor:
    """What is lost by halving and doubling an image, each by its nearest pixel.

    Each 2x2 block less its upper left pixel; an odd last row or column is of blocks cut off. Images
    enlarged twice by their nearest pixel have none.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255].

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.

    Source: NPR, arXiv 2312.10461; there in units of about 86 grey levels: of images whose standard
    deviation is 1, times 2/3.
    """
    height, width = images.shape[-2:]
    doubled = interpolate(images[..., ::2, ::2], scale_factor=2, mode="nearest")
    return (images - doubled[..., :height, :width]) / RESIDUAL_UNIT


_MEDIAN = (
    (0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6),
    (0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (3, 4),
)  # fmt: skip
"""Batcher's odd-even merge sort of eight (Knuth, The Art of Computer Programming, 5.3.4), less
what the fourth does not need. torch's sort and median take eight times as long."""


def median_residual(images: Tensor) -> Tensor:
    """Each pixel less the median of its 3x3 window with the centre set to 0.

    No value is below 0, so that median is the fourth smallest of the eight neighbours. Borders are
    reflected, the outermost pixels not repeated.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255], H and W at least 2.

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.

    Source: FerretNet's local pixel dependency, arXiv 2509.20890.
    """
    values = _windows(images)
    del values[4]
    for low, high in _MEDIAN:
        one, other = values[low], values[high]
        values[low], values[high] = minimum(one, other), maximum(one, other)
    return (images - values[3]) / RESIDUAL_UNIT


def laplacian(images: Tensor) -> Tensor:
    """Each channel's Laplacian: the sum of the four nearest pixels less four times the pixel.

    Borders are reflected, the outermost pixels not repeated.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255], H and W at least 2.

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.
    """
    _, up, _, left, _, right, _, down, _ = _windows(images)
    return (up + left + right + down - 4 * images) / RESIDUAL_UNIT


def _windows(images: Tensor) -> list[Tensor]:
    """The nine pixels of each pixel's 3x3 window, row by row, each of the images' shape."""
    height, width = images.shape[-2:]
    padded = pad(images, (1, 1, 1, 1), mode="reflect")
    return [
        padded[..., row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]


FRONT_ENDS: dict[FrontEnd, Callable[[Tensor], Tensor]] = {
    FrontEnd.none: to_unit_range,
    FrontEnd.nearest: nearest_residual,
    FrontEnd.median: median_residual,
    FrontEnd.laplacian: laplacian,
}
"""From ``(B, 3, H, W)`` float pixel values in [0, 255] to the same shape."""
