"""Split of the images into training, validation and test, which are disjoint.

A protocol offers rows of each source for each part: as in the paper, the first N images are for
training and the last N for the test. Validation images, unless offered, are a seeded share of the
training images; only they are used to choose a checkpoint or a threshold. Whatever the protocol, no
two parts show the same image, and an image that was made from another of the run's images is in
the same part as its original, or in none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics.data.columns import numbered
from forensics.data.originals import drawn, equal_shares, find_origins, follow
from forensics.data.protocols import Offered, Rows, offered
from forensics.data.repetitions import repetitions
from forensics.data.settings import PARTS, DatasetSettings, Protocol
from forensics.data.sources import Needed, Source
from forensics.errors import UserError
from forensics.images.duplicates import firsts


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
        dropped: by source, the number of training and validation images dropped as copies (or
            near-duplicates, if set) of an image of another part or of an earlier training image, or
            because they were made from an image that is neither for training nor for validation.
        notes: sentences on counts that the sources could not provide.
        groups: by part, the number of groups of `Protocol.by_group`; empty for other protocols.
    """

    train: Part
    validation: Part
    test: Part
    pairs: NDArray[np.int64]
    dropped: dict[str, int]
    notes: list[str]
    groups: dict[str, int]


def needed_images(settings: DatasetSettings, spare: int = 0) -> dict[str, Needed] | None:
    """The images of each source that can be in a part of the split; None if any of them can.

    Args:
        settings: protocol, counts and roles.
        spare: number of further images of each source.
    """
    train, test = settings.train_count, settings.test_count
    if settings.split is not Protocol.first_last or train is None or test is None:
        return None
    fitted = {*settings.real, *settings.train_on, *settings.validate_on}
    return {
        name: Needed(
            spare + (train if name in fitted else 0),
            0 if name in settings.validate_on else test,
        )
        for name in settings.names
    }


def split_sources(sources: list[Source], settings: DatasetSettings, seed: int) -> Split:
    """Split sources by the protocol of the settings, with their counts or, if too small, fewer.

    Both classes have the same number of training images.

    Args:
        sources: those of ``settings.names``, in order.
        settings: protocol, counts and roles.
        seed: decides which training images are used for validation.

    Raises:
        UserError: if a source has no images left for training, validation or the test.
    """
    origins = find_origins(sources)
    offer = offered(sources, settings, origins)
    for name, fitted, tested in zip(settings.names, offer.train, offer.test, strict=True):
        validates = name in settings.validate_on
        if not len(fitted if validates else tested) and name not in origins:
            part = "training or validation" if validates else "test"
            raise UserError(
                f"The source {name} has no {part} image by dataset.split={settings.split}: add "
                "some, or leave it out.",
                key=name,
            )
    offer, dropped = _without_copies(sources, settings, origins, offer)
    # A random stream of its own: those of the sample orders are seeded with (seed, epoch).
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    parts, held_out = _balanced(settings, origins, offer, dropped, generator)
    follow(sources, settings, origins, offer, parts, held_out, dropped, generator)
    notes = [*offer.notes, *_notes(sources, settings, offer, parts, dropped)]
    train, validation, test = map(Part.of, parts)
    pairs = _pairs(train, settings, origins, generator)
    groups = {
        part: len({of[row] for of, rows in zip(offer.groups, of_part, strict=True) if of
                   for row in rows.tolist()})
        for part, of_part in zip(PARTS, parts, strict=True)
    } if offer.groups else {}  # fmt: skip
    return Split(train, validation, test, pairs, dropped, notes, groups)


def _without_copies(
    sources: Sequence[Source],
    settings: DatasetSettings,
    origins: Collection[str],
    offer: Offered,
) -> tuple[Offered, dict[str, int]]:
    """Drop copies from the rows for training and validation, and count them by source.

    Of images made from others all rows are for training: they will follow their originals.
    """
    # Equal for images that count as the same.
    keys = numbered([source.digests for source in sources])
    if settings.drop_near_duplicates:
        # An image made from another is a near-duplicate of it by intent.
        ordinary = [position for position, name in enumerate(settings.names) if name not in origins]
        _, groups = repetitions([sources[position] for position in ordinary])
        count = sum(map(len, sources))
        for position, group in zip(ordinary, groups, strict=True):
            keys[position] = count + group
    taken = np.zeros(2 * sum(map(len, sources)), bool)
    for key, rows in zip(keys, offer.test, strict=True):
        taken[key[rows]] = True
    fitted = (*settings.real, *settings.train_on, *settings.validate_on)
    dropped = {name: 0 for name in settings.names if name in fitted}
    train = [
        np.arange(len(source)) if source.name in origins else rows
        for source, rows in zip(sources, offer.train, strict=True)
    ]
    kept: list[list[Rows]] = []
    for part in (offer.validation, train):
        kept.append([])
        for source, key, rows in zip(sources, keys, part, strict=True):
            found = np.empty(0, np.int64)
            if source.name in fitted:
                # Also within a part: copies could be split between training and validation.
                free = rows[~taken[key[rows]]]
                found = free[firsts(key[free]) == np.arange(len(free))]
                taken[key[found]] = True
                dropped[source.name] += len(rows) - len(found)
            kept[-1].append(found)
    return offer._replace(validation=kept[0], train=kept[1]), dropped


def _balanced(
    settings: DatasetSettings,
    origins: Collection[str],
    offer: Offered,
    dropped: Mapping[str, int],
    generator: np.random.Generator,
) -> tuple[list[list[Rows]], dict[str, int]]:
    """As many training images of one class as of the other, evenly among its sources.

    Returns:
        The rows for training, validation and the test, without those made from other images; and
        the number of validation images of each source that has any.
    """
    names = settings.names
    candidates = dict(zip(names, offer.train, strict=True))
    offered_for_it = dict(zip(names, offer.validation, strict=True))
    each = equal_shares(settings)
    share = sum(each[name] for name in settings.real)
    giving = [name for name in each if name not in origins]
    # How many times every source can provide its share.
    times = min(len(candidates[name]) // each[name] for name in giving)
    is_offered = any(len(offered_for_it[name]) for name in giving)
    if is_offered:
        training = times
        validating = min(len(offered_for_it[name]) // each[name] for name in giving)
    else:
        validating = max(1, round(times * settings.validation_share))
        training = times - validating
    if training < 1 or validating < 1:
        part = candidates if training < 1 else offered_for_it
        name = min(giving, key=lambda name: len(part[name]) / each[name])
        tested = len(offer.test[names.index(name)])
        raise UserError(
            f"The source {name} has too few images for training and validation "
            f"({len(part[name])} are left, {tested} are test images and {dropped[name]} were "
            "dropped as copies): add images, or change dataset.train_count or dataset.test_count.",
            key=name,
        )
    held_out = {name: validating * each[name] for name in each}
    held_out |= dict.fromkeys(settings.validate_on, validating * share)
    none = np.empty(0, np.int64)
    train, validation = [none for _ in names], [none for _ in names]
    for position, name in enumerate(names):
        if name not in held_out or name in origins:
            continue
        if is_offered and name in each:
            train[position] = drawn(candidates[name], training * each[name], generator)
            validation[position] = drawn(offered_for_it[name], held_out[name], generator)
            continue
        used = times * each[name] if name in each else len(candidates[name])
        shuffled = generator.permutation(candidates[name][:used])
        validation[position] = np.sort(shuffled[: held_out[name]])
        if name in each:
            train[position] = np.sort(shuffled[held_out[name] :])
    return [train, validation, list(offer.test)], held_out


def _notes(
    sources: Sequence[Source],
    settings: DatasetSettings,
    offer: Offered,
    parts: Sequence[Sequence[Rows]],
    dropped: Mapping[str, int],
) -> list[str]:
    """Sentences on counts that the sources could not provide."""
    train, validation, test = parts
    wanted_of = dict.fromkeys(settings.real, (settings.train_count or 0) // len(settings.real))
    wanted_of |= {
        name: (settings.train_count or 0) // len(settings.train_on) for name in settings.train_on
    }
    near = "or near-duplicates " if settings.drop_near_duplicates else ""
    notes = []
    for position, source in enumerate(sources):
        name, made = source.name, source.originals is not None
        fitted = len(train[position]) + len(validation[position])
        has_test = not made and name not in settings.validate_on
        wanted = {"test": (len(test[position]), settings.test_count or 0)} if has_test else {}
        wanted["train or validate"] = (fitted, wanted_of.get(name, 0))
        short = [f"{n} {use} instead of {all_}" for use, (n, all_) in wanted.items() if n < all_]
        if short:
            usable = source.files - len(source.rejected)
            notes.append(f"{name} has {usable} images: {', '.join(short)}.")
        available = len(offer.train[position]) + len(offer.validation[position])
        if settings.train_count is None and name in wanted_of and not made and fitted < available:
            notes.append(
                f"{name}: {fitted} of {available} images for training and validation are used, as "
                "many as of the other class."
            )
        if dropped.get(name):
            others = "made from images not in training or validation, or " if made else ""
            notes.append(
                f"{name}: {dropped[name]} training images dropped as {others}copies {near}of "
                "test images or of each other."
            )
    return notes


def _pairs(
    train: Part,
    settings: DatasetSettings,
    origins: Mapping[str, NDArray[np.int64]],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Pairs of positions of a real and a generated image; see `Split.pairs`."""
    is_real = train.source < len(settings.real)
    pairs = np.array(_with_originals(train, is_real, settings, origins), np.int64).reshape(-1, 2)
    free = np.ones(len(train), bool)
    free[pairs] = False
    rest = generator.permutation(np.flatnonzero(free & is_real))
    single = np.flatnonzero(free & ~is_real)
    # As many of one as of the other, unless a detector learns from real images alone.
    count = min(len(rest), len(single))
    return np.concatenate([pairs, np.stack([rest[:count], single[:count]], axis=1)])


def _with_originals(
    train: Part,
    is_real: NDArray[np.bool_],
    settings: DatasetSettings,
    origins: Mapping[str, NDArray[np.int64]],
) -> list[tuple[int, int]]:
    """Pairs of positions of an original and an image made from it, each image once."""
    if not origins:
        return []
    places = zip(train.source.tolist(), train.row.tolist(), strict=True)
    free = {place: position for position, place in enumerate(places) if is_real[position]}
    pairs = []
    for position in np.flatnonzero(~is_real).tolist():
        name = settings.names[train.source[position]]
        original = tuple(origins[name][train.row[position]]) if name in origins else None
        if original in free:
            pairs.append((free.pop(original), position))
    return pairs
