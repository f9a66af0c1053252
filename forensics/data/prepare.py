"""From what was downloaded to a source: a folder, an archive or parquet into an ordered folder.

Images keep their bytes and get numbers for names, in the order of the names they had. Nothing is
ever unpacked to a name that an archive gives, links are not followed, and what an archive may
unpack to is bounded. Each file is judged by `forensics.data.images.decode`, and the manifest
says what became of it. What was interrupted goes on after the last file it has a record of.
"""

import bz2
import gzip
import hashlib
import io
import json
import logging
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from forensics.atomic import atomic
from forensics.data.duplicates import perceptual_hashes
from forensics.data.hub import SCHEME, download
from forensics.data.images import (
    POLICY_VERSION,
    RejectedImage,
    ResizeFilter,
    decode,
    to_square,
)
from forensics.data.metadata import read_metadata
from forensics.data.sources import as_text, in_order
from forensics.errors import UserError
from forensics.progress import Progress

log = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"

MAX_BYTES = 128 * 2**20
"""Of one image file; larger ones are rejected."""

MAX_EXPANSION = 100
"""An archive may unpack to so many times its size and one largest image; images hardly shrink."""

_HASHED_SIZE = 128
_AT_ONCE = 8
_ROWS_AT_ONCE = 16
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_UNPACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class Item(NamedTuple):
    """One file of an input.

    Attributes:
        position: its place in the order of names.
        name: in the input.
        content: its bytes; empty if it is rejected already.
        rejected: why, or "".
    """

    position: int
    name: str
    content: bytes
    rejected: str


class Items(NamedTuple):
    """The files of an input, in any order, each read when it is its turn.

    Attributes:
        total: how many there are.
        files: what there is on disk, by what tells that it changed: name, bytes, time.
        each: all but those whose positions are given.
    """

    total: int
    files: list[tuple[str, int, int]]
    each: Callable[[Container[int]], Iterator[Item]]


class Prepared(NamedTuple):
    """What became of an input.

    Attributes:
        folder: the source's.
        accepted: number of images in it.
        rejected: name in the input and reason of each other file.
    """

    folder: Path
    accepted: int
    rejected: list[tuple[str, str]]


def prepare(source: str, given: str | Path, root: Path, min_side: int) -> Prepared:
    """Make a source of a folder, a zip or tar archive, parquet, or a data set of a hub.

    ``<root>/<source>`` is there whole or not at all. What a call that was stopped has done lies
    beside it in ``.<source>.unfinished``: the next one with the same input goes on from there, one
    with another input starts anew. Its ``manifest.parquet`` has a row for every file of the input:
    ``path`` (null if rejected), ``original`` (name in the input), ``sha256``, ``bytes``,
    ``format``, ``width``, ``height``, ``mode``, ``jpeg_quality``, ``orientation`` and ``exif`` as
    in `read_metadata`, ``hash`` as in `perceptual_hashes`, ``flag`` (what is odd about it) and
    ``error`` (why it was rejected).

    Args:
        source: the source's name.
        given: the input; it is only read. Hidden files in it are passed over. What starts with
            ``hf://`` is taken as `forensics.data.hub.download` says.
        root: holds a folder for each source.
        min_side: images with a shorter side in pixels are rejected.

    Raises:
        UserError: if the input is missing, damaged, a bomb or without a single image, or if the
            source is there already.
    """
    if not source or "/" in source or source.startswith("."):
        raise UserError(f"{source!r} is no source's name: give that of a folder to make in {root}.")
    on_hub = str(given).startswith(SCHEME)
    if not on_hub and not (Path(given).is_dir() or Path(given).is_file()):
        raise UserError(f"There is no {given}: name a folder, zip, tar or parquet with images.")
    folder, unfinished = root / source, Unfinished(root / f".{source}.unfinished")
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f".{source}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"Another process prepares {folder}: wait for its end.") from None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            unfinished.remove()  # that a kill at the very end has left
            raise UserError(
                f"{folder} is there already: remove it, or give the source another name."
            )
        downloaded = download(str(given), unfinished.downloads) if on_hub else Path(given)
        try:
            prepared = _fill(unfinished, folder, downloaded, min_side)
        except UserError:
            unfinished.remove()  # the same input would give the same error
            raise
        unfinished.images.replace(folder)
        unfinished.remove()
        return prepared
    except (KeyboardInterrupt, OSError):
        log.warning("%s is not whole: the same command goes on where this one stopped.", folder)
        raise
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class Unfinished:
    """What has been done of a source: images, and a record with a line for each file of the input.

    The record's first line says of what input; a line that was cut off and all after it do not
    count, nor does an image whose bytes are not those of its line.

    Attributes:
        images: the folder that becomes the source's.
        downloads: what an input on a hub is downloaded into.
    """

    def __init__(self, folder: Path) -> None:
        self.images, self.downloads = folder / "images", folder / "downloads"
        self._folder, self._record = folder, folder / "record.jsonl"

    def begin(self, of: list[Any]) -> list[dict[str, Any]]:
        """Take up what is there of an input, or start anew; the rows that are done."""
        rows = []
        if self._record.exists():
            first, *lines = _whole_lines(self._record)
            if first == of:
                rows = [row for row in lines if self._is_stored(row)]
        if not rows:
            shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir(parents=True, exist_ok=True)
        with atomic(self._record) as file:
            for line in (of, *rows):
                file.write(_line(line))
        return rows

    def _is_stored(self, row: dict[str, Any]) -> bool:
        if "path" not in row:
            return True
        image = self.images / row["path"]
        if not image.exists():
            return False
        digest: str = row["sha256"]
        return hashlib.sha256(image.read_bytes()).hexdigest() == digest

    def keep(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Write rows into the record as they come."""
        with self._record.open("ab") as file:
            for row in rows:
                file.write(_line(row))
                file.flush()
                yield row

    def remove(self) -> None:
        """Remove it all."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _whole_lines(record: Path) -> list[Any]:
    """The values of the lines up to the first that a kill or a full disk has cut off."""
    values = []
    for line in record.read_bytes().splitlines(keepends=True):
        try:
            values.append(json.loads(line))
        except ValueError:
            break
    return values or [None]


def _fill(unfinished: Unfinished, folder: Path, given: Path, min_side: int) -> Prepared:
    """Write images and manifest of what will be ``folder``."""
    with _damage_told(given):
        items = _open(given)
    digits = max(6, len(str(items.total - 1)))
    # As it comes back from the record's json.
    files = [list(file) for file in items.files]
    rows = unfinished.begin([str(given.resolve()), files, min_side, POLICY_VERSION])

    def store(item: Item) -> dict[str, Any]:
        return _store(item, unfinished.images / f"{item.position:0{digits}d}", min_side)

    done = {row["position"] for row in rows}
    with Progress(f"prepare {folder.name}", items.total - len(done)) as progress:
        for row in unfinished.keep(in_order(store, items.each(done), _AT_ONCE)):
            rows.append(row)
            progress.advance()
    # An archive gives its files in an order of its own.
    rows.sort(key=lambda row: row.pop("position"))
    rejected = [(row["original"], row["error"]) for row in rows if "error" in row]
    if len(rejected) == len(rows):
        first = f", the first is {rejected[0][0]!r} ({rejected[0][1]})" if rejected else ""
        raise UserError(
            f"None of the {len(rows)} files in {given} can be used{first}: give one with JPEG, PNG "
            "or WebP images."
        )
    with atomic(unfinished.images / MANIFEST) as file:
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(_FIELDS)), file)
    return Prepared(folder, len(rows) - len(rejected), rejected)


def _store(item: Item, stem: Path, min_side: int) -> dict[str, Any]:
    """Write a file if it is accepted; its row of the manifest."""
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


@contextmanager
def _damage_told(given: Path) -> Iterator[None]:
    """Say of an archive that cannot be read that it is the archive, whatever a library raises."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a file or disk, not what is in it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{given} is damaged ({reason}): get it again.") from error


def _told(
    given: Path, each: Callable[[Container[int]], Iterator[Item]]
) -> Callable[[Container[int]], Iterator[Item]]:
    def told(done: Container[int]) -> Iterator[Item]:
        with _damage_told(given):
            yield from each(done)

    return told


def _open(given: Path) -> Items:
    if given.is_dir():
        shards = sorted(path for path in given.rglob("*.parquet") if not path.is_symlink())
        return _from_parquet(given, shards) if shards else _from_folder(given)
    with given.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        return _from_zip(given)
    if start.startswith(b"PAR1"):
        return _from_parquet(given, [given])
    try:
        return _from_tar(given)
    except tarfile.ReadError as error:
        raise UserError(
            f"{given} is no folder, zip, tar or parquet with images, or it is damaged ({error}): "
            "give one of these."
        ) from error


def _ranked(names: list[str]) -> list[int]:
    """Each name's place among the sorted ones; of equal names the first comes first."""
    ranks = [0] * len(names)
    for rank, position in enumerate(sorted(range(len(names)), key=lambda n: names[n])):
        ranks[position] = rank
    return ranks


def _refusal(name: str, size: int, *, link: bool = False) -> str:
    """Why a file is not even read, or ""."""
    if name.startswith("/") or ".." in _parts(name):
        return "its name leads out of the archive"
    if link:
        return "a link"
    if size > MAX_BYTES:
        return f"{size} bytes are more than the {MAX_BYTES} allowed"
    return ""


def _parts(name: str) -> list[str]:
    """Folders and file of a name, also of one that Windows wrote."""
    return name.replace("\\", "/").split("/")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in _parts(name))


def _from_folder(given: Path) -> Items:
    found = []

    def unreadable(error: OSError) -> None:
        raise error

    for at, folders, files in os.walk(given, onerror=unreadable):
        # Walked into are none of these; links to folders are listed as links.
        linked = [name for name in folders if Path(at, name).is_symlink()]
        found += [os.path.relpath(Path(at, name), given) for name in (*files, *linked)]
    names = sorted(name for name in found if not _is_hidden(name))

    def each(done: Container[int]) -> Iterator[Item]:
        for position, name in enumerate(names):
            if position in done:
                continue
            status = (given / name).lstat()
            refused = _refusal("", status.st_size, link=stat.S_ISLNK(status.st_mode))
            if not refused and not stat.S_ISREG(status.st_mode):
                refused = "no regular file"
            yield Item(position, name, b"" if refused else (given / name).read_bytes(), refused)

    return Items(len(names), _files(given / name for name in names), each)


def _files(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of files; of links their own."""
    stats = ((str(path), path.lstat()) for path in paths)
    return [(as_text(name), stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _bounded(given: Path, size: int) -> None:
    """Refuse what unpacks to far more than it is.

    Raises:
        UserError: then.
    """
    if size > MAX_EXPANSION * given.stat().st_size + MAX_BYTES:
        raise UserError(
            f"{given} unpacks to more than {MAX_EXPANSION} times its size, which images never do: "
            "if you trust it, unpack it yourself and give the folder."
        )


def _from_zip(given: Path) -> Items:
    archive = zipfile.ZipFile(given)
    members = [one for one in archive.infolist() if not one.is_dir()]
    members = [one for one in members if not _is_hidden(one.filename)]
    _bounded(given, sum(member.file_size for member in members))
    ranks = _ranked([member.filename for member in members])

    def read(member: zipfile.ZipInfo) -> tuple[bytes, str]:
        refused = _refusal(
            member.filename, member.file_size, link=stat.S_ISLNK(member.external_attr >> 16)
        )
        if refused:
            return b"", refused
        try:
            return archive.read(member), ""
        except Exception as error:  # of a crafted member, anything; an OSError of the disk aside
            if isinstance(error, OSError) and error.errno is not None:
                raise
            return b"", " ".join(f"{type(error).__name__}: {error}".split())

    def each(done: Container[int]) -> Iterator[Item]:
        with archive:
            for rank, member in zip(ranks, members, strict=True):
                if rank not in done:
                    yield Item(rank, member.filename, *read(member))

    return Items(len(members), _files([given]), _told(given, each))


class _Unpacked(io.RawIOBase):
    """An archive's bytes as they are unpacked, no more than it may unpack to."""

    def __init__(self, given: Path) -> None:
        with given.open("rb") as file:
            start = file.read(6)
        opener = next((o for magic, o in _UNPACKERS.items() if start.startswith(magic)), None)
        self._file = cast(BinaryIO, given.open("rb") if opener is None else opener(given))
        self._given, self._read = given, 0

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        content = self._file.read(size)
        self._read += len(content)
        _bounded(self._given, self._read)
        return content

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()


class _Header(tarfile.TarInfo):
    """A header that says so when it is damaged; tarfile takes that for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it breaks off: {error}") from error


def _from_tar(given: Path) -> Items:
    @contextmanager
    def members() -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
        # As a stream: in a packed archive, going back would mean unpacking from the start again.
        with (
            _Unpacked(given) as stream,
            tarfile.open(fileobj=cast(Any, stream), mode="r|", tarinfo=_Header) as archive,
        ):
            yield archive, (m for m in archive if not m.isdir() and not _is_hidden(m.name))
            while stream.read(2**20):
                pass  # to its end, where the checksum is

    with members() as (_, found):
        ranks = _ranked([member.name for member in found])

    def each(done: Container[int]) -> Iterator[Item]:
        with members() as (archive, found):
            for rank, member in zip(ranks, found, strict=True):
                if rank in done:
                    continue
                link = member.issym() or member.islnk()
                refused = _refusal(member.name, member.size, link=link)
                if not refused and (not member.isreg() or member.issparse()):
                    refused = "no regular file"
                file = None if refused else archive.extractfile(member)
                yield Item(rank, member.name, b"" if file is None else file.read(), refused)

    return Items(len(ranks), _files([given]), _told(given, each))


def _from_parquet(given: Path, shards: list[Path]) -> Items:
    count = 0
    for shard in shards:
        metadata = pq.read_metadata(shard)
        count += metadata.num_rows
        groups = range(metadata.num_row_groups)
        _bounded(shard, sum(metadata.row_group(n).total_byte_size for n in groups))

    def each(done: Container[int]) -> Iterator[Item]:
        position = 0
        for shard in shards:
            with pq.ParquetFile(shard) as table:
                column = _image_column(shard, table.schema_arrow)
                for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                    for value in batch.column(0).to_pylist():
                        name = f"{shard.name}, row {position}"
                        if isinstance(value, dict):
                            name, value = value.get("path") or name, value["bytes"]
                        content = value or b""
                        refused = "no bytes" if value is None else _refusal("", len(content))
                        if position not in done:
                            yield Item(position, name, b"" if refused else content, refused)
                        position += 1

    return Items(count, _files(shards), _told(given, each))


def _image_column(shard: Path, schema: pa.Schema) -> str:
    """The column of encoded images: binary, or Hugging Face's bytes beside a path.

    Raises:
        UserError: if there is not exactly one.
    """

    def is_binary(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = []
    for field in schema:
        kind = field.type
        if isinstance(kind, pa.StructType):
            index = kind.get_field_index("bytes")
            if index >= 0 and is_binary(kind.field(index).type):
                found.append(field.name)
        elif is_binary(kind):
            found.append(field.name)
    if len(found) != 1:
        raise UserError(
            f"{shard} has {len(found)} columns of encoded images among {', '.join(schema.names)}: "
            "give one with exactly one, of type binary or a struct with bytes and path."
        )
    return found[0]
