"""Images made from other images of the run: they are in the part of their original, or in none."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forensics.data.protocols import Offered, Rows
from forensics.data.settings import DatasetSettings
from forensics.data.sources import Source
from forensics.errors import UserError


def find_origins(sources: Sequence[Source]) -> dict[str, NDArray[np.int64]]:
    """Find the originals of images that were made from others.

    Returns:
        By source, ``(n, 2)``: position of the original's source and its row, or -1 where it is in
        none of the sources. Sources without any original among the sources are omitted.
    """
    if all(source.originals is None for source in sources):
        return {}
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


def follow(
    sources: Sequence[Source],
    settings: DatasetSettings,
    origins: Mapping[str, Rows],
    offer: Offered,
    parts: Sequence[list[Rows]],
    held_out: Mapping[str, int],
    dropped: dict[str, int],
    generator: np.random.Generator,
) -> None:
    """Add the images made from other images to the parts of their originals, in place.

    Args:
        sources: those of ``settings.names``, in order.
        settings: counts and roles.
        origins: as of `find_origins`.
        offer: the rows without copies; of these images, all are in ``train``.
        parts: rows of each source for training, validation and the test.
        held_out: number of validation images of each source that has any.
        dropped: number of images left out of training and validation, by source.
        generator: decides which images are used, if there are more than of other sources.

    Raises:
        UserError: if a source has no image for training, or one that is only tested for the test.
    """
    train, validation, test = parts
    trained = (*settings.real, *settings.train_on)
    for position, name in enumerate(settings.names):
        if name not in origins:
            continue
        free = np.isin(np.arange(len(sources[position])), offer.train[position])
        if name in trained:
            train[position] = np.flatnonzero(free & _inside(origins[name], train))
        if name in held_out:
            rows = np.flatnonzero(free & _inside(origins[name], validation))
            validation[position] = drawn(rows, held_out[name], generator)
        if name in settings.generators:
            tested = np.flatnonzero(_inside(origins[name], test))
            test[position] = tested[-(settings.test_count or len(tested)) :]
        if name in held_out:
            following = _inside(origins[name], train) | _inside(origins[name], validation)
            dropped[name] = int((~(free & following)).sum())
        elif not len(test[position]):
            raise UserError(
                f"{name} was made from images that are not test images: name it in "
                "dataset.train_on or dataset.validate_on, or test it with evaluate.py.",
                key="dataset.generators",
            )
    each = equal_shares(settings)
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
            train[position] = drawn(train[position], kept * each[name], generator)


def equal_shares(settings: DatasetSettings) -> dict[str, int]:
    """Images of each training source in the fewest that both classes can divide evenly."""
    classes = settings.real, settings.train_on
    share = math.lcm(len(settings.real), len(settings.train_on) or 1)
    return {name: share // len(of_class) for of_class in classes for name in of_class}


def drawn(rows: Rows, count: int, generator: np.random.Generator) -> Rows:
    """Draw at most ``count`` of the rows, in order."""
    return np.sort(generator.permutation(rows)[:count])
