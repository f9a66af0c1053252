"""MesoNet's two networks, Meso-4 and MesoInception-4.

Source: Afchar, Nozick, Yamagishi and Echizen, "MesoNet: a Compact Facial Video Forgery Detection
Network", WIFS 2018, and its authors' published code.

The paper's: layers, their order (activation before BatchNorm), dropout, the mean squared error of
the probability, Adam with a learning rate of 0.001. Ours: pixel values in [-1, 1] instead of
[0, 1], images of any size (the paper's are of 256 px), and a constant learning rate, where the
paper divides it by ten every 1,000 steps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from forensics import checks
from forensics.detectors.base import Step
from forensics.detectors.network import Network, NetworkSettings
from forensics.preprocess.base import Draws


class Meso(Network):
    """Four blocks of convolution, ReLU, BatchNorm and max pooling, then two linear units.

    Args:
        image_size: height and width of the images.
        settings: settings of the network.
        inception: whether the first two blocks are `Inception`s, as in MesoInception-4.
    """

    def __init__(self, image_size: int, settings: NetworkSettings, *, inception: bool) -> None:
        super().__init__(settings)
        inputs = self.front_end.channels
        if inception:
            first = [Inception(inputs, 1, 4, 4, 2), *_normalised(11, 2)]
            second = [Inception(11, 2, 4, 4, 2), *_normalised(12, 2)]
        else:
            first = [*_convolution(inputs, 8, 3), *_normalised(8, 2)]
            second = [*_convolution(8, 8, 5), *_normalised(8, 2)]
        self.convolutions = nn.Sequential(
            *first,
            *second,
            *_convolution(12 if inception else 8, 16, 5),
            *_normalised(16, 2),
            *_convolution(16, 16, 5),
            *_normalised(16, 4),
        )
        side = -(-image_size // 32)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(16 * side * side, 16),
            nn.LeakyReLU(0.1),
            nn.Dropout(0.5),
        )
        self.score = nn.Linear(16, 1)

    def body(self, inputs: Tensor) -> Tensor:
        """Activations of the first linear layer, ``(B, 16)``."""
        features: Tensor = self.dense(self.convolutions(inputs))
        return features

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Mean squared error of the probability of real."""
        scores = self(images)
        return Step(mse_loss(scores.sigmoid(), labels), scores)

    @property
    def is_probabilistic(self) -> bool:
        """True: the mean squared error, like cross-entropy, is least at the true probability."""
        return True

    def saliency_layer(self) -> nn.Module:
        """The last block."""
        return self.convolutions


class Inception(nn.Module):
    """Four branches of convolutions, concatenated; a ReLU after each convolution.

    A convolution 1x1 alone, then three followed by a convolution 3x3 of dilation 1, 2 and 3.

    Args:
        inputs: number of input channels.
        alone: output channels of the first branch.
        others: output channels of each other branch.
    """

    def __init__(self, inputs: int, alone: int, *others: int) -> None:
        super().__init__()
        branches = [nn.Sequential(*_convolution(inputs, alone, 1))]
        for dilation, outputs in enumerate(others, start=1):
            layers = [
                *_convolution(inputs, outputs, 1),
                *_convolution(outputs, outputs, 3, dilation),
            ]
            branches.append(nn.Sequential(*layers))
        self.branches = nn.ModuleList(branches)

    def forward(self, maps: Tensor) -> Tensor:
        """Concatenate the branches' maps, of the same height and width."""
        return torch.cat([branch(maps) for branch in self.branches], dim=1)


def _convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
    return [convolution, nn.ReLU()]


def _normalised(channels: int, pool: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.MaxPool2d(pool, ceil_mode=True)]


@dataclass(kw_only=True)
class Meso4Settings(NetworkSettings):
    """Settings of Meso-4: every network's alone."""

    def build(self, image_size: int, *, pretrained: bool) -> Meso:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return Meso(image_size, self, inception=False)


@dataclass(kw_only=True)
class MesoInception4Settings(NetworkSettings):
    """Settings of MesoInception-4: every network's alone."""

    def build(self, image_size: int, *, pretrained: bool) -> Meso:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return Meso(image_size, self, inception=True)
