"""FerretNet: a small network of depthwise convolutions on the median residual.

Source: Liang et al., "FerretNet: efficient synthetic image detection via local pixel dependencies",
NeurIPS 2025, arXiv 2509.20890.

Theirs: layers, channels, dropout, front end (``lpd``). Ours: one logit; the front end's unit and
mirrored borders; the constant learning rate; no crops. Their published weights were chosen on
ForenSynths, a test set.

Read: the authors' public code (Apache-2); none was copied.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import relu

from forensics import checks
from forensics.detectors.network import Network, NetworkSettings


class FerretNet(Network):
    """Two convolutions 3x3, two stages of two blocks, a convolution 1x1, averaged over all places.

    The second convolution and each stage's first block have stride 2; each stage doubles the
    channels.

    Args:
        settings: settings of the network.
    """

    def __init__(self, settings: "FerretNetSettings") -> None:
        super().__init__(settings)
        width = settings.width
        self.layers = nn.Sequential(
            *_convolution(self.front_end.channels, width // 2, stride=1),
            *_convolution(width // 2, width, stride=2),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 2 * width, stride=1),
            Block(2 * width, 4 * width, stride=2),
            Block(4 * width, 4 * width, stride=1),
            nn.Conv2d(4 * width, 4 * width, 1, bias=False),
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.score = nn.Linear(4 * width, 1)

    def body(self, inputs: Tensor) -> Tensor:
        """The means of the last maps, after dropout in training, ``(B, 4 width)``."""
        maps: Tensor = self.dropout(self.layers(inputs).mean(dim=(2, 3)))
        return maps

    def saliency_layer(self) -> nn.Module:
        """The last convolution."""
        return self.layers


class Block(nn.Module):
    """A residual block: dilated and plain depthwise filters summed, then a separable convolution.

    Args:
        inputs: number of input channels.
        outputs: number of output channels, a multiple of ``inputs``.
        stride: stride of the block.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()

        def depthwise(channels: int, dilation: int, stride: int) -> nn.Conv2d:
            return nn.Conv2d(channels, outputs, 3, stride, dilation, dilation, channels, bias=False)

        self.near = depthwise(inputs, 1, stride)
        self.far = depthwise(inputs, 2, stride)
        self.rest = nn.Sequential(
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            depthwise(outputs, 1, 1),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, outputs, h / stride, w / stride)``, rounded up."""
        return relu(self.rest(self.near(maps) + self.far(maps)) + self.shortcut(maps))


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


@dataclass(kw_only=True)
class FerretNetSettings(NetworkSettings):
    """Settings of FerretNet, in addition to every network's.

    Attributes:
        width: channels before the first stage, even; 96 in the paper.
        dropout: share of features set to 0 in training, in [0, 1).
    """

    width: int
    dropout: float

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        even = self.width >= 2 and self.width % 2 == 0
        checks.require(even, "model.width", self.width, "be an even number of at least 2")
        checks.require(0 <= self.dropout < 1, "model.dropout", self.dropout, "be in [0, 1)")

    def build(self, image_size: int, *, pretrained: bool) -> FerretNet:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return FerretNet(self)
