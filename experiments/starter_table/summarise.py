"""Turn the run folders of a study into its ``results.csv`` and the table of its README.md.

``python experiments/starter_table/summarise.py outputs/starter/*/`` prints the table
and writes ``results.csv`` beside this file.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from forensics.runs import read_result

OF_PAIR = ("real", "generator", "seen", "n_real", "n_generated")
METRICS = ("acc", "tpr", "tnr", "auroc")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """One row for each pair and threshold of a run."""
    result = read_result(folder)
    run = {"preprocess": result["preprocess"], "seed": result["settings"]["seed"]}
    rows = []
    for pair in result["pairs"]:
        for threshold in result["thresholds"]:
            row = run | {name: pair[name] for name in OF_PAIR} | {"threshold": threshold}
            for metric in METRICS:
                values = pair["ranking"] if metric == "auroc" else pair[f"at_{threshold}"]
                low, high = values[f"{metric}_interval"]
                row |= {metric: values[metric], f"{metric}_low": low, f"{metric}_high": high}
            rows.append(row | {"epoch": result["epoch"], "git_commit": result["git_commit"]})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds in percent, with the lowest and the highest seed in brackets."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        counts = f"{row['n_real']}+{row['n_generated']}"
        key = (row["generator"], row["seen"], counts, row["threshold"], row["preprocess"])
        groups[key].append(row)
    lines = [
        "| generator | n | threshold | preprocess | seeds | ACC | TPR | TNR | AUROC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (generator, seen, counts, threshold, preprocess), runs in groups.items():
        cells = []
        for metric in METRICS:
            values = [100 * run[metric] for run in runs]
            cells.append(f"{mean(values):.1f} [{min(values):.1f}, {max(values):.1f}]")
        name = f"{generator} ({'seen' if seen else 'unseen'})"
        before = f"{name} | {counts} | {threshold.replace('_', ' ')} | {preprocess} | {len(runs)}"
        lines.append(f"| {before} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the folders named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="of a run")
    rows = [row for folder in parser.parse_args().folder for row in rows_of(folder)]
    rows.sort(key=lambda row: (not row["seen"], row["generator"], row["threshold"]))
    with Path(__file__).with_name("results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
