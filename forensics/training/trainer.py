"""Assembly of a training run: data, task and Lightning's Trainer."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import EarlyStopping

from forensics import checks, runs
from forensics.compute import in_bfloat16
from forensics.data.datamodule import FaceData
from forensics.data.faces import Faces
from forensics.errors import UserError
from forensics.generators import Gan
from forensics.images.geometry import Match
from forensics.training import checkpoints, header
from forensics.training.callbacks import PreprocessGrid, ProgressOfImages, ResultWithdrawn
from forensics.training.detector_task import STEPS_BETWEEN_LOGS, DetectorTask
from forensics.training.generator_task import GeneratorTask
from forensics.training.initial import check_preparation, start_from
from forensics.training.loggers import Service, loggers
from forensics.training.settings import (
    QUICK,
    Debug,
    GenerateSettings,
    TrainerSettings,
    TrainSettings,
)


def assemble_detector(
    settings: TrainSettings, flat: dict[str, Any], folder: Path, *callbacks: pl.Callback
) -> tuple[FaceData, DetectorTask, pl.Trainer]:
    """Make data module, task and trainer of a detector, seeded; prepares images if needed.

    Args:
        settings: the run's settings.
        flat: the same by dotted keys, for its checkpoints.
        folder: the run's folder.
        callbacks: additional callbacks.

    Raises:
        UserError: if a source is missing or unusable, a device is not available, or the run will
            not have the metric that chooses the epoch.
    """
    pl.seed_everything(settings.seed, verbose=False)
    dataset = settings.dataset
    data = FaceData(
        dataset,
        settings.operator,
        settings.batch_size,
        settings.seed,
        settings.cache_dir,
        settings.watch,
    )
    size, from_run = settings.dataset.image_size, settings.init is not None
    detector = settings.detector.build(size, pretrained=not from_run)
    if settings.init is not None:
        start_from(detector, settings.init, flat["model"], settings.model)
    check_preparation(detector.made_from, settings.dataset)
    settings.dataset.check_classes(one_class=detector.one_class)
    trained = detector.optimizer() is not None  # otherwise epochs change nothing and have no loss
    _check_choice(settings, trained=trained)
    task = DetectorTask(
        detector,
        settings.seed,
        flat,
        settings.dataset.image_size,
        channels_last=settings.trainer.channels_last,
    )
    trainer = build_trainer(
        settings.trainer,
        settings.max_epochs if trained else 1,
        settings.logger,
        folder,
        [
            *checkpoints.callbacks(folder, best_by=settings.monitor if trained else None),
            *_early_stopping(settings),
            ProgressOfImages(),
            PreprocessGrid(),
            ResultWithdrawn(folder),
            *callbacks,
        ],
    )
    device = pick_device(settings.trainer)
    match = "" if dataset.match is Match.none else f", match {dataset.match}"
    header.say(
        {
            "device": header.place(settings.trainer, device),
            "model": f"{flat['model']}, {header.size_of(detector)}",
            "images": f"{dataset.side} px, view {dataset.view}{match}; "
            f"preprocess {flat['preprocess']}",
            "run": header.folder_of(folder),
            **({"debug": QUICK} if settings.debug is Debug.quick else {}),
        }
    )
    data.setup()  # last, because it takes long and the other steps may raise
    header.say(header.sources_of(data))
    return data, task, trainer


def _check_choice(settings: TrainSettings, *, trained: bool) -> None:
    """Refuse to choose the epoch by a metric that the run will not have."""
    by_gradient = "be null for a detector that is not trained by gradient"
    checks.require(trained or settings.patience is None, "patience", settings.patience, by_gradient)
    measured = settings.monitor != "val/auroc" or bool(settings.dataset.train_on)
    both_classes = "be val/loss without generators to train on"
    checks.require(measured or not trained, "monitor", settings.monitor, both_classes)


def _early_stopping(settings: TrainSettings) -> list[pl.Callback]:
    if settings.patience is None:
        return []
    mode = checkpoints.MONITORS[settings.monitor]
    return [EarlyStopping(settings.monitor, patience=settings.patience, mode=mode)]


def assemble_generator(
    settings: GenerateSettings,
    flat: dict[str, Any],
    gan: Gan,
    folder: Path,
    *callbacks: pl.Callback,
) -> tuple[Faces, GeneratorTask, pl.Trainer]:
    """Make data module, task and trainer of a generator; prepares images if needed.

    Args:
        settings: the run's settings.
        flat: the same by dotted keys, for its checkpoints.
        gan: the generator and its critic.
        folder: the run's folder.
        callbacks: additional callbacks.

    Raises:
        UserError: if the faces are missing or unusable, or a device is not available.
    """
    task = GeneratorTask(
        gan,
        settings.seed,
        settings.batch_size,
        flat,
        channels_last=settings.trainer.channels_last,
    )
    trainer = build_trainer(
        settings.trainer,
        settings.max_epochs,
        settings.logger,
        folder,
        [
            *checkpoints.callbacks(folder),
            ProgressOfImages(),
            ResultWithdrawn(folder),
            *callbacks,
        ],
        two_networks=True,
    )
    data = Faces(
        settings.real,
        settings.dataset,
        settings.batch_size,
        settings.steps_per_epoch * gan.critic_steps,
        settings.seed,
        Path(settings.cache_dir),
    )
    header.say(
        {
            "device": header.place(settings.trainer, pick_device(settings.trainer)),
            "generator": f"{flat['generator']}, {header.size_of(gan.generator)}; "
            f"critic, {header.size_of(gan.critic)}",
            "training": f"{settings.max_epochs} epochs of {settings.steps_per_epoch} steps, "
            f"batches of {settings.batch_size}",
            "run": header.folder_of(folder),
            **({"debug": QUICK} if settings.debug is Debug.quick else {}),
        }
    )
    data.setup()  # last, because it takes long and the other steps may raise
    header.say({"faces": f"{len(data.source)} {settings.real}, {settings.dataset.image_size} px"})
    return data, task, trainer


def pick_device(settings: TrainerSettings) -> torch.device:
    """The device to compute on, the first of several.

    Raises:
        UserError: if fewer devices are available than requested.
    """
    on_gpu = settings.accelerator == "gpu" or (
        settings.accelerator == "auto" and torch.cuda.is_available()
    )
    available = torch.cuda.device_count() if on_gpu else settings.devices
    if available < settings.devices:
        raise UserError(
            f"trainer.accelerator={settings.accelerator} and trainer.devices={settings.devices} "
            f"ask for more than the {available} GPUs that torch finds: use trainer=cpu or fewer "
            "devices."
        )
    return torch.device("cuda" if on_gpu else "cpu")


def take_rank(settings: TrainerSettings) -> None:
    """Set which of the processes of a run this is, before its trainer exists.

    The environment alone does not tell: a scheduler and shells inside its jobs set ranks for
    processes that know nothing of each other.

    Args:
        settings: devices that train together.

    Raises:
        UserError: if no launcher has started a process for each device of several nodes, or a
            variable is set as for a process of several, and others are missing.
    """
    environment = _environment(settings.devices, settings.nodes)
    started_here = isinstance(environment, LightningEnvironment)
    rank = environment.local_rank() if started_here else environment.global_rank()
    runs.take_rank(rank if settings.all_devices > 1 else 0)


def started_by_launcher(devices: int, nodes: int) -> bool:
    """Whether this is one of the processes that a launcher has started, one for each device.

    Args:
        devices: number of devices of each machine that train together.
        nodes: number of machines.

    Raises:
        UserError: like `take_rank`.
    """
    return not isinstance(_environment(devices, nodes), LightningEnvironment)


def _environment(devices_of_node: int, nodes: int) -> ClusterEnvironment:
    """What starts the processes of a run: Lightning, unless a launcher has started one a device."""
    devices = devices_of_node * nodes
    if devices > 1:
        if TorchElasticEnvironment.detect() and {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= {
            *os.environ
        }:
            return TorchElasticEnvironment()
        if SLURMEnvironment.detect() and os.environ.get("SLURM_NTASKS") == str(devices):
            return SLURMEnvironment()
        if nodes > 1:
            raise UserError(
                f"trainer.nodes={nodes} needs a process for each of the {devices} "
                "devices: start them with srun or torchrun, see docs/scale.md.",
                key="trainer.nodes",
            )
        if "LOCAL_RANK" in os.environ and "MASTER_PORT" not in os.environ:
            raise UserError(
                f"LOCAL_RANK is set, but no launcher has started {devices} processes: unset it, or "
                "set trainer.devices=1.",
                key="LOCAL_RANK",
            )
    return LightningEnvironment()


def build_trainer(
    settings: TrainerSettings,
    max_epochs: int,
    logger: Service,
    folder: Path,
    callbacks: list[pl.Callback],
    *,
    two_networks: bool = False,
) -> pl.Trainer:
    """Make the trainer of one run.

    Args:
        settings: device and precision.
        max_epochs: number of epochs.
        logger: a tracking service for the curves.
        folder: the run's folder, for checkpoints and curves.
        callbacks: all callbacks.
        two_networks: whether each loss has gradients for one of two networks only.

    Raises:
        UserError: if fewer devices are available than requested.
    """
    on_gpu = pick_device(settings).type == "cuda"
    several = "ddp_find_unused_parameters_true" if two_networks else "ddp"
    _quieten()
    # Matrix products of float32 may use the GPU's faster, less precise TF32.
    torch.set_float32_matmul_precision("high")
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=several if settings.all_devices > 1 else "auto",
        sync_batchnorm=on_gpu and settings.all_devices > 1,
        precision="bf16-mixed" if in_bfloat16(settings.precision, on_gpu) else "32-true",
        max_epochs=max_epochs,
        logger=loggers(logger, folder),
        callbacks=callbacks,
        plugins=[checkpoints.AtomicCheckpoints(), _environment(settings.devices, settings.nodes)],
        log_every_n_steps=STEPS_BETWEEN_LOGS,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        benchmark=on_gpu,
        enable_model_summary=False,
        enable_progress_bar=False,  # replaced by `callbacks.ProgressOfImages`
    )


def _quieten() -> None:
    """Suppress Lightning's messages that users cannot act on."""
    level = logging.WARNING if runs.on_first_device() else logging.ERROR
    if not runs.on_first_device():
        logging.getLogger().setLevel(level)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(level)
    for message in (
        ".*does not have many workers.*",  # the data loaders need none
        ".*smaller than the logging interval.*",  # small data
        ".*Checkpoint directory .* exists and is not empty.*",  # resumed
        ".*recommended to use `self.log.*sync_dist=True.*",  # torchmetrics has done that
        ".*recommended to .*use `Trainer\\(devices=1.*",  # every image is scored once regardless
        ".*configure_optimizers` returned `None`.*",  # fitted in closed form
        ".*training_step` returned `None`.*",  # fitted in closed form
        ".*module\\(s\\) in eval mode at the start of training.*",  # trained before
        ".*isinstance\\(treespec, LeafSpec\\).*",  # between Lightning and torch
    ):
        warnings.filterwarnings("ignore", message)
