"""Front ends against SciPy and cases worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import photos
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from forensics.detectors.front_ends import (
    FRONT_ENDS,
    RESIDUAL_UNIT,
    FrontEnd,
    laplacian,
    median_residual,
    nearest_residual,
)

RESIDUALS = [nearest_residual, median_residual, laplacian]
SHAPES = [(16, 16), (17, 15), (2, 3), (5, 2)]


def levels(height: int, width: int) -> NDArray[np.float64]:
    """Three channels of a few grey levels, so that many neighbours are equal."""
    draws = np.random.default_rng(height * width)
    return (51 * draws.integers(0, 6, (3, height, width))).astype(np.float64)


def of(front_end: Callable[[Tensor], Tensor], image: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a front end makes of one image, in grey levels."""
    made = front_end(torch.from_numpy(image)[None])
    assert made.shape == (1, *image.shape)
    return np.asarray(made[0].numpy() * RESIDUAL_UNIT)


@pytest.mark.parametrize("shape", SHAPES)
class TestAgainstSciPy:
    def test_median(self, shape: tuple[int, int]) -> None:
        def median(window: NDArray[np.float64]) -> float:
            window[4] = 0
            return float(np.median(window))

        image = levels(*shape)
        medians = [ndimage.generic_filter(one, median, size=3, mode="mirror") for one in image]
        np.testing.assert_allclose(of(median_residual, image), image - medians)

    def test_laplacian(self, shape: tuple[int, int]) -> None:
        image = levels(*shape)
        expected = [ndimage.laplace(one, mode="mirror") for one in image]
        np.testing.assert_allclose(of(laplacian, image), expected)

    def test_nearest(self, shape: tuple[int, int]) -> None:
        image, (height, width) = levels(*shape), shape
        doubled = np.kron(image[:, ::2, ::2], np.ones((2, 2)))[:, :height, :width]
        np.testing.assert_allclose(of(nearest_residual, image), image - doubled)


class TestByHand:
    def test_nearest_is_a_block_less_its_upper_left_pixel(self) -> None:
        image = np.array([[[10.0, 11, 20], [12, 13, 24], [30, 33, 40]]])
        expected = [[[0, 1, 0], [2, 3, 4], [0, 3, 0]]]
        np.testing.assert_allclose(of(nearest_residual, image), expected)

    @pytest.mark.parametrize("size", [16, 15])
    def test_image_enlarged_by_its_nearest_pixels_has_no_nearest_residual(self, size: int) -> None:
        enlarged = levels(8, 8).repeat(2, axis=1).repeat(2, axis=2)
        assert not of(nearest_residual, enlarged[:, :size, :size]).any()
        assert of(nearest_residual, enlarged[:, 1:, 1:]).any()

    def test_median_is_the_fourth_smallest_neighbour(self) -> None:
        image = np.array([[[70.0, 20, 50], [10, 200, 80], [40, 60, 30]]])
        assert of(median_residual, image)[0, 1, 1] == 200 - 40

    def test_linear_ramp_has_no_laplacian_inside(self) -> None:
        rows, columns = np.mgrid[:9, :12].astype(float)
        image = np.stack([rows, columns, 3 * rows + 5 * columns])
        found = of(laplacian, image)
        assert not found[:, 1:-1, 1:-1].any()
        assert found.any()

    @pytest.mark.parametrize("residual", RESIDUALS)
    def test_flat_image_leaves_nothing_and_brightness_does_not_matter(
        self, residual: Callable[[Tensor], Tensor]
    ) -> None:
        assert not of(residual, np.full((3, 8, 8), 173.0)).any()
        image = levels(8, 8) / 2
        np.testing.assert_allclose(of(residual, image + 90), of(residual, image), atol=1e-9)


@pytest.mark.parametrize("name", FrontEnd)
class TestEach:
    def test_is_the_same_under_autocast(self, name: FrontEnd) -> None:
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 200
        with torch.autocast("cpu", torch.bfloat16):
            found = FRONT_ENDS[name](images)
        assert found.dtype == torch.float32
        assert torch.equal(found, FRONT_ENDS[name](images))

    def test_is_of_a_scale_that_networks_take(self, name: FrontEnd) -> None:
        images = torch.from_numpy(photos(20)).movedim(3, 1).float()
        assert 0.1 < float(FRONT_ENDS[name](images).std()) < 2

    def test_leaves_images_as_they_are(self, name: FrontEnd) -> None:
        images = torch.from_numpy(levels(8, 8))[None]
        FRONT_ENDS[name](images)
        assert torch.equal(images, torch.from_numpy(levels(8, 8))[None])
