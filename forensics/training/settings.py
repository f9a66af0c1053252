"""Settings of the training of detectors and generators."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from forensics import checks
from forensics.compute import Precision
from forensics.data.faces import FacesSettings
from forensics.data.settings import DatasetSettings
from forensics.data.shards import is_uri
from forensics.detectors import DetectorSettings
from forensics.generators import GeneratorSettings
from forensics.images.perturbations import chosen
from forensics.preprocess.base import Preprocess
from forensics.training.checkpoints import MONITORS
from forensics.training.loggers import Service


class AuditMode(StrEnum):
    """Whether to audit before training, and whether warnings end the run."""

    warn = "warn"
    fail = "fail"
    off = "off"


class Debug(StrEnum):
    """Whether to try a run out on a few images; its figures then say nothing."""

    off = "off"
    quick = "quick"


QUICK_BATCHES = 2
"""Batches of everything in a ``quick`` run."""

QUICK = (
    "debug=quick: two batches of everything and one epoch, to try a run out; its figures say "
    "nothing."
)


@dataclass
class TrainerSettings:
    """Device and numeric precision of training.

    Attributes:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: number of devices of each machine that train together.
        nodes: number of machines, which are expected to share their files.
        precision: ``auto`` is bfloat16 autocast if the device supports it, else float32.
        channels_last: keep images channels last in memory, which is faster.
    """

    accelerator: str
    devices: int
    nodes: int
    precision: Precision
    channels_last: bool

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        known = self.accelerator in ("auto", "cpu", "gpu")
        checks.require(known, "trainer.accelerator", self.accelerator, "be auto, cpu or gpu")
        checks.at_least(self, "trainer.", devices=1, nodes=1)

    @property
    def all_devices(self) -> int:
        """Number of devices of all nodes together."""
        return self.devices * self.nodes


@dataclass
class TrainSettings:
    """All settings of ``train.py``.

    Attributes:
        model: settings of one of `forensics.detectors.DETECTORS`.
        preprocess: training augmentation (the paper: preprocessing), one of
            `forensics.preprocess.PREPROCESSES`.
        dataset: sources and their roles.
        trainer: device and precision.
        audit: audit of the images before training: ``warn`` of its findings, ``fail`` or ``off``.
        plugin: a module with further detectors, see `forensics.detectors.plugins`.
        name: name of the run's folder below ``outputs``.
        seed: >= 0; decides weights, validation images, order and draws.
        max_epochs: maximum number of passes over the training images.
        batch_size: images in a batch, over all devices together.
        monitor: validation metric that chooses the checkpoint, of
            `forensics.training.checkpoints.MONITORS`.
        patience: epochs without improvement of ``monitor`` after which training stops; None trains
            for ``max_epochs``.
        watch: images of each real source and unseen generator whose AUROC is logged after every
            epoch, to look at; taken from those in no part of the split; 0 for none.
        perturb: perturbations under which validation and test are repeated, see
            `forensics.images.perturbations.chosen`.
        logger: a tracking service for the curves, besides TensorBoard's files and ``epochs.csv``.
        cache_dir: folder of prepared images, or a URI of object storage; may be shared by any
            number of runs.
        debug: ``quick`` trains for one epoch and takes at most two batches of images of each source
            for training and for the test, so that a run ends soon; all output says so.
        init: run folder or detector file whose weights the training starts with, or None.
        resume: the folder of a run to resume, or None.
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
    watch: int
    perturb: list[str]
    logger: Service
    cache_dir: str
    debug: Debug
    init: str | None
    resume: str | None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.expand(self, "cache_dir", "init", "resume")
        self.dataset.check_training()
        checks.at_least(self, seed=0, max_epochs=1, batch_size=2, watch=0)
        exact = "be 0 for the toy faces: only the images that the split uses are rendered"
        checks.require(not (self.watch and self.dataset.toy), "watch", self.watch, exact)
        checks.run_name(self.name)
        chosen(self.perturb)  # refuses unknown entries
        paired = self.dataset.paired
        _check_seed_and_batch(self.seed, self.batch_size, self.trainer, paired=paired)
        known = self.monitor in MONITORS
        checks.require(known, "monitor", self.monitor, f"be {' or '.join(MONITORS)}")
        if self.patience is not None:
            checks.at_least(self, patience=1)
        if self.debug is Debug.quick:
            few, dataset = QUICK_BATCHES * self.batch_size, self.dataset
            self.max_epochs = 1
            dataset.train_count = min(dataset.train_count or few, few)
            dataset.test_count = min(dataset.test_count or few, few)

    @property
    def detector(self) -> DetectorSettings:
        """``model`` with its type."""
        return cast(DetectorSettings, self.model)

    @property
    def operator(self) -> Preprocess:
        """``preprocess`` with its type."""
        return cast(Preprocess, self.preprocess)


@dataclass
class GenerateSettings:
    """All settings of ``generate.py``.

    Attributes:
        generator: settings of one of `forensics.generators.GENERATORS`.
        dataset: location and preparation of the faces.
        trainer: device and precision.
        real: the source to train on: a folder below ``dataset.root``.
        source: the folder below ``dataset.root`` to write into; None is the generator's name.
        images: number of images to write; for resynthesis, they are made from the first real ones.
        name: name of the run's folder below ``outputs``.
        seed: >= 0; decides weights, order and latents.
        retry_seeds: number of further seeds, the next ones, to try on one device if a GAN collapses
            or does not learn.
        max_epochs: number of epochs; like the next two, for GANs only.
        steps_per_epoch: generator steps in an epoch, after which samples are logged and a
            checkpoint is saved.
        batch_size: real images in a batch of the critic, over all devices together.
        logger: as in `TrainSettings`.
        debug: ``quick`` trains for two steps and writes at most two batches of images, into the
            source ``<source>_debug``.
        cache_dir: folder of prepared images; may be shared by any number of runs.
        resume: the folder of a run to resume, or None.
        sample: the folder of a complete run whose generator is sampled without training, or None.
    """

    generator: Any
    dataset: FacesSettings
    trainer: TrainerSettings
    real: str
    source: str | None
    images: int
    name: str
    seed: int
    retry_seeds: int
    max_epochs: int
    steps_per_epoch: int
    batch_size: int
    logger: Service
    cache_dir: str
    debug: Debug
    resume: str | None
    sample: str | None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.expand(self, "cache_dir", "resume", "sample")
        local = "be a local folder for generators"
        checks.require(not is_uri(self.cache_dir), "cache_dir", self.cache_dir, local)
        checks.at_least(
            self, seed=0, retry_seeds=0, images=0, max_epochs=1, steps_per_epoch=1, batch_size=2
        )
        checks.run_name(self.name)
        _check_seed_and_batch(self.seed, self.batch_size, self.trainer)
        checks.source_name("real", self.real)
        if self.source is not None:
            checks.source_name("source", self.source)
        alone = self.trainer.all_devices == 1 or not self.retry_seeds
        checks.require(alone, "retry_seeds", self.retry_seeds, "be 0 on several devices")
        if self.debug is Debug.quick:
            self.max_epochs, self.steps_per_epoch = 1, min(self.steps_per_epoch, QUICK_BATCHES)
            self.images = min(self.images, QUICK_BATCHES * self.batch_size)

    @property
    def gan(self) -> GeneratorSettings:
        """``generator`` with its type."""
        return cast(GeneratorSettings, self.generator)


def _check_seed_and_batch(
    seed: int, batch_size: int, trainer: TrainerSettings, *, paired: bool = False
) -> None:
    checks.require(seed < 2**32, "seed", seed, "be below 2**32")
    devices = trainer.all_devices
    multiple = f"be a multiple of {devices}, trainer.devices times trainer.nodes"
    if paired:
        multiple += ", twice that for dataset.paired"
    checks.require(batch_size % (devices * (1 + paired)) == 0, "batch_size", batch_size, multiple)
