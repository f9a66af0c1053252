"""Test images as they arrive after some handling: recompressed, blurred, noisy, made smaller.

A perturbation works on one image, ``(S, S, 3)`` uint8 in and out, so that what it does to an image
depends on neither its batch nor its neighbours.
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


class Perturbation(NamedTuple):
    """One way of handling images.

    Attributes:
        what: its strength in words, for axes and tables.
        strengths: those that are measured unless others are named, mildest first; ours.
        known: whether there is such a strength, and what must be true of it in words.
        apply: from an image, a strength and a source of draws to an image.
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
    """Make smaller by a scale in (0, 1), antialiased, and as large as before, both bicubic."""
    size = image.shape[0]
    smaller = max(1, round(size * scale))
    small = Image.fromarray(image).resize((smaller, smaller), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def zoomed(image: Pixels, pixels: float) -> Pixels:
    """Cut a frame of so many pixels, which may be a fraction, and resize to as large as before."""
    size = image.shape[0]
    box = (pixels, pixels, size - pixels, size - pixels)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box))


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
"""By name, as ``perturb=`` takes them."""


def chosen(entries: Sequence[str]) -> list[tuple[str, float]]:
    """Perturbations with their strengths.

    Args:
        entries: each a name, for all its strengths, or a name, a colon and a strength.

    Raises:
        UserError: if one is neither.
    """
    found: list[tuple[str, float]] = []
    for entry in entries:
        name, _, given = entry.partition(":")
        checks.require(name in PERTURBATIONS, "perturb", entry, f"name {', '.join(PERTURBATIONS)}")
        one = PERTURBATIONS[name]
        if not given:
            found += [(name, strength) for strength in one.strengths]
            continue
        is_known, range_ = one.known
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
    """One perturbation at one strength, as a function of an image and its position in the test.

    Args:
        name: a key of `PERTURBATIONS`.
        strength: in its unit.
        seed: with the position it decides all draws.
        match: what is done to every image before a detector sees it, so to a perturbed one, too.
        resize_filter: of ``match``.
    """
    apply = PERTURBATIONS[name].apply

    def change(image: Pixels, position: int) -> Pixels:
        perturbed = apply(image, strength, np.random.default_rng([seed, position]))
        return matched(perturbed, match, resize_filter)

    return change
