"""ShallowNet, versions 1 and 3.

Source: Tariq, Lee, Kim, Shin and Woo, "Detecting Both Machine and Human Created Fake Face Images In
the Wild", MPS 2018. The paper's layers were read in Keras code of others, under these names.

From there: layers and their widths (version 1's linear layer has as many units as inputs at 128 px,
the size it was made for), the L2 penalty of convolutions, dropout, and version 3's optimizer. Ours:
one output unit with cross-entropy in both, and version 1's learning rate and the ReLU of its linear
layer, which we did not find stated. Version 2 is left out: 203 million parameters at 128 px.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings

DROPOUT = 0.25


@dataclass(kw_only=True)
class _ShallowNetSettings(NetworkSettings):
    """Settings of both versions, in addition to every network's.

    Attributes:
        channels: output channels of the convolutions; see the versions.
        dense: number of units of the linear layer.
        weight_decay: of convolutions alone; half of it is Keras's factor of the L2 penalty.
    """

    channels: list[int]
    dense: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.channels(self.channels, "model.channels")
        checks.at_least(self, "model.", dense=1)


class ShallowNet(Network):
    """Convolutions and a linear layer.

    Args:
        settings: settings of the network.
    """

    convolutions: nn.Sequential
    dense: nn.Sequential

    def body(self, inputs: Tensor) -> Tensor:
        """Activations of the linear layer, ``(B, dense)``."""
        features: Tensor = self.dense(self.convolutions(inputs).flatten(1))
        return features

    def saliency_layer(self) -> nn.Module:
        """The convolutions."""
        return self.convolutions

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Adam, with the L2 penalty on weights of convolutions alone."""
        adam = super().optimizer()
        if adam is not None:
            (group,) = adam.param_groups
            kernels = [weights for weights in group["params"] if weights.ndim == 4]
            others = [weights for weights in group["params"] if weights.ndim != 4]
            group["params"] = kernels
            adam.add_param_group({"params": others, "weight_decay": 0.0})
        return adam


class ShallowNetV1(ShallowNet):
    """Blocks of three convolutions 3x3 and a max pooling of stride 2, two convolutions more.

    BatchNorm and a ReLU follow each convolution.

    Args:
        image_size: height and width of the images.
        settings: settings of the network.
    """

    def __init__(self, image_size: int, settings: "ShallowNetV1Settings") -> None:
        super().__init__(settings)
        channels = [self.front_end.channels, *settings.channels]
        *blocks, last = itertools.pairwise(channels)
        layers: list[nn.Module] = []
        side = image_size
        for inputs, outputs in blocks:
            layers += _normalised(inputs, outputs, 3)
            layers += _normalised(outputs, outputs, 3)
            layers += _normalised(outputs, outputs, 3)
            layers += [nn.MaxPool2d(3, stride=2), nn.Dropout(DROPOUT)]
            side = (side - 1) // 2
        layers += [*_normalised(*last, 3), *_normalised(last[1], last[1], 1)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Linear(last[1] * side * side, settings.dense),
            nn.ReLU(),
            nn.BatchNorm1d(settings.dense),
        )
        self.score = nn.Linear(settings.dense, 1)


def _normalised(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
    ]


@dataclass(kw_only=True)
class ShallowNetV1Settings(_ShallowNetSettings):
    """Settings of version 1: ``channels`` are those of the blocks, then of the last two layers."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.require(len(self.channels) >= 2, "model.channels", self.channels,
                       "be at least two numbers")  # fmt: skip

    def build(self, image_size: int, *, pretrained: bool) -> ShallowNetV1:
        """Make the network, for images of which something is left after the last block."""
        least = 2 ** len(self.channels) - 1
        range_ = f"be at least {least} for {len(self.channels) - 1} blocks (model.channels)"
        checks.require(image_size >= least, "dataset.image_size", image_size, range_)
        return ShallowNetV1(image_size, self)


class ShallowNetV3(ShallowNet):
    """Three convolutions, of 5x5, 3x3 and 3x3 pixels, with convolutions 1x1 after each.

    A ReLU follows each convolution; the images shrink by its borders.

    Args:
        image_size: height and width of the images.
        settings: settings of the network.
    """

    def __init__(self, image_size: int, settings: "ShallowNetV3Settings") -> None:
        super().__init__(settings)
        first, second, third, last = settings.channels
        self.convolutions = nn.Sequential(
            *_valid(self.front_end.channels, first, 5),
            *_valid(first, first, 1),
            *_valid(first, first, 1),
            nn.MaxPool2d(2),
            nn.Dropout(DROPOUT),
            *_valid(first, second, 3),
            *_valid(second, second, 1),
            *_valid(second, second, 1),
            nn.MaxPool2d(2),
            nn.Dropout(DROPOUT),
            *_valid(second, third, 3),
            *_valid(third, last, 1),
        )
        side = ((image_size - 4) // 2 - 2) // 2 - 2
        self.dense = nn.Sequential(
            nn.Linear(last * side * side, settings.dense),
            nn.ReLU(),
            nn.BatchNorm1d(settings.dense),
            nn.Dropout(DROPOUT),
        )
        self.score = nn.Linear(settings.dense, 1)


def _valid(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel), nn.ReLU(), nn.Dropout(DROPOUT)]


@dataclass(kw_only=True)
class ShallowNetV3Settings(_ShallowNetSettings):
    """Settings of version 3: ``channels`` are those of the three convolutions, then the last."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.require(len(self.channels) == 4, "model.channels", self.channels, "be four numbers")

    def build(self, image_size: int, *, pretrained: bool) -> ShallowNetV3:
        """Make the network, for images of at least 20 px."""
        checks.image_size(image_size, least=20)
        return ShallowNetV3(image_size, self)
