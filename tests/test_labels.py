"""Names of sources in figures: drawn as they are, without a warning."""

import io

import numpy as np
import pytest

from forensics.labels import LONGEST, as_label
from forensics.reports import figures

NAMES = ["_real", "__x", "pg$x^2$", "$", "生成", "a&b<c>", "\\alpha", "%s", "plain"]


def test_a_legend_names_every_source() -> None:
    curve = np.array([0.0, 1.0])
    figure = figures.roc({name: (curve, curve) for name in NAMES})
    figure.savefig(io.BytesIO(), format="png")  # a warning would be an error
    figure.savefig(io.BytesIO(), format="svg")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    drawn = [text.get_text().strip().replace(r"\$", "$") for text in legend.get_texts()]
    assert drawn == [name.replace("生成", r"\u751f\u6210") for name in NAMES]
    assert not any(text.get_text().startswith("_") for text in legend.get_texts())


def test_long_names_are_broken_into_lines() -> None:
    name = "outputs/a path with $x$ and so on/" + 100 * "x" + "/detector.safetensors"
    label = as_label(name)
    assert label.replace("\n", "").replace(r"\$", "$") == name
    assert max(len(line.replace(r"\$", "$")) for line in label.splitlines()) <= LONGEST


@pytest.mark.parametrize("name", ["dcgan", "wgan_gp", "real (seen)", "über"])
def test_ordinary_names_are_unchanged(name: str) -> None:
    assert as_label(name) == name
