"""Settings of a data set: sources and their roles."""

from dataclasses import dataclass
from pathlib import Path

from forensics import checks
from forensics.errors import UserError
from forensics.images.geometry import Match, ResizeFilter


@dataclass
class DatasetSettings:
    """Sources and their roles.

    Attributes:
        root: the folder that holds one folder for each source.
        folders: where a source lies whose folder is not ``root/<name>``.
        real: sources of real images, in equal shares of the class.
        unseen_real: further sources of real images, tested for false positives alone.
        generators: sources of generated images; all of them are tested.
        train_on: those of ``generators`` that are trained on, in equal shares of the class.
        validate_on: further sources of generated images, of which some validate, as many as there
            are real ones; none trains or tests.
        paired: a real image and one made from it are in one batch, with the same draws of the
            preprocess.
        train_count: images of each source that may train, the first ones.
        test_count: images of each source that test, the last ones.
        drop_near_duplicates: drop not only copies but near-duplicates, too, from training images.
        validation_share: share of the training images that validates, in (0, 1).
        image_size: height and width in pixels that images are resized to.
        resize_filter: the antialiased filter for it.
        match: the handling that all images have in common, or none.
        min_side: files with a shorter side in pixels are rejected.
        max_rejected_share: a source with a larger share of rejected files stops the run.
        toy: the sources are the demo's, rendered into ``root`` when missing.
    """

    root: str
    folders: dict[str, str]
    real: list[str]
    unseen_real: list[str]
    generators: list[str]
    train_on: list[str]
    validate_on: list[str]
    paired: bool
    train_count: int
    test_count: int
    drop_near_duplicates: bool
    validation_share: float
    image_size: int
    resize_filter: ResizeFilter
    match: Match
    min_side: int
    max_rejected_share: float
    toy: bool

    def __post_init__(self) -> None:
        """Refuse settings out of range, and sources that contradict each other."""
        for key in ("real", "unseen_real", "generators", "validate_on"):
            for name in getattr(self, key):
                checks.source_name(f"dataset.{key}", name)
                if self.names.count(name) > 1:
                    raise UserError(
                        f"dataset.{key} names {name}, which has another role or stands there "
                        "twice: give each source one role.",
                        key=f"dataset.{key}",
                    )
        self._check_known("folders", self.names)
        checks.at_least(self, "dataset.", train_count=1, test_count=1, image_size=1, min_side=1)
        share = self.validation_share
        checks.require(0 < share < 1, "dataset.validation_share", share, "be between 0 and 1")
        share = self.max_rejected_share
        checks.require(0 <= share <= 1, "dataset.max_rejected_share", share, "be in [0, 1]")

    @property
    def all_real(self) -> list[str]:
        """Sources of real images."""
        return [*self.real, *self.unseen_real]

    @property
    def names(self) -> list[str]:
        """All sources, the real ones first."""
        return [*self.all_real, *self.generators, *self.validate_on]

    def _check_known(self, key: str, known: list[str]) -> None:
        for name in getattr(self, key):
            if name not in known:
                raise UserError(
                    f"dataset.{key} names {name}, which is not among {', '.join(known)}: "
                    "correct it, or add it to dataset.generators.",
                    key=f"dataset.{key}",
                )

    def check_training(self) -> None:
        """Refuse sources that no detector can be trained on, though one could be tested on them."""
        for key in ("real", "generators"):
            if not getattr(self, key):
                raise UserError(
                    f"dataset.{key} is empty: name at least one source, as in "
                    f"dataset.{key}=[NAME]; a detector needs real and generated images.",
                    key=f"dataset.{key}",
                )
        for name in self.train_on:
            if self.train_on.count(name) > 1:
                raise UserError(
                    f"dataset.train_on names {name} twice: name each source once.",
                    key="dataset.train_on",
                )
        self._check_known("train_on", self.generators)

    def check_classes(self, *, one_class: bool) -> None:
        """Refuse to train without generated images, unless the detector learns from real ones.

        Raises:
            UserError: then.
        """
        if self.paired and not self.train_on:
            raise UserError(
                "dataset.paired puts real and generated images together, but dataset.train_on is "
                "empty: leave dataset.paired out.",
                key="dataset.paired",
            )
        if not self.train_on and not one_class:
            raise UserError(
                "dataset.train_on is empty: name at least one of dataset.generators, as in "
                "dataset.train_on=[NAME], or take a model that learns from real images alone.",
                key="dataset.train_on",
            )

    def folder(self, name: str) -> Path:
        """Folder of a source."""
        return Path(self.folders.get(name, Path(self.root, name)))
