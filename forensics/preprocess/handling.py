"""Handling of training batches, real and generated images alike, on their device.

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
from forensics.preprocess.base import Draws, Preprocess, Preprocessed
from forensics.preprocess.degradations import (
    MAX_GREY_LEVEL,
    gaussian_blur,
    gaussian_noise,
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


def _up_to(maximum: float) -> Sample:
    """Draw uniformly from 0 to a maximum."""

    def sample(count: int, generator: torch.Generator) -> Tensor:
        return maximum * torch.rand(count, generator=generator, device=generator.device)

    return sample


def _draw(sample: Sample, count: int, per: Per, draws: Draws) -> Tensor:
    """Draw one strength for the batch or one for each image; ``(B,)`` on the CPU."""
    if per is Per.batch:
        return sample(1, draws.shared).expand(count)
    return sample(count, draws.own).cpu()


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
        stds = _draw(_up_to(self.max_std_grey_levels), len(images), self.per, draws)
        one = self.per is Per.batch
        std = float(stds[0]) if one else stds.to(images.device).view(-1, 1, 1, 1)
        return Preprocessed(gaussian_noise(images, std, draws.own), {"std_grey_levels": stds})


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
        self._blur = Blur(self.kernel_sizes, self.per)
        self._noise = Noise(self.max_std_grey_levels, self.per)

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Blur ``images``, ``(B, C, H, W)`` float in [0, 255], and add noise."""
        blurred, sizes = self._blur(images, draws)
        noisy, stds = self._noise(blurred, draws)
        return Preprocessed(noisy, sizes | stds)


@dataclass
class Resize:
    """Downscaling by a drawn scale, and as large as before; a part of `Handling`.

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


UNTOUCHED = {"kernel_size": 1.0, "scale": 1.0, "std_grey_levels": 0.0, "jpeg_quality": 100.0}
"""Strengths that `Handling` gives where it leaves out a step."""


@dataclass
class Handling:
    """Blur, downscaling, noise, JPEG, each done to a share of the images; not in the paper.

    In the order in which it happens to a photograph on the net: a lens or an editor blurs it, a
    site makes it smaller, noise comes in, and it is saved.

    Attributes:
        kernel_sizes: as in `Blur`.
        scales: as in `Resize`.
        max_std_grey_levels: as in `Noise`.
        min_quality: as in `Jpeg`.
        max_quality: as in `Jpeg`.
        share: the chance of each of the four steps to be done, independently, in [0, 1].
        per: draw what is done, and the strengths, once per batch or per image.
    """

    kernel_sizes: list[int]
    scales: list[float]
    max_std_grey_levels: float
    min_quality: int
    max_quality: int
    share: float
    per: Per

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.require(0 <= self.share <= 1, "preprocess.share", self.share, "be in [0, 1]")
        self._steps: tuple[Preprocess, ...] = (
            Blur(self.kernel_sizes, self.per),
            Resize(self.scales, self.per),
            Noise(self.max_std_grey_levels, self.per),
            Jpeg(self.min_quality, self.max_quality, self.per),
        )

    def __call__(self, images: Tensor, draws: Draws) -> Preprocessed:
        """Handle ``images``, ``(B, 3, H, W)`` float in [0, 255].

        A step left out has the strength 1 (kernel size, scale), 0 (noise) or 100 (JPEG quality).
        """
        count = len(images)
        handled = images.clone()
        strengths = {name: torch.full((count,), value) for name, value in UNTOUCHED.items()}
        for step in self._steps:
            chosen = _draw(_up_to(1.0), count, self.per, draws) < self.share
            if chosen.any():
                handled[chosen], drawn = step(handled[chosen], draws)
                for name, values in drawn.items():
                    strengths[name][chosen] = values
        return Preprocessed(handled, strengths)
