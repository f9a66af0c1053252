"""A study's tables: rows for csv files, and formatted tables for reports."""

import csv
import html
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from forensics.evaluation.metrics import AT_THRESHOLD
from forensics.evaluation.seeds import METRICS, MIN_SEEDS, PairScores, difference, holm, over_seeds
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
    """The paper's figure for sources of the same names, also for the toy sources."""
    trained, tested = ([name.removeprefix("demo_") for name in names]
                       for names in (train_on, [generator]))  # fmt: skip
    if trained != ["pggan"]:
        return None
    percent = PAPER.get(tested[0], {}).get(variant.name, {}).get(metric)
    return None if percent is None else percent / 100


def _cell(train_on: Sequence[str], real: str, generator: str, variant: Variant) -> dict[str, Any]:
    """Columns that identify a row."""
    return {
        "train_on": training_set(train_on),
        "real": real,
        "generator": generator,
        "seen": generator in train_on,
        "variant": variant.label,
    }


def _measured(pair: PairScores, metric: str) -> dict[str, Any]:
    """Counts, and a metric over seeds."""
    over = over_seeds(pair, metric)
    by_seed = over.pop("by_seed")
    return {
        "metric": metric,
        "n_real": pair.real.shape[1],
        "n_generated": pair.generated.shape[1],
        "seeds": len(by_seed),
        **over,
        "lowest_seed": min(by_seed),
        "highest_seed": max(by_seed),
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
                        **_cell(train_on, real, generator, variant),
                        "threshold": None if metric == "auroc" else threshold,
                        **_measured(pair, metric),
                        "missing_seeds": missing,
                        "paper": paper if threshold == "0.5" else None,
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
                    **_cell(train_on, real, generator, variant),
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
        ``mean_unseen``, ``worst_unseen`` and its generator, a minimum, which is biased downwards;
        ``left_out``, the value for the generator left out of a leave-one-out training set, None for
        other sets.
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
                            **_cell(train_on, real, generator, variant),
                            "perturbation": name,
                            "strength": strength,
                            **_measured(pair, metric),
                        }
                    )
    return rows


def as_csv(rows: Rows) -> str:
    """Rows as csv, numbers with six significant digits."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else csv_cell(v) for k, v in row.items()}
        for row in rows
    )
    return file.getvalue()


Table = tuple[list[str], list[list[str]]]
"""A header and lines, for Markdown and HTML."""


def percent(value: float | None) -> str:
    """A share in percent with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(row: dict[str, Any]) -> str:
    """Mean, interval over images, spread over seeds, and missing seeds."""
    cell = f"{percent(row['mean'])} [{percent(row['low'])}, {percent(row['high'])}]"
    if row["seeds"] >= MIN_SEEDS:
        cell += f" ± {percent(row['std'])}"
    elif row["seeds"] > 1:
        cell += f", {percent(row['lowest_seed'])}..{percent(row['highest_seed'])}"
    missing = row["missing_seeds"]
    return cell + (f" (without seed {missing.replace(' ', ', ')})" if missing else "")


def table_1(study: Study, rows: Rows, train_on: str, threshold: str) -> Table:
    """Table 1 from `cells`, with the paper's figures beside ours where it has them."""
    chosen = {
        (row["real"], row["generator"], row["metric"], row["variant"]): row
        for row in rows
        if row["train_on"] == train_on and row["threshold"] in (threshold, None)
    }
    variants = [v for v in study.variants if any(key[3] == v.label for key in chosen)]
    papers = [v for v in variants if any(r["paper"] for k, r in chosen.items() if k[3] == v.label)]
    header = ["test pair", "n", "metric"]
    header += [v.name if v.name == v.label else f"{v.name} ({v.label})" for v in variants]
    header += [f"paper's {v.name}" for v in papers]
    lines = []
    for real, generator in study.pairs():
        for metric in METRICS:
            of = {v: chosen.get((real, generator, metric, v.label)) for v in variants}
            any_row = next((row for row in of.values() if row), None)
            if any_row is None:
                continue
            seen = "seen" if any_row["seen"] else "unseen"
            lines.append(
                [
                    f"{real} + {generator} ({seen})",
                    f"{any_row['n_real']}+{any_row['n_generated']}",
                    metric.upper(),
                    *(with_interval(row) if row else "-" for row in of.values()),
                    *(percent(row["paper"]) if (row := of[v]) else "-" for v in papers),
                ]
            )
    return header, lines


def difference_table(study: Study, rows: Rows) -> Table:
    """`differences` in percentage points."""
    names = {variant.label: variant.name for variant in study.variants}
    header = ["trained on", "test pair", "metric", "difference", "points, 95 % over images",
              "over seeds", "p", "p, Holm's", "seeds"]  # fmt: skip

    def signed(value: float) -> str:
        return f"{100 * value:+.1f}"

    def over_seeds(row: dict[str, Any]) -> str:
        if row["p"] is not None:
            return f"[{signed(row['seeds_low'])}, {signed(row['seeds_high'])}]"
        return f"{signed(row['lowest_seed'])}..{signed(row['highest_seed'])}"

    lines = []
    for row in rows:
        name, minus = (names[row[key]] for key in ("variant", "minus"))
        lines.append(
            [
                row["train_on"],
                f"{row['real']} + {row['generator']} ({'seen' if row['seen'] else 'unseen'})",
                row["metric"].upper(),
                f"{name} - {minus}",
                f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]",
                over_seeds(row),
                *("-" if (p := row[key]) is None else f"{p:.3f}" for key in ("p", "p_holm")),
                str(row["seeds"]),
            ]
        )
    return header, lines


def grid_table(lines: Rows) -> Table:
    """`grid` in percent; seen generators are marked with a star."""
    fixed = ("metric", "real", "variant", "train_on", "seeds", "mean_unseen", "worst_unseen",
             "worst_generator", "left_out")  # fmt: skip
    generators = [
        name for name in dict.fromkeys(key for line in lines for key in line) if name not in fixed
    ]
    header = ["variant", "trained on", "seeds", *generators, "mean unseen", "worst unseen",
              "left out"]  # fmt: skip
    return header, [
        [
            line["variant"],
            line["train_on"],
            str(line["seeds"]),
            *(
                percent(line.get(name)) + (" *" if name in line["train_on"].split("+") else "")
                for name in generators
            ),
            percent(line["mean_unseen"]),
            percent(line["worst_unseen"])
            + ("" if line["worst_generator"] is None else f" ({line['worst_generator']})"),
            percent(line["left_out"]),
        ]
        for line in lines
    ]


def in_markdown(text: str) -> str:
    """A text for Markdown, whose names of sources are neither HTML nor ends of cells."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").splitlines())


def as_markdown(table: Table) -> str:
    """A table in Markdown."""
    header, lines = table

    def line(of: list[str]) -> str:
        return "| " + " | ".join(map(in_markdown, of)) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, lines)])
