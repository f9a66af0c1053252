"""Figures: lines that anybody can tell apart, and what a study's figures have to show."""

import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from forensics.reports import study_figures
from forensics.reports.figures import COLOURS, marked

VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
}  # fmt: skip
"""On linear RGB. Source: Machado, Oliveira and Fernandes 2009, table 1, severity 1."""

XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # of sRGB, IEC 61966-2-1


def lab(colour: str, vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB of a colour as seen."""
    values = np.array(to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = XYZ @ np.clip(vision @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(light > 0.008856, np.cbrt(light), 7.787 * light + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_all_colours_are_distinct(vision: str) -> None:
    seen = [lab(colour, VISION[vision]) for colour in COLOURS]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert nearest > 15


def test_28_lines_differ_and_the_first_ones_in_more_than_colour() -> None:
    styles = [marked(number) for number in range(28)]
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 28
    assert len({style["marker"] for style in styles[:7]}) == 7


def finding(role: str, statistic: str, mean: float) -> dict[str, Any]:
    row = {"role": role, "statistic": statistic, "mean": mean, "low": mean - 0.1,
           "high": mean + 0.1, "generator": "dcgan"}  # fmt: skip
    return row | ({"by_pair": [mean - 0.05, mean + 0.05]} if statistic == "mean" else {})


def test_dots_are_filled_for_seen_and_hollow_for_unseen_beside_chance() -> None:
    rows = [finding("seen", "mean", 0.8), finding("unseen", "mean", 0.6),
            finding("unseen", "worst", 0.55)]  # fmt: skip
    (axis,) = study_figures.dots({"M": rows}, "threshold").axes
    lines: list[Any] = list(axis.get_lines())
    large = {
        round(float(line.get_xdata()[0])): line for line in lines if line.get_markersize() == 8
    }
    hollow = {x: line.get_markerfacecolor() == "white" for x, line in large.items()}
    assert hollow == {80: False, 60: True, 55: True}
    whiskers = {tuple(np.round(line.get_xdata(), 6)) for line in lines if len(line.get_xdata()) > 1}
    assert {(70, 90), (50, 70), (45, 65)} <= whiskers
    assert [50, 50] in [list(line.get_xdata()) for line in lines]
    assert [text.get_text() for text in axis.texts] == ["dcgan"]


def cells(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_a_grid_is_coloured_from_chance_and_ends_with_mean_and_worst() -> None:
    row = {"variant": "none", "train_on": "a", "seen": ["a"], "a": 1.0, "b": 0.3,
           "mean_unseen": 0.3, "worst_unseen": 0.3}  # fmt: skip
    other = row | {"train_on": "b", "seen": ["b"], "a": 0.5, "b": None}
    figure = study_figures.heatmap([row, other], ["a", "b"], "ACC")
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["a", "b", "unseen, mean", "unseen, worst"]
    colours = [patch.get_facecolor() for patch in cells(figure)]
    # Below chance is as dark as chance; what was not tested is white.
    assert colours[1] == colours[4] != colours[0]
    assert colours[5] == (1, 1, 1, 1)
    framed = [patch.get_linewidth() > 2 for patch in cells(figure)]
    assert framed == [True, False, False, False, False, True, False, False]


def test_perturbed_metrics_have_a_chance_line_and_explain_their_marks() -> None:
    rows = [
        {"generator": "a", "seen": True, "variant": variant, "strength": strength,
         "metric": metric, "mean": 0.7, "low": 0.6, "high": 0.8, "by_seed": [0.65, 0.75]}
        for variant, strength, metric in itertools.product(
            ("none", "blur"), (None, 5.0), ("acc", "auroc")
        )
    ]  # fmt: skip
    figure = study_figures.metrics_under_perturbation(rows, "strength", "threshold 0.5")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["none", "blur", "95 % interval over images", "single seeds", "chance"]
    for axis in figure.axes:
        lines: list[Any] = list(axis.get_lines())
        assert [50, 50] in [list(line.get_ydata()) for line in lines]


def test_features_of_unseen_sources_are_hollow_and_all_differ() -> None:
    draws = np.random.default_rng(0).normal(size=(24, 3))
    sources = np.repeat(["real", "a", "b", "c"], 6).tolist()
    figure = study_figures.feature_maps([("M", sources, draws)], {"real", "a"})
    of: list[Any] = list(figure.axes[0].collections)
    assert [len(one.get_facecolor()) > 0 for one in of] == [True, True, False, False]
    looks = {(tuple(one.get_edgecolor()[0]), len(one.get_paths()[0].vertices)) for one in of}
    assert len(looks) == 4
