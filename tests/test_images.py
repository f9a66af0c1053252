"""The decode policy: every rule of `forensics.images.decode`, on files made here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import photos
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo
from sklearn.metrics import roc_auc_score

from forensics.images.containers import RejectedImage
from forensics.images.decode import MAX_PIXELS, decode
from forensics.images.geometry import Match, ResizeFilter, View, matched, to_square

Pixels = NDArray[np.uint8]
FORMATS: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 90},
    "png": {},
    "webp": {"lossless": True},
}
"""How the tests write each accepted format."""


def _pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


END = chunk(b"IEND", b"")
GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6


def png(width: int, height: int, bits: int, colour: int, samples: bytes, *more: bytes) -> bytes:
    """A PNG written by hand, with chunks of one's own between header and pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = b"".join(
        b"\0" + samples[start : start + len(samples) // height]
        for start in range(0, len(samples), max(1, len(samples) // height))
    )
    body = b"".join([chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows))])
    return b"\x89PNG\r\n\x1a\n" + body + END


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(_pixels(24, 32, 3, seed=seed))


def frames() -> list[Image.Image]:
    return [noise(1), noise(2)]


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., tuple[Pixels, str]]:
    """Decode bytes as a file of some name; gives pixels and flag."""

    def decode_bytes(
        content: bytes, name: str = "image.png", min_side: int = 1
    ) -> tuple[Pixels, str]:
        path = tmp_path / name
        path.write_bytes(content)
        image, flag, _ = decode(path, min_side)
        assert image.mode == "RGB"
        return np.asarray(image), flag

    return decode_bytes


Decode = Callable[..., tuple[Pixels, str]]


class TestAccepted:
    @pytest.mark.parametrize("format_", FORMATS)
    @pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.webp", "a.PNG", "a"])
    def test_content_counts_and_not_the_name(
        self, decoded: Decode, format_: str, name: str
    ) -> None:
        pixels, flag = decoded(encoded(noise(), format_, **FORMATS[format_]), name)
        assert flag == ""
        if format_ == "jpeg":  # what it shows is what went in, but for its losses
            smooth = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (1, 32, 3))
            content = encoded(Image.fromarray(smooth), format_, quality=100)
            assert np.abs(decoded(content, name)[0].astype(int) - smooth).max() <= 2
        else:
            np.testing.assert_array_equal(pixels, noise())

    @pytest.mark.parametrize("mode", ["1", "L"])
    def test_grey_is_repeated(self, decoded: Decode, mode: str) -> None:
        image = Image.fromarray(_pixels(8, 9)).convert(mode)
        pixels, _ = decoded(encoded(image, "png"))
        expected = np.asarray(image.convert("L"))
        np.testing.assert_array_equal(pixels, np.stack([expected] * 3, axis=2))

    @pytest.mark.parametrize("format_", ["jpeg", "webp"])
    def test_grey_of_other_formats_has_equal_channels(self, decoded: Decode, format_: str) -> None:
        image = Image.fromarray(np.full((8, 8), 77, np.uint8))
        pixels, _ = decoded(encoded(image, format_, **FORMATS[format_]))
        assert np.abs(pixels.astype(int) - 77).max() <= 1

    def test_sixteen_bit_grey_is_scaled(self, decoded: Decode) -> None:
        grey = np.array([[0, 128, 129, 257, 12_850, 32_767, 65_406, 65_407, 65_535]], np.uint16)
        pixels, _ = decoded(encoded(Image.fromarray(grey), "png"))
        expected = [0, 0, 1, 1, 50, 127, 254, 255, 255]  # of 65535 / 255 = 257, rounded
        assert pixels[0, :, 0].tolist() == expected
        assert (pixels == pixels[..., :1]).all()

    @pytest.mark.parametrize("colour", [RGB, GREY_ALPHA, RGB_ALPHA])
    def test_sixteen_bits_of_other_kinds_are_scaled(self, decoded: Decode, colour: int) -> None:
        channels = {RGB: 3, GREY_ALPHA: 2, RGB_ALPHA: 4}[colour]
        samples = np.random.default_rng(0).integers(0, 65_536, (5, 7, channels), np.uint16)
        if colour != RGB:
            samples[..., -1] = 65_535
        pixels, _ = decoded(png(7, 5, 16, colour, samples.astype(">u2").tobytes()))
        expected = samples[..., :3] if colour != GREY_ALPHA else samples[..., :1]
        # Pillow takes the upper byte, at most one grey level from rounding.
        assert np.abs(pixels - expected / 257).max() <= 1

    def test_palette_shows_its_colours(self, decoded: Decode) -> None:
        palette, indices = _pixels(256, 3), _pixels(6, 7, seed=1)
        image = Image.fromarray(indices, "P")
        image.putpalette(palette.tobytes())
        np.testing.assert_array_equal(decoded(encoded(image, "png"))[0], palette[indices])

    def test_transparent_palette_entries_lie_on_white(self, decoded: Decode) -> None:
        palette, indices = _pixels(256, 3), _pixels(6, 7, seed=1) % 4
        image = Image.fromarray(indices, "P")
        image.putpalette(palette.tobytes())
        pixels, _ = decoded(encoded(image, "png", transparency=bytes([255, 0, 128, 255])))
        alpha = np.array([255, 0, 128, 255])[indices][..., None] / 255
        expected = palette[indices] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=1)
        assert (pixels[indices == 1] == 255).all()
        np.testing.assert_array_equal(pixels[indices == 3], palette[indices][indices == 3])

    @pytest.mark.parametrize("format_", ["png", "webp"])
    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_lies_on_white(self, decoded: Decode, mode: str, format_: str) -> None:
        samples = _pixels(6, 7, len(mode))
        samples[0, :, -1], samples[1, :, -1] = 0, 255
        options = {"exact": True, "lossless": True} if format_ == "webp" else {}
        pixels, _ = decoded(encoded(Image.fromarray(samples, mode), format_, **options))
        alpha = samples[..., -1:] / 255
        expected = samples[..., :-1] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, (6, 7, 3)), rtol=0, atol=1)
        assert (pixels[0] == 255).all()
        np.testing.assert_array_equal(pixels[1], np.broadcast_to(samples[1, :, :-1], (7, 3)))

    @pytest.mark.parametrize(
        ("bits", "colour", "samples", "key", "expected"),
        [
            (8, GREY, b"\x00\x64\xc8", b"\x00\x64", [0, 255, 200]),
            (8, RGB, b"\x00\x00\x00\x64\x64\x64\xc8\xc8\xc8", b"\x00\x64" * 3, [0, 255, 200]),
            (1, GREY, b"\x40", b"\x00\x00", [255, 255, 255]),
            (16, GREY, b"\x00\x00\x64\x64\xc8\xc8", b"\x64\x64", [0, 255, 200]),
        ],
        ids=["grey", "rgb", "one bit", "sixteen bits"],
    )
    def test_a_colour_that_stands_for_transparent_lies_on_white(
        self,
        decoded: Decode,
        bits: int,
        colour: int,
        samples: bytes,
        key: bytes,
        expected: list[int],
    ) -> None:
        content = png(3, 1, bits, colour, samples, chunk(b"tRNS", key))
        assert decoded(content)[0][0].tolist() == [[value] * 3 for value in expected]

    @pytest.mark.parametrize(
        ("ink", "expected"),
        [
            ((0, 0, 0, 0), (255, 255, 255)),
            ((0, 255, 255, 0), (255, 0, 0)),
            ((255, 0, 0, 0), (0, 255, 255)),
            ((0, 0, 0, 255), (0, 0, 0)),
            ((0, 0, 0, 155), (100, 100, 100)),
        ],
    )
    def test_cmyk_becomes_the_colour_its_inks_leave(
        self, decoded: Decode, ink: tuple[int, ...], expected: tuple[int, ...]
    ) -> None:
        content = encoded(Image.new("CMYK", (16, 16), ink), "jpeg", quality=100)
        pixels, _ = decoded(content, "image.jpg")
        assert np.abs(pixels.astype(int) - expected).max() <= 2

    def test_colour_profiles_change_nothing(self, decoded: Decode) -> None:
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        with_profile = encoded(noise(), "png", icc_profile=lab)
        assert b"iCCP" in with_profile
        np.testing.assert_array_equal(decoded(with_profile)[0], noise())

    @pytest.mark.parametrize("format_", FORMATS)
    @pytest.mark.parametrize(
        ("orientation", "turn"),
        list(
            enumerate(
                [
                    lambda a: a,
                    np.fliplr,
                    lambda a: np.rot90(a, 2),
                    np.flipud,
                    lambda a: a.swapaxes(0, 1),
                    lambda a: np.rot90(a, -1),
                    lambda a: np.rot90(a, 2).swapaxes(0, 1),
                    lambda a: np.rot90(a, 1),
                ],
                start=1,
            )
        ),
    )
    def test_exif_orientation_is_applied(
        self, decoded: Decode, format_: str, orientation: int, turn: Callable[[Pixels], Pixels]
    ) -> None:
        # A corner of another colour in each quarter, which JPEG keeps, too.
        quarters = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
        image = quarters.repeat(8, axis=0).repeat(16, axis=1)
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(Image.fromarray(image), format_, exif=exif, **FORMATS[format_])
        pixels, _ = decoded(content, "image.jpg")
        assert pixels.shape == turn(image).shape
        middle = (slice(4, None, pixels.shape[0] // 2), slice(4, None, pixels.shape[1] // 2))
        difference = pixels[middle].astype(int) - turn(image)[middle]
        assert np.abs(difference).max() <= 8

    def test_orientation_does_not_change_sixteen_bits(self, decoded: Decode) -> None:
        grey = np.array([[0, 12_850], [25_700, 65_535], [257, 514]], np.uint16)
        exif = Image.Exif()
        exif[0x0112] = 6
        pixels, _ = decoded(encoded(Image.fromarray(grey), "png", exif=exif))
        expected = np.rot90(np.array([[0, 50], [100, 255], [1, 2]]), -1)
        assert pixels[..., 0].tolist() == expected.tolist()

    def test_of_several_jpeg_pictures_the_first_counts(self, decoded: Decode) -> None:
        first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
        content = encoded(first, "mpo", save_all=True, append_images=[second])
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 2)
        pixels, _ = decoded(content, "phone.jpg")
        assert (pixels[0, 0] >= [250, 0, 0]).all()
        assert (pixels[0, 0] <= [255, 4, 4]).all()

    def test_a_png_without_its_end_is_flagged(self, decoded: Decode) -> None:
        content = encoded(noise(), "png")
        pixels, flag = decoded(content.removesuffix(END))
        assert flag == "no end mark"
        np.testing.assert_array_equal(pixels, noise())
        # What may follow the end is not ours to judge.
        assert decoded(content + b"\0" * 5000)[1] == ""

    def test_min_side_itself_is_accepted(self, decoded: Decode) -> None:
        assert decoded(encoded(noise(), "png"), min_side=24)[0].shape == (24, 32, 3)
        assert decoded(encoded(Image.new("RGB", (1, 1)), "png"))[0].shape == (1, 1, 3)


OVER_CAP = f" pixels are more than the {MAX_PIXELS} allowed"
REJECTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "neither JPEG, PNG nor WebP"),
    "html": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "neither JPEG, PNG nor"),
    "text": (lambda: b"JPEG\n" * 100, "neither JPEG, PNG nor"),
    "gif": (lambda: encoded(noise(), "gif"), "neither JPEG, PNG nor"),
    "tiff": (lambda: encoded(noise(), "tiff"), "neither JPEG, PNG nor"),
    "bmp": (lambda: encoded(noise(), "bmp"), "neither JPEG, PNG nor"),
    "eps": (lambda: encoded(noise(), "eps"), "neither JPEG, PNG nor"),
    "animated gif": (
        lambda: encoded(noise(), "gif", save_all=True, append_images=frames()),
        "neither JPEG, PNG nor",
    ),
    "animated png": (
        lambda: encoded(noise(), "png", save_all=True, append_images=frames()),
        "an animation",
    ),
    "animated webp": (
        lambda: encoded(noise(), "webp", save_all=True, append_images=frames()),
        "an animation",
    ),
    "jpeg cut in half": (lambda: half(encoded(noise(), "jpeg")), "truncated"),
    "jpeg cut in half with an end mark": (
        lambda: half(encoded(noise(), "jpeg")) + b"\xff\xd9",
        "truncated",
    ),
    "jpeg cut in its header": (lambda: encoded(noise(), "jpeg")[:200], "truncated"),
    "png cut in half": (lambda: half(encoded(noise(), "png")), "."),
    "webp cut in half": (lambda: half(encoded(noise(), "webp")), "."),
    "header of 257 megapixels": (lambda: png(16_000, 16_063, 8, RGB, b""), OVER_CAP),
    "header of 400 megapixels": (lambda: png(20_000, 20_000, 8, RGB, b""), OVER_CAP),
    "header of 2^62 pixels": (lambda: png(2**31 - 1, 2**31 - 1, 8, RGB, b""), OVER_CAP),
    "one row above the cap": (lambda: png(16_000, 16_001, 8, RGB, b""), "^16000x16001" + OVER_CAP),
}


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


class TestRejected:
    @pytest.mark.parametrize("name", ["image.jpg", "image.png"])
    @pytest.mark.parametrize(("content", "reason"), REJECTED.values(), ids=REJECTED)
    def test_with_a_reason_of_one_line(
        self, decoded: Decode, content: Callable[[], bytes], reason: str, name: str
    ) -> None:
        with pytest.raises(RejectedImage, match=reason) as caught:
            decoded(content(), name)
        assert str(caught.value).isprintable()
        assert name not in str(caught.value)

    def test_the_largest_image_is_not_refused_for_its_size(self, decoded: Decode) -> None:
        with pytest.raises(RejectedImage) as caught:
            decoded(png(16_000, 16_000, 1, GREY, b""))
        assert "allowed" not in str(caught.value)

    @pytest.mark.parametrize(("width", "height"), [(1, 1), (23, 40), (40, 23)])
    def test_a_side_below_the_least(self, decoded: Decode, width: int, height: int) -> None:
        content = encoded(Image.new("RGB", (width, height)), "png")
        with pytest.raises(
            RejectedImage, match=f"{width}x{height} pixels, each side must have at least 24"
        ):
            decoded(content, min_side=24)

    @pytest.mark.parametrize("format_", FORMATS)
    def test_a_file_cut_anywhere_or_flagged_with_all_its_pixels(
        self, decoded: Decode, format_: str
    ) -> None:
        content = encoded(noise(), format_, **FORMATS[format_])
        whole, _ = decoded(content)
        for length in [*range(0, len(content), 29), *range(len(content) - 20, len(content))]:
            try:
                pixels, flag = decoded(content[:length])
            except RejectedImage:
                continue
            assert flag, f"{length} of {len(content)} bytes"
            np.testing.assert_array_equal(pixels, whole)

    @pytest.mark.parametrize("kind", ["noise", "gradient"])
    def test_a_png_with_a_flipped_byte_never_shows_other_pixels(
        self, decoded: Decode, kind: str
    ) -> None:
        image = noise() if kind == "noise" else Image.linear_gradient("L").convert("RGB")
        content = encoded(image, "png")
        changed = []
        for position in range(0, len(content), len(content) // 300):
            damaged = bytearray(content)
            damaged[position] ^= 0xFF
            try:
                pixels, flag = decoded(damaged)
            except RejectedImage:
                continue
            if not flag and not np.array_equal(pixels, np.asarray(image)):
                changed.append(position)
        assert changed == []

    def test_metadata_of_a_png_is_no_reason(self, decoded: Decode) -> None:
        info = PngInfo()
        info.add_text("Comment", "harmless " * 100, zip=True)
        pixels, _ = decoded(encoded(noise(), "png", pnginfo=info))
        np.testing.assert_array_equal(pixels, noise())

    def test_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing.png", tmp_path):
            with pytest.raises(OSError, match=path.name):
                decode(path, 1)


class TestSquare:
    @pytest.mark.parametrize("filter_", ResizeFilter)
    @pytest.mark.parametrize(("width", "height"), [(40, 40), (61, 40), (40, 61), (40, 43)])
    @pytest.mark.parametrize("size", [16, 39])
    def test_is_pillows_crop_and_resize(
        self, filter_: ResizeFilter, width: int, height: int, size: int
    ) -> None:
        image = Image.fromarray(_pixels(height, width, 3))
        left, top = (width - 40) // 2, (height - 40) // 2
        square = image.crop((left, top, left + 40, top + 40))
        expected = square.resize((size, size), getattr(Image.Resampling, filter_.name.upper()))
        result = to_square(image, size, filter_)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("filter_", ResizeFilter)
    @pytest.mark.parametrize(("width", "height"), [(16, 16), (21, 16), (16, 33)])
    def test_of_the_right_size_no_pixel_changes(
        self, filter_: ResizeFilter, width: int, height: int
    ) -> None:
        pixels = _pixels(height, width, 3)
        left, top = (width - 16) // 2, (height - 16) // 2
        expected = pixels[top : top + 16, left : left + 16]
        result = to_square(Image.fromarray(pixels), 16, filter_)
        np.testing.assert_array_equal(result, expected)

    def test_is_antialiased(self) -> None:
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        for filter_ in ResizeFilter:
            assert np.abs(to_square(Image.fromarray(stripes), 16, filter_) - 127.5).max() < 12

    @pytest.mark.parametrize("filter_", ResizeFilter)
    def test_a_crop_is_native_pixels_from_the_centre(self, filter_: ResizeFilter) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
        # Of 21 rows 5 above and 6 below, of 30 columns 10 at either side.
        result = to_square(Image.fromarray(pixels), 10, filter_, View.crop)
        np.testing.assert_array_equal(result, pixels[5:15, 10:20])
        largest = to_square(Image.fromarray(pixels), 21, filter_, View.crop)
        np.testing.assert_array_equal(largest, pixels[:, 4:25])


class TestMatched:
    def test_without_it_no_pixel_changes(self) -> None:
        pixels = _pixels(16, 16, 3)
        assert matched(pixels, Match.none, ResizeFilter.lanczos) is pixels

    def test_jpeg_is_what_libjpeg_makes_of_quality_75(self, tmp_path: Path) -> None:
        pixels = photos(1)[0]
        Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=75, subsampling=2)
        with Image.open(tmp_path / "a.jpg") as image:
            # The luminance table of the standard, halved: it begins with 16, 11, 10.
            assert isinstance(image, JpegImageFile)
            assert image.quantization[0][:3] == [8, 6, 5]
            expected = np.asarray(image)
        got = matched(pixels, Match.jpeg, ResizeFilter.lanczos)
        np.testing.assert_array_equal(got, expected)

    @pytest.mark.parametrize("filter_", ResizeFilter)
    def test_resample_leaves_nothing_of_the_upper_octave(self, filter_: ResizeFilter) -> None:
        size = 64
        at = np.arange(size)

        def wave(cycles: float) -> Pixels:
            grey = 128 + 100 * np.sin(2 * np.pi * cycles * at / size)
            return np.broadcast_to(grey.round().astype(np.uint8)[:, None, None], (size, size, 3))

        def contrast(cycles: float) -> float:
            got = matched(wave(cycles), Match.resample, filter_)
            assert got.shape == (size, size, 3)
            assert got.dtype == np.uint8
            # Away from the border, where there is less to take a mean of.
            return float(got[8:-8].std() / wave(cycles)[8:-8].std())

        assert contrast(2) > 0.9
        assert contrast(size * 0.45) < 0.2

    @pytest.mark.parametrize("size", [1, 2, 15])
    def test_of_any_size(self, size: int) -> None:
        for match in Match:
            assert matched(_pixels(size, size, 3), match, ResizeFilter.box).shape == (size, size, 3)

    def test_a_source_larger_before_cannot_be_told_after_resampling(self) -> None:
        """The energy near the highest frequency tells a 200 px source, until both are matched."""

        def high(images: Pixels, match: Match) -> NDArray[np.floating[Any]]:
            found = []
            for image in images:
                row = to_square(Image.fromarray(image), 64, ResizeFilter.lanczos)
                grey = matched(row, match, ResizeFilter.lanczos).mean(axis=2)
                found.append(np.log(np.abs(np.fft.rfft(grey, axis=1))[:, 28:].mean()))
            return np.array(found)

        small, large = photos(40, 64, 1), photos(40, 128, 2)
        apart = {
            match: roc_auc_score(
                np.repeat([0, 1], 40), np.concatenate([high(small, match), high(large, match)])
            )
            for match in (Match.none, Match.resample)
        }
        assert abs(apart[Match.none] - 0.5) > 0.45
        assert abs(apart[Match.resample] - 0.5) < abs(apart[Match.none] - 0.5)
