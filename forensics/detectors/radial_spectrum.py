"""A logistic model of the radial spectrum: a baseline that uses only the power per frequency."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.base import Detector, Optimization

STD_FLOOR = 0.01
"""Least standard deviation in decades, so that frequencies of little variance are not amplified."""


class RadialSpectrum(Detector):
    """A linear unit on the mean log power at each spatial frequency, standardised.

    Its only evidence is the power at each frequency, not content or spatial patterns. A detector
    has to outperform it to show that it uses more.

    Args:
        image_size: height and width of the images.
        optimization: settings of Adam.

    Source: after Durall, Keuper, Pfreundt and Keuper (arXiv 1911.00686).
    """

    mean: Tensor
    std: Tensor
    rings: Tensor
    window: Tensor

    def __init__(self, image_size: int, optimization: Optimization) -> None:
        super().__init__(optimization)
        frequencies = image_size // 2 + 1
        axis = torch.fft.fftfreq(image_size, 1 / image_size)
        radii = torch.hypot(axis[:, None], axis).round().flatten()
        rings = (radii[:, None] == torch.arange(frequencies)).float()
        self.register_buffer("rings", rings / rings.sum(dim=0), persistent=False)
        window = torch.hann_window(image_size, periodic=False)
        self.register_buffer("window", window[:, None] * window, persistent=False)
        self.register_buffer("mean", torch.zeros(frequencies))
        self.register_buffer("std", torch.ones(frequencies))
        self.score = nn.Linear(frequencies, 1)

    def profiles(self, images: Tensor) -> Tensor:
        """Mean log10 power at distances of 0 to S / 2 from frequency 0.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255]; a Hann window is applied to grey values.

        Returns:
            ``(B, S // 2 + 1)`` float32.
        """
        grey = images.float().mean(dim=1)
        grey = (grey - grey.mean(dim=(1, 2), keepdim=True)) * self.window
        power = torch.fft.fft2(grey).abs().square()
        profiles: Tensor = (power + 1e-3).log10().flatten(1) @ self.rings
        return profiles

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute mean and standard deviation over the training images."""
        found = torch.cat([self.profiles(images) for images, _ in batches])
        self.mean.copy_(found.mean(dim=0))
        self.std.copy_(found.std(dim=0).clamp(min=STD_FLOOR))

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255], S = ``image_size``.

        Returns:
            ``(B,)`` float32 logits, above 0 for real.
        """
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.score(self.features(images))
        return logits.squeeze(1)

    def features(self, images: Tensor) -> Tensor:
        """Standardised profiles, ``(B, S // 2 + 1)``."""
        return (self.profiles(images) - self.mean) / self.std


@dataclass(kw_only=True)
class RadialSpectrumSettings(Optimization):
    """Settings of Adam alone."""

    def build(self, image_size: int, *, pretrained: bool) -> RadialSpectrum:
        """Make the model, for images of at least 4 px."""
        checks.image_size(image_size, least=4)
        return RadialSpectrum(image_size, self)
