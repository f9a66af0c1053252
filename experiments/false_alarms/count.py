"""Count verdicts in tables of `forensics predict`, with and without unsure, into ``results.csv``.

``python experiments/false_alarms/count.py outputs/utkface lfw.parquet utkface.parquet``: a run with
its thresholds, then tables, each named after its source. Prints the table of README.md.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from forensics.evaluation.intervals import wilson
from forensics.scoring import Predictor

FIELDS = ("source", "n", "called", "count", "share", "low", "high")


def rows_of(table: Path, thresholds: dict[str, float]) -> list[dict[str, Any]]:
    """Number of images of a table by verdict and by reason, with Wilson's intervals."""
    scores = pq.read_table(table).to_pylist()
    logits = np.array([row["logit"] for row in scores])
    counts = {
        f"generated at {name}": int((logits < threshold).sum())
        for name, threshold in thresholds.items()
    }
    for verdict in ("real", "generated", "unsure"):
        counts[f"verdict {verdict}"] = sum(row["verdict"] == verdict for row in scores)
    # An image may have several reasons.
    for reason in sorted({why for row in scores for why in row["reason"].split("; ") if why}):
        counts[f"unsure: {reason}"] = sum(reason in row["reason"] for row in scores)
    rows = []
    for called, count in counts.items():
        low, high = wilson(count, len(scores))
        values = (table.stem, len(scores), called, count, count / len(scores), low, high)
        rows.append(dict(zip(FIELDS, values, strict=True)))
    return rows


def main() -> None:
    """Read the tables named on the command line after the detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", help="a run's folder, or a detector.safetensors")
    parser.add_argument("table", nargs="+", type=Path, help="that forensics predict wrote: parquet")
    given = parser.parse_args()
    thresholds = Predictor.load(given.detector).card.calibration.thresholds
    rows = [row for table in given.table for row in rows_of(table, thresholds)]
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    sources = list(dict.fromkeys(f"{row['source']} ({row['n']})" for row in rows))
    print(f"| called, % | {' | '.join(sources)} |\n|---|{'---|' * len(sources)}")
    for called in dict.fromkeys(row["called"] for row in rows):
        cells = []
        for source in sources:
            cells += [
                f"{100 * row['share']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
                for row in rows
                if row["called"] == called and source == f"{row['source']} ({row['n']})"
            ] or ["0"]
        print(f"| {called} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
