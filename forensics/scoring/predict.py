"""Scoring of any number of files, in order, into one table, in constant memory.

Rows are written in parts, each complete or absent, into a folder beside the table; at the end the
parts become the table. An interrupted run resumes after its last part. A part is written after the
explanations of its images, so that the explanations of an existing part are complete, too.
"""

import csv
import hashlib
import io
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forensics.detectors.card import CERTAIN_GENERATED, CERTAIN_REAL
from forensics.errors import UserError
from forensics.files import Record, atomic, remove_unfinished
from forensics.images.listing import as_text, list_images
from forensics.images.spectra import profiles
from forensics.progress import Progress
from forensics.scoring.explanation import check_explainable, explanation
from forensics.scoring.predictor import Prediction, Predictor, Verdict, limits
from forensics.scoring.scorer import BATCH_SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PART_IMAGES = 4 * max(BATCH_SIZE.values())
"""Complete batches, so that a resumed run has the same scores as one never interrupted."""

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
_STEM_LENGTH = 80


def gather(inputs: Iterable[str], lists: Iterable[str]) -> list[str]:
    """List the paths of all files to score.

    Args:
        inputs: files; folders, for every image below them except hidden files and links; ``-``
            for paths on standard input, one per line.
        lists: text files of paths, one per line.

    Raises:
        UserError: if there is no file.
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


def predict(
    detector: Predictor,
    paths: Sequence[str],
    table: Path,
    *,
    resume: bool,
    explain: Path | None = None,
    page: Path | None = None,
) -> Counter[str]:
    """Score files into a table.

    Args:
        detector: the detector.
        paths: the files; a file that is missing or unreadable gives a row with an error.
        table: the output file: csv, jsonl or parquet by suffix.
        resume: resume after the last part of an interrupted run, if there is one.
        explain: folder for a figure of each readable image, ``000012_NAME.png`` by its row,
            counted from 0; created if missing, must be empty.
        page: a page of thumbnails by verdict, see `forensics.scoring.page`.

    Returns:
        Number of files by verdict, and of ``error``.

    Raises:
        UserError: if the suffix is unknown; if there are parts of an interrupted run without
            ``resume``, or of other files, another detector or another ``explain``; if ``explain``
            is not empty or Captum is missing; if ``page`` is the table.
        KeyboardInterrupt: after an interruption, with the command to resume.
    """
    write = _WRITERS.get(table.suffix.lower())
    if write is None:
        raise UserError(f"{table} must end in {', '.join(_WRITERS)}, which sets its format.")
    if page is not None and page.resolve() == table.resolve():
        raise UserError(f"Table and page would both be {table}: give --page another name.")
    if explain is not None:
        check_explainable(detector.scorer.detector)
    parts = table.with_name(f"{table.name}.parts")
    _begin(parts, detector, paths, explain, resume)
    try:
        done = 0
        while _part(parts, done).exists():
            done += 1
        start = done * PART_IMAGES
        with Progress("score", len(paths) - start) as progress:
            rows = _rows(detector, paths, start, explain, progress)
            while part := list(islice(rows, PART_IMAGES)):
                with atomic(_part(parts, done)) as file:
                    pq.write_table(pa.Table.from_pylist(part, schema=_SCHEMA), file)
                done += 1
        files = [_part(parts, number) for number in range(done)]
        counts: Counter[str] = Counter()
        for file_ in files:
            verdicts = pq.read_table(file_, columns=["verdict"])["verdict"].to_pylist()
            counts.update(str(verdict or "error") for verdict in verdicts)
        if page is not None:
            _write_page(page, detector, paths, files, counts)
        with atomic(table) as file:
            write(file, (pq.read_table(file_) for file_ in files))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"Stopped: the scores so far are kept in {parts}. Repeat the command with --resume."
        ) from stop
    shutil.rmtree(parts)
    return counts


def _rows(
    detector: Predictor, paths: Sequence[str], start: int, explain: Path | None, progress: Progress
) -> Iterator[dict[str, Any]]:
    """The rows from ``start`` on, each after its explanation, if any, is written."""
    rest = islice(paths, start, None)
    scored = detector.stream_with_squares(islice(paths, start, None))
    for number, (path, (prediction, square)) in enumerate(zip(rest, scored, strict=True), start):
        if explain is not None and square is not None:
            with atomic(explain / _explanation(number, path)) as file:
                _explain(detector, square, prediction).savefig(file, format="png", dpi=80)
        progress.advance()
        yield {"path": as_text(path)} | prediction._asdict()


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.parquet"


def _write_page(
    page: Path,
    detector: Predictor,
    paths: Sequence[str],
    files: Sequence[Path],
    counts: Counter[str],
) -> None:
    """Write the page of thumbnails of the images of all parts."""
    from forensics.scoring.page import write_gallery

    def rows() -> Iterator[dict[str, Any]]:
        for file in files:
            yield from pq.read_table(file).to_pylist()

    card, provenance = detector.card, detector.card.provenance
    thresholds = [card.calibration.thresholds[name] for name in (CERTAIN_GENERATED, CERTAIN_REAL)]
    probabilities = [detector.probability_real(threshold) for threshold in thresholds]
    unit = "score" if None in probabilities else "probability of real"
    generated, real = thresholds if None in probabilities else probabilities
    facts = {
        "detector": f"{card.model}, trained on {', '.join(provenance.real)} (real) and "
        f"{', '.join(provenance.trained_on) or 'none'} (generated), preprocess "
        f"{provenance.preprocess}; weights sha256 {detector.sha256[:12]}, version "
        f"{provenance.version}, commit {provenance.git_commit}",
        "limits": [
            f"An image is called generated if its {unit} is below {generated:.3f}, and real from "
            f"{real:.3f} on: 1 % and 5 % of the validation real images are below.",
            *limits(card),
        ],
        "toy": provenance.toy,
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    write_gallery(page, rows, counts, paths, facts)


def _explanation(number: int, path: str) -> str:
    """File name of an image's explanation, without special characters of the image's name."""
    stem = re.sub(r"[^\w.-]", "_", Path(path).stem, flags=re.ASCII)
    return f"{number:06d}_{stem[:_STEM_LENGTH]}.png"


def _explain(detector: Predictor, square: NDArray[np.uint8], prediction: Prediction) -> "Figure":
    """Draw the explanation of an image's verdict."""
    assert prediction.logit is not None
    real = prediction.logit >= detector.card.calibration.thresholds[CERTAIN_REAL]
    evidence = detector.evidence(square)
    title = f"{prediction.verdict}, score {prediction.logit:.3g}"
    if prediction.probability_real is not None:
        title = f"{prediction.verdict}, probability of real {prediction.probability_real:.3g}"
    if prediction.reason:
        title += f": {prediction.reason}"
    return explanation(
        square,
        evidence if real else -evidence,
        Verdict.real if real else Verdict.generated,
        profiles(square[None])[0],
        {} if detector.card.guard is None else detector.card.guard.spectra,
        title,
    )


def _begin(
    parts: Path, detector: Predictor, paths: Sequence[str], explain: Path | None, resume: bool
) -> None:
    """Claim the folders of parts and explanations, or check that they are of the same run."""
    digest = hashlib.sha256(as_text("\n".join(paths)).encode()).hexdigest()
    begun = {
        "detector": detector.sha256,
        "paths": digest,
        "explain": None if explain is None else as_text(str(explain.resolve())),
    }
    record = Record(parts / _RECORD)
    former, _ = record.read()
    if former is None:
        if explain is not None:
            explain.mkdir(parents=True, exist_ok=True)
            if any(explain.iterdir()):
                raise UserError(
                    f"{explain} is not empty: name another folder for --explain, or empty it."
                )
        parts.mkdir(parents=True, exist_ok=True)
        record.begin(begun)
        return
    if not resume:
        raise UserError(
            f"{parts} has the scores of an interrupted run: add --resume to resume, or remove it."
        )
    if former != begun:
        raise UserError(
            f"{parts} was begun with other files, another detector or another --explain: name the "
            "same, or remove it."
        )
    remove_unfinished(parts)
    if explain is not None:
        remove_unfinished(explain)


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
    """One line with the counts by verdict."""
    said = [f"{counts[verdict]} {verdict}" for verdict in ("real", "generated", "unsure")]
    return f"{counts.total()} files: {', '.join(said)}, {counts['error']} unreadable; {table}"
