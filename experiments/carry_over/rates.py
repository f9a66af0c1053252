"""Balanced accuracy of detectors under each handling, on validation and on test images.

Validation: real images against the generators that only validate; by this a method is chosen.
Test: real images of each real source against each unseen generator, and the share of each unseen
real source that is called generated. Everything is at the threshold at a 5 % false-positive rate on
validation real images.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forensics.evaluation.metrics import ranking_values
from forensics.reports.run import Run, read_runs

THRESHOLD = "source_0.05"
PLAIN = "untouched"


def handling(name: str, strength: float) -> str:
    """A perturbation in words."""
    return f"{name} {strength:g}"


def on_validation(run: Run) -> Iterator[dict[str, Any]]:
    """Rows of the generators that only validate, by handling."""
    validation = run.result["validation"]
    measured = [(PLAIN, validation)]
    measured += [(handling(one["perturbation"], one["strength"]), one)
                 for one in validation["perturbed"]]  # fmt: skip
    for what, rates in measured:
        tpr = rates[f"tpr_at_{THRESHOLD}"]
        for name, generator in rates["generators"].items():
            if not generator["seen"]:
                tnr = generator[f"tnr_at_{THRESHOLD}"]
                yield {"part": "validation", "handling": what, "real": "all", "generator": name,
                       "n": generator["n"], "tpr": tpr, "tnr": tnr, "acc": (tpr + tnr) / 2,
                       "auroc": generator["auroc"]}  # fmt: skip


def on_test(run: Run) -> Iterator[dict[str, Any]]:
    """Rows of the tested pairs and of real sources in no pair, by handling."""
    threshold = run.result["thresholds"][THRESHOLD]
    seen = {pair["generator"]: pair["seen"] for pair in run.result["pairs"]}
    paired = {pair["real"] for pair in run.result["pairs"]}
    unpaired = [one["source"] for one in run.result["sources"]
                if one["real"] and one["source"] not in paired]  # fmt: skip
    measured: dict[str, Mapping[str, NDArray[np.float64]]] = {PLAIN: run.logits}
    measured |= {handling(*key): scores for key, scores in run.perturbed.items()}
    for what, scores in measured.items():
        for real, generator in run.pairs:
            tpr = float((scores[real] >= threshold).mean())
            tnr = float((scores[generator] < threshold).mean())
            yield {"part": "seen" if seen[generator] else "unseen", "handling": what, "real": real,
                   "generator": generator, "n": len(scores[generator]), "tpr": tpr, "tnr": tnr,
                   "acc": (tpr + tnr) / 2,
                   "auroc": ranking_values(scores[real], scores[generator])["auroc"]}  # fmt: skip
        for real in unpaired:
            tpr = float((scores[real] >= threshold).mean())
            yield {"part": "unseen real", "handling": what, "real": real, "generator": "",
                   "n": len(scores[real]), "tpr": tpr}  # fmt: skip


def main() -> None:
    """Write all rows as csv, and print means over pairs."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("csv", type=Path, help="file to write")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of train.py")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in given.runs:
        (run,) = read_runs(folder)
        about = {"run": folder.name, "seed": run.seed}
        rows += [about | row for row in (*on_validation(run), *on_test(run))]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.4f}" if isinstance(value, float) else value
                          for key, value in row.items()} for row in rows)  # fmt: skip
    handlings = list(dict.fromkeys(row["handling"] for row in rows))
    for part, metric in (("validation", "acc"), ("unseen", "acc"), ("unseen", "auroc"),
                         ("unseen real", "tpr")):  # fmt: skip
        sys.stdout.write(f"\n{part}, mean of {metric} in percent\n")
        sys.stdout.write(
            f"{'':<28}{'mean':>10}" + "".join(f"{one:>12}" for one in handlings) + "\n"
        )
        for folder in given.runs:
            means = [
                100 * np.mean([row[metric] for row in rows if row["run"] == folder.name
                               and (row["part"], row["handling"]) == (part, one)] or [np.nan])
                for one in handlings
            ]  # fmt: skip
            cells = "".join(f"{value:>12.1f}" for value in means)
            sys.stdout.write(f"{folder.name:<28}{np.mean(means):>10.1f}{cells}\n")


if __name__ == "__main__":
    main()
