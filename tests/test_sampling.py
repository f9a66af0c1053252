"""Image files of sampling, read by other programs."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from forensics.generators.sampling import stored_png
from forensics.images.decode import decode


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (128, 128), (300, 257)])
def test_png_has_the_pixels_for_every_reader(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    written = stored_png(pixels)
    with Image.open(io.BytesIO(written)) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(written)) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        np.testing.assert_array_equal(np.asarray(image), pixels)
    read = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    np.testing.assert_array_equal(read[..., ::-1], pixels)
    decoded = decode(written, 1)
    assert (decoded.flag, decoded.format) == ("", "PNG")
    np.testing.assert_array_equal(np.asarray(decoded.pixels), pixels)
