"""Operators beyond the paper's, and compositions of operators."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from conftest import photos
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from forensics.errors import UserError
from forensics.preprocess import Draws, Preprocess
from forensics.preprocess.degradations import (
    enlarged,
    gaussian_blur,
    gaussian_filter,
    match_spectrum,
    rescaled,
)
from forensics.preprocess.handling import (
    CropResize,
    Jpeg,
    MaskFrequencies,
    Noise,
    Per,
    Resize,
    SwapSpectra,
)
from forensics.preprocess.jpeg import jpeg
from forensics.preprocess.steps import Steps

STRENGTHS = ("kernel_size", "scale", "std_grey_levels", "jpeg_quality")
PLACES = torch.tensor(list(itertools.product(range(16), repeat=2)))
"""Every place of the blocks."""


def batch(count: int, side: int = 32) -> Tensor:
    return torch.from_numpy(photos(count, side)).permute(0, 3, 1, 2).float()


def handling(**changes: Any) -> Preprocess:  # noqa: ANN401
    """As ``conf/preprocess/handling.yaml``."""
    settings: dict[str, Any] = {
        "kernel_sizes": [3, 5],
        "scales": [0.5, 0.75],
        "max_std_grey_levels": 5.0,
        "min_quality": 65,
        "max_quality": 95,
        "probability": 0.5,
        "per": Per.image,
    } | changes
    parts = {
        "blur": ["kernel_sizes"],
        "resize": ["scales"],
        "noise": ["max_std_grey_levels"],
        "jpeg": ["min_quality", "max_quality"],
    }
    steps = [{name: {key: settings[key] for key in keys}} for name, keys in parts.items()]
    return Steps("handling", steps, settings["probability"], settings["per"])


def strength(drawn: dict[str, Tensor], name: str, count: int) -> Tensor:
    """A strength of each image, NaN where its operator was not applied."""
    return drawn.get(name, torch.full((count,), torch.nan))


def places_of(result: Tensor, image: Tensor, quality: int) -> list[tuple[int, int]]:
    """The places of the blocks, of all there are, with which JPEG makes one of the other."""
    qualities = torch.full((len(PLACES),), quality)
    made = jpeg(image.expand(len(PLACES), -1, -1, -1), qualities, PLACES)
    found = (made == result).flatten(1).all(dim=1)
    return [(int(top), int(left)) for top, left in PLACES[found]]


def many(per: Per, count: int = 600) -> dict[str, Tensor]:
    """Strengths of many images, or of one of each of many batches."""
    if per is Per.image:
        return handling()(torch.full((count, 3, 16, 16), 128.0), Draws.at(0, 0, 0)).strengths
    image = torch.full((1, 3, 16, 16), 128.0)
    drawn = [handling(per=per)(image, Draws.at(0, 0, n)).strengths for n in range(count)]
    return {name: torch.cat([strength(one, name, 1) for one in drawn]) for name in STRENGTHS}


class TestResize:
    @pytest.mark.parametrize("scale", [0.75, 0.5, 0.3])
    def test_it_is_pillows_bicubic_there_and_back(self, scale: float) -> None:
        levels = 64 + 128 * np.random.default_rng(0).random((40, 28), np.float32)
        image = Image.fromarray(levels)  # of floats, which Pillow neither rounds nor clips
        small = image.resize((round(28 * scale), round(40 * scale)), Image.Resampling.BICUBIC)
        expected = np.asarray(small.resize((28, 40), Image.Resampling.BICUBIC))
        assert 0 <= expected.min() <= expected.max() <= 255
        result = rescaled(torch.from_numpy(levels)[None, None], scale)[0, 0].numpy()
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)

    def test_overshoot_is_clipped_at_both_sizes_as_in_files(self) -> None:
        # Stripes, because Pillow clips between its two directions, too.
        stripes = 255 * np.array([0, 1, 0, 0, 1, 1, 0, 1], np.uint8).repeat(4)
        levels = np.tile(stripes, (32, 1))
        small = Image.fromarray(levels).resize((16, 16), Image.Resampling.BICUBIC)
        expected = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC), np.float32)
        result = rescaled(torch.from_numpy(levels).float()[None, None], 0.5)[0, 0].numpy()
        assert (result.min(), result.max()) == (0, 255)
        # Pillow rounds twice; the second filter's weights add up to at most 1.3 in size.
        np.testing.assert_allclose(result, expected, rtol=0, atol=1.3)

    @pytest.mark.parametrize("scale", [0.0, -0.5, 1.1, float("nan")])
    def test_impossible_scales_are_refused(self, scale: float) -> None:
        with pytest.raises(ValueError, match="scale must be in"):
            rescaled(batch(1), scale)

    @pytest.mark.parametrize("per", Per)
    def test_the_scales_are_those_that_images_got(self, per: Per) -> None:
        images = batch(12)
        result = Resize([0.5, 0.75], per)(images, Draws.at(0, 0, 0))
        scales = result.strengths["scale"].tolist()
        assert len(set(scales)) == (1 if per is Per.batch else 2)
        for i, scale in enumerate(scales):
            torch.testing.assert_close(result.images[[i]], rescaled(images[[i]], scale))


class TestJpeg:
    @pytest.mark.parametrize("per", Per)
    def test_the_qualities_are_those_that_images_got_each_in_its_own_place(self, per: Per) -> None:
        images = batch(6)
        result = Jpeg(65, 95, per)(images, Draws.at(0, 0, 0))
        qualities = result.strengths["jpeg_quality"].tolist()
        assert (len(set(qualities)) == 1) is (per is Per.batch)
        places = [
            places_of(result.images[i], images[i], int(quality))
            for i, quality in enumerate(qualities)
        ]
        assert all(len(found) == 1 for found in places)
        assert len({found[0] for found in places}) > 1

    @pytest.mark.parametrize("per", Per)
    def test_all_places_are_drawn_with_equal_chances(
        self, per: Per, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Tensor] = []

        def recorded(images: Tensor, qualities: Tensor, offsets: Tensor) -> Tensor:
            drawn.append(offsets)
            return images

        monkeypatch.setattr("forensics.preprocess.handling.jpeg", recorded)
        Jpeg(75, 75, per)(torch.zeros(6400, 3, 1, 1), Draws.at(0, 0, 0))
        counts = np.bincount((drawn[0] * torch.tensor([16, 1])).sum(dim=1), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_all_qualities_are_drawn_with_equal_chances(self) -> None:
        images = torch.full((1000, 3, 4, 4), 128.0)
        drawn = Jpeg(91, 95, Per.image)(images, Draws.at(0, 0, 0)).strengths["jpeg_quality"]
        qualities, counts = np.unique(drawn.numpy(), return_counts=True)
        assert qualities.tolist() == [91, 92, 93, 94, 95]
        assert stats.chisquare(counts).pvalue > 1e-3


class TestHandling:
    def test_the_steps_are_blur_resize_jpeg_in_this_order(self) -> None:
        images = batch(3)
        certain = handling(
            kernel_sizes=[5], scales=[0.5], max_std_grey_levels=0.0, min_quality=80, max_quality=80,
            probability=1.0,
        )  # fmt: skip
        result = certain(images, Draws.at(0, 0, 0)).images
        before = rescaled(gaussian_blur(images, 5), 0.5)
        for i in range(len(images)):
            assert places_of(result[i], before[i], 80)

    def test_noise_comes_after_what_would_smooth_it_and_before_jpeg(self) -> None:
        grey = torch.full((8, 3, 64, 64), 128.0)
        noisy = handling(
            kernel_sizes=[7], scales=[0.5], max_std_grey_levels=40.0, min_quality=100,
            max_quality=100, probability=1.0, per=Per.batch,
        )  # fmt: skip
        result = noisy(grey, Draws.at(0, 0, 0))
        weights = torch.tensor([0.299, 0.587, 0.114])  # luma, which quality 100 keeps
        luma = (result.images * weights.view(3, 1, 1)).sum(dim=1)
        std = float(result.strengths["std_grey_levels"][0]) * float(weights.norm())
        assert std > 5
        assert float(luma.std()) == pytest.approx(std, rel=0.03)
        assert torch.equal(result.images, result.images.round())

    def test_each_image_gets_what_its_strengths_say(self) -> None:
        images = batch(48)
        result, strengths = handling()(images, Draws.at(0, 0, 0))
        done = {name: ~strengths[name].isnan() for name in STRENGTHS}
        for i in torch.nonzero(~done["std_grey_levels"]).flatten().tolist():
            blurred = gaussian_blur(images[[i]], int(strengths["kernel_size"].nan_to_num(1)[i]))
            smaller = rescaled(blurred, float(strengths["scale"].nan_to_num(1)[i]))
            if done["jpeg_quality"][i]:
                assert places_of(result[i], smaller[0], int(strengths["jpeg_quality"][i]))
            else:
                torch.testing.assert_close(result[[i]], smaller)
        untouched = ~torch.stack(list(done.values())).any(dim=0)
        assert untouched.any()
        assert torch.equal(result[untouched], images[untouched])

    @pytest.mark.parametrize("per", Per)
    def test_each_step_is_done_to_its_share_independently(self, per: Per) -> None:
        drawn = many(per)
        done = torch.stack([~drawn[name].isnan() for name in STRENGTHS]).int()
        for step in done:
            assert stats.binomtest(int(step.sum()), len(step), 0.5).pvalue > 1e-3
        # All sixteen combinations have equal chances.
        counts = np.bincount((done.T * torch.tensor([1, 2, 4, 8])).sum(dim=1), minlength=16)
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_the_share_is_the_one_that_is_set(self) -> None:
        images = torch.full((600, 3, 4, 4), 128.0)
        drawn = handling(probability=0.2)(images, Draws.at(0, 0, 0)).strengths
        for name in STRENGTHS:
            done = int((~drawn[name].isnan()).sum())
            assert stats.binomtest(done, len(images), 0.2).pvalue > 1e-3

    @pytest.mark.parametrize("per", Per)
    def test_strengths_are_drawn_from_their_ranges(self, per: Per) -> None:
        drawn = {name: values[~values.isnan()] for name, values in many(per).items()}
        assert set(drawn["kernel_size"].tolist()) == {3, 5}
        assert set(drawn["scale"].tolist()) == {0.5, 0.75}
        assert set(drawn["jpeg_quality"].tolist()) == {*range(65, 96)}
        assert stats.kstest(drawn["std_grey_levels"].numpy(), "uniform", (0, 5)).pvalue > 1e-3

    def test_devices_of_one_batch_do_the_same_to_it(self) -> None:
        images = torch.full((2, 3, 16, 16), 128.0)
        for number in range(8):
            first, second = (
                handling(per=Per.batch)(images, Draws.at(0, 0, number, rank=rank)).strengths
                for rank in (0, 1)
            )
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first)

    def test_it_works_where_the_images_are(self, device: torch.device) -> None:
        images = batch(16).to(device)
        for per in Per:
            result = handling(per=per)(images, Draws.at(0, 0, 0, device=device))
            assert result.images.device.type == device.type
            assert all(values.device.type == "cpu" for values in result.strengths.values())


class TestSteps:
    def test_the_order_of_draws_is_fixed(self) -> None:
        images = batch(8)
        steps = [
            {"one_of": [{"none": {}}, {"resize": {"scales": [0.5]}}], "probability": 0.75},
            {"noise": {"max_std_grey_levels": 5.0}},
        ]
        result = Steps("", steps, 1.0, Per.image)(images, Draws.at(3, 2, 1))
        own = Draws.at(3, 2, 1).own
        done = torch.rand(8, generator=own) < 0.75
        smaller = done & (2 * torch.rand(8, generator=own) >= 1)
        assert 0 < smaller.sum() < done.sum() < 8
        torch.randint(1, (int(smaller.sum()),), generator=own)  # the scale
        before = torch.where(smaller.view(-1, 1, 1, 1), rescaled(images, 0.5), images)
        stds = 5.0 * torch.rand(8, generator=own)
        noise = torch.randn(images.shape, generator=own) * stds.view(-1, 1, 1, 1)
        torch.testing.assert_close(result.images, (before + noise).clamp(0, 255))
        assert torch.equal(~result.strengths["scale"].isnan(), smaller)
        assert torch.equal(result.strengths["std_grey_levels"], stds)

    @pytest.mark.parametrize("per", Per)
    def test_a_place_in_training_always_draws_the_same(self, per: Per) -> None:
        images = batch(8)
        chosen: list[dict[str, object]] = [{"blur_sigma": {"max_sigma": 3}}, {"none": None}]
        steps = [{"one_of": chosen}, {"mask_frequencies": {"share": 0.15}}]
        first, second, other = (
            Steps("", steps, 0.5, per)(images, Draws.at(3, 2, number)).images
            for number in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("per", Per)
    def test_one_of_draws_with_equal_chances(self, per: Per) -> None:
        options = [{"blur": {"kernel_sizes": [3]}}, {"resize": {"scales": [0.5]}}, {"none": {}}]
        operator = Steps("", [{"one_of": options}], 1.0, per)
        image = torch.full((1, 3, 8, 8), 128.0)
        if per is Per.image:
            drawn = operator(image.expand(600, -1, -1, -1), Draws.at(0, 0, 0)).strengths
        else:
            each = [operator(image, Draws.at(0, 0, n)).strengths for n in range(600)]
            names = ("kernel_size", "scale")
            drawn = {name: torch.cat([strength(one, name, 1) for one in each]) for name in names}
        blurred, smaller = (~drawn[name].isnan() for name in ("kernel_size", "scale"))
        assert not (blurred & smaller).any()
        counts = [int(blurred.sum()), int(smaller.sum()), int((~blurred & ~smaller).sum())]
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_options_may_have_a_probability_and_options_of_their_own(self) -> None:
        rare = {"blur": {"kernel_sizes": [3]}, "probability": 0.0}
        inner = {"one_of": [{"resize": {"scales": [0.5]}}]}
        drawn = Steps("", [{"one_of": [rare, inner]}], 1.0, Per.image)(batch(64), Draws.at(0, 0, 0))
        assert "kernel_size" not in drawn.strengths
        assert 0 < int(drawn.strengths["scale"].isnan().sum()) < 64

    def test_a_second_step_of_a_kind_keeps_its_own_strengths(self) -> None:
        steps = [{"resize": {"scales": [0.5]}}, {"resize": {"scales": [0.75]}}]
        images, strengths = Steps("", steps, 1.0, Per.batch)(batch(2), Draws.at(0, 0, 0))
        assert {name: float(values[0]) for name, values in strengths.items()} == {
            "scale": 0.5,
            "scale_2": 0.75,
        }
        torch.testing.assert_close(images, rescaled(rescaled(batch(2), 0.5), 0.75))

    def test_what_is_certain_is_the_operator_alone(self) -> None:
        steps = [{"noise": {"max_std_grey_levels": 5.0}}]
        images, _ = Steps("", steps, 1.0, Per.batch)(batch(4), Draws.at(0, 0, 0))
        assert torch.equal(images, Noise(5.0, Per.batch)(batch(4), Draws.at(0, 0, 0)).images)


class TestGaussianFilter:
    @pytest.mark.parametrize("size", [(40, 28), (7, 5)], ids=str)
    def test_it_is_scipys(self, device: torch.device, size: tuple[int, int]) -> None:
        images = batch(5, 40)[:, :, : size[0], : size[1]].to(device)
        sigmas = torch.tensor([0.0, 0.1, 0.6, 1.7, 3.0])
        result = gaussian_filter(images, sigmas).cpu().numpy()
        for image, sigma, got in zip(images.cpu().numpy(), sigmas.tolist(), result, strict=True):
            expected = image.astype(np.float64)
            if sigma:
                expected = ndimage.gaussian_filter(expected, (0, sigma, sigma))
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("sigma", [-0.1, 10.1, float("nan")])
    def test_impossible_sigmas_are_refused(self, sigma: float) -> None:
        with pytest.raises(ValueError, match="sigmas must be in"):
            gaussian_filter(batch(1), torch.tensor([sigma]))


class TestCropResize:
    def test_it_is_pillows_bicubic_of_the_crop(self) -> None:
        image = 64 + 128 * np.random.default_rng(0).random((40, 28), np.float32)
        # 30 rows from 10 * 0.5 on, 21 columns from the last of 8 places on.
        cut = Image.fromarray(image[5:35, 7:28])
        expected = np.asarray(cut.resize((28, 40), Image.Resampling.BICUBIC))
        places = torch.tensor([[0.5, 1.0]])
        result = enlarged(torch.from_numpy(image)[None, None], torch.tensor([0.75]), places)
        np.testing.assert_allclose(result[0, 0].numpy(), expected, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("per", Per)
    def test_sides_are_uniform_and_places_each_images_own(
        self, per: Per, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Tensor] = []

        def recorded(images: Tensor, shares: Tensor, places: Tensor) -> Tensor:
            drawn.append(places)
            return images

        monkeypatch.setattr("forensics.preprocess.handling.enlarged", recorded)
        images = torch.zeros(1000, 3, 1, 1)
        sides = CropResize(0.5, per)(images, Draws.at(0, 0, 0)).strengths["side"].numpy()
        if per is Per.image:
            assert stats.kstest(sides, "uniform", (0.5, 0.5)).pvalue > 1e-3
        else:
            assert len(np.unique(sides)) == 1
        assert stats.kstest(drawn[0].flatten().numpy(), "uniform").pvalue > 1e-3


class TestMaskFrequencies:
    @pytest.mark.parametrize("size", [(32, 32), (15, 24), (16, 9)], ids=str)
    def test_frequencies_are_kept_or_gone_with_their_conjugates(
        self, size: tuple[int, int]
    ) -> None:
        draws = np.random.default_rng(0)  # no frequency of which is near 0, nor a pixel clipped
        images = torch.from_numpy(draws.uniform(100, 150, (6, 3, *size))).float()
        result = MaskFrequencies(0.3)(images, Draws.at(0, 0, 0)).images
        before, after = (np.fft.fft2(stack.double().numpy()) for stack in (images, result))
        kept = np.abs(after - before) < 1e-2
        gone = np.abs(after) < 1e-2
        assert (kept | gone).all()
        assert 0.25 < gone.mean() < 0.35
        assert not (kept & gone).any()
        assert (kept == kept[:, :1]).all()  # every channel
        assert (kept != kept[:1]).any()  # not every image
        assert kept[..., 0, 0].all()

    def test_the_share_is_the_one_that_is_set(self) -> None:
        images = 100 + batch(32) / 10
        result = MaskFrequencies(0.15)(images, Draws.at(0, 0, 0)).images
        gone = np.abs(np.fft.fft2(result[:, 0].double().numpy())) < 1e-2
        half = gone[:, 1:, 1:16]  # each with its conjugate elsewhere
        assert stats.binomtest(int(half.sum()), half.size, 0.15).pvalue > 1e-3


def radial(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean logarithm of grey values' amplitudes at each distance from 2 cycles on, by NumPy."""
    grey = image.mean(axis=2)
    window = np.hanning(len(image))
    amplitudes = np.log(np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(window, window))))
    frequencies = np.fft.fftfreq(len(image)) * len(image)
    radii = np.rint(np.hypot(frequencies[:, None], frequencies)).astype(int)
    return np.array([amplitudes[radii == radius].mean() for radius in range(2, len(image) // 2)])


class TestMatchSpectrum:
    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_moves_by_the_share_at_every_radius(self, share: float) -> None:
        originals = photos(4, 128).astype(float)
        images = ndimage.gaussian_filter(originals, (0, 1, 1, 0))[:, :, ::-1] * [1, 0.5, 0.2]
        given, wanted = (
            torch.from_numpy(both.transpose(0, 3, 1, 2).copy() / 127.5 - 1)
            for both in (images, originals)
        )
        moved = match_spectrum(given, wanted, share).numpy().transpose(0, 2, 3, 1)
        for before, after, original in zip(images, (moved + 1) * 127.5, originals, strict=True):
            start, end, goal = (radial(one) for one in (before, after, original))
            assert np.abs(goal - start).max() > 4  # in units of e
            # Not to the digit: gains are measured in a window and hold for complete images.
            np.testing.assert_allclose(end, (1 - share) * start + share * goal, atol=0.4)

    def test_phases_and_what_is_within_one_cycle_stay(self) -> None:
        draws = np.random.default_rng(0)
        image, original = (torch.from_numpy(draws.normal(size=(1, 3, 32, 32))) for _ in range(2))
        before, after = (torch.fft.rfft2(one) for one in
                         (image, match_spectrum(image, original, 1.0)))  # fmt: skip
        assert torch.allclose(before / before.abs(), after / after.abs(), atol=1e-5)
        for low in ((0, 0), (0, 1), (1, 0)):
            assert torch.allclose(before[..., *low], after[..., *low])

    @pytest.mark.parametrize("level", [0.3, 0.5, 1.0])
    def test_an_image_without_structure_stays(self, level: float) -> None:
        flat = torch.full((1, 3, 24, 24), level)
        for original in (flat - 1, torch.from_numpy(photos(1, 24)).permute(0, 3, 1, 2) / 255):
            assert torch.allclose(match_spectrum(flat, original, 1.0), flat, atol=1e-3)


class TestSwapSpectra:
    def test_each_image_has_the_energy_of_another_one(self) -> None:
        photographs = batch(8, 128)
        blurred = torch.from_numpy(ndimage.gaussian_filter(photographs.numpy(), (0, 0, 1, 1)))
        images = torch.cat([photographs, blurred])
        result = SwapSpectra()(images, Draws.at(0, 0, 0)).images
        assert ((result >= 0) & (result <= 255)).all()
        before, after = (
            np.stack([radial(one) for one in stack.permute(0, 2, 3, 1).double().numpy()])
            for stack in (images, result)
        )
        upper = slice(8, 48)
        distances = np.abs(after[:, None, upper] - before[None, :, upper]).mean(axis=2)
        assert sorted(distances.argmin(axis=1).tolist()) == list(range(16))
        assert distances.min(axis=1).max() < 0.2
        assert np.diag(distances).max() > 1

    def test_one_image_alone_stays(self) -> None:
        image = batch(1)
        result = SwapSpectra()(image, Draws.at(0, 0, 0)).images
        assert torch.allclose(result, image, atol=1e-3)


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"kernel_sizes": [2]}, "steps[0].blur.kernel_sizes"),
            ({"scales": []}, "steps[1].resize.scales"),
            ({"scales": [0.5, 0.0]}, "steps[1].resize.scales"),
            ({"scales": [1.5]}, "steps[1].resize.scales"),
            ({"scales": [float("nan")]}, "steps[1].resize.scales"),
            ({"max_std_grey_levels": -1.0}, "steps[2].noise.max_std_grey_levels"),
            ({"min_quality": 0}, "steps[3].jpeg.min_quality"),
            ({"min_quality": 96}, "steps[3].jpeg.min_quality"),
            ({"max_quality": 101}, "steps[3].jpeg.max_quality"),
            ({"max_quality": 0}, "steps[3].jpeg.max_quality"),
            ({"probability": -0.1}, "probability"),
            ({"probability": 1.1}, "probability"),
            ({"probability": float("nan")}, "probability"),
        ],
    )
    def test_what_is_out_of_range_is_refused_by_its_key(
        self, changes: dict[str, object], key: str
    ) -> None:
        with pytest.raises(UserError) as raised:
            handling(**changes)
        assert raised.value.key == f"preprocess.{key}"

    @pytest.mark.parametrize(("least", "most"), [(0, 50), (60, 50), (50, 101)])
    def test_qualities_of_jpeg_are_refused_too(self, least: int, most: int) -> None:
        with pytest.raises(UserError):
            Jpeg(least, most, Per.batch)

    def test_the_ends_of_the_ranges_are_allowed(self) -> None:
        Jpeg(1, 100, Per.image)
        handling(
            kernel_sizes=[1], scales=[1.0], max_std_grey_levels=255.0, min_quality=100,
            max_quality=100, probability=1.0, per=Per.batch,
        )  # fmt: skip
