"""Convolutions on co-occurrence matrices of neighbouring pixels.

Sources: Nataraj et al., Detecting GAN generated fake images using co-occurrence matrices (arXiv
1903.06836), and for ``cross_band`` Barni et al., CNN detection of GAN-generated face images based
on cross-band co-occurrences analysis (arXiv 2007.12909). The papers': matrices of 256 x 256 grey
levels, of horizontal neighbours in each channel, and of two channels in one pixel; six convolutions
and two hidden units of 256. Ours: padding, so that any number of grey levels fits; the scale of the
matrices; ``levels``, since convolutions over 256 x 256 places cost many times those over an image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from forensics import checks
from forensics.detectors.base import Detector, Optimization, linear_scores

BANDS = ((0, 1), (0, 2), (1, 2))
"""Pairs of channels: R and G, R and B, G and B."""


def co_occurrences(images: Tensor, levels: int, *, cross_band: bool) -> Tensor:
    """Shares of the pairs of grey levels, times their number of levels.

    So rows sum to 1 if all levels are equally frequent. A pair is a pixel, the row of the matrix,
    and its right neighbour, the column; between channels, the same pixel in both.

    Args:
        images: ``(B, 3, H, W)`` float in [0, 255], W at least 2; rounded to whole grey levels.
        levels: number of equally wide intervals of grey levels, at most 256.
        cross_band: add the three pairs of channels.

    Returns:
        ``(B, 3, levels, levels)`` float32; ``(B, 6, levels, levels)`` with ``cross_band``.
    """
    symbols = (images.round().long() * levels).div(256, rounding_mode="floor")
    pairs = [symbols[..., :-1] * levels + symbols[..., 1:]]
    if cross_band:
        one, other = (symbols[:, [pair[i] for pair in BANDS]] for i in (0, 1))
        pairs.append(one * levels + other)
    return torch.cat([_shares(codes.flatten(2), levels) for codes in pairs], dim=1) * levels


def _shares(codes: Tensor, levels: int) -> Tensor:
    counts = codes.new_zeros(*codes.shape[:2], levels**2, dtype=torch.float32)
    counts = counts.scatter_add(2, codes, counts.new_ones(1, 1, 1).expand(codes.shape))
    return (counts / codes.shape[2]).reshape(*codes.shape[:2], levels, levels)


class CoOccurrence(Detector):
    """Pairs of convolutions 3x3 and 5x5, each followed by max pooling, then two hidden layers.

    Args:
        levels: number of grey levels, height and width of the matrices.
        cross_band: see `co_occurrences`.
        channels: output channels of the pairs of convolutions.
        hidden: width of the hidden layers.
        optimization: settings of Adam.
    """

    def __init__(
        self,
        levels: int,
        *,
        cross_band: bool,
        channels: list[int],
        hidden: int,
        optimization: Optimization,
    ) -> None:
        super().__init__(optimization)
        self._levels, self._cross_band = levels, cross_band
        self.convolutions = nn.Sequential(*_blocks([6 if cross_band else 3, *channels]))
        places = (levels // 2 ** len(channels)) ** 2
        self.hidden = nn.Sequential(
            nn.Linear(channels[-1] * places, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.score = nn.Linear(hidden, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the linear unit, above 0 for real."""
        return linear_scores(self.score, self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer, ``(B, hidden)`` float32."""
        matrices = co_occurrences(images, self._levels, cross_band=self._cross_band)
        hidden: Tensor = self.hidden(self.convolutions(matrices).flatten(1))
        return hidden.float()


def _blocks(channels: list[int]) -> Iterable[nn.Module]:
    for inputs, outputs in pairwise(channels):
        yield nn.Conv2d(inputs, outputs, 3, padding=1)
        yield nn.ReLU()
        yield nn.Conv2d(outputs, outputs, 5, padding=2)
        yield nn.ReLU()
        yield nn.MaxPool2d(2)


@dataclass(kw_only=True)
class CoOccurrenceSettings(Optimization):
    """Settings of the network, beside those of Adam.

    Attributes:
        levels: number of grey levels, at most 256.
        cross_band: also co-occurrences of two channels.
        channels: output channels of the pairs of convolutions.
        hidden: width of the two hidden layers.
    """

    levels: int
    cross_band: bool
    channels: list[int]
    hidden: int

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        checks.channels(self.channels, "model.channels")
        checks.at_least(self, "model.", hidden=1)
        least = 2 ** len(self.channels)
        fits = least <= self.levels <= 256
        range_ = f"be from {least}, for {len(self.channels)} poolings, to 256"
        checks.require(fits, "model.levels", self.levels, range_)

    def build(self, image_size: int, *, pretrained: bool) -> CoOccurrence:
        """Make the network, for images of at least 2 px."""
        checks.image_size(image_size, least=2)
        return CoOccurrence(
            self.levels,
            cross_band=self.cross_band,
            channels=self.channels,
            hidden=self.hidden,
            optimization=self,
        )
