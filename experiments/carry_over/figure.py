"""Draw README's figure: balanced accuracy on unseen generators by how test images were handled.

``python experiments/carry_over/figure.py results.csv figure.png RUN=LABEL ...``
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    """Draw a line for the runs of all seeds: the mean over pairs and seeds, a band to the worst."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("csv", type=Path, help="rows of rates.py")
    parser.add_argument("png", type=Path, help="file to write")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN=LABEL",
        help="runs RUN_seed0, RUN_seed1, ... and their label",
    )
    given = parser.parse_args()
    with given.csv.open() as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "unseen"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for run, label in (pair.split("=", 1) for pair in given.runs):
        values: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if row["run"].rpartition("_seed")[0] == run:
                values[row["handling"]].append(100 * float(row["acc"]))
        names = list(values)
        mean, worst = (np.array([fold(of) for of in values.values()]) for fold in (np.mean, min))
        (line,) = axis.plot(names, mean, marker="o", label=label)
        axis.fill_between(names, worst, mean, alpha=0.15, color=line.get_color())
    axis.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axis.set(ylabel="balanced accuracy, %", ylim=(35, 101))
    axis.set_title(
        "generators never seen in training; bands reach to the worst GAN and seed", fontsize=9
    )
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(given.png, dpi=110)


if __name__ == "__main__":
    main()
