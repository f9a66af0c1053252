"""A study's run folders as tables, figures and one page."""

import base64
import io
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment
from matplotlib.figure import Figure
from PIL import Image

from forensics.atomic import atomic
from forensics.evaluation.robustness import PERTURBATIONS
from forensics.reports import comparison, figures
from forensics.reports.study import Study, read_study
from forensics.runs import FEATURES, MISTAKES, shown

log = logging.getLogger(__name__)

PAGE = "report.html"


def write_report(folders: Sequence[Path], to: Path) -> Study:
    """Report on runs: tables as csv and Markdown, figures, and one self-contained page.

    Args:
        folders: of runs or of sweeps.
        to: the folder to write into, made if missing; an earlier report there is replaced.

    Returns:
        What was read, with the jobs that have no result.

    Raises:
        UserError: if the runs cannot be compared; see `forensics.reports.study.read_study`.
    """
    study = read_study(folders)
    to.mkdir(parents=True, exist_ok=True)
    cells = comparison.cells(study)
    changes = comparison.differences(study)
    perturbed = comparison.robustness(study)
    grids = {metric: comparison.grid(cells, metric) for metric in ("acc", "auroc")}
    tables = {
        "cells": cells,
        "differences": changes,
        "grid": grids["acc"] + grids["auroc"],
        "robustness": perturbed,
    }
    for name, rows in tables.items():
        if rows:
            _write(to / f"{name}.csv", comparison.as_csv(rows).encode())

    sections = [
        *_table_1(study, cells),
        *_differences(changes),
        *_grids(study, grids, to),
        *_robustness(perturbed, to),
        *_features(study, to),
        *_mistakes(study),
    ]
    _write(to / "report.md", _markdown(study, sections).encode())
    _write(to / PAGE, _page(study, sections).encode())
    for problem in study.problems:
        log.warning("no result: %s (%s)", shown(problem.folder), problem.reason)
    brief = sections[0] | {"parts": [p for p in sections[0]["parts"] if not p["folded"]]}
    log.info("\n%s\n", _markdown(study, [brief]))
    log.info("Report: %s", shown(to / PAGE))
    return study


Part = dict[str, Any]
Section = dict[str, Any]


def _section(title: str, parts: list[Part], text: str = "") -> list[Section]:
    return [{"title": title, "parts": parts, "text": text}] if parts else []


def _table_part(table: comparison.Table, title: str = "", *, folded: bool = False) -> Part:
    header, lines = table
    return {"title": title, "header": header, "lines": lines, "folded": folded}


def _figure_part(figure: Figure, to: Path, name: str, title: str = "") -> Part:
    """Write a figure as png and svg, and hold it for the page."""
    for suffix in ("png", "svg"):
        with atomic(to / f"{name}.{suffix}") as file:
            figure.savefig(file, format=suffix, dpi=110)
    png = (to / f"{name}.png").read_bytes()
    return _image_part(png, "png", title, name.replace("_", " "), "figure")


def _image_part(content: bytes, format_: str, title: str, alt: str, kind: str) -> Part:
    source = f"data:image/{format_};base64,{base64.b64encode(content).decode()}"
    return {"title": title, "image": source, "alt": alt, "kind": kind}


def _table_1(study: Study, cells: comparison.Rows) -> list[Section]:
    parts = []
    for train_on in ["+".join(names) for names in study.train_sets]:
        for threshold in study.runs[0].result["thresholds"]:
            table = comparison.table_1(study, cells, train_on, threshold)
            plain = threshold == "0.5"
            title = "0.5, the paper's" if plain else f"{threshold.replace('_', ' ')}"
            parts.append(
                _table_part(table, f"trained on {train_on}, threshold {title}", folded=not plain)
            )
    text = (
        "The paper's table 1, ours beside the paper's where it has a figure. A threshold «source "
        "0.05» calls 5 % of the validation reals generated; no test image has a say in it."
    )
    return _section("Table 1", parts, text)


def _differences(changes: comparison.Rows) -> list[Section]:
    if not changes:
        return []
    text = (
        "Paired: the same images and seeds with and without. The interval over images is of these "
        "very detectors; the one over seeds, Student's, is of training again; p is that of a "
        "paired t-test over seeds, not corrected for how many comparisons there are."
    )
    part = _table_part(comparison.difference_table(changes))
    return _section("What a preprocess changes, threshold 0.5", [part], text)


def _grids(study: Study, grids: dict[str, comparison.Rows], to: Path) -> list[Section]:
    if len(study.train_sets) < 2:
        return []
    parts = []
    for metric, rows in grids.items():
        for real in dict.fromkeys(row["real"] for row in rows):
            of_real = [row for row in rows if row["real"] == real]
            generators = [generator for one, generator in study.pairs() if one == real]
            name = "ACC at 0.5" if metric == "acc" else "AUROC"
            figure = figures.heatmap(of_real, generators, f"{name}, {real}")
            parts.append(_figure_part(figure, to, f"grid_{metric}_{real}"))
            parts.append(_table_part(comparison.grid_table(of_real), f"{name}, {real}"))
    text = (
        "Rows are what was trained on, columns what was tested; * and frames mark what was seen. "
        "«Left out» is the value on the one generator that a leave-one-out set leaves."
    )
    return _section("Across generators", parts, text)


def _robustness(rows: comparison.Rows, to: Path) -> list[Section]:
    parts = []
    for train_on in dict.fromkeys(row["train_on"] for row in rows):
        for name in dict.fromkeys(row["perturbation"] for row in rows):
            of = [r for r in rows if (r["train_on"], r["perturbation"]) == (train_on, name)]
            figure = figures.under_perturbation(of, PERTURBATIONS[name].what)
            parts.append(
                _figure_part(figure, to, f"robustness_{name}_{train_on}", f"trained on {train_on}")
            )
    text = (
        "Test images after some handling. Dark bands are 95 % over images, light ones reach from "
        "the lowest seed to the highest."
    )
    return _section("Under handling of the test images", parts, text)


def _features(study: Study, to: Path) -> list[Section]:
    parts = []
    for train_on in study.train_sets:
        spaces = []
        for preprocess in study.preprocesses:
            for run in study.of(train_on, preprocess)[:1]:
                table = pq.read_table(run.folder / FEATURES)
                components = np.array(table["features"].to_pylist())
                sources = cast(list[str], table["source"].to_pylist())
                spaces.append((f"{preprocess}, seed {run.seed}", sources, components))
        if spaces:
            seen = {*study.runs[0].result["settings"]["dataset"]["real"], *train_on}
            name = "+".join(train_on)
            figure = figures.feature_maps(spaces, seen)
            parts.append(_figure_part(figure, to, f"features_{name}", f"trained on {name}"))
    text = (
        "What the detector's last unit decides by, of some tested images, in two dimensions, as in "
        "the paper's figure 3; the same vectors are in TensorBoard's projector."
    )
    return _section("Feature space", parts, text)


def _mistakes(study: Study) -> list[Section]:
    parts = []
    for train_on in study.train_sets:
        for preprocess in study.preprocesses:
            for run in study.of(train_on, preprocess)[:1]:
                for source in run.logits:
                    title = f"{source}, by {shown(run.folder)}"
                    sheet = io.BytesIO()
                    # There may be hundreds of them; the folders keep them without loss.
                    with Image.open(run.folder / MISTAKES / f"{source}.png") as image:
                        image.save(sheet, "webp", quality=80)
                    part = _image_part(sheet.getvalue(), "webp", title, title, "sheet")
                    parts.append(part | {"folded": True})
    text = "Of each source the eight tested images that were judged most wrongly, worst first."
    return _section("Mistakes", parts, text)


def _facts(study: Study) -> dict[str, Any]:
    """What page and Markdown both say around the sections."""
    results = [run.result for run in study.runs]
    commits = dict.fromkeys(str(result["git_commit"]) for result in results)
    changed = any(result["git_changed"] for result in results)
    settings = results[0]["settings"]
    versions = ", ".join(f"{k} {v}" for k, v in results[0]["versions"].items() if v)
    trained = [{s: n for s, n in r["images"]["train"].items() if n} for r in results]
    counts = dict.fromkeys(", ".join(f"{n} {s}" for s, n in images.items()) for images in trained)
    seconds = sum(sum(result["seconds"].values()) for result in results)
    return {
        "title": f"{len(results)} detectors, tested across generators",
        "trained": ", ".join("+".join(names) for names in study.train_sets),
        "preprocesses": ", ".join(study.preprocesses),
        "seeds": ", ".join(map(str, sorted({run.seed for run in study.runs}))),
        "reals": ", ".join(dict.fromkeys(real for real, _ in study.pairs())),
        "generators": ", ".join(dict.fromkeys(name for _, name in study.pairs())),
        "warnings": list(dict.fromkeys(note for r in results for note in r["warnings"])),
        "made_with": [
            f"commit {', '.join(commits)}" + (" with uncommitted changes" if changed else ""),
            versions,
            f"{', '.join(dict.fromkeys(r['device'] for r in results))}, "
            f"{', '.join(dict.fromkeys(str(r['threads']) for r in results))} threads a run; "
            f"{seconds / 60:.0f} minutes of runs together",
            f"{settings['max_epochs']} epochs, batches of {settings['batch_size']}; "
            f"training images: {'; '.join(counts)}",
        ],
    }


def _markdown(study: Study, sections: Sequence[Section]) -> str:
    facts = _facts(study)
    lines = []
    if study.problems:
        total = len(study.problems) + len(study.runs)
        lines.append(f"**{len(study.problems)} of {total} jobs have no result:**\n")
        lines += [f"* {shown(p.folder)}: {p.reason}" for p in study.problems]
        lines.append("")
    if study.toy:
        lines.append("**Toy data: rendered faces, whose figures say nothing about real GANs.**\n")
    lines += [f"    {command}\n" for command in study.commands]
    lines.append(
        "Percent: mean over seeds [95 % over images] ± standard deviation over seeds "
        f"({facts['seeds']})."
    )
    for section in sections:
        tables = [part for part in section["parts"] if "header" in part]
        if tables:
            lines += ["", f"## {section['title']}"]
        for part in tables:
            table = comparison.as_markdown((part["header"], part["lines"]))
            lines += ["", *([part["title"], ""] if part["title"] else []), table]
    return "\n".join([*lines, "", *(f"* {line}" for line in facts["made_with"]), ""])


def _page(study: Study, sections: Sequence[Section]) -> str:
    template = resources.files("forensics.reports").joinpath("page.html").read_text()
    problems = [
        {"shown": shown(p.folder), "reason": p.reason, "overrides": p.overrides}
        for p in study.problems
    ]
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            sections=sections,
            problems=problems,
            runs=study.runs,
            toy=study.toy,
            commands=study.commands,
            **_facts(study),
        )
    )


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)
