"""Scores of any number of files, in order, into one table, in constant memory.

Rows are written in parts, each whole or not there, into a folder beside the table; at the end the
parts become the table. A run that was stopped goes on after its last part.
"""

import csv
import hashlib
import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from forensics.atomic import atomic, remove_unfinished
from forensics.data.sources import as_text, list_images
from forensics.errors import UserError
from forensics.progress import Progress
from forensics.runs import write_json
from forensics.scoring import BATCH_SIZE, Detector, Prediction

PART_IMAGES = 32 * BATCH_SIZE
"""Whole batches: the numbers of a resumed run are those of one that was never stopped."""

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
]
_SCHEMA = pa.schema(_FIELDS)
_RECORD = "begun.json"


def gather(inputs: Iterable[str], lists: Iterable[str]) -> list[str]:
    """Name every file to score.

    Args:
        inputs: files; folders, for every image below them, hidden files and links left out; ``-``
            for paths on standard input, one a line.
        lists: text files of paths, one a line.

    Raises:
        UserError: if nothing was named.
        OSError: if a folder or a list cannot be read.
    """
    paths: list[str] = []
    for name in inputs:
        folder = Path(name)
        if name == "-":
            paths += _lines(sys.stdin)
        elif folder.is_dir():
            paths += [str(folder / file.path) for file in list_images(folder)]
        else:
            paths.append(name)
    for name in lists:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            paths += _lines(file)
    if not paths:
        raise UserError(
            "There is nothing to score: name files, folders with .jpg, .png or .webp files, "
            "--list FILE, or - for paths on standard input."
        )
    return paths


def _lines(file: Iterable[str]) -> list[str]:
    return [name for line in file if (name := line.rstrip("\r\n"))]


def predict(detector: Detector, paths: Sequence[str], table: Path, *, resume: bool) -> Counter[str]:
    """Score files into a table.

    Args:
        detector: what scores.
        paths: the files, which need not exist: what cannot be read is a row with an error.
        table: what is written: csv, jsonl or parquet by suffix.
        resume: go on after the last part of a run of this that was stopped, if there is one.

    Returns:
        How many files got each verdict, and how many an ``error``.

    Raises:
        UserError: if the suffix is another, if parts of a stopped run lie there and ``resume`` is
            not given, or they are of other files or of another detector.
    """
    write = _WRITERS.get(table.suffix.lower())
    if write is None:
        raise UserError(f"{table} must end in {', '.join(_WRITERS)}, which says how it is written.")
    parts = table.with_name(f"{table.name}.parts")
    _begin(parts, detector, paths, resume)
    done = 0
    while _part(parts, done).exists():
        done += 1
    rest = paths[done * PART_IMAGES :]
    with Progress("score", len(rest)) as progress:
        rows = _rows(rest, detector.stream(rest), progress)
        while part := list(islice(rows, PART_IMAGES)):
            with atomic(_part(parts, done)) as file:
                pq.write_table(pa.Table.from_pylist(part, schema=_SCHEMA), file)
            done += 1
    files = [_part(parts, number) for number in range(done)]
    counts: Counter[str] = Counter()
    for one in files:
        verdicts = pq.read_table(one, columns=["verdict"])["verdict"].to_pylist()
        counts.update(str(verdict or "error") for verdict in verdicts)
    with atomic(table) as file:
        write(file, (pq.read_table(one) for one in files))
    shutil.rmtree(parts)
    return counts


def _rows(
    paths: Iterable[str], predictions: Iterable[Prediction], progress: Progress
) -> Iterator[dict[str, Any]]:
    for path, prediction in zip(paths, predictions, strict=True):
        progress.advance()
        yield {"path": as_text(path)} | prediction._asdict()


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.parquet"


def _begin(parts: Path, detector: Detector, paths: Sequence[str], resume: bool) -> None:
    """Claim the folder of parts, or find that those in it are of the same run."""
    digest = hashlib.sha256(as_text("\n".join(paths)).encode()).hexdigest()
    begun = {"detector": detector.sha256, "paths": digest}
    record = parts / _RECORD
    if not record.exists():
        parts.mkdir(parents=True, exist_ok=True)
        write_json(record, begun)
        return
    if not resume:
        raise UserError(
            f"{parts} holds what a stopped run has scored: add --resume to go on with it, or "
            "remove it."
        )
    if json.loads(record.read_text()) != begun:
        raise UserError(
            f"{parts} was begun with other files or another detector: name the same, or remove it."
        )
    remove_unfinished(parts)


def _write_csv(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _SCHEMA.names)
    writer.writeheader()
    for table in tables:
        writer.writerows(table.to_pylist())
        file.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()


def _write_jsonl(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    for table in tables:
        for row in table.to_pylist():
            file.write(f"{json.dumps(row)}\n".encode())


def _write_parquet(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)


_WRITERS: dict[str, Callable[[BinaryIO, Iterable[pa.Table]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def summary(counts: Counter[str], table: Path) -> str:
    """One line on what was found."""
    said = [f"{counts[verdict]} {verdict}" for verdict in ("real", "generated", "unsure")]
    return f"{counts.total()} files: {', '.join(said)}, {counts['error']} unreadable; {table}"
