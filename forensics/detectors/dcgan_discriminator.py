"""The paper's detector: the discriminator of DCGAN with a final linear unit."""

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings


class DcganDiscriminator(Network):
    """Convolutions 4x4 of stride 2, each halving the image, then one linear unit.

    BatchNorm follows every convolution but the first; activations are leaky ReLUs. Initial weights
    are DCGAN's: N(0, 0.02) for convolutions and the linear unit, N(1, 0.02) for BatchNorm's scale.

    Args:
        image_size: height and width of the images, a multiple of 2 to the number of convolutions.
        settings: settings of the network; the paper's input is ``rgb``.

    Source: arXiv 1902.11153, section 3; arXiv 1511.06434, section 3, for slope and weights.
    """

    def __init__(self, image_size: int, settings: "DcganDiscriminatorSettings") -> None:
        super().__init__(settings)
        channels = [self.front_end.channels, *settings.channels]
        layers: list[nn.Module] = []
        for position, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            first = position == 0
            # BatchNorm has a bias, so a convolution before it needs none.
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=first))
            if not first:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(settings.leaky_relu_slope, inplace=True))
        self.convolutions = nn.Sequential(*layers)
        side = image_size // 2 ** len(settings.channels)
        self.score = nn.Linear(channels[-1] * side * side, 1)
        self.convolutions.apply(_dcgan_weights)
        self.score.apply(_dcgan_weights)

    def body(self, inputs: Tensor) -> Tensor:
        """Maps of the last convolution, activated, ``(B, C, h, w)``."""
        maps: Tensor = self.convolutions(inputs)
        return maps

    def saliency_layer(self) -> nn.Module:
        """The last convolution, activated."""
        return self.convolutions


def _dcgan_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


@dataclass(kw_only=True)
class DcganDiscriminatorSettings(NetworkSettings):
    """Settings of the paper's detector, in addition to every network's.

    Attributes:
        channels: output channels of the convolutions, first to last.
        leaky_relu_slope: slope of the activations below 0, in [0, 1).
    """

    channels: list[int]
    leaky_relu_slope: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.channels(self.channels, "model.channels")
        slope = self.leaky_relu_slope
        checks.require(0 <= slope < 1, "model.leaky_relu_slope", slope, "be in [0, 1)")

    def build(self, image_size: int, *, pretrained: bool) -> DcganDiscriminator:
        """Make the network, for images that can be halved once per convolution."""
        multiple = 2 ** len(self.channels)
        halved = (
            f"be a multiple of {multiple} for {len(self.channels)} convolutions (model.channels)"
        )
        checks.require(image_size % multiple == 0, "dataset.image_size", image_size, halved)
        return DcganDiscriminator(image_size, self)
