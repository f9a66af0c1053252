"""Files and folders that are there complete or not at all."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")

_UNFINISHED = ".unfinished"


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is there complete or, if anything goes wrong, as it was before."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what a process killed within `atomic` left in a folder that nobody writes to now."""
    for left in folder.glob(f".*{_UNFINISHED}"):
        left.unlink(missing_ok=True)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Fill a folder that is there complete or not at all, in place of any that was there.

    A process that still reads what was there keeps it. Whoever may do the same at the same time is
    kept away by the caller.

    Yields:
        An empty folder beside it, which takes its name at the end.
    """
    unfinished, former = (folder.with_name(f".{folder.name}.{state}") for state in
                          ("unfinished", "former"))  # fmt: skip
    for left in (unfinished, former):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        folder.replace(former)
    unfinished.replace(folder)
    shutil.rmtree(former, ignore_errors=True)


class Record:
    """A file that tells what resumable work is about, and what of it is done, a line for each.

    A line that a kill or a full disk has cut off does not count, nor does any after it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[Any, list[Any]]:
        """Identity of the work, None if it was not begun, and the items that are done."""
        values = []
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for line in lines:
            try:
                values.append(json.loads(line))
            except ValueError:
                break
        return (values[0], values[1:]) if values else (None, [])

    def begin(self, about: Any, done: Iterable[Any] = ()) -> None:  # noqa: ANN401
        """Begin, with what is done already; in place of any former record."""
        with atomic(self._path) as file:
            for value in (about, *done):
                file.write(_line(value))

    def keep(self, done: Iterable[T]) -> Iterator[T]:
        """Add what is done as it comes."""
        with self._path.open("ab") as file:
            for value in done:
                file.write(_line(value))
                file.flush()
                yield value


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; refuses NaN, which is no JSON."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with atomic(path) as file:
        file.write(text.encode())


_COLUMNS = {
    "source": pa.dictionary(pa.int16(), pa.string()),
    "path": pa.string(),
    "split": pa.dictionary(pa.int8(), pa.string()),
    "label": pa.int8(),
    "logit": pa.float32(),
    "perturbation": pa.dictionary(pa.int8(), pa.string()),
    "strength": pa.float32(),
    "features": pa.list_(pa.float32()),
}


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a table of images atomically, one row an image.

    Args:
        path: a parquet file.
        columns: some of source, path, split, label (1 real), logit, perturbation, strength and
            features (a list of numbers), all of one length.
    """
    arrays = {name: pa.array(list(values), _COLUMNS[name]) for name, values in columns.items()}
    with atomic(path) as file:
        pq.write_table(pa.table(arrays), file)


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write ``(H, W, 3)`` uint8 as a PNG file, atomically; its folder is made if missing."""
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as file:
        Image.fromarray(pixels).save(file, "png")
