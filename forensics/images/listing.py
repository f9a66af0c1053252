"""Image files below a folder, in a stable order, and their recorded provenance."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forensics.errors import UserError
from forensics.images.decode import SUFFIXES

PROVENANCE = "source.json"
"""The file with the provenance of images made by this project."""


class ImageFile(NamedTuple):
    """Path, size and modification time of a source's file, to detect changes."""

    path: str
    bytes: int
    mtime_ns: int


def list_images(folder: Path) -> list[ImageFile]:
    """List the image files below a folder, sorted by relative path.

    Hidden files, files without a suffix of `SUFFIXES`, links, which could lead outside the folder,
    and pipes and devices, which could be endless, are skipped.

    Raises:
        OSError: if the folder cannot be read.
    """

    def walk(folder: str, prefix: str) -> Iterator[ImageFile]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.is_symlink():
                    continue
                if entry.is_dir():
                    yield from walk(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file() and f".{entry.name.rpartition('.')[2].lower()}" in SUFFIXES:
                    stat = entry.stat()
                    yield ImageFile(prefix + entry.name, stat.st_size, stat.st_mtime_ns)

    return sorted(walk(str(folder), ""))


def as_text(name: str) -> str:
    """A file's name as valid UTF-8 text, with other bytes escaped."""
    return name.encode(errors="backslashreplace").decode()


def read_origins(folder: Path) -> dict[str, str] | None:
    """Read the originals of the images of a folder from its ``source.json``.

    Returns:
        The sha256 of the original by the name of the image; None if none is recorded.

    Raises:
        UserError: if ``source.json`` cannot be read.
    """
    path = folder / PROVENANCE
    try:
        content = json.loads(path.read_text())
        made_from = content.get("made_from") if isinstance(content, dict) else None
        return made_from and {name: original["sha256"] for name, original in made_from.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} does not give the originals of the images ({error}): write the source again "
            "with generate.py, or remove the file if its images were not made from others.",
            key=str(path),
        ) from error
