"""Reading the files of folders and of zip and tar archives, one by one."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from forensics.data.ingest.classes import refuse_both_classes
from forensics.data.ingest.items import Item, Items, bounded, stats, told, too_large
from forensics.data.ingest.parquet import from_parquet
from forensics.errors import UserError
from forensics.images.listing import LINK, MANIFEST, SPECIAL, as_text, list_images, unwanted, walk

_UNPACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_UNPACKED_HERE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DEFLATE64 = 9


def open_input(given: Path, only: Sequence[str], label: Sequence[str]) -> Items:
    """Open a folder, an archive, a parquet file or a folder of them, by its content.

    Args:
        given: the input.
        only: folders whose files are chosen, see `_choose`; all if empty.
        label: rows that are chosen, see `from_parquet`; all if empty.

    Raises:
        UserError: if it is none of these, ``only`` or ``label`` do not apply to it, or real and
            generated images meet in what is chosen.
    """
    if given.is_dir():
        files = (given / path for path, reason, _ in walk(given) if not reason)
        shards = [
            file for file in files if file.suffix.lower() == ".parquet" and file.name != MANIFEST
        ]
        if shards:
            beside = Counter({"image beside the parquet file": len(list_images(given).images)})
            return _from_parquet(given, sorted(shards), only, label, beside)
        _refuse("--label", label, given)
        return _from_folder(given, only)
    with given.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PAR1"):
        return _from_parquet(given, [given], only, label, Counter())
    _refuse("--label", label, given)
    if start.startswith(b"PK"):
        return _from_zip(given, only)
    try:
        return _from_tar(given, only)
    except tarfile.ReadError as error:
        raise UserError(
            f"{as_text(str(given))} is not a folder, zip, tar or parquet with images, or it is "
            f"damaged ({error}): give one of these.",
            key=str(given),
        ) from error


def _from_parquet(
    given: Path,
    shards: list[Path],
    only: Sequence[str],
    label: Sequence[str],
    beside: Counter[str],
) -> Items:
    _refuse("--only", only, given)
    return from_parquet(given, shards, label, +beside)


def _refuse(option: str, values: Sequence[str], given: Path) -> None:
    if values:
        applies = "parquet" if option == "--label" else "folders and archives"
        raise UserError(
            f"{option} applies to {applies}, which {as_text(str(given))} is not: leave it out.",
            key=option,
        )


class _Choice(NamedTuple):
    """The chosen names of an input.

    Attributes:
        ranks: rank of each name in the order of chosen names; None if it is not chosen.
        total: number of chosen names.
        folders: number of folders they lie in.
        passed_over: number of other names by reason.
    """

    ranks: list[int | None]
    total: int
    folders: int
    passed_over: Counter[str]


def _choose(given: Path, names: Sequence[str], only: Sequence[str]) -> _Choice:
    """Choose names by folder, and rank them; equal names keep their order.

    Args:
        given: the input, for messages.
        names: its names, with either kind of slash.
        only: names of folders, at any depth, or of folders in folders, such as ``test/1_fake``; in
            either case. All names are chosen if it is empty.

    Raises:
        UserError: if there is no such folder, or real and generated images meet.
    """
    wanted = [_parts(folder.casefold().strip("/\\")) for folder in only]
    passed_over, chosen = Counter[str](), []
    for position, name in enumerate(names):
        *above, _ = parts = _parts(name)
        reasons = (unwanted(part) for part in parts if part not in (".", ".."))
        if reason := next(filter(None, reasons), ""):
            passed_over[reason] += 1
        elif not only or any(_is_within(above, folders) for folders in wanted):
            chosen.append(position)
    folders = {"/".join(_parts(names[position])[:-1]) for position in chosen}
    if only and not chosen:
        there = sorted({part for name in names for part in _parts(name)[:-1]} - {".", ""})
        raise UserError(
            f"{as_text(str(given))} has no file in a folder {' or '.join(only)}: name one of "
            f"{as_text(', '.join(there[:20])) or 'its folders, but it has none'}"
            f"{', …' if len(there) > 20 else ''}.",
            key="--only",
        )
    refuse_both_classes(given, folders, lambda _, name: f"--only {name}")
    ranks: list[int | None] = [None] * len(names)
    for rank, position in enumerate(sorted(chosen, key=lambda n: "/".join(_parts(names[n])))):
        ranks[position] = rank
    return _Choice(ranks, len(chosen), len(folders), passed_over)


def _is_within(above: list[str], wanted: list[str]) -> bool:
    """Whether the wanted folders follow one another in a path."""
    folded = [name.casefold() for name in above]
    starts = range(len(folded) - len(wanted) + 1)
    return any(folded[start : start + len(wanted)] == wanted for start in starts)


def _parts(name: str) -> list[str]:
    """Folders and file of a name, with either kind of slash."""
    return name.replace("\\", "/").split("/")


def _refusal(name: str, size: int, *, link: bool = False) -> str:
    """Reason to reject a file without reading it, or ""."""
    if name.startswith("/") or ".." in _parts(name):
        return "its name leads out of the archive"
    return "a link" if link else too_large(size)


def _from_folder(given: Path, only: Sequence[str]) -> Items:
    entries = list(walk(given))
    choice = _choose(given, [path for path, *_ in entries], only)
    ranked = zip(choice.ranks, entries, strict=True)
    found = sorted((rank, path, reason) for rank, (path, reason, _) in ranked if rank is not None)

    def each(done: Container[int]) -> Iterator[Item]:
        for rank, path, reason in found:
            if rank in done:
                continue
            refused = {LINK: "a link", SPECIAL: "not a regular file"}.get(reason, "")
            refused = refused or too_large((given / path).lstat().st_size)
            yield Item(rank, path, b"" if refused else (given / path).read_bytes(), refused)

    files = stats(given / path for _, path, _ in found)
    return Items(choice.total, files, each, choice.folders, choice.passed_over)


def _from_zip(given: Path, only: Sequence[str]) -> Items:
    archive = zipfile.ZipFile(given)
    # Some Windows programs end the names of folders in a backslash.
    members = [m for m in archive.infolist() if not m.filename.endswith(("/", "\\"))]
    choice = _choose(given, [member.filename for member in members], only)
    chosen = [m for rank, m in zip(choice.ranks, members, strict=True) if rank is not None]
    bounded(given, sum(member.file_size for member in chosen))
    for member in chosen:
        method = member.compress_type
        if method not in _UNPACKED_HERE:
            name = "Deflate64" if method == _DEFLATE64 else f"method {method}"
            raise UserError(
                f"{as_text(str(given))} is compressed with {name}, which Python cannot read: "
                "unpack it, for example with 7z x, and give the folder.",
                key=str(given),
            )

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
            for rank, member in zip(choice.ranks, members, strict=True):
                if rank is not None and rank not in done:
                    yield Item(rank, member.filename, *read(member))

    files = stats([given])
    return Items(choice.total, files, told(given, each), choice.folders, choice.passed_over)


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
        bounded(self._given, self._read)
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


def _from_tar(given: Path, only: Sequence[str]) -> Items:
    @contextmanager
    def members() -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
        # As a stream: seeking back in a compressed archive would unpack it from the start again.
        with (
            _Unpacked(given) as stream,
            tarfile.open(fileobj=cast(Any, stream), mode="r|", tarinfo=_Header) as archive,
        ):
            yield archive, (member for member in archive if not member.isdir())
            while stream.read(2**20):
                pass  # read to the end, where the checksum is

    with members() as (_, found):
        names = [member.name for member in found]
    choice = _choose(given, names, only)

    def each(done: Container[int]) -> Iterator[Item]:
        with members() as (archive, found):
            for rank, member in zip(choice.ranks, found, strict=True):
                if rank is None or rank in done:
                    continue
                link = member.issym() or member.islnk()
                refused = _refusal(member.name, member.size, link=link)
                if not refused and (not member.isreg() or member.issparse()):
                    refused = "not a regular file"
                file = None if refused else archive.extractfile(member)
                yield Item(rank, member.name, b"" if file is None else file.read(), refused)

    files = stats([given])
    return Items(choice.total, files, told(given, each), choice.folders, choice.passed_over)
