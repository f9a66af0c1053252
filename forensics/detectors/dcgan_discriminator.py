"""The paper's detector: the discriminator of DCGAN with a final linear unit."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.base import Detector, Optimization
from forensics.detectors.front_ends import FRONT_ENDS, FrontEnd


class DcganDiscriminator(Detector):
    """Convolutions 4x4 of stride 2, each halving the image, then one linear unit.

    BatchNorm follows every convolution but the first; activations are leaky ReLUs. Initial weights
    are DCGAN's: N(0, 0.02) for convolutions and the linear unit, N(1, 0.02) for BatchNorm's scale.

    Args:
        image_size: height and width of the images, a multiple of 2 to the number of convolutions.
        channels: the convolutions' output channels, first to last.
        leaky_relu_slope: slope of the activations below 0.
        front_end: input of the first convolution; ``none`` in the paper.
        optimization: settings of Adam.

    Source: arXiv 1902.11153, section 3; arXiv 1511.06434, section 3, for slope and weights.
    """

    def __init__(
        self,
        image_size: int,
        channels: list[int],
        leaky_relu_slope: float,
        front_end: FrontEnd,
        optimization: Optimization,
    ) -> None:
        super().__init__(optimization)
        self._front_end = FRONT_ENDS[front_end]
        layers: list[nn.Module] = []
        for position, (inputs, outputs) in enumerate(itertools.pairwise([3, *channels])):
            first = position == 0
            # BatchNorm has a bias, so a convolution before it needs none.
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=first))
            if not first:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(leaky_relu_slope, inplace=True))
        self.convolutions = nn.Sequential(*layers)
        side = image_size // 2 ** len(channels)
        self.score = nn.Linear(channels[-1] * side * side, 1)
        self.apply(_dcgan_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255], S = ``image_size``.

        Returns:
            ``(B,)`` float32 logits, above 0 for real.
        """
        features = self.features(images).flatten(1)
        # In float32 even under autocast: with bfloat16's 8 bits, scores of many images would tie.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.score(features.float())
        return logits.squeeze(1)

    def features(self, images: Tensor) -> Tensor:
        """Maps of the last convolution, activated, ``(B, C, h, w)``."""
        maps: Tensor = self.convolutions(self._front_end(images))
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
class DcganDiscriminatorSettings(Optimization):
    """Settings of the paper's detector, in addition to Adam's.

    Attributes:
        channels: output channels of the convolutions, first to last.
        leaky_relu_slope: slope of the activations below 0, in [0, 1).
        front_end: input of the first convolution; ``none`` in older files without the setting.
    """

    channels: list[int]
    leaky_relu_slope: float
    front_end: FrontEnd = FrontEnd.none

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        self.front_end = FrontEnd(self.front_end)  # plain text in a detector file
        checks.channels(self.channels, "model.channels")
        slope = self.leaky_relu_slope
        checks.require(0 <= slope < 1, "model.leaky_relu_slope", slope, "be in [0, 1)")

    def build(self, image_size: int, *, pretrained: bool) -> DcganDiscriminator:
        """Make the network, with fresh weights from torch's global generator.

        Args:
            image_size: height and width of the images in pixels.
            pretrained: no effect; there are no pretrained weights.

        Raises:
            UserError: if ``image_size`` cannot be halved once per convolution.
        """
        multiple = 2 ** len(self.channels)
        halved = (
            f"be a multiple of {multiple} for {len(self.channels)} convolutions (model.channels)"
        )
        checks.require(image_size % multiple == 0, "dataset.image_size", image_size, halved)
        return DcganDiscriminator(
            image_size, self.channels, self.leaky_relu_slope, self.front_end, self
        )
