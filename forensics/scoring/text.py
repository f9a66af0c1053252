"""Predictions as text: a sentence for one image, a table of at most 80 columns for several."""

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from forensics.detectors.card import CERTAIN_GENERATED, CERTAIN_REAL
from forensics.scoring.predictor import Predictor, Verdict

WIDTH = 80
_INDENT = 21
HEADER = f"{'verdict':<10}  {'P(real)':>7}  file"


class Limits(NamedTuple):
    """The probabilities of real at which a detector's verdicts change.

    Attributes:
        generated: an image below it is called generated.
        real: an image from it on is called real.
    """

    generated: float
    real: float

    @classmethod
    def of(cls, detector: Predictor) -> "Limits | None":
        """The limits of a detector; None for one without calibration."""
        thresholds = detector.card.calibration.thresholds
        generated = detector.probability_real(thresholds[CERTAIN_GENERATED])
        real = detector.probability_real(thresholds[CERTAIN_REAL])
        return None if generated is None or real is None else cls(generated, real)


def beside(row: Mapping[str, Any], limits: Limits | None) -> str:
    """What explains a probability that reads contrary to its verdict; "" for any other.

    The limits are set by false-positive rates, so that they may be far from 0.5.
    """
    probability = row["probability_real"]
    if probability is None or limits is None:
        return ""
    if row["verdict"] == Verdict.generated and probability >= 0.5:
        return f"below {limits.generated:.3f}"
    if row["verdict"] == Verdict.real and probability < 0.5:
        return f"not below {limits.real:.3f}"
    return ""


def probability_text(probability: float | None) -> str:
    """A probability with three digits, but never as 0 or 1."""
    if probability is None:
        return "-"
    if probability < 0.001:
        return "< 0.001"
    return "> 0.999" if probability > 0.999 else f"{probability:.3f}"


def printable(name: str) -> str:
    """A name without characters that a terminal would obey, which are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths begin with, with its separator; "" if there is none."""
    if len(paths) < 2:
        return ""
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # absolute and relative ones
        return ""
    folder = os.path.join(folder, "") if folder else ""
    return folder if all(path.startswith(folder) for path in paths) else ""


def sentence(row: Mapping[str, Any], limits: Limits | None) -> str:
    """The prediction for one image in a sentence, wrapped."""
    name = printable(row["path"])
    if row["error"]:
        said = f"{name} cannot be scored: {row['error']}."
    else:
        probability = probability_text(row["probability_real"])
        of = f"probability of real {probability}"
        if row["probability_real"] is None:
            of = f"score {row['logit']:.3g}"
        notes = [of, beside(row, limits)]
        said = f"{name}: {row['verdict']}, {', '.join(filter(None, notes))}"
        said += f"; {row['reason']}." if row["reason"] else "."
    return textwrap.fill(said, WIDTH, break_long_words=False, break_on_hyphens=False)


def table_lines(row: Mapping[str, Any], limits: Limits | None, folder: str) -> Iterator[str]:
    """The lines of an image in a table, below `HEADER`.

    Args:
        row: the prediction.
        limits: the detector's.
        folder: the beginning of the path to leave out.
    """
    name = printable(row["path"][len(folder) :])
    if len(name) > WIDTH - _INDENT:
        name = f"…{name[_INDENT - WIDTH + 1 :]}"
    probability = probability_text(row["probability_real"])
    yield f"{row['verdict'] or 'unreadable':<10}  {probability:>7}  {name}"
    for note in (beside(row, limits), row["reason"] or row["error"]):
        indent = " " * _INDENT
        yield from textwrap.wrap(note, WIDTH, initial_indent=indent, subsequent_indent=indent)
