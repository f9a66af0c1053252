"""Kinds of files by their first bytes: the formats that are read, and what else is found beside."""

import re
from typing import NamedTuple

START_BYTES = 512
"""First bytes of a file that decide its kind."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_READ = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": re.escape(PNG_SIGNATURE),
    "WEBP": rb"RIFF....WEBP",
}


class Kind(NamedTuple):
    """A kind of file that is not read.

    Attributes:
        name: for counts of such files.
        file: one such file, and what to do about it.
    """

    name: str
    file: str


_TO_PNG = "convert it to PNG or JPEG"
_OTHERS = {
    rb"....ftyp(hei|hev|mif|msf)": Kind("HEIC", f"a HEIC file, {_TO_PNG}"),
    rb"....ftypavi": Kind("AVIF", f"an AVIF file, {_TO_PNG}"),
    rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3": Kind("video", "a video"),
    rb"GIF8": Kind("GIF", f"a GIF file, {_TO_PNG}"),
    rb"II\*\0|MM\0\*": Kind("TIFF", f"a TIFF file, {_TO_PNG}"),
    rb"BM": Kind("BMP", f"a BMP file, {_TO_PNG}"),
    rb"8BPS": Kind("PSD", f"a Photoshop file, {_TO_PNG}"),
    rb"\xff\x0a|\0\0\0\x0cJXL ": Kind("JPEG XL", f"a JPEG XL file, {_TO_PNG}"),
    rb"\0\0\0\x0cjP  ": Kind("JPEG 2000", f"a JPEG 2000 file, {_TO_PNG}"),
    rb"%!PS": Kind("EPS", f"an EPS file, {_TO_PNG}"),
    rb"%PDF-": Kind("PDF", "a PDF file, extract its images"),
    rb"PK\x03\x04": Kind("archive", "a zip archive, unpack it"),
    rb"Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|.{257}ustar": Kind("archive", "an archive, unpack it"),
    rb"PAR1": Kind("parquet file", "a parquet file, give it to forensics prepare"),
    rb"version https://git-lfs": Kind("Git LFS pointer", "a git-LFS pointer, run git lfs pull"),
    rb"(\xef\xbb\xbf)?\s*<(?i:!doctype html|html|head|body)": Kind(
        "HTML page", "an HTML page, download the image itself"
    ),
    rb"(\xef\xbb\xbf)?\s*<(?i:svg|\?xml)": Kind(
        "SVG or XML file", f"an SVG or XML file, {_TO_PNG}"
    ),
    rb"\Z": Kind("empty file", "an empty file"),
}
"""The first one that fits."""


def read_format(start: bytes) -> str | None:
    """The format that a file is read as: JPEG, PNG or WEBP; None for other files.

    Args:
        start: its first `START_BYTES` bytes, or all if it has fewer.
    """
    return next((name for name, mark in _READ.items() if re.match(mark, start, re.DOTALL)), None)


def other_kind(start: bytes) -> Kind | None:
    """The kind of a file that is not read; None for an unknown one.

    Args:
        start: its first `START_BYTES` bytes, or all if it has fewer.
    """
    return next((kind for mark, kind in _OTHERS.items() if re.match(mark, start, re.DOTALL)), None)
