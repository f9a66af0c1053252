"""Image files below a folder, in a stable order, what is passed over, and recorded provenance.

Content decides what is an image, not the suffix. Links are not followed, because they can lead
outside the folder, in circles, or to an image that is listed anyway; only the folder itself may be
one. Hidden files and what macOS and Windows leave behind are no images. All of these are counted.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forensics.errors import UserError
from forensics.images.decode import SUFFIXES
from forensics.images.kinds import START_BYTES, other_kind, read_format

PROVENANCE = "source.json"
"""The file with the provenance of images made by this project."""

MANIFEST = "manifest.parquet"
"""The file with the provenance of images prepared by this project."""

LINK = "link"
SPECIAL = "special file"
HIDDEN = "hidden file"
LEFTOVER = "macOS or Windows system file"
UNREADABLE = "unreadable file"
OTHER = "other file"

_LEFTOVERS = frozenset(
    {"__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}
    | {"$recycle.bin", "system volume information"}
)


class ImageFile(NamedTuple):
    """Path, size and modification time of a source's file, to detect changes."""

    path: str
    bytes: int
    mtime_ns: int


class Listing(NamedTuple):
    """The files below a folder.

    Attributes:
        images: the image files, sorted by relative path.
        passed_over: number of all other files and links by reason.
    """

    images: list[ImageFile]
    passed_over: Counter[str]


class Entry(NamedTuple):
    """A file or link below a folder.

    Attributes:
        path: its path relative to the folder.
        reason: the reason to pass it over without opening it, or "".
        found: the directory entry.
    """

    path: str
    reason: str
    found: os.DirEntry[str]


def walk(folder: Path) -> Iterator[Entry]:
    """Find the files and links below a folder, in any order.

    Hidden folders, those left by macOS or Windows, and linked folders are one entry each.

    Raises:
        OSError: if a folder cannot be read.
    """

    def below(folder: str, prefix: str) -> Iterator[Entry]:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if reason := unwanted(entry.name):
                    yield Entry(path, reason, entry)
                elif entry.is_symlink():
                    yield Entry(path, LINK, entry)
                elif entry.is_dir():
                    yield from below(entry.path, f"{path}/")
                else:
                    yield Entry(path, "" if entry.is_file() else SPECIAL, entry)

    return below(str(folder), "")


def list_images(folder: Path) -> Listing:
    """List the image files below a folder.

    A file with a suffix of `SUFFIXES` is listed unread, to be decoded or rejected with a reason;
    any other is listed if it begins as a JPEG, PNG or WebP file does.

    Raises:
        OSError: if a folder cannot be read.
    """
    images, passed_over = [], Counter[str]()
    for path, reason, entry in walk(folder):
        if not reason and f".{path.rpartition('.')[2].lower()}" not in SUFFIXES:
            reason = _kind(entry.path)
        if reason:
            passed_over[reason] += path not in (PROVENANCE, MANIFEST)
        else:
            stat = entry.stat()
            images.append(ImageFile(path, stat.st_size, stat.st_mtime_ns))
    return Listing(sorted(images), +passed_over)


def _kind(path: str) -> str:
    """What a file is, by its first bytes; "" for JPEG, PNG and WebP."""
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except PermissionError:
        return UNREADABLE
    if read_format(start):
        return ""
    kind = other_kind(start)
    return kind.name if kind else OTHER


def unwanted(name: str) -> str:
    """Reason to pass over a file or folder by its name, `HIDDEN` or `LEFTOVER`, or ""."""
    if name.lower() in _LEFTOVERS or name.startswith("._"):
        return LEFTOVER
    return HIDDEN if name.startswith(".") else ""


def counted(passed_over: Counter[str]) -> str:
    """Passed-over files as text: «3 files passed over: 2 links, 1 HEIC»."""

    def some(count: int, what: str) -> str:
        # Formats, such as HEIC, have no plural.
        return f"{count} {what}{'s' if count != 1 and what[-1].islower() else ''}"

    reasons = ", ".join(some(count, reason) for reason, count in passed_over.most_common())
    return f"{some(passed_over.total(), 'file')} passed over: {reasons}"


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
