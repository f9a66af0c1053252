"""The finding of a study, on scores small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from test_comparison import BLUR, NONE, Key, one, run, study

from forensics.evaluation.intervals import weighted_shares, wilson
from forensics.evaluation.metrics import at_threshold
from forensics.evaluation.summary import summarise
from forensics.reports import findings
from forensics.reports.run import Run
from forensics.reports.study import Study


@pytest.fixture
def small() -> Study:
    """Two seeds, of which the second finds more of c; at the lower threshold as at 0.5."""
    groups: dict[Key, list[Run]] = {
        (("a",), NONE): [
            run(("a",), seed, {"real": 9, "a": 8, "b": 6, "c": right})
            for seed, right in enumerate((2, 4))
        ],
        (("a",), BLUR): [run(("a",), 0, {"real": 9, "a": 9, "b": 9, "c": 9})],
    }
    made = study(groups)
    for of in made.runs:
        of.result["thresholds"]["source_0.05"] = 0.0
    return made


class TestFindings:
    def test_a_case_worked_by_hand(self, small: Study) -> None:
        rows = findings.findings(small)
        assert len(rows) == 2 * 3
        seen = one(rows, variant="none", role="seen")
        assert seen["by_seed"] == pytest.approx([0.85, 0.85])
        mean = one(rows, variant="none", role="unseen", statistic="mean")
        assert mean["by_seed"] == pytest.approx([(0.75 + 0.55) / 2, (0.75 + 0.65) / 2])
        assert mean["by_pair"] == pytest.approx([0.75, 0.6])
        worst = one(rows, variant="none", role="unseen", statistic="worst")
        assert (worst["generator"], worst["real"]) == ("c", "real")
        assert worst["mean"] == pytest.approx(0.6)
        assert worst["low"] < worst["mean"] < worst["high"]
        assert {row["threshold"] for row in rows} == {"source_0.05"}

    def test_it_is_the_summary_of_a_run(self, small: Study) -> None:
        rows = findings.findings(small)
        for of in small.of(("a",), BLUR):
            pairs = [
                pair
                | {"at_x": at_threshold(of.logits["real"], of.logits[pair["generator"]], 0.0)}
                | {"ranking": {"auroc": 0.5}}
                for pair in of.result["pairs"]
            ]
            summary = summarise(pairs, ["x"])
            for role, statistic in findings.COLUMNS:
                row = one(rows, variant="blur", role=role, statistic=statistic)
                assert row["mean"] == pytest.approx(summary[role]["at_x"][statistic])

    def test_real_images_of_several_pairs_are_one_proportion(self, small: Study) -> None:
        row = one(findings.findings(small), variant="blur", role="unseen", statistic="mean")
        # Half of the variance is of the ten real images, a quarter of each ten generated ones.
        low, _ = wilson(9, 10)
        below = (0.9 - low) * np.sqrt(0.5**2 + 0.25**2 + 0.25**2)
        assert row["low"] == pytest.approx(0.9 - below)

    def test_the_interval_covers_the_mean_over_generators(self) -> None:
        rng = np.random.default_rng(0)
        truth, inside = np.array([0.9, 0.6, 0.3]), 0
        weights = np.array([0.5, 0.25, 0.25])
        for _ in range(300):
            right = rng.binomial(50, truth)
            parts = [(w, int(k), 50) for w, k in zip(weights, right, strict=True)]
            _, low, high = weighted_shares(parts)
            inside += low <= weights @ truth <= high
        assert 275 <= inside <= 297


class TestSentence:
    def test_it_covers_every_variant_and_counts_those_at_chance(self, small: Study) -> None:
        text = findings.sentence(findings.findings(small))
        assert "unseen generators balanced accuracy is 67.5 to 90.0 % on average" in text
        assert "60.0 to 90.0 % on the worst one (c, b)" in text
        assert "seen ones 85.0 to 90.0 %" in text
        assert "1 of 2 intervals includes chance" in text

    def test_without_unseen_generators_it_says_so(self) -> None:
        alone = study({(("a",), NONE): [run(("a",), 0, {"real": 9, "a": 9})]})
        assert "No unseen generator" in findings.sentence(findings.findings(alone))

    def test_the_table_has_a_line_for_each_variant(self, small: Study) -> None:
        header, lines = findings.table(small, findings.findings(small))
        assert header[0] == "detectors"
        assert [(line[0], line[-1]) for line in lines] == [("M (none)", "c"), ("M_GB (blur)", "b")]
        assert lines[0][2].startswith("67.5 [")
        assert lines[0][2].endswith("seeds 65.0, 70.0")
