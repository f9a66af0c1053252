"""The files of an input of `forensics.data.ingest.prepare.prepare`, read one by one, and bounds."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from forensics.errors import UserError
from forensics.images.listing import as_text

MAX_BYTES = 128 * 2**20
"""Maximum size of an image file; larger files are rejected."""

MAX_EXPANSION = 100
"""Maximum unpacked size of an archive, plus `MAX_BYTES`, as a multiple of its own size."""

AT_ONCE = 8


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
    """The chosen files of an input, in any order, read lazily.

    Attributes:
        total: number of files.
        files: name, bytes and modification time of the files on disk, to detect changes.
        each: iterates over all files except those at the given positions.
        folders: number of folders the files lie in.
        passed_over: number of other files by reason, see `forensics.images.listing`.
    """

    total: int
    files: list[tuple[str, int, int]]
    each: Callable[[Container[int]], Iterator[Item]]
    folders: int
    passed_over: Counter[str]


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
        raise UserError(
            f"{as_text(str(given))} is damaged ({reason}): download it again.", key=str(given)
        ) from error


def told(
    given: Path, each: Callable[[Container[int]], Iterator[Item]]
) -> Callable[[Container[int]], Iterator[Item]]:
    """The same iteration, inside `damage_told`."""

    def within(done: Container[int]) -> Iterator[Item]:
        with damage_told(given):
            yield from each(done)

    return within


def too_large(size: int) -> str:
    """Reason to reject a file of a size in bytes without reading it, or ""."""
    reason = f"{size} bytes are more than the {MAX_BYTES} allowed; if it is an archive, unpack it"
    return reason if size > MAX_BYTES else ""


def bounded(given: Path, size: int) -> None:
    """Refuse an archive that unpacks to far more than its own size.

    Raises:
        UserError: if ``size`` exceeds the limit.
    """
    if size > MAX_EXPANSION * given.stat().st_size + MAX_BYTES:
        raise UserError(
            f"{as_text(str(given))} unpacks to more than {MAX_EXPANSION} times its size, which "
            "images never do: if you trust it, unpack it yourself and give the folder.",
            key=str(given),
        )


def stats(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of files; for links, those of the link itself."""
    found = ((str(path), path.lstat()) for path in paths)
    return [(as_text(name), stat.st_size, stat.st_mtime_ns) for name, stat in found]
