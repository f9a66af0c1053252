"""Blur, downscaling, noise and spectra of a given strength, for batches on any device."""

import math

import torch
from torch import Tensor, nn

MAX_GREY_LEVEL = 255.0
MAX_SIGMA = 10.0
"""Largest standard deviation in pixels of `gaussian_filter`."""
FAINTEST = 1e-3
"""Amplitude that a spectrum has at least: far below that of rounding to grey levels."""


def gaussian_blur(images: Tensor, kernel_size: int) -> Tensor:
    """Blur a batch with a Gaussian kernel.

    Args:
        images: ``(B, C, H, W)`` float; left as it is. Reflected at the border, so a constant
            image stays constant.
        kernel_size: odd, >= 1, in pixels; 1 returns the images unchanged. The standard
            deviation is the one OpenCV and torchvision derive from it, 0.15 k + 0.35 pixels.

    Returns:
        Tensor of the same shape and dtype, within the range of the input.

    Raises:
        ValueError: if ``kernel_size`` is even or below 1.

    Source: arXiv 1902.11153, section 3, which gives no standard deviation.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and at least 1, not {kernel_size}")
    if kernel_size == 1:
        return images
    # Here, because scoring never blurs, and it takes a second to import.
    from torchvision.transforms.v2 import functional as F

    blurred: Tensor = F.gaussian_blur(images, [kernel_size, kernel_size])
    return blurred


def gaussian_filter(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own standard deviation, as SciPy does by default.

    Args:
        images: ``(B, C, H, W)`` float; left as it is. Mirrored at the border, with the outermost
            pixel repeated. The kernel ends at four standard deviations.
        sigmas: ``(B,)`` standard deviations in pixels, from 0 to `MAX_SIGMA`, on any device.

    Returns:
        Tensor of the same shape and dtype, within the range of the input.

    Raises:
        ValueError: if a standard deviation is out of range.
    """
    if not ((sigmas >= 0) & (sigmas <= MAX_SIGMA)).all():
        raise ValueError(f"sigmas must be in [0, {MAX_SIGMA:g}], not {sigmas.tolist()}")
    # As products with matrices, in float64, which neither autocast nor TF32 makes less exact.
    rows, columns = (_gaussian_matrix(sigmas.double(), side) for side in images.shape[2:])
    rows, columns = rows.to(images.device), columns.to(images.device)
    blurred = rows[:, None] @ images.double() @ columns.mT[:, None]
    return torch.empty_like(images).copy_(blurred)


def _gaussian_matrix(sigmas: Tensor, side: int) -> Tensor:
    """The Gaussian filter of a row of pixels as matrices, ``(B, side, side)``."""
    offsets = torch.arange(-4 * int(MAX_SIGMA), 4 * int(MAX_SIGMA) + 1)
    weights = torch.exp(-0.5 * (offsets / sigmas.clamp(min=1e-3)[:, None]) ** 2)
    weights = weights.where(offsets.abs() <= (4 * sigmas[:, None] + 0.5).int(), 0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # Without a border, rows repeat with a period of two sides, mirrored in between.
    places = (torch.arange(side)[:, None] + offsets) % (2 * side)
    places = places.minimum(2 * side - 1 - places).expand(len(sigmas), -1, -1)
    matrices = torch.zeros(len(sigmas), side, side, dtype=weights.dtype)
    return matrices.scatter_add_(2, places, weights[:, None].expand_as(places))


def enlarged(images: Tensor, shares: Tensor, places: Tensor) -> Tensor:
    """Make a rectangle of each image as large as the image, bicubic, as Pillow does.

    Args:
        images: ``(B, C, H, W)`` float, grey levels in [0, 255]; left as it is.
        shares: ``(B,)`` of height and width, in (0, 1]; with 1 an image is unchanged.
        places: ``(B, 2)`` in [0, 1]: 0 is at the top and at the left, 1 at the opposite sides.

    Returns:
        Tensor of the same shape and dtype, clipped to [0, 255].
    """
    size = images.shape[2:]
    result = torch.empty_like(images)
    for number, (share, place) in enumerate(zip(shares.tolist(), places.tolist(), strict=True)):
        sides = [max(1, round(side * share)) for side in size]
        # The places of a square have equal chances, the last included.
        free = [side - cut + 1 for side, cut in zip(size, sides, strict=True)]
        top, left = (min(int(at * n), n - 1) for at, n in zip(place, free, strict=True))
        cut = images[number, None, :, top : top + sides[0], left : left + sides[1]]
        result[number] = (
            cut[0]
            if sides == list(size)
            else nn.functional.interpolate(cut.float(), size, mode="bicubic", antialias=True)[
                0
            ].clamp(0, MAX_GREY_LEVEL)
        )
    return result


def rescaled(images: Tensor, scale: float) -> Tensor:
    """Make a batch smaller and as large as before, both bicubic and antialiased, as Pillow does.

    Args:
        images: ``(B, C, H, W)`` float, grey levels in [0, 255]; left as it is.
        scale: of height and width, in (0, 1]; 1 returns the images unchanged.

    Returns:
        Tensor of the same shape and dtype, clipped to [0, 255] at both sizes, as files are.

    Raises:
        ValueError: if ``scale`` is out of range.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be in (0, 1], not {scale}")
    if scale == 1:
        return images
    size = images.shape[2:]
    resized = images.float()  # torch has no antialiased filter in bfloat16
    for height, width in ([max(1, round(side * scale)) for side in size], size):
        resized = nn.functional.interpolate(
            resized, (height, width), mode="bicubic", antialias=True
        ).clamp(0, MAX_GREY_LEVEL)
    return torch.empty_like(images).copy_(resized)


def gaussian_noise(
    images: Tensor, std_grey_levels: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Add white Gaussian noise to a batch.

    Args:
        images: ``(B, C, H, W)`` float, grey levels in [0, 255]; left as it is.
        std_grey_levels: standard deviation, >= 0, one for all or ``(B, 1, 1, 1)``; 0 returns the
            images' values unchanged.
        generator: source of the draws, on the images' device.

    Returns:
        New tensor of the same shape and dtype, clipped to [0, 255].

    Raises:
        ValueError: if a single ``std_grey_levels`` is negative or not finite.

    Source: arXiv 1902.11153, section 3; clipping is ours.
    """
    if isinstance(std_grey_levels, float | int) and not (
        math.isfinite(std_grey_levels) and std_grey_levels >= 0
    ):
        raise ValueError(f"std_grey_levels must be finite and >= 0, not {std_grey_levels}")
    # In the images' memory layout, and filled as the plain row of numbers it is: torch fills a
    # channels_last tensor several times slower.
    noise = torch.empty_like(images)
    noise.as_strided((noise.numel(),), (1,)).normal_(generator=generator)
    return noise.mul_(std_grey_levels).add_(images).clamp_(0, MAX_GREY_LEVEL)


def match_spectrum(images: Tensor, others: Tensor, share: float) -> Tensor:
    """Move the radial spectrum of images towards that of others.

    Generated images often lack detail, and a detector learns "less detail is generated", which
    other generators break. Only the mean over all directions at a distance from 0 is moved, so
    what an upsampler leaves at single frequencies stays, and so does what lies within one cycle an
    image, its mean included.

    Args:
        images: ``(B, C, H, W)`` float, in grey levels or [-1, 1]; left as they are.
        others: likewise, the images whose spectrum is wanted.
        share: 0 leaves the spectrum as it is, 1 gives it the others' at each radius, between them
            in proportion of the logarithms.

    Returns:
        New images of the same shape and dtype, not clipped.
    """
    size = images.shape[2:]
    rows, columns = (torch.fft.fftfreq(side, 1 / max(size), device=images.device) for side in size)
    radii = torch.hypot(rows[:, None], columns).round().long()
    sizes = radii.flatten().bincount()
    tall, wide = (torch.hann_window(side, periodic=False).to(images) for side in size)

    def radial(images: Tensor) -> Tensor:
        """Mean logarithm of the amplitudes of grey values at each radius, ``(B, R)``.

        As `forensics.images.spectra` measures it. The amplitudes of complete images are mostly
        those of the step between opposite borders, and their mean that of a few directions: with
        these equal, textures would still differ.
        """
        grey = images.mean(dim=1)
        grey = (grey - grey.mean(dim=(1, 2), keepdim=True)) * tall[:, None] * wide
        amplitudes = torch.fft.fft2(grey).abs().clamp(min=FAINTEST).log()
        sums = amplitudes.new_zeros(len(images), len(sizes))
        means: Tensor = sums.index_add_(1, radii.flatten(), amplitudes.flatten(1)) / sizes
        return means

    gains = (share * (radial(others) - radial(images))).exp()
    gains[:, :2] = 1
    moved: Tensor = torch.fft.ifft2(torch.fft.fft2(images) * gains[:, None, radii]).real
    return moved
