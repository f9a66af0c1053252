"""Formats of a table of predictions."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from forensics.files import csv_cell

_FIELDS: list["pa.Field[Any]"] = [
    pa.field("path", pa.string()),
    pa.field("probability_real", pa.float64()),
    pa.field("logit", pa.float32()),
    pa.field("verdict", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("format", pa.string()),
    pa.field("error", pa.string()),
    pa.field("copies", pa.string()),
]
SCHEMA = pa.schema(_FIELDS)
"""The columns of a table of predictions; they are described at `Prediction`."""


def write_csv(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    """Write rows as csv, without cells that a spreadsheet would run as formulas."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, SCHEMA.names)
    writer.writeheader()
    for table in tables:
        writer.writerows(
            {name: csv_cell(value) for name, value in row.items()} for row in table.to_pylist()
        )
        file.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()


def _write_jsonl(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    for table in tables:
        for row in table.to_pylist():
            file.write(f"{json.dumps(row)}\n".encode())


def _write_parquet(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)


WRITERS: dict[str, Callable[[BinaryIO, Iterable[pa.Table]], None]] = {
    ".csv": write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
"""Writers of tables by suffix."""
