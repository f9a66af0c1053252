"""Balanced accuracy of detectors under each handling, on validation and on test images.

Validation: real images against the generators that only validate; by this a method is chosen.
Test: real images of each real source against each unseen generator, and the share of each unseen
real source that is called generated. Everything is at the threshold at a 5 % false-positive rate on
validation real images.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forensics.evaluation.metrics import ranking_values
from forensics.reports.run import Run, read_runs

THRESHOLD = "source_0.05"
PLAIN = "untouched"
AVERAGED = (PLAIN, "jpeg 75", "jpeg 90", "blur 3", "noise 3", "resize 0.5", "resize 0.75")
"""The handlings of ``sweep.yaml``, by whose mean a method is chosen."""
TABLES = {
    "validation": ({"part": "validation"}, "acc"),
    "validation, starter_pggan": ({"part": "validation", "generator": "starter_pggan"}, "acc"),
    "validation, starter_dcgan": ({"part": "validation", "generator": "starter_dcgan"}, "acc"),
    "unseen": ({"part": "unseen"}, "acc"),
    "unseen, AUROC": ({"part": "unseen"}, "auroc"),
    "false positives, lfw": ({"part": "unseen real", "real": "lfw"}, "fpr"),
    "false positives, utkface": ({"part": "unseen real", "real": "utkface"}, "fpr"),
}
"""What is printed: the rows that count, and the metric."""


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
                   "n": len(scores[real]), "tpr": tpr, "fpr": 1 - tpr}  # fmt: skip


def spread(of_seeds: Sequence[float]) -> str:
    """Mean over seeds, and the lowest and the highest of several."""
    if len(of_seeds) == 0:
        return "-"
    low, high = min(of_seeds), max(of_seeds)
    several = f" [{low:.0f}, {high:.0f}]" if len(of_seeds) > 1 else ""
    return f"{np.mean(of_seeds):.1f}{several}"


def table(
    rows: list[dict[str, Any]],
    chosen: tuple[dict[str, str], str],
    fold: Callable[[list[float]], float],
) -> str:
    """A table in Markdown: mean over seeds with the lowest and the highest, of each handling.

    Before them the mean over `AVERAGED`, of runs tested under all of these.

    Args:
        rows: all rows; runs of one name but for ``_seed0`` and so on share a line.
        chosen: the rows that count, by the values of their columns, and the metric.
        fold: what combines the rows of a seed, in percent.
    """
    where, metric = chosen
    by_run: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        if where.items() <= row.items():
            of_run = by_run.setdefault(row["run"].rpartition("_seed")[0], {})
            of_seed = of_run.setdefault(row["handling"], {}).setdefault(row["seed"], [])
            of_seed.append(100 * row[metric])
    handlings = list(dict.fromkeys(one for of_run in by_run.values() for one in of_run))
    lines = [
        f"| run | seeds | mean | {' | '.join(handlings)} |",
        "|---" * (len(handlings) + 3) + "|",
    ]
    for run, of_run in by_run.items():
        folded = {one: [fold(values) for values in of_run[one].values()] for one in of_run}
        complete = folded.keys() >= {*AVERAGED}
        mean = np.mean([folded[one] for one in AVERAGED], axis=0) if complete else []
        cells = [spread(mean), *(spread(folded.get(one, [])) for one in handlings)]
        lines.append(f"| {run} | {len(folded[PLAIN])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all rows as csv, and print the tables."""
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
    for title, chosen in TABLES.items():
        for fold in (np.mean, np.min) if title == "unseen" else (np.mean,):
            sys.stdout.write(f"\n{title}, {fold.__name__}\n\n{table(rows, chosen, fold)}")


if __name__ == "__main__":
    main()
