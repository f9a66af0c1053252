"""A study's tables: rows as files have them, and Markdown as people read them."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from forensics.evaluation.comparison import Pair, difference, over_seeds
from forensics.evaluation.robustness import PERTURBATIONS
from forensics.reports.study import Study, pair_of

Rows = list[dict[str, Any]]

BOOTSTRAP_SEED = 0

METRICS = ("acc", "tpr", "tnr", "auroc")

PAPER = {
    "pggan": {"none": (95.45, 95.12, 95.77), "blur": (94.28, 93.08, 95.47),
              "noise": (95.02, 94.65, 95.38)},
    "wgan_gp": {"none": (64.62, 95.12, 34.12), "blur": (68.07, 93.08, 43.06),
                "noise": (68.28, 94.65, 41.91)},
    "dcgan": {"none": (60.55, 95.12, 25.98), "blur": (64.05, 93.08, 35.02),
              "noise": (66.38, 94.65, 38.11)},
}  # fmt: skip
"""ACC, TPR and TNR in percent of detectors trained on PGGAN. Source: arXiv 1902.11153, table 1."""

NAMES = {"none": "M", "blur": "M_GB", "noise": "M_GN"}
"""What the paper calls the detectors."""


def _paper(train_on: Sequence[str], generator: str, preprocess: str, metric: str) -> float | None:
    """The paper's figure for the same question, whoever's images: named alike, or the toy's."""
    trained, tested = ([name.removeprefix("demo_") for name in names]
                       for names in (train_on, [generator]))  # fmt: skip
    if trained != ["pggan"] or metric == "auroc":
        return None
    figures = PAPER.get(tested[0], {}).get(preprocess)
    return None if figures is None else figures[METRICS.index(metric)] / 100


def _cell(train_on: Sequence[str], real: str, generator: str, preprocess: str) -> dict[str, Any]:
    """What a row is of."""
    return {
        "train_on": "+".join(train_on),
        "real": real,
        "generator": generator,
        "seen": generator in train_on,
        "preprocess": preprocess,
    }


def _measured(pair: Pair, metric: str) -> dict[str, Any]:
    """Counts, and a metric over seeds."""
    over = over_seeds(pair, metric, BOOTSTRAP_SEED)
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
    """Every metric of every test pair by what was trained on, preprocess and threshold.

    Returns:
        Rows with the mean over seeds, its interval, and the paper's figure where it has one.
        AUROC knows no threshold and has one row. ``missing_seeds`` are those that some other
        preprocess or training set has and this one has not.
    """
    rows: Rows = []
    every_seed = {run.seed for run in study.runs}
    for train_on in study.train_sets:
        for real, generator in study.pairs():
            for preprocess in study.preprocesses:
                runs = study.of(train_on, preprocess)
                missing = " ".join(map(str, sorted(every_seed - {run.seed for run in runs})))
                for threshold in runs[0].result["thresholds"] if runs else ():
                    pair = pair_of(runs, real, generator, threshold)
                    at_half = threshold == "0.5"
                    for metric in METRICS if at_half else METRICS[:-1]:
                        paper = _paper(train_on, generator, preprocess, metric)
                        rows.append(
                            {
                                **_cell(train_on, real, generator, preprocess),
                                "threshold": None if metric == "auroc" else threshold,
                                **_measured(pair, metric),
                                "missing_seeds": missing,
                                "paper": paper if at_half else None,
                            }
                        )
    return rows


def differences(study: Study) -> Rows:
    """How each preprocess changes each metric against ``none``, paired by image and seed.

    Returns:
        Rows at threshold 0.5; empty where nothing was trained without preprocess. Only seeds that
        both have are compared.
    """
    rows: Rows = []
    for train_on in study.train_sets:
        plain = {run.seed: run for run in study.of(train_on, "none")}
        for preprocess in study.preprocesses:
            other = {run.seed: run for run in study.of(train_on, preprocess)}
            seeds = sorted(plain.keys() & other.keys())
            if preprocess == "none" or not seeds:
                continue
            for real, generator in study.pairs():
                before, after = (
                    pair_of([of[seed] for seed in seeds], real, generator, "0.5")
                    for of in (plain, other)
                )
                for metric in METRICS:
                    rows.append(
                        {
                            **_cell(train_on, real, generator, preprocess),
                            "minus": "none",
                            "metric": metric,
                            "seeds": len(seeds),
                            **difference(before, after, metric, BOOTSTRAP_SEED),
                        }
                    )
    return rows


def grid(rows: Rows, metric: str) -> Rows:
    """The grid of training sets by tested generators.

    Args:
        rows: of `cells`.
        metric: ``auroc``, or another at threshold 0.5.

    Returns:
        A row for each real source, preprocess and training set: ``<generator>`` the mean,
        ``mean_unseen``, ``worst_unseen`` and its generator; ``left_out``, the value on the one
        generator a leave-one-out set leaves, None for other sets.
    """
    chosen = [row for row in rows if row["metric"] == metric and row["threshold"] in ("0.5", None)]
    generators = list(dict.fromkeys(row["generator"] for row in chosen))
    table: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in chosen:
        key = row["real"], row["preprocess"], row["train_on"]
        table.setdefault(key, {})[row["generator"]] = row
    lines = []
    for (real, preprocess, train_on), of in table.items():
        unseen = {name: row["mean"] for name, row in of.items() if not row["seen"]}
        worst = min(unseen, key=lambda name: unseen[name]) if unseen else None
        lines.append(
            {
                "metric": metric,
                "real": real,
                "preprocess": preprocess,
                "train_on": train_on,
                "seeds": next(iter(of.values()))["seeds"],
                **{name: of[name]["mean"] for name in generators},
                "mean_unseen": float(np.mean(list(unseen.values()))) if unseen else None,
                "worst_unseen": None if worst is None else unseen[worst],
                "worst_generator": worst,
                "left_out": unseen[worst] if worst is not None and len(unseen) == 1 else None,
            }
        )
    return lines


def robustness(study: Study) -> Rows:
    """ACC at 0.5 and AUROC under each perturbation and strength, strength None as tested plainly.

    Returns:
        Rows; empty where no run was tested under any.
    """
    rows: Rows = []
    for train_on in study.train_sets:
        for preprocess in study.preprocesses:
            runs = [run for run in study.of(train_on, preprocess) if run.perturbed]
            keys = set.intersection(*(set(run.perturbed) for run in runs)) if runs else set()
            for name in [name for name in PERTURBATIONS if any(name == key[0] for key in keys)]:
                strengths = [s for s in PERTURBATIONS[name].strengths if (name, s) in keys]
                for real, generator in study.pairs():
                    for strength in (None, *strengths):
                        under = None if strength is None else (name, strength)
                        pair = pair_of(runs, real, generator, "0.5", under)
                        for metric in ("acc", "auroc"):
                            rows.append(
                                {
                                    **_cell(train_on, real, generator, preprocess),
                                    "perturbation": name,
                                    "strength": strength,
                                    **_measured(pair, metric),
                                }
                            )
    return rows


def as_csv(rows: Rows) -> str:
    """Rows as csv, numbers with six digits."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    return file.getvalue()


Table = tuple[list[str], list[list[str]]]
"""A header and lines, for Markdown and for the page."""


def percent(value: float | None) -> str:
    """A share in percent with one digit."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(row: dict[str, Any]) -> str:
    """Mean, interval over images, standard deviation over seeds, and what is missing."""
    cell = f"{percent(row['mean'])} [{percent(row['low'])}, {percent(row['high'])}]"
    if row["std"] is not None:
        cell += f" ± {percent(row['std'])}"
    missing = row["missing_seeds"]
    return cell + (f" (without seed {missing.replace(' ', ', ')})" if missing else "")


def table_1(study: Study, rows: Rows, train_on: str, threshold: str) -> Table:
    """The paper's Table 1 from `cells`: ours, and the paper's beside it where it has figures."""
    chosen = {
        (row["real"], row["generator"], row["metric"], row["preprocess"]): row
        for row in rows
        if row["train_on"] == train_on and row["threshold"] in (threshold, None)
    }
    preprocesses = [p for p in study.preprocesses if any(key[3] == p for key in chosen)]
    papers = [p for p in preprocesses if any(r["paper"] for k, r in chosen.items() if k[3] == p)]
    header = ["test pair", "n", "metric"]
    header += [f"{NAMES[p]} ({p})" if p in NAMES else p for p in preprocesses]
    header += [f"paper's {NAMES[p]}" for p in papers]
    lines = []
    for real, generator in study.pairs():
        for metric in METRICS:
            of = {p: chosen.get((real, generator, metric, p)) for p in preprocesses}
            any_row = next(row for row in of.values() if row)
            seen = "seen" if any_row["seen"] else "unseen"
            lines.append(
                [
                    f"{real} + {generator} ({seen})",
                    f"{any_row['n_real']}+{any_row['n_generated']}",
                    metric.upper(),
                    *(with_interval(row) if row else "missing" for row in of.values()),
                    *(percent(row["paper"]) if (row := of[p]) else "-" for p in papers),
                ]
            )
    return header, lines


def difference_table(rows: Rows) -> Table:
    """`differences` in percentage points."""
    header = ["trained on", "test pair", "metric", "difference", "points, 95 % over images",
              "95 % over seeds", "p over seeds", "seeds"]  # fmt: skip

    def signed(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:+.1f}"

    lines = []
    for row in rows:
        name, minus = (NAMES.get(row[key], row[key]) for key in ("preprocess", "minus"))
        over_seeds = f"[{signed(row['seeds_low'])}, {signed(row['seeds_high'])}]"
        lines.append(
            [
                row["train_on"],
                f"{row['real']} + {row['generator']} ({'seen' if row['seen'] else 'unseen'})",
                row["metric"].upper(),
                f"{name} - {minus}",
                f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]",
                "-" if row["p"] is None else over_seeds,
                "-" if row["p"] is None else f"{row['p']:.3f}",
                str(row["seeds"]),
            ]
        )
    return header, lines


def grid_table(lines: Rows) -> Table:
    """`grid` in percent; what was trained on is marked with a star."""
    fixed = ("metric", "real", "preprocess", "train_on", "seeds", "mean_unseen", "worst_unseen",
             "worst_generator", "left_out")  # fmt: skip
    generators = [name for name in lines[0] if name not in fixed]
    header = ["preprocess", "trained on", "seeds", *generators, "mean unseen", "worst unseen",
              "left out"]  # fmt: skip
    return header, [
        [
            line["preprocess"],
            line["train_on"],
            str(line["seeds"]),
            *(
                percent(line[name]) + (" *" if name in line["train_on"].split("+") else "")
                for name in generators
            ),
            percent(line["mean_unseen"]),
            percent(line["worst_unseen"])
            + ("" if line["worst_generator"] is None else f" ({line['worst_generator']})"),
            percent(line["left_out"]),
        ]
        for line in lines
    ]


def as_markdown(table: Table) -> str:
    """A table in Markdown."""
    header, lines = table

    def line(of: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in of) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, lines)])
