"""Sources: ordered sets of images of one origin, decoded and resized once into rows on disk.

The rows of a source are one file, ``(count, size, size, 3)`` uint8, that is mapped into memory,
beside a manifest of its files in parquet. They are rebuilt whenever a file of the folder, a
setting or the decode policy changes. Only the first and last images of a folder that a run needs
are decoded. Every row is compared with its digest when a source is opened, at about 0.1 ms a row of
128x128 pixels and core.
"""

import hashlib
import json
import logging
import mmap
import os
import re
import shutil
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
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from forensics.compute import in_order
from forensics.data.codec import quality_of
from forensics.data.columns import Column, numbered
from forensics.data.ingest.classes import refuse_both_classes
from forensics.errors import UserError
from forensics.files import sha256_of, staged
from forensics.images.containers import DAMAGED, RejectedImage
from forensics.images.decode import POLICY_VERSION, decode
from forensics.images.duplicates import (
    NearDuplicates,
    firsts,
    groups,
    near_duplicates,
    perceptual_hashes,
)
from forensics.images.geometry import (
    Match,
    ResizeFilter,
    View,
    matched,
    recompressed,
    to_square,
)
from forensics.images.listing import (
    ImageFile,
    Listing,
    as_text,
    counted,
    list_images,
    read_origins,
)
from forensics.progress import Progress

log = logging.getLogger(__name__)


_DIGEST_BYTES = 16
_NOTHING = mmap.mmap(-1, 1)
"""In the place of the rows of a source without any: an empty file cannot be mapped."""
_ROWS, _MANIFEST = "rows.bin", "manifest.parquet"
_CHECKED_AT_ONCE = 64
_SHOWN_REASONS = 3
_SIZE = re.compile(r"^\d+x\d+ pixels,? (?=each|are)")
_SMALL = re.compile(r"\d+x\d+ pixels, each side must")
_AT_ONCE = 256
_LISTED_AT_ONCE = 4096


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
        rejected: relative path and reason of each rejected file.
        flagged: relative path and irregularity of each accepted file that has one.
    """

    def __init__(
        self,
        name: str,
        cache: Path,
        image_size: int,
        files: int,
        made_from: Mapping[str, str] | None = None,
    ) -> None:
        """Map rows that `open_source` has built.

        Args:
            name: the source's name.
            cache: folder of its rows.
            image_size: height and width of the rows.
            files: number of image files in its folder.
            made_from: sha256 of the file that an image was made from, by the image's relative path.

        Raises:
            _CorruptCache: if the cache is corrupt.
        """
        self.name, self.files = name, files
        self.qualities: Sequence[int] = ()
        try:
            with (cache / _MANIFEST).open("rb") as file:  # paths may be no UTF-8
                manifest = pq.read_table(file)
            accepted = manifest.filter(pc.is_valid(manifest["digest"]))
            self.manifest = cache / _MANIFEST
            self.paths = Column[str](accepted["path"])
            self.digests = Column[bytes](accepted["digest"])
            self.hashes: NDArray[np.uint64] = accepted["hash"].to_numpy()
            self.sha256 = Column[str](accepted["sha256"])
            self.rejected = _pairs(manifest, "rejected")
            self.flagged = _pairs(manifest, "flag")
            with (cache / _ROWS).open("rb") as file:
                access = mmap.ACCESS_READ
                self._map = mmap.mmap(file.fileno(), 0, access=access) if self.paths else _NOTHING
            shape = (len(self.paths), image_size, image_size, 3)
            stored = np.frombuffer(self._map, np.uint8) if self.paths else np.empty(0, np.uint8)
            self.rows: NDArray[np.uint8] = stored.reshape(shape)
            self.originals = made_from and [made_from.get(path) for path in self.paths]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise _CorruptCache(str(error)) from error
        starts = range(0, len(self), _CHECKED_AT_ONCE)
        for damaged in in_order(self._first_damaged, starts, _AT_ONCE):
            if damaged is not None:
                raise _CorruptCache(f"row {damaged} does not match its digest")
        self.forget_pages()

    def __len__(self) -> int:
        return len(self.paths)

    def left_out(self) -> Counter[str]:
        """Number of rejected files by reason, without their sizes in pixels."""
        return Counter(_SIZE.sub("", reason) for _, reason in self.rejected)

    def _first_damaged(self, start: int) -> int | None:
        """The first of the rows from ``start`` on that does not match its digest."""
        expected = self.digests.values.slice(start, _CHECKED_AT_ONCE).to_pylist()
        found = zip(expected, self.rows[start : start + _CHECKED_AT_ONCE], strict=True)
        return next((start + n for n, (one, row) in enumerate(found) if _digest(row) != one), None)

    def forget_pages(self) -> None:
        """Release the mapped pages, so that resident memory does not grow with the rows read.

        They stay in the system's page cache; reading them again costs a page fault, no disk access.
        """
        if hasattr(mmap, "MADV_DONTNEED"):  # not on every platform
            self._map.madvise(mmap.MADV_DONTNEED)


class _CorruptCache(Exception):
    """The cache's content differs from what was written."""


def open_sources(
    folders: Mapping[str, Path],
    preparation: Preparation,
    cache_dir: Path,
    needed: Mapping[str, Needed] | None = None,
    below: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Source]:
    """Open sources that are used together, in their order.

    Args:
        folders: folder by name of the source.
        preparation: as in `open_source`.
        cache_dir: as in `open_source`.
        needed: images needed of each source; all if None, and wherever images were made from
            others, whose originals can be any.
        below: as in `open_source`, by source.

    Raises:
        UserError: as `open_source`, and if one folder is, or lies in, that of another source.
    """
    places = {
        name: [folder / inner for inner in below.get(name, [""])]
        for name, folder in folders.items()
    }
    owners = {place.resolve(): name for name, of in places.items() for place in of}
    for inner, name in ((place, name) for name, of in places.items() for place in of):
        for outer in (inner.resolve(), *inner.resolve().parents):
            other = owners.get(outer, name)
            if name != other:
                place = "the folder" if inner.resolve() == outer else "inside the folder"
                raise UserError(
                    f"The folder {as_text(str(inner))} of the source {name} is {place} of "
                    f"the source {other}: give each source images of its own.",
                    key=name,
                )
    if any(read_origins(place) is not None for of in places.values() for place in of):
        needed = None
    needs = dict(needed or {})
    return [
        open_source(name, folder, preparation, cache_dir, needs.get(name), below.get(name, ()))
        for name, folder in folders.items()
    ]


def _listed(folder: Path, below: Sequence[str]) -> tuple[Listing, dict[str, str] | None]:
    """The images of a source and, if it is recorded, the sha256 of their originals by path."""
    if not below:
        return list_images(folder), read_origins(folder)
    images: list[ImageFile] = []
    passed_over, origins = Counter[str](), dict[str, str]()
    for name in below:
        found, of_images = list_images(folder / name), read_origins(folder / name) or {}
        images += [file._replace(path=f"{name}/{file.path}") for file in found.images]
        passed_over += found.passed_over
        origins |= {f"{name}/{path}": sha256 for path, sha256 in of_images.items()}
    return Listing(sorted(images), passed_over), origins or None


def open_source(
    name: str,
    folder: Path,
    preparation: Preparation,
    cache_dir: Path,
    needed: Needed | None = None,
    below: Sequence[str] = (),
) -> Source:
    """Open the rows of a folder, building them first if they are missing or out of date.

    If several processes need the same rows, one builds them and the others wait.

    Args:
        name: the source's name, for messages and scores.
        folder: folder of its images.
        preparation: settings of the conversion into rows.
        cache_dir: folder of prepared images; created if missing.
        needed: images that the source has at least, if the folder has so many; all if None.
        below: folders below ``folder`` that have the source's images; all if empty.

    Raises:
        UserError: if the folder is missing, has no image or those of both classes, if more files
            than allowed are rejected, or if the cache cannot be written.
    """
    place = as_text(str(folder))
    remedy = (
        f"put images there, or correct dataset.root (train.py also takes "
        f"+dataset.folders.{name}=FOLDER)"
    )
    for inner in (folder, *(folder / path for path in below)):
        if not inner.is_dir():
            raise UserError(
                f"There is no folder {as_text(str(inner))} for the source {name}: {remedy}.",
                key=name,
            )
    (files, passed_over), made_from = _listed(folder, below)
    if passed_over:
        log.info("%s: %s", name, counted(passed_over))
    if not files:
        reasons = f" ({counted(passed_over)})" if passed_over else ""
        raise UserError(
            f"The folder {place} of the source {name} has no JPEG, PNG or WebP file{reasons}: "
            f"{remedy}.",
            key=name,
        )
    folders = {file.path.rpartition("/")[0] for file in files}
    refuse_both_classes(
        folder,
        folders,
        lambda path, class_: (
            f"+dataset.folders.{name}={place}/{path} (or many such folders: forensics prepare "
            f"{name} {place} --only {class_})"
        ),
    )
    size, filter_, min_side, _, match, view, *_ = preparation
    qualities = preparation.qualities.get(name, ())
    policy = f"{POLICY_VERSION}|{size}|{filter_}|{min_side}|{match}"
    if view is View.crop:  # otherwise as before there were views, so that older caches stay valid
        policy = f"{policy}|{view}"
    if qualities:
        policy = f"{policy}|{_hash(bytes(qualities))}"
    whose = "|".join([str(folder.resolve()), policy, *below])
    home = cache_dir / f"{name}-{_hash(as_text(whose).encode())[:12]}"
    content = _hash_of_listing(policy, files)[:24]
    needed = _within(needed or Needed(len(files), 0), len(files))
    try:
        source = _open(name, home, content, needed, size, len(files), made_from)
        if source is None:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home / "lock", name):
                source = _open(name, home, content, needed, size, len(files), made_from)
                if source is None:
                    cached = [*_cached(home, content), needed]
                    needed = _within(Needed(*map(max, zip(*cached, strict=True))), len(files))
                    cache = home / f"{content}-{needed.first}-{needed.last}"
                    with staged(cache) as unfinished:
                        label = f"prepare {name}"
                        _build(folder, files, preparation, qualities, needed, unfinished, label)
                    for outdated in home.iterdir():
                        if outdated.is_dir() and outdated != cache:
                            shutil.rmtree(outdated)
                    source = Source(name, cache, size, len(files), made_from)
    except OSError as error:
        raise UserError(
            f"Cannot store the prepared images of {name} in {as_text(str(home))} "
            f"({error.strerror or error}): free disk space or name another folder with "
            "cache_dir=FOLDER."
        ) from error
    read = len(source) + len(source.rejected)
    unusable = source.rejected
    if preparation.may_be_small:
        unusable = [file for file in unusable if not _is_small(file[1])]
    if len(unusable) / read > preparation.max_rejected_share:
        path, reason = unusable[0]
        raise UserError(
            f"{len(unusable)} of the {read} files in {place} cannot be used "
            f"({_counted(unusable)}), the first {path!r} ({reason}): fix or remove those "
            f"listed in {source.manifest}, or allow more with dataset.max_rejected_share.",
            key="dataset.max_rejected_share",
        )
    if source.rejected:
        log.warning(
            "%s: %d of %d files left out (%s), the first %r (%s); all are listed in %s",
            name, len(source.rejected), read, _counted(source.rejected), *source.rejected[0],
            source.manifest,
        )  # fmt: skip
    damaged = [(path, flag) for path, flag in source.flagged if flag.startswith(DAMAGED)]
    if damaged:
        log.warning(
            "%s: %d of %d files are used though they may be damaged, the first %r (%s); all are "
            "flagged in %s",
            name, len(damaged), read, *damaged[0], source.manifest,
        )  # fmt: skip
    source.qualities = qualities
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
    originals = firsts(np.concatenate(numbered([source.digests for source in sources])))
    copies = np.flatnonzero(originals != np.arange(len(originals)))
    pairs = NearDuplicates(
        np.concatenate([near.first, originals[copies]]),
        np.concatenate([near.second, copies]),
        np.concatenate([near.mirrored, np.zeros(len(copies), bool)]),
    )
    return pairs, np.split(groups(len(originals), pairs), starts[1:-1])


def _within(needed: Needed, count: int) -> Needed:
    """The same need of a folder with ``count`` files; of all of them, it is both times all."""
    return Needed(count, count) if needed.first + needed.last >= count else needed


def _cached(home: Path, content: str) -> Iterator[Needed]:
    """What the complete caches of the same files and settings have."""
    for cache in home.glob(f"{content}-*-*"):
        first, last = cache.name.split("-")[1:]
        yield Needed(int(first), int(last))


def _open(
    name: str,
    home: Path,
    content: str,
    needed: Needed,
    image_size: int,
    files: int,
    made_from: Mapping[str, str] | None,
) -> Source | None:
    """The source if there is a cache of what is needed, None if it has to be built."""
    for first, last in _cached(home, content):
        cache = home / f"{content}-{first}-{last}"
        if first < needed.first or last < needed.last:
            continue
        try:
            return Source(name, cache, image_size, files, made_from)
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
    folder: Path,
    files: list[ImageFile],
    preparation: Preparation,
    qualities: Sequence[int],
    needed: Needed,
    unfinished: Path,
    label: str,
) -> None:
    """Decode and resize the needed files into the folder ``unfinished``."""

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
    with (unfinished / _ROWS).open("wb") as out, Progress(label, total) as progress:

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
                        entry["digest"] = _digest(row)
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
    may_be_empty = preparation.may_be_small and all(_is_small(reason) for _, reason in rejected)
    if not (first + last or may_be_empty):
        raise UserError(
            f"None of the {len(files)} files in {as_text(str(folder))} can be used "
            f"({_counted(rejected)}), the first is {rejected[0][0]!r} ({rejected[0][1]}): put "
            "other images there."
        )
    _reverse_last(unfinished / _ROWS, first + last, last)
    with (unfinished / _MANIFEST).open("wb") as out:
        pq.write_table(pa.Table.from_pylist(manifest, pa.schema(_MANIFEST_FIELDS)), out)
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
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for of_part in rows:
        digest.update(len(of_part).to_bytes(8))
        digest.update(b"".join(source.digests.take(of_part)))
    return digest.hexdigest()


def _hash_of_listing(policy: str, files: Sequence[ImageFile]) -> str:
    """A hash of JSON of policy, columns and files, without all of the text in memory."""
    columns = [field.name for field in _MANIFEST_FIELDS]
    digest = hashlib.blake2b(f"{json.dumps([policy, columns])[:-1]}, [".encode())
    for start in range(0, len(files), _LISTED_AT_ONCE):
        text = json.dumps(files[start : start + _LISTED_AT_ONCE])[1:-1]
        digest.update(f"{', ' if start else ''}{text}".encode())
    digest.update(b"]]")
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


def _is_small(reason: str) -> bool:
    """Whether a file was rejected by `forensics.images.decode.check_size` as too small."""
    return bool(_SMALL.match(reason))


def _pairs(manifest: pa.Table, column: str) -> list[tuple[str, str]]:
    """Path and text of the files with a text in a column of the manifest."""
    noted = manifest.filter(pc.is_valid(manifest[column]))
    pairs = zip(noted["path"].to_pylist(), noted[column].to_pylist(), strict=True)
    return cast(list[tuple[str, str]], list(pairs))


def _counted(rejected: list[tuple[str, str]]) -> str:
    """Number of rejected files by reason, the most frequent first."""
    reasons = Counter(_SIZE.sub("", reason) for _, reason in rejected)
    shown = [f"{count}: {reason}" for reason, count in reasons.most_common(_SHOWN_REASONS)]
    more = reasons.total() - sum(count for _, count in reasons.most_common(_SHOWN_REASONS))
    return "; ".join([*shown, *([f"{more} for other reasons"] if more else [])])


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content).hexdigest()


def _digest(row: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(row.data, digest_size=_DIGEST_BYTES).digest()
