"""Settings of an evaluation."""

from dataclasses import dataclass
from typing import Any

from forensics import checks
from forensics.data.settings import DatasetSettings
from forensics.errors import UserError
from forensics.images.perturbations import chosen


@dataclass
class EvaluateSettings:
    """All settings of ``evaluate.py``.

    Attributes:
        detector: a run's folder or a ``detector.safetensors``, or a list of them.
        dataset: the tested sources; either class may be empty. Size, filter, match and minimum
            side are the detector's own.
        perturb: perturbations of further tests, see `forensics.images.perturbations.chosen`.
        plugin: a module with further detectors, see `forensics.detectors.plugins`.
        name: name of the folder below ``outputs``.
        seed: >= 0; decides bootstrap and noise.
        cache_dir: folder of prepared images, or a URI of object storage; may be shared by any
            number of runs.
    """

    detector: Any
    dataset: DatasetSettings
    perturb: list[str]
    plugin: str | None
    name: str
    seed: int
    cache_dir: str

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.expand(self, "cache_dir")
        checks.at_least(self, seed=0)
        checks.run_name(self.name)
        chosen(self.perturb)  # refuses unknown entries
        if not self.detectors:
            raise UserError("detector is empty: name a run's folder with detector=FOLDER.")
        for key in ("unseen_real", "validate_on", "paired"):
            if getattr(self.dataset, key):
                raise UserError(
                    f"dataset.{key} applies to training only: name the sources to test in "
                    "dataset.real and dataset.generators.",
                    key=f"dataset.{key}",
                )
        if not (self.dataset.real or self.dataset.generators):
            raise UserError(
                "dataset.real and dataset.generators are both empty: name a source to test on."
            )

    @property
    def detectors(self) -> list[str]:
        """``detector`` as a list."""
        listed = self.detector if isinstance(self.detector, list) else [self.detector]
        return [checks.expanded("detector", str(path)) for path in listed]
