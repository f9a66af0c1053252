"""Interface of every GAN, and what several of them share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from forensics.errors import UserError


class Gan(nn.Module, ABC):
    """A generator with its critic (DCGAN: discriminator), and how each is trained.

    Knows nothing of data or Lightning. Whoever trains it calls `begin`, then `critic_loss`
    ``critic_steps`` times and `generator_loss` once, each with a step of its own optimizer, then
    `after_generator_step`. Losses may be computed under autocast, if it does not remember weights
    from one optimizer step to the next: ``cache_enabled=False``, or one context for each loss.
    Backward passes belong outside of it, as torch advises.

    Args:
        generator: from ``(B, latent_size)``.
        critic: from ``(B, 3, H, W)`` to ``(B,)`` scores, higher for real.
        latent_size: length of a latent vector.
        critic_steps: of the critic for each step of the generator.
        learning_rate: Adam's, for both networks.
        betas: Adam's.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent_size: int,
        critic_steps: int,
        learning_rate: float,
        betas: list[float],
    ) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic
        self.latent_size, self.critic_steps = latent_size, critic_steps
        self._learning_rate, self._betas = learning_rate, (float(betas[0]), float(betas[1]))

    def begin(self, images_shown: int) -> int:
        """Set what depends on how far training is.

        Args:
            images_shown: number of real images the critic has been shown so far.

        Returns:
            The number of the stage, from 0; optimizers start anew when it changes.
        """
        return 0

    @abstractmethod
    def draw_latents(self, count: int, draws: torch.Generator) -> Tensor:
        """Draw latents as in training: ``(count, latent_size)`` float32 where the networks are.

        They are drawn where ``draws`` is, so from the CPU they are the same on every device.
        """

    @abstractmethod
    def critic_loss(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Loss of the critic; no gradient reaches the generator's parameters.

        Args:
            images: real ones, ``(B, 3, S, S)`` float in [-1, 1].
            draws: source of every draw.
        """

    @abstractmethod
    def generator_loss(self, count: int, draws: torch.Generator) -> Tensor:
        """Loss of the generator; no gradient reaches the critic's parameters.

        Args:
            count: of images to generate.
            draws: source of every draw.
        """

    def after_generator_step(self) -> None:
        """Do what follows each step of the generator's optimizer; nothing by default."""
        return

    def optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Make Adam for the generator and Adam for the critic, in this order."""

        def adam(network: nn.Module) -> torch.optim.Adam:
            # Fused, a step takes a fifth of the time on a CPU.
            return torch.optim.Adam(
                network.parameters(), lr=self._learning_rate, betas=self._betas, fused=True
            )

        return adam(self.generator), adam(self.critic)

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Generate images with the weights that are meant for it.

        BatchNorm uses its running averages, so an image depends on its own latent alone. In
        float32 also under autocast: bfloat16 has fewer values than there are grey levels.

        Args:
            latents: ``(B, latent_size)`` from `draw_latents`.

        Returns:
            ``(B, 3, S, S)`` float32 in [-1, 1].
        """
        was_training = self.generator.training
        self.generator.eval()
        try:
            with torch.autocast(latents.device.type, enabled=False):
                images: Tensor = self.generator(latents)
        finally:
            self.generator.train(was_training)
        return images

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.parameters()).device


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network's results, but reach none of its parameters.

    Not ``torch.no_grad``: autocast would remember the copies of weights it makes there, and the
    network would get no gradient from a later loss (pytorch issue 112583).
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def doublings(image_size: int, least: int) -> int:
    """Number of doublings from 4 pixels to ``image_size``.

    Raises:
        UserError: if ``image_size`` is no power of two or below ``least``.
    """
    if image_size < least or image_size & (image_size - 1):
        raise UserError(
            f"dataset.image_size must be a power of two, at least {least}, for this generator, "
            f"not {image_size}."
        )
    return int(math.log2(image_size)) - 2


def to_uint8(images: Tensor) -> Tensor:
    """Images as rows: ``(B, 3, S, S)`` in [-1, 1] to ``(B, S, S, 3)`` uint8."""
    levels = images.float().add(1).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
