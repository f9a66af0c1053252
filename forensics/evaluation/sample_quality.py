"""Quality and variety of a generator's images.

All functions take rows as of `forensics.data.sources`, ``(n, S, S, 3)`` uint8, and need no internet
access. If a logistic model can identify a generator's images by their colours or their border, a
detector may learn only that: see the shortcut probes before training on them.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.kid import KernelInceptionDistance

from forensics.evaluation.shortcuts import probe, thumbnails
from forensics.generators.collapse import (
    Floats,
    Images,
    Undefined,
    blocks,
    collapsed,
    ms_ssim_pairs,
)

COMPARED = 1000
"""Maximum number of images of each set that `quality` compares: about a minute on two cores. The
same for all generators, because some measures depend on it."""

SMALLEST_LEVEL = 16
PATCH = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 512
NEIGHBOUR_SIDE = 32

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


class Nearest(NamedTuple):
    """Nearest training images of generated images, by `nearest_neighbours`.

    Attributes:
        generated: ``(k,)`` rows of the queried generated images.
        training: ``(k,)`` row of the nearest training image of each.
        distances: ``(k,)`` distance between the two, in grey levels.
        real_distances: ``(m,)`` distance of a training image to the nearest other one.
    """

    generated: NDArray[np.int64]
    training: NDArray[np.int64]
    distances: NDArray[np.float64]
    real_distances: NDArray[np.float64]


def quality(real: Images, generated: Images, seed: int) -> dict[str, Any]:
    """All quality measures of a generator, ready for JSON.

    Args:
        real: ``(n, S, S, 3)`` uint8, all images that the generator was trained on.
        generated: ``(m, S, S, 3)`` uint8.
        seed: decides which images are compared, and every draw of the measures.

    Returns:
        Counts and measures; ``n`` images of each set, drawn at random, are compared.
        ``<measure>_real`` is the same measure for real images alone, the value of a perfect
        generator. An undefined measure is None, with a ``<measure>_reason``. ``collapsed`` is None
        if the generator has not collapsed.

    Raises:
        ValueError: if the sizes S differ.
    """
    if real.shape[1:] != generated.shape[1:]:
        raise ValueError(f"real images are {real.shape[1:]}, generated {generated.shape[1:]}")
    n = min(len(real), len(generated), COMPARED)
    draws = np.random.default_rng(seed)
    order = draws.permutation(len(real))
    reals, others = real[np.sort(order[:n])], real[np.sort(order[n : 2 * n])]
    compared = generated[np.sort(draws.permutation(len(generated))[:n])]

    def yardstick() -> dict[str, float]:
        if len(others) < n:
            raise Undefined(f"needs {2 * n} real images, there are {len(real)}")
        return sliced_wasserstein(reals, others, seed)

    measures: dict[str, Callable[[], Any]] = {
        "collapsed": lambda: collapsed(compared),
        "sliced_wasserstein": lambda: sliced_wasserstein(reals, compared, seed),
        "sliced_wasserstein_real": yardstick,
        "ms_ssim": lambda: ms_ssim_pairs(compared, seed),
        "ms_ssim_real": lambda: ms_ssim_pairs(reals, seed),
        "nearest": lambda: _summary(nearest_neighbours(generated, real, seed)),
        "shortcuts": lambda: probe(reals, compared, seed),
        "frechet": lambda: frechet(reals, compared, seed),
    }
    result: dict[str, Any] = {
        "n_real": len(real),
        "n_generated": len(generated),
        "n": n,
        "image_size": real.shape[1],
        "seed": seed,
    }
    for name, measure in measures.items():
        try:
            result[name] = measure()
        except Undefined as error:
            result |= {name: None, f"{name}_reason": str(error)}
    return result


def sliced_wasserstein(real: Images, generated: Images, seed: int) -> dict[str, float]:
    """Distance between the patches of two sets at each level of a Laplacian pyramid.

    The smaller the level, the larger the compared structures: level ``16`` compares the layout of
    faces, the finest level edges and noise. For two sets of the same distribution it is above 0
    and falls with the number of images: compare figures of equal counts only. It is invariant to
    the brightness and contrast of a complete set.

    Args:
        real: ``(n, S, S, 3)`` uint8.
        generated: ``(n, S, S, 3)`` uint8.
        seed: decides patches and directions. Patches of both sets have the same positions, so that
            a set has distance 0 to itself.

    Returns:
        1000 times the distance by side of the level in pixels, such as ``"128"``, and ``"mean"``.

    Raises:
        Undefined: if there is no image or S is below 16.
        ValueError: if the counts differ.

    Source: arXiv 1710.10196 (PGGAN), section 5: 128 patches of 7x7x3 an image, each channel of a
    set's patches brought to mean 0 and standard deviation 1. The paper does not count the
    directions; 512 is the official code's number (4 times 128), as are 16 px for the last level
    and reflected borders. The paper takes 16,384 images of each set. Ending the pyramid at an odd
    side is our choice.
    """
    if len(real) != len(generated):
        raise ValueError(f"{len(real)} real images against {len(generated)} generated")
    if len(real) == 0:
        raise Undefined("no image")
    if real.shape[1] < SMALLEST_LEVEL:
        raise Undefined(f"needs images of {SMALLEST_LEVEL} px, these have {real.shape[1]}")
    patches = zip(_patches(real, seed), _patches(generated, seed), strict=True)
    draws = np.random.default_rng(seed)
    directions = draws.normal(size=(DIRECTIONS, 3 * PATCH**2)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    side, distances = real.shape[1], {}
    for first, second in patches:
        distances[str(side)] = 1000 * _sliced_distance(first, second, directions)
        side //= 2
    return distances | {"mean": float(np.mean(list(distances.values())))}


def _patches(images: Images, seed: int) -> list[Floats]:
    """Normalised patches of each level, ``(128 n, 147)``."""
    found: list[list[Floats]] = []
    draws = np.random.default_rng(seed)
    for block in blocks(images):
        cut = []
        for level in laplacian_pyramid(block.numpy()):
            windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH, PATCH), axis=(2, 3))
            y, x = draws.integers(windows.shape[2], size=(2, len(block), PATCHES_PER_IMAGE))
            cut.append(windows[np.arange(len(block))[:, None], :, y, x].reshape(-1, 3, PATCH**2))
        found.append(cut)
    return [_normalised(np.concatenate(level)) for level in zip(*found, strict=True)]


def _normalised(patches: Floats) -> Floats:
    std, mean = torch.std_mean(torch.from_numpy(patches), dim=(0, 2), correction=0, keepdim=True)
    patches -= mean.numpy()
    patches /= torch.where(std > 0, std, 1).numpy()  # a channel without any contrast stays 0
    return patches.reshape(len(patches), -1)


def _sliced_distance(first: Floats, second: Floats, directions: Floats) -> float:
    """Mean over directions of the Wasserstein-1 distance of two equally large projected sets."""
    distances = []
    for chunk in np.array_split(directions, 8):  # all at once would take a gigabyte
        projected = [np.sort(chunk @ patches.T, axis=1) for patches in (first, second)]
        distances.append(np.abs(projected[0] - projected[1]).mean(axis=1, dtype=np.float64))
    return float(np.concatenate(distances).mean())


def laplacian_pyramid(images: Floats) -> list[Floats]:
    """Split images into frequency bands, each half as large as the one before.

    Args:
        images: ``(n, C, S, S)``.

    Returns:
        Bands of side S, S / 2 and so on, while the side is even and its half at least 16. The
        last is the low-pass residual: repeatedly applying `enlarge` and adding the next finer
        band, from the last on, restores the images.

    Source: Burt and Adelson 1983, with the kernel (1, 4, 6, 4, 1) / 16 in each direction.
    """
    bands = [images]
    while bands[-1].shape[2] % 2 == 0 and bands[-1].shape[2] // 2 >= SMALLEST_LEVEL:
        smaller = _both_ways(bands[-1], _smoothing(bands[-1].shape[2])[::2])
        bands[-1] = bands[-1] - enlarge(smaller)
        bands.append(smaller)
    return bands


def enlarge(images: Floats) -> Floats:
    """Upsample smoothly by 2, ``(n, C, S, S)`` to ``(n, C, 2S, 2S)``."""
    # Before smoothing, every other row of the larger image is 0, hence the factor 2.
    return _both_ways(images, 2 * _smoothing(2 * images.shape[2])[:, ::2])


def _both_ways(images: Floats, matrix: Floats) -> Floats:
    """Multiply by a matrix along columns, then along rows: faster here than convolution."""
    along_columns = np.tensordot(images, matrix, axes=(2, 1))
    return np.asarray(np.tensordot(along_columns, matrix, axes=(2, 1)))


def _smoothing(side: int) -> Floats:
    """The kernel as a ``(side, side)`` matrix, borders reflected."""
    padded = np.pad(np.eye(side, dtype=np.float32), ((2, 2), (0, 0)), mode="reflect")
    weights = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return np.asarray(sum(w * padded[i : i + side] for i, w in enumerate(weights)))


def nearest_neighbours(
    generated: Images, training: Images, seed: int, queries: int = 500
) -> Nearest:
    """Search for copies of training images among generated images.

    The distance is the root mean square difference, in grey levels, of 32x32 thumbnails. The
    distances between training images are the reference: a held-out real image is typically as far
    from the training images as each of them is from its nearest neighbour.

    Args:
        generated: ``(n, S, S, 3)`` uint8.
        training: ``(m, S, S, 3)`` uint8, all images that the generator was trained on; may be a
            memory map: only thumbnails, 12 KB per image, are kept in memory.
        seed: decides the queried images.
        queries: maximum number of queried images of each set.

    Raises:
        Undefined: with no generated or fewer than two training images.
    """
    if len(generated) == 0 or len(training) < 2:
        raise Undefined(
            f"needs one generated and two training images, there are {len(generated)} and "
            f"{len(training)}"
        )
    draws = np.random.default_rng(seed)
    rows, reals = (np.sort(draws.permutation(len(a))[:queries]) for a in (generated, training))
    of_training = thumbnails(training, NEIGHBOUR_SIDE).numpy()
    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(of_training)
    looked_up = np.concatenate([thumbnails(generated, NEIGHBOUR_SIDE, rows), of_training[reals]])
    first, second = search.kneighbors(looked_up, return_distance=False).T
    # A training image is its own nearest neighbour; a generated one is not in the set.
    itself = np.r_[np.full(len(rows), -1), reals]
    nearest = np.where(first == itself, second, first)
    # Recomputed: the search uses scalar products, in which copies have a distance other than 0.
    difference = (looked_up - of_training[nearest]).astype(np.float64)
    distances = np.sqrt((difference**2).mean(axis=1))
    k = len(rows)
    return Nearest(rows, nearest[:k], distances[:k], distances[k:])


def _summary(found: Nearest) -> dict[str, Any]:
    """Summary of nearest neighbours for `quality`.

    ``ratio`` of the median distances is about 1 for new images like the real ones;
    ``nearer_than_1_percent_of_reals`` is the share of generated images nearer to a training image
    than the 1 % quantile of distances between training images: 0.01 where nothing is copied. If
    1 % or more of the training images have near-duplicates, it only detects close copies.
    """
    median, real_median = np.median(found.distances), np.median(found.real_distances)
    ratio: dict[str, Any] = {"ratio": None, "ratio_reason": "most training images are duplicates"}
    if real_median > 0:
        ratio = {"ratio": float(median / real_median)}
    closest = np.argsort(found.distances, kind="stable")[:10]
    return {
        "n": len(found.distances),
        "n_real": len(found.real_distances),
        "median_distance": float(median),
        "median_distance_real": float(real_median),
        **ratio,
        "nearer_than_1_percent_of_reals": float(
            (found.distances < np.quantile(found.real_distances, 0.01)).mean()
        ),
        "closest": [
            {
                "generated": int(found.generated[i]),
                "training": int(found.training[i]),
                "distance": float(found.distances[i]),
            }
            for i in closest
        ],
    }


def frechet(real: Images, generated: Images, seed: int) -> dict[str, float]:
    """FID and KID, by torchmetrics, if Inception's weights are on the machine.

    Nothing is downloaded: the weights are expected in torch-fidelity's cache folder. FID falls
    with the number of images: compare figures of equal counts only. KID is unbiased.

    Args:
        real: ``(n, S, S, 3)`` uint8.
        generated: ``(m, S, S, 3)`` uint8.
        seed: decides KID's subsets.

    Returns:
        ``fid``, ``kid`` and ``kid_std``, the standard deviation over 100 subsets of up to 1,000
        images.

    Raises:
        Undefined: if torch-fidelity or the weights are missing, or with fewer than two images.

    Source: arXiv 1706.08500 (FID), 1801.01401 (KID, and its subsets).
    """
    if min(len(real), len(generated)) < 2:
        raise Undefined("needs two images of each set")
    weights = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS
    if find_spec("torch_fidelity") is None:
        raise Undefined("torch-fidelity is not installed")
    if not weights.is_file():
        raise Undefined(f"Inception's weights are not on this machine: there is no {weights}")
    inception = _inception(weights)
    with torch.inference_mode():
        features = [
            torch.cat([inception(block.to(torch.uint8)) for block in blocks(images)])
            for images in (real, generated)
        ]
    width, fewest = features[0].shape[1], min(len(real), len(generated))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # KID warns of its memory use
        torch.manual_seed(seed)
        # Their inputs are precomputed features; otherwise each metric would compute its own.
        fid = FrechetInceptionDistance(feature=nn.Identity(), input_img_size=(1, 1, width))
        kid = KernelInceptionDistance(feature=nn.Identity(), subset_size=min(1000, fewest))
        for metric in (fid, kid):
            metric.update(features[0], real=True)
            metric.update(features[1], real=False)
        mean, std = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_std": float(std)}


def _inception(weights: Path) -> nn.Module:
    """Inception, ``(B, 3, H, W)`` uint8 to ``(B, 2048)``; with a path it downloads nothing."""
    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))
