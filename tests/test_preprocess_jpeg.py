"""The JPEG round trip on the device beside Pillow's."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photos
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forensics.images.metadata import read_metadata
from forensics.preprocess.base import Draws
from forensics.preprocess.handling import Jpeg, Per
from forensics.preprocess.jpeg import _tables, by_libjpeg, by_tensors, jpeg

Pixels = NDArray[np.uint8]
Coded = Callable[[Tensor, Tensor, Tensor], Tensor]

EITHER_WAY = pytest.mark.parametrize("coded", [by_libjpeg, by_tensors])


def pixels(height: int, width: int) -> Pixels:
    """Images with structure at every scale, and one of noise that fills the range."""
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    return np.concatenate([photos(3, 64)[:, :height, :width], noise])


def batch(images: Pixels) -> Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float()


def pillows(images: Pixels, quality: int, top: int = 0, left: int = 0) -> Tensor:
    """Padded at the top and the left, saved, read and cut."""
    padded = np.pad(images, ((0, 0), (top, 0), (left, 0), (0, 0)), "edge")
    results = []
    for image in padded:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        results.append(np.asarray(Image.open(file))[top:, left:])
    return batch(np.stack(results))


def alike(images: Tensor, quality: int, top: int = 0, left: int = 0, coded: Coded = jpeg) -> Tensor:
    """A batch of one quality and one place of the blocks."""
    count = len(images)
    return coded(images, torch.full((count,), quality), torch.tensor([[top, left]] * count))


@pytest.fixture
def coarse_products() -> Iterator[None]:
    """Products of float32 in fewer digits, as in training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("place", [(0, 0), (7, 2), (8, 15)], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (50, 37), (33, 48), (17, 5)], ids=str)
@pytest.mark.parametrize("quality", [1, 30, 49, 50, 65, 75, 90, 95, 100])
def test_the_result_is_pillows(
    device: torch.device, quality: int, size: tuple[int, int], place: tuple[int, int]
) -> None:
    images = pixels(*size)
    result = alike(batch(images).to(device), quality, *place, coded=by_tensors)
    assert result.device.type == device.type
    # To the bit: it is libjpeg's arithmetic, of whole numbers.
    expected = pillows(images, quality, *place)
    assert torch.equal(result.cpu(), expected)
    assert torch.equal(alike(batch(images), quality, *place), expected)


def test_the_result_has_the_images_device_dtype_and_memory_layout(device: torch.device) -> None:
    images = batch(pixels(32, 32)).to(device, torch.bfloat16, memory_format=torch.channels_last)
    before = images.clone()
    result = alike(images, 75)
    assert (result.device, result.dtype) == (images.device, images.dtype)
    assert result.stride() == images.stride()
    assert torch.equal(images, before)


def test_neither_autocast_nor_coarse_products_change_the_result(
    device: torch.device, coarse_products: None
) -> None:
    images = pixels(64, 64)
    with torch.autocast(device.type, torch.bfloat16):
        result = alike(batch(images).to(device), 90, 3, 4, coded=by_tensors)
    assert torch.equal(result.cpu(), pillows(images, 90, 3, 4))


@EITHER_WAY
def test_every_image_has_its_own_quality_and_place(coded: Coded) -> None:
    images = pixels(40, 40)
    qualities, places = (30, 65, 90, 100), ((0, 0), (15, 1), (4, 8), (9, 14))
    result = coded(batch(images), torch.tensor(qualities), torch.tensor(places))
    for i, (quality, place) in enumerate(zip(qualities, places, strict=True)):
        assert torch.equal(result[[i]], pillows(images[[i]], quality, *place))


def test_the_grid_of_chroma_has_a_period_of_16_pixels() -> None:
    images = batch(pixels(64, 64))
    assert not torch.equal(alike(images, 75, 0, 0), alike(images, 75, 8, 8))


@EITHER_WAY
@pytest.mark.parametrize(
    ("level", "expected"), [(100, 100), (101, 100), (102, 102), (103, 102), (155, 156)]
)
def test_the_mean_of_a_block_is_quantised(level: int, expected: int, coded: Coded) -> None:
    # At quality 50, (level - 128) * 8 in steps of 16, halves away from zero.
    images = torch.full((1, 3, 16, 16), float(level))
    assert torch.equal(alike(images, 50, coded=coded), torch.full_like(images, expected))


@EITHER_WAY
@pytest.mark.parametrize("quality", [65, 80, 95])
def test_grey_images_stay_within_a_level(quality: int, coded: Coded) -> None:
    # The step of the mean is at most 11 eighths of a level, so the error at most 11 sixteenths.
    images = torch.arange(256.0).view(-1, 1, 1, 1).expand(-1, 3, 20, 20)
    assert (alike(images, quality, 5, 5, coded) - images).abs().max() <= 1


def test_what_is_no_whole_level_is_rounded_and_clipped_first() -> None:
    images = batch(pixels(32, 32))
    off = (images - 0.4).where(images > 0, torch.tensor(-3.0))
    assert torch.equal(alike(off, 95), alike(images, 95))


@EITHER_WAY
def test_an_empty_batch_stays_empty(coded: Coded) -> None:
    none = torch.empty(0, 3, 16, 16)
    offsets = torch.empty(0, 2, dtype=torch.long)
    assert coded(none, torch.empty(0, dtype=torch.long), offsets).shape == none.shape


@pytest.mark.parametrize("quality", [0, 101])
def test_impossible_qualities_are_refused(quality: int) -> None:
    with pytest.raises(ValueError, match="qualities must be in"):
        alike(batch(pixels(16, 16)), quality)


@pytest.mark.parametrize("place", [(-1, 0), (0, 16)])
def test_impossible_places_are_refused(place: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="offsets must be in"):
        alike(batch(pixels(16, 16)), 75, *place)


@pytest.mark.parametrize("quality", [1, 30, 49, 50, 75, 100])
def test_a_quality_has_the_tables_of_libjpegs_files(quality: int) -> None:
    ours = _tables(torch.tensor([quality]))[0].flatten(1).tolist()
    written = _saved(pixels(16, 16)[0], quality).quantization  # type: ignore[attr-defined]
    assert ours == [list(written[0]), list(written[1])]


def test_a_drawn_quality_is_read_back_from_the_tables_of_the_file_with_these_pixels(
    tmp_path: Path,
) -> None:
    images = pixels(32, 32)
    operator = Jpeg(30, 100, Per.image)
    results, strengths = operator(batch(images), Draws.at(0, 0, 0))
    qualities = strengths["jpeg_quality"].int().tolist()
    assert len(set(qualities)) > 1
    for image, result, quality in zip(images, results, qualities, strict=True):
        # Of all the places of the blocks, one makes these pixels.
        files = (
            _saved(np.pad(image, ((top, 0), (left, 0), (0, 0)), "edge"), quality)
            for top in range(16)
            for left in range(16)
        )
        made = next(file for file in files if torch.equal(batch(_cut(file))[0], result))
        made.save(tmp_path / "image.jpg", quality="keep")
        assert read_metadata(tmp_path / "image.jpg").jpeg_quality == quality


def _saved(image: Pixels, quality: int) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=quality)
    return Image.open(file)


def _cut(file: Image.Image) -> Pixels:
    return np.asarray(file)[None, -32:, -32:]
