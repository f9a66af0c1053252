"""Images that are duplicates: resized, compressed again, retouched or mirrored.

An image is told by its lowest frequencies, those of a discrete cosine transform of its grey
values. The signs of 64 of them are its hash; two images are near-duplicates if their hashes
differ in few bits and, looked at again, their frequencies are nearly the same. An image cut or
turned is found only while it hardly moves: ``experiments/audit`` says how far.
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
# Not those along one axis alone: all aligned faces have the same signs there.
_HASHED = np.array(
    sorted(
        (n for n, (u, v) in enumerate(_FREQUENCIES) if u and v),
        key=lambda n: (int((_FREQUENCIES[n] ** 2).sum()), n),
    )[:64]
)
# Mirrored, an image has the opposite sign at every odd horizontal frequency.
_MIRROR = 1.0 - 2.0 * (_FREQUENCIES[:, 1] % 2)
# With 7 differing bits, at least 3 of 10 groups of bits are equal: every pair is met under the
# key that those 3 make, and hardly any others are.
_GROUPS, _EQUAL_GROUPS = 10, 3
_CROWD = 256
_BLOCK = 64

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


class NearDuplicates(NamedTuple):
    """Near-duplicates, each pair once.

    Attributes:
        first: ``(k,)`` position of an image.
        second: ``(k,)`` position of the other one, a larger number.
        mirrored: ``(k,)`` whether one is the other's mirror image.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


def low_frequencies(images: Images) -> Floats:
    """Low frequencies of images, by which near-duplicates are recognised.

    Args:
        images: ``(n, S, S, 3)`` uint8.

    Returns:
        ``(n, 143)``, each row of length 1, or 0 where an image has no contrast at all.
    """
    side = images.shape[1]
    angles = np.pi * np.arange(_SIDE)[:, None] * (2 * np.arange(side) + 1) / (2 * side)
    cosines = np.cos(angles).astype(np.float32)
    of_colours = np.repeat(cosines, 3, axis=1).T  # adds the three channels up, too
    found = np.empty((len(images), len(_FREQUENCIES)), np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].reshape(-1, side, 3 * side).astype(np.float32)
        found[start : start + _BLOCK] = (cosines @ (block @ of_colours))[:, *_FREQUENCIES.T]
    length = np.linalg.norm(found, axis=1, keepdims=True)
    # Sums over an image without any contrast round to something that is not quite 0.
    return np.where(length > side, found / np.maximum(length, 1), np.float32(0))


def perceptual_hashes(images: Images) -> NDArray[np.uint64]:
    """The signs of 64 low frequencies, ``(n,)``.

    Args:
        images: ``(n, S, S, 3)`` uint8, S at least 24 to tell images apart.
    """
    signs = low_frequencies(images)[:, _HASHED] > 0
    return np.packbits(signs, axis=1).reshape(-1).view(np.uint64)


def near_duplicates(
    hashes: NDArray[np.uint64], images: Callable[[NDArray[np.int64]], Images]
) -> NearDuplicates:
    """Find near-duplicates among many images, 200,000 in seconds.

    Of images with equal hashes each is paired with the first alone, and in a crowd of more than
    256 that share a key not every two are compared: `groups` makes groups of such chains.

    Args:
        hashes: ``(n,)`` by `perceptual_hashes`.
        images: gives the images at some positions, ``(k, S, S, 3)`` uint8, for a second look.

    Returns:
        Pairs whose hashes differ in at most `MAX_DIFFERING_BITS`, and whose low frequencies, or
        those of one and of the other's mirror image, have a cosine of `MIN_SIMILARITY`.
    """
    different, first_of, which = np.unique(hashes, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(hashes)), first_of)
    a, b, mirrored = _near_hashes(different)
    one = np.concatenate([first_of[which[others]], first_of[a]])
    other = np.concatenate([others, first_of[b]])
    pairs = NearDuplicates(
        np.minimum(one, other),
        np.maximum(one, other),
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
    groups = [
        np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64))
        for bits in np.array_split(np.arange(64), _GROUPS)
    ]
    met = [np.zeros(0, np.int64)]
    for chosen in combinations(groups, _EQUAL_GROUPS):
        keys = both & np.bitwise_or.reduce(chosen)
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], both[order]
        at = np.arange(len(both))
        for step in range(1, min(_CROWD, len(both) - 1) + 1):
            at = at[at < len(both) - step]
            at = at[keys[at] == keys[at + step]]
            if not len(at):
                break
            near = at[np.bitwise_count(values[at] ^ values[at + step]) <= MAX_DIFFERING_BITS]
            pair = np.sort(np.stack([order[near], order[near + step]]), axis=0)
            # Two mirrored ones are the pair of the two originals.
            pair = pair[:, pair[0] < count]
            met.append(pair[0] * 2 * count + pair[1])
    pairs = np.unique(np.concatenate(met))
    first, second = np.divmod(pairs, max(1, 2 * count))
    mirrored = second >= count
    second = second % max(1, count)
    # Either of a mirrored pair may be the one that was mirrored.
    once = first < second
    return first[once], second[once], mirrored[once]


def groups(count: int, pairs: NearDuplicates) -> NDArray[np.int64]:
    """Connected components of near-duplicates.

    Args:
        count: of all images.
        pairs: some of them.

    Returns:
        ``(count,)`` the group of each image, named by the first position in it.
    """
    # Here, because scoring does without: it takes as long to import as much of the rest.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs.first)), pairs[:2]), shape=(count, count))
    _, components = connected_components(edges, directed=False)
    _, first, component = np.unique(components, return_index=True, return_inverse=True)
    return np.asarray(first[component])
