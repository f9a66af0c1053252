"""The policy for decoding image files, the same for training and for scoring.

JPEG, PNG and WebP are accepted, by content, not by name. Pixels become 8-bit RGB by these rules:
the EXIF orientation is applied; 16 bits are scaled to 8, not clipped; grey is repeated in the three
channels; palettes and CMYK are converted by Pillow without colour profiles; transparency is blended
with white; of a file with several JPEG images (MPO, as written by phones) the first is used.
Rejected are animations, files without all pixels, images beyond `MAX_PIXELS` and images with a side
shorter than a given minimum. Metadata is never a reason to reject a file.
"""

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from forensics.images.containers import DAMAGED, Parts, RejectedImage, read_parts

POLICY_VERSION = 2
"""Increased with every change here that could change a pixel; caches are then rebuilt."""

EQUAL_POLICIES = frozenset({1, 2})
"""Versions by which the pixels of a file that both accept are equal: 2 accepts more files, and does
not apply an orientation that XMP alone gives."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_PIXELS = 256_000_000
"""Limit of the pixels of an image; phones take 200 million. Decoding needs up to eight bytes for
each."""

# Pillow would warn at one number of pixels and fail at another; `decode` has a single limit.
Image.MAX_IMAGE_PIXELS = None
# Warnings of irregular metadata, which lack the file's name; this module's rules decide instead.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_JPEG_MODES = {
    1: ("L", "GRAY", "L"),
    3: ("RGB", "RGB", "RGB"),
    4: ("CMYK", "CMYK", "CMYK;I"),
}
"""Pillow's mode, libjpeg's colour space and Pillow's raw mode by the number of components. Pillow,
too, takes CMYK as Adobe's, inverted."""

# Of libjpeg's warnings those of a decoder that ran out of data or lost its place in them.
_LOST = ("remature end", "bad Huffman code", "bad arithmetic code", "instead of RST")
_DEFLATE_FACTOR = 1032  # at most, by which a PNG's pixels can be compressed
_UNSUPPORTED = "subsampling"
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoded(NamedTuple):
    """An accepted image.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB.
        flag: an irregularity of the file that did not lead to rejection, or "".
        format: format of the file: JPEG, PNG or WEBP.
    """

    pixels: Image.Image
    flag: str
    format: str


def decode(source: Path | bytes, min_side: int) -> Decoded:
    """Read an image file by the policy of this module.

    Args:
        source: the file or its content; no code in it is run.
        min_side: minimum height and width in pixels.

    Returns:
        The image at its original size, mode RGB.

    Raises:
        RejectedImage: if the file is not accepted, with a one-line reason.
        OSError: for errors of the file system: no permission, a failing disk.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            parts = read_parts(file)
        if parts.animation:
            raise RejectedImage("an animation, not a single image")
        image, damage = _load(parts, min_side)
        flag = "; ".join(filter(None, (damage, parts.flag)))
        return Decoded(to_rgb(image, parts.orientation.value), flag, parts.format)
    except (RejectedImage, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Pillow's own errors have no errno
        raise rejection(error) from error


def rejection(error: Exception) -> RejectedImage:
    """The rejection for an error of a decoder.

    Decoders can raise anything on a crafted file: OSError, SyntaxError, ValueError, struct.error,
    zlib.error and more. All mean a rejection.
    """
    return RejectedImage(" ".join(f"{type(error).__name__}: {error}".split()))


def check_size(size: tuple[int, int], min_side: int) -> None:
    """Raise `RejectedImage` for an image of too many pixels or with too short a side."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise RejectedImage(f"{width}x{height} pixels are more than the {MAX_PIXELS} allowed")
    if min(width, height) < min_side:
        raise RejectedImage(f"{width}x{height} pixels, each side must have at least {min_side}")


def _load(parts: Parts, min_side: int) -> tuple[Image.Image, str]:
    """Decode a file's pixels: a JPEG with libjpeg-turbo, whose warnings Pillow hides.

    Returns:
        The image, and the warning of a file whose pixels may be wrong, or "".

    Raises:
        RejectedImage: if libjpeg did not find the data of all pixels, or the size is not accepted.
    """
    warning = ""
    if parts.frame is not None and parts.frame.components in _JPEG_MODES:
        size = parts.frame.width, parts.frame.height
        check_size(size, min_side)
        mode, space, raw = _JPEG_MODES[parts.frame.components]
        try:
            pixels = simplejpeg.decode_jpeg(parts.content, space)
        except ValueError as error:
            warning = " ".join(str(error).split())
            if any(lost in warning for lost in _LOST):
                raise RejectedImage(f"truncated or damaged: {warning}") from error
        else:
            if pixels.shape[1::-1] != size:
                raise RejectedImage("damaged: several sizes")
            loaded = Image.new(mode, size, None)  # not filled first
            loaded.frombytes(pixels, "raw", raw)
            return loaded, ""
    with Image.open(io.BytesIO(parts.content), formats=(parts.format,)) as image:
        check_size(image.size, min_side)
        if parts.format == "PNG" and _cannot_unpack(image, parts.content):
            raise RejectedImage("truncated: fewer bytes than its pixels need")
        image.load()
        # simplejpeg does not read images of rare subsampling.
        damaged = warning and _UNSUPPORTED not in warning
        return image, f"{DAMAGED}{warning}" if damaged else ""


def _cannot_unpack(image: Image.Image, content: bytes) -> bool:
    """Whether a PNG is too short for its header, for which memory would be taken first."""
    least_bits = image.width * image.height * len(image.getbands())
    return least_bits > 8 * _DEFLATE_FACTOR * len(content)


def to_rgb(image: Image.Image, orientation: int) -> Image.Image:
    """Convert an opened image to upright 8-bit RGB by the rules of this module.

    Args:
        image: an image of any mode in which an accepted file can be opened.
        orientation: its EXIF orientation, 1 to 8.
    """
    if orientation in _TURNED:
        image = image.transpose(_TURNED[orientation])
    if image.mode.startswith("I;16"):  # which Pillow would clip to white
        levels = np.asarray(image)
        grey = np.rint((levels / 257).clip(0, 255)).astype(np.uint8)
        if "transparency" in image.info:
            grey[levels == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
