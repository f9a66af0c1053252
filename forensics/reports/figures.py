"""Figures of one detector's test, drawn without a display.

Lines differ by colour, dashes and markers, so that they can be told apart without colours, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from forensics.images.perturbations import PERTURBATIONS
from forensics.images.spectra import radial_profile
from forensics.labels import as_label

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, distinct for colour-blind people, without yellow, too light on white."""

MARKERS = "osD^vPX"
DASHES = ("-", "--", "-.", ":")


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line; 28 lines differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def marked(number: int) -> dict[str, Any]:
    """`line_style` with a marker."""
    return line_style(number) | {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}


def roc(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """ROC curves.

    Args:
        curves: by name, shares of generated and of real images called real.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for number, (name, (false_positives, true_positives)) in enumerate(curves.items()):
        axis.plot(false_positives, true_positives, label=as_label(name), **line_style(number))
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
    for number, (name, (recall, precision)) in enumerate(curves.items()):
        axis.step(recall, precision, where="post", label=as_label(name), **line_style(number))
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
        axis.set_title(as_label(name), fontsize=9)
        axis.set_axis_off()
        frequency, mean = radial_profile(power)
        profile.plot(frequency, mean, label=as_label(name), **line_style(column))
    profile.set(xlabel="frequency, cycles per pixel", ylabel="mean log10 power")
    profile.legend()
    return figure


def reliability(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Reliability diagrams, with point sizes by the number of images in a bin.

    Args:
        curves: by name, the result of `forensics.evaluation.metrics.reliability`.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for number, (name, bins) in enumerate(curves.items()):
        style = marked(number)
        probabilities, shares, counts = (
            np.array([bin_[key] for bin_ in bins]) for key in ("probability", "share_real", "n")
        )
        axis.plot(probabilities, shares, label=as_label(name), **style | {"marker": ""})
        sizes = 4 + 200 * counts / counts.sum()
        axis.scatter(probabilities, shares, sizes, color=style["color"], marker=style["marker"])
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
            axis.plot(ticks, values, label=as_label(source["source"]), **marked(position))
        axis.set(xlabel=PERTURBATIONS[name].what, ylim=(-0.02, 1.02))
    axes[0].set_ylabel("TPR or TNR at the 5 % threshold")
    axes[0].legend()
    return figure
