"""A study's tables: rows for csv files, and formatted tables for reports."""

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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


Table = tuple[list[str], list[list[str]]]
"""A header and lines, for Markdown and HTML."""


def percent(value: float | None) -> str:
    """A share in percent with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}"


def of_seeds(values: Sequence[float], std: float | None, form: Callable[[float], str]) -> str:
    """Spread over seeds: their own values, or from `MIN_SEEDS` on the standard deviation."""
    if len(values) >= MIN_SEEDS and std is not None:
        return f" ± {100 * std:.1f}"
    return f"\nseeds {', '.join(map(form, values))}" if len(values) > 1 else ""


def with_interval(row: dict[str, Any]) -> str:
    """Mean over seeds, interval over images, and spread over seeds."""
    cell = f"{percent(row['mean'])} [{percent(row['low'])}, {percent(row['high'])}]"
    return cell + of_seeds(row["by_seed"], row["std"], percent)


def pair_name(row: dict[str, Any]) -> str:
    """Sources of a row's pair, and whether its generator was seen in training."""
    return f"{row['real']} + {row['generator']} ({'seen' if row['seen'] else 'unseen'})"


def _by_pair(rows: Rows, names: Mapping[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows by pair and variant of ``names``, in their orders, then by metric."""
    titles = dict.fromkeys(pair_name(row) for row in rows)
    of: dict[tuple[str, str], dict[str, Any]] = {(t, v): {} for t in titles for v in names}
    for row in rows:
        of[pair_name(row), row["variant"]][row["metric"]] = row
    return {key: by_metric for key, by_metric in of.items() if by_metric}


def table_1(study: Study, rows: Rows, train_on: str, threshold: str) -> Table:
    """Table 1 from `cells`, with the paper's figures beside ours where it has them.

    A line for each pair and variant.
    """
    chosen = [row for row in rows
              if row["train_on"] == train_on and row["threshold"] in (threshold, None)]  # fmt: skip
    names = {variant.label: variant.title for variant in study.variants}
    several = len(names) > 1
    papers = [m for m in METRICS if any(r["paper"] for r in chosen if r["metric"] == m)]
    header = ["test pair", *(["variant"] if several else []), *map(str.upper, METRICS)]
    header += [*(f"paper's {name.upper()}" for name in papers), "images", "seeds"]
    lines = []
    for (title, label), of in _by_pair(chosen, names).items():
        any_row = next(iter(of.values()))
        missing = any_row["missing_seeds"].replace(" ", ", ")
        lines.append(
            [
                title,
                *([names[label]] if several else []),
                *(with_interval(of[name]) if name in of else "-" for name in METRICS),
                *(percent(of[name]["paper"]) if name in of else "-" for name in papers),
                f"{any_row['n_real']}+{any_row['n_generated']}",
                str(any_row["seeds"]) + (f" (without seed {missing})" if missing else ""),
            ]
        )
    return header, lines


def signed(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f}"


def difference_table(study: Study, rows: Rows, train_on: str) -> Table:
    """`differences` of a training set in percentage points, a line for each pair and variant."""
    chosen = [row for row in rows if row["train_on"] == train_on]
    names = {variant.label: variant.title for variant in study.variants}
    header = ["test pair", "variant", *map(str.upper, METRICS), "seeds"]

    def cell(row: dict[str, Any]) -> str:
        text = f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"
        if row["p"] is None:
            return text + of_seeds(row["by_seed"], None, signed)
        over_seeds = f"[{signed(row['seeds_low'])}, {signed(row['seeds_high'])}]"
        return f"{text}\nseeds {over_seeds}\np {row['p']:.3f}, Holm's {row['p_holm']:.3f}"

    return header, [
        [title, names[label], *map(cell, of.values()), str(next(iter(of.values()))["seeds"])]
        for (title, label), of in _by_pair(chosen, names).items()
    ]


def grid_table(lines: Rows) -> Table:
    """`grid` in percent; seen generators are marked with a star."""
    fixed = ("metric", "real", "variant", "train_on", "seeds", "seen", "mean_unseen",
             "worst_unseen", "worst_generator", "left_out")  # fmt: skip
    generators = [
        name for name in dict.fromkeys(key for line in lines for key in line) if name not in fixed
    ]
    left_out = any(line["left_out"] is not None for line in lines)
    header = ["variant", "trained on", "seeds", *generators, "mean unseen", "worst unseen"]
    header += ["left out"] if left_out else []
    return header, [
        [
            line["variant"],
            line["train_on"],
            str(line["seeds"]),
            *(
                percent(line.get(name)) + (" *" if name in line["seen"] else "")
                for name in generators
            ),
            percent(line["mean_unseen"]),
            percent(line["worst_unseen"])
            + ("" if line["worst_generator"] is None else f" ({line['worst_generator']})"),
            *([percent(line["left_out"])] if left_out else []),
        ]
        for line in lines
    ]


_MARKUP = re.compile(r"[\\`|]|\*(?=\S)|(?<!\w)_(?=\S)|~(?=~)|\](?=\()")
"""Characters of Markdown where they mean something, so that ``wgan_gp *`` remains readable."""


def in_markdown(text: str) -> str:
    """A text for Markdown, whose names of sources are no markup, HTML, end of a cell or line."""
    return ", ".join(_MARKUP.sub(r"\\\g<0>", html.escape(text, quote=False)).splitlines())


def as_markdown(table: Table) -> str:
    """A table in Markdown."""
    header, lines = table

    def line(of: list[str]) -> str:
        return "| " + " | ".join(map(in_markdown, of)) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, lines)])
