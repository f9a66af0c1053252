"""How good and how varied images are, against SciPy and planted flaws."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import photos as _photos
from numpy.typing import NDArray
from scipy import linalg, ndimage, stats
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from forensics.evaluation import sample_quality as module
from forensics.evaluation.sample_quality import (
    enlarge,
    frechet,
    laplacian_pyramid,
    nearest_neighbours,
    quality,
    sliced_wasserstein,
)
from forensics.evaluation.shortcuts import probe
from forensics.generators.collapse import Images, Undefined, collapsed, ms_ssim_pairs, varied

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]


def _noisy(images: Images, std: float, seed: int = 9) -> Images:
    noise = np.random.default_rng(seed).normal(0, std, images.shape)
    return (images + noise).clip(0, 255).round().astype(np.uint8)


KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[None, None] / 256


def _oracle_pyramid(images: Floats, levels: int) -> list[Floats]:
    """By SciPy's convolutions; its "mirror" is what others call reflected."""
    bands = []
    for _ in range(levels - 1):
        smaller = ndimage.convolve(images, KERNEL, mode="mirror")[..., ::2, ::2]
        spread = np.zeros_like(images)
        spread[..., ::2, ::2] = smaller
        bands.append(images - ndimage.convolve(spread, 4 * KERNEL, mode="mirror"))
        images = smaller
    return [*bands, images]


class TestLaplacianPyramid:
    @pytest.mark.parametrize(
        ("side", "sides"),
        [
            (16, [16]),
            (30, [30]),
            (31, [31]),
            (32, [32, 16]),
            (100, [100, 50, 25]),
            (128, [128, 64, 32, 16]),
        ],
    )
    def test_bands_are_scipys(self, side: int, sides: list[int]) -> None:
        images = np.random.default_rng(0).uniform(0, 255, (2, 3, side, side))
        bands = laplacian_pyramid(images.astype(np.float32))
        assert [band.shape for band in bands] == [(2, 3, side, side) for side in sides]
        for band, expected in zip(bands, _oracle_pyramid(images, len(sides)), strict=True):
            np.testing.assert_allclose(band, expected, rtol=0, atol=2e-4)

    def test_bands_add_up_to_the_images(self) -> None:
        images = np.random.default_rng(0).uniform(0, 255, (2, 3, 64, 64)).astype(np.float32)
        before = images.copy()
        whole, *finer = reversed(laplacian_pyramid(images))
        for band in finer:
            whole = enlarge(whole) + band
        np.testing.assert_allclose(whole, images, rtol=0, atol=2e-4)
        np.testing.assert_array_equal(images, before)

    def test_a_flat_image_has_no_detail_up_to_its_border(self) -> None:
        *finer, last = laplacian_pyramid(np.full((1, 3, 64, 64), 77, np.float32))
        assert all(not band.any() for band in finer)
        assert (last == 77).all()


def _oracle_sliced(real: Images, generated: Images, seed: int) -> list[float]:
    """Patch by patch, with draws of its own."""
    draws = np.random.default_rng(seed)
    levels = int(np.log2(real.shape[1] // 16)) + 1
    sets = []
    for images in (real, generated):
        per_level = []
        for band in _oracle_pyramid(images.transpose(0, 3, 1, 2).astype(np.float64), levels):
            last = band.shape[2] - 7
            corners = draws.integers(0, last, size=(len(images), 128, 2), endpoint=True)
            patches = np.stack(
                [
                    image[:, y : y + 7, x : x + 7]
                    for image, own in zip(band, corners, strict=True)
                    for y, x in own
                ]
            )
            for channel in range(3):
                patches[:, channel] = stats.zscore(patches[:, channel], axis=None)
            per_level.append(patches.reshape(len(patches), -1))
        sets.append(per_level)
    distances = []
    for first, second in zip(*sets, strict=True):
        directions = draws.normal(size=(147, 100))
        directions /= np.sqrt((directions**2).sum(axis=0))
        pairs = zip((first @ directions).T, (second @ directions).T, strict=True)
        distances.append(1000 * np.mean([stats.wasserstein_distance(a, b) for a, b in pairs]))
    return [float(distance) for distance in distances]


@pytest.mark.slow
class TestSlicedWasserstein:
    def test_distance_of_each_direction_is_scipys(self) -> None:
        draws = np.random.default_rng(0)
        first, second, directions = (
            draws.normal(size=(n, 147)).astype(np.float32) for n in (500, 500, 20)
        )
        second = second**2
        expected = [stats.wasserstein_distance(first @ d, second @ d) for d in directions]
        distance = module._sliced_distance(first, second, directions)
        assert distance == pytest.approx(np.mean(expected), rel=1e-5)

    def test_levels_are_those_of_a_slow_calculation(self) -> None:
        real, generated = _photos(60, 64), _photos(60, 64, seed=1)
        generated = ndimage.gaussian_filter(generated, 1.0, axes=(1, 2))
        result = sliced_wasserstein(real, generated, seed=0)
        assert list(result) == ["64", "32", "16", "mean"]
        *levels, mean = result.values()
        # Other patches and directions: the slow one differs by a tenth from seed to seed.
        assert levels == pytest.approx(_oracle_sliced(real, generated, 1), rel=0.2)
        assert levels[0] > 50
        assert mean == pytest.approx(np.mean(levels))

    def test_equal_sets_have_no_distance(self) -> None:
        images = _photos(70)
        assert set(sliced_wasserstein(images, images.copy(), 3).values()) == {0.0}

    def test_grows_with_noise_most_at_the_finest_level(self) -> None:
        real = _photos(70, 64)
        distances = [sliced_wasserstein(real, _noisy(real, std), 0) for std in (2, 5, 12, 30)]
        means = [distance["mean"] for distance in distances]
        assert means == sorted(means)
        assert means[-1] > 3 * means[0] > 0
        assert distances[1]["64"] > 3 * distances[1]["16"]

    def test_another_layout_shows_at_the_coarsest_level(self) -> None:
        real = _photos(70, 64)
        ramp = np.linspace(-60, 60, 64)[None, None, :, None]
        generated = (real + ramp).clip(0, 255).astype(np.uint8)
        distances = sliced_wasserstein(real, generated, 0)
        assert distances["16"] > 3 * distances["64"]

    def test_brightness_and_contrast_do_not_count(self) -> None:
        real = _photos(70)
        other = sliced_wasserstein(real, _photos(70, seed=1), 0)["16"]
        assert sliced_wasserstein(real, real // 2 + 60, 0)["16"] < other / 3

    def test_the_seed_decides(self) -> None:
        real, generated = _photos(20), _photos(20, seed=1)
        first, again, other = (sliced_wasserstein(real, generated, seed) for seed in (0, 0, 1))
        assert first == again != other

    def test_flat_images_have_a_finite_distance(self) -> None:
        flat = np.full((20, 32, 32, 3), 9, np.uint8)
        assert all(1 < d < 2000 for d in sliced_wasserstein(_photos(20), flat, 0).values())

    def test_what_has_no_distance_is_refused(self) -> None:
        images = _photos(4, 16)
        with pytest.raises(ValueError, match="4 real images against 3 generated"):
            sliced_wasserstein(images, images[:3], 0)
        with pytest.raises(Undefined, match="no image"):
            sliced_wasserstein(images[:0], images[:0], 0)
        with pytest.raises(Undefined, match="needs images of 16 px, these have 15"):
            sliced_wasserstein(images[:, :15, :15], images[:, :15, :15], 0)


def _oracle_ms_ssim(first: Images, second: Images, scales: int) -> float:
    """One pair, by SciPy, after Wang 2003: an 11 px window of sigma 1.5, channels averaged."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    weights *= 1.0001 / weights.sum()
    c1, c2, similarity = (0.01 * 255) ** 2, (0.03 * 255) ** 2, 1.0

    def blur(x: Floats) -> Floats:
        return np.asarray(ndimage.gaussian_filter(x, 1.5, mode="mirror", radius=5, axes=(0, 1)))

    for scale, weight in enumerate(weights):
        mean_a, mean_b = blur(a), blur(b)
        covariance = blur(a * b) - mean_a * mean_b
        variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
        factor = (2 * covariance + c2) / (variances + c2)
        if scale == scales - 1:
            factor *= (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        else:
            factor = factor[5:-5, 5:-5]  # where the window lies within the image
        similarity *= max(0.0, factor.mean()) ** weight
        half = a.shape[0] // 2
        a, b = (
            x[: 2 * half, : 2 * half].reshape(half, 2, half, 2, 3).mean(axis=(1, 3)) for x in (a, b)
        )
    return similarity


class TestMsSsim:
    @pytest.mark.parametrize(
        ("side", "scales"), [(8, 1), (15, 1), (16, 2), (32, 3), (64, 4), (100, 4), (128, 5)]
    )
    def test_a_pair_has_scipys_value(self, side: int, scales: int) -> None:
        pair = _photos(1, 128)[0, :side, :side]
        pair = np.stack([pair, _noisy(pair // 2 + 50, 20)])
        expected = _oracle_ms_ssim(pair[0], pair[1], scales)
        assert 0.2 < expected < 0.95
        assert ms_ssim_pairs(pair, seed=0) == pytest.approx(expected, abs=2e-4)

    def test_more_images_than_fit_a_block_give_the_mean_of_disjoint_pairs(self) -> None:
        # Grey k against grey l differs only in brightness: all pairs' values are known.
        greys = np.arange(160, dtype=np.uint8)
        images = np.tile(greys[:, None, None, None], (1, 8, 8, 3))
        order = np.random.default_rng(5).permutation(160).reshape(2, -1)
        a, b = greys[order].astype(np.float64)
        c1 = (0.01 * 255) ** 2
        # One scale is left at 8 px, and its weight is 1.0001.
        expected = (((2 * a * b + c1) / (a**2 + b**2 + c1)) ** 1.0001).mean()
        assert ms_ssim_pairs(images, seed=5) == pytest.approx(expected, abs=1e-4)

    def test_the_less_varied_the_higher(self) -> None:
        varied = _photos(40)
        few = varied[np.arange(40) % 3]
        one = _noisy(np.repeat(varied[:1], 40, axis=0), 5)
        values = [ms_ssim_pairs(images, 0) for images in (varied, few, one, varied[[0] * 40])]
        assert values == sorted(values)
        assert values[0] < 0.25 < values[1] < 0.6 < 0.9 < values[2] < 1
        assert values[3] == pytest.approx(1)

    def test_what_has_no_pair_is_refused(self) -> None:
        with pytest.raises(Undefined, match="needs two images, there are 1"):
            ms_ssim_pairs(_photos(1), 0)
        with pytest.raises(Undefined, match="needs images of 8 px, these have 7"):
            ms_ssim_pairs(_photos(2)[:, :7, :7], 0)


class TestCollapsed:
    def test_varied_images_are_not(self) -> None:
        assert collapsed(_photos(40)) is None
        assert collapsed(_photos(40).astype(np.float32)) is None

    def test_a_few_different_images_are_not(self) -> None:
        assert collapsed(_photos(5)[np.arange(40) % 5]) is None

    def test_one_image_again_and_again(self) -> None:
        sentence = collapsed(_noisy(_photos(1)[[0] * 40], 3))
        assert sentence is not None
        assert "all alike" in sentence

    def test_flat_images_of_different_colours(self) -> None:
        flat = np.random.default_rng(0).integers(0, 255, (40, 1, 1, 3), np.uint8)
        images = np.tile(flat, (1, 32, 32, 1))
        assert collapsed(images) == "40 of 40 images are of one flat colour."
        images[:20] = _photos(20)
        assert collapsed(images) is None

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, value: float) -> None:
        images = _photos(40).astype(np.float32)
        images[3:5, 0, 0, 0] = value
        sentence = "2 of 40 images have values that are not finite numbers."
        assert collapsed(images) == sentence

    def test_between_one_image_and_many_lies_what_is_neither(self) -> None:
        face = _photos(1)[[0] * 40].astype(np.float64)
        mixed = np.rint(0.7 * face + 0.3 * _photos(40, seed=1)).astype(np.uint8)
        assert varied(_photos(40))
        assert collapsed(mixed) is None
        assert not varied(mixed)
        assert not varied(_noisy(_photos(1)[[0] * 40], 3))

    def test_of_a_single_image_nothing_can_be_said(self) -> None:
        with pytest.raises(Undefined, match="needs two images"):
            collapsed(_photos(1))


class TestNearestNeighbours:
    def test_planted_copies_are_found_over_blocks(self) -> None:
        training, generated = _photos(200), _photos(20, seed=1)
        generated[4], generated[11], generated[17] = training[3], training[130], training[199]
        training.flags.writeable = False  # as rows of a source are
        found = nearest_neighbours(generated, training, seed=0)
        assert found.generated.tolist() == list(range(20))
        assert np.flatnonzero(found.distances == 0).tolist() == [4, 11, 17]
        assert found.training[[4, 11, 17]].tolist() == [3, 130, 199]

    @pytest.mark.parametrize("side", [16, 32, 64])
    def test_distances_are_scipys(self, side: int) -> None:
        training, generated = _photos(150, side), _photos(30, side, seed=1)

        def thumbnails(images: Images) -> Floats:
            if side == 16:
                images = images.repeat(2, axis=1).repeat(2, axis=2)
            cells = max(1, side // 32)
            means = images.reshape(-1, 32, cells, 32, cells, 3).mean(axis=(2, 4))
            return np.asarray(means.reshape(len(images), -1))

        found = nearest_neighbours(generated, training, seed=0)
        distances = cdist(thumbnails(generated), thumbnails(training)) / 3072**0.5
        np.testing.assert_array_equal(found.training, distances.argmin(axis=1))
        np.testing.assert_allclose(found.distances, distances.min(axis=1), rtol=1e-5)
        among = cdist(thumbnails(training), thumbnails(training)) / 3072**0.5
        np.fill_diagonal(among, np.inf)
        np.testing.assert_allclose(found.real_distances, among.min(axis=1), rtol=1e-5)

    def test_only_some_are_looked_up(self) -> None:
        training, generated = _photos(40), _photos(30, seed=1)
        few, again, other = (nearest_neighbours(generated, training, s, 10) for s in (0, 0, 1))
        assert few.generated.tolist() == again.generated.tolist() != other.generated.tolist()
        every = nearest_neighbours(generated, training, seed=0)
        np.testing.assert_array_equal(few.distances, every.distances[few.generated])
        assert len(few.real_distances) == 10

    def test_too_few_images_are_refused(self) -> None:
        with pytest.raises(Undefined, match="there are 0 and 5"):
            nearest_neighbours(_photos(1)[:0], _photos(5), 0)
        with pytest.raises(Undefined, match="there are 5 and 1"):
            nearest_neighbours(_photos(5), _photos(1), 0)


class TestGiveAways:
    N = 150

    @pytest.fixture
    def real(self) -> Images:
        return _photos(self.N)

    @pytest.fixture
    def generated(self) -> Images:
        return _photos(self.N, seed=1)

    def test_equal_distributions_give_nothing_away(self, real: Images, generated: Images) -> None:
        # Half the difference of two sets of 150 has a standard deviation of 0.033; training on
        # what the held-out fold lacks pulls a little below 0.5.
        assert all(abs(v - 0.5) < 0.13 for v in probe(real, generated, 0).values())

    def test_a_frame(self, real: Images, generated: Images) -> None:
        frame = np.ones((32, 32, 1), bool)
        frame[1:-1, 1:-1] = False
        framed = np.where(frame, generated * 0.8, generated).astype(np.uint8)
        assert probe(real, framed, 0)["border"] > 0.95

    @pytest.mark.parametrize("turns", range(4))
    def test_a_row_repeated_at_one_side(self, real: Images, generated: Images, turns: int) -> None:
        generated[:, 0] = generated[:, 1]
        found = probe(real, np.rot90(generated, turns, axes=(1, 2)), 0)
        assert found["border"] > 0.95 > 0.7 > found["thumbnail"]

    def test_a_colour_shift(self, real: Images, generated: Images) -> None:
        shifted = (generated + np.array([25.0, 0, -25])).clip(0, 255).astype(np.uint8)
        found = probe(real, shifted, 0)
        assert found["thumbnail"] > 0.95 > 0.7 > found["border"]

    def test_a_missing_high_frequency(self, real: Images, generated: Images) -> None:
        blurred = ndimage.gaussian_filter(generated, 0.6, axes=(1, 2))
        found = probe(real, blurred, 0)
        assert found["spectrum"] > 0.95 > 0.7 > found["thumbnail"]

    def test_too_few_images_are_refused(self, real: Images, generated: Images) -> None:
        with pytest.raises(Undefined, match="needs 10 generated images, there are 9"):
            probe(real, generated[:9], 0)
        with pytest.raises(Undefined, match="needs 10 real images, there are 0"):
            probe(real[:0], generated, 0)
        assert probe(real[:10], generated[:10], 0).keys() == {
            "thumbnail",
            "border",
            "spectrum",
        }


class _Extractor(nn.Module):
    """Stands for Inception: 12 numbers of an image instead of 2048."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        cells = nn.functional.adaptive_avg_pool2d(images.float(), 2)
        return cells.flatten(1) / 20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, and no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


class TestFrechet:
    def test_without_torch_fidelity(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        with pytest.raises(Undefined, match="torch-fidelity is not installed"):
            frechet(_photos(20), _photos(20, seed=1), 0)
        assert not hub.exists()

    def test_without_weights(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "find_spec", lambda name: object())
        with pytest.raises(Undefined, match=r"there is no .*weights-inception-2015-12-05-.*\.pth"):
            frechet(_photos(20), _photos(20, seed=1), 0)
        assert not hub.exists()

    def test_with_both_fid_and_kid_are_their_formulas(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.mkdir(parents=True)
        (hub / module.INCEPTION_WEIGHTS).touch()
        loaded = []

        def stub(weights: Path) -> nn.Module:
            loaded.append(weights)
            return _Extractor()

        monkeypatch.setattr(module, "find_spec", lambda name: object())
        monkeypatch.setattr(module, "_inception", stub)
        real, generated = _photos(100), _noisy(_photos(80, seed=1), 30)
        state = torch.get_rng_state()
        result = frechet(real, generated, seed=0)
        assert torch.equal(torch.get_rng_state(), state)
        assert loaded == [hub / module.INCEPTION_WEIGHTS]
        assert frechet(real, generated, seed=0) == result

        x, y = (
            a.reshape(-1, 2, 16, 2, 16, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(-1, 12)
            / 20
            for a in (real, generated)
        )
        cov_x, cov_y = np.cov(x.T), np.cov(y.T)
        root = linalg.sqrtm(cov_x @ cov_y).real
        fid = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root)
        assert result["fid"] == pytest.approx(fid, rel=1e-4)

        def kernel(a: Floats, b: Floats) -> Floats:
            return np.asarray((a @ b.T / 12 + 1) ** 3)

        def unbiased(a: Floats) -> float:
            return float((kernel(a, a).sum() - np.trace(kernel(a, a))) / len(a) / (len(a) - 1))

        # Over subsets of 80: all the generated, most of the real.
        kid = unbiased(x) + unbiased(y) - 2 * kernel(x, y).mean()
        assert result["kid"] == pytest.approx(kid, abs=3 * result["kid_std"] / 10)
        assert result["kid_std"] > 0

    def test_a_single_image_is_refused(self) -> None:
        with pytest.raises(Undefined, match="needs two images of each set"):
            frechet(_photos(20), _photos(1), 0)


MEASURES = (
    *("collapsed", "sliced_wasserstein", "sliced_wasserstein_real", "ms_ssim", "ms_ssim_real"),
    *("nearest", "shortcuts", "frechet"),
)


def _defined(result: dict[str, Any]) -> set[str]:
    """Names of the measures with a value; all others must have a reason."""
    json.dumps(result, allow_nan=False)
    reasons = {name for name in MEASURES if f"{name}_reason" in result}
    assert all(result[name] is None for name in reasons)
    return set(MEASURES) - reasons


@pytest.mark.usefixtures("hub")
class TestQuality:
    def test_all_of_it_as_json(self) -> None:
        real, generated = _photos(60), _photos(25, seed=1)
        result = quality(real, generated, seed=0)
        assert _defined(result) == set(MEASURES) - {"frechet"}
        counts = {"n_real": 60, "n_generated": 25, "n": 25, "image_size": 32, "seed": 0}
        assert {name: result[name] for name in counts} == counts
        assert result["collapsed"] is None
        distance, yardstick = result["sliced_wasserstein"], result["sliced_wasserstein_real"]
        assert distance["mean"] == pytest.approx(yardstick["mean"], rel=0.5)
        assert result["ms_ssim"] == pytest.approx(result["ms_ssim_real"], abs=0.1)
        assert result["nearest"]["ratio"] == pytest.approx(1, abs=0.1)
        assert len(result["nearest"]["closest"]) == 10
        assert quality(real, generated, seed=0) == result
        assert quality(real, generated, seed=1)["ms_ssim"] != result["ms_ssim"]

    def test_only_so_many_are_compared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "COMPARED", 20)
        result = quality(_photos(60), _photos(30, seed=1), seed=0)
        assert (result["n"], result["nearest"]["n"]) == (20, 30)

    def test_copies_show_in_the_nearest(self) -> None:
        real = _photos(60)
        nearest = quality(real, real[[7, 50, 3] * 8], seed=0)["nearest"]
        assert nearest["ratio"] == 0
        assert nearest["nearer_than_1_percent_of_reals"] == 1
        assert [pair["distance"] for pair in nearest["closest"]] == [0] * 10
        copied = {pair["generated"]: pair["training"] for pair in nearest["closest"]}
        assert all(training == [7, 50, 3][row % 3] for row, training in copied.items())

    def test_reals_that_are_there_twice_leave_no_ratio(self) -> None:
        nearest = quality(np.repeat(_photos(15), 2, axis=0), _photos(15, seed=1), 0)["nearest"]
        assert nearest["ratio"] is None
        assert "duplicates" in nearest["ratio_reason"]

    def test_a_collapsed_generator_is_measured_all_the_same(self) -> None:
        result = quality(_photos(60), np.full((25, 32, 32, 3), 7, np.uint8), seed=0)
        assert result["collapsed"] == "25 of 25 images are of one flat colour."
        assert _defined(result) == set(MEASURES) - {"frechet"}

    def test_without_a_yardstick_that_alone_is_missing(self) -> None:
        result = quality(_photos(30), _photos(25, seed=1), seed=0)
        assert _defined(result) == set(MEASURES) - {"frechet", "sliced_wasserstein_real"}
        assert result["sliced_wasserstein_real_reason"] == "needs 50 real images, there are 30"

    @pytest.mark.parametrize(("n", "m"), [(0, 0), (20, 0), (0, 20), (1, 1)])
    def test_hardly_any_images(self, n: int, m: int) -> None:
        result = quality(_photos(20)[:n], _photos(20, seed=1)[:m], seed=0)
        assert _defined(result) == ({"sliced_wasserstein"} if n == m == 1 else set())

    def test_small_images(self) -> None:
        result = quality(_photos(60, 8), _photos(25, 8, seed=1), seed=0)
        assert _defined(result) == {"collapsed", "ms_ssim", "ms_ssim_real", "nearest", "shortcuts"}

    def test_images_of_different_sizes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"real images are \(32, 32, 3\), generated \(16,"):
            quality(_photos(2), _photos(2, 16), 0)
