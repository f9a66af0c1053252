"""Callbacks for progress and images during training."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from forensics.data.datamodule import Batch, FaceData
from forensics.progress import Progress
from forensics.runs import RESULT

log = logging.getLogger(__name__)


def _data(trainer: pl.Trainer) -> FaceData:
    # An attribute that Lightning sets and does not declare.
    return cast(FaceData, trainer.datamodule)  # type: ignore[attr-defined]


SHOWN_METRICS = (
    "val/accuracy",
    "val/auroc",
    "val/loss",
    "train/critic_loss",
    "train/generator_loss",
)
"""Metrics logged in the line after each epoch, if a run has them."""


class ProgressOfImages(pl.Callback):
    """Progress of training in images, and a line for each epoch."""

    _progress: Progress

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        images = int(trainer.num_training_batches) * _data(trainer).batch_size
        label = f"fit, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self._progress = Progress(label, images, shown=trainer.is_global_zero)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count a batch."""
        self._progress.advance(len(batch.labels) * trainer.world_size)
        if batch_idx + 1 == trainer.num_training_batches:
            self._progress.close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch."""
        epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        metrics = trainer.callback_metrics
        # Metrics that are computed at the end of the epoch are not available yet.
        said = [f"{name} {metrics[name]:.4f}" for name in SHOWN_METRICS if name in metrics]
        log.info("%s: %s", epoch, ", ".join(said) or "done")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the progress bar, so that messages are not printed into it."""
        if hasattr(self, "_progress"):
            self._progress.close()


class ResultWithdrawn(pl.Callback):
    """Removes the result of a complete run once its training is continued.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove ``result.json``, which marks a complete run."""
        if trainer.is_global_zero:
            (self._folder / RESULT).unlink(missing_ok=True)


class PreprocessGrid(pl.Callback):
    """Training images before and after their preprocess, in TensorBoard, once at the start.

    Shows the first images of the first batches, with the strengths drawn for them.
    """

    batches, images_of_each = 4, 4

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the grid."""
        if not trainer.is_global_zero or trainer.current_epoch > 0:
            return
        data = _data(trainer)
        shown = []
        for _, batch in zip(range(self.batches), data.train_dataloader(), strict=False):
            batch = data.transfer_batch_to_device(batch, pl_module.device, 0)
            batch = data.cropped(batch)
            after = data.preprocess(batch)
            few = slice(self.images_of_each)
            strengths = {name: values[few] for name, values in after.strengths.items()}
            shown.append((batch.images[few].cpu(), after.images[few].cpu(), strengths))
        logger = cast(TensorBoardLogger, trainer.logger)
        logger.experiment.add_figure("preprocess", before_and_after(shown), 0)


def before_and_after(batches: Sequence[tuple[Tensor, Tensor, Mapping[str, Tensor]]]) -> Figure:
    """Images of some batches, each above its preprocessed copy.

    Args:
        batches: for each batch, ``(k, 3, H, W)`` grey levels in [0, 255] before and after, and the
            ``(k,)`` strengths drawn, by name.
    """
    figure = Figure(figsize=(8, 4.4 * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
    for number, (axis, (before, after, strengths)) in enumerate(zip(panels, batches, strict=True)):
        # One panel per batch, because dozens of panels take seconds to draw.
        rows = [torch.cat(list(images), dim=2) for images in (before, after)]
        axis.imshow(torch.cat(rows, dim=1).permute(1, 2, 0).round().byte().numpy())
        axis.set_axis_off()
        drawn = [
            f"{name.replace('_', ' ')} "
            + ", ".join(dict.fromkeys(f"{value:.3g}" for value in values.tolist()))
            for name, values in strengths.items()
        ]
        axis.set_title(f"batch {number}: {'; '.join(drawn) or 'unchanged'}", fontsize=9)
    return figure
