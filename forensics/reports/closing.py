"""What a report says in the terminal: the finding first, then a line for each variant."""

from typing import Any

from forensics.reports.comparison import Rows
from forensics.reports.findings import by_detectors, sentence
from forensics.reports.study import Study
from forensics.reports.study_tables import percent
from forensics.reports.tables import aligned, chance_line, threshold_name, wrapped


def closing(study: Study, rows: Rows) -> str:
    """Balanced accuracy on unseen generators of each variant, over seeds, in `WIDTH` columns.

    Args:
        study: the study.
        rows: rows of `forensics.reports.findings.findings`.
    """
    lines = []
    if rows:
        table = [["detectors", "seeds", "unseen, mean", "unseen, worst", "worst pair"]]
        for title, of_title in by_detectors(study, rows).items():
            of = {row["statistic"]: row for row in of_title if row["role"] == "unseen"}
            seeds = str(of_title[0]["seeds"])
            table.append([title, seeds, *(_cells(of["mean"], of["worst"]) if of else 3 * ["-"])])
        at = threshold_name(rows[0]["threshold"])
        lines = [wrapped(sentence(rows)), "", f"Balanced accuracy in percent, {at}:",
                 aligned(table, "lrrrl"), ""]  # fmt: skip
    if study.problems:
        total = len(study.problems) + len(study.runs)
        lines.append(f"{len(study.problems)} of {total} jobs have no result, see above.")
    chance = sum(chance_line(run.result) is not None for run in study.runs)
    if chance:
        lines.append(
            wrapped(
                f"{chance} of {len(study.runs)} detectors are not measurably better than chance on "
                "validation images."
            )
        )
    if study.debug:
        lines.append("Trial runs with debug=quick: the figures are no evidence.")
    if study.toy:
        lines.append("Toy data: rendered faces, whose figures say nothing about real GANs.")
    return "\n".join(lines).rstrip()


def _cells(mean: dict[str, Any], worst: dict[str, Any]) -> list[str]:
    over = percent(mean["mean"])
    if mean["seeds"] > 1:
        over += f" ({percent(min(mean['by_seed']))}..{percent(max(mean['by_seed']))})"
    return [over, percent(worst["mean"]), f"{worst['real']} + {worst['generator']}"]
