"""What decides the pixels of a file, and what does not: metadata of any size, kind and damage."""

from __future__ import annotations

import io
import re
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import photos
from numpy.typing import NDArray
from PIL import Image

from forensics.images.containers import DAMAGED, MAX_SCANNED_PIXELS, RejectedImage, read_orientation
from forensics.images.decode import decode
from forensics.images.metadata import read_metadata

PIXELS = photos(1, 64)[0][:, :48]
END = b"\xff\xd9"


def encoded(format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format_, **options)
    return file.getvalue()


def by_pillow(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def jpeg_segment(code: int, content: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def exif(order: str, *entries: tuple[int, int, int, bytes]) -> bytes:
    """Exif data with these entries: tag, type, count and the four bytes of value or offset."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    written = [struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries]
    return b"".join([head, *written, bytes(4)])


def with_metadata(format_: str, exif_: bytes = b"", *others: bytes) -> bytes:
    """A file with Exif data and other chunks or segments before its pixels."""
    content = encoded(format_, **({"lossless": True} if format_ == "webp" else {}))
    if format_ == "jpeg":
        of_exif = jpeg_segment(0xE1, b"Exif\0\0" + exif_) if exif_ else b""
        return b"".join([content[:2], of_exif, *others, content[2:]])
    if format_ == "png":
        of_exif = png_chunk(b"eXIf", exif_) if exif_ else b""
        return b"".join([content[:33], of_exif, *others, content[33:]])
    features = bytes([0x2C, 0, 0, 0]) + (47).to_bytes(3, "little") + (63).to_bytes(3, "little")
    body = b"".join(
        [b"WEBP", riff_chunk(b"VP8X", features), *others, content[12:], riff_chunk(b"EXIF", exif_)]
    )
    return riff_chunk(b"RIFF", body)


OTHER = [0x0100, 0x0103, 0x010F, 0x011A, 0x0132, 0x013E, 0x0211, 0x8298, 0x8769, 0x8825, 0xC4A5]


class TestOrientation:
    @pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
    @pytest.mark.parametrize("tag", OTHER)
    @pytest.mark.parametrize("kind", [0, 2, 3, 5, 7, 10, 99])
    def test_is_applied_beside_entries_of_wrong_kind_and_range(
        self, tmp_path: Path, format_: str, tag: int, kind: int
    ) -> None:
        turned = (0x0112, 3, 1, struct.pack(">HH", 6, 0))
        odd = (tag, kind, 2**32 - 1, b"\xff\xff\xff\xfe")
        path = tmp_path / "image"
        path.write_bytes(with_metadata(format_, exif(">", *sorted([odd, turned]))))
        decoded = decode(path, 1)
        upright = by_pillow(encoded(format_, **({"lossless": True} if format_ == "webp" else {})))
        np.testing.assert_array_equal(np.asarray(decoded.pixels), np.rot90(upright, -1))
        assert decoded.flag == ""
        metadata = read_metadata(path)
        assert (metadata.orientation, metadata.exif) == (6, True)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(("kind", "code"), [(1, "B3x"), (3, "H2x"), (4, "I")])
    def test_of_each_integer_type(self, order: str, kind: int, code: str) -> None:
        for value in (1, 3, 8):
            content = exif(order, (0x0112, kind, 1, struct.pack(order + code, value)))
            assert read_orientation(content) == (value, 1, True)
            assert read_orientation(b"Exif\0\0" + content) == (value, 1, True)

    @pytest.mark.parametrize("value", [0, 9, 65_535])
    def test_out_of_range_is_upright(self, value: int) -> None:
        content = exif("<", (0x0112, 3, 1, struct.pack("<H2x", value)))
        assert read_orientation(content) == (1, 1, True)

    def test_the_same_as_pillows_on_what_pillow_writes(self) -> None:
        for value in range(1, 9):
            written = Image.Exif()
            written[0x0112] = value
            written[0x010F] = "maker"
            assert read_orientation(written.tobytes()) == (value, 2, True)

    @pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
    @pytest.mark.parametrize(
        "content",
        [b"x", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"Exif" * 9],
    )
    def test_unreadable_exif_is_flagged(self, tmp_path: Path, format_: str, content: bytes) -> None:
        (tmp_path / "a").write_bytes(with_metadata(format_, content))
        assert decode(tmp_path / "a", 1).flag == "unreadable Exif"
        assert read_metadata(tmp_path / "a").orientation == 1


def _bomb(size: int) -> bytes:
    """Zeros, compressed: blocks that do not refer to one another can be repeated."""
    packer = zlib.compressobj()
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * ((size >> 20) - 1) + packer.flush()


class TestMetadata:
    @pytest.mark.parametrize("place", [33, -12])
    @pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "tEXt"])
    def test_large_chunks_of_a_png_are_no_reason_and_take_no_memory(
        self, tmp_path: Path, kind: str, place: int
    ) -> None:
        packed = _bomb(1 << 30) if kind != "tEXt" else bytes(32 << 20)
        before = {
            "zTXt": b"Comment\0\0", "iTXt": b"Comment\0\1\0\0\0", "iCCP": b"p\0\0", "tEXt": b"c\0"
        }[kind]  # fmt: skip
        content = encoded("png")
        text = png_chunk(kind.encode(), before + packed)
        (tmp_path / "a.png").write_bytes(content[:place] + text + content[place:])
        tracemalloc.start()
        decoded = decode(tmp_path / "a.png", 1)
        assert read_metadata(tmp_path / "a.png").format == "PNG"
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert decoded.flag == ""
        np.testing.assert_array_equal(np.asarray(decoded.pixels), PIXELS)
        assert peak < 4 << 20

    @pytest.mark.parametrize("code", [*range(0xE1, 0xEE), 0xEF, 0xFE])
    @pytest.mark.parametrize(
        "start", [b"", b"ICC_PROFILE\0\1\1", b"MPF\0", b"Exif\0\0", b"Photoshop 3.0\x008BIM"]
    )
    def test_segments_of_a_jpeg_are_no_reason(
        self, tmp_path: Path, code: int, start: bytes
    ) -> None:
        noise = np.random.default_rng(code).bytes(65_000)
        segments = [jpeg_segment(code, start + noise)] * 3
        (tmp_path / "a.jpg").write_bytes(with_metadata("jpeg", b"", *segments))
        decoded = decode(tmp_path / "a.jpg", 1)
        np.testing.assert_array_equal(np.asarray(decoded.pixels), by_pillow(encoded("jpeg")))
        assert not decoded.flag.startswith(DAMAGED)
        assert read_metadata(tmp_path / "a.jpg").jpeg_quality == 75

    def test_damaged_metadata_of_a_png_is_flagged(self, tmp_path: Path) -> None:
        content = bytearray(with_metadata("png", b"", png_chunk(b"tEXt", b"Comment\0text")))
        content[50] ^= 1
        (tmp_path / "a.png").write_bytes(content)
        decoded = decode(tmp_path / "a.png", 1)
        assert decoded.flag == "damaged metadata"
        np.testing.assert_array_equal(np.asarray(decoded.pixels), PIXELS)

    @pytest.mark.parametrize(
        ("kinds", "accepted"),
        [
            ("IHDR PLTE tRNS IDAT IDAT IEND", True),
            ("PLTE IHDR tRNS IDAT IDAT IEND", False),
            ("IHDR tRNS PLTE IDAT IDAT IEND", False),
            ("IHDR PLTE tRNS tRNS IDAT IDAT IEND", False),
            ("IHDR PLTE PLTE tRNS IDAT IDAT IEND", False),
            ("IHDR PLTE IDAT tRNS IDAT IEND", False),
            ("IHDR IHDR PLTE tRNS IDAT IDAT IEND", False),
        ],
    )
    def test_chunks_of_pixels_out_of_order_are_damage(
        self, tmp_path: Path, kinds: str, accepted: bool
    ) -> None:
        packed = zlib.compress(b"\0\0\1" * 2)
        written = {
            "IHDR": struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0),
            "PLTE": bytes([0, 0, 0, 200, 200, 200]),
            "tRNS": bytes([255, 255]),
            "IEND": b"",
        }
        halves = [packed[:5], packed[5:]]
        content = b"\x89PNG\r\n\x1a\n"
        for kind in kinds.split():
            of_kind = halves.pop(0) if kind == "IDAT" else written[kind]
            content += png_chunk(kind.encode(), of_kind)
        (tmp_path / "a.png").write_bytes(content)
        if accepted:
            levels = np.asarray(decode(tmp_path / "a.png", 1).pixels)[..., 0]
            assert levels.tolist() == [[0, 200], [0, 200]]
        else:
            with pytest.raises(RejectedImage, match="out of order"):
                decode(tmp_path / "a.png", 1)

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (encoded("webp", lossless=True)[12:], "more than one image"),
            (riff_chunk(b"VP8X", bytes(10)), "VP8X twice"),
        ],
        ids=["image", "header"],
    )
    def test_a_webp_with_a_part_twice_is_damaged(
        self, tmp_path: Path, more: bytes, said: str
    ) -> None:
        content = with_metadata("webp", exif("<"))
        (tmp_path / "a.webp").write_bytes(riff_chunk(b"RIFF", content[8:] + more))
        with pytest.raises(RejectedImage, match=said):
            decode(tmp_path / "a.webp", 1)

    def test_a_large_header_of_few_bytes_takes_no_memory(self, tmp_path: Path) -> None:
        header = struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(999))), (b"IEND", b"")]
        content = b"".join([b"\x89PNG\r\n\x1a\n", *(png_chunk(*each) for each in chunks)])
        (tmp_path / "a.png").write_bytes(content)
        started = time.perf_counter()
        with pytest.raises(RejectedImage, match="fewer bytes"):
            decode(tmp_path / "a.png", 1)
        assert time.perf_counter() - started < 1

    @pytest.mark.parametrize("header", [b"", riff_chunk(b"VP8X", b"\0\0\0\0\x2f\0\0\x3f\0\0")])
    def test_exif_of_a_webp_that_its_header_does_not_tell_of_does_not_count(
        self, tmp_path: Path, header: bytes
    ) -> None:
        content = encoded("webp", lossless=True)
        turned = riff_chunk(b"EXIF", exif("<", (0x0112, 3, 1, struct.pack("<H2x", 6))))
        body = b"WEBP" + header + content[12:] + turned
        (tmp_path / "a.webp").write_bytes(riff_chunk(b"RIFF", body))
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.webp", 1).pixels), PIXELS)

    def test_a_webp_cut_in_its_metadata_has_its_pixels_and_a_flag(self, tmp_path: Path) -> None:
        content = with_metadata("webp", exif("<"), riff_chunk(b"ICCP", bytes(999)))
        (tmp_path / "a.webp").write_bytes(content[:-4])
        decoded = decode(tmp_path / "a.webp", 1)
        assert decoded.flag == "no end mark"
        np.testing.assert_array_equal(np.asarray(decoded.pixels), PIXELS)


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {"quality": 90},
    "progressive": {"quality": 90, "progressive": True},
    "restarts": {"quality": 90, "restart_marker_blocks": 4},
}


class TestJpeg:
    @pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
    @pytest.mark.parametrize("subsampling", [0, 1, 2])
    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    def test_pixels_are_pillows(
        self, tmp_path: Path, options: dict[str, Any], subsampling: int, mode: str
    ) -> None:
        path = tmp_path / "a.jpg"
        Image.fromarray(PIXELS).convert(mode).save(path, subsampling=subsampling, **options)
        decoded = decode(path, 1)
        np.testing.assert_array_equal(np.asarray(decoded.pixels), by_pillow(path.read_bytes()))
        assert decoded.flag == ""

    def test_without_colour_transform(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(encoded("jpeg", quality=95, keep_rgb=True))
        pixels = np.asarray(decode(tmp_path / "a.jpg", 1).pixels)
        np.testing.assert_array_equal(pixels, by_pillow((tmp_path / "a.jpg").read_bytes()))
        assert np.abs(pixels.astype(int) - PIXELS).mean() < 5

    @pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
    @pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
    @pytest.mark.parametrize("end", [b"", END, bytes(40) + END, b"\xff" * 9 + END])
    def test_cut_in_its_data_is_rejected_or_flagged_as_damaged(
        self, tmp_path: Path, options: dict[str, Any], share: float, end: bytes
    ) -> None:
        content = encoded("jpeg", **options)
        (tmp_path / "a.jpg").write_bytes(content[: int(share * len(content))] + end)
        assert _damage(tmp_path / "a.jpg")

    @pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
    @pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
    def test_zeroed_from_some_place_on_is_rejected_or_flagged_as_damaged(
        self, tmp_path: Path, options: dict[str, Any], share: float
    ) -> None:
        content = encoded("jpeg", **options)
        start = int(share * len(content))
        (tmp_path / "a.jpg").write_bytes(content[:start] + bytes(len(content) - start - 2) + END)
        assert _damage(tmp_path / "a.jpg")

    @pytest.mark.parametrize("grey", [False, True])
    def test_cut_between_scans_is_flagged_as_damaged(self, tmp_path: Path, grey: bool) -> None:
        """A valid file, of which no decoder warns, with fewer coefficients or bits of them."""
        file = io.BytesIO()
        image = Image.fromarray(PIXELS)
        (image.convert("L") if grey else image).save(file, "jpeg", progressive=True)
        content = file.getvalue()
        starts = [match.start() for match in re.finditer(b"\xff\xda", content)]
        assert len(starts) == (6 if grey else 10)
        for start in starts[1:]:
            (tmp_path / "a.jpg").write_bytes(content[:start] + END)
            assert decode(tmp_path / "a.jpg", 1).flag == f"{DAMAGED}scans are missing"
        (tmp_path / "a.jpg").write_bytes(content)
        assert decode(tmp_path / "a.jpg", 1).flag == ""

    def test_a_component_without_a_scan_is_flagged_as_damaged(self, tmp_path: Path) -> None:
        """In a scan of its own, the luminance of a sequential JPEG may be all that there is."""
        image = Image.fromarray(PIXELS).convert("L")
        file = io.BytesIO()
        image.save(file, "jpeg")
        content = bytearray(file.getvalue())
        frame = content.index(b"\xff\xc0")
        length, components = content[frame + 3], content[frame + 9]
        assert (length, components) == (11, 1)
        content[frame + 3], content[frame + 9] = 17, 3
        content[frame + 13 : frame + 13] = bytes([2, 0x11, 0, 3, 0x11, 0])
        (tmp_path / "a.jpg").write_bytes(content)
        assert "scans are missing" in _damage(tmp_path / "a.jpg")

    def test_zeros_are_what_optimised_tables_say_of_flat_images(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        Image.new("RGB", (512, 512), "white").save(path, optimize=True)
        assert bytes(99) in path.read_bytes()
        assert decode(path, 1).flag == ""

    @pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
    @pytest.mark.parametrize("missing", [1, 2])
    def test_only_its_end_mark_missing_is_flagged(
        self, tmp_path: Path, options: dict[str, Any], missing: int
    ) -> None:
        content = encoded("jpeg", **options)
        (tmp_path / "a.jpg").write_bytes(content[:-missing])
        decoded = decode(tmp_path / "a.jpg", 1)
        assert decoded.flag == "no end mark"
        np.testing.assert_array_equal(np.asarray(decoded.pixels), by_pillow(content))

    def test_bytes_between_segments_are_flagged_and_change_no_pixel(self, tmp_path: Path) -> None:
        content = encoded("jpeg")
        first = content.index(b"\xff\xdb")
        (tmp_path / "a.jpg").write_bytes(content[:first] + b"\x11" * 11 + content[first:])
        decoded = decode(tmp_path / "a.jpg", 1)
        assert decoded.flag.startswith(DAMAGED)
        assert "11 extraneous bytes" in decoded.flag
        np.testing.assert_array_equal(np.asarray(decoded.pixels), by_pillow(content))

    def test_what_follows_the_end_is_not_ours_to_judge(self, tmp_path: Path) -> None:
        content = encoded("jpeg")
        video = np.random.default_rng(0).bytes(1 << 22)  # of a motion photo
        (tmp_path / "a.jpg").write_bytes(content + video)
        decoded = decode(tmp_path / "a.jpg", 1)
        assert decoded.flag == ""
        np.testing.assert_array_equal(np.asarray(decoded.pixels), by_pillow(content))

    def test_endless_scans_are_rejected_at_once(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        Image.new("RGB", (2000, 2000)).save(file, "jpeg", progressive=True)
        content = file.getvalue()
        last = content.rindex(b"\xff\xda")
        scans = content[last:-2] * (MAX_SCANNED_PIXELS // 2000**2)
        (tmp_path / "a.jpg").write_bytes(content[:-2] + scans + END)
        with pytest.raises(RejectedImage, match=str(MAX_SCANNED_PIXELS)):
            decode(tmp_path / "a.jpg", 1)


def _damage(path: Path) -> str:
    """The reason of rejection or the flag of damage; "" for a file taken as complete."""
    try:
        flag = decode(path, 1).flag
    except RejectedImage as error:
        return str(error)
    return flag if flag.startswith(DAMAGED) else ""


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>404")
    with pytest.raises(RejectedImage, match=r"neither JPEG, PNG nor WebP.*: an HTML page, "):
        decode(tmp_path / "a.jpg", 1)
    (tmp_path / "a.jpg").write_bytes(b"404")
    with pytest.raises(RejectedImage, match=r"neither JPEG, PNG nor WebP[^:]*$"):
        decode(tmp_path / "a.jpg", 1)
