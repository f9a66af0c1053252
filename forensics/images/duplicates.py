"""Near-duplicates: images that were resized, compressed again, retouched or mirrored.

An image is identified by the lowest frequencies of a discrete cosine transform of its grey values.
The signs of 64 of them are its hash; two images are near-duplicates if their hashes differ in few
bits and, in a second comparison, their low frequencies are nearly equal. Cropped or rotated images
are found only for small changes; for limits see ``experiments/audit``.
"""

from collections.abc import Callable, Iterator
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
_FLIPS = np.packbits(_MIRROR[_HASHED] < 0).view(np.uint64)[0]
# With 7 differing bits, at least 3 of 10 groups of bits are equal, and few other pairs share
# as much.
_GROUPS = np.array_split(np.arange(64, dtype=np.uint64), 10)
_GROUP_BITS = np.uint16(7)
_CROWD = 256
_ONE = np.uint64(1)
_BLOCK = 64

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]


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


def perceptual_hashes(images: Images) -> Hashes:
    """The signs of 64 low frequencies, ``(n,)``.

    Args:
        images: ``(n, S, S, 3)`` uint8, S at least 24 to distinguish images.
    """
    signs = low_frequencies(images)[:, _HASHED] > 0
    return np.packbits(signs, axis=1).reshape(-1).view(np.uint64)


def near_duplicates(
    hashes: Hashes, images: Callable[[NDArray[np.int64]], Images]
) -> NearDuplicates:
    """Find near-duplicates among many images, a million in seconds.

    Images with equal hashes are each paired with the first of them only, and among more than 256
    images that share three groups of bits not all pairs are compared; `groups` joins such chains.

    Args:
        hashes: ``(n,)`` by `perceptual_hashes`.
        images: returns the images at given positions, ``(k, S, S, 3)`` uint8, for the second
            comparison.

    Returns:
        Pairs whose hashes differ in at most `MAX_DIFFERING_BITS`, and whose low frequencies, or
        those of one and of the other's mirror image, have a cosine of `MIN_SIMILARITY`.
    """
    different, first_of, which = np.unique(hashes, return_index=True, return_inverse=True)
    is_other = np.ones(len(hashes), bool)
    is_other[first_of] = False
    others = np.flatnonzero(is_other)
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


def _upright(hashes: Hashes, group: Hashes) -> Hashes:
    """Each hash or its mirror image's, that with 0 in a bit of the group which mirroring flips.

    So if two hashes have the group in common, or one and the other's mirror image, these two do.
    """
    bit = group[_FLIPS >> group & _ONE == _ONE][0]
    return np.where(hashes >> bit & _ONE, hashes ^ _FLIPS, hashes)


def _bits(hashes: Hashes, group: Hashes) -> NDArray[np.uint16]:
    """A group of bits as a number."""
    mask = np.uint64(2 ** len(group) - 1)
    return np.asarray(hashes >> group[0] & mask, np.uint16)


def _near_hashes(hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs of different hashes, or of one and another's mirror image, that differ in few bits.

    All that share one group of bits are sorted by two others, so that the work is done on blocks
    that fit a cache, whatever the number of hashes.
    """
    count = len(hashes)
    met = [np.zeros(0, np.int64)]
    for number, group in enumerate(_GROUPS):
        upright = _upright(hashes, group)
        keys = _bits(upright, group)
        order = np.argsort(keys, kind="stable")  # of 16 bits: a radix sort
        for block in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            values = upright[block]
            others = [_bits(values, other) for other in _GROUPS[number + 1 :]]
            for high, low in combinations(others, 2):
                for first, second in _neighbours(values, high << _GROUP_BITS | low):
                    pair = np.sort(np.stack([block[first], block[second]]), axis=0)
                    met.append(pair[0] * count + pair[1])
    first, second = np.divmod(np.unique(np.concatenate(met)), max(1, count))
    return first, second, np.bitwise_count(hashes[first] ^ hashes[second]) > MAX_DIFFERING_BITS


def _neighbours(
    values: Hashes, keys: NDArray[np.uint16]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Compare values of equal keys; yield the positions of pairs that differ in few bits.

    Keys are ordered by the number of their values, so that those with a value at a given distance
    are the first ones.
    """
    of_key = np.minimum(np.bincount(keys), _CROWD + 1).astype(np.uint16)
    crowds = of_key[keys]
    order = np.lexsort((keys, _CROWD + 1 - crowds))  # of 16 bits: radix sorts
    ordered, crowds = values[order], crowds[order]
    for step in range(1, crowds.max(initial=0)):
        compared = ordered[: np.count_nonzero(crowds > step)]
        differing = compared[step:] ^ compared[:-step]
        near = np.flatnonzero(np.bitwise_count(differing) <= MAX_DIFFERING_BITS)
        if len(near):
            yield order[near], order[near + step]


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
