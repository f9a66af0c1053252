"""Kinds of files by their first bytes, of files that others' encoders and archivers write."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import photos
from PIL import Image

from forensics.images.kinds import START_BYTES, other_kind, read_format


def encoded(format_: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photos(1, 32)[0]).save(file, format_)
    return file.getvalue()


def _media(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + bytes(500)


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return file.getvalue()


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), file)
    return file.getvalue()


OTHERS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "heic": (lambda: _media(b"heic"), "HEIC", "HEIC"),
    "heif": (lambda: _media(b"mif1"), "HEIC", "HEIC"),
    "avif": (lambda: encoded("avif"), "AVIF", "AVIF"),
    "mp4": (lambda: _media(b"isom"), "video", "video"),
    "quicktime": (lambda: _media(b"qt  "), "video", "video"),
    "matroska": (lambda: b"\x1a\x45\xdf\xa3" + bytes(99), "video", "video"),
    "avi": (lambda: b"RIFF\0\0\0\0AVI LIST", "video", "video"),
    "tiff": (lambda: encoded("tiff"), "TIFF", "TIFF"),
    "bmp": (lambda: encoded("bmp"), "BMP", "BMP"),
    "gif": (lambda: encoded("gif"), "GIF", "GIF"),
    "photoshop": (lambda: b"8BPS\0\1" + bytes(99), "PSD", "Photoshop"),
    "jpeg xl": (lambda: b"\xff\x0a" + bytes(99), "JPEG XL", "JPEG XL"),
    "jpeg xl in boxes": (lambda: b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "JPEG XL"),
    "jpeg 2000": (lambda: encoded("jpeg2000"), "JPEG 2000", "JPEG 2000"),
    "eps": (lambda: encoded("eps"), "EPS", "EPS"),
    "pdf": (lambda: encoded("pdf"), "PDF", "PDF"),
    "zip": (_zip, "archive", "a zip archive"),
    "tar": (_tar, "archive", "an archive"),
    "tar.gz": (lambda: gzip.compress(_tar()), "archive", "an archive"),
    "tar.bz2": (lambda: bz2.compress(_tar()), "archive", "an archive"),
    "tar.xz": (lambda: lzma.compress(_tar()), "archive", "an archive"),
    "rar": (lambda: b"Rar!\x1a\7\1\0", "archive", "an archive"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c", "archive", "an archive"),
    "parquet": (_parquet, "parquet file", "parquet"),
    "pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "Git LFS pointer",
        "git-LFS",
    ),
    "html": (
        lambda: b"\xef\xbb\xbf\n <!DOCTYPE html><html>404</html>", "HTML page", "HTML"),
    "html without type": (lambda: b"<HTML><head>", "HTML page", "HTML"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG or XML file", "SVG"),
    "xml": (lambda: b'<?xml version="1.0"?><annotation/>', "SVG or XML file", "XML"),
    "empty": (lambda: b"", "empty file", "empty"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "name", "file"), OTHERS.values(), ids=OTHERS)
def test_another_kind_has_a_name_and_a_text(
    content: Callable[[], bytes], name: str, file: str
) -> None:
    start = content()[:START_BYTES]
    kind = other_kind(start)
    assert kind is not None
    assert kind.name == name
    assert file in kind.file
    assert read_format(start) is None


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_formats_that_are_read_are_recognised(format_: str) -> None:
    start = encoded(format_)[:START_BYTES]
    assert read_format(start) == format_
    assert other_kind(start) is None


@pytest.mark.parametrize("content", [b"text", b" ", b"RIFF\0\0\0\0WAVE", b"a <html>", b"xGIF8"])
def test_unknown_content_has_no_kind(content: bytes) -> None:
    assert read_format(content) is None
    assert other_kind(content) is None
