"""Batch operators: what they do to pixels, and what they draw, when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor

from forensics.errors import UserError
from forensics.preprocess import PREPROCESSES, Draws, Preprocess
from forensics.preprocess.degradations import gaussian_blur, gaussian_noise
from forensics.preprocess.handling import (
    Blur,
    BlurSigma,
    CropResize,
    Jpeg,
    MaskFrequencies,
    Noise,
    Per,
    Resize,
    SwapSpectra,
    Untouched,
)
from forensics.preprocess.steps import Steps

SIZES = [1, 3, 5, 7]
SURE = 1e-6
"""Two-sided chance that a right program fails one statistical check, had it another seed."""


def blur_noise(kernel_sizes: list[int], max_std: float, per: Per) -> Steps:
    """As ``conf/preprocess/blur_noise.yaml``."""
    steps = [
        {"blur": {"kernel_sizes": kernel_sizes}},
        {"noise": {"max_std_grey_levels": max_std}},
    ]
    return Steps("blur_noise", steps, 1.0, per)


OPERATORS: dict[str, Preprocess] = {
    f"{name}-{per}": operator
    for per in Per
    for name, operator in (
        ("blur", Blur(SIZES, per)),
        ("noise", Noise(5.0, per)),
        ("blur_noise", blur_noise(SIZES, 5.0, per)),
        ("jpeg", Jpeg(65, 95, per)),
        ("resize", Resize([0.5, 0.75], per)),
        ("crop_resize", CropResize(0.5, per)),
        ("blur_sigma", BlurSigma(3.0, per)),
    )
} | {"none": Untouched(), "mask_frequencies": MaskFrequencies(0.15), "swap_spectra": SwapSpectra()}
DRAWING = [name for name in OPERATORS if name != "none"]
IDENTITIES: list[Preprocess] = [
    Untouched(),
    *(Blur([1], per) for per in Per),
    *(Noise(0.0, per) for per in Per),
    *(blur_noise([1], 0.0, per) for per in Per),
    *(Resize([1.0], per) for per in Per),
    *(CropResize(1.0, per) for per in Per),
    *(BlurSigma(0.0, per) for per in Per),
    *(Steps("", [{"blur": {"kernel_sizes": [3]}}], 0.0, per) for per in Per),
]


def _images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Grey levels in [0, 255] at random."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 255).to(dtype)


def _strengths(
    operator: Preprocess, batches: int, images: Tensor | None = None
) -> dict[str, NDArray[np.float64]]:
    """What an operator draws for the first image of each of many batches."""
    images = torch.full((2, 1, 4, 4), 128.0) if images is None else images
    drawn = [operator(images, Draws.at(0, 0, number)).strengths for number in range(batches)]
    return {key: np.array([float(draw[key][0]) for draw in drawn]) for key in drawn[0]}


def _within_chance(residuals: Tensor, std: float) -> None:
    """Check that residuals are N(0, std): standard deviation and mean have known laws."""
    n = residuals.numel()
    low, high = stats.chi2.interval(1 - SURE, n - 1)
    assert low <= (n - 1) * (float(residuals.std()) / std) ** 2 <= high
    assert abs(float(residuals.mean())) <= stats.norm.isf(SURE / 2) * std / n**0.5


class TestPixels:
    @pytest.mark.parametrize("operator", IDENTITIES, ids=repr)
    def test_strength_zero_is_the_identity(self, operator: Preprocess) -> None:
        images = _images(4, 3, 8, 8)
        assert torch.equal(operator(images, Draws.at(0, 0, 0)).images, images)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("name", OPERATORS)
    def test_shape_dtype_device_and_layout_stay_and_the_input_is_not_mutated(
        self, name: str, layout: torch.memory_format, dtype: torch.dtype
    ) -> None:
        images = _images(5, 3, 8, 12, dtype=dtype).contiguous(memory_format=layout)
        before = images.clone()
        for number in range(8):  # every kernel size is among these batches
            result = OPERATORS[name](images, Draws.at(0, 0, number)).images
            assert result.shape == images.shape
            assert result.dtype == dtype
            assert result.device == images.device
            assert result.is_contiguous(memory_format=layout)
            assert torch.equal(images, before)

    @pytest.mark.parametrize("kernel_size", SIZES)
    @pytest.mark.parametrize("value", [0.0, 100.3, 255.0])
    def test_blur_keeps_constants(self, kernel_size: int, value: float) -> None:
        images = torch.full((2, 3, 9, 9), value, dtype=torch.float64)
        torch.testing.assert_close(gaussian_blur(images, kernel_size), images)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("kernel_size", [3, 5, 7])
    def test_blur_is_a_gaussian_of_std_015_k_plus_035(
        self, kernel_size: int, dtype: torch.dtype
    ) -> None:
        images = _images(2, 3, 11, 17, dtype=dtype)
        offsets = np.arange(kernel_size) - kernel_size // 2
        kernel = np.exp(-0.5 * (offsets / (0.15 * kernel_size + 0.35)) ** 2)
        expected = images.double().numpy()
        for axis in (2, 3):
            expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis, mode="mirror")
        # Each pixel is a sum of k^2 products, each rounded at most three times.
        rounding = 3 * kernel_size**2 * 255 * torch.finfo(dtype).eps
        blurred = gaussian_blur(images, kernel_size).double().numpy()
        np.testing.assert_allclose(blurred, expected, rtol=0, atol=rounding)

    @pytest.mark.parametrize("std", [0.5, 5.0, 20.0])
    def test_noise_is_white_gaussian_of_its_std(self, std: float) -> None:
        grey = torch.full((16, 3, 32, 32), 128.0)
        noise = gaussian_noise(grey, std, torch.Generator().manual_seed(0)) - grey
        _within_chance(noise, std)
        assert stats.kstest(noise.flatten()[:20_000].numpy(), "norm", (0, std)).pvalue > 1e-3
        n = noise.numel()
        for dim in range(4):  # neighbours across images, channels, rows and columns
            product = (noise * noise.roll(1, dim)).mean() / std**2
            assert abs(float(product)) < stats.norm.isf(SURE / 2) / n**0.5

    @pytest.mark.parametrize(
        "grey",
        [
            torch.full((1, 1, 1, 1), 128.0).expand(8, 3, 32, 32),
            torch.full((8, 3, 32, 64), 128.0)[..., ::2],
            torch.full((8, 32, 32, 3), 128.0).permute(0, 3, 1, 2),
        ],
        ids=["expanded", "strided", "channels_last"],
    )
    def test_noise_reaches_every_pixel_whatever_the_memory_layout(self, grey: Tensor) -> None:
        _within_chance(gaussian_noise(grey, 5.0, torch.Generator().manual_seed(0)) - 128, 5.0)

    @pytest.mark.parametrize(("value", "direction"), [(0.0, 1), (255.0, -1)])
    def test_noise_is_clipped_to_the_grey_levels(self, value: float, direction: int) -> None:
        images = torch.full((4, 3, 32, 32), value)
        moved = (gaussian_noise(images, 5.0, torch.Generator().manual_seed(0)) - value) * direction
        assert moved.min() == 0
        # The half that would leave the range stays at its border, the other half is a Gaussian's.
        stayed = int((moved == 0).sum())
        assert stats.binomtest(stayed, moved.numel()).pvalue > SURE
        inside = moved[moved > 0].numpy()
        assert stats.kstest(inside, "halfnorm", (0, 5.0)).pvalue > 1e-3

    @pytest.mark.parametrize("kernel_size", [-1, 0, 2, 4])
    def test_even_or_empty_kernels_are_refused(self, kernel_size: int) -> None:
        with pytest.raises(ValueError, match="kernel_size must be odd and at least 1"):
            gaussian_blur(_images(1, 3, 8, 8), kernel_size)

    @pytest.mark.parametrize("std", [-1.0, float("nan"), float("inf")])
    def test_impossible_stds_are_refused(self, std: float) -> None:
        with pytest.raises(ValueError, match="std_grey_levels must be finite and >= 0"):
            gaussian_noise(_images(1, 3, 8, 8), std, torch.Generator())


class TestDraws:
    @pytest.mark.parametrize("name", DRAWING)
    def test_one_strength_for_a_batch_or_one_for_each_image(self, name: str) -> None:
        drawn = OPERATORS[name](_images(64, 3, 4, 4), Draws.at(0, 0, 0)).strengths
        for strengths in drawn.values():
            assert strengths.shape == (64,)
            assert strengths.dtype == torch.float32
            assert strengths.device.type == "cpu"
            assert (len(torch.unique(strengths)) == 1) is name.endswith("batch")

    @pytest.mark.parametrize("per", Per)
    def test_the_strengths_are_those_that_images_got(self, per: Per) -> None:
        images, grey = _images(12, 3, 16, 16), torch.full((12, 3, 32, 32), 128.0)
        blurred = Blur(SIZES, per)(images, Draws.at(0, 0, 0))
        noisy = Noise(5.0, per)(grey, Draws.at(0, 0, 0))
        for i in range(len(images)):
            size = int(blurred.strengths["kernel_size"][i])
            alone = gaussian_blur(images[i : i + 1], size)
            torch.testing.assert_close(blurred.images[i : i + 1], alone)
            std = float(noisy.strengths["std_grey_levels"][i])
            _within_chance(noisy.images[i] - 128, std)

    def test_blur_noise_blurs_first_so_that_noise_keeps_its_std(self) -> None:
        grey = torch.full((16, 3, 32, 32), 128.0)
        result = blur_noise([7], 5.0, Per.batch)(grey, Draws.at(0, 0, 0))
        _within_chance(result.images - grey, float(result.strengths["std_grey_levels"][0]))
        images = _images(4, 3, 16, 16)
        blurred = blur_noise([7], 0.0, Per.batch)(images, Draws.at(0, 0, 0)).images
        torch.testing.assert_close(blurred, gaussian_blur(images, 7))

    @pytest.mark.parametrize("kind", ["blur", "blur_noise"])
    @pytest.mark.parametrize("per", Per)
    def test_all_kernel_sizes_are_drawn_with_equal_chances(self, kind: str, per: Per) -> None:
        operator = OPERATORS[f"{kind}-{per}"]
        if per is Per.batch:
            drawn = _strengths(operator, 800)["kernel_size"]
        else:
            many = operator(torch.full((2000, 1, 4, 4), 128.0), Draws.at(0, 0, 0))
            drawn = many.strengths["kernel_size"].double().numpy()
        sizes, counts = np.unique(drawn, return_counts=True)
        assert sizes.tolist() == SIZES
        assert stats.chisquare(counts).pvalue > 1e-3

    @pytest.mark.parametrize("kind", ["noise", "blur_noise"])
    @pytest.mark.parametrize("per", Per)
    def test_stds_are_drawn_uniformly_from_0_to_the_largest(self, kind: str, per: Per) -> None:
        operator = OPERATORS[f"{kind}-{per}"]
        if per is Per.batch:
            drawn = _strengths(operator, 800)["std_grey_levels"]
        else:
            many = operator(torch.full((2000, 1, 4, 4), 128.0), Draws.at(0, 0, 0))
            drawn = many.strengths["std_grey_levels"].double().numpy()
        assert drawn.min() >= 0
        assert drawn.max() <= 5
        assert stats.kstest(drawn, "uniform", (0, 5)).pvalue > 1e-3

    @pytest.mark.parametrize("per", Per)
    def test_blur_noise_draws_its_two_strengths_independently(self, per: Per) -> None:
        operator = blur_noise(SIZES, 5.0, per)
        if per is Per.batch:
            drawn = _strengths(operator, 800)
        else:
            strengths = operator(torch.full((2000, 1, 4, 4), 128.0), Draws.at(0, 0, 0)).strengths
            drawn = {key: value.double().numpy() for key, value in strengths.items()}
        assert stats.pearsonr(drawn["kernel_size"], drawn["std_grey_levels"]).pvalue > 1e-3
        # Also no other dependence: of every kernel size, the stds have the same distribution.
        groups = [drawn["std_grey_levels"][drawn["kernel_size"] == size] for size in SIZES]
        assert stats.kruskal(*groups).pvalue > 1e-3

    @pytest.mark.parametrize("per", Per)
    def test_the_order_of_draws_is_fixed_so_that_older_runs_can_be_repeated(self, per: Per) -> None:
        images, draws = _images(6, 3, 8, 8), Draws.at(3, 2, 1)
        source, count = (draws.shared, 1) if per is Per.batch else (draws.own, 6)
        sizes = torch.tensor(SIZES)[torch.randint(4, (count,), generator=source)].expand(6)
        stds = (5.0 * torch.rand(count, generator=source)).expand(6)
        noise = torch.randn(images.shape, generator=draws.own) * stds.view(-1, 1, 1, 1)
        blurred = [gaussian_blur(images[[i]], size) for i, size in enumerate(sizes.tolist())]
        result = blur_noise(SIZES, 5.0, per)(images, Draws.at(3, 2, 1))
        torch.testing.assert_close(result.images, (torch.cat(blurred) + noise).clamp(0, 255))
        assert torch.equal(result.strengths["kernel_size"], sizes.float())
        assert torch.equal(result.strengths["std_grey_levels"], stds)

    @pytest.mark.parametrize("name", DRAWING)
    def test_a_place_in_training_always_draws_the_same(self, name: str) -> None:
        images = _images(8, 3, 8, 8)
        first, second = (OPERATORS[name](images, Draws.at(3, 2, 1)) for _ in range(2))
        assert torch.equal(first.images, second.images)
        assert all(torch.equal(first.strengths[k], second.strengths[k]) for k in first.strengths)

    def test_other_places_in_training_draw_otherwise(self) -> None:
        places = list(itertools.product(range(4), repeat=3))
        drawn = [Draws.at(*place) for place in places]
        for generators in ([d.shared for d in drawn], [d.own for d in drawn]):
            values = {float(torch.rand(1, generator=g, dtype=torch.float64)) for g in generators}
            assert len(values) == len(places)

    def test_large_seeds_count_in_full(self) -> None:
        seeds = [1, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1]
        drawn = {float(torch.rand(1, generator=Draws.at(seed, 0, 0).shared)) for seed in seeds}
        assert len(drawn) == len(seeds)

    def test_a_run_goes_on_with_the_same_draws_in_a_later_version(self) -> None:
        draws = Draws.at(3, 2, 1)
        assert draws.shared.initial_seed() == 4_404_663_168_949_438_663
        assert draws.own.initial_seed() == 6_826_802_935_108_478_168

    def test_devices_share_one_generator_and_have_one_each(self) -> None:
        draws = [Draws.at(3, 2, 1, rank=rank) for rank in range(4)]
        (shared,) = {one.shared.initial_seed() for one in draws}
        own = [one.own.initial_seed() for one in draws]
        assert len({shared, *own}) == 5
        assert Draws.at(3, 2, 1).own.initial_seed() == own[0]

    def test_devices_of_one_batch_share_its_strength_but_not_its_noise(self) -> None:
        grey = torch.full((4, 3, 32, 32), 128.0)
        operator = blur_noise(SIZES, 5.0, Per.batch)
        first, second = (operator(grey, Draws.at(0, 0, 0, rank=rank)) for rank in (0, 1))
        for key, strengths in first.strengths.items():
            assert torch.equal(strengths, second.strengths[key])
        a, b = ((result.images - 128).flatten().numpy() for result in (first, second))
        assert stats.pearsonr(a, b).pvalue > 1e-3

    def test_devices_draw_their_own_strengths_per_image(self) -> None:
        images = _images(16, 1, 4, 4)
        first, second = (
            Noise(5.0, Per.image)(images, Draws.at(0, 0, 0, rank=rank)).strengths for rank in (0, 1)
        )
        assert not torch.isin(first["std_grey_levels"], second["std_grey_levels"]).any()

    def test_global_random_state_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        for name in DRAWING:
            OPERATORS[name](_images(2, 3, 8, 8), Draws.at(0, 0, 0))
        assert torch.equal(torch.get_rng_state(), before)


class TestSettings:
    @pytest.mark.parametrize("kernel_sizes", [[], [0], [-1], [2], [1, 3, 4]])
    def test_kernel_sizes_out_of_range_are_refused(self, kernel_sizes: list[int]) -> None:
        with pytest.raises(UserError, match=r"preprocess\.kernel_sizes must be .* odd"):
            PREPROCESSES["blur"](kernel_sizes=kernel_sizes, per=Per.batch)

    @pytest.mark.parametrize("std", [-0.1, 255.1, float("nan"), float("inf")])
    def test_stds_out_of_range_are_refused(self, std: float) -> None:
        with pytest.raises(UserError, match=r"preprocess\.max_std_grey_levels .*\[0, 255\]"):
            PREPROCESSES["noise"](max_std_grey_levels=std, per=Per.batch)

    @pytest.mark.parametrize("value", [-0.1, 10.1, float("nan")])
    def test_sigmas_out_of_range_are_refused(self, value: float) -> None:
        with pytest.raises(UserError, match=r"preprocess\.max_sigma .*\[0, 10\]"):
            BlurSigma(value, Per.batch)

    @pytest.mark.parametrize("value", [0.0, 1.1, float("nan")])
    def test_sides_of_crops_out_of_range_are_refused(self, value: float) -> None:
        with pytest.raises(UserError, match=r"preprocess\.min_side"):
            CropResize(value, Per.batch)

    @pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
    def test_shares_of_frequencies_out_of_range_are_refused(self, value: float) -> None:
        with pytest.raises(UserError, match=r"preprocess\.share"):
            MaskFrequencies(value)
