"""Conversion of a folder, an archive or parquet files into a source.

Images keep their bytes and are numbered in the order of their original names. Names in an archive
are never used as paths, links are not followed, and the unpacked size of an archive is bounded.
`forensics.images.decode.decode` accepts or rejects each file, and the manifest records the
outcome. An interrupted conversion resumes after the last recorded file.
"""

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from forensics.compute import in_order
from forensics.data.ingest.hub import SCHEME, download
from forensics.data.ingest.items import AT_ONCE, Item, damage_told
from forensics.data.ingest.readers import open_input
from forensics.errors import UserError
from forensics.files import Record, atomic, remove_unfinished
from forensics.images.containers import RejectedImage
from forensics.images.decode import POLICY_VERSION, decode
from forensics.images.duplicates import perceptual_hashes
from forensics.images.geometry import ResizeFilter, to_square
from forensics.images.listing import MANIFEST, as_text
from forensics.images.metadata import read_metadata
from forensics.progress import Progress

log = logging.getLogger(__name__)

_HASHED_SIZE = 128
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


class Prepared(NamedTuple):
    """Outcome of preparing an input.

    Attributes:
        folder: the source's folder.
        accepted: number of images in it.
        rejected: name in the input and reason of each rejected file.
        passed_over: number of other files by reason, see `forensics.images.listing`.
        folders: number of folders of the input that the files lie in.
    """

    folder: Path
    accepted: int
    rejected: list[tuple[str, str]]
    passed_over: Counter[str]
    folders: int


def prepare(
    source: str,
    given: str | Path,
    root: Path,
    min_side: int,
    only: Sequence[str] = (),
    label: Sequence[str] = (),
) -> Prepared:
    """Make a source from a folder, a zip or tar archive, parquet, or a Hugging Face data set.

    ``<root>/<source>`` is either complete or absent. The state of an interrupted call is kept
    beside it in ``.<source>.unfinished``: the next call with the same input resumes from it, one
    with another input starts over. Its ``manifest.parquet`` has a row for every file of the input:
    ``path`` (null if rejected), ``original`` (name in the input), ``sha256``, ``bytes``,
    ``format``, ``width``, ``height``, ``mode``, ``jpeg_quality``, ``orientation`` and ``exif`` as
    in `read_metadata`, ``hash`` as in `perceptual_hashes`, ``flag`` (an irregularity of an accepted
    file) and ``error`` (the reason of a rejection).

    Args:
        source: the source's name.
        given: the input; it is only read. Hidden files in it, and those of macOS and Windows, are
            passed over. For an input that starts with ``hf://`` see
            `forensics.data.ingest.hub.download`.
        root: folder with one folder for each source.
        min_side: images with a shorter side in pixels are rejected.
        only: folders of the input that are chosen, by their names at any depth, such as ``1_fake``
            or ``test/1_fake``; all if empty.
        label: labels of parquet rows that are chosen, ``VALUE`` or ``COLUMN=VALUE``; all if empty.

    Raises:
        UserError: if the input is missing, damaged, a decompression bomb or without any usable
            image, if real and generated images meet in what is chosen of it, or if the source
            exists already.
    """
    if not source or "/" in source or source.startswith("."):
        raise UserError(f"{source!r} is not a source name: name a folder to create in {root}.")
    on_hub = str(given).startswith(SCHEME)
    if not on_hub and not (Path(given).is_dir() or Path(given).is_file()):
        raise UserError(f"There is no {given}: name a folder, zip, tar or parquet with images.")
    folder, unfinished = root / source, Unfinished(root / f".{source}.unfinished")
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f".{source}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"Another process is preparing {folder}: wait until it ends.") from None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            unfinished.remove()  # left over if the process was killed at the very end
            raise UserError(f"{folder} exists already: remove it, or give the source another name.")
        downloaded = download(str(given), unfinished.downloads) if on_hub else Path(given)
        try:
            prepared = _fill(unfinished, folder, downloaded, min_side, only, label)
        except UserError:
            unfinished.remove()  # the same input would give the same error
            raise
        unfinished.images.replace(folder)
        unfinished.remove()
        return prepared
    except (KeyboardInterrupt, OSError):
        log.warning("%s is not complete: repeat the command to resume.", folder)
        raise
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class Unfinished:
    """An unfinished source: images, and a record with a row for each file of the input.

    A row counts only if its image file has the recorded sha256.

    Attributes:
        images: the folder that becomes the source's.
        downloads: download folder of a Hugging Face data set.
        record: record of the completed rows.
    """

    def __init__(self, folder: Path) -> None:
        self.images, self.downloads = folder / "images", folder / "downloads"
        self._folder, self.record = folder, Record(folder / "record.jsonl")

    def begin(self, of: list[Any]) -> list[dict[str, Any]]:
        """Resume the preparation of an input, or start over; returns the completed rows."""
        begun, done = self.record.read()
        rows = [row for row in done if self._is_stored(row)] if begun == of else []
        if not rows:
            shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.images)
        self.record.begin(of, rows)
        return rows

    def _is_stored(self, row: dict[str, Any]) -> bool:
        if "path" not in row:
            return True
        image = self.images / row["path"]
        if not image.exists():
            return False
        digest: str = row["sha256"]
        return hashlib.sha256(image.read_bytes()).hexdigest() == digest

    def remove(self) -> None:
        """Remove the folder of the unfinished source."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _fill(
    unfinished: Unfinished,
    folder: Path,
    given: Path,
    min_side: int,
    only: Sequence[str],
    label: Sequence[str],
) -> Prepared:
    """Write images and manifest of the future ``folder``."""
    with damage_told(given):
        items = open_input(given, only, label)
    digits = max(6, len(str(items.total - 1)))
    # Lists, as the record's JSON returns them.
    files = [list(file) for file in items.files]
    chosen = [*only], [*label]
    about = [as_text(str(given.resolve())), files, *chosen, min_side, POLICY_VERSION]
    rows = unfinished.begin(about)

    def store(item: Item) -> dict[str, Any]:
        return _store(item, unfinished.images / f"{item.position:0{digits}d}", min_side)

    done = {row["position"] for row in rows}
    with Progress(f"prepare {folder.name}", items.total - len(done)) as progress:
        for row in unfinished.record.keep(in_order(store, items.each(done), AT_ONCE)):
            rows.append(row)
            progress.advance()
    # An archive may list its files in any order.
    rows.sort(key=lambda row: row.pop("position"))
    rejected = [(row["original"], row["error"]) for row in rows if "error" in row]
    if len(rejected) == len(rows):
        first = f", the first is {rejected[0][0]!r} ({rejected[0][1]})" if rejected else ""
        raise UserError(
            f"None of the {len(rows)} files in {as_text(str(given))} can be used{first}: give an "
            "input with JPEG, PNG or WebP images.",
            key=str(given),
        )
    with atomic(unfinished.images / MANIFEST) as file:
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(_FIELDS)), file)
    accepted = len(rows) - len(rejected)
    return Prepared(folder, accepted, rejected, items.passed_over, items.folders)


def _store(item: Item, stem: Path, min_side: int) -> dict[str, Any]:
    """Write a file if it is accepted; returns its row of the manifest."""
    row: dict[str, Any] = {"position": item.position, "original": as_text(item.name)}
    if item.rejected:
        return row | {"error": item.rejected}
    row |= {"sha256": hashlib.sha256(item.content).hexdigest(), "bytes": len(item.content)}
    unnamed = stem.with_suffix(".part")
    unnamed.write_bytes(item.content)
    try:
        image, flag, _ = decode(unnamed, min_side)
    except RejectedImage as error:
        unnamed.unlink()
        return row | {"error": str(error)}
    metadata = read_metadata(unnamed)
    path = unnamed.rename(stem.with_suffix(_SUFFIXES[metadata.format]))
    square = to_square(image, _HASHED_SIZE, ResizeFilter.lanczos)
    return (
        row
        | metadata._asdict()
        | {"path": path.name, "hash": int(perceptual_hashes(square[None])[0]), "flag": flag or None}
    )


_FIELDS: list["pa.Field[Any]"] = [
    pa.field("path", pa.string()),
    pa.field("original", pa.string()),
    pa.field("sha256", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("format", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("mode", pa.string()),
    pa.field("jpeg_quality", pa.int16()),
    pa.field("orientation", pa.int8()),
    pa.field("exif", pa.bool_()),
    pa.field("hash", pa.uint64()),
    pa.field("flag", pa.string()),
    pa.field("error", pa.string()),
]
