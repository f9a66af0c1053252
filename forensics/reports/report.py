"""A study's run folders as tables, figures and one page."""

import base64
import io
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from forensics.evaluation.seeds import MIN_SEEDS
from forensics.files import atomic
from forensics.images.perturbations import PERTURBATIONS
from forensics.reports import comparison, figures, form, roles
from forensics.reports.comparison import in_markdown
from forensics.reports.run import Run, in_order
from forensics.reports.study import Study, read_study
from forensics.reports.tables import chance_line, threshold_name
from forensics.reports.variants import Variant, training_set
from forensics.runs import FEATURES, MISTAKES, shown

log = logging.getLogger(__name__)

PAGE = "report.html"

CELLS = (
    "mean over seeds [mean of their 95 % intervals over images], then the lowest and the highest "
    f"seed or, from {MIN_SEEDS} seeds on, ± the standard deviation over seeds."
)
"""Format of a table's cells."""


def write_report(folders: Sequence[Path], to: Path) -> Study:
    """Report on runs: tables as csv and Markdown, figures, and one self-contained page.

    Args:
        folders: folders of runs or of sweeps.
        to: the folder to write into, created if missing; an earlier report there is replaced.

    Returns:
        The study, with the jobs that have no result.

    Raises:
        UserError: if the runs cannot be compared; see `forensics.reports.study.read_study`.
    """
    study = read_study(folders)
    to.mkdir(parents=True, exist_ok=True)
    cells = comparison.cells(study)
    changes = comparison.differences(study)
    perturbed = comparison.perturbed(study)
    others = roles.rates(study)
    grids = {m: comparison.grid(cells, m, study.threshold) for m in ("acc", "auroc")}
    tables = {
        "cells": cells,
        "differences": changes,
        "grid": grids["acc"] + grids["auroc"],
        "robustness": perturbed,
        "roles": others,
    }
    for name, rows in tables.items():
        if rows:
            _write(to / f"{name}.csv", comparison.as_csv(rows).encode())

    sections = [
        *_table_1(study, cells),
        *_roles(study, others),
        *_differences(study, changes),
        *_grids(study, grids, to),
        *_robustness(perturbed, to),
        *_features(study, to),
        *_mistakes(study),
    ]
    _write(to / "report.md", _markdown(study, sections).encode())
    _write(to / PAGE, _page(study, sections).encode())
    for problem in study.problems:
        log.warning("no result: %s (%s)", shown(problem.folder), problem.reason)
    brief = sections[0] | {"blocks": [p for p in sections[0]["blocks"] if not p["folded"]]}
    log.info("\n%s\n", _markdown(study, [brief]))
    log.info("Report: %s", shown(to / PAGE))
    return study


Block = dict[str, Any]
Section = dict[str, Any]


def _section(title: str, blocks: list[Block], text: str = "") -> list[Section]:
    return [{"title": title, "blocks": blocks, "text": text}] if blocks else []


def _table_block(table: comparison.Table, title: str = "", *, folded: bool = False) -> Block:
    header, lines = table
    return {"title": title, "header": header, "lines": lines, "folded": folded}


def _figure_block(figure: Figure, to: Path, name: str, title: str = "") -> Block:
    """Write a figure as png and svg; returns it as a block for the page."""
    name = name.replace(" ", "_")
    for suffix in ("png", "svg"):
        with atomic(to / f"{name}.{suffix}") as file:
            figure.savefig(file, format=suffix, dpi=110)
        figure.set_layout_engine("none")  # laid out once for both
    png = (to / f"{name}.png").read_bytes()
    return _image_block(png, "png", title, name.replace("_", " "), "figure")


def _image_block(content: bytes, format_: str, title: str, alt: str, kind: str) -> Block:
    source = f"data:image/{format_};base64,{base64.b64encode(content).decode()}"
    return {"title": title, "image": source, "alt": alt, "kind": kind}


def _table_1(study: Study, cells: comparison.Rows) -> list[Section]:
    blocks = []
    for train_on in map(training_set, study.train_sets):
        for threshold in study.thresholds:
            table = comparison.table_1(study, cells, train_on, threshold)
            title = f"trained on {train_on}, {threshold_name(threshold)}"
            blocks.append(_table_block(table, title, folded=threshold != study.threshold))
    text = (
        "The paper's Table 1, with its figures beside ours where it has them. Every threshold is "
        "fixed, or set on validation images of the training sources, before any test. Intervals "
        "treat images as independent and thresholds as given: with few validation images, or "
        "several images of a person, the truth varies more."
    )
    return _section("Table 1", blocks, text)


def _roles(study: Study, others: comparison.Rows) -> list[Section]:
    if not others:
        return []
    text = (
        "Unseen sources of real images, and generators used for validation only. Mean over seeds, "
        "then the lowest and the highest seed."
    )
    blocks = [
        _table_block(roles.table(study, others, threshold), threshold_name(threshold),
                     folded=threshold != study.threshold)
        for threshold in study.thresholds
    ]  # fmt: skip
    return _section("Sources outside the test pairs", blocks, text)


def _differences(study: Study, changes: comparison.Rows) -> list[Section]:
    if not changes:
        return []
    text = (
        "Paired by image and seed. The interval over images is for these particular detectors. "
        f"Over seeds: the range from the lowest to the highest; from {MIN_SEEDS} seeds on "
        "Student's 95 % interval for retrained detectors, and p of a paired t-test over seeds, "
        "uncorrected and with Holm's correction for all tests of the same metric in this table."
    )
    block = _table_block(comparison.difference_table(study, changes))
    title = f"Against {study.variants[0].name}, {threshold_name(study.threshold)}"
    return _section(title, [block], text)


def _grids(study: Study, grids: dict[str, comparison.Rows], to: Path) -> list[Section]:
    if len(study.train_sets) < 2:
        return []
    blocks = []
    for metric, rows in grids.items():
        for real in dict.fromkeys(row["real"] for row in rows):
            of_real = [row for row in rows if row["real"] == real]
            generators = [generator for source, generator in study.pairs() if source == real]
            at = threshold_name(study.threshold)
            name = f"ACC ({at})" if metric == "acc" else "AUROC"
            figure = figures.heatmap(of_real, generators, f"{name}, {real}")
            blocks.append(_figure_block(figure, to, f"grid_{metric}_{real}"))
            blocks.append(_table_block(comparison.grid_table(of_real), f"{name}, {real}"))
    text = (
        "Rows are training sets, columns tested generators; * and frames mark seen generators. "
        "The worst unseen value is a minimum, so with noise it is on average below the generator's "
        "own. "
        "«Left out» is the value for the generator left out of a leave-one-out training set."
    )
    return _section("Across generators", blocks, text)


def _robustness(rows: comparison.Rows, to: Path) -> list[Section]:
    blocks = []
    for train_on in dict.fromkeys(row["train_on"] for row in rows):
        for name in dict.fromkeys(row["perturbation"] for row in rows):
            of = [r for r in rows if (r["train_on"], r["perturbation"]) == (train_on, name)]
            figure = figures.metrics_under_perturbation(of, PERTURBATIONS[name].what)
            blocks.append(
                _figure_block(figure, to, f"robustness_{name}_{train_on}", f"trained on {train_on}")
            )
    text = (
        "Perturbed test images. Dark bands are 95 % intervals over images, light bands the range "
        "from the lowest to the highest seed."
    )
    return _section("Robustness to perturbations of the test images", blocks, text)


def _features(study: Study, to: Path) -> list[Section]:
    blocks = []
    for train_on in study.train_sets:
        spaces = []
        for variant, run in _first_runs(study, train_on):
            if (run.folder / FEATURES).exists():
                components, sources = _feature_space(run.folder / FEATURES)
                spaces.append((f"{variant.label}, seed {run.seed}", sources, components))
        if spaces:
            seen = {*study.runs[0].settings["dataset.real"], *train_on}
            name = training_set(train_on)
            figure = figures.feature_maps(spaces, seen)
            blocks.append(_figure_block(figure, to, f"features_{name}", f"trained on {name}"))
    text = (
        "Penultimate-layer features of some test images in two dimensions, as in the paper's "
        "figure 3; the same vectors are in TensorBoard's projector."
    )
    return _section("Feature space", blocks, text)


def _feature_space(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Principal components ``(n, k)`` of some test images, and their sources."""
    try:
        table = pq.read_table(path, columns=["source", "features"])
        components = np.array(table["features"].to_pylist(), np.float64)
        sources = list(map(str, table["source"].to_pylist()))
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise form.refused(path, f"cannot be read ({error})") from error
    if components.ndim != 2 or components.shape[1] < 2 or not np.isfinite(components).all():
        raise form.refused(path, "has no vectors of two numbers or more")
    return components, sources


def _first_runs(study: Study, train_on: tuple[str, ...]) -> list[tuple[Variant, Run]]:
    """The run of the lowest seed of each variant."""
    return [(v, run) for v in study.variants for run in study.of(train_on, v)[:1]]


def _mistakes(study: Study) -> list[Section]:
    blocks = []
    for train_on in study.train_sets:
        for _, run in _first_runs(study, train_on):
            for source in run.logits:
                path = run.folder / MISTAKES / f"{source}.png"
                if path.exists():
                    title = f"{source}, by {shown(run.folder)}"
                    sheet = io.BytesIO()
                    try:
                        # There may be hundreds of sheets; the run folders have them losslessly.
                        with Image.open(path, formats=["PNG"]) as image:
                            image.save(sheet, "webp", quality=80)
                    except (OSError, ValueError, Image.DecompressionBombError) as error:
                        raise form.refused(path, f"is no sheet of images ({error})") from error
                    block = _image_block(sheet.getvalue(), "webp", title, title, "sheet")
                    blocks.append(block | {"folded": True})
    text = "The eight most confident errors among each source's test images, worst first."
    return _section("Mistakes", blocks, text)


def _facts(study: Study) -> dict[str, Any]:
    """Facts of the page and the Markdown report besides the sections."""
    results = [run.result for run in study.runs]
    commits = dict.fromkeys(str(result["git_commit"]) for result in results)
    changed = any(result["git_changed"] for result in results)

    versions = ", ".join(f"{k} {v}" for k, v in results[0]["versions"].items() if v)
    chance = [(run.name, chance_line(run.result)) for run in study.runs]
    evaluated = sum("seconds" not in result for result in results)
    trained = {0: "trained by train.py and tested", len(results): "tested by evaluate.py"}
    return {
        "chance": [f"{name}: {line}" for name, line in chance if line],
        "title": f"{len(results)} detectors, {trained.get(evaluated, 'tested')} across generators",
        "models": ", ".join(dict.fromkeys(run.settings["model"] for run in study.runs)),
        "trained": ", ".join(map(training_set, study.train_sets)),
        "variants": "; ".join(variant.label for variant in study.variants),
        "seeds": ", ".join(map(str, in_order(run.seed for run in study.runs))),
        "reals": ", ".join(dict.fromkeys(real for real, _ in study.pairs())),
        "generators": ", ".join(dict.fromkeys(name for _, name in study.pairs())),
        "warnings": list(dict.fromkeys(note for r in results for note in r["warnings"])),
        "made_with": [
            f"commit {', '.join(commits)}" + (" with uncommitted changes" if changed else ""),
            versions,
            f"{', '.join(dict.fromkeys(r['device'] for r in results))}, "
            f"{', '.join(dict.fromkeys(str(r['threads']) for r in results))} threads a run",
            *_training_facts([run for run in study.runs if "seconds" in run.result]),
        ],
    }


def _training_facts(runs: Sequence[Run]) -> list[str]:
    """Training of the runs of train.py; empty for detectors that were only tested."""
    if not runs:
        return []

    def alike(key: str) -> str:
        return " or ".join(dict.fromkeys(str(run.settings[key]) for run in runs))

    trained = [{s: n for s, n in run.result["images"]["train"].items() if n} for run in runs]
    counts = dict.fromkeys(", ".join(f"{n} {s}" for s, n in images.items()) for images in trained)
    seconds = sum(sum(run.result["seconds"].values()) for run in runs)
    return [
        f"{seconds / 60:.0f} minutes of runs together",
        f"{alike('max_epochs')} epochs, batches of {alike('batch_size')}; "
        f"training images: {'; '.join(counts)}",
    ]


def _markdown(study: Study, sections: Sequence[Section]) -> str:
    facts = _facts(study)
    lines = []
    if study.problems:
        total = len(study.problems) + len(study.runs)
        lines.append(f"**{len(study.problems)} of {total} jobs have no result:**\n")
        lines += [f"* {in_markdown(f'{shown(p.folder)}: {p.reason}')}" for p in study.problems]
        lines.append("")
    if study.toy:
        lines.append("**Toy data: rendered faces, whose figures say nothing about real GANs.**\n")
    if facts["chance"]:
        count = f"{len(facts['chance'])} of {len(study.runs)}"
        lines.append(
            f"**{count} detectors are not measurably better than chance on validation images:**\n"
        )
        lines += [*(f"* {in_markdown(line)}" for line in facts["chance"]), ""]
    lines += [f"    {' '.join(command.splitlines())}\n" for command in study.commands]
    lines.append(f"Percent, of seeds {facts['seeds']}: {CELLS}")
    for section in sections:
        tables = [block for block in section["blocks"] if "header" in block]
        if tables:
            lines += ["", f"## {in_markdown(section['title'])}"]
        for block in tables:
            table = comparison.as_markdown((block["header"], block["lines"]))
            title = in_markdown(block["title"])
            lines += ["", *([title, ""] if title else []), table]
    return "\n".join([*lines, "", *(f"* {in_markdown(line)}" for line in facts["made_with"]), ""])


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
            cells=CELLS,
            **_facts(study),
        )
    )


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)
