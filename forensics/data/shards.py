"""Prepared images in object storage: data sets of Lance, whose rows are read when they are needed.

A data set has a row for each file of a source: the columns of its manifest, the original that the
image was made from, and the pixels. The rows lie in files of `_ROWS_IN_SHARD`, and only what is
asked for is read of them. A data set becomes visible when all of its files are complete.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forensics.data.columns import Column
from forensics.errors import UserError
from forensics.progress import Progress

DIGEST_BYTES = 16

_ROWS_IN_SHARD = 4096
"""Rows of 128x128 pixels take 200 MB."""
_WRITTEN_AT_ONCE = 256
_PIXELS, _ABOUT = "pixels", b"forensics"
_ABSENT = "was not found"


class Rows(Protocol):
    """Rows of pixels: an array, or what is read like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, size, size, 3)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:  # noqa: ANN401
        """One row, or those of a slice or of an array of numbers, as uint8."""


class Shards(NamedTuple):
    """An open data set.

    Attributes:
        manifest: its columns without the pixels.
        rows: the pixels of the accepted files.
        listing: hash of the files that it was made from.
        files: number of image files in their folder.
        first: the first usable ones, of which it has the rows.
        last: the last usable ones, of which it has the rows.
    """

    manifest: pa.Table
    rows: "ShardedRows"
    listing: str
    files: int
    first: int
    last: int


def is_uri(place: Path | str) -> bool:
    """Whether a place is in object storage, rather than a local path."""
    return "://" in str(place)


def digest_of(row: NDArray[np.uint8]) -> bytes:
    """A hash of the pixels of a row."""
    return hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest()


def open_shards(uri: str, name: str, image_size: int) -> Shards | None:
    """Open a data set; None if there is none.

    Args:
        uri: its place, in any storage that Lance knows.
        name: the source's name, for messages.
        image_size: height and width of the rows.

    Raises:
        UserError: if Lance is not installed, or the data set cannot be read; it names the shard.
    """
    lance = _lance()
    try:
        return _opened(lance.dataset(uri), uri, name, image_size)
    except (OSError, ValueError) as error:
        if _ABSENT in str(error):
            return None
        raise UserError(
            f"{uri} cannot be opened for the prepared images of {name} ({_brief(error)}): correct "
            "cache_dir, or what the storage needs in the environment.",
            key="cache_dir",
        ) from error


def _opened(dataset: Any, uri: str, name: str, image_size: int) -> Shards:  # noqa: ANN401
    columns = [column for column in dataset.schema.names if column != _PIXELS]
    try:
        manifest = dataset.to_table(columns=columns)
        about = json.loads(dataset.schema.metadata[_ABOUT])
        rows = ShardedRows(dataset, uri, name, Column[bytes](manifest["digest"]), image_size)
        return Shards(manifest, rows, **about)
    except (OSError, ValueError, KeyError, TypeError) as error:
        shard = _first_unreadable(dataset, lambda of, *_: of.to_table(columns=columns))
        raise _unreadable(f"{uri}{shard}", name, error) from error


class ShardedRows:
    """The pixels of a source's accepted files; each row is compared with its digest when read.

    Args:
        dataset: the data set of Lance.
        uri: its place.
        name: the source's name.
        digests: that of each row of the data set; null for rejected files.
        image_size: height and width of the rows.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401
        uri: str,
        name: str,
        digests: Column[bytes],
        image_size: int,
    ) -> None:
        self._dataset, self._uri, self._name, self._digests = dataset, uri, name, digests
        self._numbers = np.flatnonzero(digests.values.is_valid())
        self.shape = (len(self._numbers), image_size, image_size, 3)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:  # noqa: ANN401
        """One row, or those of a slice or of an array of numbers; the storage is asked once.

        Raises:
            UserError: if a shard is missing or damaged; it names the shard.
        """
        wanted = self._numbers[rows]
        numbers = np.atleast_1d(wanted)

        def read(shard: Any, first: int, end: int) -> NDArray[np.uint8]:  # noqa: ANN401
            within = numbers[(numbers >= first) & (numbers < end)]
            return _taken(shard, within - first, self._digests.take(within))

        try:
            found = read(self._dataset, 0, len(self._digests))
        except (OSError, ValueError) as error:
            shard = _first_unreadable(self._dataset, read)
            raise _unreadable(f"{self._uri}{shard}", self._name, error) from error
        return found.reshape(*wanted.shape, *self.shape[1:])


def _taken(
    dataset: Any,  # noqa: ANN401
    numbers: NDArray[np.int64],
    digests: Sequence[bytes],
) -> NDArray[np.uint8]:
    """Rows of a data set or of a shard: ``(k, bytes)``.

    Raises:
        OSError, ValueError: if one cannot be read, or does not match its digest.
    """
    column = dataset.take(numbers.tolist(), columns=[_PIXELS])[_PIXELS]
    width = column.type.byte_width
    found = np.empty((len(numbers), width), np.uint8)
    at = 0
    for chunk in column.chunks:
        flat = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width)
        found[at : at + len(chunk)] = flat.reshape(len(chunk), width)
        at += len(chunk)
    for row, digest in zip(found, digests, strict=True):
        if digest_of(row) != digest:
            raise ValueError("a row does not match its digest")
    return found


def _first_unreadable(dataset: Any, read: Callable[[Any, int, int], Any]) -> str:  # noqa: ANN401
    """The first shard that cannot be read, as the end of a path; "" if all can.

    Args:
        dataset: the data set.
        read: reads a shard, given the numbers of its first row and of the row after its last.
    """
    first = 0
    for shard in dataset.get_fragments():
        end = first + shard.physical_rows
        try:
            read(shard, first, end)
        except (OSError, ValueError):
            return f"/data/{shard.data_files()[0].path}"
        first = end
    return ""


def write_shards(
    uri: str,
    name: str,
    manifest: pa.Table,
    rows: Path,
    image_size: int,
    about: Mapping[str, Any],
    *,
    replace: bool,
) -> Shards:
    """Write a data set.

    Args:
        uri: its place.
        name: the source's name, for messages.
        manifest: a row for each file, with a digest for each that was accepted.
        rows: the pixels of the accepted files, one after the other.
        image_size: height and width of the rows.
        about: the values of `Shards` besides manifest and rows.
        replace: whether there is one already, whose readers can still read it to the end.

    Raises:
        UserError: if Lance is not installed, or the storage refuses the data set.
    """
    pixels = pa.field(_PIXELS, pa.binary(image_size * image_size * 3))
    schema = manifest.schema.append(pixels).with_metadata({_ABOUT: json.dumps(about)})

    def batches() -> Iterator[pa.RecordBatch]:
        with rows.open("rb") as file, Progress(f"store {name}", len(manifest)) as progress:
            for batch in manifest.to_batches(_WRITTEN_AT_ONCE):
                accepted = batch["digest"].is_valid().to_pylist()
                values = [file.read(pixels.type.byte_width) if one else None for one in accepted]
                yield pa.record_batch(
                    [*batch.columns, pa.array(values, pixels.type)], schema=schema
                )
                progress.advance(len(batch))

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    mode = "overwrite" if replace else "create"
    try:
        dataset = _lance().write_dataset(reader, uri, mode=mode, max_rows_per_file=_ROWS_IN_SHARD)
    except (OSError, ValueError) as error:
        if not replace and (shards := open_shards(uri, name, image_size)) is not None:
            return shards  # another machine was faster
        raise UserError(
            f"The prepared images of {name} cannot be stored in {uri} ({_brief(error)}): correct "
            "cache_dir, or the rights to write there.",
            key="cache_dir",
        ) from error
    return _opened(dataset, uri, name, image_size)


def _lance() -> Any:  # noqa: ANN401
    try:
        import lance
    except ImportError as error:
        raise UserError(
            "A URI as cache_dir needs Lance: pip install -c constraints.txt '.[shards]'.",
            key="cache_dir",
        ) from error
    return lance


def _unreadable(place: str, name: str, error: Exception) -> UserError:
    return UserError(
        f"The prepared images of {name} in {place} cannot be read ({_brief(error)}): restore them, "
        "or remove their data set to have it written again from the images.",
        key="cache_dir",
    )


def _brief(error: Exception) -> str:
    """What Lance says, without the places in its source code that it adds."""
    return re.sub(r"(, \S+\.rs:\d+:\d+)+$", "", " ".join(str(error).split()))
