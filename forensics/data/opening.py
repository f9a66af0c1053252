"""Opening of sources: the files of their folders, and the cache of their rows.

Rows are rebuilt whenever a file of the folder, a setting or the decode policy changes. Only the
first and last images of a folder that a run needs are decoded.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from forensics.data.columns import Column
from forensics.data.ingest.classes import refuse_both_classes
from forensics.data.shards import Shards, is_uri, open_shards, write_shards
from forensics.data.sources import (
    MANIFEST,
    MANIFEST_FIELDS,
    ROWS,
    CorruptCache,
    Needed,
    Preparation,
    Source,
    by_reason,
    is_small,
    mapped,
    write_rows,
)
from forensics.errors import UserError
from forensics.files import staged
from forensics.images.containers import DAMAGED
from forensics.images.decode import POLICY_VERSION
from forensics.images.geometry import View
from forensics.images.listing import ImageFile, Listing, as_text, counted, list_images, read_origins

log = logging.getLogger(__name__)

_LISTED_AT_ONCE = 4096


def open_sources(
    folders: Mapping[str, Path],
    preparation: Preparation,
    cache_dir: Path | str,
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
    cache_dir: Path | str,
    needed: Needed | None = None,
    below: Sequence[str] = (),
) -> Source:
    """Open the rows of a folder, building them first if they are missing or out of date.

    If several processes need the same rows, one builds them and the others wait.

    Args:
        name: the source's name, for messages and scores.
        folder: folder of its images.
        preparation: settings of the conversion into rows.
        cache_dir: folder of prepared images, created if missing; or a URI of object storage. Rows
            that are there already need no ``folder``.
        needed: images that the source has at least, if the folder has so many; all if None.
        below: folders below ``folder`` that have the source's images; all if empty.

    Raises:
        UserError: if the folder is missing, has no image or those of both classes, if more files
            than allowed are rejected, or if the cache cannot be written.
    """
    size, filter_, min_side, _, match, view, *_ = preparation
    qualities = preparation.qualities.get(name, ())
    policy = f"{POLICY_VERSION}|{size}|{filter_}|{min_side}|{match}"
    if view is View.crop:  # otherwise as before there were views, so that older caches stay valid
        policy = f"{policy}|{view}"
    if qualities:
        policy = f"{policy}|{_hash(bytes(qualities))}"
    if is_uri(cache_dir):
        key = _hash("|".join([policy, *below]).encode())[:12]
        uri = f"{str(cache_dir).rstrip('/')}/{name}-{key}.lance"
        source = _in_shards(name, folder, preparation, uri, needed, below)
    else:
        source = _in_cache(name, folder, preparation, policy, Path(cache_dir), needed, below)
    _report(source, preparation, as_text(str(folder)))
    source.qualities = qualities
    return source


def _files(
    name: str, folder: Path, below: Sequence[str]
) -> tuple[list[ImageFile], dict[str, str] | None]:
    """As `_listed`, of a source with at least one image, all of one class."""
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
    return files, made_from


def _in_cache(
    name: str,
    folder: Path,
    preparation: Preparation,
    policy: str,
    cache_dir: Path,
    needed: Needed | None,
    below: Sequence[str],
) -> Source:
    """Open rows in a local folder, building them first if necessary."""
    files, made_from = _files(name, folder, below)
    size = preparation.image_size
    whose = "|".join([str(folder.resolve()), policy, *below])
    home = cache_dir / f"{name}-{_hash(as_text(whose).encode())[:12]}"
    count, content = len(files), _hash_of_listing(policy, files)[:24]
    del files  # ten million take 2 GiB, and rows that are there need none of them
    needed = _within(needed or Needed(count, 0), count)
    try:
        source = _open(name, home, content, needed, size, count, made_from)
        if source is None:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home / "lock", name):
                source = _open(name, home, content, needed, size, count, made_from)
                if source is None:
                    (files, _), made_from = _listed(folder, below)
                    if _hash_of_listing(policy, files)[:24] != content:
                        raise UserError(
                            f"The files in {as_text(str(folder))} are being changed: repeat the "
                            "command when they are complete.",
                            key=name,
                        )
                    cached = [*_cached(home, content), needed]
                    needed = _within(Needed(*map(max, zip(*cached, strict=True))), count)
                    cache = home / f"{content}-{needed.first}-{needed.last}"
                    with staged(cache) as unfinished:
                        label, qualities = f"prepare {name}", preparation.qualities.get(name, ())
                        write_rows(folder, files, preparation, qualities, needed, unfinished, label)
                    for outdated in home.iterdir():
                        if outdated.is_dir() and outdated != cache:
                            shutil.rmtree(outdated)
                    source = mapped(name, cache, size, count, made_from)
    except OSError as error:
        raise UserError(
            f"Cannot store the prepared images of {name} in {as_text(str(home))} "
            f"({error.strerror or error}): free disk space or name another folder with "
            "cache_dir=FOLDER."
        ) from error
    return source


def _in_shards(
    name: str,
    folder: Path,
    preparation: Preparation,
    uri: str,
    needed: Needed | None,
    below: Sequence[str],
) -> Source:
    """Open rows in object storage, writing them first if there are not enough.

    Raises:
        UserError: if the folder's files are others than those of the rows, or if it is missing and
            there are not enough rows.
    """
    # Of this user: the lock of another one could not be opened.
    lock = f"forensics-{getattr(os, 'getuid', int)()}-{_hash(uri.encode())}.lock"
    with _locked(Path(tempfile.gettempdir(), lock), name):
        shards = open_shards(uri, name, preparation.image_size)
        if folder.exists():
            shards = _completed(shards, name, folder, preparation, uri, needed, below)
        elif shards is None or not _covers(shards, needed):
            has = f"only the first {shards.first} and last {shards.last}" if shards else "no"
            raise UserError(
                f"{uri} has {has} prepared images of {name}, and there is no folder "
                f"{as_text(str(folder))} with more: correct cache_dir, the folder, or the settings "
                "that decide how images are prepared.",
                key="cache_dir",
            )
    manifest, made_from = shards.manifest, None
    if manifest["original"].null_count < len(manifest):
        both = (cast(list[str], manifest[key].to_pylist()) for key in ("path", "original"))
        made_from = dict(zip(*both, strict=True))
    return Source(name, uri, manifest, shards.files, made_from, shards.rows)


def _completed(
    shards: Shards | None,
    name: str,
    folder: Path,
    preparation: Preparation,
    uri: str,
    needed: Needed | None,
    below: Sequence[str],
) -> Shards:
    """The same shards if they are of the folder's files and enough, new ones if too few or none."""
    files, made_from = _files(name, folder, below)
    # Without times, because another machine may have a copy of the images.
    listing = _hash_of_listing("", [file._replace(mtime_ns=0) for file in files])
    needed = needed or Needed(len(files), 0)
    if shards is not None:
        if shards.listing != listing:
            raise UserError(
                f"{uri} has prepared images of other files than {as_text(str(folder))} has: "
                "restore the files, remove that data set, or name another cache_dir.",
                key="cache_dir",
            )
        if _covers(shards, needed):
            return shards
        needed = Needed(max(needed.first, shards.first), max(needed.last, shards.last))
    needed = _within(needed, len(files))
    with tempfile.TemporaryDirectory(prefix="forensics-") as built:
        label, qualities = f"prepare {name}", preparation.qualities.get(name, ())
        write_rows(folder, files, preparation, qualities, needed, Path(built), label)
        manifest = pq.read_table(Path(built, MANIFEST))
        paths = Column[str](manifest["path"])
        originals = [(made_from or {}).get(path) for path in paths]
        manifest = manifest.append_column("original", pa.array(originals, pa.string()))
        about = {"listing": listing, "files": len(files), **needed._asdict()}
        size, rows = preparation.image_size, Path(built, ROWS)
        return write_shards(uri, name, manifest, rows, size, about, replace=shards is not None)


def _covers(shards: Shards, needed: Needed | None) -> bool:
    first, last = _within(needed or Needed(shards.files, 0), shards.files)
    return shards.first >= first and shards.last >= last


def _report(source: Source, preparation: Preparation, place: str) -> None:
    """Refuse a source of too many rejected files; warn of rejected and of damaged ones."""
    read = len(source) + len(source.rejected)
    unusable = source.rejected
    if preparation.may_be_small:
        unusable = [file for file in unusable if not is_small(file[1])]
    if len(unusable) / read > preparation.max_rejected_share:
        path, reason = unusable[0]
        raise UserError(
            f"{len(unusable)} of the {read} files in {place} cannot be used "
            f"({by_reason(unusable)}), the first {path!r} ({reason}): fix or remove those "
            f"listed in {source.manifest}, or allow more with dataset.max_rejected_share.",
            key="dataset.max_rejected_share",
        )
    if source.rejected:
        log.warning(
            "%s: %d of %d files left out (%s), the first %r (%s); all are listed in %s",
            source.name, len(source.rejected), read, by_reason(source.rejected),
            *source.rejected[0], source.manifest,
        )  # fmt: skip
    damaged = [(path, flag) for path, flag in source.flagged if flag.startswith(DAMAGED)]
    if damaged:
        log.warning(
            "%s: %d of %d files are used though they may be damaged, the first %r (%s); all are "
            "flagged in %s",
            source.name, len(damaged), read, *damaged[0], source.manifest,
        )  # fmt: skip


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
            return mapped(name, cache, image_size, files, made_from)
        except CorruptCache as error:
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


def _hash_of_listing(policy: str, files: Sequence[ImageFile]) -> str:
    """A hash of JSON of policy, columns and files, without all of the text in memory."""
    columns = [field.name for field in MANIFEST_FIELDS]
    digest = hashlib.blake2b(f"{json.dumps([policy, columns])[:-1]}, [".encode())
    for start in range(0, len(files), _LISTED_AT_ONCE):
        text = json.dumps(files[start : start + _LISTED_AT_ONCE])[1:-1]
        digest.update(f"{', ' if start else ''}{text}".encode())
    digest.update(b"]]")
    return digest.hexdigest()


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content).hexdigest()
