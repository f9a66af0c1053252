"""Image files below a folder, in a stable order, and what the folder says of their making."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forensics.errors import UserError
from forensics.images.decode import SUFFIXES

PROVENANCE = "source.json"
"""The file that says what made the images of a folder, where a program of this project did."""


class ImageFile(NamedTuple):
    """A file of a source, by what tells that it changed."""

    path: str
    bytes: int
    mtime_ns: int


def list_images(folder: Path) -> list[ImageFile]:
    """List the image files below a folder, sorted by relative path.

    Hidden files and files without a suffix of `SUFFIXES` are passed over, and links are not
    followed: they could lead anywhere. Nor are pipes and devices opened: they could have no end.

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
    """A file's name as it can be written, also where its bytes are no UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def read_origins(folder: Path) -> dict[str, str] | None:
    """What ``source.json`` says of which file each image of a folder was made from.

    Returns:
        The sha256 of the original by the name of the image; None if the folder has none.

    Raises:
        UserError: if it cannot be read.
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
            f"{path} does not say what images were made from ({error}): write the source again "
            "with generate.py, or remove the file if its images were not made from others.",
            key=str(path),
        ) from error
