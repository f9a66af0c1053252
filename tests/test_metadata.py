"""What headers say, on files that Pillow writes here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forensics.images.metadata import read_metadata


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


def test_the_quality_is_that_pillow_wrote_with(tmp_path: Path, image: Image.Image) -> None:
    for quality in range(1, 101):
        image.save(tmp_path / "a.jpg", quality=quality)
        assert read_metadata(tmp_path / "a.jpg").jpeg_quality == quality


def test_tables_of_ones_own_are_of_the_nearest_quality(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "a.jpg", qtables=[[16] * 64, [16] * 64])
    assert 70 < (read_metadata(tmp_path / "a.jpg").jpeg_quality or 0) < 95


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "JPEG"])
def test_header(tmp_path: Path, image: Image.Image, format_: str) -> None:
    path = tmp_path / "image"
    image.save(path, format_)
    found = read_metadata(path)
    assert found[:4] == (format_, 30, 20, "RGB")
    assert (found.jpeg_quality is None) == (format_ != "JPEG")
    assert (found.orientation, found.exif) == (1, False)


@pytest.mark.parametrize(("written", "read"), [(1, 1), (6, 6), (8, 8), (0, 1), (9, 1), (700, 1)])
def test_exif(tmp_path: Path, image: Image.Image, written: int, read: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = written
    image.save(tmp_path / "a.jpg", exif=exif)
    found = read_metadata(tmp_path / "a.jpg")
    assert (found.orientation, found.exif) == (read, True)


def test_modes(tmp_path: Path, image: Image.Image) -> None:
    for mode, name in (("L", "a.png"), ("P", "b.png"), ("RGBA", "c.png"), ("CMYK", "d.jpg")):
        image.convert(mode).save(tmp_path / name)
        assert read_metadata(tmp_path / name).mode == mode


def test_several_pictures_in_a_jpeg_are_a_jpeg(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "a.jpg", "mpo", save_all=True, append_images=[image], quality=80)
    found = read_metadata(tmp_path / "a.jpg")
    assert (found.format, found.jpeg_quality) == ("JPEG", 80)
