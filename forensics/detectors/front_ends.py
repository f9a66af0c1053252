"""Front ends: what a network's first layer gets instead of pixel values.

Each is a module with an attribute ``channels``, from ``(B, 3, H, W)`` float pixel values in
[0, 255] to ``(B, channels, H, W)``. It computes in the images' precision, float32, also under
autocast: with bfloat16's 8 bits a difference of one grey level between bright pixels would be lost.
Height and width stay; `wavelet_hh` alone halves them and doubles them again.

Residuals, what a pixel's neighbours do not predict, are differences of few grey levels, in
`RESIDUAL_UNIT`s.
"""

import math
from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor, maximum, minimum, nn
from torch.nn.functional import conv2d, interpolate, pad

from forensics.detectors.base import to_unit_range

RESIDUAL_UNIT = 32.0
"""Grey levels that are 1 in a residual; those of faces of 128 px then have a standard deviation of
0.1 to 1."""


class FrontEnd(StrEnum):
    """Input of a network's first layer, by name.

    Attributes:
        rgb: pixel values in [-1, 1].
        npr: `nearest_residual`, of NPR.
        lpd: `median_residual`, of FerretNet.
        laplacian: `laplacian`, of Yang et al.
        kv: `kv_residual`, of Qian et al.
        srm: `srm_residuals`, of Fridrich and Kodovsky.
        constrained: `ConstrainedConvolution`, of Bayar and Stamm; learnt.
        wavelet: `wavelet_hh`, of SAFE.
        dct: `log_dct`, of Frank et al.
        fft_highpass: `fft_highpass`, of FreqNet.
    """

    rgb = "rgb"
    npr = "npr"
    lpd = "lpd"
    laplacian = "laplacian"
    kv = "kv"
    srm = "srm"
    constrained = "constrained"
    wavelet = "wavelet"
    dct = "dct"
    fft_highpass = "fft_highpass"


def build_front_end(front_end: FrontEnd, filters: int = 3) -> "Fixed | ConstrainedConvolution":
    """Make a front end.

    Args:
        front_end: its name.
        filters: number of filters of `ConstrainedConvolution`; no effect on others.
    """
    if front_end is FrontEnd.constrained:
        return ConstrainedConvolution(filters)
    return Fixed(*FUNCTIONS[front_end])


class Fixed(nn.Module):
    """A front end without weights.

    Args:
        function: from ``(B, 3, H, W)`` float in [0, 255] to ``(B, channels, H, W)``.
        channels: number of output channels.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self._function = function

    def forward(self, images: Tensor) -> Tensor:
        """Transform ``(B, 3, H, W)`` float in [0, 255]; ``(B, channels, H, W)``."""
        with torch.autocast(images.device.type, enabled=False):
            return self._function(images)


class ConstrainedConvolution(nn.Module):
    """Learnt prediction errors: 5x5 filters on the mean of the channels.

    Each filter's central weight is -1 and its other weights have the sum 1, so it predicts a pixel
    from its neighbours and subtracts the pixel. `project` restores this after each optimizer step.
    Borders are mirrored, the outermost pixels repeated; Bayar and Stamm cut them off instead.

    Args:
        filters: number of filters, and of output channels.

    Source: Bayar and Stamm, IH&MMSec 2016 (12 filters) and TIFS 2018 (3).
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.channels = filters
        self.weight = nn.Parameter(torch.empty(filters, 1, 5, 5))
        nn.init.uniform_(self.weight)  # of one sign, so that the sums are not near zero
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Restore the constraint in place.

        The other weights are divided by their sum, as in the paper. Sums below `LEAST_SUM`, also
        negative ones, would enlarge them or change their signs: instead, all of them are shifted by
        the same amount, which is the nearest point that satisfies the constraint.
        """
        others = self.weight.flatten(2)
        others[..., CENTRE] = 0
        sums = others.sum(dim=2, keepdim=True)
        divided = others / sums.clamp(min=LEAST_SUM)
        shifted = others + (1 - sums) / (others.shape[2] - 1)
        projected = torch.where(sums >= LEAST_SUM, divided, shifted)
        projected[..., CENTRE] = -1
        self.weight.copy_(projected.view_as(self.weight))

    def forward(self, images: Tensor) -> Tensor:
        """Filter ``(B, 3, H, W)`` float in [0, 255].

        Returns:
            ``(B, filters, H, W)``, in `RESIDUAL_UNIT`s.
        """
        with torch.autocast(images.device.type, enabled=False):
            grey = images.mean(dim=1, keepdim=True)
            return conv2d(_mirrored(grey, 2), self.weight) / RESIDUAL_UNIT


CENTRE = 12
"""Place of the central weight among those of a 5x5 filter."""

LEAST_SUM = 0.1
"""Sum of a filter's other weights from which on they are divided by it."""


def nearest_residual(images: Tensor) -> Tensor:
    """Difference from the image halved and doubled, both by nearest pixels.

    From each pixel of a 2x2 block its upper left pixel is subtracted; blocks at an odd last row or
    column are incomplete. It is 0 for images enlarged twice by nearest pixels.

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
"""Batcher's odd-even merge sort of eight (Knuth, The Art of Computer Programming, 5.3.4), without
the comparisons that the fourth does not need. torch's sort and median take eight times as long."""


def median_residual(images: Tensor) -> Tensor:
    """Each pixel minus the median of its 3x3 window with the centre set to 0.

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
    """Each channel's Laplacian: the sum of the four nearest pixels minus four times the pixel.

    Borders are reflected, the outermost pixels not repeated.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255], H and W at least 2.

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.

    Source: the fixed first layer of Yang et al.'s Laplacian CNN, reference [18] of
    arXiv 1902.11153.
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


_KV = torch.tensor(
    [
        [-1.0, 2, -2, 2, -1],
        [2, -6, 8, -6, 2],
        [-2, 8, -12, 8, -2],
        [2, -6, 8, -6, 2],
        [-1, 2, -2, 2, -1],
    ]
)


def _srm() -> Tensor:
    """The filters of `srm_residuals`, ``(30, 5, 5)``."""

    def line(weights: list[float], row: int, column: int) -> Tensor:
        """Weights along a direction; the second is the centre's."""
        kernel = torch.zeros(5, 5)
        for step, weight in enumerate(weights, start=-1):
            kernel[2 + step * row, 2 + step * column] = weight
        return kernel

    def edges(kernel: Tensor) -> list[Tensor]:
        """The upper half, with the central row, in its four rotations."""
        upper = kernel.clone()
        upper[3:] = 0
        return [upper.rot90(turns) for turns in range(4)]

    directions = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    square = pad(torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]), (1, 1, 1, 1))
    return torch.stack(
        [
            *(line([0, -1, 1, 0], *direction) for direction in directions),
            *(line([1, -2, 1, 0], *direction) / 2 for direction in directions[:4]),
            *(line([1, -3, 3, -1], *direction) / 3 for direction in directions),
            *(kernel / 4 for kernel in (square, *edges(square))),
            *(kernel / 12 for kernel in (_KV, *edges(_KV))),
        ]
    )


_SRM = _srm()


def kv_residual(images: Tensor) -> Tensor:
    """Each channel filtered by the 5x5 high-pass filter KV, whose central weight is -1.

    Borders are mirrored, the outermost pixels repeated.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255].

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.

    Source: Qian, Dong, Wang and Tan, SPIE 2015; the filter of Ker and Boehme, SPIE 2008.
    """
    channels = images.shape[1]
    kernels = _KV.to(images).expand(channels, 1, 5, 5)
    return conv2d(_mirrored(images, 2), kernels, groups=channels) / (12 * RESIDUAL_UNIT)


def srm_residuals(images: Tensor) -> Tensor:
    """The mean of the channels, filtered by 30 linear high-pass filters of the spatial rich model.

    Eight differences of first order, four of second and eight of third, then the 3x3 and the 5x5
    square filter, each with its four halves. Central weights are -1. Borders are mirrored, the
    outermost pixels repeated. Residuals are neither quantised nor truncated, unlike in the model.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255].

    Returns:
        ``(B, 30, H, W)``, in `RESIDUAL_UNIT`s.

    Source: Fridrich and Kodovsky, IEEE TIFS 7(3), 2012.
    """
    grey = images.mean(dim=1, keepdim=True)
    return conv2d(_mirrored(grey, 2), _SRM[:, None].to(images)) / RESIDUAL_UNIT


def _mirrored(images: Tensor, border: int) -> Tensor:
    """Images with a border of mirrored pixels, the outermost repeated; of any size."""
    for axis in (2, 3):
        size = images.shape[axis]
        places = torch.arange(-border, size + border, device=images.device) % (2 * size)
        images = images.index_select(axis, minimum(places, 2 * size - 1 - places))
    return images


def wavelet_hh(images: Tensor) -> Tensor:
    """The diagonal details of a wavelet transform's first level, enlarged to the image's size.

    Biorthogonal 1.3, whose high-pass filter is Haar's: from a 2x2 block ((a, b), (c, d)) comes
    (a - b - c + d) / 2. An odd last row or column is left out. Half the resolution; enlarged
    bilinearly.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255], H and W at least 2.

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.

    Source: SAFE, arXiv 2408.06741.
    """
    height, width = images.shape[-2:]
    blocks = images[..., : height // 2 * 2, : width // 2 * 2]
    top, bottom = blocks[..., ::2, :], blocks[..., 1::2, :]
    difference = top - bottom
    details = (difference[..., ::2] - difference[..., 1::2]) / (2 * RESIDUAL_UNIT)
    return interpolate(details, (height, width), mode="bilinear", align_corners=False)


def log_dct(images: Tensor) -> Tensor:
    """Each channel's log10 magnitudes of the orthonormal two-dimensional DCT-II.

    Not standardised by coefficient, unlike in Frank et al.'s networks. To magnitudes, in grey
    levels, 0.01 is added: their 1e-12 is below float32's rounding, which would decide the logarithm
    of the smallest.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255].

    Returns:
        The same shape, frequency 0 at the upper left.

    Source: Frank et al., arXiv 2003.08685.
    """
    rows, columns = (_dct_matrix(images, axis) for axis in (2, 3))
    coefficients: Tensor = rows @ images @ columns.T
    return torch.log10(coefficients.abs() + 0.01)


def _dct_matrix(images: Tensor, axis: int) -> Tensor:
    """The matrix of the orthonormal DCT-II along an axis of the images."""
    size = images.shape[axis]
    places = torch.arange(size, device=images.device)
    # Whole periods removed while the numbers are integers, for accurate angles.
    turns = (places[:, None] * (2 * places + 1)) % (4 * size)
    matrix = torch.cos(turns.to(images.dtype) * (math.pi / (2 * size))) * math.sqrt(2 / size)
    return torch.where(places[:, None] == 0, math.sqrt(1 / size), matrix)


def fft_highpass(images: Tensor) -> Tensor:
    """Each channel without its low frequencies: the central quarter of the spectrum set to 0.

    Removed are frequencies below a quarter of the sampling rate in both directions.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255].

    Returns:
        The same shape, in `RESIDUAL_UNIT`s.

    Source: FreqNet, arXiv 2403.07240.
    """
    # The removed rectangle is separable, so two real matrix products take the place of transforms,
    # whose complex numbers other programs' formats lack.
    rows, columns = (lowpass_matrix(images, axis) for axis in (2, 3))
    low: Tensor = rows @ images @ columns
    return (images - low) / RESIDUAL_UNIT


def lowpass_matrix(images: Tensor, axis: int) -> Tensor:
    """The symmetric matrix that keeps frequencies below 1/4 per pixel along an axis."""
    size = images.shape[axis]
    places = torch.arange(size, device=images.device)
    frequencies = torch.arange(1, (size + 3) // 4, device=images.device)
    turns = (frequencies[:, None] * places) % size
    angles = turns.to(images.dtype) * (2 * math.pi / size)
    cosines, sines = angles.cos(), angles.sin()
    return (1 + 2 * (cosines.T @ cosines + sines.T @ sines)) / size


FUNCTIONS: dict[FrontEnd, tuple[Callable[[Tensor], Tensor], int]] = {
    FrontEnd.rgb: (to_unit_range, 3),
    FrontEnd.npr: (nearest_residual, 3),
    FrontEnd.lpd: (median_residual, 3),
    FrontEnd.laplacian: (laplacian, 3),
    FrontEnd.kv: (kv_residual, 3),
    FrontEnd.srm: (srm_residuals, 30),
    FrontEnd.wavelet: (wavelet_hh, 3),
    FrontEnd.dct: (log_dct, 3),
    FrontEnd.fft_highpass: (fft_highpass, 3),
}
"""Front ends without weights, and their numbers of output channels."""
