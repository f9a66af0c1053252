"""Loggers of a training: TensorBoard and a table of epochs always, and a tracking service."""

import csv
import io
import logging
import os
from argparse import Namespace
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger as LightningLogger
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from forensics import files, runs
from forensics.errors import UserError


class Service(StrEnum):
    """Where curves are sent to, besides the run's folder; ``tensorboard``: nowhere else."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"


class Curves(TensorBoardLogger):
    """TensorBoard's events in the run's folder, without Lightning's curve of epoch numbers.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars."""
        shown = {name: value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(shown, step)


class EpochTable(LightningLogger):
    """``epochs.csv`` in the run's folder: a row for each epoch, a column for each of its metrics.

    Written after every epoch; a resumed run keeps the rows of the epochs that it does not repeat.

    Args:
        folder: the run's folder.

    Attributes:
        rows: the rows by epoch, counted from 1.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / runs.EPOCHS
        self.rows: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            with self._path.open(newline="") as file:
                self.rows = {int(row["epoch"]): dict(row) for row in csv.DictReader(file)}

    @property
    def name(self) -> None:
        """None: a run has one table."""
        return

    @property
    def version(self) -> None:
        """None: a run has one table."""
        return

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Nothing: ``result.json`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add an epoch's metrics to the table; those of single steps are left out."""
        values = {
            name: f"{value:.6g}"
            for name, value in metrics.items()
            if name != "epoch" and not name.endswith("_step")
        }
        if not values or "epoch" not in metrics:
            return
        number = int(metrics["epoch"]) + 1
        self.rows = {epoch: row for epoch, row in self.rows.items() if epoch <= number}
        self.rows.setdefault(number, {"epoch": number}).update(values)
        columns = dict.fromkeys(name for row in self.rows.values() for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        with files.atomic(self._path) as file:
            file.write(text.getvalue().encode())


def validation_loss(folder: Path, epoch: int) -> float | None:
    """The validation loss after an epoch, counted from 1; None for a detector without one."""
    loss = EpochTable(folder).rows.get(epoch, {}).get("val/loss")
    return float(loss) if loss else None


def loggers(service: Service, folder: Path) -> list[LightningLogger]:
    """Make the loggers of a run, TensorBoard's first.

    Args:
        service: a tracking service; its own environment variables, such as ``WANDB_MODE`` or
            ``MLFLOW_TRACKING_URI``, say where it is.
        folder: the run's folder; its name is the run's in the service.

    Raises:
        UserError: if the service's package is not installed.
    """
    always: list[LightningLogger] = [Curves(folder), EpochTable(folder)]
    try:
        match service:
            case Service.tensorboard:
                return always
            case Service.wandb:
                logging.getLogger("wandb").setLevel(logging.WARNING)
                return [*always, WandbLogger(folder.name, folder, project="forensics")]
            case Service.mlflow:
                local = f"sqlite:///{folder.parent.resolve() / 'mlflow.db'}"
                uri = os.environ.get("MLFLOW_TRACKING_URI", local)
                return [*always, MLFlowLogger("forensics", folder.name, tracking_uri=uri)]
    except ModuleNotFoundError as error:
        raise UserError(
            f"logger={service} needs the package {service}: pip install '.[{service}]'.",
            key="logger",
        ) from error
