"""Patch-wise classification: the first blocks of an Xception, a logit for each patch.

Source: Chai, Bau, Lim and Isola, "What makes fake images detectable? Understanding properties that
generalize", ECCV 2020, arXiv 2008.10588.

Theirs: Xception cut after its second block (the best of five), a convolution 1x1 on it, the loss of
every patch, the average of the patches' probabilities. Ours: one logit instead of two; random first
weights; scores are the logits of those averages, which do not saturate. A truncated ResNet is
``model=npr model.front_end=rgb``: its linear unit on the mean of all places is the average of
patches' logits, without a loss of each.

Read: the authors' public code (no licence recorded); none was copied.
"""

import itertools
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from forensics import checks
from forensics.detectors.base import Step, linear_scores
from forensics.detectors.network import Network, NetworkSettings
from forensics.preprocess.base import Draws


class Patches(Network):
    """Two convolutions 3x3 without padding, then blocks of separable convolutions of stride 2.

    Args:
        settings: settings of the network.
    """

    def __init__(self, settings: "PatchesSettings") -> None:
        super().__init__(settings)
        first, second, *others = settings.channels
        self.layers = nn.Sequential(
            nn.Conv2d(self.front_end.channels, first, 3, stride=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
            *(Block(*pair) for pair in itertools.pairwise([second, *others])),
        )
        self.score = nn.Linear(settings.channels[-1], 1)

    def body(self, inputs: Tensor) -> Tensor:
        """The last maps, one row for each patch, ``(B, patches, C)``."""
        maps: Tensor = self.layers(inputs)
        return maps.flatten(2).mT

    def patch_logits(self, images: Tensor) -> Tensor:
        """Logits of images' patches, ``(B, patches)`` float32, above 0 for real."""
        return linear_scores(self.score, super().features(images))

    def features(self, images: Tensor) -> Tensor:
        """The means over all patches of the linear unit's inputs, ``(B, C)``."""
        return super().features(images).mean(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, H, W)`` float in [0, 255].

        Returns:
            ``(B,)`` float32 logits of the mean of the patches' probabilities.
        """
        return mean_probability(self.patch_logits(images))

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Score a batch; the loss is the mean cross-entropy of all patches."""
        logits = self.patch_logits(images)
        wanted = labels[:, None].expand_as(logits)
        return Step(binary_cross_entropy_with_logits(logits, wanted), mean_probability(logits))

    @property
    def is_probabilistic(self) -> bool:
        """True: scores are logits of probabilities that are trained by cross-entropy."""
        return True

    def saliency_layer(self) -> nn.Module:
        """The last block."""
        return self.layers


def mean_probability(logits: Tensor) -> Tensor:
    """The logit of the mean probability, without computing probabilities, which saturate.

    Args:
        logits: ``(B, N)``.

    Returns:
        ``(B,)``.
    """
    return logsigmoid(logits).logsumexp(dim=1) - logsigmoid(-logits).logsumexp(dim=1)


class Block(nn.Module):
    """Xception's block: two separable convolutions and a max pooling of stride 2, and a shortcut.

    A ReLU comes before each convolution, but not before the network's first block, whose input has
    had one: there it has no effect.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()

        def separable(channels: int) -> list[nn.Module]:
            return [
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            ]

        self.layers = nn.Sequential(
            *separable(inputs), *separable(outputs), nn.MaxPool2d(3, stride=2, padding=1)
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, outputs, h / 2, w / 2)``, rounded up."""
        summed: Tensor = self.layers(maps) + self.shortcut(maps)
        return summed


@dataclass(kw_only=True)
class PatchesSettings(NetworkSettings):
    """Settings of the patch-wise classifier, in addition to every network's.

    Attributes:
        channels: output channels of the two convolutions, then of each block. Their number decides
            the patches' size.
    """

    channels: list[int]

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        fits = len(self.channels) >= 2 and min(self.channels) >= 1
        checks.require(fits, "model.channels", self.channels, "be two or more numbers above 0")

    def build(self, image_size: int, *, pretrained: bool) -> Patches:
        """Make the network, for images of at least 7 px."""
        checks.image_size(image_size, least=7)
        return Patches(self)
