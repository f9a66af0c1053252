"""Noise against faces, by the contrast of areas; `test_sample_quality.py` tests the rest."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import photos

from forensics.generators.collapse import AREAS, without_structure


def contrast(images: np.ndarray) -> float:
    """By loops over the areas."""
    side = images.shape[1] // AREAS
    found = []
    for image in images.astype(np.float64):
        means = [
            image[top : top + side, left : left + side].mean()
            for top in range(0, image.shape[0], side)
            for left in range(0, image.shape[1], side)
        ]
        found.append(np.std(means))
    return float(np.mean(found))


def test_noise_alike_or_not_has_no_structure_and_faces_have() -> None:
    real = photos(20)
    draws = np.random.default_rng(0)
    noise = draws.normal(128, 10, real.shape).clip(0, 255).astype(np.float32)
    for images in (noise, noise[[0] * 20]):
        said = without_structure(images, real)
        assert said is not None
        ours, theirs = map(float, re.findall(r"\d+\.\d", said))
        assert ours == pytest.approx(contrast(images), abs=0.06)
        assert theirs == pytest.approx(contrast(real), abs=0.06)
    one_face = photos(1, seed=1)[[0] * 20]
    assert without_structure(one_face, real) is None  # alike, as every seed's are at first
    assert without_structure(real.astype(np.float32), real) is None


@pytest.mark.parametrize(("share", "is_noise"), [(0.15, True), (0.25, False)])
def test_the_limit_is_a_fifth_of_the_real_images_contrast(share: float, is_noise: bool) -> None:
    real = photos(20)
    faint = 128 + share * (real.astype(np.float32) - real.mean(axis=(1, 2, 3), keepdims=True))
    assert (without_structure(faint, real) is not None) is is_noise
