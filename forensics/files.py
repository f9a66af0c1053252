"""Atomic writing: files and folders are either complete or absent."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")

_UNFINISHED = ".unfinished"
_FORMULA = re.compile(r"[\t\r\n']|[\s\ufeff]*[=+\-@＝＋－＠]")  # noqa: RUF001


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for atomic writing; after an error the file is unchanged."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk has none
        raise


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove leftovers of processes killed within `atomic`; no other process may be writing.

    Args:
        folder: their folder.
        name: the name of the file that was written; any if empty.
    """
    for leftover in folder.glob(f".{escape(name)}{'.' if name else ''}*{_UNFINISHED}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Write a folder atomically, replacing an existing one.

    Processes that still have files of the old folder open can read them to the end. The caller
    excludes concurrent writers.

    Yields:
        An empty folder beside ``folder``, which is renamed to it at the end.
    """
    unfinished, former = (folder.with_name(f".{folder.name}.{state}") for state in
                          ("unfinished", "former"))  # fmt: skip
    for leftover in (unfinished, former):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
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
    """A file with the identity of resumable work, then one line per completed item.

    A line truncated by a kill or a full disk is ignored, as are all lines after it.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[Any, list[Any]]:
        """Identity of the work, None if it was not begun, and the completed items."""
        values = []
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for line in lines:
            try:
                values.append(json.loads(line))
            except ValueError:
                break
        return (values[0], values[1:]) if values else (None, [])

    def begin(self, about: Any, done: Iterable[Any] = ()) -> None:  # noqa: ANN401
        """Begin a record with the completed items, replacing any existing one."""
        with atomic(self._path) as file:
            for value in (about, *done):
                file.write(_line(value))

    def keep(self, done: Iterable[T]) -> Iterator[T]:
        """Append items as they are completed, and yield them."""
        with self._path.open("ab") as file:
            for value in done:
                file.write(_line(value))
                file.flush()
                yield value


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; refuses NaN, which is not valid JSON."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with atomic(path) as file:
        file.write(text.encode())


def parsed(text: str) -> Any:  # noqa: ANN401
    """The content of a JSON file that may come from anywhere.

    Raises:
        ValueError: if it is no JSON, or has half a surrogate pair, which no file could be written
            with.
        RecursionError: if it is nested too deeply.
    """
    content = json.loads(text)
    json.dumps(content, ensure_ascii=False).encode()
    return content


def csv_cell(value: T) -> T | str:
    """A value for a csv file, as text that no spreadsheet runs as a formula.

    A text that begins with ``=``, ``+``, ``-``, ``@`` or the full-width form of one, after any
    space, or with a tab, a line break or an apostrophe, gets an apostrophe in front, so that the
    original is the text without its first apostrophe.
    """
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value


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


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a table of images atomically, one row per image.

    Args:
        path: a parquet file.
        columns: some of source, path, split, label (1 real), logit, perturbation, strength and
            features (a list of numbers), all of one length.
    """
    arrays = {name: pa.array(list(values), _COLUMNS[name]) for name, values in columns.items()}
    with atomic(path) as file:
        pq.write_table(pa.table(arrays), file)


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write ``(H, W, 3)`` uint8 as a PNG file, atomically; creates its folder if missing."""
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as file:
        Image.fromarray(pixels).save(file, "png")
