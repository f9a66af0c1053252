"""Root settings; the only place that registers anything with Hydra.

Values stand in ``conf/``; the dataclasses say which settings there are, their types and ranges.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any, TypeVar, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from forensics.data.faces import FacesSettings
from forensics.data.splits import DatasetSettings
from forensics.detectors import DETECTORS, DetectorSettings
from forensics.errors import UserError
from forensics.evaluation.audit import AuditMode
from forensics.evaluation.robustness import PERTURBATIONS
from forensics.generators import GENERATORS, GeneratorSettings
from forensics.precision import Precision
from forensics.preprocess import PREPROCESSES, Preprocess

OPTIONS = {"model": DETECTORS, "preprocess": PREPROCESSES, "generator": GENERATORS}
"""What the groups offer whose settings are of many kinds."""


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
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise UserError(
                f"trainer.accelerator must be auto, cpu or gpu, not {self.accelerator}."
            )
        if self.devices < 1:
            raise UserError(f"trainer.devices must be at least 1, not {self.devices}.")


@dataclass
class TrainSettings:
    """Everything ``train.py`` can be told.

    Attributes:
        model: settings of one of `forensics.detectors.DETECTORS`.
        preprocess: one of `forensics.preprocess.PREPROCESSES`.
        dataset: sources and their roles.
        trainer: device and precision.
        audit: of the images before training: ``warn`` of what it finds, ``fail``, or ``off``.
        name: of the run's folder below ``outputs``.
        seed: >= 0; decides weights, validation images, order and draws.
        max_epochs: times the training images are gone through.
        batch_size: images in a batch, over all devices together.
        learning_rate: Adam's.
        betas: Adam's.
        perturb: of `forensics.evaluation.robustness.PERTURBATIONS`, those the test is repeated
            under, at each strength.
        cache_dir: where prepared images are kept; may be shared by any number of runs.
        resume: the folder of an unfinished run to go on with, or None.
    """

    model: Any
    preprocess: Any
    dataset: DatasetSettings
    trainer: TrainerSettings
    audit: AuditMode
    name: str
    seed: int
    max_epochs: int
    batch_size: int
    learning_rate: float
    betas: list[float]
    perturb: list[str]
    cache_dir: str
    resume: str | None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        self.dataset.check_training()
        for key, least in (("seed", 0), ("max_epochs", 1), ("batch_size", 2)):
            _at_least(self, key, least)
        _check_name(self.name)
        _check_perturb(self.perturb)
        _check_seed_and_batch(self.seed, self.batch_size, self.trainer.devices)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(
                f"learning_rate must be a finite number above 0, not {self.learning_rate}."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas must be two numbers in [0, 1), not {list(self.betas)}.")

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
        images: how many to write.
        name: of the run's folder below ``outputs``.
        seed: >= 0; decides weights, order and latents.
        max_epochs: how often ``steps_per_epoch`` are done.
        steps_per_epoch: of the generator; after each epoch samples are shown and a checkpoint is
            kept.
        batch_size: real images the critic is shown at a time, over all devices together.
        cache_dir: where prepared images are kept; may be shared by any number of runs.
        resume: the folder of an unfinished run to go on with, or None.
        sample: the folder of a whole run whose generator is sampled, none trained, or None.
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
        for key, least in (
            ("seed", 0),
            ("images", 0),
            ("max_epochs", 1),
            ("steps_per_epoch", 1),
            ("batch_size", 2),
        ):
            _at_least(self, key, least)
        _check_name(self.name)
        _check_seed_and_batch(self.seed, self.batch_size, self.trainer.devices)
        for key in ("real", "source"):
            name = getattr(self, key)
            if name is not None and (not name or "/" in name or name.startswith(".")):
                raise UserError(
                    f"{key}={name!r} is no source's name: give that of a folder below dataset.root."
                )

    @property
    def gan(self) -> GeneratorSettings:
        """``generator``, as what it is."""
        return cast(GeneratorSettings, self.generator)


@dataclass
class EvaluateSettings:
    """Everything ``evaluate.py`` can be told.

    Attributes:
        detector: a run's folder or a ``detector.safetensors``, or a list of them.
        dataset: what to test on; either class may be empty. Size, filter, match and least side
            are the detector's own.
        perturb: what is done to the images in further tests, of
            `forensics.evaluation.robustness.PERTURBATIONS`.
        name: of the folder below ``outputs``.
        seed: >= 0; decides bootstrap and noise.
        cache_dir: where prepared images are kept; may be shared by any number of runs.
    """

    detector: Any
    dataset: DatasetSettings
    perturb: list[str]
    name: str
    seed: int
    cache_dir: str

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        _at_least(self, "seed", 0)
        _check_name(self.name)
        _check_perturb(self.perturb)
        if not self.detectors:
            raise UserError("detector is empty: name a run's folder with detector=FOLDER.")
        if not (self.dataset.real or self.dataset.generators):
            raise UserError(
                "dataset.real and dataset.generators are both empty: name a source to test on."
            )

    @property
    def detectors(self) -> list[str]:
        """``detector`` as a list."""
        listed = self.detector if isinstance(self.detector, list) else [self.detector]
        return [str(one) for one in listed]


Settings = TrainSettings | GenerateSettings | EvaluateSettings
S = TypeVar("S", TrainSettings, GenerateSettings, EvaluateSettings)


def _at_least(settings: object, key: str, least: int) -> None:
    if getattr(settings, key) < least:
        raise UserError(f"{key} must be at least {least}, not {getattr(settings, key)}.")


def _check_name(name: str) -> None:
    """Refuse a name that would make a run of ``outputs`` itself, or of a folder beside it."""
    path = PurePath(name)
    if not path.parts or ".." in path.parts or path.is_absolute():
        raise UserError(
            f"name must be that of a folder below outputs, not {name!r}: for any other folder "
            "take hydra.run.dir=FOLDER."
        )


def _check_perturb(names: list[str]) -> None:
    for name in names:
        if name not in PERTURBATIONS:
            raise UserError(f"perturb names {name}, which is not among {', '.join(PERTURBATIONS)}.")


def _check_seed_and_batch(seed: int, batch_size: int, devices: int) -> None:
    if seed >= 2**32:
        raise UserError(f"seed must be below 2**32, not {seed}.")
    if batch_size % devices:
        raise UserError(
            f"batch_size must be a multiple of trainer.devices={devices}, not {batch_size}."
        )


def register() -> None:
    """Tell Hydra the types behind ``conf/``.

    They stand under ``schema/``, so that the groups themselves list nothing but choices. Folders
    of sweeps are named with ``${plus:LIST}``.
    """
    OmegaConf.register_new_resolver("plus", "+".join, replace=True)
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=TrainSettings)
    store.store(group="schema", name="dataset", node=DatasetSettings)
    store.store(group="schema", name="trainer", node=TrainerSettings)
    store.store(group="schema", name="generate", node=GenerateSettings)
    store.store(group="schema", name="evaluate", node=EvaluateSettings)
    for group, options in OPTIONS.items():
        for name, node in options.items():
            store.store(group=f"schema/{group}", name=name, node=node)


def typed(config: DictConfig, kind: type[S]) -> S:
    """Turn a composed config into settings, checked for their ranges.

    Args:
        config: of any entry point.
        kind: the settings of this one.

    Raises:
        UserError: if a value is out of range or missing, a key is unknown, or these are another
            program's settings.
    """
    _refuse_unknown(config, "")
    missing = OmegaConf.missing_keys(config)
    if missing:
        key = min(missing)
        raise UserError(f"{key} has no value: give it one with {key}=VALUE.")
    settings = OmegaConf.to_object(config)
    if not isinstance(settings, kind):
        raise UserError(
            "The run is one of another program: resume those of train.py with train.py, those of "
            "generate.py with generate.py."
        )
    return settings


def _refuse_unknown(node: DictConfig, prefix: str) -> None:
    """Refuse keys that no settings have: Hydra lets ``+KEY=VALUE`` add any, which nothing reads.

    Maps without a type of their own, such as ``dataset.folders``, take any key.
    """
    kind = OmegaConf.get_type(node)
    known = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    for name in map(str, node):
        key = f"{prefix}{name}"
        if known is not None and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f"did you mean {prefix}{close[0]}?" if close else "leave it out."
            raise UserError(f"There is no setting {key}: {guess}", key=key)
        inner = node._get_node(name)
        if isinstance(inner, DictConfig) and not inner._is_missing() and not inner._is_none():
            _refuse_unknown(inner, f"{key}.")


def option(settings: object) -> str:
    """The option of one of the groups of `OPTIONS` that gave some settings."""
    pairs = (pair for options in OPTIONS.values() for pair in options.items())
    return next(name for name, kind in pairs if type(settings) is kind)


def flat(settings: Settings) -> dict[str, Any]:
    """Settings as the command line names them: options by their group, values by dotted keys."""
    options = {group: option(one) for group in OPTIONS if (one := getattr(settings, group, None))}
    return options | _dotted(plain(settings))


def flat_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run of ``train.py`` as `flat` gives them, from its ``result.json``."""
    return {group: result[group] for group in ("model", "preprocess")} | _dotted(result["settings"])


def _dotted(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Values of nested containers by dotted keys."""

    def walk(prefix: str, node: Mapping[str, Any]) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        for key, value in node.items():
            inner = isinstance(value, dict)
            pairs |= walk(f"{prefix}{key}.", value) if inner else {prefix + key: value}
        return pairs

    return walk("", nested)


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as plain containers, for files; enums become their names."""

    def leaf(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: str(v) if isinstance(v, StrEnum) else v for key, v in pairs}

    return dataclasses.asdict(settings, dict_factory=leaf)
