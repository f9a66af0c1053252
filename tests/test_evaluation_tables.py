"""The table of an evaluation: its mean and worst, its width, and names in Markdown and LaTeX."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from forensics.reports.evaluation import as_tex, evaluation_table, rows, write_tables
from forensics.reports.tables import WIDTH

THRESHOLDS = {"0.5": 0.0, "source_0.05": 1.0, "source_0.01": 2.0}


def pair(generator: str, real: str, *rates: tuple[float, float], auroc: float) -> dict[str, Any]:
    """A pair with TPR and TNR at each threshold."""
    return {
        "generator": generator, "real": real, "seen": generator == "seen",
        "n_real": 4000, "n_generated": 4000, "ranking": {"auroc": auroc, "ap_generated": auroc},
    } | {
        f"at_{name}": {"tpr": tpr, "tnr": tnr}
        for name, (tpr, tnr) in zip((*THRESHOLDS, "oracle"), rates, strict=True)
    }  # fmt: skip


def result(*pairs: dict[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    is_real = {p[key]: key == "real" for p in pairs for key in ("real", "generator")}
    sources = [
        {"source": name, "real": real, "n": 10}
        | {f"{'tpr' if real else 'tnr'}_at_{threshold}": 0.75 for threshold in THRESHOLDS}
        for name, real in is_real.items()
    ]
    return {
        "detector": "outputs/x", "calibration": {"thresholds": THRESHOLDS}, "pairs": list(pairs),
        "sources": sources, "perturbed": [], "left_out": {},
    } | changes  # fmt: skip


RATES = [(0.9, 0.7), (0.95, 0.5), (0.99, 0.2), (0.9, 0.9)]
WORSE = [(0.9, 0.1), (0.95, 0.7), (0.99, 0.0), (0.9, 0.8)]


def test_mean_and_worst_are_of_each_column() -> None:
    found = rows(result(pair("seen", "r", *RATES, auroc=0.9), pair("b", "s", *WORSE, auroc=0.7)))
    assert [row["generator"] for row in found] == ["seen", "b", "mean", "worst"]
    first, second, mean, worst = found
    assert first["balanced_accuracy_at_0.5"] == pytest.approx(0.8)
    assert second["balanced_accuracy_at_source_0.05"] == pytest.approx(0.825)
    assert mean["balanced_accuracy_at_0.5"] == pytest.approx(0.65)
    assert worst["balanced_accuracy_at_0.5"] == pytest.approx(0.5)
    assert worst["balanced_accuracy_at_source_0.05"] == pytest.approx(0.725)
    assert worst["balanced_accuracy_at_oracle"] == pytest.approx(0.85)
    assert (mean["auroc"], worst["auroc"]) == (pytest.approx(0.8), 0.7)
    assert rows(result()) == []


def test_a_terminals_width_is_kept_and_the_oracle_named() -> None:
    name = "a_generator_with_a_very_long_name_that_nobody_would_type"
    table = evaluation_table(
        [result(pair("seen", "r", *RATES, auroc=0.9), pair(name, name[2:], *WORSE, auroc=0.7))]
    )
    assert max(map(len, table.splitlines())) <= WIDTH
    assert "oracle: the best threshold" in table
    assert "seen *" in table
    assert "80.0" in table
    assert name in table


def test_a_generator_with_several_real_sources_names_them() -> None:
    table = evaluation_table(
        [result(pair("b", "r", *RATES, auroc=0.9), pair("b", "s", *WORSE, auroc=0.7))]
    )
    assert "b / r" in table
    assert "b / s" in table


def test_images_left_out_are_counted() -> None:
    left_out = {"r": {}, "tiny": {"each side must have at least 128": 3}}
    table = evaluation_table([result(pair("b", "r", *RATES, auroc=0.9), left_out=left_out)])
    assert "left out of tiny: 3: each side" in table
    assert "left out of r:" not in table


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "=a|b_c\\d\n<e>%{$&#~^"
    write_tables([result(pair(name, "r", *RATES, auroc=0.9))], tmp_path)
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["generator"] == f"'{name}"  # no formula in a spreadsheet
    line = (tmp_path / "evaluation.md").read_text().splitlines()[2]
    assert r"| =a\|b_c\\d, &lt;e&gt;%{$&amp;#~^ |" in line
    tex = (tmp_path / "evaluation.tex").read_text()
    escaped = r"=a\textbar{}b\_c\textbackslash{}d \textless{}e\textgreater{}\%\{\$\&\#"
    assert escaped in tex
    assert "\n& " not in tex
    (header,) = [line for line in tex.splitlines() if line.startswith("detector")]
    assert header.count("&") == tex.split("{tabular}{")[1].split("}")[0].count("r") + 2
    assert not list(tmp_path.glob(".*"))


def test_every_special_character_of_latex_is_escaped() -> None:
    table = as_tex((["a", "b", "c", "d"], [["\\{}$&#^_~%", "", "", "1"]]))
    line = table.splitlines()[4]
    bare = line.removesuffix(r" &  &  & 1 \\")
    for command in (r"\textbackslash{}", r"\textasciicircum{}", r"\textasciitilde{}"):
        assert command in bare
        bare = bare.replace(command, "")
    assert bare.replace("\\{", "").replace("\\}", "") == r"\$\&\#\_\%"
