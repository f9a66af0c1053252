"""WGAN-GP, arXiv 1704.00028: a Wasserstein critic kept near 1-Lipschitz by a gradient penalty.

Two pairs of networks. ``dcgan``: those of DCGAN. ``residual``: the residual networks that the
authors' code calls good (``gan_64x64.py``), with as many blocks as the image size needs. BatchNorm
is in the generators only: the penalty is on the gradient of each image's own score, which BatchNorm
would make depend on the batch (section 4). The critics have no other normalisation instead, which
is optional in the paper; layer norm would make a step 1.5 times as long.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from forensics import checks
from forensics.generators import dcgan
from forensics.generators.gan import (
    Gan,
    doublings,
    frozen,
)


class Architecture(StrEnum):
    """Architecture of the networks."""

    dcgan = "dcgan"
    residual = "residual"


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, draws: torch.Generator
) -> Tensor:
    """Mean squared difference from 1 of the critic's gradient norm between two batches.

    In float32 even under autocast, including the critic: the penalty depends on a small difference,
    norm minus 1, and is differentiated a second time.

    Args:
        critic: maps ``(B, C, H, W)`` to ``(B,)`` scores.
        real: ``(B, C, H, W)`` float.
        generated: of the same shape; no gradient reaches it.
        draws: source of one interpolation weight per image, uniform in [0, 1].

    Returns:
        The unweighted penalty, a scalar.

    Source: arXiv 1704.00028, equation 3 and algorithm 1.
    """
    shares = torch.rand(len(real), 1, 1, 1, generator=draws, device=draws.device).to(real.device)
    with torch.autocast(real.device.type, enabled=False):
        between = torch.lerp(real.detach().float(), generated.detach().float(), shares)
        between.requires_grad_()
        scores = critic(between).sum()
        (gradient,) = torch.autograd.grad(scores, between, create_graph=True)
        norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norms - 1).square().mean()


class Critic(nn.Module):
    """DCGAN's discriminator with biases instead of BatchNorm.

    Initial weights are He's, our choice: without BatchNorm, DCGAN's small initial weights would
    give gradients near 0.

    Args:
        width: channels of the first layer; each layer after it has twice as many.
        image_size: height and width of the images, a power of two from 16.
    """

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        channels = [width * 2**k for k in range(doublings(image_size, 16))]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise([3, *channels]):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.score = Score(channels[-1] * 16)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, 0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, S, S)`` images in [-1, 1]; ``(B,)`` float32, higher for real."""
        scores: Tensor = self.score(self.layers(images))
        return scores


class Score(nn.Linear):
    """A linear unit over all features of an image, in float32 even under autocast.

    Losses are differences of scores, for which bfloat16's 8 bits are too coarse.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, ...)`` features to ``(B,)`` float32 scores."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.flatten(1).float()).squeeze(1)


class UpBlock(nn.Module):
    """A residual block that doubles the image, with BatchNorm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, 2 H, 2 W)``."""
        changed: Tensor = interpolate(relu(self.norm1(features)), scale_factor=2)
        changed = self.conv2(relu(self.norm2(self.conv1(changed))))
        # The authors upsample first, which is equivalent for a 1x1 convolution.
        shortcut = interpolate(self.shortcut(features), scale_factor=2)
        return shortcut + changed


class DownBlock(nn.Module):
    """A residual block that halves the image, without normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, H / 2, W / 2)``."""
        changed = self.conv2(relu(self.conv1(relu(features))))
        shortcut: Tensor = self.shortcut(avg_pool2d(features, 2))
        return shortcut + avg_pool2d(changed, 2)


def residual_channels(width: int, image_size: int) -> list[int]:
    """Channels at 4, 8, ... ``image_size`` pixels: ``width`` at the end, at most 8 times that.

    At 64 pixels they are those of the authors' code; the extension to larger images is ours.
    """
    count = doublings(image_size, 16)
    return [width * min(2 ** (count - k), 8) for k in range(count + 1)]


class ResidualGenerator(nn.Module):
    """A projection to 4x4, then a residual block for each doubling of the image.

    Args:
        latent_size: length of a latent vector.
        width: channels at full size.
        image_size: height and width of the images, a power of two from 16.
    """

    def __init__(self, latent_size: int, width: int, image_size: int) -> None:
        super().__init__()
        channels = residual_channels(width, image_size)
        self.project = nn.Linear(latent_size, channels[0] * 16)
        self.blocks = nn.Sequential(*itertools.starmap(UpBlock, itertools.pairwise(channels)))
        self.norm = nn.BatchNorm2d(width)
        self.to_rgb = nn.Conv2d(width, 3, 3, padding=1)
        self.apply(_residual_weights)

    def forward(self, latents: Tensor) -> Tensor:
        """Make ``(B, 3, S, S)`` float32 images in [-1, 1] from ``(B, latent_size)`` latents."""
        features = self.blocks(self.project(latents).unflatten(1, (-1, 4, 4)))
        images: Tensor = self.to_rgb(relu(self.norm(features))).float().tanh()
        return images


class ResidualCritic(nn.Module):
    """The residual generator mirrored.

    Args:
        width: channels at full size.
        image_size: height and width of the images, a power of two from 16.
    """

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        channels = residual_channels(width, image_size)[::-1]
        self.from_rgb = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*itertools.starmap(DownBlock, itertools.pairwise(channels)))
        self.score = Score(channels[-1] * 16)
        self.apply(_residual_weights)
        nn.init.xavier_uniform_(self.from_rgb.weight)  # no ReLU comes before it

    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, S, S)`` images in [-1, 1]; ``(B,)`` float32, higher for real."""
        scores: Tensor = self.score(self.blocks(self.from_rgb(images)))
        return scores


def _residual_weights(module: nn.Module) -> None:
    """Initialise a layer as the authors' code does: uniform, He for 3x3 kernels, Glorot for others.

    He's initialisation uses the mean of fan-in and fan-out here.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        after_relu = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
        nn.init.xavier_uniform_(module.weight, math.sqrt(2) if after_relu else 1.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass
class WganGpSettings:
    """Settings of WGAN-GP.

    Attributes:
        architecture: the networks.
        latent_size: length of a latent vector.
        width: channels of the generator's last hidden layer and of the critic's first.
        critic_steps: number of critic steps for each generator step.
        gradient_penalty_weight: weight of the gradient penalty in the critic's loss.
        learning_rate: Adam's.
        betas: Adam's.
    """

    architecture: Architecture
    latent_size: int
    width: int
    critic_steps: int
    gradient_penalty_weight: float
    learning_rate: float
    betas: list[float]

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.architecture = Architecture(self.architecture)  # plain text in a generator file
        checks.at_least(self, "generator.", latent_size=1, width=1, critic_steps=1)
        checks.at_least(self, "generator.", gradient_penalty_weight=0)
        checks.adam(self, "generator.")

    def build(self, image_size: int) -> Gan:
        """Make both networks, with fresh weights from torch's global generator.

        Args:
            image_size: height and width of the images in pixels.

        Raises:
            UserError: if ``image_size`` is not a power of two from 16.
        """
        return WganGp(self, image_size)


class WganGp(Gan):
    """WGAN-GP."""

    def __init__(self, settings: WganGpSettings, image_size: int) -> None:
        generator: nn.Module
        critic: nn.Module
        if settings.architecture is Architecture.dcgan:
            generator = dcgan.Generator(settings.latent_size, settings.width, image_size)
            critic = Critic(settings.width, image_size)
        else:
            generator = ResidualGenerator(settings.latent_size, settings.width, image_size)
            critic = ResidualCritic(settings.width, image_size)
        super().__init__(
            generator,
            critic,
            settings.latent_size,
            settings.critic_steps,
            settings.learning_rate,
            settings.betas,
        )
        self._gradient_penalty_weight = settings.gradient_penalty_weight

    def draw_latents(self, count: int, draws: torch.Generator) -> Tensor:
        """N(0, 1)."""
        latents = torch.randn(count, self.latent_size, generator=draws, device=draws.device)
        return latents.to(self.device)

    def critic_loss(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Mean score of generated images minus that of real images, plus the penalty."""
        with frozen(self.generator):
            generated = self.generator(self.draw_latents(len(images), draws))
        # In one batch, which is faster and, without BatchNorm, equivalent.
        real_scores, generated_scores = self.critic(torch.cat([images, generated])).chunk(2)
        penalty = gradient_penalty(self.critic, images, generated, draws)
        distance: Tensor = real_scores.mean() - generated_scores.mean()
        return self._gradient_penalty_weight * penalty - distance

    def generator_loss(self, count: int, draws: torch.Generator) -> Tensor:
        """Mean score of generated images, negated."""
        with frozen(self.critic):
            scores: Tensor = self.critic(self.generator(self.draw_latents(count, draws)))
        return -scores.mean()
