"""Figures that compare the detectors of a study, drawn without a display.

Lines differ by colour, dashes and markers, so that they can be told apart without colours, too.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from forensics.labels import as_label
from forensics.reports.figures import COLOURS, MARKERS, marked

CHANCE: dict[str, Any] = {"color": "#595959", "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 0}

SEEN, UNSEEN = COLOURS[0], COLOURS[1]

_DOTS = {
    ("seen", "mean"): ("seen, mean", SEEN, "o", SEEN),
    ("unseen", "mean"): ("unseen, mean", UNSEEN, "o", "white"),
    ("unseen", "worst"): ("unseen, worst", UNSEEN, "v", "white"),
}
"""Label, colour, marker and its filling, by role and statistic of a finding."""


def dots(groups: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> Figure:
    """Balanced accuracy on seen and unseen generators, lines below each other for each group.

    Args:
        groups: by name, rows of `forensics.reports.findings.findings`.
        title: what the threshold is.
    """
    figure = Figure(figsize=(6, 1.4 + 0.75 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for position, rows in enumerate(groups.values()):
        for row in rows:
            key = row["role"], row["statistic"]
            _, colour, marker, filling = _DOTS[key]
            y = position + (list(_DOTS).index(key) - 1) * 0.24
            low, mean, high = (100 * row[name] for name in ("low", "mean", "high"))
            axis.plot([low, high], [y, y], color=colour, linewidth=1.3)
            axis.plot(mean, y, marker, color=colour, markerfacecolor=filling, markersize=8)
            for value in row.get("by_pair", ()):
                axis.plot(100 * value, y, ".", color=colour, markerfacecolor=filling, markersize=4)
            if row["statistic"] == "worst":
                axis.annotate(
                    as_label(row["generator"]), (high, y), (5, 0), textcoords="offset points",
                    va="center", fontsize=8, color=colour,
                )  # fmt: skip
        if position:
            axis.axhline(position - 0.5, color="0.9", linewidth=0.8)
    axis.axvline(50, **CHANCE)
    axis.set_yticks(range(len(groups)), list(map(as_label, groups)))
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlim(min(40, axis.get_xlim()[0]), 101)
    axis.set_xlabel(f"balanced accuracy, %\n{title}")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=filling, label=label)
        for label, colour, marker, filling in _DOTS.values()
    ]
    handles.append(Line2D([], [], **CHANCE, label="chance"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure


def heatmap(grids: Sequence[Mapping[str, Any]], generators: Sequence[str], title: str) -> Figure:
    """The grid of training sets by tested generators, a panel for each variant.

    Args:
        grids: rows of `forensics.reports.comparison.grid`, of one metric and real source.
        generators: the columns, in order; columns of the mean and the worst unseen one follow.
        title: title of the figure.
    """
    variants = list(dict.fromkeys(row["variant"] for row in grids))
    train_sets = list(dict.fromkeys(row["train_on"] for row in grids))
    columns = [*generators, "mean_unseen", "worst_unseen"]
    names = [*map(as_label, generators), "unseen, mean", "unseen, worst"]
    size = (3 + 0.85 * len(columns) * len(variants), 2.6 + 0.5 * len(train_sets))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(as_label(title))
    panels = figure.subplots(1, len(variants), squeeze=False, sharey=True)[0]
    colours = ScalarMappable(
        Normalize(50, 100), matplotlib.colormaps["cividis"].with_extremes(bad="white")
    )
    for axis, variant in zip(panels, variants, strict=True):
        for row in (row for row in grids if row["variant"] == variant):
            line = train_sets.index(row["train_on"])
            for column, name in enumerate(columns):
                # A gap before the summary.
                x = column + (0.25 if column >= len(generators) else 0)
                _heat(axis, x, line, row.get(name), colours, seen=name in row["seen"])
        axis.set_title(as_label(variant), fontsize=10)
        places = [n + (0.25 if n >= len(generators) else 0) for n in range(len(names))]
        axis.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(train_sets)), list(map(as_label, train_sets)))
        axis.set_xlim(-0.55, len(columns) - 0.2)
        axis.set_ylim(len(train_sets) - 0.45, -0.55)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    panels[0].set_ylabel("trained on")
    figure.supxlabel("tested on", fontsize=10)
    figure.colorbar(colours, ax=list(panels), label="%; 50 is chance", shrink=0.8, extend="min")
    frame = Rectangle((0, 0), 1, 1, fill=False, edgecolor=UNSEEN, linewidth=2)
    figure.legend([frame], ["seen in training"], loc="outside lower right", fontsize=9)
    return figure


def _heat(
    axis: Any, x: float, y: int, value: float | None, colours: ScalarMappable, *, seen: bool  # noqa: ANN401
) -> None:  # fmt: skip
    """One cell of a grid."""
    colour = colours.to_rgba(np.array([np.nan if value is None else 100 * value]))[0]
    edge: dict[str, Any] = {"edgecolor": UNSEEN, "linewidth": 2.5} if seen else {}
    axis.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, facecolor=colour, **edge))
    red, green, blue, _ = colour
    ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.45 else "white"
    text = "-" if value is None else f"{100 * value:.1f}"
    axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=9)


def metrics_under_perturbation(
    rows: Sequence[Mapping[str, Any]], what: str, threshold: str
) -> Figure:
    """ACC and AUROC against the strength of one perturbation, a line for each variant.

    Whiskers are intervals over images, small dots single seeds.

    Args:
        rows: rows of `forensics.reports.comparison.perturbed`, of one perturbation and training
            set.
        what: label of the strength.
        threshold: name of ACC's threshold.
    """
    generators = list(dict.fromkeys((row["generator"], row["seen"]) for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    strengths = list(dict.fromkeys(row["strength"] for row in rows))
    figure = Figure(figsize=(2.9 * len(generators) + 1, 6), layout="constrained")
    panels = figure.subplots(2, len(generators), squeeze=False, sharex=True, sharey="row")
    for line, metric in enumerate(("acc", "auroc")):
        for column, (generator, seen) in enumerate(generators):
            axis = panels[line, column]
            axis.axhline(50, **CHANCE)
            for number, variant in enumerate(variants):
                points = {
                    strengths.index(row["strength"]): row
                    for row in rows
                    if (row["generator"], row["metric"]) == (generator, metric)
                    and row["variant"] == variant
                }
                # Side by side, so that no line hides another.
                beside = 0.14 * (number - (len(variants) - 1) / 2) / max(1, len(variants) / 4)
                at = np.array(list(points)) + beside
                style = marked(number)
                mean, low, high = (
                    100 * np.array([p[key] for p in points.values()])
                    for key in ("mean", "low", "high")
                )
                axis.plot(at, mean, label=as_label(variant), **style)
                axis.vlines(at, low, high, color=style["color"], linewidth=1)
                for x, row in zip(at, points.values(), strict=True):
                    if len(row["by_seed"]) > 1:
                        seeds = 100 * np.array(row["by_seed"])
                        axis.plot(np.full(len(seeds), x), seeds, ".", color=style["color"], ms=4)
            axis.set_xticks(
                range(len(strengths)), ["none" if s is None else f"{s:g}" for s in strengths]
            )
            if line == 0:
                title = f"{generator} ({'seen' if seen else 'unseen'})"
                axis.set_title(as_label(title), fontsize=10)
            if column == 0:
                axis.set_ylabel(f"{metric.upper()}, %")
    figure.supxlabel(f"{what}\n(ACC: {threshold})", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    handles += [
        Line2D([], [], color="0.4", marker="|", linestyle="", markersize=12),
        Line2D([], [], color="0.4", marker=".", linestyle="", markersize=4),
        Line2D([], [], **CHANCE),
    ]
    labels += ["95 % interval over images", "single seeds", "chance"]
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def learning_curves(
    curves: Sequence[tuple[str, Mapping[int, Mapping[str, float]]]], panels: Mapping[str, str]
) -> Figure:
    """Metrics of each epoch, a line for each run; runs of one variant have one style.

    Args:
        curves: variant and, by epoch, metrics of a run.
        panels: titles of the panels by metric.
    """
    figure = Figure(figsize=(3.4 * len(panels) + 1, 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    variants = list(dict.fromkeys(variant for variant, _ in curves))
    for axis, (metric, title) in zip(axes, panels.items(), strict=True):
        for variant, epochs in curves:
            points = {epoch: of[metric] for epoch, of in epochs.items() if metric in of}
            style = marked(variants.index(variant)) | {"markersize": 3, "linewidth": 1}
            axis.plot(list(points), list(points.values()), **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    handles = [Line2D([], [], **marked(number)) for number in range(len(variants))]
    figure.legend(
        handles, list(map(as_label, variants)), loc="outside upper center", ncols=3, fontsize=8
    )
    return figure


def feature_maps(
    spaces: Sequence[tuple[str, Sequence[str], NDArray[np.floating]]], seen: Collection[str]
) -> Figure:
    """Feature spaces in two dimensions, by PCA above and t-SNE below, coloured by source.

    Args:
        spaces: for each detector, its name, every image's source and ``(n, k)`` principal
            components, by decreasing variance.
        seen: sources that were trained on, drawn filled; others are hollow.

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
            for number, source in enumerate(dict.fromkeys(sources)):
                of_source = points[np.array(sources) == source]
                colour = COLOURS[number % len(COLOURS)]
                axis.scatter(
                    of_source[:, 0], of_source[:, 1], s=16, alpha=0.8, linewidths=0.9,
                    marker=MARKERS[number % len(MARKERS)], edgecolors=colour,
                    facecolors=colour if source in seen else "none",
                    label=as_label(f"{source} ({'seen' if source in seen else 'unseen'})"),
                )  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks([])
        panels[0, column].set_title(as_label(name), fontsize=10)
    panels[0, 0].set_ylabel("PCA")
    panels[1, 0].set_ylabel("t-SNE")
    panels[0, 0].legend(fontsize=8)
    return figure
