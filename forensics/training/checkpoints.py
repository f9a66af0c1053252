"""Training checkpoints: written atomically, verified when read.

``last.ckpt`` is from the last complete epoch, ``previous.ckpt`` from the one before and, for
detectors, ``best.ckpt`` from the epoch that is best by the monitored metric.
"""

import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from forensics.checks import mismatch
from forensics.detectors.card import current
from forensics.errors import UserError
from forensics.files import atomic
from forensics.runs import CHECKPOINTS, shown

MONITORS = {"val/loss": "min", "val/auroc": "max"}
"""Validation metrics that can choose the checkpoint, and whether the minimum or maximum is best."""

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"

CHANGEABLE = (
    "max_epochs", "trainer", "name", "resume", "cache_dir", "perturb", "audit", "plugin", "images",
    "source", "logger", "watch", "debug", "retry_seeds",
)  # fmt: skip
"""Settings, or groups of them, that may change when a run is resumed; training is unaffected."""


class AtomicCheckpoints(CheckpointIO):
    """Writes checkpoints atomically.

    Lightning's own implementation writes to the system's temporary folder first and copies from
    there, which a kill can interrupt.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401
    ) -> None:
        """Write a checkpoint; an existing ``last.ckpt`` becomes ``previous.ckpt``."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic(path) as file:
                torch.save(checkpoint, file)
                if path.name == LAST and path.exists():
                    _keep_as_previous(path)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as the latter
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UserError(
                f"Cannot write {path} ({reason}): free disk space, then resume from the previous "
                f"checkpoint with resume={shown(path.parent.parent)}."
            ) from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,  # noqa: ANN401
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; see `load`."""
        return load(Path(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _keep_as_previous(last: Path) -> None:
    """Keep the checkpoint that is about to be replaced under a second name."""
    previous = last.with_name(PREVIOUS)
    previous.unlink(missing_ok=True)
    try:
        os.link(last, previous)
    except OSError:  # not every file system has links
        shutil.copyfile(last, previous)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; no code in it is run.

    Raises:
        UserError: if it is missing or damaged; it names an intact checkpoint, if there is one.
    """
    if not path.exists():
        raise UserError(f"There is no checkpoint {shown(path)}: start a new run.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind, where a byte is wrong
        reason = (str(error) or repr(error)).splitlines()[0]
        other = path.with_name(PREVIOUS)
        offer = (
            f"remove it to resume from {other.name}, the epoch before"
            if path.name == LAST and other.exists()
            else "start a new run"
        )
        raise UserError(f"The checkpoint {shown(path)} is corrupt ({reason}): {offer}.") from error
    return cast(dict[str, Any], loaded)


class _Checkpoint(TypedDict):
    """What this program reads of a checkpoint, besides Lightning."""

    settings: dict[str, Any]
    epoch: int


def to_resume(folder: Path, settings: Mapping[str, Any], also: Sequence[str] = ()) -> Path | None:
    """The checkpoint to resume a run from, None if it has not finished its first epoch.

    Args:
        folder: the run's folder.
        settings: the current settings by dotted keys.
        also: settings of `CHANGEABLE` that must not have changed, either.

    Raises:
        UserError: if the checkpoint is damaged, or of a run with other settings.
    """
    for name in (LAST, PREVIOUS):
        path = folder / CHECKPOINTS / name
        if path.exists():
            break
    else:
        return None
    checkpoint = load(path)
    if wrong := mismatch(checkpoint, _Checkpoint, "it"):
        raise UserError(
            f"{shown(path)} was not written by this program ({wrong}): start a new run.",
            key=str(path),
        )
    theirs = current(checkpoint["settings"])
    # A schedule over all epochs makes the number of epochs part of the training.
    constant = settings.get("model.schedule", "constant") == "constant"
    key = difference(theirs, settings, also if constant else (*also, "max_epochs"))
    if key is not None:
        raise UserError(
            f"{shown(folder)} is a run with {key}={theirs.get(key)}, not {settings.get(key)}: "
            f"leave {key} out, or start a new run."
        )
    if checkpoint["epoch"] >= settings["max_epochs"]:
        raise UserError(
            f"{shown(folder)} has completed {checkpoint['epoch'] + 1} epochs: set max_epochs to at "
            "least this number."
        )
    return path


def difference(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], also: Sequence[str] = ()
) -> str | None:
    """The first setting that makes two runs different trainings, None if there is none.

    Args:
        theirs: settings of one run by dotted keys.
        ours: settings of the other run by dotted keys.
        also: settings of `CHANGEABLE` that are compared, too.

    Settings of earlier versions are compared as `current` has them; as in reports, a missing
    setting equals ``none``.
    """

    def value(settings: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
        return None if settings.get(key) == "none" else settings.get(key)

    theirs, ours = current(theirs), current(ours)
    for key in sorted({*theirs, *ours}):
        counts = key.partition(".")[0] not in CHANGEABLE or key in also
        if counts and value(theirs, key) != value(ours, key):
            return key
    return None


class _Keep(ModelCheckpoint):
    """ModelCheckpoint that keeps the best score of a run whose folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint, with paths in the current folder."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            state_dict
            | {name: here(state_dict[name]) for name in paths}
            | {"best_k_models": {here(k): v for k, v in state_dict["best_k_models"].items()}}
            | {"dirpath": self.dirpath}
        )


def callbacks(folder: Path, best_by: str | None = None) -> list[pl.Callback]:
    """Callbacks that keep the best and the last checkpoint.

    The best one is written first, so that the last one includes its score.

    Args:
        folder: the run's folder.
        best_by: the metric of `MONITORS` that chooses the best; None keeps only the last.
    """

    def keeping(name: str, monitor: str | None) -> ModelCheckpoint:
        return _Keep(
            dirpath=folder / CHECKPOINTS,
            filename=Path(name).stem,
            monitor=monitor,
            mode=MONITORS.get(monitor or "", "min"),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    best = [] if best_by is None else [keeping(BEST, best_by)]
    return [*best, keeping(LAST, None)]
