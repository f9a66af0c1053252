"""One policy for turning an image file into pixels, the same for training and for scoring.

Accepted are JPEG, PNG and WebP by their content, whatever their name says. Pixels become 8-bit
RGB by these rules: the EXIF orientation is applied; 16 bits are scaled to 8, not clipped; grey is
repeated in the three channels; palettes and CMYK are converted by Pillow without colour profiles;
what is transparent lies on white; of a file with several JPEG images (MPO, as phones write) the
first counts. Refused are animations, files that end too soon, images beyond `MAX_PIXELS` and
images with a side shorter than the settable least.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
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


class RejectedImage(Exception):
    """A file that is no image we accept; the text is the reason, without the path."""


class Decoded(NamedTuple):
    """An accepted image.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB.
        flag: what is odd about the file though it was accepted, or "".
        format: of the file: JPEG, PNG, WEBP, or MPO for several JPEG images.
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
            flag = _check_png(path) if image.format == "PNG" else ""
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


def _check_png(path: Path) -> str:
    """Hold a PNG's chunks against their checksums, which is not done for the pixels on loading.

    Returns:
        "", or what is odd: a file without its end chunk is shown as if it were complete.

    Raises:
        SyntaxError: if a chunk does not match its checksum.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=("PNG",)) as image:
            image.verify()
            end = file.read(4)  # the end chunk's own checksum, which is not looked at
    except OSError as error:
        if error.errno is not None:
            raise
        end = b""
    return "" if end == b"\xaeB`\x82" else "no end mark"


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
