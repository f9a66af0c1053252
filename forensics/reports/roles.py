"""Rates of sources outside the test pairs: unseen real sources, and validation generators."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from forensics.evaluation.seeds import spread
from forensics.reports.comparison import Rows
from forensics.reports.run import Run
from forensics.reports.study import Study
from forensics.reports.study_tables import Table, of_seeds, percent
from forensics.reports.variants import training_set

METRICS = {
    "fpr": "real, called generated",
    "tnr": "generated, validation only, found",
    "auroc": "generated, validation only, AUROC",
}


def rates(study: Study) -> Rows:
    """Rates of each source outside the test pairs, by training set and variant.

    Returns:
        Rows with the mean over seeds, their spread and ``by_seed``: ``fpr`` of unseen real
        sources, ``tnr`` and ``auroc`` of generators used for validation only.
    """
    found: dict[tuple[str, str, str, str, str | None], list[float]] = {}
    counts = {}
    for train_on in study.train_sets:
        for variant in study.variants:
            for run in study.of(train_on, variant):
                for source, n, metric, threshold, value in _of_run(run):
                    key = (training_set(train_on), variant.label, source, metric, threshold)
                    found.setdefault(key, []).append(value)
                    counts[key] = n
    return [
        {
            "train_on": train_on,
            "variant": variant,
            "source": source,
            "metric": metric,
            "threshold": threshold,
            "n": counts[train_on, variant, source, metric, threshold],
            "seeds": len(values),
            "mean": float(np.mean(values)),
            "std": spread(np.array(values)),
            "by_seed": values,
        }
        for (train_on, variant, source, metric, threshold), values in found.items()
    ]


def _of_run(run: Run) -> Iterator[tuple[str, int, str, str | None, float]]:
    paired = {name for pair in run.pairs for name in pair}
    for source in run.result["sources"]:
        if source["real"] and source["source"] not in paired:
            for threshold in run.result["thresholds"]:
                rate = 1 - source[f"tpr_at_{threshold}"]
                yield source["source"], source["n"], "fpr", threshold, rate
    for name, measured in run.result.get("validation", {}).get("generators", {}).items():
        if not measured["seen"]:
            yield name, measured["n"], "auroc", None, measured["auroc"]
            for threshold in run.result["thresholds"]:
                yield name, measured["n"], "tnr", threshold, measured[f"tnr_at_{threshold}"]


def table(study: Study, rows: Rows, threshold: str) -> Table:
    """`rates` at one threshold, one column per variant."""
    of = {
        (row["train_on"], row["source"], row["metric"], row["variant"]): row
        for row in rows
        if row["threshold"] in (threshold, None)
    }
    lines: list[list[str]] = []
    for train_on, source, metric in dict.fromkeys(key[:3] for key in of):
        cells: list[dict[str, Any] | None] = [
            of.get((train_on, source, metric, variant.label)) for variant in study.variants
        ]
        n = next(str(row["n"]) for row in cells if row)
        lines.append([train_on, f"{source} ({METRICS[metric]})", n, *map(_cell, cells)])
    header = ["trained on", "source", "n", *(variant.name for variant in study.variants)]
    return header, lines


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return percent(row["mean"]) + of_seeds(row["by_seed"], row["std"], percent)
