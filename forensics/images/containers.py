"""The parts of JPEG, PNG and WebP files that decide their pixels, and their orientation.

Decoders are given these parts alone, so that text, colour profiles and other metadata can neither
make them fail nor fill the memory, however large or odd. Formats: ITU-T T.81 (JPEG), the W3C's PNG
specification, RFC 9649 (WebP) and TIFF 6.0 (Exif).
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from forensics.images.kinds import PNG_SIGNATURE, START_BYTES, other_kind, read_format

DAMAGED = "damaged: "
"""Beginning of the flag of a file some of whose pixels may be wrong."""

MAX_BYTES = 1 << 30
"""Limit of the bytes that decide the pixels; an 8-bit RGB image of 256 megapixels has fewer."""

MAX_SCANNED_PIXELS = 6_400_000_000
"""Limit of the pixels of a JPEG times its scans, each of which costs a pass over the image.
Encoders of progressive images write about ten."""

MAX_PARTS = 1 << 20
"""Limit of the chunks or segments of a file; encoders of large images write 100,000."""

_BLOCK = 1 << 16
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""In the order of a PNG; all but IDAT are there once at most."""
_DHT, _EOI, _SOS = 0xC4, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ZEROS = bytes(16)
# A marker within or after compressed data: not a stuffed zero, a restart or a fill byte.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Application data and comments, except JFIF's and Adobe's segments, which decide the colour space.
_METADATA_SEGMENTS = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})


class RejectedImage(Exception):
    """A file is not an accepted image; the text is the reason, without the path."""


class Orientation(NamedTuple):
    """The orientation of an image's Exif data.

    Attributes:
        value: 1 to 8; 1, upright, if there is none.
        entries: number of entries beside which it is stored; 0 without Exif data.
        readable: whether the entries could be read.
    """

    value: int
    entries: int
    readable: bool


class Frame(NamedTuple):
    """The size of a JPEG and its number of components, by its header."""

    width: int
    height: int
    components: int


class Parts(NamedTuple):
    """What decides the pixels of a file.

    Attributes:
        format: JPEG, PNG or WEBP.
        content: a file of this format with these parts alone.
        orientation: the orientation of the Exif data.
        flag: an irregularity of the other parts, or "".
        animation: whether it has more than one frame.
        frame: size and components of a JPEG.
    """

    format: str
    content: bytes
    orientation: Orientation
    flag: str
    animation: bool
    frame: Frame | None = None


def read_parts(file: BinaryIO) -> Parts:
    """Read the parts of a file that decide its pixels.

    Args:
        file: a file that can seek, at its start.

    Raises:
        RejectedImage: if it is neither JPEG, PNG nor WebP, or is cut or damaged where pixels are.
        OSError: for errors of the file system.
    """
    start = file.read(START_BYTES)
    file.seek(0)
    match read_format(start):
        case "JPEG":
            return _jpeg(_all_of(file))
        case "PNG":
            return _png(file)
        case "WEBP":
            return _webp(_all_of(file))
    kind = other_kind(start)
    found = f": {kind.file}" if kind else ""
    raise RejectedImage(f"neither JPEG, PNG nor WebP by its content{found}")


def read_orientation(exif: bytes) -> Orientation:
    """Read the orientation of Exif data, and nothing else of it."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif:
        return Orientation(1, 0, True)
    unreadable = Orientation(1, 0, False)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return unreadable
    value = 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            code = {1: "B", 3: "H", 4: "I"}.get(kind)
            if tag == 0x0112 and code is not None:
                (found,) = struct.unpack_from(f"{order}{code}", exif, entry + 8)
                value = found if 1 <= found <= 8 else 1
    except struct.error:
        return unreadable._replace(value=value)
    return Orientation(value, entries, True)


def _all_of(file: BinaryIO) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RejectedImage(f"more than the {MAX_BYTES} bytes allowed")
    return content


def _jpeg(content: bytes) -> Parts:
    """The first image of a JPEG, without metadata, with an end mark.

    Whether the compressed data are complete is left to the decoder, but for zeros: a decoder reads
    them as coefficients, and may by chance end at the end mark.
    """
    kept = [content[:2]]
    exif, segments, scans, at, frame = b"", 0, 0, 2, Frame(0, 0, 0)
    first_symbols: dict[int, int] = {}
    never_zero = zeroed = False
    coefficients = _Coefficients()
    while (marker := _MARKER.search(content, at)) is not None:
        start = marker.start()
        zeroed |= never_zero and content.find(_ZEROS, at, start) >= 0
        never_zero = False
        code = content[start + 1]
        if code == _EOI:
            kept.append(content[at:start])
            break
        length = int.from_bytes(content[start + 2 : start + 4])
        # Of the other codes some have no length and some are damage: the decoder decides.
        end = start + 2 + (length if code >= 0xC0 and code != 0xD8 else 0)
        if code in _METADATA_SEGMENTS:
            kept.append(content[at:start])
            if code == 0xE1 and not exif and content.startswith(b"Exif\0\0", start + 4):
                exif = content[start + 4 : end]
        else:
            kept.append(content[at:end])
        if code == _DHT:
            first_symbols |= _first_symbols(content[start + 4 : end])
        elif code == _SOS:
            scans += 1
            never_zero = _is_never_zero(content[start + 4 : end], first_symbols)
            coefficients.read(content[start + 4 : end])
        elif code in _FRAMES:
            height, width = content[start + 5 : start + 7], content[start + 7 : start + 9]
            components = int.from_bytes(content[start + 9 : start + 10])
            frame = Frame(int.from_bytes(width), int.from_bytes(height), components)
            identifiers = content[start + 10 : start + 10 + 3 * components : 3]
            coefficients = _Coefficients(identifiers, progressive=code in _PROGRESSIVE)
        at, segments = end, segments + 1
        area = frame.width * frame.height
        if scans * area > MAX_SCANNED_PIXELS:
            raise RejectedImage(
                f"pixels times scans are more than the {MAX_SCANNED_PIXELS} allowed"
            )
        _check_number(segments)
    else:
        kept.append(content[at:])
    if not scans:
        raise RejectedImage("truncated: no pixels")
    orientation = read_orientation(exif)
    flag = _flag(
        f"{DAMAGED}zeros in the compressed data" * zeroed,
        f"{DAMAGED}scans are missing" * coefficients.missing(),
        "no end mark" * (marker is None),
        "unreadable Exif" * (not orientation.readable),
    )
    return Parts("JPEG", b"".join([*kept, b"\xff\xd9"]), orientation, flag, False, frame)


class _Coefficients:
    """What the scans of a JPEG have given of its coefficients.

    A progressive image cut between two scans is a valid file, of which libjpeg does not warn.

    Args:
        identifiers: those of the frame's components.
        progressive: whether scans have parts of the coefficients' range and bits.
    """

    def __init__(self, identifiers: bytes = b"", *, progressive: bool = False) -> None:
        self._progressive = progressive
        # The lowest bit that was given of each coefficient of a block, None before any.
        self._lowest: dict[int, list[int | None]] = {of: [None] * 64 for of in identifiers}

    def read(self, scan: bytes) -> None:
        """Take note of a scan, given its header."""
        count = scan[0] if scan else 0
        if len(scan) < 4 + 2 * count:
            return
        first, last, bits = scan[1 + 2 * count : 4 + 2 * count] if self._progressive else (0, 63, 0)
        for of in scan[1 : 1 + 2 * count : 2]:
            if of in self._lowest:
                self._lowest[of][first : last + 1] = [bits & 0x0F] * (min(last, 63) + 1 - first)

    def missing(self) -> bool:
        """Whether some bits of some coefficients were not given."""
        return any(any(bit != 0 for bit in lowest) for lowest in self._lowest.values())


def _first_symbols(tables: bytes) -> dict[int, int]:
    """The symbols that Huffman tables give the code of zeros, by class and number of the table."""
    symbols, at = {}, 0
    while at + 17 < len(tables):
        symbols[tables[at]] = tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])
    return symbols


def _is_never_zero(scan: bytes, first_symbols: dict[int, int]) -> bool:
    """Whether long zeros in a scan's data would be a long run of one and the same coefficient.

    Where the code of zeros is the end of a block, they are flat blocks; where a scan refines
    another one, they are corrections by nothing.
    """
    count = scan[0] if scan else 0
    if len(scan) < 4 + 2 * count or scan[3 + 2 * count] >> 4:
        return False
    end_of_spectrum = scan[2 + 2 * count]
    tables = [
        selector >> 4 if end_of_spectrum == 0 else 0x10 | selector & 0x0F
        for selector in scan[2 : 2 + 2 * count : 2]
    ]
    return any(first_symbols.get(table, 0) & 0x0F for table in tables)


def _png(file: BinaryIO) -> Parts:
    """The critical chunks of a PNG and its transparency, verified against their checksums."""
    kept, exif, size, chunks, reached = [file.read(len(PNG_SIGNATURE))], b"", 0, 0, -1
    animation = damaged = ended = pixels = False
    while not ended:
        head = file.read(8)
        length, kind = int.from_bytes(head[:4]), head[4:]
        if len(head) < 8 or length >= 1 << 31 or not (kind.isalpha() and kind.isascii()):
            break
        chunks += 1
        _check_number(chunks)
        critical = kind in _PIXEL_CHUNKS
        if kind[:1].isupper() and not critical:
            raise RejectedImage(f"damaged: unknown critical chunk {kind.decode()}")
        size += length if critical else 0
        if size > MAX_BYTES:
            raise RejectedImage(f"more than the {MAX_BYTES} bytes allowed")
        content, crc, read = io.BytesIO(), zlib.crc32(kind), 0
        keep = critical or (kind in (b"eXIf", b"acTL") and length <= _BLOCK)
        for block in _blocks(file, length):
            crc, read = zlib.crc32(block, crc), read + len(block)
            if keep:
                content.write(block)
        checksum = file.read(4)
        whole = read == length and checksum == crc.to_bytes(4)
        if critical and not whole and kind != b"IEND":
            cut = read < length or len(checksum) < 4
            raise RejectedImage(f"{'truncated' if cut else 'damaged'}: chunk {kind.decode()}")
        if critical:
            step = _PIXEL_CHUNKS.index(kind)
            if step < reached or (step == reached and kind != b"IDAT"):
                raise RejectedImage(f"damaged: chunk {kind.decode()} out of order")
            reached = step
        ended = kind == b"IEND" and whole
        pixels |= kind == b"IDAT"
        animation |= kind == b"acTL" and int.from_bytes(content.getvalue()[:4]) > 1
        damaged |= not whole and not critical
        if critical and not ended:
            kept.append(head + content.getvalue() + checksum)
        elif kind == b"eXIf" and whole:
            exif = content.getvalue()
    if not pixels:
        raise RejectedImage("truncated: no pixels")
    orientation = read_orientation(exif)
    flag = _flag(
        "no end mark" * (not ended),
        "damaged metadata" * damaged,
        "unreadable Exif" * (not orientation.readable),
    )
    end = b"\0\0\0\0IEND\xaeB`\x82"
    return Parts("PNG", b"".join([*kept, end]), orientation, flag, animation)


def _blocks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (block := file.read(min(length, _BLOCK))):
        length -= len(block)
        yield block


def _webp(content: bytes) -> Parts:
    """The image chunks of a WebP; of an animation everything."""
    at, end = 12, min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    kept, exif, chunks, frames = [], b"", 0, 0
    pixels = extended = has_exif = False
    while at + 8 <= end:
        chunks += 1
        _check_number(chunks)
        kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        chunk = content[at : at + 8 + length]
        chunk += b"\0" * (len(chunk) % 2)
        whole = at + 8 + length <= end
        if kind in (b"VP8 ", b"VP8L") and (extended or not pixels):
            if pixels:
                raise RejectedImage("damaged: more than one image")
            if not whole:
                raise RejectedImage(f"truncated: chunk {kind.decode().strip()}")
            kept.append(chunk)
            pixels = True
        elif kind == b"VP8X" and length >= 10 and (extended or not pixels):
            if extended:
                raise RejectedImage("damaged: chunk VP8X twice")
            extended, has_exif = True, bool(chunk[8] & 0x08)
            # Of the features only the alpha channel stays.
            kept.append(chunk[:8] + bytes([chunk[8] & 0x10]) + chunk[9:])
        elif kind == b"ALPH" and not pixels:
            kept.append(chunk)
        elif kind == b"EXIF" and whole and has_exif and not exif:
            exif = chunk[8 : 8 + length]
        frames += kind == b"ANMF"
        at += 8 + length + length % 2
    if not pixels and not frames:
        raise RejectedImage("truncated: no pixels")
    orientation = read_orientation(exif)
    flag = _flag(
        "no end mark" * (at < end or 8 + int.from_bytes(content[4:8], "little") > len(content)),
        "unreadable Exif" * (not orientation.readable),
    )
    body = b"WEBP" + b"".join(kept)
    if not frames:
        content = b"RIFF" + len(body).to_bytes(4, "little") + body
    return Parts("WEBP", content, orientation, flag, frames > 1)


def _check_number(parts: int) -> None:
    if parts > MAX_PARTS:
        raise RejectedImage(f"more than the {MAX_PARTS} parts allowed")


def _flag(*irregularities: str) -> str:
    return "; ".join(filter(None, irregularities))
