"""Perturbations of test images: JPEG compression, blur, noise, downscaling.

A perturbation maps one image to one image, ``(S, S, 3)`` uint8, independently of its batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from forensics import checks
from forensics.images.geometry import Match, ResizeFilter, matched, recompressed
from forensics.preprocess.degradations import gaussian_blur

Pixels = NDArray[np.uint8]
MildChange = Callable[[Pixels], Pixels]


class Perturbation(NamedTuple):
    """One kind of perturbation.

    Attributes:
        what: name of its strength, for axes and tables.
        strengths: default strengths, mildest first; our choice.
        known: whether a strength is valid, and the range in words.
        apply: maps an image, a strength and a random generator to an image.
    """

    what: str
    strengths: tuple[float, ...]
    known: tuple[Callable[[float], bool], str]
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]


def compressed(image: Pixels, quality: float, draws: np.random.Generator) -> Pixels:
    """Save as JPEG and read it again, as `forensics.images.geometry.recompressed` does."""
    return recompressed(image, int(quality))


def blurred(image: Pixels, kernel_size: float, draws: np.random.Generator) -> Pixels:
    """Blur as `forensics.preprocess.degradations.gaussian_blur` does, and round."""
    batch = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    return gaussian_blur(batch, int(kernel_size))[0].permute(1, 2, 0).round().byte().numpy()


def noisy(image: Pixels, std_grey_levels: float, draws: np.random.Generator) -> Pixels:
    """Add white Gaussian noise, round and clip."""
    noise = draws.normal(0, std_grey_levels, image.shape)
    return np.asarray(np.rint((image + noise).clip(0, 255)), np.uint8)


def resized(image: Pixels, scale: float, draws: np.random.Generator) -> Pixels:
    """Downscale by a factor in (0, 1], antialiased, and upscale back, both bicubic."""
    size = image.shape[0]
    smaller = max(1, round(size * scale))
    small = Image.fromarray(image).resize((smaller, smaller), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def zoomed(image: Pixels, pixels: float) -> Pixels:
    """Crop a number of pixels, possibly fractional, from each side and resize to the old size."""
    size = image.shape[0]
    box = (pixels, pixels, size - pixels, size - pixels)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box))


MILD_JPEG_QUALITY = 90
MILD_ZOOM_PIXELS = 0.5
MILD_CHANGES: dict[str, MildChange] = {
    "jpeg": lambda image: recompressed(image, MILD_JPEG_QUALITY),
    "rescale": lambda image: zoomed(image, MILD_ZOOM_PIXELS),
}
"""Changes to ``(S, S, 3)`` images, by name, that should change no verdict."""

PERTURBATIONS = {
    "jpeg": Perturbation(
        "JPEG quality",
        (95, 90, 75, 50, 30),
        (lambda quality: quality in range(1, 101), "a whole number from 1 to 100"),
        compressed,
    ),
    "blur": Perturbation(
        "blur, kernel size in pixels",
        (3, 5, 7, 9),
        (lambda size: size in range(1, 100, 2), "an odd number from 1 to 99"),
        blurred,
    ),
    "noise": Perturbation(
        "noise, standard deviation in grey levels",
        (2, 5, 10, 20),
        (lambda std: 0 <= std <= 255, "a number from 0 to 255"),
        noisy,
    ),
    "resize": Perturbation(
        "downscaled to",
        (0.75, 0.5, 0.35, 0.25),
        (lambda scale: 0 < scale <= 1, "a number above 0 and up to 1"),
        resized,
    ),
}
"""Perturbations by the names of ``perturb=``."""


def chosen(entries: Sequence[str]) -> list[tuple[str, float]]:
    """Perturbations with their strengths.

    Args:
        entries: each a name, for all default strengths, or a name, a colon and a strength.

    Raises:
        UserError: if an entry is neither.
    """
    found: list[tuple[str, float]] = []
    for entry in entries:
        name, _, given = entry.partition(":")
        checks.require(name in PERTURBATIONS, "perturb", entry, f"name {', '.join(PERTURBATIONS)}")
        perturbation = PERTURBATIONS[name]
        if not given:
            found += [(name, strength) for strength in perturbation.strengths]
            continue
        is_known, range_ = perturbation.known
        try:
            strength = float(given)
        except ValueError:
            strength = math.nan
        checks.require(is_known(strength), "perturb", entry, f"have {range_} after {name}:")
        found.append((name, strength))
    return list(dict.fromkeys(found))


def perturb(
    name: str, strength: float, seed: int, match: Match, resize_filter: ResizeFilter
) -> Callable[[Pixels, int], Pixels]:
    """One perturbation at one strength, as a function of an image and its row in its source.

    Args:
        name: a key of `PERTURBATIONS`.
        strength: in its unit.
        seed: decides all draws, together with the row.
        match: the processing of all images, repeated after the perturbation.
        resize_filter: filter of ``match``.
    """
    apply = PERTURBATIONS[name].apply

    def change(image: Pixels, row: int) -> Pixels:
        perturbed = apply(image, strength, np.random.default_rng([seed, row]))
        return matched(perturbed, match, resize_filter)

    return change
