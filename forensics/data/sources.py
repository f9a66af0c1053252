"""Sources: ordered sets of images of one origin, decoded and resized once into rows on disk.

The rows of a source are one file, ``(count, size, size, 3)`` uint8, that is mapped into memory,
beside a manifest of its files in parquet. They are rebuilt whenever a file of the folder, a
setting or the decode policy changes.
"""

import hashlib
import json
import logging
import mmap
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from forensics.compute import in_order
from forensics.errors import UserError
from forensics.files import staged
from forensics.images.decode import POLICY_VERSION, RejectedImage, decode
from forensics.images.duplicates import NearDuplicates, groups, near_duplicates, perceptual_hashes
from forensics.images.geometry import Match, ResizeFilter, matched, to_square
from forensics.images.listing import ImageFile, as_text, list_images, read_origins
from forensics.progress import Progress

log = logging.getLogger(__name__)


_DIGEST_BYTES = 16
_ROWS, _MANIFEST = "rows.bin", "manifest.parquet"
_CHECKED_ROWS = 32
_AT_ONCE = 256


class Preparation(NamedTuple):
    """Settings of the conversion of an image into a row.

    Attributes:
        image_size: height and width of a row in pixels.
        resize_filter: the antialiased filter.
        min_side: files with a shorter side in pixels are rejected.
        max_rejected_share: a source with a larger share of rejected files stops the run.
        match: the processing applied to all images alike.
    """

    image_size: int
    resize_filter: ResizeFilter
    min_side: int
    max_rejected_share: float
    match: Match = Match.none


class Source:
    """The prepared images of one folder, in the order of their relative paths.

    Attributes:
        name: the source's name.
        paths: relative paths of the accepted files, one per row.
        digests: 16-byte hashes of the rows' pixels; equal rows have equal digests.
        hashes: ``(n,)`` by `forensics.images.duplicates.perceptual_hashes`.
        sha256: sha256 of each file, in hexadecimal, one per row.
        originals: sha256 of the file that each image was made from, None where unknown; None if
            it is unknown for the entire source.
        rejected: relative path and reason of each rejected file.
        flagged: relative path and irregularity of each accepted file that has one.
    """

    def __init__(
        self, name: str, cache: Path, image_size: int, made_from: Mapping[str, str] | None = None
    ) -> None:
        """Map rows that `open_source` has built.

        Args:
            name: the source's name.
            cache: folder of its rows.
            image_size: height and width of the rows.
            made_from: sha256 of the file that an image was made from, by the image's relative path.

        Raises:
            _CorruptCache: if the cache is corrupt.
        """
        self.name = name
        try:
            manifest = pq.read_table(cache / _MANIFEST)
            accepted = manifest.filter(pc.is_valid(manifest["digest"]))
            self.paths = cast(list[str], accepted["path"].to_pylist())
            self.digests = cast(list[bytes], accepted["digest"].to_pylist())
            self.hashes: NDArray[np.uint64] = accepted["hash"].to_numpy()
            self.sha256 = cast(list[str], accepted["sha256"].to_pylist())
            self.rejected = _pairs(manifest, "rejected")
            self.flagged = _pairs(manifest, "flag")
            with (cache / _ROWS).open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            shape = (len(self.paths), image_size, image_size, 3)
            self.rows: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8).reshape(shape)
            self.originals = made_from and [made_from.get(path) for path in self.paths]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise _CorruptCache(str(error)) from error
        # A few rows reveal a truncated or zeroed file; reading all would take as long as training.
        for row in np.linspace(0, len(self) - 1, min(len(self), _CHECKED_ROWS)).astype(int):
            if _digest(self.rows[row]) != self.digests[row]:
                raise _CorruptCache(f"row {row} does not match its digest")

    def __len__(self) -> int:
        return len(self.paths)

    def forget_pages(self) -> None:
        """Release the mapped pages, so that resident memory does not grow with the rows read.

        They stay in the system's page cache; reading them again costs a page fault, no disk access.
        """
        if hasattr(mmap, "MADV_DONTNEED"):  # not on every platform
            self._map.madvise(mmap.MADV_DONTNEED)


class _CorruptCache(Exception):
    """The cache's content differs from what was written."""


def open_source(name: str, folder: Path, preparation: Preparation, cache_dir: Path) -> Source:
    """Open the rows of a folder, building them first if they are missing or out of date.

    If several processes need the same rows, one builds them and the others wait.

    Args:
        name: the source's name, for messages and scores.
        folder: folder of its images.
        preparation: settings of the conversion into rows.
        cache_dir: folder of prepared images; created if missing.

    Raises:
        UserError: if the folder is missing or has no image, if more files than allowed are
            rejected, or if the cache cannot be written.
    """
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder} for the source {name}: put images there, or correct "
            f"dataset.root (train.py also takes +dataset.folders.{name}=FOLDER)."
        )
    files = list_images(folder)
    if not files:
        raise UserError(
            f"The folder {folder} of the source {name} has no .jpg, .png or .webp file "
            f"(links are not followed): put images there, or correct dataset.root (train.py also "
            f"takes +dataset.folders.{name}=FOLDER)."
        )
    size, filter_, min_side, _, match = preparation
    policy = f"{POLICY_VERSION}|{size}|{filter_}|{min_side}|{match}"
    place = _hash(f"{folder.resolve()}|{policy}".encode())[:12]
    columns = [field.name for field in _MANIFEST_FIELDS]
    content = _hash(json.dumps([policy, columns, files]).encode())[:24]
    made_from = read_origins(folder)
    home = cache_dir / f"{name}-{place}"
    cache = home / content
    try:
        source = _open(name, cache, size, made_from)
        if source is None:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home / "lock", name):
                source = _open(name, cache, size, made_from)
                if source is None:
                    for outdated in home.iterdir():
                        if outdated.is_dir():
                            shutil.rmtree(outdated)
                    with staged(cache) as unfinished:
                        _build(folder, files, preparation, unfinished, f"prepare {name}")
                    source = Source(name, cache, size, made_from)
    except OSError as error:
        raise UserError(
            f"Cannot store the prepared images of {name} in {home} ({error.strerror or error}): "
            "free disk space or name another folder with cache_dir=FOLDER."
        ) from error
    share = len(source.rejected) / len(files)
    if share > preparation.max_rejected_share:
        path, reason = source.rejected[0]
        raise UserError(
            f"{len(source.rejected)} of the {len(files)} files in {folder} cannot be used, the "
            f"first {path!r} ({reason}): fix or remove those listed in {cache / _MANIFEST}, or "
            f"allow more with dataset.max_rejected_share."
        )
    if source.rejected:
        log.warning(
            "%s: %d of %d files left out, the first %r (%s); all are listed in %s",
            name, len(source.rejected), len(files), *source.rejected[0], cache / _MANIFEST,
        )  # fmt: skip
    return source


def repetitions(sources: list[Source]) -> tuple[NearDuplicates, list[NDArray[np.int64]]]:
    """Find near-duplicates, copies included, within and between sources.

    Returns:
        Pairs of near-duplicates, whose positions count the rows of all sources, concatenated; and
        the group of each row, by source: rows of one group show the same image.
    """
    starts = np.cumsum([0, *map(len, sources)])

    def images(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        owners = np.searchsorted(starts, positions, side="right") - 1
        found = zip(owners, positions - starts[owners], strict=True)
        rows = np.stack([sources[owner].rows[row] for owner, row in found])
        for source in sources:
            source.forget_pages()
        return rows

    near = near_duplicates(np.concatenate([source.hashes for source in sources]), images)
    # `near_duplicates` misses copies without any contrast.
    digests = [digest for source in sources for digest in source.digests]
    first: dict[bytes, int] = {}
    copies = [
        (first[digest], position)
        for position, digest in enumerate(digests)
        if first.setdefault(digest, position) != position
    ]
    originals, duplicates = np.array(copies, np.int64).reshape(-1, 2).T
    pairs = NearDuplicates(
        np.concatenate([near.first, originals]),
        np.concatenate([near.second, duplicates]),
        np.concatenate([near.mirrored, np.zeros(len(copies), bool)]),
    )
    return pairs, np.split(groups(len(digests), pairs), starts[1:-1])


def _open(
    name: str, cache: Path, image_size: int, made_from: Mapping[str, str] | None
) -> Source | None:
    """The source if its cache is complete, None if it has to be built."""
    if not cache.is_dir():
        return None
    try:
        return Source(name, cache, image_size, made_from)
    except _CorruptCache as error:
        log.warning("%s: the prepared images in %s are corrupt (%s)", name, cache, error)
        return None


class _locked:
    """Hold a lock file; it is released when its process ends, for whatever reason."""

    def __init__(self, path: Path, name: str) -> None:
        self._lock, self._name = FileLock(path), name

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info("%s: waiting for another process that prepares the same images", self._name)
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _build(
    folder: Path, files: list[ImageFile], preparation: Preparation, unfinished: Path, label: str
) -> None:
    """Decode and resize the files into the folder ``unfinished``."""

    def prepare(file: ImageFile) -> tuple[NDArray[np.uint8] | None, str]:
        if as_text(file.path) != file.path:
            return None, "its name is not valid UTF-8"
        try:
            image, flag, _ = decode(folder / file.path, preparation.min_side)
        except RejectedImage as error:
            return None, str(error)
        except OSError as error:
            raise UserError(
                f"{folder / file.path} cannot be read ({error.strerror}): make it readable, or "
                "remove it."
            ) from error
        square = to_square(image, preparation.image_size, preparation.resize_filter)
        return matched(square, preparation.match, preparation.resize_filter), flag

    table: dict[str, list[object]] = {field.name: [] for field in _MANIFEST_FIELDS}
    with (unfinished / _ROWS).open("wb") as out, Progress(label, len(files)) as progress:
        for file, (row, note) in zip(files, in_order(prepare, files, _AT_ONCE), strict=True):
            if row is not None:
                out.write(row.tobytes())
            accepted = row is not None
            table["path"].append(as_text(file.path))
            table["bytes"].append(file.bytes)
            table["mtime_ns"].append(file.mtime_ns)
            table["digest"].append(None if row is None else _digest(row))
            table["sha256"].append(None if row is None else sha256_of(folder / file.path))
            table["hash"].append(None if row is None else perceptual_hashes(row[None])[0])
            table["rejected"].append(None if accepted else note)
            table["flag"].append(note if accepted and note else None)
            progress.advance()
        _to_disk(out)
    if not any(table["digest"]):
        raise UserError(
            f"None of the {len(files)} files in {folder} can be used, the first is "
            f"{files[0].path!r} ({table['rejected'][0]}): put JPEG, PNG or WebP images there."
        )
    with (unfinished / _MANIFEST).open("wb") as out:
        pq.write_table(pa.table(table, schema=pa.schema(_MANIFEST_FIELDS)), out)
        _to_disk(out)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_hash(source: Source, *rows: NDArray[np.int64]) -> str:
    """A hash of the pixels of lists of rows: equal for the same images in the same order."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for of_part in rows:
        digest.update(len(of_part).to_bytes(8))
        for row in of_part:
            digest.update(source.digests[row])
    return digest.hexdigest()


def _to_disk(file: BinaryIO) -> None:
    """Wait until a file is on the disk, so that a later rename cannot precede its content."""
    file.flush()
    os.fsync(file.fileno())


_MANIFEST_FIELDS: list["pa.Field[Any]"] = [
    pa.field("path", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("mtime_ns", pa.int64()),
    pa.field("digest", pa.binary(_DIGEST_BYTES)),
    pa.field("sha256", pa.string()),
    pa.field("hash", pa.uint64()),
    pa.field("rejected", pa.string()),
    pa.field("flag", pa.string()),
]


def _pairs(manifest: pa.Table, column: str) -> list[tuple[str, str]]:
    """Path and text of the files with a text in a column of the manifest."""
    noted = manifest.filter(pc.is_valid(manifest[column]))
    pairs = zip(noted["path"].to_pylist(), noted[column].to_pylist(), strict=True)
    return cast(list[tuple[str, str]], list(pairs))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content).hexdigest()


def _digest(row: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(row.data, digest_size=_DIGEST_BYTES).digest()
