"""One policy for turning an image file into pixels, the same for training and for scoring.

Accepted are JPEG, PNG and WebP by their content, whatever their name says. Pixels become 8-bit
RGB by these rules: the EXIF orientation is applied; 16 bits are scaled to 8, not clipped; grey is
repeated in the three channels; palettes and CMYK are converted by Pillow without colour profiles;
what is transparent lies on white; of a file with several JPEG pictures (MPO, as phones write) the
first counts. Refused are animations, files that end too soon, images beyond `MAX_PIXELS` and
images with a side shorter than the settable least.
"""

import io
import warnings
import zlib
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

POLICY_VERSION = 1
"""Goes up with every change here that could change a pixel: caches are rebuilt then."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_PIXELS = 64_000_000

_FORMATS = ("JPEG", "PNG", "WEBP")
# Pillow would warn at one number of pixels and fail at another; `decode` has the one limit.
Image.MAX_IMAGE_PIXELS = None
# Of odd metadata, without the file's name; what matters of it is decided here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ResizeFilter(StrEnum):
    """Antialiased filters for making images smaller, as Pillow names them."""

    box = "box"
    bilinear = "bilinear"
    bicubic = "bicubic"
    lanczos = "lanczos"


MATCH_QUALITY = 75
"""Pillow's, of `Match.jpeg`: libjpeg's default, and what most files have that were not saved with
care. Of 95, 90, 75 and 50 it hid planted compressions best (``experiments/match``)."""

MATCH_SHARE = 0.5
"""Of the image size, to which `Match.resample` makes images smaller; three quarters left a planted
history to be seen."""


class Match(StrEnum):
    """Handling that every image goes through, so that codec and source size tell less.

    A function of one image, the same for real and generated ones, for training, validation, test
    and `forensics.scoring`: nothing is drawn, nothing depends on the class or on other images.

    ``jpeg``: once an image has the size that detectors see, it is saved as JPEG, 4:2:0, of quality
    `MATCH_QUALITY`, and read again. What was stored without loss gets a codec's traces too.
    ``resample``: it is made smaller, to `MATCH_SHARE` of its size, and as large as before, both by
    the data set's filter. Images of whatever size end up as ones that were enlarged twofold.

    Limits: neither takes away what it does not reach. A camera's sensor, its colours and framing
    stay; so does, under ``jpeg``, part of a compression of another quality on the same grid of
    8x8 pixels, which a second one can even bring out. Both destroy evidence with the shortcut,
    ``resample`` all of the upper octave, where many generators leave theirs.
    """

    none = "none"
    jpeg = "jpeg"
    resample = "resample"


class RejectedImage(Exception):
    """A file that is no image we accept; the text is the reason, without the path."""


class Decoded(NamedTuple):
    """An accepted image.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB.
        flag: what is odd about the file though it was accepted, or "".
        format: of the file: JPEG, PNG, WEBP, or MPO for several JPEG pictures.
    """

    pixels: Image.Image
    flag: str
    format: str


def decode(path: Path, min_side: int) -> Decoded:
    """Read an image file by the policy of this module.

    Args:
        path: the file; it is read, nothing in it is run.
        min_side: least height and width in pixels.

    Returns:
        The image in its own size, mode RGB.

    Raises:
        RejectedImage: with a one-line reason, for anything that is not accepted.
        OSError: if the machine, not the file, is at fault: no permission, a failing disk.
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
            flag = _check_png(path.read_bytes()) if image.format == "PNG" else ""
            return Decoded(to_rgb(image), flag, str(image.format))
    except (RejectedImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise RejectedImage("neither JPEG, PNG nor WebP by its content") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Pillow's own have no number
        # Decoders raise whatever a crafted file brings them to: OSError, SyntaxError, ValueError,
        # struct.error, zlib.error and more. Each means the same here.
        raise RejectedImage(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _check_png(content: bytes) -> str:
    """Hold a PNG's chunks against their checksums, which Pillow does not do for the pixels.

    Returns:
        "", or what is odd: Pillow shows a file without its end chunk as if it were whole.
    """
    start = 8
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if end > len(content):
            break
        if zlib.crc32(content[start + 4 : end - 4]) != int.from_bytes(content[end - 4 : end]):
            raise RejectedImage("a chunk does not match its checksum")
        if content[start + 4 : start + 8] == b"IEND":
            return ""
        start = end
    return "no end mark"


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an opened image upright and make it 8-bit RGB by the rules of this module."""
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


def to_square(image: Image.Image, size: int, resize_filter: ResizeFilter) -> NDArray[np.uint8]:
    """Cut the middle square out of an image and resize it, antialiased.

    Args:
        image: mode RGB.
        size: height and width of the result in pixels.
        resize_filter: the filter; of an image that has the size already, no pixel changes.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    filter_ = Image.Resampling[resize_filter.name.upper()]
    box = (left, top, left + side, top + side)
    return np.asarray(image.crop(box).resize((size, size), filter_))


def matched(
    image: NDArray[np.uint8], match: Match, resize_filter: ResizeFilter
) -> NDArray[np.uint8]:
    """Put an image that `to_square` made through the handling that all have in common.

    Args:
        image: ``(S, S, 3)`` uint8; left as it is.
        match: which.
        resize_filter: of ``resample``.

    Returns:
        The same shape; of ``none`` the image itself.
    """
    if match is Match.jpeg:
        return recompressed(image, MATCH_QUALITY)
    if match is Match.resample:
        size = len(image)
        filter_ = Image.Resampling[resize_filter.name.upper()]
        smaller = Image.fromarray(image).resize((max(1, round(size * MATCH_SHARE)),) * 2, filter_)
        return np.asarray(smaller.resize((size, size), filter_))
    return image


def recompressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Save as JPEG, 4:2:0, with Pillow's quality from 1 to 100, and read it again."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))
