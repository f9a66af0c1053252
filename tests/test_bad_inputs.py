"""What people have in their folders, and what attackers put there: the same for cache and prepare.

Each row makes its own file. Whatever it is, the work resumes the others, nothing hangs, and
the file is listed with a reason.
"""

from __future__ import annotations

import base64
import gzip
import io
import os
import pickle
import resource
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_images import (
    END,
    GREY,
    OVER_CAP,
    REJECTED,
    RGB,
    chunk,
    encoded,
    frames,
    half,
    noise,
    png,
)

from forensics.data.ingest import items
from forensics.data.ingest.prepare import prepare
from forensics.data.opening import open_source
from forensics.data.sources import Preparation
from forensics.errors import UserError
from forensics.images.containers import RejectedImage
from forensics.images.decode import decode
from forensics.images.geometry import ResizeFilter

SIDE = 16
Make = Callable[[], bytes]

NO_IMAGE = "neither JPEG, PNG nor WebP"
PALETTE = 3
WHOLE_PNG, WHOLE_JPEG = encoded(noise(), "png"), encoded(noise(), "jpeg")
WHOLE_WEBP = encoded(noise(), "webp", lossless=True)


def _flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 0xFF
    return bytes(changed)


def _jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header tells another size."""
    start = WHOLE_JPEG.index(b"\xff\xc0") + 5
    return WHOLE_JPEG[:start] + struct.pack(">HH", height, width) + WHOLE_JPEG[start + 4 :]


def _webp_of(width: int, height: int) -> bytes:
    """The header of a lossless WebP."""
    header = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(10)
    body = b"WEBPVP8L" + struct.pack("<I", len(header)) + header
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _with_exif(exif: bytes) -> bytes:
    return encoded(noise(), "jpeg", exif=b"Exif\0\0" + exif)


def _loop() -> bytes:
    """EXIF whose folder of entries has itself for its next."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)


def _packed(kind: bytes, before: bytes, size: int = 100_000_000) -> bytes:
    """A PNG with a compressed chunk that is long when unpacked."""
    packed = chunk(kind, before + zlib.compress(bytes(size), 1))
    return WHOLE_PNG[:33] + packed + WHOLE_PNG[33:]


def _many_scans() -> bytes:
    """A progressive JPEG that repeats its last scan a thousand times."""
    whole = encoded(noise(), "jpeg", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * 1000 + b"\xff\xd9"


MORE_REJECTED: dict[str, tuple[Make, str]] = {
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(500), NO_IMAGE),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', NO_IMAGE),
    "zip": (lambda: b"PK\x03\x04" + bytes(200), NO_IMAGE),
    "gzipped jpeg": (lambda: gzip.compress(WHOLE_JPEG), NO_IMAGE),
    "jpeg in base64": (lambda: base64.b64encode(WHOLE_JPEG), NO_IMAGE),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(200), NO_IMAGE),
    "avif": (lambda: b"\0\0\0\x18ftypavif" + bytes(200), NO_IMAGE),
    "jpeg xl": (lambda: b"\xff\x0a" + bytes(200), NO_IMAGE),
    "jpeg 2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), NO_IMAGE),
    "psd": (lambda: b"8BPS\0\1" + bytes(200), NO_IMAGE),
    "ico": (lambda: encoded(noise(), "ico"), NO_IMAGE),
    "ppm": (lambda: encoded(noise(), "ppm"), NO_IMAGE),
    "tiff of two pages": (
        lambda: encoded(noise(), "tiff", save_all=True, append_images=frames()),
        NO_IMAGE,
    ),
    "program": (lambda: b"\x7fELF\2\1\1" + bytes(200), NO_IMAGE),
    "pickle": (lambda: pickle.dumps({"image": [1, 2, 3]}), NO_IMAGE),
    "nothing but zeros": (lambda: bytes(5000), NO_IMAGE),
    "text in utf-16": (lambda: "no image".encode("utf-16"), NO_IMAGE),
    "jpeg behind other bytes": (lambda: b"junk" + WHOLE_JPEG, NO_IMAGE),
    "start of a jpeg": (lambda: b"\xff\xd8\xff", "."),
    "start of a png": (lambda: b"\x89PNG\r\n\x1a\n", "."),
    "start of a webp": (lambda: b"RIFF\0\0\0\0WEBP", "."),
    "jpeg without pixels": (lambda: WHOLE_JPEG[: WHOLE_JPEG.index(b"\xff\xda")], "."),
    "jpeg of 4 gigapixels": (lambda: _jpeg_of(65_500, 65_500), "^65500x65500" + OVER_CAP),
    "jpeg of no height": (lambda: _jpeg_of(32, 0), "."),
    "webp of 268 megapixels": (lambda: _webp_of(16_384, 16_384), "."),
    "webp without its last two bytes": (lambda: WHOLE_WEBP[:-2], "truncated"),
    "png of no width": (lambda: png(0, 16, 8, GREY, b""), "."),
    "png of 3 bits": (lambda: png(16, 16, 3, GREY, bytes(256)), "."),
    "png with a wrong header checksum": (lambda: _flipped(WHOLE_PNG, 30), "."),
    "png with a flipped pixel byte": (
        lambda: _flipped(WHOLE_PNG, WHOLE_PNG.index(b"IDAT") + 40),
        ".",
    ),
    "png with a flipped checksum": (lambda: _flipped(WHOLE_PNG, -len(END) - 1), "."),
    "png with a chunk of two gigabytes": (
        lambda: WHOLE_PNG[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(100),
        ".",
    ),
    "png with too few rows": (lambda: png(32, 32, 8, GREY, bytes(32)), "."),
    "png with pixels that are not packed": (
        lambda: WHOLE_PNG[:33] + chunk(b"IDAT", bytes(500)) + END,
        ".",
    ),
    "png without pixels": (lambda: WHOLE_PNG[:33] + END, "."),
    "png with an image in its comment, no own": (
        lambda: WHOLE_PNG[:33] + chunk(b"tEXt", b"image\0" + WHOLE_PNG) + END,
        ".",
    ),
    "smaller than the least": (lambda: encoded(Image.new("RGB", (15, 99)), "png"), "15x99 pixels"),
    "one pixel": (lambda: encoded(Image.new("RGB", (1, 1)), "jpeg"), "1x1 pixels"),
}

ACCEPTED: dict[str, Make] = {
    "jpeg with bytes behind its end": lambda: WHOLE_JPEG + b"junk" * 100,
    "jpeg in an html page's name": lambda: WHOLE_JPEG,
    "jpeg with exif that is noise": lambda: _with_exif(os.urandom(100)),
    "jpeg with exif in a loop": lambda: _with_exif(_loop()),
    "jpeg of a thousand scans": _many_scans,
    "png with a bomb of pixels": lambda: _png_with_too_many_rows(),
    "png with a bomb of a colour profile": lambda: _packed(b"iCCP", b"a\0\0"),
    "png with a bomb of a comment in utf-8": lambda: _packed(b"iTXt", b"a\0\1\0\0\0"),
    "webp without its last byte, which fills up": lambda: WHOLE_WEBP[:-1],
    "png with a harmless comment": lambda: encoded(noise(), "png", pnginfo=_comment()),
    "png without its end": lambda: WHOLE_PNG.removesuffix(END),
    "png of 16 bits": lambda: encoded(Image.fromarray(np.zeros((16, 16), np.uint16)), "png"),
    "cmyk": lambda: encoded(noise().convert("CMYK"), "jpeg"),
    "palette": lambda: encoded(noise().convert("P"), "png", transparency=0),
    "two images of a phone": lambda: encoded(noise(), "mpo", save_all=True, append_images=frames()),
}


def _png_with_too_many_rows() -> bytes:
    """Pixels that unpack to 100 MB, of an image of 16x16."""
    return (
        WHOLE_PNG[:16]
        + png(16, 16, 8, RGB, bytes(768))[16:33]
        + (chunk(b"IDAT", zlib.compress(bytes(100_000_000), 1)) + END)
    )


def _comment() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "harmless " * 100, zip=True)
    return info


def test_there_are_forty_and_more() -> None:
    assert len({**REJECTED, **MORE_REJECTED, **ACCEPTED}) >= 60


@pytest.fixture(params=["cache", "prepare"])
def used(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], dict[str, str]]:
    """Use a folder; gives what became of each file: a reason, or nothing if it was accepted."""

    def cache(folder: Path) -> dict[str, str]:
        preparation = Preparation(SIDE, ResizeFilter.lanczos, SIDE, 1.0)
        source = open_source("faces", folder, preparation, tmp_path / "cache")
        assert len(source.rows) == len(source.paths)
        return dict.fromkeys(source.paths, "") | dict(source.rejected)

    def prepared(folder: Path) -> dict[str, str]:
        prepare("faces", folder, tmp_path / "root", SIDE)
        rows = pq.read_table(tmp_path / "root" / "faces" / "manifest.parquet").to_pylist()
        assert all((row["path"] is None) == (row["error"] is not None) for row in rows)
        return {row["original"]: row["error"] or "" for row in rows}

    return {"cache": cache, "prepare": prepared}[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images that are as they should be."""
    (tmp_path / "faces").mkdir()
    for name in ("a.png", "z.png"):
        (tmp_path / "faces" / name).write_bytes(WHOLE_PNG)
    return tmp_path / "faces"


Used = Callable[[Path], dict[str, str]]


class TestFiles:
    @pytest.mark.parametrize(
        ("make", "reason"),
        [*REJECTED.values(), *MORE_REJECTED.values()],
        ids=[*REJECTED, *MORE_REJECTED],
    )
    def test_is_left_out_with_its_reason(
        self, make: Make, reason: str, folder: Path, used: Used
    ) -> None:
        (folder / "bad.jpg").write_bytes(make())
        found = used(folder)
        assert [found["a.png"], found["z.png"]] == ["", ""]
        with pytest.raises(RejectedImage, match=reason):
            raise RejectedImage(found["bad.jpg"])
        assert found["bad.jpg"].isprintable()

    @pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
    def test_is_accepted(self, make: Make, folder: Path, used: Used) -> None:
        (folder / "odd.html.jpg").write_bytes(make())
        assert set(used(folder).values()) == {""}


def _link_to_a_file(folder: Path) -> None:
    (folder / "bad.png").symlink_to(folder / "a.png")


def _link_to_nothing(folder: Path) -> None:
    (folder / "bad.png").symlink_to(folder / "nothing.png")


def _link_to_itself(folder: Path) -> None:
    (folder / "bad.png").symlink_to(folder / "bad.png")


def _link_out(folder: Path) -> None:
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside" / "secret.png").write_bytes(WHOLE_PNG)
    (folder / "bad.png").symlink_to(folder.parent / "outside")


def _link_up(folder: Path) -> None:
    (folder / "bad.png").symlink_to(folder)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "bad.png")


def _folder_named_so(folder: Path) -> None:
    (folder / "bad.png").mkdir()


def _hidden(folder: Path) -> None:
    (folder / ".bad.png").write_bytes(WHOLE_PNG)


@pytest.mark.parametrize(
    "make",
    [
        *(_link_to_a_file, _link_to_nothing, _link_to_itself, _link_out, _link_up),
        *(_pipe, _folder_named_so, _hidden),
    ],
)
def test_what_is_no_file_is_never_opened(
    make: Callable[[Path], None], folder: Path, used: Used
) -> None:
    make(folder)
    found = used(folder)
    assert {name for name, reason in found.items() if not reason} == {"a.png", "z.png"}
    assert set(found.values()) <= {"", "a link", "not a regular file"}


@pytest.mark.parametrize(
    "name", [b"two\nlines.png", b"\xff\xfe.png", b"-rf.png", b"$(id).png", b"a=b, c.png", b"%s.png"]
)
def test_odd_names_do_no_harm(name: bytes, folder: Path, used: Used) -> None:
    (Path(os.fsdecode(bytes(folder) + b"/" + name))).write_bytes(WHOLE_PNG)
    found = used(folder)
    assert len(found) == 3
    assert set(found.values()) <= {"", "its name is not valid UTF-8"}


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("a.png", WHOLE_PNG), *members):
            archive.writestr(name, content)
    return buffer.getvalue()


def _zip_link() -> bytes:
    member = zipfile.ZipInfo("bad.png")
    member.create_system, member.external_attr = 3, 0o120777 << 16
    return _zip((member, b"/etc/passwd"))


def _zip_that_lies() -> bytes:
    """It says that a member is shorter than it is."""
    content = _zip(("bad.png", bytes(100_000)))
    return content.replace(struct.pack("<I", 100_000), struct.pack("<I", 100))


def _encrypted_zip() -> bytes:
    content = bytearray(_zip(("bad.png", WHOLE_PNG)))
    second = content.index(b"PK\3\4", 4)
    content[second + 6] |= 1
    content[content.index(b"PK\1\2", content.index(b"PK\1\2") + 4) + 8] |= 1
    return bytes(content)


def _tar(*members: tuple[str, bytes, bytes], packed: bool = False) -> bytes:
    """Members as name, kind and content, which is the target of a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in (("a.png", tarfile.REGTYPE, WHOLE_PNG), *members):
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content.decode()
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


FILE = tarfile.REGTYPE
OUT, LINK, NO_FILE = "its name leads out of the archive", "a link", "not a regular file"


def _sparse_tar() -> bytes:
    """A member with a hole, which a tar may claim to be of any size."""
    member = tarfile.TarInfo("bad.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    # One piece of 512 bytes at its start, and the size with the hole.
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"%011o\0" % 10**6
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    image = tarfile.TarInfo("a.png")
    image.size = len(WHOLE_PNG)
    padding = bytes(-len(WHOLE_PNG) % 512)
    return image.tobuf() + WHOLE_PNG + padding + bytes(header) + bytes(512 + 1024)


MEMBERS: dict[str, tuple[Make, str]] = {
    "zip, up": (lambda: _zip(("../bad.png", WHOLE_PNG)), OUT),
    "zip, up within": (lambda: _zip(("x/../../bad.png", WHOLE_PNG)), OUT),
    "zip, up as on Windows": (lambda: _zip(("..\\bad.png", WHOLE_PNG)), OUT),
    "zip, absolute": (lambda: _zip(("/tmp/bad.png", WHOLE_PNG)), OUT),
    "zip, link": (_zip_link, LINK),
    "zip, an archive within": (lambda: _zip(("bad.zip", _zip())), NO_IMAGE),
    "zip, a member longer than it says": (_zip_that_lies, "."),
    "zip, encrypted": (_encrypted_zip, "encrypted"),
    "tar, up": (lambda: _tar(("../bad.png", FILE, WHOLE_PNG)), OUT),
    "tar, absolute": (lambda: _tar(("/tmp/bad.png", FILE, WHOLE_PNG)), OUT),
    "tar, symbolic link": (lambda: _tar(("bad.png", tarfile.SYMTYPE, b"/etc/passwd")), LINK),
    "tar, hard link": (lambda: _tar(("bad.png", tarfile.LNKTYPE, b"a.png")), LINK),
    "tar, device": (lambda: _tar(("bad.png", tarfile.CHRTYPE, b"")), NO_FILE),
    "tar, pipe": (lambda: _tar(("bad.png", tarfile.FIFOTYPE, b"")), NO_FILE),
    "tar, with a hole": (_sparse_tar, NO_FILE),
    "tar.gz, up": (lambda: _tar(("../bad.png", FILE, WHOLE_PNG), packed=True), OUT),
}


@pytest.mark.parametrize(("make", "reason"), MEMBERS.values(), ids=MEMBERS)
def test_a_bad_member_of_an_archive_is_left_out(tmp_path: Path, make: Make, reason: str) -> None:
    place = tmp_path / "deep" / "down"
    place.mkdir(parents=True)
    (place / "archive").write_bytes(make())
    _, accepted, rejected, *_ = prepare("faces", place / "archive", place / "root", SIDE)
    ((_, said),) = rejected
    assert accepted == 1
    with pytest.raises(RejectedImage, match=reason):
        raise RejectedImage(said)
    files = {path.relative_to(place).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    (image,) = files - {"archive", "root/faces/manifest.parquet"}
    assert image in ("root/faces/000000.png", "root/faces/000001.png")


def _large_header(packed: bool) -> bytes:
    """A tar whose first header says that a gigabyte of further headers follows, and has some."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 2**30
    content = member.tobuf() + bytes(30_000_000)
    return gzip.compress(content, 1) if packed else content


def _parquet(image: bytes) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [image] * 20}), buffer, compression="zstd")
    return buffer.getvalue()


BOMB = "unpacks to more than 100 times its size"
DAMAGED = "is damaged"
ARCHIVES: dict[str, tuple[Make, str]] = {
    "empty file": (lambda: b"", "is not a folder, zip, tar or parquet"),
    "text": (lambda: b"no archive" * 1000, "is not a folder, zip, tar or parquet"),
    "rar": (lambda: b"Rar!\x1a\7\1\0" + bytes(2000), "is not a folder, zip, tar or parquet"),
    "7z": (
        lambda: b"7z\xbc\xaf\x27\x1c" + os.urandom(2000),
        "is not a folder, zip, tar or parquet",
    ),
    "one image": (lambda: WHOLE_JPEG, "is not a folder, zip, tar or parquet"),
    "gzipped image": (lambda: gzip.compress(WHOLE_PNG), "is not a folder, zip, tar or parquet"),
    "zip of nothing": (
        lambda: b"PK\5\6" + bytes(18),
        "None of the 0 files",
    ),
    "zip of no image": (lambda: _no_images(), "None of the 2 files.*'a.txt'"),
    "zip cut in half": (lambda: half(_zip(("b.png", WHOLE_PNG))), DAMAGED),
    "zip with nothing but its start": (lambda: b"PK\3\4" + bytes(100), DAMAGED),
    "zip bomb": (lambda: _zip(("b.png", bytes(40_000_000))), BOMB),
    "zip bomb of many": (
        lambda: _zip(*((f"{n}.png", bytes(900_000)) for n in range(40))),
        BOMB,
    ),
    "tar cut within a file": (lambda: _tar(("b.png", FILE, bytes(50_000)))[:20_000], DAMAGED),
    "tar cut between files": (
        lambda: _tar(("b.png", FILE, bytes(512)))[: -(-len(WHOLE_PNG) // 512) * 512 + 512],
        DAMAGED,
    ),
    "tar with a damaged header": (
        lambda: _flipped(
            _tar(("b.png", FILE, bytes(512))), -(-len(WHOLE_PNG) // 512) * 512 + 512 + 20
        ),
        DAMAGED,
    ),
    "tar.gz cut in half": (lambda: half(_tar(("b.png", FILE, WHOLE_PNG), packed=True)), DAMAGED),
    "tar.gz with a flipped byte": (
        lambda: _flipped(_tar(("b.png", FILE, WHOLE_PNG), packed=True), -6),
        DAMAGED,
    ),
    "tar.gz bomb": (
        lambda: _tar(("b.png", FILE, bytes(40_000_000)), packed=True),
        BOMB,
    ),
    "tar.gz with a bomb of a header": (lambda: _large_header(packed=True), BOMB),
    "tar with headers that end too soon": (lambda: _large_header(packed=False), DAMAGED),
    "parquet cut in half": (lambda: half(_parquet(WHOLE_PNG)), DAMAGED),
    "parquet with nothing but its start": (lambda: b"PAR1" + bytes(100), DAMAGED),
    "parquet of no image": (lambda: _parquet(b"text"), "None of the 20 files"),
    "parquet bomb": (lambda: _parquet(bytes(3_000_000)), BOMB),
}


def _no_images() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "")
        archive.writestr("b.jpg", "<html>")
    return buffer.getvalue()


@pytest.mark.parametrize(("make", "said"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_bad_archive_is_refused_in_a_sentence_and_leaves_nothing(
    tmp_path: Path, make: Make, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "MAX_BYTES", 1_000_000)  # so that small bombs do
    (tmp_path / "archive").write_bytes(make())
    with pytest.raises(UserError, match=said) as caught:
        prepare("faces", tmp_path / "archive", tmp_path / "root", SIDE)
    assert str(tmp_path / "archive") in str(caught.value)
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "tar", "parquet", "folder"])
def test_a_file_above_the_bound_is_left_out(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "MAX_BYTES", len(WHOLE_PNG))
    large = WHOLE_PNG + os.urandom(500)
    given = tmp_path / "given"
    if kind == "folder":
        given.mkdir()
        for name, content in (("a.png", WHOLE_PNG), ("b.png", large)):
            (given / name).write_bytes(content)
    elif kind == "parquet":
        pq.write_table(pa.table({"image": [WHOLE_PNG, large]}), given)
    else:
        given.write_bytes(_zip(("b.png", large)) if kind == "zip" else _tar(("b.png", FILE, large)))
    _, accepted, ((_, reason),), *_ = prepare("faces", given, tmp_path / "root", SIDE)
    assert accepted == 1
    assert f"{len(large)} bytes are more than the {len(WHOLE_PNG)} allowed" in reason


def test_an_input_that_is_not_there_or_has_no_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.zip", "pipe"):
        with pytest.raises(UserError, match=f"There is no .*{name}"):
            prepare("faces", tmp_path / name, tmp_path / "root", SIDE)


def _seeds() -> list[bytes]:
    """Complete files of every kind that the policy looks into."""
    small = noise().resize((12, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(small, "jpeg"),
        encoded(small, "jpeg", progressive=True, exif=exif),
        encoded(small.convert("CMYK"), "jpeg"),
        encoded(small, "mpo", save_all=True, append_images=[small]),
        encoded(small, "png", exif=exif, pnginfo=_comment()),
        encoded(small.convert("P"), "png", transparency=3),
        encoded(small.convert("LA"), "png"),
        encoded(Image.fromarray(np.arange(120, dtype=np.uint16).reshape(10, 12)), "png"),
        encoded(small, "png", save_all=True, append_images=[small]),
        encoded(small, "webp", exif=exif),
        encoded(small.convert("RGBA"), "webp", lossless=True),
        encoded(small, "webp", save_all=True, append_images=[noise().resize((12, 10))]),
    ]


def _mutated(content: bytes, others: list[bytes], draws: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(draws.integers(1, 5)):
        start = int(draws.integers(0, len(changed) or 1))
        end = start + int(draws.integers(1, 9))
        match draws.integers(0, 6):
            case 0:
                changed[start:end] = draws.bytes(end - start)
            case 1:
                changed[start:end] = b""
            case 2:
                changed[start:start] = changed[start : start + 200]
            case 3:
                changed[start : start + 4] = draws.choice(
                    [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"]
                )
            case 4:
                other = others[draws.integers(0, len(others))]
                changed[start:] = other[start:]
            case 5:
                del changed[start:]
    return bytes(changed)


def _png_checksums_mended(content: bytes) -> bytes:
    """So that what is changed in a PNG gets past its checksums."""
    mended, start = content[:8], 8
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if end > len(content):
            break
        mended += chunk(content[start + 4 : start + 8], content[start + 8 : end - 4])
        start = end
    return mended + content[start:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # as `forensics.images.decode` has it
def test_ten_thousand_mutated_files_are_decoded_or_rejected(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    seeds = _seeds()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Of this process alone, whatever else the machine does; a hang ends by pytest's own limit.
    began, slowest, accepted = time.process_time(), 0.0, 0
    for number in range(10_000):
        content = _mutated(seeds[number % len(seeds)], seeds, draws)
        if content.startswith(b"\x89PNG") and number % 2:
            content = _png_checksums_mended(content)
        path = tmp_path / str(number)  # a file written over is waited for by some file systems
        path.write_bytes(content)
        started = time.process_time()
        try:
            image, _, _ = decode(path, 1)
        except RejectedImage as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            accepted += 1
            assert image.mode == "RGB"
        slowest = max(slowest, time.process_time() - started)
        path.unlink()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert 500 < accepted < 9500
    assert slowest < 5
    assert grown < 1024 * 1024
    assert time.process_time() - began < 60
