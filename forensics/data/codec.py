"""The real images' own codec, for generated images: `forensics.images.geometry.Match.codec`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from forensics.compute import in_order
from forensics.errors import UserError
from forensics.images.containers import RejectedImage
from forensics.images.listing import as_text, list_images
from forensics.images.metadata import read_metadata

_AT_ONCE = 256


def jpeg_qualities(folders: Mapping[str, Path], count: int | None) -> tuple[int, ...]:
    """Estimate the JPEG qualities of sources from their files' quantisation tables.

    Args:
        folders: folder by name of the source.
        count: number of files of each source, the first ones: those of training, since a test image
            must not decide anything. All if None.

    Returns:
        The estimated qualities, 1 to 100, ascending, one for each readable file.

    Raises:
        UserError: if a file is no JPEG, or there is none.
    """
    found: list[int] = []
    for name, folder in folders.items():
        files = [folder / file.path for file in list_images(folder)[0][:count]]
        for path, quality in zip(files, in_order(_quality, files, _AT_ONCE), strict=True):
            if quality is None:
                raise UserError(
                    "dataset.match=codec saves generated images as the real ones are, as JPEG, but "
                    f"{as_text(str(path))} of {name} is none: use dataset.match=jpeg, or real "
                    "images as their camera saved them.",
                    key="dataset.match",
                )
            found += [quality] if quality else []
    if not found:
        raise UserError(
            f"dataset.match=codec found no JPEG among the real images of {', '.join(folders)}: put "
            "images there, or leave it out.",
            key="dataset.match",
        )
    return tuple(sorted(found))


def _quality(path: Path) -> int | None:
    """Quality of a JPEG; 0 if it cannot be read, which the decoder will report; None otherwise."""
    try:
        return read_metadata(path).jpeg_quality
    except RejectedImage:
        return 0


def quality_of(sha256: str, qualities: Sequence[int]) -> int:
    """Choose the quality of a file, with equal chances of each over the possible sha256.

    Args:
        sha256: of the file, in hexadecimal.
        qualities: as of `jpeg_qualities`, not empty.
    """
    return qualities[int(sha256, 16) * len(qualities) >> 256]
