"""Colour statistics by hand and by a slow program; their models against scikit-learn."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from forensics.detectors.colour_statistics import (
    ColourStatisticsSettings,
    colour_features,
    shrunk_correlation,
)
from forensics.errors import UserError


def noise(count: int, size: int = 16, seed: int = 0, spread: int = 256) -> Tensor:
    """Whole grey levels in [0, spread)."""
    drawn = np.random.default_rng(seed).integers(0, spread, (count, 3, size, size))
    return torch.from_numpy(drawn).float()


def slow_features(image: NDArray[np.int64]) -> list[Fraction]:
    """The same of one ``(3, S, S)`` image, from the specification, by fractions and loops."""
    size = image.shape[1]
    whole = [[[int(level) for level in row] for row in channel] for channel in image]

    def nearest(value: Fraction) -> int:
        return int(value + Fraction(1, 2))  # none is below 0

    def chroma(y: int, x: int) -> tuple[int, int, int, int]:
        red, green, blue = (channel[y][x] for channel in whole)
        most, span = max(red, green, blue), max(red, green, blue) - min(red, green, blue)
        if span == 0:
            turn = Fraction(0)
        elif most == red:
            turn = Fraction(green - blue, span) % 6 / 6
        elif most == green:
            turn = (2 + Fraction(blue - red, span)) / 6
        else:
            turn = (4 + Fraction(red - green, span)) / 6
        saturation = Fraction(span, most) if most else Fraction(0)
        cb = 128 + Fraction(-37797 * red - 74203 * green + 112000 * blue, 255000)
        cr = 128 + Fraction(112000 * red - 93786 * green - 18214 * blue, 255000)
        return nearest(255 * turn), nearest(255 * saturation), nearest(cb), nearest(cr)

    planes = [[[chroma(y, x)[i] for x in range(size)] for y in range(size)] for i in range(4)]
    components = ["rgb", *planes]
    features: list[Fraction] = []
    for component in components:
        levels = 8 if component == "rgb" else 5
        shares: dict[tuple[int, int, int], Fraction] = {}
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            symbols = {}
            for y in range(1, size - 1):
                for x in range(1, size - 1):
                    if component == "rgb":
                        symbols[y, x] = sum(
                            2**i for i in range(3) if whole[i][y][x] > whole[i][y + dy][x + dx]
                        )
                    else:
                        difference = component[y][x] - component[y + dy][x + dx]  # type: ignore[operator]
                        symbols[y, x] = max(-2, min(2, difference)) + 2
            for step_y, step_x in ((0, 1), (1, 0)):
                found: Counter[tuple[int, int, int]] = Counter()
                for y, x in symbols:
                    last = (y + 2 * step_y, x + 2 * step_x)
                    if last in symbols:
                        one, other = symbols[y, x], symbols[last]
                        middle = symbols[y + step_y, x + step_x]
                        found[min(one, other), middle, max(one, other)] += 1
                for triple, count in found.items():
                    share = Fraction(count, sum(found.values()))
                    shares[triple] = shares.get(triple, Fraction(0)) + share
        features += [
            shares.get((low, middle, high), Fraction(0))
            for middle in range(levels)
            for low in range(levels)
            for high in range(low, levels)
        ]
    return features


class TestColourFeatures:
    def test_ramp_of_red_has_the_features_worked_by_hand(self) -> None:
        image = torch.zeros(1, 3, 5, 5)
        image[0, 0] = torch.tensor([100.0, 110, 120, 130, 140])
        rgb, hue, saturation, cb, _ = np.split(
            colour_features(image)[0].numpy(), [288, 363, 438, 513]
        )
        # Red is above its left neighbour alone: code 1; else 0. Two directions of each neighbour.
        expected = {0: 6.0, 36 + 8: 2.0}
        assert {i: v for i, v in enumerate(rgb.tolist()) if v} == expected
        # All of one hue and saturation: residual 0, symbol 2, in the middle of the list.
        middle = 2 * 15 + 9
        for component in (hue, saturation):
            assert {i: v for i, v in enumerate(component.tolist()) if v} == {middle: 8.0}
        # Cb is 113 112 110 109 107: to the right 2 1 2, to the left -1 -2 -1, else 0.
        expected = {
            middle: 4.0,
            # Rows: three of 4 3 4 and of 1 0 1, symbols from 0 to 4.
            3 * 15 + 14: 1.0,
            0 * 15 + 5: 1.0,
            # Columns: two of 4 4 4 and one of 3 3 3; two of 1 1 1 and one of 0 0 0.
            4 * 15 + 14: 2 / 3,
            3 * 15 + 12: 1 / 3,
            1 * 15 + 5: 2 / 3,
            0: 1 / 3,
        }
        found = {i: v for i, v in enumerate(cb.tolist()) if v}
        assert found == pytest.approx(expected)

    def test_negative_differences_do_not_wrap(self) -> None:
        # Cb and Cr of a step of 255: differences far below -128 and above 127 both appear.
        image = torch.zeros(1, 3, 7, 7)
        image[0, 2, :, ::2] = 255
        cb = colour_features(image)[0][288 + 150 : 288 + 225]
        taken = {index // 15 for index in cb.nonzero()[:, 0].tolist()}
        assert taken == {0, 2, 4}  # -2, 0 of rows' neighbours, 2

    @pytest.mark.parametrize(("size", "spread"), [(5, 256), (8, 256), (9, 4)])
    def test_features_are_those_of_a_slow_program(self, size: int, spread: int) -> None:
        images = noise(3, size, seed=size, spread=spread)
        expected = [[float(v) for v in slow_features(i.numpy().astype(int))] for i in images]
        torch.testing.assert_close(colour_features(images), torch.tensor(expected))

    def test_images_are_rounded_to_whole_grey_levels(self) -> None:
        images = noise(2)
        shifts = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.4
        assert torch.equal(colour_features(images + shifts), colour_features(images))

    def test_mirrored_images_have_the_same_features(self) -> None:
        images = noise(2)
        for axes in ([2], [3], [2, 3]):
            torch.testing.assert_close(colour_features(images.flip(axes)), colour_features(images))

    def test_smallest_image_is_five_pixels(self) -> None:
        settings = ColourStatisticsSettings(one_class=False)
        assert settings.build(5, pretrained=False)(noise(1, 5)).shape == (1,)
        with pytest.raises(UserError) as raised:
            settings.build(4, pretrained=False)
        assert raised.value.key == "dataset.image_size"


def labelled() -> tuple[Tensor, Tensor]:
    images = torch.cat([noise(40, spread=256), noise(30, seed=1, spread=200)])
    return images, torch.tensor([1.0] * 40 + [0.0] * 30)


class TestModels:
    def test_discriminant_is_scikit_learns(self) -> None:
        images, labels = labelled()
        detector = ColourStatisticsSettings(one_class=False).build(16, pretrained=False)
        detector.prepare([(images[::2], labels[::2]), (images[1::2], labels[1::2])])
        oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
        features = colour_features(images).double().numpy()
        oracle.fit(features, labels)
        new = noise(20, seed=2)
        expected = oracle.decision_function(colour_features(new).double().numpy())
        np.testing.assert_allclose(detector(new), expected, rtol=2e-3, atol=2e-3)

    def test_shrunk_correlation_is_scikit_learns(self) -> None:
        samples = np.random.default_rng(0).normal(3, [[1.0, 5.0, 0.1, 2.0]], (12, 4))
        samples[:, 3] = 0.1  # its rounded mean is another number
        standardised = (samples - samples.mean(0)) / [*samples[:, :3].std(0), 1.0]
        correlation, std = shrunk_correlation(torch.from_numpy(samples))
        expected = LedoitWolf(assume_centered=True).fit(standardised).covariance_
        np.testing.assert_allclose(correlation, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(std, [*samples[:, :3].std(0), 1.0])

    def test_gaussian_gives_mahalanobis_distances_to_real_images(self) -> None:
        images, labels = labelled()
        detector = ColourStatisticsSettings(one_class=True).build(16, pretrained=False)
        detector.prepare([(images, labels)])
        real = colour_features(images[labels == 1]).double().numpy()
        std = np.where(np.ptp(real, axis=0) > 0, real.std(0), 1)
        shrunk = LedoitWolf(assume_centered=True).fit((real - real.mean(0)) / std)
        new = colour_features(noise(20, seed=2)).double().numpy()
        squares = shrunk.mahalanobis((new - real.mean(0)) / std)
        expected = -np.sqrt(squares)
        np.testing.assert_allclose(detector(noise(20, seed=2)), expected, rtol=1e-4)
        assert detector.one_class
