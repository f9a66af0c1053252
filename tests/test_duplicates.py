"""Near-duplicates: planted ones are found, others are not, against SciPy and brute force."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from conftest import photos
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage, sparse

from forensics.images.duplicates import (
    MAX_DIFFERING_BITS,
    NearDuplicates,
    groups,
    low_frequencies,
    near_duplicates,
    perceptual_hashes,
)

pytestmark = pytest.mark.slow

Pixels = NDArray[np.uint8]
N, SIDE = 100, 64


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer)


def _resized(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size)


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


PLANTED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: _jpeg(image, 30),
    "made smaller": lambda image: _resized(image, 24),
    "made larger": lambda image: _resized(image, 150),
    "mirrored": _mirrored,
    "mirrored, smaller and compressed": lambda image: _jpeg(_resized(_mirrored(image), 32), 50),
    "darker": lambda image: image.point(lambda level: 0.8 * level),
    "warmer": lambda image: image.convert("RGB", (1.1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0.85, 0)),
    "cut by a pixel at each side": lambda image: image.crop((1, 1, SIDE - 1, SIDE - 1)).resize(
        image.size
    ),
}


def _pictures() -> Pixels:
    """Photos with large shapes, common to all channels, as real ones have them."""
    shapes = np.random.default_rng(9).normal(0, 50, (N, 5, 5, 1))
    images = 64 + photos(N, SIDE) / 2 + ndimage.zoom(shapes, (1, SIDE / 5, SIDE / 5, 1), order=1)
    return np.asarray(images.clip(0, 255), np.uint8)


def _found(images: Pixels) -> NearDuplicates:
    return near_duplicates(perceptual_hashes(images), lambda positions: images[positions])


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANTED)
def test_planted_duplicates_are_found_and_nothing_else(kind: str) -> None:
    originals = _pictures()
    changed = [
        np.asarray(PLANTED[kind](Image.fromarray(image)).convert("RGB")) for image in originals
    ]
    pairs = _found(np.concatenate([originals, changed]))
    right = pairs.second - pairs.first == N
    assert right.mean() == 1
    assert right.sum() / N >= 0.95
    assert (pairs.mirrored == ("mirrored" in kind)).all()


def test_low_frequencies_are_scipys() -> None:
    images = photos(3, 40)
    transformed = fft.dctn(images.sum(axis=3, dtype=float), axes=(1, 2))[:, :12, :12]
    # SciPy's are twice as large in each direction.
    expected = transformed.reshape(3, -1)[:, 1:]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(low_frequencies(images), expected, atol=1e-6)


def test_images_without_contrast_are_no_near_duplicates() -> None:
    images = np.repeat(np.arange(0, 200, 2, dtype=np.uint8), SIDE * SIDE * 3)
    pairs = _found(images.reshape(-1, SIDE, SIDE, 3))
    assert len(pairs.first) == 0
    assert (low_frequencies(images.reshape(-1, SIDE, SIDE, 3)) == 0).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_images(count: int) -> None:
    images = np.repeat(photos(1, SIDE), count, axis=0)
    assert len(_found(images).first) == max(0, count - 1)


def test_the_index_misses_no_pair_of_hashes() -> None:
    draws = np.random.default_rng(0)
    picture = photos(1, SIDE)
    flips = perceptual_hashes(picture) ^ perceptual_hashes(picture[:, :, ::-1])
    hashes = draws.integers(0, 2**64, 300, np.uint64)
    for source in range(0, 280, 2):
        flipped = draws.permutation(64)[: draws.integers(1, 10)].astype(np.uint64)
        hashes[source + 1] = hashes[source] ^ np.bitwise_or.reduce(np.uint64(1) << flipped)
        if source % 4:
            hashes[source + 1] ^= flips[0]
    apart = hashes[:, None] ^ hashes[None, :]
    expected = {
        (first, second, mirrored)
        for mirrored, differing in ((False, apart), (True, apart ^ flips))
        for first, second in np.argwhere(np.bitwise_count(differing) <= MAX_DIFFERING_BITS)
        if first < second
    }
    assert len(expected) > 60
    assert _near_as_pairs(hashes) == expected


def _near_as_pairs(hashes: NDArray[np.uint64]) -> set[tuple[int, int, bool]]:
    """Pairs by their hashes alone: what is its own mirror image passes every second comparison."""
    picture = photos(1, SIDE)
    symmetric = np.where(np.arange(SIDE)[:, None] < SIDE // 2, picture, picture[:, :, ::-1])
    pairs = near_duplicates(hashes, lambda p: np.repeat(symmetric, len(p), axis=0))
    return {*zip(*(column.tolist() for column in pairs), strict=True)}


@pytest.mark.parametrize("mirrored", [False, True])
def test_any_three_equal_groups_of_bits_are_enough(mirrored: bool) -> None:
    draws = np.random.default_rng(0)
    picture = photos(1, SIDE)
    flips = perceptual_hashes(picture) ^ perceptual_hashes(picture[:, :, ::-1])
    groups_of_bits = np.array_split(np.arange(64), 10)
    changed = [*combinations(groups_of_bits, MAX_DIFFERING_BITS)]
    hashes = draws.integers(0, 2**64, (len(changed), 2), np.uint64)
    for pair, of_pair in zip(hashes, changed, strict=True):
        bits = np.array([draws.choice(group) for group in of_pair], np.uint64)
        pair[1] = pair[0] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    hashes[:, 1] ^= flips * mirrored
    expected = {(at, at + 1, mirrored) for at in range(0, hashes.size, 2)}
    assert _near_as_pairs(hashes.ravel()) == expected


def test_a_pair_among_many_that_share_bits_is_found() -> None:
    draws = np.random.default_rng(0)
    first, *others = np.array_split(np.arange(64, dtype=np.uint64), 10)[2:]
    hashes = draws.integers(0, 2**43, 250, np.uint64) << first[-1] + np.uint64(1)
    # A bit of each group that the hashes do not all share.
    hashes[200] = hashes[40] ^ np.bitwise_or.reduce(
        np.uint64(1) << np.array([group[0] for group in others])
    )
    assert (40, 200, False) in _near_as_pairs(hashes)


def test_groups_are_scipys() -> None:
    draws = np.random.default_rng(0)
    first, second = draws.integers(0, 300, (2, 200))
    pairs = NearDuplicates(first, second, np.zeros(200, bool))
    found = groups(300, pairs)
    graph = sparse.coo_array((np.ones(200), (first, second)), (300, 300))
    _, expected = sparse.csgraph.connected_components(graph, directed=False)
    assert len({*zip(found.tolist(), expected.tolist(), strict=True)}) == len(set(expected))
    assert all(found[group] == group for group in found)


def test_a_crowd_of_one_picture_is_one_group() -> None:
    draws = np.random.default_rng(0)
    flipped = draws.integers(0, 64, 3000).astype(np.uint64)
    hashes = np.concatenate([np.zeros(3000, np.uint64), np.uint64(1) << flipped])
    picture = photos(1, SIDE)
    pairs = near_duplicates(hashes, lambda p: np.repeat(picture, len(p), axis=0))
    assert len(pairs.first) < 40_000
    assert (groups(6000, pairs) == 0).all()


@pytest.mark.slow
def test_two_hundred_thousand_images_take_seconds() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 200_000, np.uint64)
    hashes[1::100] = hashes[::100] ^ np.uint64(0b1011)
    picture = photos(1, SIDE)
    pairs = near_duplicates(hashes, lambda p: np.repeat(picture, len(p), axis=0))
    near = {*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert near >= {(first, first + 1) for first in range(0, 200_000, 100)}
