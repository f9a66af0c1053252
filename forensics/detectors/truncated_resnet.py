"""NPR and SAFE: a ResNet-50 cut after its second stage, on a residual.

NPR: Tan et al., "Rethinking the up-sampling operations in CNN-based generative network for
generalizable deepfake detection", CVPR 2024, arXiv 2312.10461. SAFE: Li et al., "Improving
synthetic image detection towards generalization: an image transformation perspective", KDD 2025,
arXiv 2408.06741. Their networks are the same, with another front end.

Theirs: layers, channels, front ends, initial weights. Ours: one logit where SAFE has two under a
softmax, which is the same function; the front ends' unit; neither crops nor flips nor masks images,
which are the preprocess's; the constant learning rate.

Read: both papers' public code, NPR's without a licence, SAFE's under Apache-2; none was copied.
Blocks are torchvision's (BSD-3).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings

BLOCKS = (3, 4)
"""Bottleneck blocks of ResNet-50's first two stages."""


class TruncatedResnet(Network):
    """A convolution 3x3 and a max pooling, each of stride 2, then two stages of bottleneck blocks.

    The last maps, of an eighth of the image's height and width (rounded up), are averaged.

    Args:
        settings: settings of the network.
    """

    def __init__(self, settings: "NprSettings") -> None:
        super().__init__(settings)
        width = settings.width
        self.layers = nn.Sequential(
            *first_layers(self.front_end.channels, width, kernel=3),
            nn.MaxPool2d(3, stride=2, padding=1),
            stage(width, width, BLOCKS[0], stride=1, bottleneck=True),
            stage(4 * width, 2 * width, BLOCKS[1], stride=2, bottleneck=True),
        )
        self.score = nn.Linear(8 * width, 1)
        self.apply(resnet_weights)

    def body(self, inputs: Tensor) -> Tensor:
        """The means of the last maps, ``(B, 8 width)``."""
        maps: Tensor = self.layers(inputs)
        return maps.mean(dim=(2, 3))

    def saliency_layer(self) -> nn.Module:
        """The last block."""
        return self.layers


def first_layers(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A ResNet's first convolution, of stride 2, with BatchNorm and ReLU.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: height and width of the filters, odd.
    """
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def stage(inputs: int, width: int, blocks: int, *, stride: int, bottleneck: bool) -> nn.Sequential:
    """A stage of residual blocks.

    Args:
        inputs: number of input channels.
        width: number of channels of the 3x3 convolutions.
        blocks: number of blocks.
        stride: stride of the first block.
        bottleneck: bottleneck blocks, with 4 ``width`` output channels, as in ResNet-50; or basic
            ones, with ``width`` output channels, as in ResNet-18.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck  # a slow import

    block = Bottleneck if bottleneck else BasicBlock
    outputs = width * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    first = block(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, width) for _ in range(blocks - 1)))


def resnet_weights(module: nn.Module) -> None:
    """Give a convolution the initial weights of ResNets, He's by the number of outputs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@dataclass(kw_only=True)
class NprSettings(NetworkSettings):
    """Settings of NPR's network, in addition to every network's.

    Attributes:
        width: channels of the first convolution, others are in proportion; 64 in the paper.
    """

    width: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.at_least(self, "model.", width=1)

    def build(self, image_size: int, *, pretrained: bool) -> TruncatedResnet:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return TruncatedResnet(self)


@dataclass(kw_only=True)
class SafeSettings(NprSettings):
    """Settings of SAFE's network, which are those of NPR's."""
