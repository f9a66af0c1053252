"""Near-duplicates: images that were resized, compressed again, retouched or mirrored.

An image is identified by the lowest frequencies of a discrete cosine transform of its grey values.
The signs of 64 of them are its hash; two images are near-duplicates if their hashes differ in few
bits and, in a second comparison, their low frequencies are nearly equal. Cropped or rotated images
are found only for small changes; for limits see ``experiments/audit``.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_DIFFERING_BITS = 7
MIN_SIMILARITY = 0.975

_SIDE = 12
_FREQUENCIES = np.array([(u, v) for u in range(_SIDE) for v in range(_SIDE) if u or v])
# Without frequencies along one axis alone, whose signs are the same for all aligned faces.
_HASHED = np.array(
    sorted(
        (n for n, (u, v) in enumerate(_FREQUENCIES) if u and v),
        key=lambda n: (int((_FREQUENCIES[n] ** 2).sum()), n),
    )[:64]
)
# Mirroring flips the sign at every odd horizontal frequency.
_MIRROR = 1.0 - 2.0 * (_FREQUENCIES[:, 1] % 2)
# With 7 differing bits, at least 3 of 10 groups of bits are equal: every such pair shares a key of
# 3 groups, and few other pairs do.
_GROUPS, _EQUAL_GROUPS = 10, 3
_CROWD = 256
_ONE = np.uint64(1)
_BLOCK = 64

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


class NearDuplicates(NamedTuple):
    """Near-duplicates, each pair once.

    Attributes:
        first: ``(k,)`` position of an image.
        second: ``(k,)`` position of the other image, always larger.
        mirrored: ``(k,)`` whether one is the other's mirror image.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


def low_frequencies(images: Images) -> Floats:
    """Low frequencies of images, for the comparison of near-duplicates.

    Args:
        images: ``(n, S, S, 3)`` uint8.

    Returns:
        ``(n, 143)``, each row of length 1, or 0 where an image has no contrast at all.
    """
    side = images.shape[1]
    angles = np.pi * np.arange(_SIDE)[:, None] * (2 * np.arange(side) + 1) / (2 * side)
    cosines = np.cos(angles).astype(np.float32)
    of_colours = np.repeat(cosines, 3, axis=1).T  # also adds the three channels
    found = np.empty((len(images), len(_FREQUENCIES)), np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].reshape(-1, side, 3 * side).astype(np.float32)
        found[start : start + _BLOCK] = (cosines @ (block @ of_colours))[:, *_FREQUENCIES.T]
    length = np.linalg.norm(found, axis=1, keepdims=True)
    # For an image without contrast, rounding leaves sums slightly different from 0.
    return np.where(length > side, found / np.maximum(length, 1), np.float32(0))


def perceptual_hashes(images: Images) -> NDArray[np.uint64]:
    """The signs of 64 low frequencies, ``(n,)``.

    Args:
        images: ``(n, S, S, 3)`` uint8, S at least 24 to distinguish images.
    """
    signs = low_frequencies(images)[:, _HASHED] > 0
    return np.packbits(signs, axis=1).reshape(-1).view(np.uint64)


def near_duplicates(
    hashes: NDArray[np.uint64], images: Callable[[NDArray[np.int64]], Images]
) -> NearDuplicates:
    """Find near-duplicates among many images, 200,000 in seconds.

    Images with equal hashes are each paired with the first of them only, and among more than 256
    images that share a key not all pairs are compared; `groups` joins such chains.

    Args:
        hashes: ``(n,)`` by `perceptual_hashes`.
        images: returns the images at given positions, ``(k, S, S, 3)`` uint8, for the second
            comparison.

    Returns:
        Pairs whose hashes differ in at most `MAX_DIFFERING_BITS`, and whose low frequencies, or
        those of one and of the other's mirror image, have a cosine of `MIN_SIMILARITY`.
    """
    different, first_of, which = np.unique(hashes, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(hashes)), first_of)
    a, b, mirrored = _near_hashes(different)
    left = np.concatenate([first_of[which[others]], first_of[a]])
    right = np.concatenate([others, first_of[b]])
    pairs = NearDuplicates(
        np.minimum(left, right),
        np.maximum(left, right),
        np.concatenate([np.zeros(len(others), bool), mirrored]),
    )
    seen, position = np.unique(np.concatenate(pairs[:2]), return_inverse=True)
    found = np.concatenate(
        [np.zeros((0, len(_FREQUENCIES)), np.float32)]
        + [low_frequencies(images(seen[at : at + _BLOCK])) for at in range(0, len(seen), _BLOCK)]
    )
    first, second = found[position[: len(pairs.first)]], found[position[len(pairs.first) :]]
    second = np.where(pairs.mirrored[:, None], second * _MIRROR, second)
    alike = (first * second).sum(axis=1) >= MIN_SIMILARITY
    return NearDuplicates(*(column[alike] for column in pairs))


def _near_hashes(
    hashes: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs of different hashes, or of one and another's mirror image, that differ in few bits."""
    count = len(hashes)
    flips = np.packbits(_MIRROR[_HASHED] < 0).view(np.uint64)[0]
    both = np.concatenate([hashes, hashes ^ flips])
    # Key and position in one number: sorting numbers is several times as fast as sorting positions.
    place_bits = np.uint64(len(both).bit_length())
    places = np.arange(len(both), dtype=np.uint64)
    groups = np.array_split(np.arange(64, dtype=np.uint64), _GROUPS)
    met = [np.zeros(0, np.int64)]
    for chosen in combinations(groups, _EQUAL_GROUPS):
        keyed, used = places.copy(), place_bits
        for bits in chosen:
            length = np.uint64(len(bits))
            keyed |= (both >> bits[0] & (_ONE << length) - _ONE) << used
            used += length
        keyed.sort()
        order = (keyed & (_ONE << place_bits) - _ONE).astype(np.int64)
        keys, values = keyed >> place_bits, both[order]
        at = np.flatnonzero(keys[1:] == keys[:-1])
        for step in range(1, _CROWD + 1):
            if step > 1:
                at = at[at < len(both) - step]
                at = at[keys[at] == keys[at + step]]
            if not len(at):
                break
            near = at[np.bitwise_count(values[at] ^ values[at + step]) <= MAX_DIFFERING_BITS]
            pair = np.sort(np.stack([order[near], order[near + step]]), axis=0)
            # A pair of two mirrored images is the pair of the two originals.
            pair = pair[:, pair[0] < count]
            met.append(pair[0] * 2 * count + pair[1])
    pairs = np.unique(np.concatenate(met))
    first, second = np.divmod(pairs, max(1, 2 * count))
    mirrored = second >= count
    second = second % max(1, count)
    # Each mirrored pair is found twice, once for either image as the mirrored one.
    once = first < second
    return first[once], second[once], mirrored[once]


def groups(count: int, pairs: NearDuplicates) -> NDArray[np.int64]:
    """Connected components of near-duplicates.

    Args:
        count: number of all images.
        pairs: pairs of near-duplicates.

    Returns:
        ``(count,)`` group of each image, identified by the group's first position.
    """
    # Imported here, because SciPy takes long to import and scoring does not need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs.first)), pairs[:2]), shape=(count, count))
    _, components = connected_components(edges, directed=False)
    return firsts(components)


def firsts(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """The first position with the same number as each one, ``(n,)``; numbers are 0 and above."""
    first = np.zeros(numbers.max(initial=-1) + 1, np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # of equal indices, the last one counts
    return np.asarray(first[numbers])
