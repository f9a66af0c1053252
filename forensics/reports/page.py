"""A study's report as Markdown and as one self-contained page."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment

from forensics.evaluation.seeds import MIN_SEEDS
from forensics.reports.blocks import Section
from forensics.reports.study_tables import as_markdown, in_markdown

CELLS = (
    "the mean over seeds [mean of their 95 % intervals over images] and, of several seeds, their "
    f"own values or, from {MIN_SEEDS} seeds on, ± their standard deviation."
)
"""Format of a table's cells."""


def markdown(facts: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The report's tables and texts of findings in Markdown.

    Args:
        facts: `forensics.reports.report.facts`.
        sections: sections of `forensics.reports.sections`; figures are left out.
    """
    lines = [f"**{facts['trial']}**\n"] if facts["trial"] else []
    problems, chance, count = facts["problems"], facts["chance"], facts["count"]
    if problems:
        total = len(problems) + count
        lines.append(f"**{len(problems)} of {total} jobs have no result:**\n")
        named = (f"{problem['folder']}: {problem['reason']}" for problem in problems)
        lines += [f"* {in_markdown(line)}" for line in named]
        lines.append("")
    if facts["toy"]:
        lines.append("**Toy data: rendered faces, whose figures say nothing about real GANs.**\n")
    if chance:
        lines.append(
            f"**{len(chance)} of {count} detectors are not measurably better than chance on "
            "validation images:**\n"
        )
        lines += [*(f"* {in_markdown(line)}" for line in chance), ""]
    lines += [f"    {' '.join(command.splitlines())}\n" for command in facts["commands"]]
    lines.append(f"Percent, of seeds {facts['seeds']}: {CELLS}")
    for section in sections:
        tables = [block for block in section["blocks"] if "header" in block]
        if tables:
            lines += ["", f"## {in_markdown(section['title'])}"]
            lines += ["", f"**{in_markdown(section['lead'])}**"] if "lead" in section else []
        for block in tables:
            table = as_markdown((block["header"], block["lines"]))
            title = in_markdown(block["title"])
            lines += ["", *([title, ""] if title else []), table]
    made_with = [f"* {in_markdown(line)}" for line in facts["made_with"]]
    return "\n".join([*lines, "", *made_with, ""])


def page(facts: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The report as a page that needs nothing else.

    Args:
        facts: `forensics.reports.report.facts`.
        sections: sections of `forensics.reports.sections`, the finding first if there is one.
    """
    template = resources.files("forensics.reports").joinpath("page.html").read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(sections=sections, cells=CELLS, **facts)
