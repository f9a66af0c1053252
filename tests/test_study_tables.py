"""A study's formatted tables, of scores small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from test_comparison import NONE, one, small_study, study

from forensics.evaluation.seeds import spread
from forensics.reports import comparison, study_tables
from forensics.reports.study import Study


@pytest.fixture
def small() -> Study:
    return small_study()


def test_as_a_table_seen_ones_have_a_star(small: Study) -> None:
    rows = comparison.grid(comparison.cells(small), "acc", "0.5")
    header, lines = study_tables.grid_table(rows)
    assert header == ["variant", "trained on", "seeds", "pggan", "dcgan", "mean unseen",
                      "worst unseen", "left out"]  # fmt: skip
    assert lines == [
        ["none", "pggan", "3", "85.0 *", "60.0", "60.0", "60.0 (dcgan)", "60.0"],
        ["blur", "pggan", "2", "80.0 *", "70.0", "70.0", "70.0 (dcgan)", "70.0"],
        ["none", "pggan+dcgan", "1", "90.0 *", "90.0 *", "-", "-", "-"],
    ]


def test_no_column_for_test_sets_that_no_training_set_leaves_out(small: Study) -> None:
    every = comparison.grid(comparison.cells(small), "acc", "0.5")
    (both,) = [row for row in every if row["train_on"] == "pggan+dcgan"]
    header, lines = study_tables.grid_table([both])
    assert header[-1] == "worst unseen"
    assert lines == [["none", "pggan+dcgan", "1", "90.0 *", "90.0 *", "-", "-"]]


@pytest.mark.parametrize(
    ("by_seed", "text"),
    [
        ([0.5], ""),
        ([0.55, 0.45], "\nseeds 55.0, 45.0"),
        ([0.5, 0.46, 0.5, 0.54], "\nseeds 50.0, 46.0, 50.0, 54.0"),
        ([0.5, 0.5, 0.45, 0.5, 0.55], " ± 3.5"),
    ],
)
def test_few_seeds_show_themselves_and_more_their_spread(by_seed: list[float], text: str) -> None:
    row = {"mean": 0.5, "low": 0.4, "high": 0.6, "std": spread(np.array(by_seed)),
           "by_seed": by_seed}  # fmt: skip
    assert study_tables.with_interval(row) == f"50.0 [40.0, 60.0]{text}"


def test_table_1_has_a_line_for_each_pair_and_variant(small: Study) -> None:
    rows = comparison.cells(small)
    header, lines = study_tables.table_1(small, rows, "pggan", "0.5")
    assert header == ["test pair", "variant", "ACC", "TPR", "TNR", "AUROC", "paper's ACC",
                      "paper's TPR", "paper's TNR", "images", "seeds"]  # fmt: skip
    assert [line[:2] + line[-2:] for line in lines] == [
        ["real + pggan (seen)", "M (none)", "10+10", "3"],
        ["real + pggan (seen)", "M_GB (blur)", "10+10", "2 (without seed 1)"],
        ["real + dcgan (unseen)", "M (none)", "10+10", "3"],
        ["real + dcgan (unseen)", "M_GB (blur)", "10+10", "2 (without seed 1)"],
    ]
    assert lines[2][2].startswith("60.0 [")
    assert lines[2][2].endswith("seeds 55.0, 60.0, 65.0")
    assert lines[2][6:9] == ["60.5", "95.1", "26.0"]  # 60.55 is a little less in binary
    header, lines = study_tables.table_1(small, rows, "pggan+dcgan", "0.5")
    assert header[-3:] == ["AUROC", "images", "seeds"]
    assert [line[0] for line in lines] == ["real + pggan (seen)", "real + dcgan (seen)"]


def test_a_single_variant_has_no_column(small: Study) -> None:
    groups = {key: runs for key, runs in small.groups.items() if key[1] == NONE}
    alone = study(groups)
    header, (line, _) = study_tables.table_1(alone, comparison.cells(alone), "pggan", "0.5")
    assert header[:2] == ["test pair", "ACC"]
    assert (line[0], *line[-2:]) == ("real + pggan (seen)", "10+10", "3")


def test_differences_are_in_points(small: Study) -> None:
    rows = comparison.differences(small)
    header, lines = study_tables.difference_table(small, rows, "pggan")
    assert header == ["test pair", "variant", "ACC", "TPR", "TNR", "AUROC", "seeds"]
    (line,) = [one for one in lines if "dcgan" in one[0]]
    assert (*line[:2], line[-1]) == ("real + dcgan (unseen)", "M_GB (blur)", "2")
    assert line[4].startswith("+30.0 [")
    assert line[4].endswith("]\nseeds +40.0, +20.0")


def test_p_comes_with_students_interval(small: Study) -> None:
    row = one(comparison.differences(small), generator="dcgan", metric="tnr")
    known = row | {"p": 0.012, "p_holm": 0.05, "seeds_low": -0.01, "seeds_high": 0.61}
    _, (line,) = study_tables.difference_table(small, [known], "pggan")
    assert line[2].endswith("]\nseeds [-1.0, +61.0]\np 0.012, Holm's 0.050")


def test_markdown_keeps_bars_and_lines_within_their_cell() -> None:
    text = study_tables.as_markdown((["a", "b|c"], [["1", "2\n3"]]))
    assert text.splitlines() == ["| a | b\\|c |", "|---|---|", "| 1 | 2, 3 |"]


@pytest.mark.parametrize(
    ("name", "written"),
    [("wgan_gp *", "wgan_gp *"), ("[0.1, 0.2]", "[0.1, 0.2]"), ("~/faces", "~/faces"),
     ("_a_ *b* `c`", r"\_a_ \*b* \`c\`"), ("~~a~~", r"\~~a\~~"), ("[a](b)", r"[a\](b)"),
     ("<a>&", "&lt;a&gt;&amp;"), ("a\\|b", r"a\\\|b")],
)  # fmt: skip
def test_names_are_no_markup(name: str, written: str) -> None:
    assert study_tables.in_markdown(name) == written
