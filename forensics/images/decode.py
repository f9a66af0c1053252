"""The policy for decoding image files, the same for training and for scoring.

JPEG, PNG and WebP are accepted, by content, not by name. Pixels become 8-bit RGB by these rules:
the EXIF orientation is applied; 16 bits are scaled to 8, not clipped; grey is repeated in the three
channels; palettes and CMYK are converted by Pillow without colour profiles; transparency is blended
with white; of a file with several JPEG images (MPO, as written by phones) the first is used.
Rejected are animations, truncated files, images beyond `MAX_PIXELS` and images with a side shorter
than a given minimum.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

POLICY_VERSION = 1
"""Increased with every change here that could change a pixel; caches are then rebuilt."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_PIXELS = 64_000_000

_FORMATS = ("JPEG", "PNG", "WEBP")
# Pillow would warn at one number of pixels and fail at another; `decode` has a single limit.
Image.MAX_IMAGE_PIXELS = None
# Warnings of irregular metadata, which lack the file's name; this module's rules decide instead.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class RejectedImage(Exception):
    """A file is not an accepted image; the text is the reason, without the path."""


class Decoded(NamedTuple):
    """An accepted image.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB.
        flag: an irregularity of the file that did not lead to rejection, or "".
        format: format of the file: JPEG, PNG, WEBP, or MPO for several JPEG images.
    """

    pixels: Image.Image
    flag: str
    format: str


def decode(path: Path, min_side: int) -> Decoded:
    """Read an image file by the policy of this module.

    Args:
        path: the file; no code in it is run.
        min_side: minimum height and width in pixels.

    Returns:
        The image at its original size, mode RGB.

    Raises:
        RejectedImage: if the file is not accepted, with a one-line reason.
        OSError: for errors of the file system: no permission, a failing disk.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise RejectedImage(
                    f"{width}x{height} pixels are more than the {MAX_PIXELS} allowed"
                )
            if min(width, height) < min_side:
                raise RejectedImage(
                    f"{width}x{height} pixels, each side must have at least {min_side}"
                )
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise RejectedImage("an animation, not a single image")
            image.load()
            flag = _check_png(path) if image.format == "PNG" else ""
            return Decoded(to_rgb(image), flag, str(image.format))
    except (RejectedImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise RejectedImage("neither JPEG, PNG nor WebP by its content") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Pillow's own errors have no errno
        # Decoders can raise anything on a crafted file: OSError, SyntaxError, ValueError,
        # struct.error, zlib.error and more. All mean a rejection.
        raise RejectedImage(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _check_png(path: Path) -> str:
    """Verify a PNG's chunks against their checksums, which loading does not do for pixels.

    Returns:
        "", or an irregularity: a file without an end chunk is decoded as if it were complete.

    Raises:
        SyntaxError: if a chunk does not match its checksum.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=("PNG",)) as image:
            image.verify()
            end = file.read(4)  # the end chunk's own checksum, which Pillow does not verify
    except OSError as error:
        if error.errno is not None:
            raise
        end = b""
    return "" if end == b"\xaeB`\x82" else "no end mark"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to upright 8-bit RGB by the rules of this module."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to white
        levels = np.asarray(image)
        grey = np.rint((levels / 257).clip(0, 255)).astype(np.uint8)
        if "transparency" in image.info:
            grey[levels == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
