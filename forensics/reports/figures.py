"""Figures, drawn without a display."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from forensics.evaluation.robustness import PERTURBATIONS
from forensics.evaluation.spectra import radial_profile


def before_and_after(batches: Sequence[tuple[Tensor, Tensor, Mapping[str, Tensor]]]) -> Figure:
    """Images of some batches, each above what its preprocess made of it.

    Args:
        batches: of each, ``(k, 3, H, W)`` grey levels in [0, 255] before and after, and the
            ``(k,)`` strengths drawn, by name.
    """
    count = len(batches[0][0])
    figure = Figure(figsize=(2 * count, 4.5 * len(batches)), layout="constrained")
    axes = figure.subplots(2 * len(batches), count, squeeze=False)
    for number, (before, after, strengths) in enumerate(batches):
        for row, images in ((2 * number, before), (2 * number + 1, after)):
            for column, axis in enumerate(axes[row]):
                axis.imshow(images[column].permute(1, 2, 0).round().byte().numpy())
                axis.set_axis_off()
        for column in range(count):
            drawn = [
                f"{name.replace('_', ' ')}\n{float(values[column]):.3g}"
                for name, values in strengths.items()
            ]
            axes[2 * number, column].set_title(f"batch {number}, before", fontsize=9)
            axes[2 * number + 1, column].set_title("\n".join(drawn) or "untouched", fontsize=9)
    return figure


def roc(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """ROC curves.

    Args:
        curves: by name, share of the generated called real and share of the reals called real.
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
    """Precision-recall curves of finding the generated images.

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


def reliability(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Reliability diagrams, whose points are as large as their bins are full.

    Args:
        curves: by name, what `forensics.evaluation.metrics.reliability` gives.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for name, bins in curves.items():
        probabilities, shares, counts = (
            np.array([one[key] for one in bins]) for key in ("probability", "share_real", "n")
        )
        (line,) = axis.plot(probabilities, shares, label=name)
        sizes = 4 + 200 * counts / counts.sum()
        axis.scatter(probabilities, shares, sizes, color=line.get_color())
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="probability of real", ylabel="share that is real")
    axis.legend()
    return figure


def robustness(result: Mapping[str, Any]) -> Figure:
    """How many images of each source are called rightly as perturbations grow.

    Args:
        result: of one detector, as in ``evaluation.json``, at its 5 % threshold.
    """
    names = list(dict.fromkeys(one["perturbation"] for one in result["perturbed"]))
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, name in zip(axes, names, strict=True):
        steps = [one for one in result["perturbed"] if one["perturbation"] == name]
        ticks = ["untouched", *(f"{one['strength']:g}" for one in steps)]
        for position, source in enumerate(result["sources"]):
            key = f"{'tpr' if source['real'] else 'tnr'}_at_source_0.05"
            values = [source[key], *(one["sources"][position][key] for one in steps)]
            axis.plot(ticks, values, marker="o", label=source["source"])
        axis.set(xlabel=PERTURBATIONS[name].what, ylim=(-0.02, 1.02))
    axes[0].set_ylabel("called rightly at the 5 % threshold")
    axes[0].legend()
    return figure
