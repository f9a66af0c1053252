"""The LightningModule that trains a generator against its critic, independent of the networks."""

import logging
from collections import defaultdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torchvision.utils import make_grid

from forensics.data.datamodule import Batch
from forensics.errors import UserError
from forensics.generators import Gan
from forensics.generators.collapse import collapsed, varied, without_structure
from forensics.preprocess.base import Draws
from forensics.training.detector_task import STEPS_BETWEEN_LOGS

log = logging.getLogger(__name__)


class Unusable(UserError):
    """A generator that collapsed or does not learn; another seed may do better."""


SHOWN = 64
"""Number of samples in the grid logged after each epoch, always of the same latents."""


class GeneratorTask(pl.LightningModule):
    """Train a generator, with ``critic_steps`` steps of the critic before each of its own.

    Args:
        gan: generator and critic.
        seed: decides every draw, together with the number of the batch.
        batch_size: real images in a batch, over all devices together.
        settings: the run's settings by dotted keys; stored in its checkpoints.
        channels_last: keep weights in the channels-last memory layout.
    """

    def __init__(
        self,
        gan: Gan,
        seed: int,
        batch_size: int,
        settings: dict[str, Any],
        *,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.gan = gan.to(memory_format=layout)
        self._seed, self._batch_size, self._settings = seed, batch_size, settings
        self._stage = 0
        self._was_varied = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step of the critic and, after ``critic_steps`` of them, one of the generator."""
        generator, critic = (
            optimizer
            for optimizer in self.optimizers()  # type: ignore[union-attr]
            if optimizer
        )
        stage = self.gan.begin(batch.number * self._batch_size)
        if stage != self._stage:
            self._stage = stage
            for optimizer in (generator, critic):
                optimizer.optimizer.state = defaultdict(dict)
        draws = Draws.at(self._seed, 0, batch.number, rank=self.global_rank, device=self.device).own
        losses = {
            "train/critic_loss": self._step(critic, self.gan.critic_loss(batch.images, draws))
        }
        if (batch.number + 1) % self.gan.critic_steps == 0:
            loss = self.gan.generator_loss(len(batch.images), draws)
            losses["train/generator_loss"] = self._step(generator, loss)
            self.gan.after_generator_step()
            if (batch.number + 1) // self.gan.critic_steps == self.gan.learns_within:
                self._stop_unless_it_learns(batch.images)
        if (batch.number + 1) % (STEPS_BETWEEN_LOGS * self.gan.critic_steps) == 0:
            self._stop_unless_finite(losses)
            self.log_dict(losses)

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> Tensor:
        optimizer.zero_grad()
        # Lightning runs the complete step under autocast, but the gradient of a computation in
        # float32 must be in float32, too.
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss)
        optimizer.step()
        return loss.detach()

    def _stop_unless_finite(self, losses: dict[str, Tensor]) -> None:
        """Check the losses; called occasionally, because each check waits for the GPU."""
        finite = all(bool(loss.isfinite()) for loss in losses.values())
        if not self.trainer.strategy.reduce_boolean_decision(finite):
            raise UserError(
                f"A loss is no longer a finite number in epoch {self.current_epoch + 1}: lower "
                "generator.learning_rate; checkpoints of earlier epochs are kept."
            )

    def _stop_unless_it_learns(self, real: Tensor) -> None:
        """Compare samples with a batch of real images."""
        reason = without_structure(_rows(self._samples()), _rows(real.cpu()).round().astype("u1"))
        if reason is not None:
            raise Unusable(
                f"The generator does not learn with seed={self._seed}, as seen after "
                f"{self.gan.learns_within} steps. {reason} Take another seed, or let retry_seeds=N "
                "try the next ones.",
                key="seed",
            )
        log.info("the generator has begun to learn, as seen after %d steps", self.gan.learns_within)

    def _samples(self) -> Tensor:
        # The same latents every time, drawn on the CPU, so that samples are comparable.
        draws = torch.Generator().manual_seed(self._seed)
        return self.gan.sample(self.gan.draw_latents(SHOWN, draws)).cpu()

    def on_train_epoch_end(self) -> None:
        """Log samples; stop before a collapsed state becomes a checkpoint.

        Raises:
            Unusable: if the generator collapsed.
        """
        images = self._samples()
        if self.trainer.is_global_zero:
            grid = make_grid(images, 8, normalize=True, value_range=(-1, 1))
            self.logger.experiment.add_image("samples", grid, self.global_step)  # type: ignore[union-attr]
        rows = _rows(images)
        reason = collapsed(rows)
        # Samples are nearly equal at first; only a loss of variety counts as a collapse.
        self._was_varied = self._was_varied or (reason is None and varied(rows))
        if self._was_varied and reason is not None:
            raise Unusable(
                f"The generator collapsed in epoch {self.current_epoch + 1}: {reason} Lower "
                "generator.learning_rate or take another seed; checkpoints of earlier epochs are "
                "kept."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's settings and the stage of training."""
        checkpoint["settings"] = self._settings
        checkpoint["stage"], checkpoint["was_varied"] = self._stage, self._was_varied

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the stage, so that optimizers are not reset."""
        self._stage, self._was_varied = checkpoint["stage"], checkpoint["was_varied"]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of generator and critic."""
        return list(self.gan.optimizers())


def _rows(images: Tensor) -> NDArray[np.float32]:
    """Images in grey levels before rounding, which would hide non-finite values."""
    rows: NDArray[np.float32] = images.float().add(1).mul(127.5).permute(0, 2, 3, 1).numpy()
    return rows
