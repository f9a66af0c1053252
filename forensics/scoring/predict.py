"""Scoring of any number of files, in order, into one table, in constant memory.

Rows are written in parts, each complete or absent, into a folder beside the table; at the end the
parts become the table. An interrupted run resumes after its last part. A part is written after the
explanations of its images, so that the explanations of an existing part are complete, too.
"""

import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forensics.detectors.card import CERTAIN_GENERATED, CERTAIN_REAL
from forensics.errors import UserError
from forensics.files import Record, atomic, remove_unfinished
from forensics.images.listing import as_text
from forensics.images.spectra import profiles
from forensics.progress import Progress
from forensics.runs import LOCK, locked
from forensics.scoring.explanation import check_explainable, explanation
from forensics.scoring.predictor import Prediction, Predictor, Scored, Verdict, limits
from forensics.scoring.scorer import BATCH_SIZE
from forensics.scoring.tables import SCHEMA, WRITERS
from forensics.scoring.text import Limits, printable

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PART_IMAGES = 4 * max(BATCH_SIZE.values())
"""Complete batches, so that a resumed run has the same scores as one never interrupted."""

_RECORD = "begun.json"
_STEM_LENGTH = 80
_TOLD = 5


def predict(
    detector: Predictor,
    paths: Sequence[str],
    table: Path,
    *,
    resume: bool,
    overwrite: bool = False,
    refused: Mapping[str, str] | None = None,
    lists: Sequence[str] = (),
    explain: Path | None = None,
    page: Path | None = None,
) -> Counter[str]:
    """Score files into a table.

    Args:
        detector: the detector.
        paths: the files; a file that is missing or unreadable gives a row with an error.
        table: the output file: csv, jsonl or parquet by suffix.
        resume: resume after the last part of an interrupted run, if there is one.
        overwrite: replace an existing table and page, and the parts of an interrupted run.
        refused: reason by path of files that get an error without being opened.
        lists: files that ``paths`` were read from, which no output may replace.
        explain: folder for a figure of each readable image, ``000012_NAME.png`` by its row,
            counted from 0; created if missing, must be empty.
        page: a page of thumbnails by verdict, see `forensics.scoring.page`.

    Returns:
        Number of files by verdict, and of ``error``.

    Raises:
        UserError: if the suffix is unknown; if an output is a folder, an input, or exists without
            ``overwrite`` or ``resume``; if there are parts of an interrupted run without either,
            or, to resume, of other files, another detector or another ``explain``; if ``explain``
            is not empty or Captum is missing; if ``page`` is the table.
        KeyboardInterrupt: after an interruption, with the command to resume.
    """
    if table.suffix.lower() not in WRITERS:
        raise UserError(
            f"{as_text(str(table))} must end in {', '.join(WRITERS)}, which sets its format.",
            key="--output",
        )
    if page is not None and page.resolve() == table.resolve():
        raise UserError(f"Table and page would both be {table}: give --page another name.")
    for option, output in (("--output", table), ("--page", page)):
        if output is not None:
            check_output(option, output, [*lists, *paths], replace=overwrite or resume)
    if explain is not None:
        check_explainable(detector.scorer.detector)
    parts = table.with_name(f"{table.name}.parts")
    with _own(parts):
        if overwrite and not resume:
            _clear(parts)
        _begin(parts, detector, paths, explain, resume)
        for output in (table, page):
            if output is not None:
                remove_unfinished(output.parent, output.name)
        try:
            counts = _written(detector, paths, table, parts, refused or {}, explain, page)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(
                f"Stopped: the scores so far are kept in {as_text(str(parts))}. Repeat the "
                "command with --resume."
            ) from stop
        shutil.rmtree(parts)
    return counts


def _written(
    detector: Predictor,
    paths: Sequence[str],
    table: Path,
    parts: Path,
    refused: Mapping[str, str],
    explain: Path | None,
    page: Path | None,
) -> Counter[str]:
    """Write the parts that are missing, then page and table; the arguments are `predict`'s."""
    done = 0
    while _part(parts, done).exists():
        done += 1
    start = done * PART_IMAGES
    with Progress("score", len(paths) - start) as progress:
        rows = predictions(detector, paths, refused, explain, progress, start)
        rows = _told(rows)
        while part := list(islice(rows, PART_IMAGES)):
            with atomic(_part(parts, done)) as file:
                pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), file)
            done += 1
    files = [_part(parts, number) for number in range(done)]
    counts: Counter[str] = Counter()
    for file_ in files:
        verdicts = _read(file_)["verdict"].to_pylist()
        counts.update(str(verdict or "error") for verdict in verdicts)
    if page is not None:

        def again() -> Iterator[dict[str, Any]]:
            for file in files:
                yield from _read(file).to_pylist()

        write_page(page, detector, paths, again, counts, explain)
    with atomic(table) as file:
        WRITERS[table.suffix.lower()](file, map(_read, files))
    return counts


@contextmanager
def _own(parts: Path) -> Iterator[None]:
    """Context in which no other process has a folder of parts; removed if nothing was begun."""
    parts.mkdir(parents=True, exist_ok=True)
    with locked(parts):
        try:
            yield
        finally:
            if not (parts / _RECORD).exists():
                with suppress(OSError):  # where there is anything else
                    (parts / LOCK).unlink(missing_ok=True)
                    parts.rmdir()


def _clear(parts: Path) -> None:
    """Remove parts, and their record last: a folder with it can be resumed."""
    remove_unfinished(parts)
    for number in count():
        if not _part(parts, number).exists():
            break
        _part(parts, number).unlink()
    (parts / _RECORD).unlink(missing_ok=True)


def check_output(option: str, path: Path, inputs: Sequence[str], *, replace: bool) -> None:
    """Refuse an output that would fail at the end or replace a file unasked."""
    said = as_text(str(path))
    if path.is_dir():
        raise UserError(f"{said} is a folder: name a file with {option}.", key=option)
    if not path.exists():
        return
    # Compared as files, because links lead to one by many paths.
    same = os.stat(path)
    if any(_is(given, same) for given in inputs):
        raise UserError(f"{said} is an input: give {option} another name.", key=option)
    if not replace:
        raise UserError(
            f"{said} exists already: add --overwrite to replace it, --resume to finish an "
            f"interrupted run, or give {option} another name.",
            key=option,
        )


def _is(path: str, file: os.stat_result) -> bool:
    """Whether a path leads to a file."""
    try:
        return os.path.samestat(os.stat(path), file)
    except (OSError, ValueError):  # no such file, no possible name of one
        return False


def predictions(
    detector: Predictor,
    paths: Sequence[str],
    refused: Mapping[str, str],
    explain: Path | None,
    progress: Progress | None = None,
    start: int = 0,
) -> Iterator[dict[str, Any]]:
    """Score files in order, in constant memory.

    Args:
        detector: the detector.
        paths: the files.
        refused: reason by path of files that get an error without being opened.
        explain: folder for a figure of each readable image, written before its row; or None.
        progress: counts the files.
        start: number of files to leave out.

    Yields:
        The row of each file, with the columns of `forensics.scoring.tables.SCHEMA`.
    """
    rest = islice(paths, start, None)
    scored = detector.stream_with_squares(path for path in rest if path not in refused)
    for number, path in enumerate(islice(paths, start, None), start):
        if path in refused:
            unread = Prediction(None, None, None, "", None, None, "", refused[path])
            prediction, square = Scored(unread, None)
        else:
            prediction, square = next(scored)
        if explain is not None and square is not None:
            with atomic(explain / _explanation(number, path)) as file:
                _explain(detector, square, prediction).savefig(file, format="png", dpi=80)
        if progress is not None:
            progress.advance()
        yield {"path": as_text(path)} | prediction._asdict()


def _told(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows, with a warning for the first unreadable files."""
    unreadable = 0
    for row in rows:
        if row["error"]:
            unreadable += 1
            if unreadable <= _TOLD:
                log.warning("%s cannot be scored: %s", printable(row["path"]), row["error"])
            elif unreadable == _TOLD + 1:
                log.warning("Further files cannot be scored: see the column error of the table.")
        yield row


def _read(part: Path) -> pa.Table:
    with part.open("rb") as file:  # Arrow's own paths are UTF-8
        return pq.read_table(file)


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.parquet"


def write_page(
    page: Path,
    detector: Predictor,
    paths: Sequence[str],
    rows: Callable[[], Iterable[Mapping[str, Any]]],
    counts: Counter[str],
    explain: Path | None,
) -> None:
    """Write a page of thumbnails.

    Args:
        page: the file; its folder is created if missing.
        detector: the detector.
        paths: path of each row's file.
        rows: returns the rows, in order, at each call.
        counts: number of files by verdict, and of ``error``.
        explain: the folder of the explanations, or None.
    """
    from forensics.scoring.page import write_gallery

    card, provenance = detector.card, detector.card.provenance
    thresholds = [card.calibration.thresholds[name] for name in (CERTAIN_GENERATED, CERTAIN_REAL)]
    limits_ = Limits.of(detector)
    unit = "score" if limits_ is None else "probability of real"
    generated, real = thresholds if limits_ is None else limits_
    facts = {
        "detector": f"{card.model}, trained on {', '.join(provenance.real)} (real) and "
        f"{', '.join(provenance.trained_on) or 'none'} (generated), preprocess "
        f"{provenance.preprocess}; weights sha256 {detector.sha256[:12]}, version "
        f"{provenance.version}, commit {provenance.git_commit or 'unknown'}",
        "limits": [
            f"An image is called generated if its {unit} is below {generated:.3f}, and real from "
            f"{real:.3f} on: 1 % and 5 % of the validation real images are below.",
            *limits(card),
        ],
        "toy": provenance.toy,
    }
    page.parent.mkdir(parents=True, exist_ok=True)

    def explained(number: int) -> str | None:
        if explain is None:
            return None
        return os.path.relpath(explain / _explanation(number, paths[number]), page.parent)

    write_gallery(page, rows, counts, paths, facts, limits_, explained)


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
        "all_checks": detector.card.calibration.largest_changes is None,
    }
    record = Record(parts / _RECORD)
    former, _ = record.read()
    if former is None:
        if explain is not None:
            claim_empty(explain)
        _clear(parts)
        record.begin(begun)
        return
    if not resume:
        raise UserError(
            f"{as_text(str(parts))} has the scores of an interrupted run: add --resume to resume "
            "it, or --overwrite to start again."
        )
    if former != begun:
        raise UserError(
            f"{as_text(str(parts))} was begun with other files, another detector or another "
            "--explain or --all-checks: name the same, or start again with --overwrite instead "
            "of --resume."
        )
    remove_unfinished(parts)
    if explain is not None:
        remove_unfinished(explain)


def claim_empty(folder: Path) -> None:
    """Make the folder of explanations.

    Raises:
        UserError: if there is anything in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: name another folder for --explain, or empty it.")


def summary(counts: Counter[str]) -> str:
    """The counts by verdict, in words."""
    said = [f"{counts[verdict]} {verdict}" for verdict in ("real", "generated", "unsure")]
    return f"{counts.total()} files: {', '.join(said)}, {counts['error']} unreadable"
