"""Sources: ordered sets of images of one origin, decoded and resized once into rows on disk.

The rows of a source are one file, ``(count, size, size, 3)`` uint8, that is mapped into memory,
beside a manifest of its files in parquet. Every row is compared with its digest when a source is
opened, at about 0.1 ms a row of 128x128 pixels and core. `forensics.data.opening` finds or makes
the rows of a folder; those in object storage are of `forensics.data.shards`.
"""

import hashlib
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from forensics.compute import in_order
from forensics.data.codec import quality_of
from forensics.data.columns import Column
from forensics.data.shards import DIGEST_BYTES, Rows, digest_of
from forensics.errors import UserError
from forensics.files import sha256_of
from forensics.images.containers import RejectedImage
from forensics.images.decode import decode
from forensics.images.duplicates import perceptual_hashes
from forensics.images.geometry import Match, ResizeFilter, View, matched, recompressed, to_square
from forensics.images.listing import ImageFile, as_text
from forensics.progress import Progress

_NOTHING = mmap.mmap(-1, 1)
"""In the place of the rows of a source without any: an empty file cannot be mapped."""
ROWS, MANIFEST = "rows.bin", "manifest.parquet"
_CHECKED_AT_ONCE = 64
_SHOWN_REASONS = 3
_SIZE = re.compile(r"^\d+x\d+ pixels,? (?=each|are)")
_SMALL = re.compile(r"\d+x\d+ pixels, each side must")
_AT_ONCE = 256


class Preparation(NamedTuple):
    """Settings of the conversion of an image into a row.

    Attributes:
        image_size: height and width of a row in pixels.
        resize_filter: the antialiased filter.
        min_side: files with a shorter side in pixels are rejected.
        max_rejected_share: a source with a larger share of rejected files stops the run.
        match: the processing applied to all images alike.
        view: how the centre square becomes a row.
        qualities: for `Match.codec`, the JPEG qualities that images of a source are saved with
            first, by name of the source; see `forensics.data.codec`.
        may_be_small: files that are too small are no reason to stop, not even if all are.
    """

    image_size: int
    resize_filter: ResizeFilter
    min_side: int
    max_rejected_share: float
    match: Match = Match.none
    view: View = View.resize
    qualities: Mapping[str, Sequence[int]] = MappingProxyType({})
    may_be_small: bool = False


class Needed(NamedTuple):
    """Numbers of usable images that a run needs of a folder.

    Attributes:
        first: the first ones, in the order of relative paths.
        last: the last ones.
    """

    first: int
    last: int


class Source:
    """The prepared images of one folder, in the order of their relative paths.

    Of a folder of which a run needs only the first and last images, it may have only those.

    Attributes:
        name: the source's name.
        files: number of image files in its folder, of which it may have only some.
        paths: relative paths of the accepted files, one per row.
        digests: 16-byte hashes of the rows' pixels; equal rows have equal digests.
        hashes: ``(n,)`` by `forensics.images.duplicates.perceptual_hashes`.
        sha256: sha256 of each file, in hexadecimal, one per row.
        originals: sha256 of the file that each image was made from, None where unknown; None if
            it is unknown for the entire source.
        qualities: JPEG qualities that its files were saved with first; empty for none.
        manifest: table of its files.
        rows: ``(n, image_size, image_size, 3)`` uint8.
        rejected: relative path and reason of each rejected file.
        flagged: relative path and irregularity of each accepted file that has one.
    """

    def __init__(
        self,
        name: str,
        place: Path | str,
        manifest: pa.Table,
        files: int,
        made_from: Mapping[str, str] | None,
        rows: Rows,
        memory: mmap.mmap = _NOTHING,
    ) -> None:
        """Take rows that are open.

        Args:
            name: the source's name.
            place: where its manifest is.
            manifest: the manifest, of `MANIFEST_FIELDS`.
            files: number of image files in its folder.
            made_from: sha256 of the file that an image was made from, by the image's relative path.
            rows: a row for each accepted file.
            memory: what rows are mapped to.
        """
        self.name, self.manifest, self.files = name, place, files
        self.rows, self._map = rows, memory
        self.qualities: Sequence[int] = ()
        accepted = manifest.filter(pc.is_valid(manifest["digest"]))
        self.paths = Column[str](accepted["path"])
        self.digests = Column[bytes](accepted["digest"])
        self.hashes: NDArray[np.uint64] = accepted["hash"].to_numpy()
        self.sha256 = Column[str](accepted["sha256"])
        self.originals = made_from and [made_from.get(path) for path in self.paths]
        self.rejected = _pairs(manifest, "rejected")
        self.flagged = _pairs(manifest, "flag")

    def __len__(self) -> int:
        return len(self.paths)

    def left_out(self) -> Counter[str]:
        """Number of rejected files by reason, without their sizes in pixels."""
        return Counter(_SIZE.sub("", reason) for _, reason in self.rejected)

    def first_damaged(self, start: int) -> int | None:
        """The first of `_CHECKED_AT_ONCE` rows that does not match its digest."""
        expected = self.digests.values.slice(start, _CHECKED_AT_ONCE).to_pylist()
        found = zip(expected, self.rows[start : start + _CHECKED_AT_ONCE], strict=True)
        return next(
            (start + n for n, (one, row) in enumerate(found) if digest_of(row) != one), None
        )

    def forget_pages(self) -> None:
        """Release the mapped pages, so that resident memory does not grow with the rows read.

        They stay in the system's page cache; reading them again costs a page fault, no disk access.
        """
        if hasattr(mmap, "MADV_DONTNEED"):  # not on every platform
            self._map.madvise(mmap.MADV_DONTNEED)


class CorruptCache(Exception):
    """The cache's content differs from what was written."""


def mapped(
    name: str, cache: Path, image_size: int, files: int, made_from: Mapping[str, str] | None
) -> Source:
    """Open the rows that `write_rows` has written, mapped into memory.

    Args:
        name: the source's name.
        cache: folder of its rows.
        image_size: height and width of the rows.
        files: number of image files in its folder.
        made_from: sha256 of the file that an image was made from, by the image's relative path.

    Raises:
        CorruptCache: if the cache is corrupt.
    """
    try:
        with (cache / MANIFEST).open("rb") as file:  # paths may be no UTF-8
            manifest = pq.read_table(file, pre_buffer=False)  # buffers take as much again
        count = len(manifest) - manifest["digest"].null_count
        with (cache / ROWS).open("rb") as file:
            access = mmap.ACCESS_READ
            memory = mmap.mmap(file.fileno(), 0, access=access) if count else _NOTHING
        stored = np.frombuffer(memory, np.uint8) if count else np.empty(0, np.uint8)
        rows: NDArray[np.uint8] = stored.reshape(count, image_size, image_size, 3)
        source = Source(name, cache / MANIFEST, manifest, files, made_from, rows, memory)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise CorruptCache(str(error)) from error
    starts = range(0, len(source), _CHECKED_AT_ONCE)
    for damaged in in_order(source.first_damaged, starts, _AT_ONCE):
        if damaged is not None:
            raise CorruptCache(f"row {damaged} does not match its digest")
    source.forget_pages()
    return source


def write_rows(
    folder: Path,
    files: list[ImageFile],
    preparation: Preparation,
    qualities: Sequence[int],
    needed: Needed,
    unfinished: Path,
    label: str,
) -> None:
    """Decode the needed files, and write their rows and manifest.

    Args:
        folder: the folder of the files.
        files: all of its image files.
        preparation: settings of the conversion into rows.
        qualities: the JPEG qualities of `Preparation.qualities` for this source.
        needed: images to write at least, if there are so many.
        unfinished: an empty folder to write into.
        label: label of the progress.

    Raises:
        UserError: if a file cannot be read, or none can be used.
    """

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
        size, filter_, _, _, match, view, *_ = preparation
        if qualities:
            quality = quality_of(sha256_of(folder / file.path), qualities)
            image = Image.fromarray(recompressed(np.asarray(image), quality))
        return matched(to_square(image, size, filter_, view), match, filter_), flag

    manifest: list[dict[str, Any]] = []
    total = min(needed.first + needed.last, len(files))
    with (unfinished / ROWS).open("wb") as out, Progress(label, total) as progress:

        def add(files: Iterator[ImageFile], count: int) -> int:
            """Write the next usable files; returns how many there were, ``count`` at most."""
            added = 0
            while added < count and (some := list(islice(files, count - added))):
                for file, (row, note) in zip(some, in_order(prepare, some, _AT_ONCE), strict=True):
                    entry = {"path": as_text(file.path), "bytes": file.bytes}
                    entry["mtime_ns"] = file.mtime_ns
                    if row is None:
                        entry["rejected"] = note
                    else:
                        out.write(row.tobytes())
                        entry["digest"] = digest_of(row)
                        entry["sha256"] = sha256_of(folder / file.path)
                        entry["hash"] = perceptual_hashes(row[None])[0]
                        entry["flag"] = note or None
                        added += 1
                    manifest.append(entry)
                    progress.advance()
            return added

        first = add(iter(files), needed.first)
        rest = files[len(manifest) :]
        start = len(manifest)
        last = add(reversed(rest), needed.last)
        manifest[start:] = reversed(manifest[start:])
        _to_disk(out)
    rejected = [(entry["path"], entry["rejected"]) for entry in manifest if "rejected" in entry]
    may_be_empty = preparation.may_be_small and all(is_small(reason) for _, reason in rejected)
    if not (first + last or may_be_empty):
        raise UserError(
            f"None of the {len(files)} files in {as_text(str(folder))} can be used "
            f"({by_reason(rejected)}), the first is {rejected[0][0]!r} ({rejected[0][1]}): put "
            "other images there."
        )
    _reverse_last(unfinished / ROWS, first + last, last)
    with (unfinished / MANIFEST).open("wb") as out:
        pq.write_table(pa.Table.from_pylist(manifest, pa.schema(MANIFEST_FIELDS)), out)
        _to_disk(out)


def _reverse_last(path: Path, count: int, last: int) -> None:
    """Reverse the order of the last of the rows of a file, in place."""
    if not last:
        return
    with path.open("r+b") as file:
        stored = np.memmap(file, np.uint8, "r+")
        rows = stored.reshape(count, -1)[count - last :]
        for row in range(last // 2):
            rows[[row, last - 1 - row]] = rows[[last - 1 - row, row]]
        stored.flush()
        _to_disk(file)


def rows_hash(source: Source, *rows: NDArray[np.int64]) -> str:
    """A hash of the pixels of lists of rows: equal for the same images in the same order."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for of_part in rows:
        digest.update(len(of_part).to_bytes(8))
        digest.update(b"".join(source.digests.take(of_part)))
    return digest.hexdigest()


def _to_disk(file: BinaryIO) -> None:
    """Wait until a file is on the disk, so that a later rename cannot precede its content."""
    file.flush()
    os.fsync(file.fileno())


MANIFEST_FIELDS: list["pa.Field[Any]"] = [
    pa.field("path", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("mtime_ns", pa.int64()),
    pa.field("digest", pa.binary(DIGEST_BYTES)),
    pa.field("sha256", pa.string()),
    pa.field("hash", pa.uint64()),
    pa.field("rejected", pa.string()),
    pa.field("flag", pa.string()),
]


def is_small(reason: str) -> bool:
    """Whether a file was rejected by `forensics.images.decode.check_size` as too small."""
    return bool(_SMALL.match(reason))


def _pairs(manifest: pa.Table, column: str) -> list[tuple[str, str]]:
    """Path and text of the files with a text in a column of the manifest."""
    noted = manifest.filter(pc.is_valid(manifest[column]))
    pairs = zip(noted["path"].to_pylist(), noted[column].to_pylist(), strict=True)
    return cast(list[tuple[str, str]], list(pairs))


def by_reason(rejected: list[tuple[str, str]]) -> str:
    """Number of rejected files by reason, the most frequent first."""
    reasons = Counter(_SIZE.sub("", reason) for _, reason in rejected)
    shown = [f"{count}: {reason}" for reason, count in reasons.most_common(_SHOWN_REASONS)]
    more = reasons.total() - sum(count for _, count in reasons.most_common(_SHOWN_REASONS))
    return "; ".join([*shown, *([f"{more} for other reasons"] if more else [])])
