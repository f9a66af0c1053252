"""A study's tables, on scores small enough to count by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from forensics.evaluation.seeds import holm
from forensics.reports import comparison
from forensics.reports.run import Run
from forensics.reports.study import Study
from forensics.reports.variants import Variant

NONE = Variant((("preprocess", "none"),), "none", "M")
BLUR = Variant((("preprocess", "blur"),), "blur", "M_GB")
REALS = 10

Key = tuple[tuple[str, ...], Variant]


def run(
    train_on: tuple[str, ...],
    seed: int | str,
    right: dict[str, int],
    *,
    thresholds: tuple[str, ...] = ("0.5", "source_0.05"),
    perturbed: dict[tuple[str, float], dict[str, int]] | None = None,
) -> Run:
    """A detector that is right on so many of 10 images of each source, at 0.5.

    At the other threshold, which is lower, every image is called real.
    """
    result: dict[str, Any] = {
        "thresholds": {"0.5": 0.0, "source_0.05": -9.0},
        "pairs": [
            {"real": "real", "generator": name, "seen": name in train_on}
            for name in right
            if name != "real"
        ],
        "toy": False,
    }
    result["thresholds"] = {name: result["thresholds"][name] for name in thresholds}
    settings = {"seed": None if seed == "unknown" else seed, "dataset.train_on": train_on}
    made = Run(f"{seed}", Path(), result, settings, Path(), Path())

    def logits(of: dict[str, int]) -> dict[str, Any]:
        return {
            name: (1.0 if name == "real" else -1.0) * np.repeat([1.0, -1.0], [n, REALS - n])
            for name, n in of.items()
        }

    made.__dict__["logits"] = logits(right)
    made.__dict__["perturbed"] = {key: logits(of) for key, of in (perturbed or {}).items()}
    return made


def study(groups: dict[Key, list[Run]]) -> Study:
    return Study([one for runs in groups.values() for one in runs], groups, [], [])


def small_study() -> Study:
    """Trained on pggan alone and with dcgan; tested on both; three seeds of one, two of another."""
    return study(
        {
            (("pggan",), NONE): [
                run(("pggan",), seed, {"real": 9, "pggan": 8, "dcgan": wrong})
                for seed, wrong in enumerate((2, 3, 4))
            ],
            (("pggan",), BLUR): [
                run(("pggan",), seed, {"real": 8, "pggan": 8, "dcgan": 6}) for seed in (0, 2)
            ],
            (("pggan", "dcgan"), NONE): [
                run(("pggan", "dcgan"), 0, {"real": 9, "pggan": 9, "dcgan": 9})
            ],
        }
    )


@pytest.fixture
def small() -> Study:
    return small_study()


def one(rows: comparison.Rows, **wanted: object) -> dict[str, Any]:
    """The only row with such values."""
    (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


class TestCells:
    def test_a_cell_worked_by_hand(self, small: Study) -> None:
        row = one(
            comparison.cells(small), train_on="pggan", variant="none", generator="dcgan",
            metric="acc", threshold="0.5",
        )  # fmt: skip
        assert row["mean"] == pytest.approx((11 + 12 + 13) / 60)
        assert row["by_seed"] == [11 / 20, 12 / 20, 13 / 20]
        assert row["std"] == pytest.approx(1 / 20)
        assert (row["seeds"], row["n_real"], row["n_generated"]) == (3, 10, 10)
        assert (row["real"], row["seen"], row["missing_seeds"]) == ("real", False, "")
        assert row["low"] < row["mean"] < row["high"]

    def test_every_cell_is_there_once(self, small: Study) -> None:
        rows = comparison.cells(small)
        keys = [(r["train_on"], r["variant"], r["generator"], r["metric"], r["threshold"])
                for r in rows]  # fmt: skip
        # Three groups, two generators: three metrics at two thresholds, and one AUROC.
        assert len(keys) == len(set(keys)) == 3 * 2 * 7
        assert {key[4] for key in keys if key[3] == "auroc"} == {None}
        lower = one(
            rows, train_on="pggan", variant="none", generator="pggan", metric="tnr",
            threshold="source_0.05",
        )  # fmt: skip
        assert lower["mean"] == 0

    def test_what_was_trained_on_is_seen(self, small: Study) -> None:
        seen = {(row["train_on"], row["generator"]): row["seen"] for row in comparison.cells(small)}
        assert seen == {
            ("pggan", "pggan"): True,
            ("pggan", "dcgan"): False,
            ("pggan+dcgan", "pggan"): True,
            ("pggan+dcgan", "dcgan"): True,
        }

    def test_seeds_that_others_have_are_missed(self, small: Study) -> None:
        missing = {(row["train_on"], row["variant"]): row["missing_seeds"]
                   for row in comparison.cells(small)}  # fmt: skip
        assert missing == {
            ("pggan", "none"): "",
            ("pggan", "blur"): "1",
            ("pggan+dcgan", "none"): "1 2",
        }

    def test_an_unknown_seed_misses_none(self) -> None:
        right = {"real": 9, "pggan": 8}
        groups: dict[Key, list[Run]] = {
            (("pggan",), NONE): [run(("pggan",), 0, right)],
            (("pggan",), BLUR): [run(("pggan",), "unknown", right)],
        }
        rows = comparison.cells(study(groups))
        assert {row["missing_seeds"] for row in rows} == {""}

    def test_the_papers_figures_are_of_its_training_at_its_threshold(self, small: Study) -> None:
        papers = {
            (row["train_on"], row["generator"], row["variant"], row["metric"]): row["paper"]
            for row in comparison.cells(small)
            if row["paper"] is not None
        }
        assert papers == {
            ("pggan", generator, variant, metric): pytest.approx(percent / 100)
            for generator, variant, metric, percent in [
                ("pggan", "none", "acc", 95.45), ("pggan", "none", "tpr", 95.12),
                ("pggan", "none", "tnr", 95.77), ("pggan", "blur", "acc", 94.28),
                ("pggan", "blur", "tpr", 93.08), ("pggan", "blur", "tnr", 95.47),
                ("dcgan", "none", "acc", 60.55), ("dcgan", "none", "tpr", 95.12),
                ("dcgan", "none", "tnr", 25.98), ("dcgan", "blur", "acc", 64.05),
                ("dcgan", "blur", "tpr", 93.08), ("dcgan", "blur", "tnr", 35.02),
            ]
        }  # fmt: skip
        assert all(row["paper"] is None for row in comparison.cells(small)
                   if row["threshold"] != "0.5")  # fmt: skip

    def test_toy_figures_never_stand_beside_the_papers(self, small: Study) -> None:
        small.runs[0].result["toy"] = True  # type: ignore[index]
        assert not any(row["paper"] for row in comparison.cells(small))

    def test_what_was_seen_in_earlier_training_is_seen(self, small: Study) -> None:
        for made in small.of(("pggan",), BLUR):
            made.result["pairs"][1]["seen"] = True
        rows = [row for row in comparison.cells(small) if row["train_on"] == "pggan"]
        seen = {(row["variant"], row["generator"]): row["seen"] for row in rows}
        assert seen == {("none", "pggan"): True, ("none", "dcgan"): False,
                        ("blur", "pggan"): True, ("blur", "dcgan"): True}  # fmt: skip

    def test_a_threshold_that_no_run_of_a_cell_has_gives_no_row(self) -> None:
        right = {"real": 9, "pggan": 8}
        groups: dict[Key, list[Run]] = {
            (("pggan",), NONE): [run(("pggan",), 0, right)],
            (("pggan",), BLUR): [run(("pggan",), 0, right, thresholds=("source_0.05",))],
        }
        rows = comparison.cells(study(groups))
        assert {(row["variant"], row["threshold"]) for row in rows} == {
            ("none", "0.5"), ("none", "source_0.05"), ("blur", "source_0.05"), ("none", None),
            ("blur", None),
        }  # fmt: skip


class TestDifferences:
    def test_only_common_seeds_are_compared_with_the_first_variant(self, small: Study) -> None:
        rows = comparison.differences(small)
        assert {(row["train_on"], row["variant"], row["minus"]) for row in rows} == {
            ("pggan", "blur", "none")
        }
        row = one(rows, generator="dcgan", metric="tnr")
        # Seed 0 finds 4 of 10 more, seed 2 finds 2.
        assert row["difference"] == pytest.approx(0.3)
        assert row["by_seed"] == pytest.approx([0.4, 0.2])
        assert (row["seeds"], row["p"], row["p_holm"]) == (2, None, None)

    def test_p_is_corrected_within_each_metric(self) -> None:
        draws = np.random.default_rng(0).integers(3, 8, (2, 5, 3))
        groups: dict[Key, list[Run]] = {
            (("pggan",), variant): [
                run(("pggan",), seed, dict(zip(("real", "pggan", "dcgan"), row, strict=True)))
                for seed, row in enumerate(of_variant.tolist())
            ]
            for variant, of_variant in zip((NONE, BLUR), draws, strict=True)
        }
        rows = comparison.differences(study(groups))
        for metric, column in (("tnr", (1, 2)), ("tpr", (0, 0))):
            of = [one(rows, metric=metric, generator=name) for name in ("pggan", "dcgan")]
            expected = [stats.ttest_rel(draws[1, :, c], draws[0, :, c]).pvalue for c in column]
            assert [row["p"] for row in of] == pytest.approx(expected)
            assert [row["p_holm"] for row in of] == pytest.approx(holm(expected))

    def test_one_variant_has_none(self, small: Study) -> None:
        groups = {key: runs for key, runs in small.groups.items() if key[1] == NONE}
        assert comparison.differences(study(groups)) == []


class TestGrid:
    def test_unseen_generators_have_a_mean_and_a_worst(self) -> None:
        right = {"real": 10, "a": 9, "b": 4, "c": 2}
        groups: dict[Key, list[Run]] = {
            (("a",), NONE): [run(("a",), 0, right), run(("a",), 1, right)],
            (("a", "b"), NONE): [run(("a", "b"), 0, right)],
            (("a", "b", "c"), NONE): [run(("a", "b", "c"), 0, right)],
        }
        rows = comparison.cells(study(groups))
        alone, two, every = comparison.grid(rows, "acc", "0.5")
        assert (alone["a"], alone["b"], alone["c"]) == pytest.approx((0.95, 0.7, 0.6))
        assert alone["mean_unseen"] == pytest.approx(0.65)
        assert (alone["worst_unseen"], alone["worst_generator"]) == (pytest.approx(0.6), "c")
        assert (alone["left_out"], alone["seeds"], alone["variant"]) == (None, 2, "none")
        assert two["left_out"] == two["worst_unseen"] == two["mean_unseen"] == pytest.approx(0.6)
        assert every["mean_unseen"] is every["worst_unseen"] is every["left_out"] is None
        lower = comparison.grid(rows, "acc", "source_0.05")
        assert [line["c"] for line in lower] == [0.5] * 3
        (first, *_) = comparison.grid(rows, "auroc", "0.5")
        assert first["b"] == pytest.approx(0.7)  # all reals above 4 of 10, tied with 6
        assert (first["metric"], first["real"]) == ("auroc", "real")


class TestPerturbed:
    def test_each_strength_follows_the_test_without(self) -> None:
        under = {("noise", 2.0): {"real": 5, "a": 9}, ("jpeg", 90.0): {"real": 9, "a": 1},
                 ("noise", 8.0): {"real": 1, "a": 9}}  # fmt: skip
        less = {key: of for key, of in under.items() if key[0] == "noise"}
        whole = run(("a",), 0, {"real": 9, "a": 9}, perturbed=under)
        part = run(("a",), 1, {"real": 9, "a": 9}, perturbed=less)
        untested = run(("a",), 2, {"real": 9, "a": 9})
        rows = comparison.perturbed(study({(("a",), NONE): [whole, part, untested]}))
        accuracies = [
            (row["perturbation"], row["strength"], row["mean"], row["seeds"])
            for row in rows
            if row["metric"] == "acc"
        ]
        # Only what all runs with any have been tested under.
        assert accuracies == [
            ("noise", None, pytest.approx(0.9), 2),
            ("noise", 2.0, pytest.approx(0.7), 2),
            ("noise", 8.0, pytest.approx(0.5), 2),
        ]
        assert {row["metric"] for row in rows} == {"acc", "auroc"}
        assert len(rows) == 6

    def test_without_any_there_are_no_rows(self, small: Study) -> None:
        assert comparison.perturbed(small) == []


def test_csv_has_all_columns_and_six_digits() -> None:
    rows: comparison.Rows = [{"a": 1 / 3, "b": None}, {"a": 2, "c": "x,y", "b": [0.5, 1 / 3]}]
    text = comparison.as_csv(rows)
    assert text.startswith("a,b,c\n")
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"a": "0.333333", "b": "", "c": ""},
        {"a": "2", "b": "0.5 0.333333", "c": "x,y"},
    ]


def test_the_papers_accuracies_are_the_means_of_their_classes() -> None:
    for generator, variants in comparison.PAPER.items():
        for variant, of in variants.items():
            # As many real images as generated ones, and rates of one detector on real images.
            assert of["acc"] == pytest.approx((of["tpr"] + of["tnr"]) / 2, abs=0.0051), generator
            assert of["tpr"] == comparison.PAPER["pggan"][variant]["tpr"]
