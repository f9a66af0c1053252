"""Figures, drawn without a display."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from forensics.images.perturbations import PERTURBATIONS
from forensics.images.spectra import radial_profile


def roc(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """ROC curves.

    Args:
        curves: by name, shares of generated and of real images called real.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for name, (false_positive_rate, true_positive_rate) in curves.items():
        axis.plot(false_positive_rate, true_positive_rate, label=name)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="generated called real (1 - TNR)", ylabel="real called real (TPR)")
    axis.legend()
    return figure


def precision_recall(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Figure:
    """Precision-recall curves of the generated class.

    Args:
        curves: by name, recall and precision.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for name, (recall, precision) in curves.items():
        axis.step(recall, precision, where="post", label=name)
    axis.set(
        xlabel="recall of generated", ylabel="precision of generated", xlim=(0, 1), ylim=(0, 1.02)
    )
    axis.legend()
    return figure


def spectra(mean_log_powers: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Mean spectra of sources: as images, and as profiles over frequency.

    Args:
        mean_log_powers: by source, ``(S, S)`` log10 power with frequency 0 in the middle.
    """
    figure = Figure(figsize=(max(8, 2.2 * len(mean_log_powers)), 6), layout="constrained")
    grid = figure.add_gridspec(2, len(mean_log_powers), height_ratios=(1, 1.4))
    values = np.stack(list(mean_log_powers.values()))
    low, high = np.percentile(values, [1, 99.8])
    profile = figure.add_subplot(grid[1, :])
    for column, (name, power) in enumerate(mean_log_powers.items()):
        axis = figure.add_subplot(grid[0, column])
        axis.imshow(power, vmin=low, vmax=high)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
        frequency, mean = radial_profile(power)
        profile.plot(frequency, mean, label=name)
    profile.set(xlabel="frequency, cycles per pixel", ylabel="mean log10 power")
    profile.legend()
    return figure


def heatmap(grids: Sequence[Mapping[str, Any]], generators: Sequence[str], title: str) -> Figure:
    """The grid of training sets by tested generators, a panel for each variant.

    Args:
        grids: rows of `forensics.reports.comparison.grid`, of one metric and real source.
        generators: the columns, in order.
        title: title of the figure.
    """
    variants = list(dict.fromkeys(row["variant"] for row in grids))
    train_sets = list(dict.fromkeys(row["train_on"] for row in grids))
    size = (3 + 1.5 * len(generators) * len(variants), 1.8 + 0.5 * len(train_sets))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(variants), squeeze=False, sharey=True)[0]
    for axis, variant in zip(panels, variants, strict=True):
        values = np.full((len(train_sets), len(generators)), np.nan)
        for row in grids:
            if row["variant"] == variant:
                line = train_sets.index(row["train_on"])
                values[line] = [row.get(name, np.nan) for name in generators]
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (line, column), value in np.ndenumerate(values):
            seen = generators[column] in train_sets[line].split("+")
            text = "missing" if np.isnan(value) else f"{100 * value:.1f}"
            colour = "black" if value > 0.6 else "white"
            axis.text(column, line, text, ha="center", va="center", color=colour, fontsize=9)
            if seen:
                axis.add_patch(
                    Rectangle(
                        (column - 0.46, line - 0.46), 0.92, 0.92,
                        fill=False, edgecolor="tab:red", linewidth=2,
                    )
                )  # fmt: skip
        axis.set_title(variant, fontsize=10)
        axis.set_xticks(range(len(generators)), generators, rotation=30, ha="right")
        axis.set_yticks(range(len(train_sets)), train_sets)
    panels[0].set_ylabel("trained on")
    figure.colorbar(image, ax=list(panels), label="framed: seen in training", shrink=0.8)
    return figure


def metrics_under_perturbation(rows: Sequence[Mapping[str, Any]], what: str) -> Figure:
    """ACC and AUROC against the strength of one perturbation, a line for each variant.

    Args:
        rows: rows of `forensics.reports.comparison.perturbed`, of one perturbation and training
            set.
        what: label of the strength.
    """
    generators = list(dict.fromkeys((row["generator"], row["seen"]) for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    strengths = list(dict.fromkeys(row["strength"] for row in rows))
    figure = Figure(figsize=(3.2 * len(generators) + 1, 5.5), layout="constrained")
    panels = figure.subplots(2, len(generators), squeeze=False, sharex=True, sharey="row")
    for line, metric in enumerate(("acc", "auroc")):
        for column, (generator, seen) in enumerate(generators):
            axis = panels[line, column]
            for variant in variants:
                points = {
                    row["strength"]: row
                    for row in rows
                    if (row["generator"], row["metric"]) == (generator, metric)
                    and row["variant"] == variant
                }
                at = [x for x, strength in enumerate(strengths) if strength in points]
                drawn = [points[strengths[x]] for x in at]
                lines = axis.plot(at, [p["mean"] for p in drawn], marker=".", label=variant)
                for low, high, alpha in (
                    ("low", "high", 0.25),
                    ("lowest_seed", "highest_seed", 0.1),
                ):
                    axis.fill_between(
                        at, [p[low] for p in drawn], [p[high] for p in drawn],
                        alpha=alpha, color=lines[0].get_color(), linewidth=0,
                    )  # fmt: skip
            axis.set_xticks(
                range(len(strengths)), ["none" if s is None else f"{s:g}" for s in strengths]
            )
            if line == 0:
                axis.set_title(f"{generator} ({'seen' if seen else 'unseen'})", fontsize=10)
            if column == 0:
                axis.set_ylabel("ACC at 0.5" if metric == "acc" else "AUROC")
    panels[0, 0].legend(fontsize=8)
    figure.supxlabel(what, fontsize=10)
    return figure


def feature_maps(
    spaces: Sequence[tuple[str, Sequence[str], NDArray[np.floating]]], seen: Collection[str]
) -> Figure:
    """Feature spaces in two dimensions, by PCA above and t-SNE below, coloured by source.

    Args:
        spaces: for each detector, its name, every image's source and ``(n, k)`` principal
            components, by decreasing variance.
        seen: sources that were trained on; others are drawn as crosses.

    Source: arXiv 1902.11153, figure 3.
    """
    figure = Figure(figsize=(4.2 * len(spaces) + 1, 8), layout="constrained")
    panels = figure.subplots(2, len(spaces), squeeze=False)
    for column, (name, sources, components) in enumerate(spaces):
        perplexity = min(30.0, (len(components) - 1) / 3)
        embedded = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(
            components
        )
        for axis, points in ((panels[0, column], components), (panels[1, column], embedded)):
            for source in dict.fromkeys(sources):
                of_source = points[np.array(sources) == source]
                axis.scatter(
                    of_source[:, 0], of_source[:, 1], s=14, alpha=0.7,
                    marker="o" if source in seen else "x",
                    label=f"{source} ({'seen' if source in seen else 'unseen'})",
                )  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks([])
        panels[0, column].set_title(name, fontsize=10)
    panels[0, 0].set_ylabel("PCA")
    panels[1, 0].set_ylabel("t-SNE")
    panels[0, 0].legend(fontsize=8)
    return figure


def reliability(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Reliability diagrams, with point sizes by the number of images in a bin.

    Args:
        curves: by name, the result of `forensics.evaluation.metrics.reliability`.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for name, bins in curves.items():
        probabilities, shares, counts = (
            np.array([bin_[key] for bin_ in bins]) for key in ("probability", "share_real", "n")
        )
        (line,) = axis.plot(probabilities, shares, label=name)
        sizes = 4 + 200 * counts / counts.sum()
        axis.scatter(probabilities, shares, sizes, color=line.get_color())
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="probability of real", ylabel="share that is real")
    axis.legend()
    return figure


def rates_under_perturbation(result: Mapping[str, Any]) -> Figure:
    """TPR or TNR of each source, at the 5 % threshold, under perturbations of rising strength.

    Args:
        result: the result of one detector, as in ``evaluation.json``.
    """
    names = list(dict.fromkeys(step["perturbation"] for step in result["perturbed"]))
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, name in zip(axes, names, strict=True):
        steps = [step for step in result["perturbed"] if step["perturbation"] == name]
        ticks = ["none", *(f"{step['strength']:g}" for step in steps)]
        for position, source in enumerate(result["sources"]):
            key = f"{'tpr' if source['real'] else 'tnr'}_at_source_0.05"
            values = [source[key], *(step["sources"][position][key] for step in steps)]
            axis.plot(ticks, values, marker="o", label=source["source"])
        axis.set(xlabel=PERTURBATIONS[name].what, ylim=(-0.02, 1.02))
    axes[0].set_ylabel("TPR or TNR at the 5 % threshold")
    axes[0].legend()
    return figure
