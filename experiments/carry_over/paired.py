"""Paired differences between runs with a preprocess and without, on unseen generators."""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from forensics.evaluation.seeds import holm


def main() -> None:
    """Print a line a network, handling and preprocess: mean over seeds, 95 % interval and p."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("csv", type=Path, help="rows of rates.py")
    parser.add_argument("runs", nargs="+", help="names of runs without their preprocess and seed")
    parser.add_argument("--preprocess", nargs="+", default=["blur", "noise"])
    parser.add_argument("--handling", nargs="+", default=["untouched", "jpeg 75"])
    given = parser.parse_args()
    rates: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with given.csv.open() as file:
        for row in csv.DictReader(file):
            if row["part"] == "unseen":
                run, _, seed = row["run"].rpartition("_seed")
                rates[run, row["handling"]][seed].append(100 * float(row["acc"]))
    compared = [(r, h, p) for r in given.runs for h in given.handling for p in given.preprocess]
    found = []
    for run, handling, preprocess in compared:
        plain, other = rates[f"{run}_none", handling], rates[f"{run}_{preprocess}", handling]
        if not plain or plain.keys() != other.keys():
            sys.exit(f"{given.csv} has not the same seeds of {run}_none and {run}_{preprocess}.")
        differences = [np.mean(other[seed]) - np.mean(plain[seed]) for seed in plain]
        found.append((np.mean(differences), stats.ttest_1samp(differences, 0)))
    corrected = holm([float(test.pvalue) for _, test in found])
    heads = ("run", "handling", "preprocess", "difference", "p", "Holm's p")
    sys.stdout.write(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for names, (mean, test), p_holm in zip(compared, found, corrected, strict=True):
        low, high = test.confidence_interval(0.95)
        sys.stdout.write(
            f"| {' | '.join(names)} | {mean:+.1f} [{low:+.1f}, {high:+.1f}] "
            f"| {test.pvalue:.3f} | {p_holm:.3f} |\n"
        )


if __name__ == "__main__":
    main()
