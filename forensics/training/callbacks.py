"""Callbacks for progress and images during training."""

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from forensics.data.datamodule import Batch, FaceData
from forensics.progress import Progress
from forensics.runs import RESULT

log = logging.getLogger(__name__)


def _data(trainer: pl.Trainer) -> FaceData:
    # An attribute that Lightning sets and does not declare.
    return cast(FaceData, trainer.datamodule)  # type: ignore[attr-defined]


SHOWN_METRICS = {
    "train/loss": "#.3g",
    "val/loss": "#.3g",
    "val/auroc": ".3f",
    "train/critic_loss": "#.3g",
    "train/generator_loss": "#.3g",
}
"""Metrics in the line of an epoch, if a run has them, and their formats."""


class ProgressOfImages(pl.Callback):
    """Progress of training in images, and a line for each epoch, which marks the best so far."""

    _progress: Progress
    _epoch = ""
    _best: Tensor | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch before, and begin an epoch."""
        self._line(trainer)
        self._epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self._best = _best_score(trainer)
        images = int(trainer.num_training_batches) * _data(trainer).batch_size
        self._progress = Progress(f"fit, {self._epoch}", images, shown=trainer.is_global_zero)

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

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the last epoch."""
        self._line(trainer)

    def _line(self, trainer: pl.Trainer) -> None:
        # Later than at the epoch's end, when its losses and checkpoint are not known to callbacks.
        if not self._epoch:
            return
        metrics = trainer.callback_metrics
        said = [f"{name} {metrics[name]:{form}}" for name, form in SHOWN_METRICS.items()
                if name in metrics]  # fmt: skip
        if _best_score(trainer) != self._best:
            said.append("best so far")
        log.info("%s: %s", self._epoch, ", ".join(said) or "done")
        self._epoch = ""

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the progress bar, so that messages are not printed into it."""
        if hasattr(self, "_progress"):
            self._progress.close()


def _best_score(trainer: pl.Trainer) -> Tensor | None:
    """The best value so far of the metric that chooses the epoch."""
    callbacks = cast(list[ModelCheckpoint], trainer.checkpoint_callbacks)
    return next((one.best_model_score for one in callbacks if one.monitor is not None), None)


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


class Shown(NamedTuple):
    """Some images of a training batch.

    Attributes:
        before: ``(k, 3, H, W)`` grey levels in [0, 255].
        after: the same images, preprocessed.
        labels: ``(k,)``, 1 for real and 0 for generated.
        strengths: ``(k,)`` strengths drawn for them, by name.
    """

    before: Tensor
    after: Tensor
    labels: Tensor
    strengths: Mapping[str, Tensor]


class PreprocessGrid(pl.Callback):
    """Training images before and after their preprocess, in TensorBoard, once at the start.

    Shows the first images of each class of the first batches, with the strengths drawn for them.
    """

    batches, images_of_a_class = 3, 2

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
            few = torch.cat(
                [(batch.labels == of).nonzero()[: self.images_of_a_class, 0] for of in (1, 0)]
            )
            strengths = {name: values[few.cpu()] for name, values in after.strengths.items()}
            images = (batch.images[few].cpu(), after.images[few].cpu(), batch.labels[few].cpu())
            shown.append(Shown(*images, strengths))
        logger = cast(TensorBoardLogger, trainer.logger)
        logger.experiment.add_figure("preprocess", before_and_after(shown), 0)


CAPTION_POINTS = 20
"""Readable where TensorBoard shows the figure at a third of its size."""


def before_and_after(batches: Sequence[Shown]) -> Figure:
    """Images of some batches, each above its preprocessed copy; real and generated are marked.

    Args:
        batches: images of each batch.
    """
    figure = Figure(figsize=(10, 6 * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
    for number, (axis, shown) in enumerate(zip(panels, batches, strict=True)):
        # One panel per batch, because dozens of panels take seconds to draw.
        rows = [torch.cat(list(images), dim=2) for images in (shown.before, shown.after)]
        axis.imshow(torch.cat(rows, dim=1).permute(1, 2, 0).round().byte().numpy())
        height, width = shown.before.shape[-2:]
        classes = ["real" if label else "generated" for label in shown.labels.tolist()]
        axis.set_xticks([width * (place + 0.5) for place in range(len(classes))], classes)
        axis.set_yticks([height / 2, height * 1.5], ["before", "after"], rotation=90, va="center")
        axis.tick_params(length=0, labelsize=CAPTION_POINTS, labeltop=True, labelbottom=False)
        axis.spines[:].set_visible(False)
        drawn = [
            f"{name.replace('_', ' ')} "
            + ", ".join(dict.fromkeys(f"{value:.3g}" for value in values.tolist()))
            for name, values in shown.strengths.items()
        ]
        caption = f"batch {number + 1}: {'; '.join(drawn) or 'unchanged'}"
        axis.set_title(textwrap.fill(caption, 48), fontsize=CAPTION_POINTS, loc="left")
    return figure
