"""Images as they are given in Python: files, their content, or pixels."""

from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forensics.images.containers import MAX_BYTES, RejectedImage, read_orientation
from forensics.images.decode import Decoded, check_size, decode, rejection, to_rgb

ImageLike: TypeAlias = str | Path | bytes | BinaryIO | Image.Image | NDArray[np.uint8]
"""A path, the content of a file, an open binary file, a PIL image, or a uint8 array: grey
``(H, W)``, RGB ``(H, W, 3)`` or RGB with transparency ``(H, W, 4)``."""


def read_image(given: ImageLike) -> Decoded:
    """Read an image, whatever it is given as, by the rules for files.

    Raises:
        RejectedImage: if it is no image that is accepted, with a one-line reason.
        OSError: for errors of the file system.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():  # reading a pipe could block
            raise RejectedImage("no such file")
        return decode(path, 1)
    if isinstance(given, bytes):
        return decode(given, 1)
    try:
        if isinstance(given, np.ndarray):
            channels = given.shape[2:]
            if (
                given.dtype != np.uint8
                or given.ndim not in (2, 3)
                or channels not in ((), (3,), (4,))
            ):
                raise RejectedImage(
                    "an array must be (H, W), (H, W, 3) or (H, W, 4) uint8 grey levels, not "
                    f"{given.shape} {given.dtype}"
                )
            given = Image.fromarray(np.ascontiguousarray(given))
        if isinstance(given, Image.Image):
            check_size(given.size, 1)
            if given.mode in ("I", "F"):
                raise RejectedImage(
                    f"grey levels of mode {given.mode} have no known range: convert them to 8 bits"
                )
            # Pillow takes the further views and previews of a photograph for frames, too.
            if getattr(given, "is_animated", False) and given.format != "MPO":
                raise RejectedImage("an animation, not a single image: give a copy of one frame")
            given.load()
            exif = given.info.get("exif")
            value = read_orientation(exif).value if isinstance(exif, bytes) else 1
            return Decoded(to_rgb(given, value), "", "")
        content = given.read(MAX_BYTES + 1) if hasattr(given, "read") else None
    except (RejectedImage, MemoryError):
        raise
    except Exception as error:  # of a lazily opened image or a file object of any kind
        raise rejection(error) from error
    if not isinstance(content, bytes):
        raise RejectedImage(
            f"{type(given).__name__} is no image: give a path, bytes, a binary file, a PIL image "
            "or an array"
        )
    return decode(content, 1)
