"""Gram-Net: a ResNet-18 and the Gram matrices of its maps, which describe texture.

Source: Liu, Qi and Torr, "Global texture enhancement for fake face detection in the wild", CVPR
2020, arXiv 2002.00133.

Theirs: the six places of the branches, layers, channels, the Gram matrices' scale, dropout. Ours:
one logit; input in [-1, 1]; not their enlargement of each image to 512 px; without a learnt factor
on the branches, which the linear layer after it contains; random first weights, where theirs are
ImageNet's.

Read: the authors' public code (no licence); none was copied. Blocks are torchvision's (BSD-3).
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings
from forensics.detectors.truncated_resnet import first_layers, resnet_weights, stage

BLOCKS = 2
"""Basic blocks of each stage of ResNet-18."""


class GramNet(Network):
    """ResNet-18 with a `GramBranch` at its input and after each part but the last stage.

    The branches and the means of the last maps are the inputs of a linear layer with ReLU, whose
    outputs are the features.

    Args:
        settings: settings of the network.
    """

    def __init__(self, settings: "GramNetSettings") -> None:
        super().__init__(settings)
        width = settings.width
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.parts = nn.ModuleList(
            [
                nn.Sequential(*first_layers(self.front_end.channels, width, kernel=7)),
                nn.MaxPool2d(3, stride=2, padding=1),
                stage(width, width, BLOCKS, stride=1, bottleneck=False),
                *(
                    stage(inputs, outputs, BLOCKS, stride=2, bottleneck=False)
                    for inputs, outputs in itertools.pairwise(widths)
                ),
            ]
        )
        channels = [self.front_end.channels, width, width, *widths[:-1]]
        self.branches = nn.ModuleList(GramBranch(inputs, width // 2) for inputs in channels)
        self.hidden = nn.Sequential(
            nn.Linear(8 * width + len(channels) * (width // 2), 8 * width),
            nn.ReLU(inplace=True),
            nn.Dropout(settings.dropout),
        )
        self.score = nn.Linear(8 * width, 1)
        self.apply(resnet_weights)

    def body(self, inputs: Tensor) -> Tensor:
        """The outputs of the linear layer, after dropout in training, ``(B, 8 width)``."""
        maps, textures = inputs, []
        for part, branch in zip(self.parts, self.branches, strict=True):
            textures.append(branch(maps))
            maps = part(maps)
        features: Tensor = self.hidden(torch.cat([maps.mean(dim=(2, 3)), *textures], dim=1))
        return features

    def saliency_layer(self) -> nn.Module:
        """The last stage."""
        return self.parts[-1]


class GramBranch(nn.Module):
    """The Gram matrix of convolved maps, as an image of its own, convolved twice and averaged.

    Args:
        inputs: number of input channels.
        channels: number of the Gram matrix's rows and of output features.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]

        self.maps = nn.Sequential(*convolution(inputs, channels, stride=1))
        self.layers = nn.Sequential(
            *convolution(1, channels // 2, stride=2),
            *convolution(channels // 2, channels, stride=2),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, channels)``."""
        texture: Tensor = self.layers(gram_matrices(self.maps(maps))[:, None])
        return texture.mean(dim=(2, 3))


def gram_matrices(maps: Tensor) -> Tensor:
    """Products of every two channels, summed over all places and divided by C h w.

    Args:
        maps: ``(B, C, h, w)``.

    Returns:
        ``(B, C, C)`` float32.
    """
    with torch.autocast(maps.device.type, enabled=False):
        rows = maps.float().flatten(2)
        return rows @ rows.mT / rows[0].numel()


@dataclass(kw_only=True)
class GramNetSettings(NetworkSettings):
    """Settings of Gram-Net, in addition to every network's.

    Attributes:
        width: channels of the first convolution, a multiple of 4; others are in proportion, also
            those of the branches. 64 in the paper.
        dropout: share of features set to 0 in training, in [0, 1).
    """

    width: int
    dropout: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        fits = self.width >= 4 and self.width % 4 == 0
        checks.require(fits, "model.width", self.width, "be a multiple of 4")
        checks.require(0 <= self.dropout < 1, "model.dropout", self.dropout, "be in [0, 1)")

    def build(self, image_size: int, *, pretrained: bool) -> GramNet:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return GramNet(self)
