"""The spectrum baseline: its profiles by NumPy, and what it cannot see."""

from __future__ import annotations

import numpy as np
import torch
from conftest import ADAM, photos

from forensics.detectors.radial_spectrum import RadialSpectrum, RadialSpectrumSettings
from forensics.images import spectra


def build(image_size: int = 32) -> RadialSpectrum:
    torch.manual_seed(0)
    return RadialSpectrumSettings(**ADAM).build(image_size, pretrained=True)


def test_profiles_are_those_of_numpy() -> None:
    rows = photos(5, side=32)
    images = torch.from_numpy(rows).permute(0, 3, 1, 2).float()
    expected = spectra.profiles(rows)
    np.testing.assert_allclose(build().profiles(images).numpy(), expected, rtol=1e-4, atol=1e-3)


def test_features_are_standardised_over_the_training_images() -> None:
    images = torch.from_numpy(photos(40, side=32)).permute(0, 3, 1, 2).float()
    detector = build()
    detector.prepare((images[start : start + 8], torch.zeros(8)) for start in range(0, 40, 8))
    found = detector.features(images)
    np.testing.assert_allclose(found.mean(dim=0).numpy(), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(dim=0).numpy(), 1, rtol=1e-3)


def test_places_and_directions_are_of_no_account() -> None:
    # A window that is 0 at the border would see a shift; a quarter turn changes nothing at all.
    images = torch.from_numpy(photos(3, side=32)).permute(0, 3, 1, 2).float()
    detector = build()
    turned = detector(images.rot90(1, dims=(2, 3)))
    torch.testing.assert_close(turned, detector(images), rtol=1e-3, atol=1e-3)
