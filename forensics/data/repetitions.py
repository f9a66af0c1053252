"""Images that show the same as others, within and between sources."""

import numpy as np
from numpy.typing import NDArray

from forensics.data.columns import numbered
from forensics.data.sources import Source
from forensics.images.duplicates import NearDuplicates, firsts, groups, near_duplicates


def repetitions(sources: list[Source]) -> tuple[NearDuplicates, list[NDArray[np.int64]]]:
    """Find near-duplicates, copies included, within and between sources.

    Returns:
        Pairs of near-duplicates, whose positions count the rows of all sources, concatenated; and
        the group of each row, by source: rows of one group show the same image.
    """
    starts = np.cumsum([0, *map(len, sources)])

    def images(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        owners = np.searchsorted(starts, positions, side="right") - 1
        found = zip(owners, positions - starts[owners], strict=True)
        rows = np.stack([sources[owner].rows[row] for owner, row in found])
        for source in sources:
            source.forget_pages()
        return rows

    near = near_duplicates(np.concatenate([source.hashes for source in sources]), images)
    # `near_duplicates` misses copies without any contrast.
    originals = firsts(np.concatenate(numbered([source.digests for source in sources])))
    copies = np.flatnonzero(originals != np.arange(len(originals)))
    pairs = NearDuplicates(
        np.concatenate([near.first, originals[copies]]),
        np.concatenate([near.second, copies]),
        np.concatenate([near.mirrored, np.zeros(len(copies), bool)]),
    )
    return pairs, np.split(groups(len(originals), pairs), starts[1:-1])
