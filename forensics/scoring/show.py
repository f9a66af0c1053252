"""Predictions on standard output: csv for programs, text for a terminal."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from forensics.images.listing import as_text
from forensics.progress import Progress
from forensics.scoring.explanation import check_explainable
from forensics.scoring.predict import check_output, claim_empty, predictions, write_page
from forensics.scoring.predictor import Predictor
from forensics.scoring.tables import SCHEMA, write_csv
from forensics.scoring.text import HEADER, Limits, common_folder, printable, sentence, table_lines


def show(
    detector: Predictor,
    paths: Sequence[str],
    *,
    as_csv: bool,
    overwrite: bool = False,
    refused: Mapping[str, str] | None = None,
    lists: Sequence[str] = (),
    explain: Path | None = None,
    page: Path | None = None,
) -> Counter[str]:
    """Score files and print each as soon as it is scored.

    Args:
        detector: the detector.
        paths: the files.
        as_csv: print the table as csv, else as text.
        overwrite: replace an existing page.
        refused: reason by path of files that get an error without being opened.
        lists: files that ``paths`` were read from, which the page may not replace.
        explain: folder for a figure of each readable image, as of `forensics.scoring.predict`.
        page: a page of thumbnails; the rows are kept in memory for it.

    Returns:
        Number of files by verdict, and of ``error``.

    Raises:
        UserError: as `forensics.scoring.predict.predict`.
    """
    if page is not None:
        check_output("--page", page, [*lists, *paths], replace=overwrite)
    if explain is not None:
        check_explainable(detector.scorer.detector)
        claim_empty(explain)
    counts: Counter[str] = Counter()
    kept: list[dict[str, Any]] = []

    def rows() -> Iterator[dict[str, Any]]:
        # On a terminal the rows themselves show the progress.
        shown = not sys.stdout.isatty()
        with Progress("score", len(paths), shown=shown) as progress:
            for row in predictions(detector, paths, refused or {}, explain, progress):
                counts[row["verdict"] or "error"] += 1
                if page is not None:
                    kept.append(row)
                yield row

    if as_csv:
        write_csv(sys.stdout.buffer, (pa.Table.from_pylist([row], SCHEMA) for row in rows()))
    else:
        _print(rows(), Limits.of(detector), [as_text(path) for path in paths])
    sys.stdout.flush()
    if page is not None:
        write_page(page, detector, paths, lambda: kept, counts, explain)
    return counts


def _print(rows: Iterator[dict[str, Any]], limits: Limits | None, paths: Sequence[str]) -> None:
    if len(paths) == 1:
        print(sentence(next(rows), limits))
        for _ in rows:  # ends the progress
            pass
        return
    folder = common_folder(paths)
    for number, row in enumerate(rows):
        if number == 0:
            if folder:
                print(f"Files in {printable(folder)}")
            print(HEADER)
        for line in table_lines(row, limits, folder):
            print(line)
