"""Settings of a data set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from forensics import checks
from forensics.errors import UserError
from forensics.images.geometry import Match, ResizeFilter, View


class Protocol(StrEnum):
    """What decides the part of an image: training, validation or test.

    ``first_last``: the paper's: the first images of a source train, the last ones test.
    ``given``: the data set's own folders, such as train, valid and test.
    ``listed``: files of names.
    ``by_group``: a seeded draw of whole groups, such as the images of a person or of a video.
    """

    first_last = "first_last"
    given = "given"
    listed = "listed"
    by_group = "by_group"


PARTS = ("train", "validation", "test")


@dataclass
class DatasetSettings:
    """Sources and their roles.

    Attributes:
        root: folder with one folder for each source.
        find_layout: find the sources by the names of the folders below ``root``; then ``real`` is
            found, too, and may add sources for generators without real images of their own.
        folders: folder by source, for sources whose folder is not ``root/<name>``.
        below: by source, those folders below its folder that have its images, if not all do.
        real: sources of real images, in equal shares of the class.
        unseen_real: further sources of real images, used only to test for false positives.
        generators: sources of generated images; all of them are tested.
        pairs: by generator, the real source, or the list of them, that it is compared with; others
            are compared with each of ``real``.
        train_on: those of ``generators`` that are trained on, in equal shares of the class.
        validate_on: further sources of generated images, used for validation only, with as many
            images as there are real validation images.
        paired: put a real image and the image made from it into one batch, with the same draws of
            the preprocess.
        split: what decides the part of an image.
        listed: for ``listed``, by part (train, validation, test), a text file with a path of an
            image or folder on each line: below ``root``, or below ``<source>/``.
        group: for ``by_group``, the group of an image: the name of the folder that it is in (1), of
            the one above (2) and so on, or what the group of a regular expression finds in its
            path. Equal names are one group, also of different sources.
        train_count: number of images of each source used for training: the first ones; None for
            all, if the data set says which.
        test_count: number of images of each source used for the test: the last ones; None for all.
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
    find_layout: bool
    folders: dict[str, str]
    below: dict[str, list[str]]
    real: list[str]
    unseen_real: list[str]
    generators: list[str]
    pairs: Any
    train_on: list[str]
    validate_on: list[str]
    paired: bool
    split: Protocol
    listed: Any
    group: Any
    train_count: int | None
    test_count: int | None
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
        self.root = checks.expanded("dataset.root", self.root)
        self.folders = {name: checks.expanded(f"dataset.folders.{name}", folder)
                        for name, folder in self.folders.items()}  # fmt: skip
        for key in ("real", "unseen_real", "generators", "validate_on"):
            for name in getattr(self, key):
                checks.source_name(f"dataset.{key}", name)
                if self.names.count(name) > 1:
                    raise UserError(
                        f"dataset.{key} names {name}, which has another role or is listed "
                        "twice: give each source one role.",
                        key=f"dataset.{key}",
                    )
        for key in ("pairs", "listed"):
            value = getattr(self, key) or {}
            checks.require(
                isinstance(value, dict), f"dataset.{key}", value, "be {NAME: VALUE, ...}"
            )
            setattr(self, key, value)
        self._check_known("folders", self.names)
        self._check_known("below", self.names)
        for name, below in self.below.items():
            checks.require(bool(below), f"dataset.below.{name}", below, "name folders")
        self._check_known("pairs", self.generators)
        for generator, reals in self._pairs().items():
            is_known = bool(reals) and all(name in self.all_real for name in reals)
            what = f"compare {generator} with sources of dataset.real"
            checks.require(is_known, "dataset.pairs", self.pairs[generator], what)
        counts = ("train_count", "test_count")
        given = dict.fromkeys((key for key in counts if getattr(self, key) is not None), 1)
        checks.at_least(self, "dataset.", **given, image_size=1, min_side=1)
        self._check_split()
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

    def _check_split(self) -> None:
        """Refuse settings of the split that contradict each other."""
        for key, protocol in (("listed", Protocol.listed), ("group", Protocol.by_group)):
            value = getattr(self, key)
            is_set = value not in (None, {})
            least = f"be set for dataset.split={protocol}, and for no other"
            checks.require(is_set is (self.split is protocol), f"dataset.{key}", value, least)
        unknown = [part for part in self.listed if part not in PARTS]
        checks.require(not unknown, "dataset.listed", unknown, f"name {', '.join(PARTS)}")
        if isinstance(self.group, int):
            checks.require(self.group >= 1, "dataset.group", self.group, "be at least 1")
        elif self.group is not None:
            try:
                groups = re.compile(str(self.group)).groups
            except re.error:
                groups = 0
            least = "be a regular expression with one group in parentheses, or a number"
            checks.require(groups == 1, "dataset.group", self.group, least)
        # The qualities of the first images of a folder, which other protocols may test.
        is_plain = self.split is Protocol.first_last and not self.below
        right = self.match is not Match.codec or is_plain
        least = "be none, jpeg or resample unless dataset.split=first_last of named sources"
        checks.require(right, "dataset.match", self.match, least)

    def _pairs(self) -> dict[str, list[str]]:
        return {
            generator: reals if isinstance(reals, list) else [reals]
            for generator, reals in self.pairs.items()
        }

    @property
    def compared(self) -> Mapping[str, list[str]]:
        """The real sources that each generator is compared with."""
        return {name: self.real for name in self.generators} | self._pairs()

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
        """Refuse sources and counts that can be tested on, but not trained on."""
        for key in ("train_count", "test_count"):
            if getattr(self, key) is None and self.split not in (Protocol.given, Protocol.listed):
                raise UserError(
                    f"dataset.{key}=null takes all images of a part, which only "
                    "dataset.split=given|listed say: give a number.",
                    key=f"dataset.{key}",
                )
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
