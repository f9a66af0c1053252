"""An autoencoder whose latent halves tell real from generated images.

Source: Cozzolino et al., ForensicTransfer: weakly-supervised domain adaptation for forgery
detection (arXiv 1812.02510). The paper's: the latent space in two halves, of which that of the
image's class is to be active and the other one not; reconstruction from the half of the class
alone; the image's class as the more active half; adaptation by training on with few images of
another generator, here ``init=outputs/NAME``. The widths, the learning rate and the input, for
which the paper takes a residual, are not all in the texts that we could read: they are settings.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from forensics import checks
from forensics.detectors.base import Detector, Optimization, Step
from forensics.detectors.front_ends import FrontEnd, build_front_end
from forensics.preprocess.base import Draws

RECONSTRUCTION = 0.1
"""Factor on the reconstruction's part of the loss; the paper's."""


class ForensicTransfer(Detector):
    """Convolutions 3x3, all but the first of stride 2, and a decoder of as many doublings.

    Args:
        channels: output channels of the encoder's convolutions; the last are the latent ones, the
            first half of them for real images, the second for generated ones.
        front_end: what is encoded and reconstructed.
        optimization: settings of Adam.
    """

    def __init__(
        self, channels: list[int], front_end: FrontEnd, optimization: Optimization
    ) -> None:
        super().__init__(optimization)
        self.front_end = build_front_end(front_end)
        given = self.front_end.channels
        encoder: list[nn.Module] = []
        for position, (inputs, outputs) in enumerate(pairwise([given, *channels])):
            stride = 1 if position == 0 else 2
            encoder += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder)
        decoder: list[nn.Module] = []
        for inputs, outputs in pairwise(channels[::-1]):
            decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1)]
            decoder += [nn.ReLU()]
        decoder += [nn.Conv2d(channels[0], given, 3, padding=1), nn.Tanh()]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float in [0, 255].

        Returns:
            ``(B,)`` float32: activation of the real images' half less that of the other, above 0
            for real.
        """
        real, generated = _activations(self.encoder(self.front_end(images)))
        return real - generated

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        """Loss of the activations, plus that of the reconstruction from the class's own half."""
        given = self.front_end(images)
        latent = self.encoder(given)
        real, generated = _activations(latent)
        activation = ((real - labels).abs() + (generated - (1 - labels)).abs()).mean()
        reconstruction = l1_loss(self.decoder(selected(latent, labels)).float(), given.float())
        logged = {"activation": activation, "reconstruction": reconstruction}
        return Step(activation + RECONSTRUCTION * reconstruction, real - generated, logged)

    def features(self, images: Tensor) -> Tensor:
        """Mean of each latent channel, ``(B, C)`` float32, the real images' first."""
        latent: Tensor = self.encoder(self.front_end(images))
        return latent.float().mean(dim=(2, 3))

    def saliency_layer(self) -> nn.Module:
        """The encoder; its output is the latent space."""
        return self.encoder


def _activations(latent: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute value of the halves for real and for generated images, ``(B,)`` float32."""
    real, generated = (half.float().abs().mean(dim=(1, 2, 3)) for half in latent.chunk(2, dim=1))
    return real, generated


def selected(latent: Tensor, labels: Tensor) -> Tensor:
    """The latent space with the half of the other class set to 0.

    Args:
        latent: ``(B, C, h, w)``, C even; the first half is for real images.
        labels: ``(B,)`` float, 1 for real and 0 for generated.
    """
    real, generated = latent.chunk(2, dim=1)
    kept = labels[:, None, None, None].to(latent.dtype)
    return torch.cat([real * kept, generated * (1 - kept)], dim=1)


@dataclass(kw_only=True)
class ForensicTransferSettings(Optimization):
    """Settings of the network, beside those of Adam.

    Attributes:
        channels: output channels of the encoder's convolutions; the last number is even.
        front_end: what is encoded and reconstructed, any but ``constrained``; values outside
            [-1, 1] are out of the decoder's reach.
    """

    channels: list[int]
    front_end: FrontEnd

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        self.front_end = FrontEnd(self.front_end)  # plain text in a detector file
        checks.channels(self.channels, "model.channels")
        # What is learnt could be reconstructed best by becoming constant.
        fixed = self.front_end is not FrontEnd.constrained
        checks.require(fixed, "model.front_end", str(self.front_end), "have no weights")
        even = self.channels[-1] % 2 == 0
        checks.require(even, "model.channels", self.channels, "end with an even number")

    def build(self, image_size: int, *, pretrained: bool) -> ForensicTransfer:
        """Make the network, for images that all strides divide."""
        factor = 2 ** (len(self.channels) - 1)
        range_ = f"be a multiple of {factor} for {len(self.channels)} convolutions"
        checks.require(image_size % factor == 0, "dataset.image_size", image_size, range_)
        return ForensicTransfer(self.channels, self.front_end, self)
