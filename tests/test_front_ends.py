"""Front ends against SciPy, PyWavelets and NumPy, and cases worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pywt
import torch
from conftest import photos
from numpy.typing import NDArray
from scipy import fft, ndimage, signal
from torch import Tensor

from forensics.detectors.front_ends import (
    LEAST_SUM,
    RESIDUAL_UNIT,
    ConstrainedConvolution,
    FrontEnd,
    build_front_end,
    fft_highpass,
    kv_residual,
    laplacian,
    log_dct,
    median_residual,
    nearest_residual,
    srm_residuals,
    wavelet_hh,
)

HIGH_PASS = [
    nearest_residual,
    median_residual,
    laplacian,
    kv_residual,
    srm_residuals,
    wavelet_hh,
    fft_highpass,
]
SHAPES = [(16, 16), (17, 15), (2, 3), (5, 2)]

Image = NDArray[np.float64]


def levels(height: int, width: int) -> Image:
    """Three channels of a few grey levels, so that many neighbours are equal."""
    draws = np.random.default_rng(height * width)
    return (51 * draws.integers(0, 6, (3, height, width))).astype(np.float64)


def of(front_end: Callable[[Tensor], Tensor], image: Image) -> Image:
    """What a front end makes of one image, in grey levels."""
    made = front_end(torch.from_numpy(image)[None])
    assert made.shape[2:] == image.shape[1:]
    return np.asarray(made[0].numpy() * RESIDUAL_UNIT)


KV = np.array(
    [
        [-1, 2, -2, 2, -1],
        [2, -6, 8, -6, 2],
        [-2, 8, -12, 8, -2],
        [2, -6, 8, -6, 2],
        [-1, 2, -2, 2, -1],
    ]
)


@pytest.mark.parametrize("shape", SHAPES)
class TestAgainstSciPy:
    def test_median(self, shape: tuple[int, int]) -> None:
        def median(window: Image) -> float:
            window[4] = 0
            return float(np.median(window))

        image = levels(*shape)
        medians = [ndimage.generic_filter(one, median, size=3, mode="mirror") for one in image]
        np.testing.assert_allclose(of(median_residual, image), image - medians)

    def test_laplacian(self, shape: tuple[int, int]) -> None:
        image = levels(*shape)
        expected = [ndimage.laplace(one, mode="mirror") for one in image]
        np.testing.assert_allclose(of(laplacian, image), expected)

    def test_kv(self, shape: tuple[int, int]) -> None:
        image = levels(*shape)
        expected = [signal.correlate2d(one, KV / 12, "same", "symm") for one in image]
        np.testing.assert_allclose(of(kv_residual, image), expected, atol=1e-9)

    def test_srm(self, shape: tuple[int, int]) -> None:
        # The filters as published, by what they answer to one bright pixel: itself turned around.
        point = np.zeros((3, 11, 11))
        point[:, 5, 5] = 1
        kernels = of(srm_residuals, point)[:, 3:8, 3:8][:, ::-1, ::-1]
        image = levels(*shape)
        expected = [signal.correlate2d(image.mean(0), one, "same", "symm") for one in kernels]
        np.testing.assert_allclose(of(srm_residuals, image), expected, atol=1e-4)

    def test_constrained(self, shape: tuple[int, int]) -> None:
        convolution, image = ConstrainedConvolution(4).double(), levels(*shape)
        with torch.no_grad():
            found = of(convolution, image)
        expected = [
            signal.correlate2d(image.mean(0), kernel[0], "same", "symm")
            for kernel in convolution.weight.detach().numpy()
        ]
        np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_dct(self, shape: tuple[int, int]) -> None:
        image = levels(*shape)
        expected = np.log10(np.abs(fft.dctn(image, axes=(1, 2), norm="ortho")) + 0.01)
        np.testing.assert_allclose(of(log_dct, image) / RESIDUAL_UNIT, expected, atol=1e-5)

    def test_fft_highpass(self, shape: tuple[int, int]) -> None:
        image = levels(*shape)
        spectrum = np.fft.fft2(image)
        rows, columns = (np.abs(np.fft.fftfreq(size)) < 0.25 for size in shape)
        spectrum[:, rows[:, None] & columns] = 0
        expected = np.fft.ifft2(spectrum).real
        np.testing.assert_allclose(of(fft_highpass, image), expected, atol=1e-4)

    def test_nearest(self, shape: tuple[int, int]) -> None:
        image, (height, width) = levels(*shape), shape
        doubled = np.kron(image[:, ::2, ::2], np.ones((2, 2)))[:, :height, :width]
        np.testing.assert_allclose(of(nearest_residual, image), image - doubled)


@pytest.mark.parametrize("size", [(16, 16), (32, 8)])
def test_wavelet_is_the_hh_band_of_pywavelets_enlarged(size: tuple[int, int]) -> None:
    image = levels(*size)
    # PyWavelets adds a coefficient of mirrored pixels at each border.
    details = pywt.dwt2(image, "bior1.3", mode="symmetric")[1][2][:, 1:-1, 1:-1]
    assert details.shape == (3, size[0] // 2, size[1] // 2)
    # Bilinear: new pixels lie a quarter of an old one from the old ones' centres.
    places = [np.clip((np.arange(side) + 0.5) / 2 - 0.5, 0, side // 2 - 1) for side in size]
    grid = np.meshgrid(*places, indexing="ij")
    expected = [ndimage.map_coordinates(one, grid, order=1, mode="nearest") for one in details]
    np.testing.assert_allclose(of(wavelet_hh, image), expected, atol=1e-9)


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

    def test_wavelet_of_a_block(self) -> None:
        image = np.array([[[10.0, 3], [4, 1]]])
        np.testing.assert_allclose(of(wavelet_hh, image), np.full((1, 2, 2), (10 - 3 - 4 + 1) / 2))

    def test_srm_has_the_published_filters(self) -> None:
        point = np.zeros((3, 11, 11))
        point[:, 5, 5] = 1
        kernels = of(srm_residuals, point)[:, 3:8, 3:8][:, ::-1, ::-1]
        found = {tuple(np.round(12 * kernel).astype(int).flatten()) for kernel in kernels}
        assert len(found) == 30  # all different
        assert all(kernel[12] == -12 and sum(kernel) == 0 for kernel in found)
        third = np.zeros((5, 5), int)
        third[2, 1:5] = [4, -12, 12, -4]
        second = np.zeros((5, 5), int)
        second[2, 1:4] = [6, -12, 6]
        edge = np.zeros((5, 5), int)
        edge[1:3, 1:4] = [[-3, 6, -3], [6, -12, 6]]
        first = np.zeros((5, 5), int)
        first[2, 2:4] = [-12, 12]
        edge_5 = KV.copy()
        edge_5[3:] = 0
        published = [first, second, third, edge, edge_5, KV]
        for kernel, rotations in zip(published, [4, 2, 4, 4, 4, 1], strict=True):
            turned = {tuple(np.rot90(kernel, turns).flatten()) for turns in range(4)}
            assert len(turned) == rotations
            assert turned <= found

    @pytest.mark.parametrize("residual", HIGH_PASS)
    def test_flat_image_leaves_nothing_and_brightness_does_not_matter(
        self, residual: Callable[[Tensor], Tensor]
    ) -> None:
        np.testing.assert_allclose(of(residual, np.full((3, 8, 8), 173.0)), 0, atol=1e-4)
        image = levels(8, 8) / 2
        np.testing.assert_allclose(of(residual, image + 90), of(residual, image), atol=1e-4)


class TestConstraint:
    def holds(self, convolution: ConstrainedConvolution) -> None:
        weights = convolution.weight.detach().double().numpy().reshape(-1, 25)
        assert np.isfinite(weights).all()
        assert (weights[:, 12] == -1).all()
        np.testing.assert_allclose(weights.sum(1), 0, atol=1e-5)

    def test_holds_from_the_start(self) -> None:
        self.holds(ConstrainedConvolution(5))

    def test_other_weights_are_divided_by_their_sum(self) -> None:
        convolution = ConstrainedConvolution(1)
        given = np.random.default_rng(0).uniform(-0.5, 1, 25)
        convolution.weight.data.copy_(torch.from_numpy(given).view(1, 1, 5, 5))
        convolution.project()
        others = np.delete(given, 12)
        found = np.delete(convolution.weight.detach().numpy().flatten(), 12)
        np.testing.assert_allclose(found, others / others.sum(), rtol=1e-5)

    @pytest.mark.parametrize("sum_", [0.0, 1e-9, -1e-9, LEAST_SUM / 2, -0.5, -20.0])
    def test_holds_with_a_sum_near_zero_or_below_and_no_weight_explodes(self, sum_: float) -> None:
        convolution = ConstrainedConvolution(1)
        given = np.random.default_rng(0).normal(size=25)
        given += (sum_ - np.delete(given, 12).sum()) / 24
        convolution.weight.data.copy_(torch.from_numpy(given).view(1, 1, 5, 5))
        convolution.project()
        self.holds(convolution)
        found = np.delete(convolution.weight.detach().numpy().flatten(), 12)
        # The nearest point of the plane: moved along its normal, by the distance.
        np.testing.assert_allclose(found - np.delete(given, 12), (1 - sum_) / 24, atol=1e-5)


@pytest.mark.parametrize("name", FrontEnd)
class TestEach:
    def test_is_the_same_under_autocast(self, name: FrontEnd) -> None:
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 200
        front_end = build_front_end(name)
        with torch.autocast("cpu", torch.bfloat16):
            found = front_end(images)
        assert found.dtype == torch.float32
        assert torch.equal(found, front_end(images))

    def test_has_the_channels_that_it_says(self, name: FrontEnd) -> None:
        front_end = build_front_end(name, filters=7)
        found = front_end(torch.zeros(2, 3, 12, 10))
        assert found.shape == (2, front_end.channels, 12, 10)
        assert front_end.channels == {"srm": 30, "constrained": 7}.get(name, 3)

    def test_is_of_a_scale_that_networks_take(self, name: FrontEnd) -> None:
        torch.manual_seed(0)
        images = torch.from_numpy(photos(20)).movedim(3, 1).float()
        assert 0.1 < float(build_front_end(name)(images).detach().std()) < 2

    def test_leaves_images_as_they_are(self, name: FrontEnd) -> None:
        images = torch.from_numpy(levels(8, 8)).float()[None]
        build_front_end(name)(images)
        assert torch.equal(images, torch.from_numpy(levels(8, 8)).float()[None])

    def test_does_not_depend_on_the_rest_of_the_batch(self, name: FrontEnd) -> None:
        images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
        front_end = build_front_end(name)
        torch.testing.assert_close(front_end(images)[4:5], front_end(images[4:5]))
