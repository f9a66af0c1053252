"""Operators on training batches, real and generated images alike, on their device.

Each dataclass is an operator and its settings at once: the fields are what ``conf/preprocess``
sets, ``__post_init__`` refuses values out of range, calling it works on a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from forensics import checks
from forensics.preprocess.base import Draws, Preprocessed
from forensics.preprocess.degradations import (
    MAX_GREY_LEVEL,
    MAX_SIGMA,
    enlarged,
    gaussian_blur,
    gaussian_filter,
    gaussian_noise,
    match_spectrum,
    rescaled,
)
from forensics.preprocess.jpeg import MCU, jpeg

Sample = Callable[[int, torch.Generator], Tensor]
"""From a number and a generator to so many draws, on the generator's device."""


class Per(StrEnum):
    """Unit that a strength is drawn for; the paper draws once per batch."""

    batch = "batch"
    image = "image"


def _among(values: Sequence[float]) -> Sample:
    """Draw among values with equal chances."""

    def sample(count: int, generator: torch.Generator) -> Tensor:
        choice = torch.randint(len(values), (count,), generator=generator, device=generator.device)
        return torch.tensor(values, device=generator.device)[choice]

    return sample


def _draw(sample: Sample, count: int, per: Per, draws: Draws) -> Tensor:
    """Draw one strength for the batch or one for each image; ``(B,)`` on the CPU."""
    if per is Per.batch:
        return sample(1, draws.shared).expand(count)
    return sample(count, draws.own).cpu()


def uniform(maximum: float, count: int, per: Per, draws: Draws) -> Tensor:
    """Draw uniformly from [0, maximum), once for the batch or for each image; ``(B,)``, CPU."""

    def sample(count: int, generator: torch.Generator) -> Tensor:
        return maximum * torch.rand(count, generator=generator, device=generator.device)

    return _draw(sample, count, per, draws)


def _each(
    images: Tensor, strengths: Tensor, per: Per, change: Callable[[Tensor, Any], Tensor]
) -> Tensor:
    """Change every image by its strength, those of one strength together."""
    if per is Per.batch:
        return change(images, strengths[0].item())
    changed = images.clone()
    for strength in set(strengths.tolist()):
        chosen = (strengths == strength).to(images.device)
        changed[chosen] = change(images[chosen], strength)
    return changed


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
        sizes = self.kernel_sizes
        holds = bool(sizes) and all(size >= 1 and size % 2 == 1 for size in sizes)
        range_ = "be a list of odd numbers >= 1, such as [1,3,5,7]"
        checks.require(holds, "preprocess.kernel_sizes", sizes, range_)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Blur ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        sizes = _draw(_among(self.kernel_sizes), len(images), self.per, draws)
        blurred = _each(images, sizes, self.per, gaussian_blur)
        return Preprocessed(blurred, {"kernel_size": sizes.float()})


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
        most = self.max_std_grey_levels
        holds = 0 <= most <= MAX_GREY_LEVEL
        checks.require(holds, "preprocess.max_std_grey_levels", most, "be in [0, 255] grey levels")

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Add noise to ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        stds = uniform(self.max_std_grey_levels, len(images), self.per, draws)
        one = self.per is Per.batch
        std = float(stds[0]) if one else stds.to(images.device).view(-1, 1, 1, 1)
        return Preprocessed(gaussian_noise(images, std, draws.own), {"std_grey_levels": stds})


@dataclass
class Resize:
    """Downscaling by a drawn scale, and as large as before; not in the paper.

    Attributes:
        scales: what is drawn from, with equal chances: parts of height and width, in (0, 1].
        per: draw once per batch or per image.
    """

    scales: list[float]
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        holds = bool(self.scales) and all(0 < scale <= 1 for scale in self.scales)
        range_ = "be a list of numbers above 0 and up to 1, such as [0.5,0.75]"
        checks.require(holds, "preprocess.scales", self.scales, range_)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Resize ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        scales = _draw(_among(self.scales), len(images), self.per, draws)
        resized = _each(images, scales, self.per, rescaled)
        return Preprocessed(resized, {"scale": scales.float()})


@dataclass
class Jpeg:
    """A JPEG round trip of a drawn quality, the image being a crop of the JPEG; not in the paper.

    Attributes:
        min_quality: the least and
        max_quality: the highest of the whole numbers from which the quality is drawn, with equal
            chances; from 1 to 100, in the IJG's scale.
        per: draw the quality once per batch or per image.
    """

    min_quality: int
    max_quality: int
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        least, most = self.min_quality, self.max_quality
        checks.require(1 <= most <= 100, "preprocess.max_quality", most, "be in [1, 100]")
        range_ = f"be in [1, {most}], at most preprocess.max_quality"
        checks.require(1 <= least <= most, "preprocess.min_quality", least, range_)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Compress ``images``, ``(B, 3, H, W)`` float in [0, 255]."""
        sample = _among(range(self.min_quality, self.max_quality + 1))
        qualities = _draw(sample, len(images), self.per, draws)
        # Where the blocks lie is each image's own whatever ``per``, as noise of pixels is: images
        # of a batch are no crops of one picture.
        own = draws.own
        offsets = torch.randint(MCU, (len(images), 2), generator=own, device=own.device)
        compressed = jpeg(images, qualities, offsets)
        return Preprocessed(compressed, {"jpeg_quality": qualities.float()})


@dataclass
class BlurSigma:
    """Gaussian blur of a standard deviation drawn from a range; not in the paper.

    Attributes:
        max_sigma: the standard deviation in pixels is drawn uniformly from 0 to this.
        per: draw once per batch or per image.

    Source: arXiv 1912.11035, whose range is [0, 3].
    """

    max_sigma: float
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        holds = 0 <= self.max_sigma <= MAX_SIGMA
        range_ = f"be in [0, {MAX_SIGMA:g}] pixels"
        checks.require(holds, "preprocess.max_sigma", self.max_sigma, range_)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Blur ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        sigmas = uniform(self.max_sigma, len(images), self.per, draws)
        return Preprocessed(gaussian_filter(images, sigmas), {"sigma": sigmas})


@dataclass
class CropResize:
    """A random square of the image, as large as the image again; not in the paper.

    Attributes:
        min_side: the square's side is drawn uniformly from this share of the image's to all of it,
            in (0, 1].
        per: draw the side once per batch or per image; the place is each image's own.
    """

    min_side: float
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        holds = 0 < self.min_side <= 1
        checks.require(holds, "preprocess.min_side", self.min_side, "be above 0 and up to 1")

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Crop and enlarge ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        count = len(images)
        shares = 1 - uniform(1 - self.min_side, count, self.per, draws)
        places = torch.rand(count, 2, generator=draws.own, device=draws.own.device).cpu()
        return Preprocessed(enlarged(images, shares, places), {"side": shares})


@dataclass
class MaskFrequencies:
    """Random frequencies of an image set to 0; not in the paper.

    Each image has its own mask, the same for its channels. A frequency and its conjugate share
    their fate, so the result is real; frequency 0 stays, so its mean does, but for clipping.

    Attributes:
        share: the chance of a frequency to be set to 0, in [0, 1].

    Source: arXiv 2401.06506, whose share is 0.15.
    """

    share: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.require(0 <= self.share <= 1, "preprocess.share", self.share, "be in [0, 1]")

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Mask ``images``, ``(B, C, H, W)`` float in [0, 255]."""
        height, width = images.shape[2:]
        spectrum = torch.fft.rfft2(images.float())
        kept = torch.rand(
            (len(images), 1, height, spectrum.shape[3]), generator=draws.own, device=images.device
        )
        for column in {0, width // 2} if width % 2 == 0 else {0}:  # with their own conjugates
            upper = kept[:, :, 1 : (height + 1) // 2, column]
            kept[:, :, height // 2 + 1 :, column] = upper.flip(2)
        kept[:, :, 0, 0] = 1
        masked = torch.fft.irfft2(spectrum * (kept >= self.share), (height, width))
        return Preprocessed(torch.empty_like(images).copy_(masked.clamp(0, MAX_GREY_LEVEL)), {})


@dataclass
class SwapSpectra:
    """The radial spectrum of another image of the batch; not in the paper.

    Real and generated images then have the same energy at each distance from frequency 0, and no
    trace of this operator tells them apart, as both have it: what lacks detail is not generated.
    """

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Change ``images``, ``(B, C, H, W)`` float in [0, 255]; one alone stays as it is."""
        order = torch.randperm(len(images), generator=draws.own, device=images.device)
        levels = images.float()
        moved = match_spectrum(levels, levels[order], 1.0).clamp(0, MAX_GREY_LEVEL)
        return Preprocessed(torch.empty_like(images).copy_(moved), {})
