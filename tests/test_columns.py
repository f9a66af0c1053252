"""Columns are the lists they stand for."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from forensics.data import opening
from forensics.data.columns import Column, numbered
from forensics.data.sources import MANIFEST_FIELDS
from forensics.images.duplicates import firsts
from forensics.images.listing import ImageFile


def column(values: list[bytes], chunks: int) -> Column[bytes]:
    parts = np.array_split(np.arange(len(values)), chunks)
    kind = pa.binary(2)
    return Column(pa.chunked_array([pa.array([values[n] for n in part], kind) for part in parts]))


def test_a_column_is_the_list_of_its_values() -> None:
    values = [bytes([n % 7, n % 3]) for n in range(10_000)]
    of = column(values, 3)
    assert len(of) == 10_000
    assert list(of) == values
    assert of == values
    assert of != values[:-1]
    assert (of[0], of[-1], of[5000]) == (values[0], values[-1], values[5000])
    assert of[9990:2:-999] == values[9990:2:-999]
    assert values[4] in of
    assert b"xx" not in of
    rows = np.array([9, 0, 9999, 9])
    assert of.take(rows) == [values[row] for row in rows]
    assert of.take(np.empty(0, np.int64)) == []
    with pytest.raises(IndexError):
        of[10_000]


def test_numbers_and_first_rows_are_those_of_a_dictionary() -> None:
    draws = np.random.default_rng(0)
    for trial in range(50):
        counts = draws.integers(0, 30, int(draws.integers(1, 4)))
        values = [[bytes(pair) for pair in draws.integers(0, 4, (n, 2), np.uint8)] for n in counts]
        found = numbered([column(of, 1 + trial % 3) for of in values])
        number: dict[bytes, int] = {}
        assert [of.tolist() for of in found] == [
            [number.setdefault(value, len(number)) for value in of] for of in values
        ]
        all_ = [value for of in values for value in of]
        assert firsts(np.concatenate(found)).tolist() == [all_.index(value) for value in all_]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 12])
def test_a_listing_has_the_hash_of_its_json(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_LISTED_AT_ONCE", 4)
    files = [ImageFile(f'"ü\udcff{n}.png', n, 10**18 + n) for n in range(count)]
    columns = [field.name for field in MANIFEST_FIELDS]
    expected = opening._hash(json.dumps(["2|128", columns, files]).encode())
    assert opening._hash_of_listing("2|128", files) == expected
