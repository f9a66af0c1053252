"""Means over seeds of the study's detectors: a csv of all, a table sorted by the worst, a figure.

``python experiments/detectors/compare.py outputs/detectors/*/ --to experiments/detectors``
"""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forensics.errors import UserError
from forensics.evaluation.metrics import ranking_values
from forensics.reports.run import Run, read_runs

THRESHOLD = "source_0.05"
"""At 5 % FPR on validation real images."""

Key = tuple[str, str]


def measured(run: Run) -> Iterator[tuple[str, float]]:
    """What the csv has of a run, by column, in percent: `unseen` is the worst unseen generator."""
    threshold = run.result["thresholds"][THRESHOLD]
    seen = {pair["generator"]: pair["seen"] for pair in run.result["pairs"]}
    paired = {pair["real"] for pair in run.result["pairs"]}
    handled = {"": run.logits} | {
        f"_{name}{strength:g}": scores for (name, strength), scores in run.perturbed.items()
    }
    for suffix, scores in handled.items():
        found: dict[str, list[float]] = defaultdict(list)
        # Unseen generators first, so that the worst of them is the first column.
        for real, generator in sorted(run.pairs, key=lambda pair: seen[pair[1]]):
            rates = (scores[real] >= threshold).mean(), (scores[generator] < threshold).mean()
            auroc = ranking_values(scores[real], scores[generator])["auroc"]
            for name in (generator,) if seen[generator] else ("unseen", generator):
                found[f"{name}{suffix}"].append(100 * float(np.mean(rates)))
                found[f"{name}{suffix}_auroc"].append(100 * auroc)
        for name, values in found.items():
            yield name, min(values)
        for source in run.result["sources"]:
            name = source["source"]
            if source["real"] and name not in paired:
                yield f"fpr_{name}{suffix}", 100 * float((scores[name] < threshold).mean())


def rows(runs: list[Run]) -> list[dict[str, Any]]:
    """A row for each detector and training set: mean, lowest and highest seed of each column."""
    by_key: dict[Key, list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        by_key[str(run.settings["model"]), "+".join(run.train_on)].append(dict(measured(run)))
    found = []
    for (model, train_on), of_seeds in by_key.items():
        row: dict[str, Any] = {"model": model, "train_on": train_on, "seeds": len(of_seeds)}
        for name in of_seeds[0]:
            values = [one[name] for one in of_seeds]
            row |= {name: np.mean(values), f"{name}_low": min(values), f"{name}_high": max(values)}
        found.append(row)
    return sorted(found, key=lambda row: -row["unseen"])


def figure(found: list[dict[str, Any]], speed: Path, to: Path) -> None:
    """Draw accuracy on unseen generators against the time of scoring an image."""
    with speed.open(newline="") as file:
        times = {row["model"]: float(row["score_ms"]) for row in csv.DictReader(file)}
    drawn = Figure(figsize=(7.5, 5), layout="constrained")
    axis = drawn.subplots()
    for row in found:
        if row["model"] not in times or "+" in row["train_on"]:
            continue
        x = times[row["model"]]
        axis.plot([x, x], [row["unseen"], row["unseen_jpeg75"]], color="0.8", zorder=0)
        axis.plot(x, row["unseen"], "o", color="#0072b2")
        axis.plot(x, row["unseen_jpeg75"], "v", color="#d55e00", markerfacecolor="white")
        axis.annotate(row["model"], (x, row["unseen"]), (4, 3), textcoords="offset points",
                      fontsize=7)  # fmt: skip
    axis.axhline(50, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)))
    axis.set(xscale="log", xlabel="scoring, ms an image of 128 px on one thread",
             ylabel="balanced accuracy on the worst unseen generator, %")  # fmt: skip
    axis.set_title("filled: as they come; hollow: after JPEG 75", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(to, dpi=110)


def main() -> None:
    """Write ``results.csv`` and, beside ``time_per_image.csv``, ``cost.png``; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of train.py")
    parser.add_argument("--to", type=Path, required=True, help="folder to write into")
    given = parser.parse_args()
    try:
        found = rows([run for folder in given.runs for run in read_runs(folder)])
    except UserError as error:
        sys.exit(str(error))
    with (given.to / "results.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(key for row in found for key in row),
                               lineterminator="\n")  # fmt: skip
        table.writeheader()
        table.writerows(
            {name: f"{value:.1f}" if isinstance(value, float) else value
             for name, value in row.items()}
            for row in found
        )  # fmt: skip
    shown = [name for name in found[0]
             if f"{name}_low" in found[0] and not name.endswith("_auroc")]  # fmt: skip
    sys.stdout.write(f"| model | train_on | seeds | {' | '.join(shown)} |\n")
    sys.stdout.write("|---" * (len(shown) + 3) + "|\n")
    for row in found:
        cells = [f"{row[n]:.1f} [{row[f'{n}_low']:.0f}, {row[f'{n}_high']:.0f}]" for n in shown]
        about = f"`{row['model']}` | {row['train_on']} | {row['seeds']}"
        sys.stdout.write(f"| {about} | {' | '.join(cells)} |\n")
    if (given.to / "time_per_image.csv").exists():
        figure(found, given.to / "time_per_image.csv", given.to / "cost.png")


if __name__ == "__main__":
    main()
