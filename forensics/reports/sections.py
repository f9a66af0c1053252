"""The sections of a study's report: their blocks and texts."""

import csv
import itertools
import math
from pathlib import Path, PurePath
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from forensics.evaluation.seeds import MIN_SEEDS
from forensics.images.perturbations import PERTURBATIONS
from forensics.reports import findings, form, roles, study_figures, study_tables
from forensics.reports.blocks import Section, figure_block, section, sheet_block, table_block
from forensics.reports.comparison import Rows
from forensics.reports.run import Run
from forensics.reports.study import Study
from forensics.reports.study_tables import percent
from forensics.reports.tables import threshold_name
from forensics.reports.variants import Variant, training_set
from forensics.runs import EPOCHS, FEATURES, MISTAKES, shown

CURVES = {
    "train/loss": "training loss",
    "val/loss": "validation loss",
    "val/auroc": "validation AUROC",
    "watch/auroc_mean": "watched unseen, mean AUROC",
    "watch/auroc_worst": "watched unseen, worst AUROC",
}
"""Metrics of ``epochs.csv`` that are drawn, where a run has them, in words."""


def finding(study: Study, rows: Rows, to: Path) -> list[Section]:
    """The finding as a sentence, a dot plot and a table."""
    if not rows:
        return []
    threshold = threshold_name(rows[0]["threshold"])
    groups = findings.by_detectors(study, rows)
    text = (
        f"Balanced accuracy is the mean of TPR and TNR, here in percent at the {threshold}. "
        "Whiskers are 95 % intervals over images, small dots single test pairs. A worst value is a "
        "minimum, so with noise it is on average below the generator's own."
    )
    blocks = [
        figure_block(study_figures.dots(groups, threshold), to, "finding"),
        table_block(findings.table(study, rows)),
    ]
    return [{"title": "Finding", "lead": findings.sentence(rows), "blocks": blocks, "text": text}]


def table_1(study: Study, cells: Rows) -> list[Section]:
    """Metrics of every test pair, a row for each pair and variant."""
    blocks = []
    for train_on in map(training_set, study.train_sets):
        for threshold in study.thresholds:
            table = study_tables.table_1(study, cells, train_on, threshold)
            title = f"trained on {train_on}, {threshold_name(threshold)}"
            blocks.append(table_block(table, title, folded=threshold != study.threshold))
    papers = any(row["paper"] is not None for row in cells)
    text = (
        "The paper's Table 1, with its figures beside ours where it has them. " if papers else ""
    ) + (
        "Every threshold is fixed, or set on validation images of the training sources, before any "
        "test. Intervals treat images as independent and thresholds as given: with few validation "
        "images, or several images of a person, the truth varies more."
    )
    return section("Test pairs", blocks, text)


def other_roles(study: Study, others: Rows) -> list[Section]:
    """Rates of sources outside the test pairs."""
    if not others:
        return []
    text = "Unseen sources of real images, and generators used for validation only."
    blocks = [
        table_block(roles.table(study, others, threshold), threshold_name(threshold),
                     folded=threshold != study.threshold)
        for threshold in study.thresholds
    ]  # fmt: skip
    return section("Sources outside the test pairs", blocks, text)


def differences(study: Study, changes: Rows) -> list[Section]:
    """Differences of the variants to the first one."""
    text = "Percentage points with 95 % intervals over images, for these particular detectors."
    if any(row["seeds"] > 1 for row in changes):
        text = "Paired by image and seed. " + text
    if any(row["p"] is not None for row in changes):
        text += (
            f" From {MIN_SEEDS} seeds on: Student's 95 % interval for retrained detectors, and p "
            "of a paired t-test over seeds, uncorrected and with Holm's correction for all tests "
            "of the same metric."
        )
    blocks = [
        table_block(study_tables.difference_table(study, changes, name), f"trained on {name}")
        for name in dict.fromkeys(row["train_on"] for row in changes)
    ]
    title = f"Differences to {study.variants[0].title}, {threshold_name(study.threshold)}"
    return section(title, blocks, text)


def grids(study: Study, of_metrics: dict[str, Rows], to: Path) -> list[Section]:
    """Grids of training sets by tested generators."""
    if len(study.train_sets) < 2:
        return []
    blocks = []
    for metric, rows in of_metrics.items():
        for real in dict.fromkeys(row["real"] for row in rows):
            of_real = [row for row in rows if row["real"] == real]
            generators = [generator for source, generator in study.pairs() if source == real]
            at = threshold_name(study.threshold)
            name = f"ACC ({at})" if metric == "acc" else "AUROC"
            figure = study_figures.heatmap(of_real, generators, f"{name}, {real}")
            blocks.append(figure_block(figure, to, f"grid_{metric}_{real}"))
            blocks.append(table_block(study_tables.grid_table(of_real), f"{name}, {real}"))
    text = (
        "Rows are training sets, columns tested generators; * and frames mark seen generators. "
        "The worst unseen value is a minimum, so with noise it is on average below the generator's "
        "own. "
        "«Left out» is the value for the generator left out of a leave-one-out training set."
    )
    return section("Across generators", blocks, text)


def robustness(study: Study, rows: Rows, to: Path) -> list[Section]:
    """Curves under perturbations of the test images."""
    blocks = []
    at = threshold_name(study.threshold)
    for train_on in dict.fromkeys(row["train_on"] for row in rows):
        for name in dict.fromkeys(row["perturbation"] for row in rows):
            of = [r for r in rows if (r["train_on"], r["perturbation"]) == (train_on, name)]
            what = PERTURBATIONS[name].what
            figure = study_figures.metrics_under_perturbation(of, what, at)
            title = f"{what}, trained on {train_on}"
            blocks.append(figure_block(figure, to, f"robustness_{name}_{train_on}", title))
    return section("Robustness to perturbations of the test images", blocks)


def learning_curves(study: Study, to: Path) -> list[Section]:
    """Curves of every run of train.py."""
    blocks = []
    for train_on in study.train_sets:
        curves = [
            (variant.title, epochs)
            for variant in study.variants
            for run in study.of(train_on, variant)
            if (epochs := _epochs(run.folder / EPOCHS))
        ]
        metrics = {name for _, epochs in curves for of in epochs.values() for name in of}
        panels = {name: title for name, title in CURVES.items() if name in metrics}
        # A single epoch is no curve.
        if panels and max(len(epochs) for _, epochs in curves) > 1:
            name = training_set(train_on)
            figure = study_figures.learning_curves(curves, panels)
            blocks.append(figure_block(figure, to, f"curves_{name}", f"trained on {name}"))
    text = "A line for each run. No checkpoint is chosen by test images or by watched generators."
    return section("Learning curves", blocks, text)


def _epochs(path: Path) -> dict[int, dict[str, float]]:
    """Metrics of a run by epoch; empty without a table of epochs."""
    if not path.exists():
        return {}
    epochs: dict[int, dict[str, float]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                values = {name: float(row[name]) for name in CURVES if row.get(name)}
                epochs[int(row["epoch"])] = {n: v for n, v in values.items() if math.isfinite(v)}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise form.refused(path, f"cannot be read ({error})") from error
    return epochs


def features(study: Study, to: Path) -> list[Section]:
    """Feature spaces of the runs of the lowest seed."""
    blocks = []
    for train_on in study.train_sets:
        spaces = []
        for variant, run in _first_runs(study, train_on):
            if (run.folder / FEATURES).exists():
                components, sources = _feature_space(run.folder / FEATURES)
                spaces.append((f"{variant.title}, seed {run.seed}", sources, components))
        if spaces:
            seen = {*study.runs[0].settings["dataset.real"], *train_on}
            name = training_set(train_on)
            figure = study_figures.feature_maps(spaces, seen)
            blocks.append(figure_block(figure, to, f"features_{name}", f"trained on {name}"))
    text = (
        "Penultimate-layer features of some test images in two dimensions, as in the paper's "
        "figure 3; the same vectors are in TensorBoard's projector."
    )
    return section("Feature space", blocks, text)


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


def mistakes(study: Study) -> list[Section]:
    """The most confident errors of the runs of the lowest seed, with their scores."""
    blocks = []
    threshold = findings.threshold_of(study)
    for train_on in study.train_sets:
        for _, run in _first_runs(study, train_on):
            for source in run.logits:
                path = run.folder / MISTAKES / f"{source}.png"
                if path.exists():
                    title = f"{source}, by {shown(run.folder)}"
                    captions = _captions(run, source, threshold)
                    blocks.append(sheet_block(path, captions, title))
    text = (
        "The images of each source that a detector was most confidently wrong about, or least "
        f"confidently right, worst first, {threshold_name(threshold)}."
    )
    return section("Mistakes", blocks, text)


def _captions(run: Run, source: str, threshold: str) -> list[str]:
    """Name, score and error of a source's images, in the order of their sheet."""
    real = source in {real for real, _ in run.pairs}
    real |= any(of["real"] for of in run.result["sources"] if of["source"] == source)
    logits, paths = run.logits[source], run.tested()[source]
    captions = []
    for n in np.argsort(logits if real else -logits, kind="stable"):
        score = f"logit {logits[n]:.2f}"
        if run.result["temperature"]:
            offset = run.result.get("offset") or 0.0
            score = f"real: {expit((logits[n] - offset) / run.result['temperature']):.1%}"
        is_right = (logits[n] >= run.result["thresholds"][threshold]) == real
        captions.append(f"{PurePath(paths[n]).name}\n{score}\n{'right' if is_right else 'wrong'}")
    return captions


def detectors(study: Study, to: Path) -> list[Section]:
    """The study's detectors, with links to the folders that are below the report's."""
    lines, links = [], []
    for train_on, variant in itertools.product(study.train_sets, study.variants):
        for run in study.of(train_on, variant):
            lines.append(
                [
                    run.name,
                    variant.title,
                    training_set(train_on),
                    str(run.seed),
                    str(run.result.get("epoch", "-")),
                    percent(run.result.get("validation", {}).get("auroc")),
                    str(run.result.get("finished", "-"))[:10],
                    str(run.result["git_commit"])[:10],
                ]
            )
            links.append(_link(run.folder, to))
    header = ["folder", "variant", "trained on", "seed", "epoch kept", "validation AUROC",
              "finished", "commit"]  # fmt: skip
    return section("Runs", [table_block((header, lines)) | {"links": links}])


def _link(folder: Path, to: Path) -> str:
    """Relative address of a folder; empty if it is not below ``to``."""
    inner, outer = folder.resolve(), to.resolve()
    if inner == outer or not inner.is_relative_to(outer):
        return ""
    return quote(inner.relative_to(outer).as_posix()) + "/"
