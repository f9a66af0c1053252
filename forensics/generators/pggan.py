"""PGGAN, arXiv 1710.10196: generator and critic grow together from 4 pixels to full size.

Where the paper and the authors' code differ, or the paper gives no detail, this follows the last
version of the code: convolutions are fused with the adjacent resampling (``fused_scale``), so the
critic's activation follows its downsampling; the minibatch standard deviation is taken over groups
of four.

Convolutions pad with zeros, as published, which leaves traces along the border of generated images.
This is not a setting: replicated borders leave other traces.

Level 0 has 4 pixels; each further level doubles the size.
"""

import copy
import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    interpolate,
    leaky_relu,
    linear,
)

from forensics import checks
from forensics.errors import UserError
from forensics.generators.gan import (
    Gan,
    doublings,
    frozen,
)
from forensics.generators.wgan_gp import gradient_penalty

GROUP_SIZE = 4
"""Group size of the minibatch standard deviation; the paper uses the complete minibatch."""


def pixel_norm(features: Tensor) -> Tensor:
    """Divide each pixel's features by the root of their mean square.

    Args:
        features: ``(B, C)`` or ``(B, C, H, W)`` float.

    Returns:
        Tensor of the same shape and dtype; the scale is computed in float32.

    Source: arXiv 1710.10196, section 4.2.
    """
    norm: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=torch.float32)
    scale = (norm.square() / features.shape[1] + 1e-8).rsqrt()
    return features * scale.to(features.dtype)


def minibatch_std(features: Tensor, batches: int = 1) -> Tensor:
    """Minibatch standard deviation: averaged over features and pixels of a group.

    A group is four neighbours in the batch. If the batch size is not a multiple of four, groups
    are of nearly equal size and at most four: five images are split into three and two.

    Args:
        features: ``(B, C, H, W)`` float; computed in float32, since deviations are small.
        batches: number of batches of equal size concatenated in ``features``; no group has images
            of two batches.

    Returns:
        ``(B,)`` float32, the same for all images of a group.

    Source: arXiv 1710.10196, section 3; groups are from the authors' code.
    """
    count = len(features) // batches
    groups = math.ceil(count / GROUP_SIZE)
    size, larger = divmod(count, groups)  # The first ``larger`` groups have one image more.
    stds = []
    for batch in features.float().chunk(batches):
        parts = batch.tensor_split([larger * (size + 1)])
        for part, members in zip(parts, (size + 1, size), strict=True):
            if not len(part):
                continue
            values = part.reshape(len(part) // members, members, *part.shape[1:])
            means = (values.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
            stds.append(means.repeat_interleave(members))
    return torch.cat(stds)


class Equalized(nn.Module):
    """A layer with an equalised learning rate: weights N(0, 1), scaled at run time.

    Adam's steps then have the same size relative to the weights in every layer. Weights are scaled
    rather than features, because they are fewer.

    Args:
        shape: shape of the weights.
        fan_in: number of inputs of one output.
        outputs: number of biases.
        gain: gain of the following nonlinearity; the square root of 2 is He's.

    Source: arXiv 1710.10196, section 4.1.
    """

    def __init__(
        self, shape: tuple[int, ...], fan_in: int, outputs: int, gain: float = math.sqrt(2)
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(fan_in)

    def scaled(self) -> Tensor:
        """The scaled weights."""
        return self.weight * self.scale


class Conv(Equalized):
    """A convolution that keeps the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, gain: float = math.sqrt(2)
    ) -> None:
        shape = (outputs, inputs, kernel_size, kernel_size)
        super().__init__(shape, inputs * kernel_size**2, outputs, gain)
        self.padding = kernel_size // 2

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        return conv2d(features, self.scaled(), self.bias, padding=self.padding)


class UpConv(Equalized):
    """Nearest-neighbour upsampling and a 3x3 convolution, as one transposed convolution.

    Weights of pixels that upsampling makes equal are added: less than half the work.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((inputs, outputs, 3, 3), inputs * 9, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, 2 H, 2 W)``."""
        kernel = avg_pool2d(self.scaled(), 2, stride=1, padding=1, divisor_override=1)
        return conv_transpose2d(features, kernel, self.bias, stride=2, padding=1)


class DownConv(Equalized):
    """A 3x3 convolution and average pooling over 2x2 pixels, as one convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((outputs, inputs, 3, 3), inputs * 9, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, H / 2, W / 2)``."""
        kernel = avg_pool2d(self.scaled(), 2, stride=1, padding=1)
        return conv2d(features, kernel, self.bias, stride=2, padding=1)


class Linear(Equalized):
    """A linear layer."""

    def __init__(self, inputs: int, outputs: int, gain: float = math.sqrt(2)) -> None:
        super().__init__((outputs, inputs), inputs, outputs, gain)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs)`` to ``(B, outputs)``."""
        return linear(features, self.scaled(), self.bias)


def upsampled(images: Tensor, factor: int) -> Tensor:
    """Images with every pixel repeated ``factor`` times in height and width."""
    larger: Tensor = interpolate(images, scale_factor=factor)
    return larger


def activate(features: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return leaky_relu(features, 0.2)


class Seed(nn.Module):
    """From a latent vector on the hypersphere to features of 4x4 pixels."""

    def __init__(self, latent_size: int, channels: int) -> None:
        super().__init__()
        # Table 2 has a 4x4 convolution on the latent as one padded pixel: each output uses one of
        # 16 kernel positions, but the scale counts all.
        self.project = Equalized((channels * 16, latent_size), latent_size * 16, channels)
        self.conv = Conv(channels, channels, 3)

    def forward(self, latents: Tensor) -> Tensor:
        """From ``(B, latent_size)`` to ``(B, channels, 4, 4)``."""
        features = linear(pixel_norm(latents), self.project.scaled()).view(len(latents), -1, 4, 4)
        features = pixel_norm(activate(features + self.project.bias.view(-1, 1, 1)))
        return pixel_norm(activate(self.conv(features)))


class UpBlock(nn.Module):
    """A level of the generator above the first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.conv = UpConv(inputs, outputs), Conv(outputs, outputs, 3)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, 2 H, 2 W)``."""
        return pixel_norm(activate(self.conv(pixel_norm(activate(self.up(features))))))


class Generator(nn.Module):
    """PGGAN's generator, all levels.

    Args:
        latent_size: length of a latent vector.
        channels: channels of each level, from 4 pixels upward.

    Source: arXiv 1710.10196, table 2.
    """

    def __init__(self, latent_size: int, channels: list[int]) -> None:
        super().__init__()
        blocks = map(UpBlock, channels[:-1], channels[1:])
        self.blocks = nn.ModuleList([Seed(latent_size, channels[0]), *blocks])
        self.to_rgb = nn.ModuleList(Conv(inputs, 3, 1, gain=1) for inputs in channels)

    def forward(self, latents: Tensor, level: int, alpha: float) -> Tensor:
        """Make images.

        Args:
            latents: ``(B, latent_size)``, normalised to the hypersphere here.
            level: level of the images.
            alpha: share of ``level`` in them, in [0, 1]; the rest is the level below, upsampled.

        Returns:
            ``(B, 3, S, S)`` float32, S = 4 x 2 ** level, about [-1, 1] but unbounded.
        """
        features = below = latents
        for block in self.blocks[: level + 1]:
            below, features = features, block(features)
        images: Tensor = self.to_rgb[level](features).float()
        if alpha < 1:
            coarse = upsampled(self.to_rgb[level - 1](below).float(), 2)
            images = torch.lerp(coarse, images, alpha)
        return images


class DownBlock(nn.Module):
    """A level of the critic above the first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.down = Conv(inputs, inputs, 3), DownConv(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """From ``(B, inputs, H, W)`` to ``(B, outputs, H / 2, W / 2)``."""
        return activate(self.down(activate(self.conv(features))))


class Verdict(nn.Module):
    """From features of 4x4 pixels to a score."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels + 1, channels, 3)
        self.hidden = Linear(channels * 16, channels)
        self.score = Linear(channels, 1, gain=1)

    def forward(self, features: Tensor, batches: int) -> Tensor:
        """From ``(B, channels, 4, 4)`` to ``(B,)`` float32; ``batches`` as in `minibatch_std`."""
        std = minibatch_std(features, batches).to(features.dtype)
        features = torch.cat([features, std.view(-1, 1, 1, 1).expand(-1, -1, 4, 4)], dim=1)
        features = activate(self.hidden(activate(self.conv(features)).flatten(1)))
        # In float32 even under autocast: losses are differences of scores.
        with torch.autocast(features.device.type, enabled=False):
            scores: Tensor = self.score(features.float())
        return scores.squeeze(1)


class Critic(nn.Module):
    """PGGAN's critic, all levels; the generator mirrored.

    Args:
        channels: channels of each level, from 4 pixels upward.

    Source: arXiv 1710.10196, table 2.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.from_rgb = nn.ModuleList(Conv(3, outputs, 1) for outputs in channels)
        self.blocks = nn.ModuleList(map(DownBlock, channels[1:], channels[:-1]))
        self.verdict = Verdict(channels[0])

    def forward(self, images: Tensor, level: int, alpha: float, batches: int = 1) -> Tensor:
        """Score images.

        Args:
            images: ``(B, 3, S, S)`` float, S = 4 x 2 ** level.
            level: level of the images.
            alpha: share of ``level`` in the features of the level below, in [0, 1]; the rest is
                from the downscaled images.
            batches: as in `minibatch_std`.

        Returns:
            ``(B,)`` float32, higher for real.
        """
        features = activate(self.from_rgb[level](images))
        for position in reversed(range(level)):
            features = self.blocks[position](features)
            if alpha < 1 and position == level - 1:
                coarse = activate(self.from_rgb[position](avg_pool2d(images, 2)))
                features = torch.lerp(coarse, features, alpha)
        scores: Tensor = self.verdict(features, batches)
        return scores


@dataclass
class PgganSettings:
    """Settings of PGGAN.

    Attributes:
        latent_size: length of a latent vector.
        channels: channels of each level, from 4 pixels upward; those beyond the image size are not
            used.
        first_resolution: height and width at the start of training.
        stable_images: real images shown at each resolution before the next is faded in.
        fade_images: real images shown while a resolution is faded in.
        average_decay: decay per step of the running average of the generator's weights.
        drift: weight of the mean square of real images' scores in the critic's loss.
        gradient_penalty_weight: weight of the gradient penalty in the critic's loss.
        learning_rate: Adam's.
        betas: Adam's.
    """

    latent_size: int
    channels: list[int]
    first_resolution: int
    stable_images: int
    fade_images: int
    average_decay: float
    drift: float
    gradient_penalty_weight: float
    learning_rate: float
    betas: list[float]

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.at_least(self, "generator.", latent_size=1, stable_images=1)
        checks.at_least(self, "generator.", fade_images=0)
        if not self.channels or min(self.channels) < 1:
            raise UserError(
                "generator.channels must be a list of numbers >= 1, from 4 pixels upward, such as "
                f"[512,512,512,512,256,128], not {list(self.channels)}."
            )
        if self.first_resolution < 4 or self.first_resolution & (self.first_resolution - 1):
            raise UserError(
                "generator.first_resolution must be a power of two, at least 4, "
                f"not {self.first_resolution}."
            )
        decay = self.average_decay
        checks.require(0 <= decay < 1, "generator.average_decay", decay, "be in [0, 1)")
        checks.at_least(self, "generator.", drift=0, gradient_penalty_weight=0)
        checks.adam(self, "generator.")

    def build(self, image_size: int) -> Gan:
        """Make both networks with all their levels, with fresh weights from torch's generator.

        Args:
            image_size: height and width of the images in pixels.

        Raises:
            UserError: if ``image_size`` is not a power of two from 4, is below
                ``first_resolution``, or too large for the number of ``channels``.
        """
        levels = doublings(image_size, 4) + 1
        if len(self.channels) < levels:
            raise UserError(
                f"generator.channels must have {levels} numbers, for 4 to {image_size} pixels "
                f"(dataset.image_size), not {len(self.channels)}."
            )
        if self.first_resolution > image_size:
            raise UserError(
                f"generator.first_resolution must be at most dataset.image_size={image_size}, "
                f"not {self.first_resolution}."
            )
        return Pggan(self, image_size)


class Pggan(Gan):
    """PGGAN: WGAN-GP's losses, growing networks, and a running average to sample from.

    Attributes:
        resolution: current height and width in training.
        alpha: weight of the newest level, in (0, 1]; below 1 while it is faded in.
        average: the generator with the running average of its weights.
    """

    generator: Generator
    critic: Critic
    resolution: int
    alpha: float

    def __init__(self, settings: PgganSettings, image_size: int) -> None:
        channels = list(settings.channels[: doublings(image_size, 4) + 1])
        super().__init__(
            Generator(settings.latent_size, channels),
            Critic(channels),
            settings.latent_size,
            critic_steps=1,
            learning_rate=settings.learning_rate,
            betas=settings.betas,
        )
        self.average: Generator = copy.deepcopy(self.generator).requires_grad_(False)
        self._settings, self._image_size = settings, image_size
        self.begin(0)

    def begin(self, images_shown: int) -> int:
        """Set resolution and fade-in.

        Args:
            images_shown: number of real images the critic has been shown so far.

        Returns:
            The number of the stage: 0 at the first resolution, 1 while the second is faded in, 2
            at the second, and so on. As in the authors' code, Adam is reset at each.
        """
        first, last = (
            doublings(size, 4) for size in (self._settings.first_resolution, self._image_size)
        )
        stable, fade = self._settings.stable_images, self._settings.fade_images
        phase, within = divmod(images_shown, stable + fade)
        phase = min(phase, last - first)
        fading = within > stable and phase < last - first
        self._images_shown = images_shown
        self._level = first + phase + fading
        self.resolution = 4 * 2**self._level
        self.alpha = (within - stable) / fade if fading else 1.0
        return 2 * phase + fading

    def get_extra_state(self) -> Tensor:
        """Current growth, so that a loaded state samples at the size it was saved at."""
        return torch.tensor(self._images_shown)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the growth of a saved state."""
        self.begin(int(state))

    def draw_latents(self, count: int, draws: torch.Generator) -> Tensor:
        """N(0, 1); the generator normalises them to the hypersphere, on which they are uniform."""
        latents = torch.randn(count, self.latent_size, generator=draws, device=draws.device)
        return latents.to(self.device)

    def critic_loss(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """WGAN-GP's loss, plus a small penalty on the square of real images' scores."""
        real = self._as_grown(images)
        with frozen(self.generator):
            latents = self.draw_latents(len(images), draws)
            generated = self.generator(latents, self._level, self.alpha)
        critic = partial(self.critic, level=self._level, alpha=self.alpha)
        # In one batch, which is faster.
        real_scores, generated_scores = critic(torch.cat([real, generated]), batches=2).chunk(2)
        distance: Tensor = real_scores.mean() - generated_scores.mean()
        penalty = gradient_penalty(critic, real, generated, draws)
        drift: Tensor = real_scores.square().mean()
        settings = self._settings
        return settings.gradient_penalty_weight * penalty + settings.drift * drift - distance

    def generator_loss(self, count: int, draws: torch.Generator) -> Tensor:
        """Mean score of generated images, negated."""
        with frozen(self.critic):
            images = self.generator(self.draw_latents(count, draws), self._level, self.alpha)
            scores: Tensor = self.critic(images, self._level, self.alpha)
        return -scores.mean()

    @torch.no_grad()
    def after_generator_step(self) -> None:
        """Update the running average of the weights."""
        step = 1 - self._settings.average_decay
        parameters = self.generator.parameters()
        for average, parameter in zip(self.average.parameters(), parameters, strict=True):
            average.lerp_(parameter, step)

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Generate with the averaged weights at the current growth; see `Gan.sample`.

        Below full size, pixels are repeated; values are clipped to [-1, 1].
        """
        with torch.autocast(latents.device.type, enabled=False):
            images = self.average(latents, self._level, self.alpha)
        return upsampled(images.clamp_(-1, 1), self._image_size // self.resolution)

    def _as_grown(self, images: Tensor) -> Tensor:
        """Real images with the detail of the current resolution."""
        images = avg_pool2d(images, self._image_size // self.resolution)
        if self.alpha < 1:
            images = torch.lerp(upsampled(avg_pool2d(images, 2), 2), images, self.alpha)
        return images
