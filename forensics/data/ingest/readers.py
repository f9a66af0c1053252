"""Reading the files of folders, zip and tar archives and parquet files, one by one."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from forensics.errors import UserError
from forensics.images.listing import as_text

MAX_BYTES = 128 * 2**20
"""Maximum size of an image file; larger files are rejected."""

MAX_EXPANSION = 100
"""Maximum unpacked size of an archive, plus `MAX_BYTES`, as a multiple of its own size."""

AT_ONCE = 8
_ROWS_AT_ONCE = 16
_UNPACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class Item(NamedTuple):
    """One file of an input.

    Attributes:
        position: its position in the order of names.
        name: its name in the input.
        content: its bytes; empty if it is already rejected.
        rejected: the reason of a rejection, or "".
    """

    position: int
    name: str
    content: bytes
    rejected: str


class Items(NamedTuple):
    """The files of an input, in any order, read lazily.

    Attributes:
        total: number of files.
        files: name, bytes and modification time of the files on disk, to detect changes.
        each: iterates over all files except those at the given positions.
    """

    total: int
    files: list[tuple[str, int, int]]
    each: Callable[[Container[int]], Iterator[Item]]


@contextmanager
def damage_told(given: Path) -> Iterator[None]:
    """Turn any library error on an unreadable archive into a UserError that names the archive."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the file system, not of the content
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{given} is damaged ({reason}): download it again.") from error


def _told(
    given: Path, each: Callable[[Container[int]], Iterator[Item]]
) -> Callable[[Container[int]], Iterator[Item]]:
    def told(done: Container[int]) -> Iterator[Item]:
        with damage_told(given):
            yield from each(done)

    return told


def open_input(given: Path) -> Items:
    """Open a folder, an archive, a parquet file or a folder of them, by its content."""
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
            f"{given} is not a folder, zip, tar or parquet with images, or it is damaged "
            f"({error}): give one of these."
        ) from error


def _ranked(names: list[str]) -> list[int]:
    """Rank of each name in sorted order; equal names keep their order."""
    ranks = [0] * len(names)
    for rank, position in enumerate(sorted(range(len(names)), key=lambda n: names[n])):
        ranks[position] = rank
    return ranks


def _refusal(name: str, size: int, *, link: bool = False) -> str:
    """Reason to reject a file without reading it, or ""."""
    if name.startswith("/") or ".." in _parts(name):
        return "its name leads out of the archive"
    if link:
        return "a link"
    if size > MAX_BYTES:
        return f"{size} bytes are more than the {MAX_BYTES} allowed"
    return ""


def _parts(name: str) -> list[str]:
    """Folders and file of a name, with either kind of slash."""
    return name.replace("\\", "/").split("/")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in _parts(name))


def _from_folder(given: Path) -> Items:
    found = []

    def unreadable(error: OSError) -> None:
        raise error

    for at, folders, files in os.walk(given, onerror=unreadable):
        # Links to folders are not followed, but listed as links.
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
                refused = "not a regular file"
            yield Item(position, name, b"" if refused else (given / name).read_bytes(), refused)

    return Items(len(names), _files(given / name for name in names), each)


def _files(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of files; for links, those of the link itself."""
    stats = ((str(path), path.lstat()) for path in paths)
    return [(as_text(name), stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _bounded(given: Path, size: int) -> None:
    """Refuse an archive that unpacks to far more than its own size.

    Raises:
        UserError: if ``size`` exceeds the limit.
    """
    if size > MAX_EXPANSION * given.stat().st_size + MAX_BYTES:
        raise UserError(
            f"{given} unpacks to more than {MAX_EXPANSION} times its size, which images never do: "
            "if you trust it, unpack it yourself and give the folder."
        )


def _from_zip(given: Path) -> Items:
    archive = zipfile.ZipFile(given)
    members = [member for member in archive.infolist() if not member.is_dir()]
    members = [member for member in members if not _is_hidden(member.filename)]
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
        except Exception as error:  # a crafted member can raise anything; disk errors are ours
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
    """Unpacked bytes of an archive, limited to the permitted size."""

    def __init__(self, given: Path) -> None:
        with given.open("rb") as file:
            start = file.read(6)
        opener = next((o for magic, o in _UNPACKERS.items() if start.startswith(magic)), None)
        self._file = cast(BinaryIO, given.open("rb") if opener is None else opener(given))
        self._given, self._read = given, 0

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes."""
        content = self._file.read(size)
        self._read += len(content)
        _bounded(self._given, self._read)
        return content

    def close(self) -> None:
        """Close the underlying file, too."""
        self._file.close()
        super().close()


class _Header(tarfile.TarInfo):
    """A header that raises an error when damaged; tarfile would take it for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged header: {error}") from error


def _from_tar(given: Path) -> Items:
    @contextmanager
    def members() -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
        # As a stream: seeking back in a compressed archive would unpack it from the start again.
        with (
            _Unpacked(given) as stream,
            tarfile.open(fileobj=cast(Any, stream), mode="r|", tarinfo=_Header) as archive,
        ):
            yield archive, (m for m in archive if not m.isdir() and not _is_hidden(m.name))
            while stream.read(2**20):
                pass  # read to the end, where the checksum is

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
                    refused = "not a regular file"
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
    """The column of encoded images: binary, or Hugging Face's struct of bytes and path.

    Raises:
        UserError: if there is not exactly one such column.
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
