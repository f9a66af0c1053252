"""DCGAN, arXiv 1511.06434: a generator and a discriminator of strided convolutions.

Kernels are 4x4, as in the authors' Torch code and in the detector of arXiv 1902.11153; figure 1 of
the paper and its Theano code have 5x5. Only BatchNorm has biases, as in the Theano code.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from forensics import checks
from forensics.generators.gan import Gan, doublings, frozen


class Generator(nn.Module):
    """A projection to 4x4, then transposed convolutions 4x4 of stride 2, each doubling the image.

    BatchNorm and ReLU follow all but the last, which has a tanh. Initial weights are N(0, 0.02),
    BatchNorm's scale N(1, 0.02).

    Args:
        latent_size: length of a latent vector.
        width: channels of the last hidden layer; each layer before it has twice as many.
        image_size: height and width of the images, a power of two from 16.

    Source: arXiv 1511.06434, section 3 and figure 1.
    """

    def __init__(self, latent_size: int, width: int, image_size: int) -> None:
        super().__init__()
        channels = [width * 2**k for k in reversed(range(doublings(image_size, 16)))]
        self.project = nn.Linear(latent_size, channels[0] * 16, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for inputs, outputs in itertools.pairwise(channels):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        layers.append(nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.apply(_weights)

    def forward(self, latents: Tensor) -> Tensor:
        """Make ``(B, 3, S, S)`` float32 images in [-1, 1] from ``(B, latent_size)`` latents."""
        projected = self.project(latents).unflatten(1, (-1, 4, 4))
        images: Tensor = self.layers(projected).float().tanh()
        return images


class Discriminator(nn.Module):
    """The generator mirrored: convolutions 4x4 of stride 2, each halving the image to 4x4.

    BatchNorm follows all but the first, then leaky ReLUs of slope 0.2; the last layer is a linear
    unit. Initial weights are as in the generator.

    Args:
        width: channels of the first layer; each layer after it has twice as many.
        image_size: height and width of the images, a power of two from 16.

    Source: arXiv 1511.06434, section 3.
    """

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        channels = [width * 2**k for k in range(doublings(image_size, 16))]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise([3, *channels]):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            if inputs != 3:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(channels[-1] * 16, 1, bias=False)
        self.apply(_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, S, S)`` images in [-1, 1]; ``(B,)`` float32 logits, above 0 for real."""
        features = self.layers(images).flatten(1)
        # In float32 even under autocast: bfloat16 logits would be too coarse for the loss.
        with torch.autocast(images.device.type, enabled=False):
            scores: Tensor = self.score(features.float())
        return scores.squeeze(1)


def _weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


@dataclass
class DcganSettings:
    """Settings of DCGAN.

    Attributes:
        latent_size: length of a latent vector.
        width: channels of the generator's last hidden layer and of the discriminator's first.
        learning_rate: Adam's.
        betas: Adam's.
    """

    latent_size: int
    width: int
    learning_rate: float
    betas: list[float]

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.at_least(self, "generator.", latent_size=1, width=1)
        checks.adam(self, "generator.")

    def build(self, image_size: int) -> Gan:
        """Make both networks, with fresh weights from torch's global generator.

        Args:
            image_size: height and width of the images in pixels.

        Raises:
            UserError: if ``image_size`` is not a power of two from 16.
        """
        return Dcgan(self, image_size)


class Dcgan(Gan):
    """DCGAN, trained with binary cross-entropy; the generator's loss is non-saturating."""

    learns_within = 200

    def __init__(self, settings: DcganSettings, image_size: int) -> None:
        super().__init__(
            Generator(settings.latent_size, settings.width, image_size),
            Discriminator(settings.width, image_size),
            settings.latent_size,
            critic_steps=1,
            learning_rate=settings.learning_rate,
            betas=settings.betas,
        )

    def draw_latents(self, count: int, draws: torch.Generator) -> Tensor:
        """Uniform in [-1, 1]."""
        latents = torch.rand(count, self.latent_size, generator=draws, device=draws.device)
        return (latents * 2 - 1).to(self.device)

    def critic_loss(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Cross-entropy of real images plus cross-entropy of generated images."""
        with frozen(self.generator):
            generated = self.generator(self.draw_latents(len(images), draws))
        # In separate batches, so that BatchNorm does not mix the statistics of both.
        real_scores, generated_scores = self.critic(images), self.critic(generated)
        return softplus(-real_scores).mean() + softplus(generated_scores).mean()

    def generator_loss(self, count: int, draws: torch.Generator) -> Tensor:
        """Cross-entropy of generated images with label real."""
        with frozen(self.critic):
            scores = self.critic(self.generator(self.draw_latents(count, draws)))
        return softplus(-scores).mean()
