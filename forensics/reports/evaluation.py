"""Tables of an evaluation: a row for each generator and its real images, then mean and worst."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forensics.files import atomic
from forensics.reports.comparison import Rows, as_csv
from forensics.reports.study_tables import Table, as_markdown, percent
from forensics.reports.tables import aligned, in_order, threshold_name, wrapped

_BALANCED = "balanced_accuracy_at_"
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


def rows(result: Mapping[str, Any]) -> Rows:
    """Metrics of each pair of a generator and its real images, then their mean and their worst.

    Args:
        result: a detector's entry of ``evaluation.json``.

    Returns:
        Rows with ``detector``, ``generator``, ``real``, ``seen``, ``n_real``, ``n_generated``,
        ``balanced_accuracy_at_<threshold>``, ``auroc`` and ``ap_generated``, shares in [0, 1].
        ``mean`` and ``worst``, by column, are the last two generators; none without any pair.
    """
    found = [_of_pair(result, pair) for pair in result["pairs"]]
    if not found:
        return []
    metrics = [name for name in found[0] if name.startswith((_BALANCED, "auroc", "ap_"))]
    none = dict.fromkeys(("real", "seen", "n_real", "n_generated"))
    over = [
        {"detector": result["detector"], "generator": name, **none}
        | {metric: float(of([row[metric] for row in found])) for metric in metrics}
        for name, of in (("mean", np.mean), ("worst", np.min))
    ]
    return [*found, *over]


def _of_pair(result: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    return (
        {"detector": result["detector"]}
        | {key: pair[key] for key in ("generator", "real", "seen", "n_real", "n_generated")}
        | {
            f"{_BALANCED}{name}": (pair[f"at_{name}"]["tpr"] + pair[f"at_{name}"]["tnr"]) / 2
            for name in _thresholds(result)
        }
        | {name: pair["ranking"][name] for name in ("auroc", "ap_generated")}
    )


def _thresholds(result: Mapping[str, Any]) -> list[str]:
    return in_order([*result["calibration"]["thresholds"], "oracle"])


def write_tables(results: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write ``evaluation.csv``, ``.md`` and ``.tex``; nothing if there is no pair.

    Args:
        results: results of each detector, as in ``evaluation.json``.
        folder: the evaluation's folder.
    """
    every = [row for result in results for row in rows(result)]
    if not every:
        return
    columns = [name for name in dict.fromkeys(key for row in every for key in row)
               if name.startswith((_BALANCED, "auroc", "ap_"))]  # fmt: skip
    header = ["detector", "generator", "real images", "n", *map(_title, columns)]
    lines = [
        [row["detector"], _marked(row["generator"], row), row["real"] or "", _counts(row)]
        + [_number(name, row.get(name)) for name in columns]
        for row in every
    ]
    notes = _notes(_thresholds(results[0]))
    markdown = as_markdown((header, lines))
    for name, text in (
        ("csv", as_csv(every)),
        ("md", "\n\n".join([markdown, *notes]) + "\n"),
        ("tex", as_tex((header, lines), notes)),
    ):
        with atomic(folder / f"evaluation.{name}") as file:
            file.write(text.encode())


def as_tex(table: Table, notes: Sequence[str] = ()) -> str:
    """A table in LaTeX that needs no package.

    Args:
        table: header and lines; the first three columns are text, the others numbers.
        notes: sentences, as comments in front.
    """
    header, lines = table

    def line(cells: Sequence[str]) -> str:
        escaped = ("".join(_TEX.get(c, c) for c in " ".join(cell.split())) for cell in cells)
        return " & ".join(escaped) + r" \\"

    return "\n".join(
        [
            *(f"% {note}" for note in notes),
            rf"\begin{{tabular}}{{lll{'r' * (len(header) - 3)}}}",
            r"\hline",
            line(header),
            r"\hline",
            *map(line, lines),
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def evaluation_table(results: Sequence[Mapping[str, Any]]) -> str:
    """The tables of an evaluation for a terminal of 80 columns.

    Args:
        results: results of each detector, as in ``evaluation.json``.
    """
    return "\n\n".join(table for result in results for table in _of_detector(result))


def _of_detector(result: Mapping[str, Any]) -> Iterator[str]:
    yield result["detector"]
    every = rows(result)
    if every:
        columns = [name for name in every[0] if name.startswith((_BALANCED, "auroc", "ap_"))]
        several = [row["generator"] for row in every]
        lines = [["generator", "n", *map(_title, columns)]]
        for row in every:
            name = row["generator"]
            name += f" / {row['real']}" if row["real"] and several.count(name) > 1 else ""
            lines.append(
                [_marked(name, row), _counts(row), *(_number(of, row[of]) for of in columns)]
            )
        notes = map(wrapped, _notes(_thresholds(result)))
        yield "\n".join([*notes, aligned(lines, "l" + "r" * (len(lines[0]) - 1))])
    thresholds = in_order(result["calibration"]["thresholds"])
    lines = [["called generated, %", "n", *map(_short, thresholds)]]
    for source in result["sources"]:
        kind = "real: false positives" if source["real"] else "generated: found"
        called = _called_generated(source, thresholds)
        lines.append([f"{source['source']} ({kind})", str(source["n"]), *called])
    for step in result["perturbed"]:
        for source in step["sources"]:
            name = f"{source['source']}, {step['perturbation']} {step['strength']:g}"
            lines.append([name, str(source["n"]), *_called_generated(source, thresholds)])
    yield aligned(lines, "l" + "r" * (len(lines[0]) - 1))
    for name, reasons in result["left_out"].items():
        if reasons:
            said = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
            yield wrapped(f"left out of {name}: {said}")


def _notes(thresholds: Sequence[str]) -> list[str]:
    """What the columns mean, a line each."""
    return [
        "Balanced accuracy in percent at each threshold; AP: of the generated images.",
        *(threshold_name(name) for name in thresholds),
        "* seen in training",
    ]


def _called_generated(source: Mapping[str, Any], thresholds: Sequence[str]) -> list[str]:
    if source["real"]:
        return [percent(1 - source[f"tpr_at_{name}"]) for name in thresholds]
    return [percent(source[f"tnr_at_{name}"]) for name in thresholds]


def _marked(name: str, row: Mapping[str, Any]) -> str:
    return f"{name} *" if row["seen"] else name


def _counts(row: Mapping[str, Any]) -> str:
    return "" if row["n_real"] is None else f"{row['n_real']}+{row['n_generated']}"


def _number(name: str, value: float | None) -> str:
    if value is None or name.startswith(_BALANCED):
        return percent(value)
    return f"{value:.3f}"


def _title(column: str) -> str:
    if column.startswith(_BALANCED):
        return _short(column.removeprefix(_BALANCED))
    return {"auroc": "AUROC", "ap_generated": "AP"}[column]


def _short(threshold: str) -> str:
    if not threshold.startswith("source_"):
        return threshold
    return f"{100 * float(threshold.removeprefix('source_')):g}% FPR"
