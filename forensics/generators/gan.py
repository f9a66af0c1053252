"""Interface of every GAN, and shared functions."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from forensics.errors import UserError


class Gan(nn.Module, ABC):
    """A generator with its critic (DCGAN: discriminator), and their training.

    Independent of data modules and Lightning. The training loop calls `begin`, then `critic_loss`
    ``critic_steps`` times and `generator_loss` once, each with a step of its own optimizer, then
    `after_generator_step`. Losses may be computed under autocast, if it does not cache weights
    from one optimizer step to the next: ``cache_enabled=False``, or one context for each loss.
    Backward passes belong outside autocast, as torch recommends.

    Args:
        generator: maps ``(B, latent_size)`` to images.
        critic: maps ``(B, 3, H, W)`` to ``(B,)`` scores, higher for real.
        latent_size: length of a latent vector.
        critic_steps: number of critic steps for each generator step.
        learning_rate: Adam's, for both networks.
        betas: Adam's.
    """

    learns_within: int | None = None
    """Steps of the generator after which the images of a run that learns have structure, if known;
    see `forensics.generators.collapse.without_structure`."""

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
        """Set the state that depends on the progress of training.

        Args:
            images_shown: number of real images the critic has been shown so far.

        Returns:
            The number of the stage, from 0; optimizers are reset when it changes.
        """
        return 0

    @abstractmethod
    def draw_latents(self, count: int, draws: torch.Generator) -> Tensor:
        """Draw latents as in training: ``(count, latent_size)`` float32 on the networks' device.

        They are drawn on the device of ``draws``: with a CPU generator they are the same
        everywhere.
        """

    @abstractmethod
    def critic_loss(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Loss of the critic; no gradient reaches the generator's parameters.

        Args:
            images: real images, ``(B, 3, S, S)`` float in [-1, 1].
            draws: source of every random number.
        """

    @abstractmethod
    def generator_loss(self, count: int, draws: torch.Generator) -> Tensor:
        """Loss of the generator; no gradient reaches the critic's parameters.

        Args:
            count: number of images to generate.
            draws: source of every random number.
        """

    def after_generator_step(self) -> None:
        """Hook after each step of the generator's optimizer; does nothing by default."""
        return

    def optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Make Adam for the generator and Adam for the critic, in this order."""

        def adam(network: nn.Module) -> torch.optim.Adam:
            # A fused step takes a fifth of the time on a CPU.
            return torch.optim.Adam(
                network.parameters(), lr=self._learning_rate, betas=self._betas, fused=True
            )

        return adam(self.generator), adam(self.critic)

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Generate images, in evaluation mode.

        BatchNorm uses its running averages, so an image depends on its own latent alone. In
        float32 even under autocast: bfloat16 cannot represent all grey levels.

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
    """Let gradients pass through a network's outputs without reaching its parameters.

    Not ``torch.no_grad``: autocast would cache the copies of weights that it makes there, and the
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
        UserError: if ``image_size`` is not a power of two or below ``least``.
    """
    if image_size < least or image_size & (image_size - 1):
        raise UserError(
            f"dataset.image_size must be a power of two, at least {least}, for this generator, "
            f"not {image_size}."
        )
    return int(math.log2(image_size)) - 2


def to_uint8(images: Tensor) -> Tensor:
    """Convert ``(B, 3, S, S)`` images in [-1, 1] to ``(B, S, S, 3)`` uint8."""
    levels = images.float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
