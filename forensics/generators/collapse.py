"""Detection of mode collapse, by the similarity of pairs of generated images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

Images = NDArray[np.uint8]

Floats = NDArray[np.float32]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
COARSEST_SCALE = 8


COLLAPSED_MS_SSIM, VARIED_MS_SSIM = 0.9, 0.6


AREAS = 8
"""Areas of an image along each side."""

MIN_CONTRAST = 0.2
"""Of real images' contrast; see experiments/generators for DCGAN's by step and seed."""

_BLOCK = 64


class Undefined(ValueError):
    """A measure is undefined for these images; the text gives the reason."""


def ms_ssim_pairs(
    images: NDArray[np.uint8] | NDArray[np.floating], seed: int, pairs: int = 250
) -> float:
    """Mean MS-SSIM of random pairs of a set: the higher, the less varied the set.

    Compare it with that of real images: a higher value means lost variety. Figures of different S
    are not comparable.

    Args:
        images: ``(n, S, S, 3)`` uint8, or float in grey levels.
        seed: decides the pairs; no image is in two of them.
        pairs: maximum number of pairs.

    Returns:
        0 to 1; 1 if all images are equal.

    Raises:
        Undefined: with fewer than two images, or if S is below 8.

    Source: arXiv 1610.09585 (Odena), section 4.2; arXiv 1710.10196, section 5. Five scales with
    Wang's weights (2003) from 128 px on. Our choice for smaller images: as many scales as leave
    8 px to the coarsest, with the weights of those scales rescaled to the same sum.
    """
    if len(images) < 2:
        raise Undefined(f"needs two images, there are {len(images)}")
    side = images.shape[1]
    if side < COARSEST_SCALE:
        raise Undefined(f"needs images of {COARSEST_SCALE} px, these have {side}")
    scales = min(len(SCALE_WEIGHTS), (side // COARSEST_SCALE).bit_length())
    share = sum(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS)
    drawn = np.random.default_rng(seed).permutation(len(images))
    drawn = drawn[: 2 * min(pairs, len(images) // 2)].reshape(2, -1)
    similarities = [
        multiscale_structural_similarity_index_measure(
            first,
            second,
            # The window has 11 px, from its sigma of 1.5. This number only enters a check that
            # would refuse five scales below 161 px, though the window fits into 8 px.
            kernel_size=7,
            reduction="none",
            data_range=255.0,
            betas=tuple(weight / share for weight in SCALE_WEIGHTS[:scales]),
        )
        for first, second in zip(blocks(images, drawn[0]), blocks(images, drawn[1]), strict=True)
    ]
    return float(torch.cat(similarities).mean())


def collapsed(generated: NDArray[np.uint8] | NDArray[np.floating]) -> str | None:
    """Detect a generator that makes flat images, or only one image.

    Args:
        generated: ``(n, S, S, 3)`` uint8, or float in grey levels before rounding, where values
            that are not finite are still visible.

    Returns:
        One sentence that describes the collapse, or None. Pairs of different faces have a mean
        MS-SSIM of 0.1 to 0.5, copies of a face under noise of 20 grey levels 0.9, which is the
        limit. A set of a few different images stays below it; compare `ms_ssim_pairs` with that of
        real images to detect one.

    Raises:
        Undefined: with fewer than two images, or if S is below 8.
    """
    broken = sum(not np.isfinite(image).all() for image in generated)
    if broken:
        return f"{broken} of {len(generated)} images have values that are not finite numbers."
    flat = sum(np.ptp(image, axis=(0, 1)).max() < 2 for image in generated)
    if flat > len(generated) / 2:
        return f"{flat} of {len(generated)} images are of one flat colour."
    similarity = ms_ssim_pairs(generated, seed=0, pairs=50)
    if similarity >= COLLAPSED_MS_SSIM:
        return f"The images are all alike: random pairs have an MS-SSIM of {similarity:.3f}."
    return None


def varied(generated: NDArray[np.uint8] | NDArray[np.floating]) -> bool:
    """Whether a generator has learned to make different images.

    Early in training the MS-SSIM fluctuates about the limit of `collapsed`; this limit is well
    below it.

    Args:
        generated: as for `collapsed`, finite.
    """
    return ms_ssim_pairs(generated, seed=0, pairs=50) < VARIED_MS_SSIM


def without_structure(
    generated: NDArray[np.uint8] | NDArray[np.floating], real: NDArray[np.uint8]
) -> str | None:
    """Detect a generator that makes noise: images whose large areas are all of one grey.

    Early in training samples are alike with any seed, so their variety does not tell the seeds
    that will learn from the others.

    Args:
        generated: ``(n, S, S, 3)``, in grey levels.
        real: ``(m, S, S, 3)`` images that it is trained on.

    Returns:
        One sentence with the contrast of both, if that of the generated images is below
        `MIN_CONTRAST` of the real ones'; else None.
    """
    ours, theirs = _contrast(generated), _contrast(real)
    if ours >= MIN_CONTRAST * theirs:
        return None
    return (
        f"Its images are noise: the areas of one differ by {ours:.1f} grey levels, those of a real "
        f"image by {theirs:.1f}."
    )


def _contrast(images: NDArray[np.uint8] | NDArray[np.floating]) -> float:
    """Mean over images of the standard deviation of the 64 areas' mean grey level."""
    areas = torch.cat([adaptive_avg_pool2d(block.mean(1), AREAS) for block in blocks(images)])
    return float(areas.flatten(1).std(dim=1, correction=0).mean())


def blocks(
    images: NDArray[np.uint8] | NDArray[np.floating], rows: NDArray[np.int64] | None = None
) -> Iterator[Tensor]:
    """Blocks of all or the given rows, as ``(B, 3, S, S)`` float in grey levels."""
    rows = np.arange(len(images)) if rows is None else rows
    for start in range(0, len(rows), _BLOCK):
        block = images[rows[start : start + _BLOCK]].astype(np.float32)
        yield torch.from_numpy(block).permute(0, 3, 1, 2).contiguous()
