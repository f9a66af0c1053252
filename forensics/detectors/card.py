"""Metadata stored in a detector file: everything that scoring needs besides the weights."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forensics.checks import mismatch
from forensics.detectors import DETECTORS
from forensics.model_files import Content, Upgrade

CERTAIN_REAL, CERTAIN_GENERATED = "source_0.05", "source_0.01"
"""Thresholds at a 5 % and a 1 % false-positive rate on validation real images: an image is called
real at or above the first, generated below the second."""

RENAMED = {"none": "rgb", "nearest": "npr", "median": "lpd"}
"""Front ends by their names up to format 2, and their current names."""


@dataclass
class Input:
    """Preparation of an image for the detector.

    Attributes:
        image_size: height and width in pixels.
        resize_filter: one of `forensics.images.geometry.ResizeFilter`.
        match: one of `forensics.images.geometry.Match`.
        decode_policy: version of the decode policy, `forensics.images.decode.POLICY_VERSION`.
        precision: one of `forensics.compute.Precision`, used in the test and for scoring.
        view: one of `forensics.images.geometry.View`.
        crop_size: for ``crop``, height and width in pixels of the square that is scored.
    """

    image_size: int
    resize_filter: str
    match: str
    decode_policy: int
    precision: str
    view: str
    crop_size: int | None

    def __post_init__(self) -> None:
        """Refuse a crop without a size, or smaller than the network's input.

        Raises:
            ValueError: in that case.
        """
        if (self.view == "crop") != (self.crop_size is not None) or self.side < self.image_size:
            raise ValueError(f"view is {self.view}, crop_size {self.crop_size}")

    @property
    def side(self) -> int:
        """Height and width in pixels of the square that is scored."""
        return self.crop_size or self.image_size


@dataclass
class Calibration:
    """Thresholds and calibrated probabilities, fitted to validation images alone.

    Attributes:
        thresholds: scores by name, as in ``result.json``; an image is real at or above them.
        offset: the probability of real is ``sigmoid((score - offset) / temperature)``; None if
            there were no generated validation images to fit it to.
        temperature: above 0; None if ``offset`` is None.
        real_mean: mean score of the validation real images; None in older files.
        real_std: standard deviation of these scores; None in older files.
        largest_changes: largest absolute change of a validation image's score by each of
            `forensics.images.perturbations.MILD_CHANGES`; None in older files, and where
            `forensics.evaluation.results.largest_changes` cannot measure it.
    """

    thresholds: dict[str, float]
    offset: float | None
    temperature: float | None
    real_mean: float | None
    real_std: float | None
    largest_changes: dict[str, float] | None

    def probability_real(self, score: float) -> float | None:
        """The probability of real for a score; None if there is no calibration."""
        if self.offset is None or self.temperature is None:
            return None
        scaled = (score - self.offset) / self.temperature
        return float(torch.tensor(scaled, dtype=torch.float64).sigmoid())

    def __post_init__(self) -> None:
        """Refuse unusable thresholds, offset or temperature.

        Raises:
            ValueError: if a value is missing or out of range.
        """
        for name in (CERTAIN_REAL, CERTAIN_GENERATED):
            if name not in self.thresholds:
                raise ValueError(f"thresholds lack {name}")
        for name, threshold in self.thresholds.items():
            if not math.isfinite(threshold):
                raise ValueError(f"threshold {name} is {threshold}")
        if (self.offset is None) != (self.temperature is None):
            raise ValueError("offset and temperature must both be there, or neither")
        if self.offset is not None and not math.isfinite(self.offset):
            raise ValueError(f"offset is {self.offset}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}")
        for name in ("real_mean", "real_std"):
            if not math.isfinite(getattr(self, name) or 0):
                raise ValueError(f"{name} is {getattr(self, name)}")
        for name, change in (self.largest_changes or {}).items():
            if not 0 <= change < math.inf:
                raise ValueError(f"largest change by {name} is {change}")


@dataclass
class SpectrumGuard:
    """Spectra of the training images, to abstain on images with dissimilar spectra.

    Attributes:
        spectra: by training source, ``mean`` and ``std`` of its images' radial profiles.
        limit: largest distance to the nearest of them at which an image counts as similar.
    """

    spectra: dict[str, dict[str, list[float]]]
    limit: float

    def __post_init__(self) -> None:
        """Refuse missing or non-finite spectra.

        Raises:
            ValueError: if a value is missing or not finite.
        """
        if not (math.isfinite(self.limit) and self.spectra):
            raise ValueError("spectra of the training images are missing")
        for source, spectrum in self.spectra.items():
            for name in ("mean", "std"):
                if not all(math.isfinite(value) for value in spectrum[name]):
                    raise ValueError(f"{name} of the spectra of {source} is not a profile")


@dataclass
class Provenance:
    """Provenance of a detector.

    Attributes:
        real: real sources it was trained on.
        trained_on: generators it was trained on.
        preprocess: the training augmentation, one of `forensics.preprocess.PREPROCESSES`.
        toy: whether the training images were toy faces.
        seed: seed of the training; None if it was not recorded.
        version: version of this package that wrote the file.
        git_commit: commit of the code that trained it.
    """

    real: list[str]
    trained_on: list[str]
    preprocess: str
    toy: bool
    seed: int | None
    version: str | None
    git_commit: str | None


@dataclass
class DetectorCard:
    """Metadata stored in a detector file, in sections.

    Attributes:
        model: name of the detector, a key of `forensics.detectors.DETECTORS`.
        model_settings: its settings.
        plugin: the distribution or module that provides the network; None for the package's own.
        input: preparation of an image.
        calibration: thresholds and probabilities.
        guard: spectra of the training images; None without them.
        provenance: sources, seed and code of the training.
    """

    model: str
    model_settings: dict[str, Any]
    plugin: str | None
    input: Input
    calibration: Calibration
    guard: SpectrumGuard | None
    provenance: Provenance

    def __post_init__(self) -> None:
        """Refuse spectra whose length does not fit the image size.

        Raises:
            ValueError: if a length differs.
        """
        length = self.input.side // 2 + 1
        for source, spectrum in {} if self.guard is None else self.guard.spectra.items():
            for name in ("mean", "std"):
                if len(spectrum[name]) != length:
                    raise ValueError(f"{name} of the spectra of {source} is not a profile")

    @classmethod
    def from_file(cls, content: Mapping[str, Any]) -> "DetectorCard":
        """Read the metadata of a file of the current format.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: if something is missing, unknown or
                out of range.
        """
        sections = {name: content[name] for name in content if name != "format"}
        network, guard = dict(sections.pop("network")), sections.pop("guard")
        card = cls(
            network.pop("name"),
            network.pop("settings"),
            network.pop("plugin"),
            Input(**sections.pop("input")),
            Calibration(**sections.pop("calibration")),
            None if guard is None else SpectrumGuard(**guard),
            Provenance(**sections.pop("provenance")),
        )
        if wrong := mismatch(dataclasses.asdict(card), cls, "the card"):
            raise ValueError(wrong)
        if network.pop("image_size") != card.input.image_size:
            raise ValueError("network and input have different image sizes")
        if unknown := [*sections, *network]:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        return card

    def to_file(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of `from_file`."""
        sections = dataclasses.asdict(self)
        network = {
            "name": sections.pop("model"),
            "settings": sections.pop("model_settings"),
            "plugin": sections.pop("plugin"),
            "image_size": self.input.image_size,
        }
        return {"network": network, **sections}


def current(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run of any version, as this version would record them.

    Front ends have their current names, and settings that a detector has got since have their
    default values.

    Args:
        settings: by dotted keys, plus the option ``model`` if it is a detector's run.
    """
    kind = DETECTORS.get(str(settings.get("model")))
    added: dict[str, Any] = {
        "dataset.view": "resize",
        "dataset.split": "first_last",
        "dataset.find_layout": False,
    }
    added |= {
        f"model.{field.name}": field.default
        for field in (dataclasses.fields(kind) if kind and dataclasses.is_dataclass(kind) else ())
        if field.default is not dataclasses.MISSING
    }
    front_end = settings.get("model.front_end")
    renamed = {"model.front_end": RENAMED[front_end]} if front_end in RENAMED else {}
    return {**added, **settings, **renamed}


def _from_1(content: Content, tensors: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """Upgrade format 1: sections instead of a flat mapping, and Adam's settings in the model's.

    Format 1 recorded neither the seed nor Adam's settings; DCGAN's, its defaults, are filled in.
    They are needed to build the network, not to score.
    """
    network = {
        "name": content["model"],
        "settings": content["model_settings"]
        | {
            "learning_rate": 2e-4,
            "betas": [0.5, 0.999],
            "weight_decay": 0.0,
            "schedule": "constant",
            "warmup_epochs": 0.0,
        },
        "plugin": None,
        "image_size": content["image_size"],
    }
    input_ = ("image_size", "resize_filter", "match", "decode_policy", "precision")
    provenance = [field.name for field in dataclasses.fields(Provenance) if field.name != "seed"]
    upgraded = {
        "format": 2,
        "network": network,
        "input": {name: content[name] for name in input_},
        "calibration": {
            "thresholds": content["thresholds"],
            "offset": 0.0,
            "temperature": content["temperature"],
        },
        "guard": {"spectra": content["spectra"], "limit": content["spectrum_limit"]},
        "provenance": {name: content[name] for name in provenance} | {"seed": None},
    }
    renamed = {
        f"convolutions.{name.removeprefix('features.')}" if name.startswith("features.") else name:
        tensor for name, tensor in tensors.items()
    }  # fmt: skip
    return upgraded, renamed


def _from_2(content: Content, tensors: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """Upgrade format 2: the current names of front ends, and images that are resized.

    It recorded no scores of validation real images.
    """
    network = dict(content["network"])
    network["settings"] = {
        name: RENAMED.get(value, value) if name == "front_end" else value
        for name, value in network["settings"].items()
    }
    input_ = dict(content["input"]) | {"view": "resize", "crop_size": None}
    calibration = dict(content["calibration"]) | {"real_mean": None, "real_std": None}
    changed = {"network": network, "input": input_, "calibration": calibration}
    return content | {"format": 3} | changed, tensors


def _from_3(content: Content, tensors: dict[str, Tensor]) -> tuple[Content, dict[str, Tensor]]:
    """Upgrade format 3, which did not record how far mild changes move a score."""

    def upgraded(card: Content) -> Content:
        settings = dict(card["network"]["settings"])
        if isinstance(settings.get("members"), list):
            settings["members"] = [upgraded(member) for member in settings["members"]]
        network = card["network"] | {"settings": settings}
        return card | {
            "network": network,
            "calibration": card["calibration"] | {"largest_changes": None},
        }

    return upgraded(content) | {"format": 4}, tensors


UPGRADES: dict[int, Upgrade] = {1: _from_1, 2: _from_2, 3: _from_3}
"""Functions that upgrade a detector file to the next format, by the file's format.

An ensemble's file has the cards of its members, from format 3 on, in its settings: whatever changes
a card has to change them, too.
"""
