"""Split of the images into training, validation and test, which are disjoint.

As in the paper, the first N images of a source are for training and the last N for the test.
Validation images are a seeded share of the training images; only they are used to choose a
checkpoint or a threshold. An image that was made from another of the run's images is in the same
part as its original, or in none.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics.data.settings import DatasetSettings
from forensics.data.sources import Needed, Source, repetitions
from forensics.errors import UserError


@dataclass(frozen=True)
class Part:
    """Some images of some sources.

    Attributes:
        source: ``(n,)`` position of each image's source in the list of sources.
        row: ``(n,)`` row of each image in its source.
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
    """The three disjoint parts.

    Attributes:
        train: images that the weights are fitted to.
        validation: images that checkpoint and thresholds are chosen on.
        test: images that results are reported on.
        pairs: ``(n, 2)`` positions in ``train`` of a real and a generated image that share a batch,
            each image once: an original and an image made from it as often as possible.
        dropped: by source, the number of training images dropped as copies (or near-duplicates, if
            set) of a test image or of an earlier training image, or because they were made from an
            image that is neither for training nor for validation.
        notes: sentences on counts that the sources could not provide.
    """

    train: Part
    validation: Part
    test: Part
    pairs: NDArray[np.int64]
    dropped: dict[str, int]
    notes: list[str]


def needed_images(settings: DatasetSettings) -> dict[str, Needed]:
    """The images of each source that can be in a part of the split."""
    fitted = {*settings.real, *settings.train_on, *settings.validate_on}
    return {
        name: Needed(
            settings.train_count if name in fitted else 0,
            0 if name in settings.validate_on else settings.test_count,
        )
        for name in settings.names
    }


def split_sources(sources: list[Source], settings: DatasetSettings, seed: int) -> Split:
    """Split sources as in the paper, with the counts of the settings or, if too small, fewer.

    A source too small for both counts is split in their proportion. Both classes have the same
    number of training images, and a real source has no more test images than the largest
    generator, so that the real class does not dominate accuracies.

    Args:
        sources: those of ``settings.names``, in order.
        settings: counts and roles.
        seed: decides which training images are used for validation.

    Raises:
        UserError: if a source has no images left for training, validation or the test.
    """
    origins = _origins(sources)
    tested = _tested(sources, settings, origins)
    test = [np.arange(len(source) - tested[source.name], len(source)) for source in sources]
    candidates, dropped = _candidates(sources, settings, origins, test)

    # The smallest number of images that both classes can divide evenly among their sources, and
    # how many times every source can provide its part of it.
    share = math.lcm(len(settings.real), len(settings.train_on) or 1)
    each = {
        name: share // len(group) for group in (settings.real, settings.train_on) for name in group
    }
    giving = [name for name in each if name not in origins]
    times = min(len(candidates[name]) // each[name] for name in giving)
    validating = max(1, round(times * settings.validation_share))
    if times <= validating:
        name = min(giving, key=lambda name: len(candidates[name]) / each[name])
        raise UserError(
            f"The source {name} has too few images for training and validation "
            f"({len(candidates[name])} are left, {tested[name]} are test images and "
            f"{dropped[name]} were dropped as copies): add images, or change dataset.train_count "
            "or dataset.test_count.",
            key=name,
        )
    # A random stream of its own: those of the sample orders are seeded with (seed, epoch).
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    held_out = {name: validating * each[name] for name in each}
    held_out |= dict.fromkeys(settings.validate_on, validating * share)
    none = np.empty(0, np.int64)
    train, validation = [none for _ in sources], [none for _ in sources]
    for position, name in enumerate(settings.names):
        if name in held_out and name not in origins:
            used = times * each[name] if name in each else len(candidates[name])
            shuffled = generator.permutation(np.array(candidates[name][:used], np.int64))
            validation[position] = np.sort(shuffled[: held_out[name]])
            if name in each:
                train[position] = np.sort(shuffled[held_out[name] :])

    # Images made from other images follow their originals.
    for position, name in enumerate(settings.names):
        if name not in origins:
            continue
        free = np.isin(np.arange(len(sources[position])), candidates.get(name, none))
        if name in each:
            train[position] = np.flatnonzero(free & _inside(origins[name], train))
        if name in held_out:
            rows = np.flatnonzero(free & _inside(origins[name], validation))
            validation[position] = np.sort(generator.permutation(rows)[: held_out[name]])
        if name in settings.generators:
            test[position] = np.flatnonzero(_inside(origins[name], test))[-settings.test_count :]
        if name in held_out:
            following = _inside(origins[name], train) | _inside(origins[name], validation)
            dropped[name] = int((~(free & following)).sum())
        elif not len(test[position]):
            raise UserError(
                f"{name} was made from images that are not test images: name it in "
                "dataset.train_on or dataset.validate_on, or test it with evaluate.py.",
                key="dataset.generators",
            )
    kept = min(len(rows) // each[name] for rows, name in zip(train, settings.names, strict=True)
               if name in each)  # fmt: skip
    if kept == 0:
        raise UserError(
            f"No image of {', '.join(name for name in each if name in origins)} was made from a "
            "training image: make more with generate.py, from the first images of dataset.real.",
            key="dataset.train_on",
        )
    for position, name in enumerate(settings.names):
        if name in each and len(train[position]) > kept * each[name]:
            chosen = generator.permutation(train[position])[: kept * each[name]]
            train[position] = np.sort(chosen)
    notes = _notes(sources, settings, train, validation, test, dropped)
    parts = (Part.of(train), Part.of(validation), Part.of(test))
    pairs = _pairs(parts[0], settings, origins, generator)
    return Split(*parts, pairs, dropped, notes)


def _notes(
    sources: Sequence[Source],
    settings: DatasetSettings,
    train: Sequence[NDArray[np.int64]],
    validation: Sequence[NDArray[np.int64]],
    test: Sequence[NDArray[np.int64]],
    dropped: Mapping[str, int],
) -> list[str]:
    """Sentences on counts that the sources could not provide."""
    shares = dict.fromkeys(settings.real, settings.train_count // len(settings.real))
    shares |= {name: settings.train_count // len(settings.train_on) for name in settings.train_on}
    near = "or near-duplicates " if settings.drop_near_duplicates else ""
    notes = []
    for position, source in enumerate(sources):
        name, made = source.name, source.originals is not None
        fitted = len(train[position]) + len(validation[position])
        has_test = not made and name not in settings.validate_on
        wanted = {"test": (len(test[position]), settings.test_count)} if has_test else {}
        wanted["train or validate"] = (fitted, shares.get(name, 0))
        short = [f"{n} {use} instead of {all_}" for use, (n, all_) in wanted.items() if n < all_]
        if short:
            usable = source.files - len(source.rejected)
            notes.append(f"{name} has {usable} images: {', '.join(short)}.")
        if dropped.get(name):
            others = "made from images not in training or validation, or " if made else ""
            notes.append(
                f"{name}: {dropped[name]} training images dropped as {others}copies {near}of "
                "test images or of each other."
            )
    return notes


def _origins(sources: Sequence[Source]) -> dict[str, NDArray[np.int64]]:
    """Locations of the originals of images that were made from others.

    Returns:
        By source, ``(n, 2)``: position of the original's source and its row, or -1 where it is in
        none of the sources. Sources without any original among the sources are omitted.
    """
    where: dict[str, tuple[int, int]] = {}
    for position, source in enumerate(sources):
        for row, sha256 in enumerate(source.sha256):
            where.setdefault(sha256, (position, row))
    found = {
        source.name: np.array([where.get(sha256 or "", (-1, -1)) for sha256 in source.originals])
        for source in sources
        if source.originals is not None
    }
    return {name: origins for name, origins in found.items() if (origins >= 0).any()}


def _inside(origins: NDArray[np.int64], part: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Whether each image's original is among the given rows of each source, ``(n,)``."""
    rows = {(position, row) for position, rows in enumerate(part) for row in rows.tolist()}
    return np.array([(position, row) in rows for position, row in origins.tolist()])


def _tested(
    sources: Sequence[Source], settings: DatasetSettings, origins: Collection[str]
) -> dict[str, int]:
    """Number of test images by source; 0 for ``origins``, whose test images follow originals."""
    trained = {*settings.real, *settings.train_on}
    wanted = settings.train_count + settings.test_count
    tested: dict[str, int] = {}
    for source in sources:
        count = min(settings.test_count, len(source))
        if source.name in trained and len(source) < wanted:
            count = min(count, max(1, round(len(source) * settings.test_count / wanted)))
        if source.name in origins or source.name in settings.validate_on:
            count = 0
        tested[source.name] = count
    of_generators = [tested[name] for name in settings.generators if name not in origins]
    largest = max(of_generators, default=settings.test_count)
    return tested | {name: min(tested[name], largest) for name in settings.real}


def _candidates(
    sources: Sequence[Source],
    settings: DatasetSettings,
    origins: Collection[str],
    test: Sequence[NDArray[np.int64]],
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Rows of each source for training or validation, without copies, and the number dropped."""
    # Equal for images that count as the same.
    keys: list[Sequence[object]] = [source.digests for source in sources]
    if settings.drop_near_duplicates:
        # An image made from another is a near-duplicate of it by intent.
        ordinary = [position for position, name in enumerate(settings.names) if name not in origins]
        _, groups = repetitions([sources[position] for position in ordinary])
        for position, group in zip(ordinary, groups, strict=True):
            keys[position] = group.tolist()
    taken = {key[row] for key, rows in zip(keys, test, strict=True) for row in rows.tolist()}
    candidates: dict[str, list[int]] = {}
    dropped: dict[str, int] = {}
    for source, key, tested in zip(sources, keys, test, strict=True):
        name = source.name
        if name not in (*settings.real, *settings.train_on, *settings.validate_on):
            continue
        # Images made from others follow their originals, whatever their own rows.
        first = len(source) if name in origins else settings.train_count
        rows = range(min(first, len(source) - len(tested)))
        candidates[name] = kept = []
        for row in rows:
            if key[row] not in taken:
                # Also within training: copies could be split between training and validation.
                taken.add(key[row])
                kept.append(row)
        dropped[name] = len(rows) - len(kept)
    return candidates, dropped


def _pairs(
    train: Part,
    settings: DatasetSettings,
    origins: Mapping[str, NDArray[np.int64]],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Pairs of positions of a real and a generated image; see `Split.pairs`."""
    is_real = train.source < len(settings.real)
    places = zip(train.source.tolist(), train.row.tolist(), strict=True)
    free = {place: position for position, place in enumerate(places) if is_real[position]}
    pairs, single = [], []
    for position in np.flatnonzero(~is_real).tolist():
        name = settings.names[train.source[position]]
        original = tuple(origins[name][train.row[position]]) if name in origins else None
        if original in free:
            pairs.append((free.pop(original), position))
        else:
            single.append(position)
    rest = generator.permutation(np.array(list(free.values()), np.int64))
    return np.array([*pairs, *zip(rest, single, strict=False)], np.int64).reshape(-1, 2)
