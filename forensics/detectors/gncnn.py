"""The Gaussian-neuron network of steganalysis.

Source: Qian, Dong, Wang and Tan, "Deep learning for steganalysis via convolutional neural
networks", SPIE Media Watermarking, Security, and Forensics 2015; reference [16] of arXiv
1902.11153.

The paper's: the KV filter, the layers, their kernels and widths, the Gaussian activation. Ours: its
width of 1, as we could not verify the paper's; colour instead of grey; one output unit; Adam; and
padding below 159 px, where nothing would be left of the image without it. At 128 px the last maps
then have 4x4 pixels, as at 256 px in the paper.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings

KERNELS = (5, 3, 3, 3, 5)


class Gncnn(Network):
    """Five convolutions with Gaussian activations and average pooling, then two linear layers.

    Args:
        image_size: height and width of the images.
        settings: settings of the network.
    """

    def __init__(self, image_size: int, settings: "GncnnSettings") -> None:
        super().__init__(settings)
        padded = _side(image_size, padded=False) < 1
        channels = [self.front_end.channels, *[settings.channels] * len(KERNELS)]
        layers: list[nn.Module] = []
        for (inputs, outputs), kernel in zip(itertools.pairwise(channels), KERNELS, strict=True):
            layers += [
                nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 if padded else 0),
                Gaussian(),
                nn.AvgPool2d(3, stride=2, padding=int(padded), count_include_pad=False),
            ]
        self.convolutions = nn.Sequential(*layers)
        side = _side(image_size, padded=padded)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(settings.channels * side * side, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
        )
        self.score = nn.Linear(128, 1)

    def body(self, inputs: Tensor) -> Tensor:
        """Activations of the second linear layer, ``(B, 128)``."""
        features: Tensor = self.dense(self.convolutions(inputs))
        return features

    def saliency_layer(self) -> nn.Module:
        """The last pooling."""
        return self.convolutions


class Gaussian(nn.Module):
    """The activation exp(-x²)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Activate maps of any shape."""
        return torch.exp(-maps.square())


def _side(image_size: int, *, padded: bool) -> int:
    """Height and width of the last maps; below 1 if there are none."""
    for kernel in KERNELS:
        image_size = -(-image_size // 2) if padded else (image_size - kernel) // 2
    return image_size


@dataclass(kw_only=True)
class GncnnSettings(NetworkSettings):
    """Settings of the network, in addition to every network's.

    Attributes:
        channels: output channels of each convolution.
    """

    channels: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.at_least(self, "model.", channels=1)

    def build(self, image_size: int, *, pretrained: bool) -> Gncnn:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return Gncnn(image_size, self)
