"""Quality and variety of a generator's images.

Everything here works on rows as `forensics.data.sources` holds them, ``(n, S, S, 3)`` uint8, and
needs no network. A generator whose images a logistic model can tell by their colours or their
border teaches a detector nothing but that: see `shortcuts` before training on them.
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
"""Images of each set that `quality` compares, where there are so many: a minute's work on two
cores, and one count for all generators, because some measures depend on it."""

SMALLEST_LEVEL = 16
PATCH = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 512
NEIGHBOUR_SIDE = 32

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


class Nearest(NamedTuple):
    """The nearest training image of some images, by `nearest_neighbours`.

    Attributes:
        generated: ``(k,)`` rows of the generated images that were looked up.
        training: ``(k,)`` row of each one's nearest training image.
        distances: ``(k,)`` in grey levels.
        real_distances: ``(m,)`` from some training images to the nearest other one.
    """

    generated: NDArray[np.int64]
    training: NDArray[np.int64]
    distances: NDArray[np.float64]
    real_distances: NDArray[np.float64]


def quality(real: Images, generated: Images, seed: int) -> dict[str, Any]:
    """All measures of a generator, ready for JSON.

    Args:
        real: ``(n, S, S, 3)`` uint8, all the images the generator was trained on.
        generated: ``(m, S, S, 3)`` uint8.
        seed: decides which images are compared and every draw of the measures.

    Returns:
        Counts and measures; ``n`` of each set, drawn at random, are compared. ``<measure>_real``
        is the same measure between or of reals alone, what a perfect generator would reach. A
        measure that is not defined is None with a ``<measure>_reason``. ``collapsed`` is None for
        a generator that is not.

    Raises:
        ValueError: if the two have not the same S.
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

    The smaller the level, the larger the structures it compares: ``16`` is about the layout of a
    face, the finest about edges and noise. Two sets of the same distribution do not reach 0, and
    come the nearer the more images there are: compare figures of equal counts only. Brightness and
    contrast of a complete set do not count.

    Args:
        real: ``(n, S, S, 3)`` uint8.
        generated: as many of the same size.
        seed: decides patches and directions. Both sets are cut at the same places, so that a set
            has distance 0 from itself.

    Returns:
        1000 times the distance by side of the level in pixels, such as ``"128"``, and ``"mean"``.

    Raises:
        Undefined: if there is no image or S is below 16.
        ValueError: if the counts differ.

    Source: arXiv 1710.10196 (PGGAN), section 5: 128 patches of 7x7x3 an image, each channel of a
    set's patches brought to mean 0 and standard deviation 1. The paper does not count the
    directions; 512 are the official code's (4 times 128), as are 16 px for the last level and
    reflected borders. The paper takes 16,384 images of each set. Where S halves to an odd number
    the pyramid ends there: ours.
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
    for some in np.array_split(directions, 8):  # all at once would take a gigabyte
        projected = [np.sort(some @ patches.T, axis=1) for patches in (first, second)]
        distances.append(np.abs(projected[0] - projected[1]).mean(axis=1, dtype=np.float64))
    return float(np.concatenate(distances).mean())


def laplacian_pyramid(images: Floats) -> list[Floats]:
    """Split images into bands of frequencies, each half as large as the one before.

    Args:
        images: ``(n, C, S, S)``.

    Returns:
        Bands of side S, S / 2 and so on, while the side is even and its half at least 16. The
        last is what is left, so that `enlarge` and add, from the last on, gives the images back.

    Source: Burt and Adelson 1983, with the kernel (1, 4, 6, 4, 1) / 16 in each direction.
    """
    bands = [images]
    while bands[-1].shape[2] % 2 == 0 and bands[-1].shape[2] // 2 >= SMALLEST_LEVEL:
        smaller = _both_ways(bands[-1], _smoothing(bands[-1].shape[2])[::2])
        bands[-1] = bands[-1] - enlarge(smaller)
        bands.append(smaller)
    return bands


def enlarge(images: Floats) -> Floats:
    """Twice as large, ``(n, C, S, S)`` to ``(n, C, 2S, 2S)``, smoothly."""
    # Before it is smoothed, every other row of the larger image is 0, hence the 2.
    return _both_ways(images, 2 * _smoothing(2 * images.shape[2])[:, ::2])


def _both_ways(images: Floats, matrix: Floats) -> Floats:
    """Multiply with a matrix along columns, then along rows: faster here than convolving."""
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
    """Look for copies of training images among generated ones.

    The distance is the root mean square difference, in grey levels, of 32x32 thumbnails. How
    near is near is told by the training images themselves: as a rule, one that was held out would
    be as far from the rest as each is from the nearest other.

    Args:
        generated: ``(n, S, S, 3)`` uint8.
        training: ``(m, S, S, 3)`` uint8, all that the generator was trained on; may be a map of a
            file, of which thumbnails, 12 KB an image, are kept in memory.
        seed: decides which images are looked up.
        queries: at most so many of each set.

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
    # A training image is its own neighbour; a generated one is none of them.
    itself = np.r_[np.full(len(rows), -1), reals]
    nearest = np.where(first == itself, second, first)
    # Measured again: the products the search is made of leave a copy a distance that is not 0.
    difference = (looked_up - of_training[nearest]).astype(np.float64)
    distances = np.sqrt((difference**2).mean(axis=1))
    k = len(rows)
    return Nearest(rows, nearest[:k], distances[:k], distances[k:])


def _summary(found: Nearest) -> dict[str, Any]:
    """Summary of nearest neighbours, as `quality` reports it.

    ``ratio`` of the median distances is about 1 for new images like the real ones;
    ``nearer_than_1_percent_of_reals`` is the share of generated images nearer to a training image
    than all but 1 % of those are to each other: 0.01 where nothing is copied. Near duplicates in
    the training set, a hundredth of it or more, make that share blind to all but close copies.
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

    Nothing is ever downloaded: the weights are looked for where torch-fidelity would keep them.
    FID falls with the number of images: compare figures of equal counts only. KID does not.

    Args:
        real: ``(n, S, S, 3)`` uint8.
        generated: ``(m, S, S, 3)`` uint8.
        seed: decides KID's subsets.

    Returns:
        ``fid``, ``kid`` and ``kid_std``, the spread over 100 subsets of 1,000 images, or of all.

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
        warnings.simplefilter("ignore", UserWarning)  # that KID keeps all features in memory
        torch.manual_seed(seed)
        # What they take for images are features, or each would compute its own.
        fid = FrechetInceptionDistance(feature=nn.Identity(), input_img_size=(1, 1, width))
        kid = KernelInceptionDistance(feature=nn.Identity(), subset_size=min(1000, fewest))
        for metric in (fid, kid):
            metric.update(features[0], real=True)
            metric.update(features[1], real=False)
        mean, std = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_std": float(std)}


def _inception(weights: Path) -> nn.Module:
    """The network, ``(B, 3, H, W)`` uint8 to ``(B, 2048)``; with a path it downloads nothing."""
    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))
