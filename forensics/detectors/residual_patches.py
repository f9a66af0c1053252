"""A small network that judges neighbourhoods of a residual, and their statistics the image."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings


class ResidualPatches(Network):
    """Convolutions 3x3 on a front end, pooled to each channel's mean and standard deviation.

    Every other convolution, from the first on, has stride 2; BatchNorm and a ReLU follow each. A
    linear unit scores the pooled statistics. So a score depends on what an image's neighbourhoods
    look like, not on where they are, and images of any size, at least 2 px, can be scored. The four
    convolutions of ``conf/model/residual_patches.yaml`` see 19 px, ``npr`` adds 1 to that, ``lpd``
    and ``laplacian`` add 2.

    Args:
        settings: settings of the network.

    Source: of no paper; that few layers on a residual suffice is from NPR (arXiv 2312.10461) and
    FerretNet (arXiv 2509.20890).
    """

    any_size = True

    def __init__(self, settings: "ResidualPatchesSettings") -> None:
        super().__init__(settings)
        channels = [self.front_end.channels, *settings.channels]
        layers: list[nn.Module] = []
        for position, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            stride = 2 if position % 2 == 0 else 1
            layers += [
                # BatchNorm brings its own bias.
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.score = nn.Linear(2 * channels[-1], 1)

    def body(self, inputs: Tensor) -> Tensor:
        """Means, then standard deviations, of the last maps over all places.

        Returns:
            ``(B, 2 C)`` float32, C the last of ``channels``.
        """
        maps: Tensor = self.convolutions(inputs)
        variance, mean = torch.var_mean(maps.float(), dim=(2, 3), correction=0)
        # The gradient of a root is infinite at 0, and a channel may be 0 everywhere.
        return torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)

    def saliency_layer(self) -> nn.Module:
        """The last convolution, activated."""
        return self.convolutions


@dataclass(kw_only=True)
class ResidualPatchesSettings(NetworkSettings):
    """Settings of the network, in addition to every network's.

    Attributes:
        channels: output channels of the convolutions, first to last.
    """

    channels: list[int]

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.channels(self.channels, "model.channels")

    def build(self, image_size: int, *, pretrained: bool) -> ResidualPatches:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return ResidualPatches(self)
