"""Means over seeds and paired differences, against SciPy, scikit-learn and cases worked by hand."""

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_rel
from sklearn.metrics import roc_auc_score

from forensics.evaluation.comparison import Pair, difference, over_seeds
from forensics.evaluation.metrics import ranking, wilson


def pair(seeds: int = 3, reals: int = 400, generated: int = 300, shift: float = 1.0) -> Pair:
    """Logits of detectors that agree on which images are hard."""
    draws = np.random.default_rng(0)
    hard = draws.normal(0, 1, reals), draws.normal(0, 1, generated)
    return Pair(
        shift + hard[0] + draws.normal(0, 0.5, (seeds, reals)),
        -shift + hard[1] + draws.normal(0, 0.5, (seeds, generated)),
        np.zeros(seeds),
    )


class TestOverSeeds:
    def test_a_case_worked_by_hand(self) -> None:
        # Seed 0 calls 3 of 4 reals and 1 of 2 generated rightly, seed 1 all and none.
        scores = Pair(
            np.array([[1.0, 1, 1, -1], [1, 1, 1, 1]]),
            np.array([[-1.0, 1], [3, 3]]),
            np.array([0.0, 0.5]),
        )
        assert over_seeds(scores, "tpr", 0)["by_seed"] == [0.75, 1.0]
        assert over_seeds(scores, "tnr", 0)["by_seed"] == [0.5, 0.0]
        acc = over_seeds(scores, "acc", 0)
        assert acc["by_seed"] == pytest.approx([4 / 6, 4 / 6])
        assert acc["mean"] == pytest.approx(4 / 6)
        assert acc["std"] == pytest.approx(0)
        # Of seed 0: the generated at -1 is below all but one real, with which it ties.
        assert over_seeds(scores, "auroc", 0)["by_seed"] == pytest.approx(
            [(3 * 1 + 0.5 + 3 * 0.5 + 0) / 8, 0.0]
        )

    def test_each_image_counts_against_its_own_seeds_threshold(self) -> None:
        scores = pair()._replace(thresholds=np.array([-9.0, 0.0, 9.0]))
        assert over_seeds(scores, "tpr", 0)["by_seed"][::2] == [1.0, 0.0]

    def test_auroc_is_scikit_learns(self) -> None:
        scores = pair()
        labels = np.repeat([1, 0], [400, 300])
        for real, generated, ours in zip(
            scores.real, scores.generated, over_seeds(scores, "auroc", 0)["by_seed"], strict=True
        ):
            assert ours == pytest.approx(roc_auc_score(labels, np.r_[real, generated]))

    def test_the_interval_of_a_proportion_is_scipys_bootstrap(self) -> None:
        scores = pair()
        ours = over_seeds(scores, "tpr", 0)
        by_image = (scores.real >= 0).mean(0)
        theirs = bootstrap(
            (by_image,), np.mean, n_resamples=9999, method="percentile", rng=1
        ).confidence_interval
        assert ours["low"] == pytest.approx(theirs.low, abs=0.003)
        assert ours["high"] == pytest.approx(theirs.high, abs=0.003)

    def test_images_are_resampled_within_their_class(self) -> None:
        # All reals right, all generated wrong: Newcombe's interval, not that of 30 in 40 images.
        scores = Pair(np.ones((2, 30)), np.ones((2, 10)), np.zeros(2))
        acc = over_seeds(scores, "acc", 0)
        below = 0.75 * (1 - wilson(30, 30)[0])
        above = 0.25 * wilson(0, 10)[1]
        assert acc["mean"] == pytest.approx(0.75)
        assert (acc["low"], acc["high"]) == pytest.approx((0.75 - below, 0.75 + above))

    def test_one_seed_of_auroc_has_the_interval_a_bootstrap_over_images_has(self) -> None:
        scores = pair(seeds=1)
        ours = over_seeds(scores, "auroc", 0)
        theirs = ranking(scores.real[0], scores.generated[0], 0, 4000)["auroc_interval"]
        assert [ours["low"], ours["high"]] == pytest.approx(theirs, abs=0.004)

    def test_intervals_hold_the_truth_as_often_as_they_say(self) -> None:
        truth, inside = 0.9, 0
        draws = np.random.default_rng(1)
        for _ in range(200):
            right = np.where(draws.random(150) < truth, 1.0, -1.0)
            found = over_seeds(Pair(right[None], right[None], np.zeros(1)), "tpr", 0)
            inside += found["low"] <= truth <= found["high"]
        assert 180 <= inside <= 198

    @pytest.mark.parametrize("metric", ["acc", "tpr", "tnr", "auroc"])
    def test_perfect_detectors_are_not_taken_for_certain(self, metric: str) -> None:
        scores = Pair(np.full((3, 50), 5.0), np.full((3, 40), -5.0), np.zeros(3))
        found = over_seeds(scores, metric, 0)
        assert found["mean"] == found["high"] == 1
        assert 0.85 < found["low"] < 0.98

    def test_one_seed_has_no_spread(self) -> None:
        assert over_seeds(pair(seeds=1), "acc", 0)["std"] is None

    def test_work_does_not_grow_with_the_images(self) -> None:
        found = over_seeds(pair(seeds=5, reals=20_000, generated=20_000), "acc", 0)
        assert found["low"] < found["mean"] < found["high"]


class TestDifference:
    def test_a_case_worked_by_hand(self) -> None:
        before = Pair(np.array([[1.0, -1, -1, -1]] * 2), np.array([[-1.0]] * 2), np.zeros(2))
        after = before._replace(real=np.array([[1.0, 1, -1, -1], [1, 1, 1, -1]]))
        found = difference(before, after, "tpr", 0)
        # Seed 0 finds a quarter more, seed 1 half; two values, one degree of freedom.
        assert found["difference"] == pytest.approx(0.375)
        half = 12.706204736 * np.std([0.25, 0.5], ddof=1) / np.sqrt(2)
        assert found["seeds_low"] == pytest.approx(0.375 - half)
        assert found["seeds_high"] == pytest.approx(0.375 + half)
        assert found["p"] == pytest.approx(ttest_rel([0.5, 0.75], [0.25, 0.25]).pvalue)

    @pytest.mark.parametrize("metric", ["acc", "auroc"])
    def test_pairing_makes_the_interval_narrow(self, metric: str) -> None:
        before = pair()
        after = before._replace(real=before.real + 0.1)
        paired = difference(before, after, metric, 0)
        alone = over_seeds(before, metric, 0)
        assert paired["difference"] > 0
        assert paired["high"] - paired["low"] < (alone["high"] - alone["low"]) / 3

    def test_a_paired_interval_is_scipys_bootstrap_of_the_differences(self) -> None:
        before = pair()
        after = before._replace(real=before.real + 0.4)
        found = difference(before, after, "tpr", 0)
        changes = (after.real >= 0).mean(0) - (before.real >= 0).mean(0)
        theirs = bootstrap(
            (changes,), np.mean, n_resamples=9999, method="percentile", rng=1
        ).confidence_interval
        assert [found["low"], found["high"]] == pytest.approx(list(theirs), abs=0.003)

    def test_what_seeds_cannot_tell_has_a_reason(self) -> None:
        one = pair(seeds=1)
        assert "one seed" in difference(one, one, "acc", 0)["p_reason"]
        three = pair()
        same = difference(three, three, "acc", 0)
        assert "the same for every seed" in same["p_reason"]
        assert same["p"] is same["seeds_low"] is None
        assert same["low"] == same["high"] == 0
