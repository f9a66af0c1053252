"""Split of the images into training, validation and test; no image is in two of them.

As in the paper the first N of a source train and its last N test. Validation is a seeded share of
the training images, and the only part that may choose a checkpoint or a threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics import checks
from forensics.data.sources import Source, repetitions
from forensics.errors import UserError
from forensics.images.geometry import Match, ResizeFilter


@dataclass
class DatasetSettings:
    """Sources and their roles.

    Attributes:
        root: the folder that holds one folder for each source.
        folders: where a source lies whose folder is not ``root/<name>``.
        real: sources of real images, in equal shares of the class.
        generators: sources of generated images; all of them are tested.
        train_on: those of ``generators`` that are trained on, in equal shares of the class.
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
    generators: list[str]
    train_on: list[str]
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
        names = [*self.real, *self.generators]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"The source {name} stands twice in dataset.real and dataset.generators: "
                    "name each source once.",
                    key="dataset.real" if name in self.real else "dataset.generators",
                )
            key = "dataset.real" if name in self.real else "dataset.generators"
            checks.source_name(key, name)
        self._check_known("folders", names)
        checks.at_least(self, "dataset.", train_count=1, test_count=1, image_size=1, min_side=1)
        share = self.validation_share
        checks.require(0 < share < 1, "dataset.validation_share", share, "be between 0 and 1")
        share = self.max_rejected_share
        checks.require(0 <= share <= 1, "dataset.max_rejected_share", share, "be in [0, 1]")

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
        if not self.train_on and not one_class:
            raise UserError(
                "dataset.train_on is empty: name at least one of dataset.generators, as in "
                "dataset.train_on=[NAME], or take a model that learns from real images alone.",
                key="dataset.train_on",
            )

    def folder(self, name: str) -> Path:
        """Folder of a source."""
        return Path(self.folders.get(name, Path(self.root, name)))


@dataclass(frozen=True)
class Part:
    """Some images of some sources.

    Attributes:
        source: ``(n,)`` position of each image's source among the sources.
        row: ``(n,)`` its row in that source.
    """

    source: NDArray[np.int64]
    row: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> "Part":
        """The given rows of each source, in the order of the sources."""
        source = np.repeat(np.arange(len(rows)), [len(of_source) for of_source in rows])
        return cls(source, np.concatenate(rows).astype(np.int64))

    def __len__(self) -> int:
        return len(self.row)

    def of_source(self, source: int) -> NDArray[np.int64]:
        """The rows of one source, in order."""
        return np.asarray(self.row[self.source == source])

    def count(self, source: int) -> int:
        """Number of images of one source."""
        return int((self.source == source).sum())


class Split(NamedTuple):
    """The three parts, which share no image.

    Attributes:
        train: what the weights are fitted to.
        validation: what chooses checkpoint and threshold.
        test: what is reported.
        dropped: by source, how many training images were dropped because their pixels are those
            of a tested image or of an earlier training image, or near to them if that is set.
        notes: sentences on what the sources could not give.
    """

    train: Part
    validation: Part
    test: Part
    dropped: dict[str, int]
    notes: list[str]


def split_sources(sources: list[Source], settings: DatasetSettings, seed: int) -> Split:
    """Split sources as the paper does, in full where they are large enough, else in proportion.

    A source too small for both counts is shared in their proportion. Both classes train with the
    same number of images, and reals test with no more than the largest generator, so that
    neither class outweighs the other in an accuracy.

    Args:
        sources: those of ``settings.real``, then those of ``settings.generators``, in order.
        settings: counts and roles.
        seed: decides which training images validate.

    Raises:
        UserError: if a source has nothing left to train, validate or test with.
    """
    peers = dict.fromkeys(settings.real, settings.real)
    peers |= dict.fromkeys(settings.train_on, settings.train_on)
    wanted = settings.train_count + settings.test_count
    tested: dict[str, int] = {}
    for source in sources:
        count = min(settings.test_count, len(source))
        if source.name in peers and len(source) < wanted:
            count = min(count, max(1, round(len(source) * settings.test_count / wanted)))
        tested[source.name] = count
    largest = max(tested[name] for name in settings.generators)
    for name in settings.real:
        tested[name] = min(tested[name], largest)

    test = [np.arange(len(s) - tested[s.name], len(s)) for s in sources]
    # What the same image has the same of.
    pictures: Sequence[Sequence[object]] = (
        [group.tolist() for group in repetitions(sources)[1]]
        if settings.drop_near_duplicates
        else [source.digests for source in sources]
    )
    taken = {p[row] for p, rows in zip(pictures, test, strict=True) for row in rows.tolist()}
    candidates: dict[str, list[int]] = {}
    dropped: dict[str, int] = {}
    for source, picture in zip(sources, pictures, strict=True):
        if source.name not in peers:
            continue
        rows = range(min(settings.train_count, len(source) - tested[source.name]))
        candidates[source.name] = kept = []
        for row in rows:
            if picture[row] not in taken:
                # Once is enough: a second copy could validate what the first one trains.
                taken.add(picture[row])
                kept.append(row)
        dropped[source.name] = len(rows) - len(kept)

    # The smallest number that both classes can share evenly among their sources, and how often
    # every source can give its part of that.
    share = math.lcm(len(settings.real), len(settings.train_on) or 1)
    times = min(len(rows) * len(peers[name]) // share for name, rows in candidates.items())
    validating = max(1, round(times * settings.validation_share))
    if times <= validating:
        name = min(candidates, key=lambda name: len(candidates[name]) * len(peers[name]))
        raise UserError(
            f"The source {name} has too few images to train and validate with "
            f"({len(candidates[name])} are left, {tested[name]} test and {dropped[name]} were "
            "dropped as copies): add images, or change dataset.train_count or "
            "dataset.test_count.",
            key=name,
        )
    # A stream of its own: those of the orders are seeded with (seed, epoch).
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    train, validation = [], []
    for source in sources:
        rows_of_both: list[int] = []
        held_out = 0
        if source.name in peers:
            each = share // len(peers[source.name])
            rows_of_both = candidates[source.name][: times * each]
            held_out = validating * each
        shuffled = generator.permutation(np.array(rows_of_both, np.int64))
        validation.append(np.sort(shuffled[:held_out]))
        train.append(np.sort(shuffled[held_out:]))

    notes = []
    for position, source in enumerate(sources):
        used = {"test": (tested[source.name], settings.test_count)}
        if source.name in peers:
            wanted = settings.train_count // len(peers[source.name])
            used["train or validate"] = (len(train[position]) + len(validation[position]), wanted)
        short = [f"{n} {use} instead of {all_}" for use, (n, all_) in used.items() if n < all_]
        if short:
            notes.append(f"{source.name} has {len(source)} images: {', '.join(short)}.")
        if dropped.get(source.name):
            notes.append(
                f"{source.name}: {dropped[source.name]} training images dropped as copies "
                f"{'or near-duplicates ' if settings.drop_near_duplicates else ''}of tested "
                "images or of each other."
            )
    return Split(Part.of(train), Part.of(validation), Part.of(test), dropped, notes)
