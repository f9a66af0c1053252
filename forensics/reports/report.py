"""A study's run folders as tables, figures and one page."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forensics.files import atomic, remove_unfinished
from forensics.reports import comparison, findings, roles, sections
from forensics.reports.closing import closing
from forensics.reports.page import markdown, page
from forensics.reports.run import Run, in_order
from forensics.reports.study import Study, read_study
from forensics.reports.tables import chance_line
from forensics.reports.variants import training_set
from forensics.runs import locked, shown

log = logging.getLogger(__name__)

PAGE = "report.html"
TRIAL = "Trial runs with debug=quick, on two batches of images: the figures are no evidence."


def write_report(folders: Sequence[Path], to: Path) -> Study:
    """Report on runs: tables as csv and Markdown, figures, and one self-contained page.

    Args:
        folders: folders of runs or of sweeps.
        to: the folder to write into, created if missing; an earlier report there is replaced.

    Returns:
        The study, with the jobs that have no result.

    Raises:
        UserError: if the runs cannot be compared, see `forensics.reports.study.read_study`, or
            another process reports into the folder.
    """
    study = read_study(folders)
    to.mkdir(parents=True, exist_ok=True)
    with locked(to, to / ".report.lock"):
        _write_files(study, to)
    return study


def _write_files(study: Study, to: Path) -> None:
    """Write a report's files, and remove what a killed one has left."""
    remove_unfinished(to)
    found = findings.findings(study)
    cells = comparison.cells(study)
    changes = comparison.differences(study)
    perturbed = comparison.perturbed(study)
    others = roles.rates(study)
    grids = {m: comparison.grid(cells, m, study.threshold) for m in ("acc", "auroc")}
    tables = {
        "findings": found,
        "cells": cells,
        "differences": changes,
        "grid": grids["acc"] + grids["auroc"],
        "robustness": perturbed,
        "roles": others,
    }
    for name, rows in tables.items():
        if rows:
            _write(to / f"{name}.csv", comparison.as_csv(rows).encode())

    all_sections = [
        *sections.finding(study, found, to),
        *sections.table_1(study, cells),
        *sections.other_roles(study, others),
        *sections.differences(study, changes),
        *sections.grids(study, grids, to),
        *sections.robustness(study, perturbed, to),
        *sections.learning_curves(study, to),
        *sections.features(study, to),
        *sections.mistakes(study),
        *sections.detectors(study, to),
    ]
    of_study = facts(study)
    _write(to / "report.md", markdown(of_study, all_sections).encode())
    _write(to / PAGE, page(of_study, all_sections).encode())
    for problem in study.problems:
        log.warning("no result: %s (%s)", shown(problem.folder), problem.reason)
    log.info("\n%s\n", closing(study, found))
    log.info("Report: %s", shown(to / PAGE))


def facts(study: Study) -> dict[str, Any]:
    """Facts of the page and the Markdown report besides the sections."""
    results = [run.result for run in study.runs]
    commits = dict.fromkeys(str(result["git_commit"]) for result in results)
    changed = any(result["git_changed"] for result in results)

    versions = ", ".join(f"{k} {v}" for k, v in results[0]["versions"].items() if v)
    chance = [(run.name, chance_line(run.result)) for run in study.runs]
    evaluated = sum("seconds" not in result for result in results)
    trained = {0: "trained by train.py and tested", len(results): "tested by evaluate.py"}
    days = sorted({str(result["finished"])[:10] for result in results if "finished" in result})
    return {
        "count": len(results),
        "problems": [
            {"folder": shown(p.folder), "reason": p.reason, "overrides": p.overrides}
            for p in study.problems
        ],
        "trial": TRIAL if study.debug else "",
        "toy": study.toy,
        "commands": study.commands,
        "date": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
        "commit": ", ".join(commit[:10] for commit in commits),
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


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)
