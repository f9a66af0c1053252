"""The LightningModule that trains a detector, independent of network and data."""

from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryRecall,
    BinarySpecificity,
)

from forensics.data.datamodule import Batch, FaceData
from forensics.detectors import Detector
from forensics.detectors.base import Step
from forensics.errors import UserError
from forensics.preprocess.base import Draws

STEPS_BETWEEN_LOGS = 10


class DetectorTask(pl.LightningModule):
    """Train a detector by its own loss and optimizer; real is the positive class.

    Args:
        detector: the detector.
        seed: decides every draw, together with epoch and number of the batch.
        settings: the run's settings by dotted keys; stored in its checkpoints to identify them.
        image_size: height and width of the images that the detector was built for.
        channels_last: keep weights in the channels-last memory layout.
    """

    def __init__(
        self,
        detector: Detector,
        seed: int,
        settings: dict[str, Any],
        image_size: int,
        *,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.detector = detector.to(memory_format=self._layout)
        self._seed, self._settings, self._image_size = seed, settings, image_size
        # TPR is the recall of real images, TNR that of generated images.
        metrics = MetricCollection(
            {"accuracy": BinaryAccuracy(), "tpr": BinaryRecall(), "tnr": BinarySpecificity()}
        )
        self._train_metrics = metrics.clone(prefix="train/")
        self._val_metrics = metrics.clone(prefix="val/")
        # Does not drop NaN.
        self._train_loss = MeanMetric(nan_strategy="disable")
        self._val_loss = MeanMetric(nan_strategy="disable")
        self._all_finite: Tensor | bool = True
        self._scored: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self) -> None:
        """Call `Detector.prepare` before the first epoch.

        Not for a detector that starts with trained weights, which fit the statistics of their own
        training.
        """
        if self.detector.made_from:
            return
        if self.trainer.global_step == 0 and self.current_epoch == 0:
            data = cast(FaceData, self.trainer.datamodule)  # type: ignore[attr-defined]
            self.detector.prepare(data.prepared_batches(self.device))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed torch's global generators, used by dropout, by epoch and number of the batch."""
        torch.manual_seed(_global_seed(self._seed, batch, self.global_rank))

    def _step(self, batch: Batch) -> Step:
        draws = Draws.at(
            self._seed, batch.epoch, batch.number, rank=self.global_rank, device=self.device
        )
        images = batch.images.contiguous(memory_format=self._layout)
        return self.detector.step(images, batch.labels, draws)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Loss of one batch."""
        loss, scores, logged = self._step(batch)
        log_now = (self.global_step + 1) % STEPS_BETWEEN_LOGS == 0
        if loss is not None:
            self._all_finite = loss.detach().isfinite() & self._all_finite
            self._train_loss.update(loss.detach())
            if log_now:
                self._stop_unless_finite()
                self.log("train/loss_step", loss)
        if log_now:
            self.log_dict({f"train/{name}_step": value for name, value in logged.items()})
        if scores is not None and self.detector.is_probabilistic:
            # torchmetrics would take logits that are all in [0, 1] for probabilities.
            self._train_metrics.update(scores.detach().sigmoid(), batch.labels.int())
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Make a step, then call `Detector.after_step`."""
        super().optimizer_step(*args, **kwargs)
        self.detector.after_step()

    def _stop_unless_finite(self) -> None:
        """Check the loss; called occasionally, because on a GPU each check waits for the device."""
        finite = self.trainer.strategy.reduce_boolean_decision(bool(self._all_finite))
        if not finite:
            kept = "; checkpoints of earlier epochs are kept" if self.current_epoch else ""
            raise UserError(
                f"The loss is no longer a finite number in epoch {self.current_epoch + 1}: lower "
                f"model.learning_rate{kept}.",
                key="model.learning_rate",
            )

    def on_train_epoch_end(self) -> None:
        """Log the epoch's loss and accuracies."""
        if self._train_loss.update_called:
            self.log("train/loss", self._train_loss.compute())
            self._train_loss.reset()
        if self._train_metrics["accuracy"].update_called:
            self.log_dict(self._train_metrics.compute())
            self._train_metrics.reset()

    def on_validation_epoch_start(self) -> None:
        """Stop before an epoch with a non-finite loss is validated and saved."""
        self._stop_unless_finite()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of validation images."""
        losses, of_crops = [], []
        for images in self.detector.crops(batch.images, self._image_size):
            loss, scores, _ = self._step(batch._replace(images=images))
            if loss is not None:
                losses.append(loss)
            of_crops.append(self.detector(images) if scores is None else scores)
        scores = torch.stack(of_crops).mean(dim=0)
        if losses:
            # Once per image: without dropping NaN, torchmetrics ignores weights.
            self._val_loss.update(torch.stack(losses).mean().expand(len(batch.labels)))
        if self.detector.is_probabilistic:  # other scores have no fixed threshold
            self._val_metrics.update(scores.sigmoid(), batch.labels.int())
        self._scored.append((batch.labels, scores))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, which choose the checkpoint."""
        if self._val_loss.update_called:
            loss = self._val_loss.compute()
            # The last step may have made weights non-finite although its own loss was finite.
            self._all_finite = loss.isfinite() & self._all_finite
            self._stop_unless_finite()
            self.log("val/loss", loss)
        auroc = self._auroc()
        if auroc is not None:
            # The same on every device.
            self.log("val/auroc", auroc)
        if self.detector.is_probabilistic:
            self.log_dict(self._val_metrics.compute())
        self._val_loss.reset()
        self._val_metrics.reset()

    def _auroc(self) -> float | None:
        """AUROC over the validation images of all devices; None where a class is missing.

        Not by torchmetrics, which takes sigmoids: in float32, those of large scores tie.
        """
        labels, scores = (
            torch.cat(column).float().cpu() for column in zip(*self._scored, strict=True)
        )
        self._scored = []
        if self.trainer.world_size > 1:
            # Gathered as objects, because devices may have different numbers of images.
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, (labels, scores))
            labels, scores = (torch.cat(both) for both in zip(*parts, strict=True))
        if not 0 < labels.sum() < len(labels) or not scores.isfinite().all():
            return None
        return float(roc_auc_score(labels, scores))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's settings."""
        checkpoint["settings"] = self._settings

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The detector's optimizer, with a schedule if the learning rate varies."""
        optimizer, optimization = self.detector.optimizer(), self.detector.optimization
        if optimizer is None or optimization is None or not optimization.changes:
            return optimizer
        epochs = self.trainer.max_epochs or 1
        # Lightning has the number of batches of an epoch only after this property is read.
        steps = self.trainer.estimated_stepping_batches / epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: optimization.factor((step + 1) / steps, epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _global_seed(seed: int, batch: Batch, rank: int) -> int:
    """Seed of torch's global generators, in a random stream separate from those of `Draws`."""
    place = np.random.SeedSequence([seed, batch.epoch, batch.number, rank], spawn_key=(1,))
    return int(place.generate_state(1, np.uint64)[0])
