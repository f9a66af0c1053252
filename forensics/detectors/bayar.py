"""Networks on constrained convolutions: Bayar and Stamm's of 2016, and MISLnet.

Source: Bayar and Stamm, "A Deep Learning Approach to Universal Image Manipulation Detection Using a
New Convolutional Layer", IH&MMSec 2016; "Constrained Convolutional Neural Networks: A New Approach
Towards General Purpose Image Manipulation Detection", IEEE TIFS 13(11), 2018.

The papers': layers, kernels, widths and activations, grey images, the constraint and its projection
after each step; borders are cut off, as there. Not verified: the network of 2016, described from
memory, and its dropout. Ours: one output unit, Adam instead of stochastic gradient descent, and a
guard of the projection (`forensics.detectors.front_ends.ConstrainedConvolution`).
"""

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings


@dataclass(kw_only=True)
class _BayarSettings(NetworkSettings):
    """Settings of both networks, in addition to every network's.

    Attributes:
        channels: output channels of the convolutions after the front end.
        dense: number of units of each of the two linear layers.
    """

    channels: list[int]
    dense: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.channels(self.channels, "model.channels")
        checks.at_least(self, "model.", dense=1)


class Bayar(Network):
    """Convolutions and two linear layers, on the front end's output without its border of 2 px."""

    convolutions: nn.Sequential
    dense: nn.Sequential

    def body(self, inputs: Tensor) -> Tensor:
        """Activations of the second linear layer, ``(B, dense)``."""
        features: Tensor = self.dense(self.convolutions(inputs[..., 2:-2, 2:-2]))
        return features

    def saliency_layer(self) -> nn.Module:
        """The last pooling."""
        return self.convolutions


class Bayar2016(Bayar):
    """Twelve constrained filters, two convolutions with max pooling, two linear layers.

    Args:
        image_size: height and width of the images.
        settings: settings of the network.
    """

    def __init__(self, image_size: int, settings: "Bayar2016Settings") -> None:
        super().__init__(settings, filters=12)
        first, second = settings.channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(self.front_end.channels, first, 7, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(first, second, 5),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
        )
        side = (((image_size - 9) // 2 - 1) // 2 - 5) // 2
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * side * side, settings.dense),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(settings.dense, settings.dense),
            nn.ReLU(),
            nn.Dropout(0.5),
        )
        self.score = nn.Linear(settings.dense, 1)


@dataclass(kw_only=True)
class Bayar2016Settings(_BayarSettings):
    """Settings of the network of 2016: two ``channels``."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.require(len(self.channels) == 2, "model.channels", self.channels, "be two numbers")

    def build(self, image_size: int, *, pretrained: bool) -> Bayar2016:
        """Make the network, for images of at least 39 px."""
        checks.image_size(image_size, least=39)
        return Bayar2016(image_size, self)


class MislNet(Bayar):
    """Three constrained filters, four convolutions, two linear layers.

    BatchNorm and tanh follow each convolution, then max pooling, after the last average pooling.

    Args:
        image_size: height and width of the images.
        settings: settings of the network.
    """

    def __init__(self, image_size: int, settings: "MislNetSettings") -> None:
        super().__init__(settings, filters=3)
        channels = [self.front_end.channels, *settings.channels]
        layers: list[nn.Module] = []
        side = image_size - 4
        for (inputs, outputs), (kernel, stride) in zip(
            itertools.pairwise(channels), ((7, 2), (5, 1), (5, 1), (1, 1)), strict=True
        ):
            padding = kernel // 2 if stride == 1 else 0
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding),
                nn.BatchNorm2d(outputs),
                nn.Tanh(),
                nn.MaxPool2d(3, stride=2) if kernel > 1 else nn.AvgPool2d(3, stride=2),
            ]
            side = (side - 7) // 2 + 1 if stride == 2 else side
            side = (side - 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * side * side, settings.dense),
            nn.Tanh(),
            nn.Linear(settings.dense, settings.dense),
            nn.Tanh(),
        )
        self.score = nn.Linear(settings.dense, 1)


@dataclass(kw_only=True)
class MislNetSettings(_BayarSettings):
    """Settings of MISLnet: four ``channels``."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.require(len(self.channels) == 4, "model.channels", self.channels, "be four numbers")

    def build(self, image_size: int, *, pretrained: bool) -> MislNet:
        """Make the network, for images of at least 71 px."""
        checks.image_size(image_size, least=71)
        return MislNet(image_size, self)
