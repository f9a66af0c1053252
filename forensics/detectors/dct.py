"""Linear and convolutional models of an image's discrete cosine transform.

Source: Frank et al., Leveraging frequency analysis for deep fake image recognition (ICML 2020,
arXiv 2003.08685). The paper's: the logarithm of the complete image's DCT, standardised per
coefficient; ridge regression on it, and a network of four convolutions of 3, 8, 16 and 32 channels
with two average poolings. Ours: ridge regression in closed form by a penalty given beforehand,
where the paper searches for one; sizes and paddings of the convolutions, which are Keras' defaults
as far as remembered; the number added to magnitudes, see
`forensics.detectors.front_ends.log_dct`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.base import Detector, Optimization, Step, linear_scores
from forensics.detectors.front_ends import log_dct
from forensics.preprocess.base import Draws

STD_FLOOR = 1e-3
"""Least standard deviation, so that coefficients that hardly vary are not amplified."""

_BLOCK = 8192
"""Coefficients multiplied at once in float64."""


class LogDct(nn.Module):
    """Standardised logarithm of each channel's orthonormal DCT-II.

    Args:
        image_size: height and width of the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, image_size, image_size))
        self.register_buffer("std", torch.ones(3, image_size, image_size))

    def logarithms(self, images: Tensor) -> Tensor:
        """Logarithms of the coefficients' magnitudes, `log_dct`.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255].

        Returns:
            The same shape, float32.
        """
        with torch.autocast(images.device.type, enabled=False):
            # In float64, as GPUs' fast products of float32 would drown small coefficients.
            return log_dct(images.double()).float()

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set mean and standard deviation to those over batches of `logarithms`."""
        total, squares = (torch.zeros_like(self.mean, dtype=torch.float64) for _ in range(2))
        count = 0
        for batch in batches:
            total += batch.double().sum(dim=0)
            squares += batch.double().square().sum(dim=0)
            count += len(batch)
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp(min=STD_FLOOR**2).sqrt())

    def forward(self, images: Tensor) -> Tensor:
        """Transform ``(B, 3, S, S)`` float in [0, 255]; the same shape, float32."""
        return (self.logarithms(images) - self.mean) / self.std


class DctRidge(Detector):
    """Ridge regression of the labels, 1 and -1, fitted in closed form.

    Args:
        image_size: height and width of the images.
        penalty: factor on the squared norm of the weights; the loss is the sum over the images of
            squared errors.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, image_size: int, penalty: float) -> None:
        super().__init__()
        self._penalty = penalty
        self.transform = LogDct(image_size)
        self.register_buffer("weight", torch.zeros(3 * image_size**2))
        self.register_buffer("bias", torch.zeros(()))

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit to the training images.

        There are more coefficients than images as a rule, so the equations are those of the images,
        not of the coefficients. Memory is 12 S^2 bytes an image, twice for a moment, and 8 for each
        pair of images.
        """
        found = [(self.transform.logarithms(images), labels) for images, labels in batches]
        self.transform.fit(logarithms for logarithms, _ in found)
        samples = torch.cat([logarithms for logarithms, _ in found])
        samples = samples.sub_(self.transform.mean).div_(self.transform.std).flatten(1)
        targets = torch.cat([2 * labels.double() - 1 for _, labels in found])
        blocks = samples.chunk(-(-samples.shape[1] // _BLOCK), dim=1)
        products = torch.stack([block.double() @ block.double().T for block in blocks]).sum(dim=0)
        products.diagonal().add_(self._penalty)
        mean = targets.mean()
        solution = torch.linalg.solve(products, targets - mean)
        self.weight.copy_(torch.cat([solution @ block.double() for block in blocks]))
        self.bias.copy_(mean)

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Nothing: `prepare` has fitted everything."""
        return Step(None, None)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255], S = ``image_size``.

        Returns:
            ``(B,)`` float32: predicted labels, 1 for real and -1 for generated.
        """
        with torch.autocast(images.device.type, enabled=False):
            scores: Tensor = self.transform(images).flatten(1) @ self.weight + self.bias
        return scores


class DctNetwork(Detector):
    """Four convolutions 3x3, with average pooling after the second and the third.

    Args:
        image_size: height and width of the images.
        channels: output channels of the convolutions.
        optimization: settings of Adam.
    """

    def __init__(self, image_size: int, channels: list[int], optimization: Optimization) -> None:
        super().__init__(optimization)
        first, second, third, fourth = channels
        self.transform = LogDct(image_size)
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(third, fourth, 3, padding=1),
            nn.ReLU(),
        )
        self.score = nn.Linear(fourth * (image_size // 4) ** 2, 1)

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute mean and standard deviation of each coefficient over the training images."""
        self.transform.fit(self.transform.logarithms(images) for images, _ in batches)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the linear unit, above 0 for real."""
        return linear_scores(self.score, self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """The last convolution's output, ``(B, 32 (S / 4)^2)`` float32."""
        maps: Tensor = self.convolutions(self.transform(images))
        return maps.flatten(1).float()


@dataclass(kw_only=True)
class DctRidgeSettings:
    """Settings of the regression.

    Attributes:
        penalty: factor on the squared norm of the weights, above 0.
    """

    penalty: float

    def __post_init__(self) -> None:
        """Refuse a penalty out of range."""
        checks.at_least(self, "model.", penalty=0)
        checks.require(self.penalty > 0, "model.penalty", self.penalty, "be above 0")

    def build(self, image_size: int, *, pretrained: bool) -> DctRidge:
        """Make the model."""
        return DctRidge(image_size, self.penalty)


@dataclass(kw_only=True)
class DctNetworkSettings(Optimization):
    """Settings of the network, beside those of Adam.

    Attributes:
        channels: output channels of the four convolutions.
    """

    channels: list[int]

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.channels(self.channels, "model.channels")
        checks.require(len(self.channels) == 4, "model.channels", self.channels, "be four numbers")

    def build(self, image_size: int, *, pretrained: bool) -> DctNetwork:
        """Make the network, for images of at least 4 px."""
        checks.image_size(image_size, least=4)
        return DctNetwork(image_size, self.channels, self)
