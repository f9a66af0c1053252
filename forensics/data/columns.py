"""Columns of millions of values, which are not made into Python objects before they are read."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

T = TypeVar("T")

_AT_ONCE = 4096


class Column(Sequence[T], Generic[T]):
    """A column of a table as a sequence: a tenth of a list's memory.

    Args:
        values: the column.

    Attributes:
        values: the column, for functions of Arrow.
    """

    def __init__(self, values: "pa.ChunkedArray[Any]") -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            rows = range(start, stop, step)
            return [self[row] for row in rows]
        return cast(T, self.values[at].as_py())

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), _AT_ONCE):
            yield from cast(list[T], self.values.slice(start, _AT_ONCE).to_pylist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def take(self, rows: NDArray[np.integer]) -> list[T]:
        """The values of some rows."""
        return cast(list[T], self.values.take(pa.array(rows)).to_pylist())


def numbered(columns: Sequence[Column[bytes]]) -> list[NDArray[np.int64]]:
    """Number the different values of columns, from 0, in the order of their first row.

    Returns:
        By column, the number of each row's value; equal in all columns for equal values.
    """
    chunks = [chunk for column in columns for chunk in column.values.chunks]
    found = pa.concat_arrays(chunks).dictionary_encode().indices if chunks else pa.array([])
    numbers = np.asarray(found, np.int64)
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])
