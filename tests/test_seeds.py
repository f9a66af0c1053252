"""Means over seeds and paired differences, against SciPy, scikit-learn and cases worked by hand."""

import statistics

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from forensics.evaluation.intervals import wilson
from forensics.evaluation.metrics import at_threshold, ranking
from forensics.evaluation.seeds import PairScores, difference, holm, over_seeds


def pair(seeds: int = 3, reals: int = 400, generated: int = 300, shift: float = 1.0) -> PairScores:
    """Logits of detectors that agree on which images are hard."""
    draws = np.random.default_rng(0)
    hard = draws.normal(0, 1, reals), draws.normal(0, 1, generated)
    return PairScores(
        shift + hard[0] + draws.normal(0, 0.5, (seeds, reals)),
        -shift + hard[1] + draws.normal(0, 0.5, (seeds, generated)),
        np.zeros(seeds),
    )


class TestOverSeeds:
    def test_a_case_worked_by_hand(self) -> None:
        # Seed 0 calls 3 of 4 reals and 1 of 2 generated rightly, seed 1 all and none.
        scores = PairScores(
            np.array([[1.0, 1, 1, -1], [1, 1, 1, 1]]),
            np.array([[-1.0, 1], [3, 3]]),
            np.array([0.0, 0.5]),
        )
        assert over_seeds(scores, "tpr")["by_seed"] == [0.75, 1.0]
        assert over_seeds(scores, "tpr")["std"] is None
        assert over_seeds(scores, "tnr")["by_seed"] == [0.5, 0.0]
        acc = over_seeds(scores, "acc")
        assert acc["by_seed"] == pytest.approx([4 / 6, 4 / 6])
        assert acc["mean"] == pytest.approx(4 / 6)
        # Of seed 0: the generated at -1 is below all but one real, with which it ties.
        assert over_seeds(scores, "auroc")["by_seed"] == pytest.approx(
            [(3 * 1 + 0.5 + 3 * 0.5 + 0) / 8, 0.0]
        )

    def test_each_image_counts_against_its_own_seeds_threshold(self) -> None:
        scores = pair()._replace(thresholds=np.array([-9.0, 0.0, 9.0]))
        assert over_seeds(scores, "tpr")["by_seed"][::2] == [1.0, 0.0]

    def test_auroc_is_scikit_learns(self) -> None:
        scores = pair()
        labels = np.repeat([1, 0], [400, 300])
        for real, generated, ours in zip(
            scores.real, scores.generated, over_seeds(scores, "auroc")["by_seed"], strict=True
        ):
            assert ours == pytest.approx(roc_auc_score(labels, np.r_[real, generated]))

    @pytest.mark.parametrize("metric", ["acc", "tpr", "tnr", "auroc"])
    def test_one_seed_has_the_value_and_interval_of_its_result(self, metric: str) -> None:
        scores = pair(seeds=1)
        ours = over_seeds(scores, metric)
        result = ranking(scores.real[0], scores.generated[0], 0, 2) | at_threshold(
            scores.real[0], scores.generated[0], 0
        )
        assert ours["mean"] == pytest.approx(result[metric])
        assert [ours["low"], ours["high"]] == pytest.approx(result[f"{metric}_interval"])

    def test_several_seeds_have_the_mean_of_their_intervals(self) -> None:
        # 30 of 40 and 20 of 40 reals are right.
        real = np.repeat([[1.0, -1.0], [1.0, -1.0]], 20, axis=1)
        real[0, 20:30] = 1
        found = over_seeds(PairScores(real, -np.ones((2, 7)), np.zeros(2)), "tpr")
        both = [stats.binomtest(k, 40).proportion_ci(method="wilson") for k in (30, 20)]
        assert found["low"] == pytest.approx((both[0].low + both[1].low) / 2)
        assert found["high"] == pytest.approx((both[0].high + both[1].high) / 2)

    @pytest.mark.slow
    @pytest.mark.parametrize("metric", ["acc", "tpr", "tnr", "auroc"])
    def test_is_at_least_as_wide_as_a_bootstrap_of_the_mean(self, metric: str) -> None:
        scores = pair()
        ours = over_seeds(scores, metric)
        draws = np.random.default_rng(1)
        means = []
        for _ in range(300):
            rows = (draws.integers(0, n, n) for n in (400, 300))
            real, generated = (of[:, row] for of, row in zip(scores[:2], rows, strict=True))
            means.append(over_seeds(PairScores(real, generated, scores.thresholds), metric)["mean"])
        low, high = np.percentile(means, [2.5, 97.5])
        assert low - 0.02 < ours["low"] < low + 0.003
        assert high - 0.003 < ours["high"] < high + 0.02

    def test_seeds_that_undo_each_other_keep_an_interval(self) -> None:
        # One seed calls all images real, the other all generated: a mean of 50 % at every image.
        logits = np.repeat([[1.0], [-1.0]], 40, axis=1)
        for metric in ("acc", "tpr", "tnr", "auroc"):
            found = over_seeds(PairScores(logits, logits, np.zeros(2)), metric)
            assert found["mean"] == 0.5
            assert found["low"] < 0.46
            assert found["high"] > 0.54

    def test_images_are_weighed_by_their_class(self) -> None:
        # All reals right, all generated wrong: Newcombe's interval, not that of 30 in 40 images.
        scores = PairScores(np.ones((2, 30)), np.ones((2, 10)), np.zeros(2))
        acc = over_seeds(scores, "acc")
        below = 0.75 * (1 - wilson(30, 30)[0])
        above = 0.25 * wilson(0, 10)[1]
        assert acc["mean"] == pytest.approx(0.75)
        assert (acc["low"], acc["high"]) == pytest.approx((0.75 - below, 0.75 + above))

    def test_intervals_hold_the_truth_as_often_as_they_say(self) -> None:
        truth, inside = 0.9, 0
        draws = np.random.default_rng(1)
        for _ in range(200):
            right = np.where(draws.random(150) < truth, 1.0, -1.0)
            found = over_seeds(PairScores(right[None], right[None], np.zeros(1)), "tpr")
            inside += found["low"] <= truth <= found["high"]
        assert 180 <= inside <= 198

    @pytest.mark.parametrize("metric", ["acc", "tpr", "tnr", "auroc"])
    def test_perfect_detectors_are_not_taken_for_certain(self, metric: str) -> None:
        scores = PairScores(np.full((3, 50), 5.0), np.full((3, 40), -5.0), np.zeros(3))
        found = over_seeds(scores, metric)
        assert found["mean"] == found["high"] == 1
        assert 0.85 < found["low"] < 0.98

    def test_the_spread_is_that_of_a_sample(self) -> None:
        found = over_seeds(pair(seeds=4), "acc")
        assert found["std"] == pytest.approx(statistics.stdev(found["by_seed"]))

    def test_one_seed_has_no_spread(self) -> None:
        assert over_seeds(pair(seeds=1), "acc")["std"] is None

    def test_work_does_not_grow_with_the_images(self) -> None:
        found = over_seeds(pair(seeds=5, reals=20_000, generated=20_000), "acc")
        assert found["low"] < found["mean"] < found["high"]


class TestDifference:
    def test_a_case_worked_by_hand(self) -> None:
        before = PairScores(np.array([[1.0, -1, -1, -1]] * 2), np.array([[-1.0]] * 2), np.zeros(2))
        after = before._replace(real=np.array([[1.0, 1, -1, -1], [1, 1, 1, -1]]))
        found = difference(before, after, "tpr")
        # Seed 0 finds a quarter more, seed 1 half.
        assert found["difference"] == pytest.approx(0.375)
        assert found["by_seed"] == [0.25, 0.5]
        # Two seeds tell too little of others.
        assert found["seeds_low"] is found["seeds_high"] is found["p"] is None
        assert found["p_reason"]

    def test_from_five_seeds_on_it_is_scipys_paired_t_test(self) -> None:
        draws = np.random.default_rng(3)
        before = pair(seeds=5)
        after = before._replace(real=before.real + draws.normal(0.2, 0.2, (5, 1)))
        found = difference(before, after, "tpr")
        values = [over_seeds(one, "tpr")["by_seed"] for one in (after, before)]
        test = stats.ttest_rel(*values)
        assert found["p"] == pytest.approx(test.pvalue)
        interval = test.confidence_interval(0.95)
        assert found["seeds_low"] == pytest.approx(interval.low)
        assert found["seeds_high"] == pytest.approx(interval.high)
        assert found["p_reason"] is None

    @pytest.mark.parametrize("sign", [1, -1])
    def test_students_interval_ends_at_the_largest_difference(self, sign: int) -> None:
        # Four seeds turn all ten reals, the fifth two of them.
        turned = np.where(np.arange(10) < np.array([[10], [10], [10], [10], [2]]), 1.0, -1.0)
        none, zeros = np.full((5, 1), -1.0), np.zeros(5)
        pairs = [PairScores(-np.ones((5, 10)), none, zeros), PairScores(turned, none, zeros)]
        first, second = pairs[::sign]
        found = difference(first, second, "tpr")
        ends = stats.ttest_1samp([1, 1, 1, 1, 0.2], 0).confidence_interval(0.95)
        assert ends.high > 1
        expected = (ends.low, 1.0) if sign == 1 else (-1.0, -ends.low)
        assert (found["seeds_low"], found["seeds_high"]) == pytest.approx(expected)

    def test_a_score_at_the_threshold_is_called_real(self) -> None:
        zeros = np.zeros((1, 4))
        at, below = (PairScores(zeros + of, zeros + of, np.zeros(1)) for of in (0.0, -1.0))
        assert difference(below, at, "tpr")["difference"] == 1
        assert difference(below, at, "tnr")["difference"] == -1

    def test_paired_proportions_worked_by_hand(self) -> None:
        # Of 30 images 6 become right and 1 wrong. Bonett and Price: (7 - 2) / 32 in the middle,
        # variance ((7 + 2) / 32 - (5 / 32)^2) / 32 = 0.008026.
        before = np.repeat([-1.0, 1.0, 1.0], [6, 1, 23])[None]
        after = np.repeat([1.0, -1.0, 1.0], [6, 1, 23])[None]
        none = np.array([[-1.0]])
        found = difference(
            PairScores(before, none, np.zeros(1)), PairScores(after, none, np.zeros(1)), "tpr"
        )
        assert found["difference"] == pytest.approx(5 / 30)
        assert found["low"] == pytest.approx(0.15625 - 1.96 * 0.008026**0.5, abs=1e-4)
        assert found["high"] == pytest.approx(0.15625 + 1.96 * 0.008026**0.5, abs=1e-4)

    @pytest.mark.parametrize("metric", ["acc", "auroc"])
    def test_pairing_makes_the_interval_narrow(self, metric: str) -> None:
        before = pair()
        after = before._replace(real=before.real + 0.1)
        paired = difference(before, after, metric)
        alone = over_seeds(before, metric)
        assert paired["difference"] > 0
        assert paired["high"] - paired["low"] < (alone["high"] - alone["low"]) / 3

    def test_a_paired_interval_is_scipys_bootstrap_of_the_differences(self) -> None:
        before = pair()
        after = before._replace(real=before.real + 0.4)
        found = difference(before, after, "tpr")
        changes = (after.real >= 0).mean(0) - (before.real >= 0).mean(0)
        theirs = stats.bootstrap(
            (changes,), np.mean, n_resamples=9999, method="percentile", rng=1
        ).confidence_interval
        assert [found["low"], found["high"]] == pytest.approx(list(theirs), abs=0.003)

    @pytest.mark.parametrize("metric", ["acc", "tpr", "tnr", "auroc"])
    def test_no_changed_image_is_not_taken_for_certain(self, metric: str) -> None:
        perfect = PairScores(np.full((5, 50), 5.0), np.full((5, 40), -5.0), np.zeros(5))
        same = difference(perfect, perfect, metric)
        assert same["difference"] == 0
        assert -0.12 < same["low"] < -0.02
        assert 0.02 < same["high"] < 0.12
        if metric == "auroc":  # as of the smaller class
            assert same["high"] == -same["low"] == pytest.approx(wilson(0, 40)[1])
        assert same["p"] is same["seeds_low"] is None
        assert "the same for every seed" in same["p_reason"]

    def test_images_that_change_alike_but_for_rounding_keep_an_interval(self) -> None:
        # Seeds move each of three reals by 1/3, -1/3 and 0 of the generated, each image in another
        # order, so that their means over seeds are equal but for rounding.
        generated = np.tile([0.0, 2.0, 4.0], (3, 1))
        before = PairScores(np.full((3, 3), 3.0), generated, np.zeros(3))
        after = before._replace(real=np.array([[5.0, 1, 3], [1, 3, 5], [3, 5, 1]]))
        found = difference(before, after, "auroc")
        assert found["difference"] == pytest.approx(0, abs=1e-12)
        assert found["low"] < -0.1
        assert found["high"] > 0.1

    def test_one_image_of_a_class_tells_little_of_a_difference(self) -> None:
        # The one real passes one of four generated. DeLong's variance is that of the placements'
        # changes (1, 0, 0, 0), 1/16 of the mean, and 1 for a class of one image.
        generated = np.array([[1.0, 3, 5, 7]])
        before, after = (PairScores(np.array([[at]]), generated, np.zeros(1)) for at in (0.0, 2.0))
        found = difference(before, after, "auroc")
        assert found["difference"] == pytest.approx(1 / 4)
        assert (found["low"], found["high"]) == (-1, 1)
        # 49 of 50: their variance is 0.02, of the mean 0.0004.
        generated = np.append(np.arange(49.0), 99)[None]
        before, after = (
            PairScores(np.array([[at]]), generated, np.zeros(1)) for at in (-1.0, 50.0)
        )
        found = difference(before, after, "auroc")
        assert found["low"] == pytest.approx(0.98 - 1.96 * 1.0004**0.5, abs=1e-4)

    @pytest.mark.parametrize(("reals", "generated"), [(100, 100), (70, 100), (33, 47)])
    def test_equal_differences_have_no_p_however_they_round(
        self, reals: int, generated: int
    ) -> None:
        draws = np.random.default_rng(0)
        zeros = np.zeros(5)
        for more in range(1, 30):
            right = draws.integers(0, reals - more, 5)

            def called(counts: NDArray[np.int64]) -> PairScores:
                real = np.where(np.arange(reals) < counts[:, None], 1.0, -1.0)
                return PairScores(real, -np.ones((5, generated)), zeros)

            found = difference(called(right), called(right + more), "acc")
            assert found["difference"] == pytest.approx(more / (reals + generated))
            assert found["p"] is None
            assert found["p_reason"]


class TestHolm:
    def test_a_case_worked_by_hand(self) -> None:
        # Ascending 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
        assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])

    def test_stays_below_one_and_keeps_a_single_one(self) -> None:
        assert holm([0.7, 0.6]) == [1, 1]
        assert holm([0.03]) == [0.03]
        assert holm([]) == []
