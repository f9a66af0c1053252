"""Settings of everything that trains."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from forensics import checks
from forensics.compute import Precision
from forensics.data.faces import FacesSettings
from forensics.data.settings import DatasetSettings
from forensics.detectors import DetectorSettings
from forensics.generators import GeneratorSettings
from forensics.images.perturbations import chosen
from forensics.preprocess.base import Preprocess
from forensics.training.checkpoints import MONITORS


class AuditMode(StrEnum):
    """Consequence of warnings of the audit before training."""

    warn = "warn"
    fail = "fail"
    off = "off"


@dataclass
class TrainerSettings:
    """On what and in which numbers to train.

    Attributes:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: how many of them train together.
        precision: ``auto`` is bfloat16 autocast where the device computes it, else float32.
        channels_last: keep images channels last in memory, which is faster.
    """

    accelerator: str
    devices: int
    precision: Precision
    channels_last: bool

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        known = self.accelerator in ("auto", "cpu", "gpu")
        checks.require(known, "trainer.accelerator", self.accelerator, "be auto, cpu or gpu")
        checks.at_least(self, "trainer.", devices=1)


@dataclass
class TrainSettings:
    """Everything ``train.py`` can be told.

    Attributes:
        model: settings of one of `forensics.detectors.DETECTORS`.
        preprocess: one of `forensics.preprocess.PREPROCESSES`.
        dataset: sources and their roles.
        trainer: device and precision.
        audit: of the images before training: ``warn`` of what it finds, ``fail``, or ``off``.
        plugin: a module that brings further detectors, see `forensics.detectors.plugins`.
        name: of the run's folder below ``outputs``.
        seed: >= 0; decides weights, validation images, order and draws.
        max_epochs: times the training images are gone through.
        batch_size: images in a batch, over all devices together.
        monitor: which metric of the validation images chooses the checkpoint, of
            `forensics.training.checkpoints.MONITORS`.
        patience: epochs without improvement of ``monitor`` after which training stops; None trains
            for ``max_epochs``.
        perturb: what validation and test are repeated under, as
            `forensics.images.perturbations.chosen` takes it.
        cache_dir: where prepared images are kept; may be shared by any number of runs.
        resume: the folder of an unfinished run to resume, or None.
    """

    model: Any
    preprocess: Any
    dataset: DatasetSettings
    trainer: TrainerSettings
    audit: AuditMode
    plugin: str | None
    name: str
    seed: int
    max_epochs: int
    batch_size: int
    monitor: str
    patience: int | None
    perturb: list[str]
    cache_dir: str
    resume: str | None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.dataset.check_training()
        checks.at_least(self, seed=0, max_epochs=1, batch_size=2)
        checks.run_name(self.name)
        chosen(self.perturb)  # refuses others
        paired = self.dataset.paired
        _check_seed_and_batch(self.seed, self.batch_size, self.trainer.devices, paired=paired)
        known = self.monitor in MONITORS
        checks.require(known, "monitor", self.monitor, f"be {' or '.join(MONITORS)}")
        if self.patience is not None:
            checks.at_least(self, patience=1)

    @property
    def detector(self) -> DetectorSettings:
        """``model``, as what it is."""
        return cast(DetectorSettings, self.model)

    @property
    def operator(self) -> Preprocess:
        """``preprocess``, as what it is."""
        return cast(Preprocess, self.preprocess)


@dataclass
class GenerateSettings:
    """Everything ``generate.py`` can be told.

    Attributes:
        generator: settings of one of `forensics.generators.GENERATORS`.
        dataset: where the faces are.
        trainer: device and precision.
        real: the source to train on: a folder below ``dataset.root``.
        source: the folder below ``dataset.root`` to write into; None is the generator's name.
        images: how many to write; of resynthesis the first real ones are made again.
        name: of the run's folder below ``outputs``.
        seed: >= 0; decides weights, order and latents.
        max_epochs: how often ``steps_per_epoch`` are done; like the next two, of GANs alone.
        steps_per_epoch: of the generator; after each epoch samples are shown and a checkpoint is
            kept.
        batch_size: real images the critic is shown at a time, over all devices together.
        cache_dir: where prepared images are kept; may be shared by any number of runs.
        resume: the folder of an unfinished run to resume, or None.
        sample: the folder of a complete run whose generator is sampled, none trained, or None.
    """

    generator: Any
    dataset: FacesSettings
    trainer: TrainerSettings
    real: str
    source: str | None
    images: int
    name: str
    seed: int
    max_epochs: int
    steps_per_epoch: int
    batch_size: int
    cache_dir: str
    resume: str | None
    sample: str | None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.at_least(self, seed=0, images=0, max_epochs=1, steps_per_epoch=1, batch_size=2)
        checks.run_name(self.name)
        _check_seed_and_batch(self.seed, self.batch_size, self.trainer.devices)
        checks.source_name("real", self.real)
        if self.source is not None:
            checks.source_name("source", self.source)

    @property
    def gan(self) -> GeneratorSettings:
        """``generator``, as what it is."""
        return cast(GeneratorSettings, self.generator)


def _check_seed_and_batch(
    seed: int, batch_size: int, devices: int, *, paired: bool = False
) -> None:
    checks.require(seed < 2**32, "seed", seed, "be below 2**32")
    multiple = f"be a multiple of trainer.devices={devices}"
    if paired:
        multiple += ", twice that for dataset.paired"
    checks.require(batch_size % (devices * (1 + paired)) == 0, "batch_size", batch_size, multiple)
