"""The LightningModule: what training a detector is, whatever network and data."""

from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryRecall, BinarySpecificity

from forensics.data.datamodule import Batch
from forensics.errors import UserError

STEPS_BETWEEN_LOGS = 10


class Scores(NamedTuple):
    """What the detector gave the images of one part of the split.

    Attributes:
        positions: ``(n,)`` int64, positions in the part, ascending, each once.
        logits: ``(n,)`` float32; above 0 means real.
    """

    positions: NDArray[np.int64]
    logits: NDArray[np.float32]


class DetectorTask(pl.LightningModule):
    """Fit a detector with binary cross-entropy and Adam; real is the positive class.

    Args:
        detector: from ``(B, 3, H, W)`` float in [-1, 1] to ``(B,)`` logits.
        learning_rate: Adam's.
        betas: Adam's two.
        settings: of the run, by dotted keys; kept in its checkpoints, so that they can tell what
            they are of.
        channels_last: keep weights in the memory layout of batches whose channels are last.

    Attributes:
        scores: of the last validation or test, over all devices.
    """

    scores: Scores

    def __init__(
        self,
        detector: nn.Module,
        learning_rate: float,
        betas: tuple[float, float],
        settings: dict[str, Any],
        *,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.detector = detector.to(memory_format=self._layout)
        self._settings = settings
        self._learning_rate, self._betas = learning_rate, betas
        # TPR is the recall of the reals, TNR that of the generated.
        metrics = MetricCollection(
            {"accuracy": BinaryAccuracy(), "tpr": BinaryRecall(), "tnr": BinarySpecificity()}
        )
        self._train_metrics = metrics.clone(prefix="train/")
        self._val_metrics = metrics.clone(prefix="val/")
        # Shows NaN rather than drop it.
        self._train_loss = MeanMetric(nan_strategy="disable")
        self._val_loss = MeanMetric(nan_strategy="disable")
        self._all_finite: Tensor | bool = True
        self._scored: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Score ``(B, 3, H, W)`` images in [-1, 1]; ``(B,)`` logits."""
        logits: Tensor = self.detector(images.contiguous(memory_format=self._layout))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        logits = self(batch.images)
        loss = binary_cross_entropy_with_logits(logits, batch.labels)
        self._all_finite = loss.detach().isfinite() & self._all_finite
        self._train_loss.update(loss.detach())
        if (self.global_step + 1) % STEPS_BETWEEN_LOGS == 0:
            self._stop_unless_finite()
            self.log("train/loss_step", loss)
        # torchmetrics would take logits that all lie in [0, 1] for probabilities.
        self._train_metrics.update(logits.detach().sigmoid(), batch.labels.int())
        return loss

    def _stop_unless_finite(self) -> None:
        """Look at the loss now and then: on a GPU each look waits for the device."""
        finite = self.trainer.strategy.reduce_boolean_decision(bool(self._all_finite))
        if not finite:
            kept = "; checkpoints of earlier epochs are kept" if self.current_epoch else ""
            raise UserError(
                f"The loss is no longer a finite number in epoch {self.current_epoch + 1}: lower "
                f"learning_rate (now {self._learning_rate}){kept}."
            )

    def on_train_epoch_end(self) -> None:
        """Log the epoch's loss and accuracies."""
        self.log("train/loss", self._train_loss.compute())
        self._train_loss.reset()
        self.log_dict(self._train_metrics.compute())
        self._train_metrics.reset()

    def on_validation_epoch_start(self) -> None:
        """Stop before a broken epoch is validated and becomes a checkpoint."""
        self._stop_unless_finite()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of validation images."""
        logits = self(batch.images)
        losses = binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
        self._val_loss.update(losses)
        self._val_metrics.update(logits.sigmoid(), batch.labels.int())
        self._scored.append((batch.positions, logits))

    def on_validation_epoch_end(self) -> None:
        """Log what chooses the checkpoint, and keep the scores."""
        loss = self._val_loss.compute()
        # The last step may have broken the weights after its own loss was still finite.
        self._all_finite = loss.isfinite() & self._all_finite
        self._stop_unless_finite()
        if self.trainer.state.fn is TrainerFn.FITTING:  # the curve's points are of its epochs
            self.log("val/loss", loss)
            self.log_dict(self._val_metrics.compute())
        self._val_loss.reset()
        self._val_metrics.reset()
        self.scores = self._gather()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of test images."""
        self._scored.append((batch.positions, self(batch.images)))

    def on_test_epoch_end(self) -> None:
        """Keep the scores."""
        self.scores = self._gather()

    def _gather(self) -> Scores:
        """Bring the scores of all devices together, in the order of their positions."""
        empty = torch.empty(0, device=self.device)
        positions = torch.cat([p for p, _ in self._scored] or [empty.long()])
        logits = torch.cat([s for _, s in self._scored] or [empty]).float()
        self._scored = []
        if self.trainer.world_size > 1:
            # Devices may hold different numbers of images, which tensors could not.
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, (positions.cpu(), logits.cpu()))
            positions, logits = (torch.cat(both) for both in zip(*parts, strict=True))
        order = positions.argsort().cpu()
        return Scores(positions.cpu()[order].numpy(), logits.cpu()[order].numpy())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's settings."""
        checkpoint["settings"] = self._settings

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the detector's parameters."""
        return torch.optim.Adam(
            self.detector.parameters(), lr=self._learning_rate, betas=self._betas
        )
