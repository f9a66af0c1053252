"""Blur and noise for training batches, real and generated images alike, on their device.

Each dataclass is an operator and its settings at once: the fields are what ``conf/preprocess``
sets, ``__post_init__`` refuses values out of range, calling it works on a batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from forensics.errors import UserError
from forensics.preprocess.base import Draws, Preprocessed

MAX_GREY_LEVEL = 255.0


class Per(StrEnum):
    """Unit that a strength is drawn for; the paper draws once per batch."""

    batch = "batch"
    image = "image"


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


def _draw(
    sample: Callable[[int, torch.Generator], Tensor], count: int, per: Per, draws: Draws
) -> Tensor:
    """Draw one strength for the batch or one for each image; ``(B,)`` on the CPU."""
    if per is Per.batch:
        return sample(1, draws.shared).expand(count)
    return sample(count, draws.own).cpu()


def _blur(images: Tensor, kernel_sizes: list[int], per: Per, draws: Draws) -> Preprocessed:
    def sample(count: int, generator: torch.Generator) -> Tensor:
        choice = torch.randint(
            len(kernel_sizes), (count,), generator=generator, device=generator.device
        )
        return torch.tensor(kernel_sizes, device=generator.device)[choice]

    sizes = _draw(sample, len(images), per, draws)
    if per is Per.batch:
        blurred = gaussian_blur(images, int(sizes[0]))
    else:
        blurred = images.clone()
        for size in set(sizes.tolist()):
            chosen = (sizes == size).to(images.device)
            blurred[chosen] = gaussian_blur(images[chosen], size)
    return Preprocessed(blurred, {"kernel_size": sizes.float()})


def _noise(images: Tensor, max_std_grey_levels: float, per: Per, draws: Draws) -> Preprocessed:
    def sample(count: int, generator: torch.Generator) -> Tensor:
        return max_std_grey_levels * torch.rand(count, generator=generator, device=generator.device)

    stds = _draw(sample, len(images), per, draws)
    std = float(stds[0]) if per is Per.batch else stds.to(images.device).view(-1, 1, 1, 1)
    return Preprocessed(gaussian_noise(images, std, draws.own), {"std_grey_levels": stds})


def _check_kernel_sizes(kernel_sizes: list[int]) -> None:
    if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
        raise UserError(
            f"preprocess.kernel_sizes must be a list of odd numbers >= 1, such as [1,3,5,7], "
            f"not {list(kernel_sizes)}.",
            key="preprocess.kernel_sizes",
        )


def _check_std(max_std_grey_levels: float) -> None:
    if not 0 <= max_std_grey_levels <= MAX_GREY_LEVEL:
        raise UserError(
            f"preprocess.max_std_grey_levels must be in [0, 255] grey levels, "
            f"not {max_std_grey_levels}.",
            key="preprocess.max_std_grey_levels",
        )


@dataclass
class Untouched:
    """Training images as they are: the paper's M."""

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Return the batch itself."""
        return Preprocessed(images, {})


@dataclass
class Blur:
    """Gaussian blur of a drawn kernel size: the paper's M_GB.

    Attributes:
        kernel_sizes: what is drawn from, with equal chances; odd, in pixels, 1 is the identity.
        per: draw once per batch, as the paper, or per image.
    """

    kernel_sizes: list[int]
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        _check_kernel_sizes(self.kernel_sizes)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Blur ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        return _blur(images, self.kernel_sizes, self.per, draws)


@dataclass
class Noise:
    """White Gaussian noise of a drawn standard deviation: the paper's M_GN.

    Attributes:
        max_std_grey_levels: the standard deviation is drawn uniformly from 0 to this.
        per: draw once per batch, as the paper, or per image.
    """

    max_std_grey_levels: float
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        _check_std(self.max_std_grey_levels)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Add noise to ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        return _noise(images, self.max_std_grey_levels, self.per, draws)


@dataclass
class BlurNoise:
    """Blur, then noise, drawn independently of each other; not in the paper.

    In this order because it is a camera's: the lens blurs, then the sensor adds noise.

    Attributes:
        kernel_sizes: as in `Blur`.
        max_std_grey_levels: as in `Noise`.
        per: draw both once per batch or per image.
    """

    kernel_sizes: list[int]
    max_std_grey_levels: float
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        _check_kernel_sizes(self.kernel_sizes)
        _check_std(self.max_std_grey_levels)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Blur ``images``, ``(B, C, H, W)`` float in [0, 255], and add noise."""
        blurred, sizes = _blur(images, self.kernel_sizes, self.per, draws)
        noisy, stds = _noise(blurred, self.max_std_grey_levels, self.per, draws)
        return Preprocessed(noisy, sizes | stds)
