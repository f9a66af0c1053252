"""Blur, downscaling and noise of a given strength, for batches on any device."""

import math

import torch
from torch import Tensor, nn

MAX_GREY_LEVEL = 255.0


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
