"""A study's tables as rows, for csv files and `forensics.reports.study_tables`."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from forensics.evaluation.metrics import AT_THRESHOLD
from forensics.evaluation.seeds import METRICS, PairScores, difference, holm, over_seeds
from forensics.files import csv_cell
from forensics.reports.run import UNKNOWN, Run, in_order
from forensics.reports.study import Study, pair_of
from forensics.reports.variants import Variant, training_set

Rows = list[dict[str, Any]]

PAPER: dict[str, dict[str, dict[str, float]]] = {
    "pggan": {
        "M": {"acc": 95.45, "tpr": 95.12, "tnr": 95.77},
        "M_GB": {"acc": 94.28, "tpr": 93.08, "tnr": 95.47},
        "M_GN": {"acc": 95.02, "tpr": 94.65, "tnr": 95.38},
    },
    "wgan_gp": {
        "M": {"acc": 64.62, "tpr": 95.12, "tnr": 34.12},
        "M_GB": {"acc": 68.07, "tpr": 93.08, "tnr": 43.06},
        "M_GN": {"acc": 68.28, "tpr": 94.65, "tnr": 41.91},
    },
    "dcgan": {
        "M": {"acc": 60.55, "tpr": 95.12, "tnr": 25.98},
        "M_GB": {"acc": 64.05, "tpr": 93.08, "tnr": 35.02},
        "M_GN": {"acc": 66.38, "tpr": 94.65, "tnr": 38.11},
    },
}
"""Percent, of detectors trained on PGGAN. Source: arXiv 1902.11153, table 1."""


def _paper(train_on: Sequence[str], generator: str, variant: Variant, metric: str) -> float | None:
    """The paper's figure for sources of the same names."""
    if list(train_on) != ["pggan"]:
        return None
    percent = PAPER.get(generator, {}).get(variant.name, {}).get(metric)
    return None if percent is None else percent / 100


def _cell(
    train_on: Sequence[str], variant: Variant, real: str, generator: str, runs: Sequence[Run]
) -> dict[str, Any]:
    """Columns that identify a row."""
    return {
        "train_on": training_set(train_on),
        "real": real,
        "generator": generator,
        "seen": any(generator in run.seen for run in runs),
        "variant": variant.label,
    }


def _measured(pair: PairScores, metric: str) -> dict[str, Any]:
    """Counts, and a metric over seeds."""
    return {
        "metric": metric,
        "n_real": pair.real.shape[1],
        "n_generated": pair.generated.shape[1],
        "seeds": len(pair.thresholds),
        **over_seeds(pair, metric),
    }


def cells(study: Study) -> Rows:
    """Every metric of every test pair by training set, variant and threshold.

    Returns:
        Rows with the mean over seeds, its interval, and the paper's figure where it has one.
        AUROC has no threshold and one row. ``missing_seeds`` are seeds that another variant or
        training set has and this one lacks. Untested combinations have no row.
    """
    rows: Rows = []
    every_seed = {run.seed for run in study.runs} - {UNKNOWN}
    for (train_on, variant, real, generator), tested in _tested(study):
        for threshold in study.thresholds:
            runs = [run for run in tested if threshold in run.result["thresholds"]]
            if not runs:
                continue
            pair = pair_of(runs, real, generator, threshold)
            of_runs = {run.seed for run in runs}
            lacking = [] if UNKNOWN in of_runs else in_order(every_seed - of_runs)
            missing = " ".join(map(str, lacking))
            for metric in METRICS if threshold == study.threshold else AT_THRESHOLD:
                paper = _paper(train_on, generator, variant, metric)
                rows.append(
                    {
                        **_cell(train_on, variant, real, generator, runs),
                        "threshold": None if metric == "auroc" else threshold,
                        **_measured(pair, metric),
                        "missing_seeds": missing,
                        "paper": paper if threshold == "0.5" and not study.toy else None,
                    }
                )
    return rows


def _tested(
    study: Study,
) -> Iterator[tuple[tuple[tuple[str, ...], Variant, str, str], list[Run]]]:
    """Identity of each cell, with the runs that tested it."""
    for train_on in study.train_sets:
        for pair in study.pairs():
            for variant in study.variants:
                runs = [run for run in study.of(train_on, variant) if pair in run.pairs]
                if runs:
                    yield (train_on, variant, *pair), runs


def differences(study: Study) -> Rows:
    """Difference of each variant to the first in each metric, paired by image and seed.

    Returns:
        Rows at `Study.threshold`; empty if there is one variant. Only seeds of both variants are
        compared. ``p_holm`` is corrected for all tests of the same metric.
    """
    rows: Rows = []
    reference = study.variants[0]
    tested = dict(_tested(study))
    for (train_on, variant, real, generator), runs in tested.items():
        plain = {run.seed: run for run in tested.get((train_on, reference, real, generator), ())}
        other = {run.seed: run for run in runs}
        seeds = [seed for seed in other if seed in plain]
        if variant == reference or not seeds:
            continue
        before, after = (
            pair_of([of[seed] for seed in seeds], real, generator, study.threshold)
            for of in (plain, other)
        )
        for metric in METRICS:
            rows.append(
                {
                    **_cell(train_on, variant, real, generator, runs),
                    "minus": reference.label,
                    "metric": metric,
                    "seeds": len(seeds),
                    **difference(before, after, metric),
                    "p_holm": None,
                }
            )
    for metric in METRICS:
        family = [row for row in rows if row["metric"] == metric and row["p"] is not None]
        for row, corrected in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = corrected
    return rows


def grid(rows: Rows, metric: str, threshold: str) -> Rows:
    """The grid of training sets by tested generators.

    Args:
        rows: rows of `cells`.
        metric: one of `METRICS`.
        threshold: threshold of metrics that have one.

    Returns:
        A row for each real source, variant and training set: ``<generator>`` the mean,
        ``seen``, the generators trained on; ``mean_unseen``, ``worst_unseen`` and its generator, a
        minimum, which is biased downwards; ``left_out``, the value for the generator left out of a
        leave-one-out training set, None for other sets.
    """
    chosen = [
        row for row in rows if row["metric"] == metric and row["threshold"] in (threshold, None)
    ]
    table: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in chosen:
        key = row["real"], row["variant"], row["train_on"]
        table.setdefault(key, {})[row["generator"]] = row
    lines = []
    for (real, variant, train_on), of in table.items():
        unseen = {name: row["mean"] for name, row in of.items() if not row["seen"]}
        worst = min(unseen, key=lambda name: unseen[name]) if unseen else None
        lines.append(
            {
                "metric": metric,
                "real": real,
                "variant": variant,
                "train_on": train_on,
                "seeds": next(iter(of.values()))["seeds"],
                "seen": [name for name, row in of.items() if row["seen"]],
                **{name: row["mean"] for name, row in of.items()},
                "mean_unseen": float(np.mean(list(unseen.values()))) if unseen else None,
                "worst_unseen": None if worst is None else unseen[worst],
                "worst_generator": worst,
                "left_out": unseen[worst] if worst is not None and len(unseen) == 1 else None,
            }
        )
    return lines


def perturbed(study: Study) -> Rows:
    """ACC at `Study.threshold` and AUROC under each perturbation and strength.

    Strength None is the test without perturbation.

    Returns:
        Rows; empty if no run was tested under perturbations.
    """
    rows: Rows = []
    for (train_on, variant, real, generator), tested in _tested(study):
        runs = [run for run in tested if run.perturbed]
        keys = [key for key in (runs[0].perturbed if runs else ())
                if all(key in run.perturbed for run in runs)]  # fmt: skip
        for name in dict.fromkeys(name for name, _ in keys):
            for strength in (None, *(strength for other, strength in keys if other == name)):
                under = None if strength is None else (name, strength)
                pair = pair_of(runs, real, generator, study.threshold, under)
                for metric in ("acc", "auroc"):
                    rows.append(
                        {
                            **_cell(train_on, variant, real, generator, tested),
                            "perturbation": name,
                            "strength": strength,
                            **_measured(pair, metric),
                        }
                    )
    return rows


def as_csv(rows: Rows) -> str:
    """Rows as csv, numbers with six significant digits, lists with spaces."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: csv_cell(_in_csv(value)) for name, value in row.items()} for row in rows
    )
    return file.getvalue()


def _in_csv(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return " ".join(str(_in_csv(inner)) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else value
