"""What happens to images on the net: downscaling, JPEG of a drawn quality, all steps in turn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import photos
from PIL import Image
from scipy import stats
from torch import Tensor

from forensics.errors import UserError
from forensics.preprocess import PREPROCESSES, Draws, Preprocess
from forensics.preprocess.degradations import gaussian_blur, rescaled
from forensics.preprocess.handling import Handling, Jpeg, Per, Resize
from forensics.preprocess.jpeg import jpeg

SETTINGS = {
    "kernel_sizes": [3, 5],
    "scales": [0.5, 0.75],
    "max_std_grey_levels": 5.0,
    "min_quality": 65,
    "max_quality": 95,
    "share": 0.5,
    "per": Per.image,
}
LEFT_OUT = {"kernel_size": 1, "scale": 1, "std_grey_levels": 0, "jpeg_quality": 100}
PLACES = torch.tensor(list(itertools.product(range(16), repeat=2)))
"""Every place of the blocks."""


def batch(count: int, side: int = 32) -> Tensor:
    return torch.from_numpy(photos(count, side)).permute(0, 3, 1, 2).float()


def handling(**changes: object) -> Preprocess:
    operator: Preprocess = PREPROCESSES["handling"](**SETTINGS | changes)
    return operator


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
    return {name: torch.cat([one[name] for one in drawn]) for name in LEFT_OUT}


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
            share=1.0,
        )  # fmt: skip
        result = certain(images, Draws.at(0, 0, 0)).images
        before = rescaled(gaussian_blur(images, 5), 0.5)
        for i in range(len(images)):
            assert places_of(result[i], before[i], 80)

    def test_noise_comes_after_what_would_smooth_it_and_before_jpeg(self) -> None:
        grey = torch.full((8, 3, 64, 64), 128.0)
        noisy = handling(
            kernel_sizes=[7], scales=[0.5], max_std_grey_levels=40.0, min_quality=100,
            max_quality=100, share=1.0, per=Per.batch,
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
        done = {name: strengths[name] != value for name, value in LEFT_OUT.items()}
        for i in torch.nonzero(~done["std_grey_levels"]).flatten().tolist():
            blurred = gaussian_blur(images[[i]], int(strengths["kernel_size"][i]))
            smaller = rescaled(blurred, float(strengths["scale"][i]))
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
        done = torch.stack([drawn[name] != value for name, value in LEFT_OUT.items()]).int()
        for step in done:
            assert stats.binomtest(int(step.sum()), len(step), 0.5).pvalue > 1e-3
        # All sixteen combinations have equal chances.
        counts = np.bincount((done.T * torch.tensor([1, 2, 4, 8])).sum(dim=1), minlength=16)
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_the_share_is_the_one_that_is_set(self) -> None:
        images = torch.full((600, 3, 4, 4), 128.0)
        drawn = handling(share=0.2)(images, Draws.at(0, 0, 0)).strengths
        for name, value in LEFT_OUT.items():
            done = int((drawn[name] != value).sum())
            assert stats.binomtest(done, len(images), 0.2).pvalue > 1e-3

    @pytest.mark.parametrize("per", Per)
    def test_strengths_are_drawn_from_their_ranges(self, per: Per) -> None:
        drawn = many(per)
        assert set(drawn["kernel_size"].tolist()) == {1, 3, 5}
        assert set(drawn["scale"].tolist()) == {0.5, 0.75, 1}
        assert set(drawn["jpeg_quality"].tolist()) == {*range(65, 96), 100}
        stds = drawn["std_grey_levels"]
        assert stats.kstest(stds[stds > 0].numpy(), "uniform", (0, 5)).pvalue > 1e-3

    def test_devices_of_one_batch_do_the_same_to_it(self) -> None:
        images = torch.full((2, 3, 16, 16), 128.0)
        for number in range(8):
            first, second = (
                handling(per=Per.batch)(images, Draws.at(0, 0, number, rank=rank)).strengths
                for rank in (0, 1)
            )
            assert all(torch.equal(first[name], second[name]) for name in LEFT_OUT)

    def test_it_works_where_the_images_are(self, device: torch.device) -> None:
        images = batch(16).to(device)
        for per in Per:
            result = handling(per=per)(images, Draws.at(0, 0, 0, device=device))
            assert result.images.device.type == device.type
            assert all(values.device.type == "cpu" for values in result.strengths.values())


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"kernel_sizes": [2]}, "kernel_sizes"),
            ({"scales": []}, "scales"),
            ({"scales": [0.5, 0.0]}, "scales"),
            ({"scales": [1.5]}, "scales"),
            ({"scales": [float("nan")]}, "scales"),
            ({"max_std_grey_levels": -1.0}, "max_std_grey_levels"),
            ({"min_quality": 0}, "min_quality"),
            ({"min_quality": 96}, "min_quality"),
            ({"max_quality": 101}, "max_quality"),
            ({"max_quality": 0}, "max_quality"),
            ({"share": -0.1}, "share"),
            ({"share": 1.1}, "share"),
            ({"share": float("nan")}, "share"),
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
        Handling([1], [1.0], 255.0, 100, 100, 1.0, Per.batch)
