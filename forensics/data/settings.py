"""Settings of a data set."""

from dataclasses import dataclass
from pathlib import Path

from forensics import checks
from forensics.errors import UserError
from forensics.images.geometry import Match, ResizeFilter, View


@dataclass
class DatasetSettings:
    """Sources and their roles.

    Attributes:
        root: folder with one folder for each source.
        folders: folder by source, for sources whose folder is not ``root/<name>``.
        real: sources of real images, in equal shares of the class.
        unseen_real: further sources of real images, used only to test for false positives.
        generators: sources of generated images; all of them are tested.
        train_on: those of ``generators`` that are trained on, in equal shares of the class.
        validate_on: further sources of generated images, used for validation only, with as many
            images as there are real validation images.
        paired: put a real image and the image made from it into one batch, with the same draws of
            the preprocess.
        train_count: number of images of each source used for training: the first ones.
        test_count: number of images of each source used for the test: the last ones.
        drop_near_duplicates: drop near-duplicates, not only copies, from the training images.
        validation_share: share of the training images used for validation, in (0, 1).
        image_size: height and width in pixels of the detector's training images.
        view: the centre square of an image resized to ``image_size``, or native pixels of it.
        crop_size: for ``crop``, height and width in pixels of the square of native pixels: training
            takes random crops of ``image_size``, the test all of it. None for ``resize``.
        resize_filter: the antialiased filter of ``resize``.
        match: the processing applied to all images alike, or none.
        min_side: files with a shorter side in pixels are rejected; for ``crop``, also those with a
            side shorter than ``crop_size``.
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
    view: View
    crop_size: int | None
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
                        f"dataset.{key} names {name}, which has another role or is listed "
                        "twice: give each source one role.",
                        key=f"dataset.{key}",
                    )
        self._check_known("folders", self.names)
        checks.at_least(self, "dataset.", train_count=1, test_count=1, image_size=1, min_side=1)
        least = f"be at least dataset.image_size={self.image_size} for dataset.view=crop"
        is_right = self.crop_size is None
        if self.view is View.crop:
            is_right = (self.crop_size or 0) >= self.image_size
        else:
            least = "be null for dataset.view=resize"
        checks.require(is_right, "dataset.crop_size", self.crop_size, least)
        share = self.validation_share
        checks.require(0 < share < 1, "dataset.validation_share", share, "be between 0 and 1")
        share = self.max_rejected_share
        checks.require(0 <= share <= 1, "dataset.max_rejected_share", share, "be in [0, 1]")

    @property
    def side(self) -> int:
        """Height and width in pixels of a prepared image."""
        return self.crop_size or self.image_size

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
        """Refuse sources that can be tested on, but not trained on."""
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
        """Refuse training without generated images, unless the detector is one-class.

        Raises:
            UserError: if ``train_on`` is empty for a detector that needs both classes.
        """
        if self.paired and not self.train_on:
            raise UserError(
                "dataset.paired pairs real and generated images, but dataset.train_on is empty: "
                "leave out dataset.paired.",
                key="dataset.paired",
            )
        if not self.train_on and not one_class:
            raise UserError(
                "dataset.train_on is empty: name at least one of dataset.generators, as in "
                "dataset.train_on=[NAME], or choose a model that learns from real images alone.",
                key="dataset.train_on",
            )

    def folder(self, name: str) -> Path:
        """Folder of a source."""
        return Path(self.folders.get(name, Path(self.root, name)))
