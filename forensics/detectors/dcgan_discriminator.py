"""The paper's detector: the discriminator of DCGAN with one linear unit at its end."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics.errors import UserError


class Detector(nn.Module):
    """Convolutions 4x4 of stride 2, each halving the image, then one linear unit.

    BatchNorm follows every convolution but the first; activations are leaky ReLUs. Weights start
    as DCGAN's: N(0, 0.02) for convolutions and the linear unit, N(1, 0.02) for BatchNorm's scale.

    Args:
        image_size: height and width of the images, a multiple of 2 to the number of convolutions.
        channels: the convolutions' output channels, first to last.
        leaky_relu_slope: slope of the activations below 0.

    Source: arXiv 1902.11153, section 3; arXiv 1511.06434, section 3, for slope and weights.
    """

    def __init__(self, image_size: int, channels: list[int], leaky_relu_slope: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for position, (inputs, outputs) in enumerate(itertools.pairwise([3, *channels])):
            first = position == 0
            # BatchNorm brings its own bias, so a convolution before one has none.
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=first))
            if not first:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(leaky_relu_slope, inplace=True))
        self.features = nn.Sequential(*layers)
        side = image_size // 2 ** len(channels)
        self.score = nn.Linear(channels[-1] * side * side, 1)
        self.apply(_dcgan_weights)

    @property
    def last_feature_layer(self) -> nn.Module:
        """What gives the last feature maps, ``(B, C, h, w)``: the last convolution, activated."""
        return self.features

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, H, W)`` float in [-1, 1], H = W = ``image_size``.

        Returns:
            ``(B,)`` float32 logits; above 0 means real.
        """
        features = self.features(images).flatten(1)
        # In float32 also under autocast: with bfloat16's 8 bits many images would share a score.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.score(features.float())
        return logits.squeeze(1)


def _dcgan_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


@dataclass
class DcganDiscriminator:
    """Settings of the paper's detector.

    Attributes:
        channels: output channels of the convolutions, first to last.
        leaky_relu_slope: slope of the activations below 0, in [0, 1).
    """

    channels: list[int]
    leaky_relu_slope: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if not self.channels or min(self.channels) < 1:
            raise UserError(
                f"model.channels must be a list of numbers >= 1, such as [64,128,256,512], "
                f"not {list(self.channels)}."
            )
        if not 0 <= self.leaky_relu_slope < 1:
            raise UserError(
                f"model.leaky_relu_slope must lie in [0, 1), not {self.leaky_relu_slope}."
            )

    def build(self, image_size: int) -> nn.Module:
        """Make the network, with fresh weights from torch's global generator.

        Args:
            image_size: height and width of the images in pixels.

        Raises:
            UserError: if the convolutions cannot halve ``image_size`` that often.
        """
        if image_size % 2 ** len(self.channels):
            raise UserError(
                f"dataset.image_size must be a multiple of {2 ** len(self.channels)} for a "
                f"detector of {len(self.channels)} convolutions (model.channels), "
                f"not {image_size}."
            )
        return Detector(image_size, self.channels, self.leaky_relu_slope)
