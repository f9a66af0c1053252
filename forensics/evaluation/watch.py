"""Curves of unseen generators during training, on images that nothing else uses."""

import copy
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytorch_lightning as pl
from sklearn.metrics import roc_auc_score

from forensics.compute import Precision
from forensics.data.datamodule import FaceData
from forensics.data.settings import DatasetSettings
from forensics.data.sources import Source
from forensics.data.splits import Part, Split
from forensics.errors import UserError
from forensics.evaluation.results import score_part
from forensics.scoring.scorer import Scorer
from forensics.training.detector_task import DetectorTask


class Watch(pl.Callback):
    """AUROC of each unseen generator after every epoch, logged below ``watch/``.

    To look at, never to choose by: the values go to the loggers only, where neither checkpoints
    nor early stopping can read them, and the images are in no part of the split. A copy of the
    detector scores them, so that training does not depend on it.

    Args:
        images: number of images of each source.
        precision: numeric precision of the scores.
    """

    def __init__(self, images: int, precision: Precision) -> None:
        self._images, self._precision = images, precision

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the images.

        Raises:
            UserError: if there are none.
        """
        self._data = cast(FaceData, trainer.datamodule)  # type: ignore[attr-defined]
        data = self._data
        self.part = watched(data.sources, data.settings, data.split, self._images)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the images, and log."""
        if not trainer.is_global_zero:
            return
        detector = copy.deepcopy(cast(DetectorTask, pl_module).detector)
        scorer = Scorer(detector, self._precision, pl_module.device)
        sources = self._data.sources
        scores = score_part(scorer, sources, self.part, "watch")
        is_real = self.part.source < len(self._data.settings.real)
        aurocs = {}
        for position in np.unique(self.part.source[~is_real]):
            shown = is_real | (self.part.source == position)
            auroc = roc_auc_score(is_real[shown], scores[shown])
            aurocs[f"watch/auroc/{sources[position].name}"] = float(auroc)
        values = {"watch/auroc_mean": float(np.mean(list(aurocs.values())))}
        values["watch/auroc_worst"] = min(aurocs.values())
        for logger in trainer.loggers:
            epoch = {"epoch": float(trainer.current_epoch)}
            logger.log_metrics(values | aurocs | epoch, trainer.global_step)


def watched(sources: Sequence[Source], settings: DatasetSettings, split: Split, count: int) -> Part:
    """The first images of the real sources and unseen generators that are in no part of the split.

    Args:
        sources: those of ``settings.names``, in order.
        settings: roles of the sources.
        split: the split.
        count: maximum number of images of each source.

    Raises:
        UserError: if all images of these sources are in the split.
    """
    parts = (split.train, split.validation, split.test)
    used = {
        sources[position].digests[row]
        for part in parts
        for position, row in zip(part.source.tolist(), part.row.tolist(), strict=True)
    }
    unseen = [name for name in settings.generators if name not in settings.train_on]
    rows = []
    for source in sources:
        chosen: list[int] = []
        if source.name in (*settings.real, *unseen):
            digests = source.digests
            free = (row for row in range(len(source)) if digests[row] not in used)
            chosen = [row for row, _ in zip(free, range(count), strict=False)]
        rows.append(np.array(chosen, np.int64))
    for group, key in ((settings.real, "real"), (unseen, "unseen generators")):
        if not any(len(rows[settings.names.index(name)]) for name in group):
            raise UserError(
                f"watch={count} finds no image of the {key} that is neither trained on, validated "
                "nor tested: lower dataset.train_count or dataset.test_count, or leave watch out.",
                key="watch",
            )
    return Part.of(rows)
