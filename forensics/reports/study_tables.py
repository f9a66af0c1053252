"""A study's formatted tables, of rows of `forensics.reports.comparison`, and Markdown."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forensics.evaluation.seeds import METRICS, MIN_SEEDS
from forensics.reports.comparison import Rows
from forensics.reports.study import Study

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
