"""Metrics, intervals, thresholds and spectra, against scikit-learn, SciPy and cases by hand."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, special, stats
from scipy.optimize import brentq, minimize_scalar
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from forensics.evaluation import metrics
from forensics.evaluation.calibration import (
    FALSE_POSITIVE_RATES,
    TEMPERATURES,
    fit_temperature,
    source_threshold,
)
from forensics.evaluation.intervals import auroc_interval, placements, widened, wilson
from forensics.evaluation.metrics import (
    at_threshold,
    oracle_threshold,
    ranking,
    reliability,
)
from forensics.evaluation.results import against_chance
from forensics.images.spectra import mean_log_power, nearest, profiles, radial_profile

Floats = NDArray[np.float64]
RANKING = ("auroc", "ap_generated", "eer", "ece")


def _normal(n: int, mean: float, std: float = 2.0, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(mean, std, n)


CASES: dict[str, tuple[Floats, Floats]] = {
    "plain": (_normal(80, 1), _normal(70, -1, seed=1)),
    "ties": (_normal(80, 1).round(), _normal(70, -1, seed=1).round()),
    "perfect": (_normal(20, 20), _normal(30, -20, seed=1)),
    "reversed": (_normal(20, -20), _normal(30, 20, seed=1)),
    "equal": (np.full(7, 0.3), np.full(5, 0.3)),
    "huge": (np.array([1e4, 1e4, -1e4, 3.0, 9e3]), np.array([-1e4, 1e4, -9e3, 0.0])),
    "unbalanced": (_normal(3, 0), _normal(400, 0, seed=1)),
    "one each": (np.array([0.5]), np.array([-0.5])),
}
either_case = pytest.mark.parametrize(("real", "generated"), CASES.values(), ids=CASES)


def _joined(real: Floats, generated: Floats) -> tuple[Floats, NDArray[np.int64]]:
    labels = np.repeat([1, 0], [len(real), len(generated)])
    return np.concatenate([real, generated]), labels


def _oracle_eer(real: Floats, generated: Floats) -> float:
    """Where the ROC curve, drawn straight between its corners, has FPR = 1 - TPR."""
    logits, labels = _joined(real, generated)
    fpr, tpr, _ = oracle.roc_curve(labels, logits, drop_intermediate=False)
    corners = np.arange(len(fpr))
    root = brentq(
        lambda x: np.interp(x, corners, fpr) + np.interp(x, corners, tpr) - 1, 0, len(fpr) - 1
    )
    return float(np.interp(root, corners, fpr))


def _oracle_ece(real: Floats, generated: Floats) -> float:
    logits, labels = _joined(real, generated)
    probabilities = special.expit(logits)
    error = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 16)):
        inside = (probabilities >= low) & ((probabilities < high) | (high == 1))
        if inside.any():
            gap = abs(probabilities[inside].mean() - labels[inside].mean())
            error += float(inside.mean() * gap)
    return error


def _oracle(real: Floats, generated: Floats) -> dict[str, float]:
    logits, labels = _joined(real, generated)
    return {
        "auroc": float(oracle.roc_auc_score(labels, logits)),
        "ap_generated": float(oracle.average_precision_score(1 - labels, -logits)),
        "eer": _oracle_eer(real, generated),
        "ece": _oracle_ece(real, generated),
    }


class TestValues:
    @either_case
    @pytest.mark.parametrize("threshold", [0.0, 1.0, -3.0])
    def test_accuracy_tpr_and_tnr_are_scikit_learns(
        self, real: Floats, generated: Floats, threshold: float
    ) -> None:
        logits, labels = _joined(real, generated)
        called = (logits >= threshold).astype(int)
        result = at_threshold(real, generated, threshold)
        assert result["acc"] == pytest.approx(oracle.accuracy_score(labels, called), abs=1e-15)
        assert result["tpr"] == pytest.approx(oracle.recall_score(labels, called), abs=1e-15)
        specificity = oracle.recall_score(labels, called, pos_label=0)
        assert result["tnr"] == pytest.approx(specificity, abs=1e-15)

    def test_a_logit_at_the_threshold_is_called_real(self) -> None:
        result = at_threshold(np.array([0.5]), np.array([0.5]), 0.5)
        assert (result["tpr"], result["tnr"]) == (1, 0)

    @either_case
    @pytest.mark.parametrize("name", RANKING)
    def test_ranking_metrics_are_scikit_learns(
        self, name: str, real: Floats, generated: Floats
    ) -> None:
        value = ranking(real, generated, seed=0, resamples=2)[name]
        # brentq stops within 2e-12 of the root.
        assert value == pytest.approx(_oracle(real, generated)[name], abs=1e-11)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_extremes(self, dtype: type[np.floating]) -> None:
        low, high = np.full(4, -1e4, dtype), np.full(6, 1e4, dtype)
        best = {"auroc": 1, "ap_generated": 1, "eer": 0, "ece": 0}
        result = ranking(high, low, 0, 10)
        assert {name: result[name] for name in RANKING} == best
        # Of a share of 4, the smaller class.
        for name, value in best.items():
            expected = stats.binomtest(4 * value, 4).proportion_ci(method="wilson")
            assert result[f"{name}_interval"] == pytest.approx(list(expected))
        worst = {"auroc": 0, "ap_generated": 0.6, "eer": 1, "ece": 1}
        # AP of 6 generated behind 4 reals, all of them tied.
        result = ranking(low, high, 0, 10)
        assert {name: result[name] for name in RANKING} == pytest.approx(worst, abs=1e-15)

    @pytest.mark.parametrize("apart", [3.0, 12.0, 20.0])
    def test_a_perfect_detector_is_not_certain_of_its_calibration(self, apart: float) -> None:
        # No image is on the wrong side, so resamples hardly differ, and not in how many are.
        real, generated = _normal(40, apart, 0.3), _normal(50, -apart, 0.3, seed=1)
        result = ranking(real, generated, 0)
        for name in RANKING:
            low, high = result[f"{name}_interval"]
            assert high - low > 0.05
            assert low <= result[name] <= high

    def test_order_of_the_images_does_not_matter(self) -> None:
        real, generated = CASES["ties"]
        shuffled = np.random.default_rng(2).permutation(real)
        first, second = (ranking(r, generated, 0, 2) for r in (real, shuffled))
        assert [first[n] for n in RANKING] == pytest.approx([second[n] for n in RANKING])

    @either_case
    def test_oracle_threshold_reaches_the_best_point_of_scikit_learns_roc(
        self, real: Floats, generated: Floats
    ) -> None:
        logits, labels = _joined(real, generated)
        false_positive, true_positive, _ = oracle.roc_curve(labels, logits)
        best = at_threshold(real, generated, oracle_threshold(real, generated))
        reached = best["tpr"] + best["tnr"] - 1
        assert reached == pytest.approx(float((true_positive - false_positive).max()))

    @pytest.mark.parametrize("name", ["plain", "ties", "perfect"])
    def test_reliability_is_scikit_learns(self, name: str) -> None:
        real, generated = CASES[name]
        logits, labels = _joined(real, generated)
        shares, means = calibration_curve(labels, special.expit(logits), n_bins=15)
        bins = reliability(real, generated)
        assert [one["share_real"] for one in bins] == pytest.approx(list(shares))
        assert [one["probability"] for one in bins] == pytest.approx(list(means))
        assert sum(one["n"] for one in bins) == len(logits)


class TestIntervals:
    @pytest.mark.parametrize(
        ("successes", "count"),
        [(0, 1), (1, 1), (0, 10), (10, 10), (3, 10), (9_543, 10_000), (10_000, 10_000)],
    )
    def test_wilson_is_scipys(self, successes: int, count: int) -> None:
        expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
        assert wilson(successes, count) == pytest.approx(tuple(expected), abs=1e-12)

    def test_auroc_interval_with_one_real_image_worked_by_hand(self) -> None:
        # It lies above 3 of 4. DeLong: the generated's placements 1, 0, 1, 1 have variance 1/4, of
        # the mean 1/16, and one image counts with 1/4: sqrt(0.3125) / (0.75 * 0.25) logits.
        found = auroc_interval(np.array([2.0]), np.array([1.0, 3.0, 0.0, 0.5]))
        half = 1.96 * 0.3125**0.5 / 0.1875
        expected = special.expit([np.log(3) - half, np.log(3) + half])
        assert found == pytest.approx(tuple(expected), abs=1e-4)

    def test_accuracy_interval_worked_by_hand(self) -> None:
        # TPR 9/10 with Wilson's (0.5958, 0.9821), TNR 7/10 with (0.3968, 0.8922):
        # 0.8 - 0.5 sqrt(0.3042^2 + 0.3032^2) = 0.5852, 0.8 + 0.5 sqrt(0.0821^2 + 0.1922^2) = 0.9045
        real, generated = np.r_[np.ones(9), -1], np.r_[-np.ones(7), np.ones(3)]
        result = at_threshold(real, generated, 0)
        assert result["tpr_interval"] == pytest.approx([0.5958, 0.9821], abs=5e-5)
        assert result["tnr_interval"] == pytest.approx([0.3968, 0.8922], abs=5e-5)
        assert result["acc_interval"] == pytest.approx([0.5852, 0.9045], abs=1e-4)

    def test_accuracy_interval_of_unequal_classes_worked_by_hand(self) -> None:
        # TPR 10/10 with Wilson's (0.7225, 1), TNR 15/30 with (0.3315, 0.6685), weights 1/4, 3/4:
        # 0.625 - sqrt(0.0694^2 + 0.1264^2) = 0.4808, 0.625 + sqrt(0 + 0.1264^2) = 0.7514
        result = at_threshold(np.ones(10), np.repeat([-1.0, 1.0], 15), 0)
        assert result["acc_interval"] == pytest.approx([0.4808, 0.7514], abs=1e-4)

    def test_proportions_at_100_percent_keep_an_interval_with_a_width(self) -> None:
        result = at_threshold(np.ones(50), -np.ones(50), 0)
        for name in ("acc", "tpr", "tnr"):
            low, high = result[f"{name}_interval"]
            assert result[name] == high == 1
            assert 0.9 < low < 0.98

    @pytest.mark.parametrize(("n", "m", "tpr", "tnr"), [(20, 30, 0.9, 0.6), (15, 15, 0.97, 0.9)])
    def test_accuracy_interval_covers_the_truth_19_times_in_20(
        self, n: int, m: int, tpr: float, tnr: float
    ) -> None:
        truth = (n * tpr + m * tnr) / (n + m)
        coverage = 0.0  # exact: over all that can happen
        for right, left in itertools.product(range(n + 1), range(m + 1)):
            real = np.repeat([1.0, -1.0], [right, n - right])
            low, high = at_threshold(real, np.repeat([-1.0, 1.0], [left, m - left]), 0)[
                "acc_interval"
            ]
            if low <= truth <= high:
                coverage += stats.binom.pmf(right, n, tpr) * stats.binom.pmf(left, m, tnr)
        assert 0.93 < coverage < 0.98

    def test_accuracy_interval_is_close_to_a_plain_bootstraps(self) -> None:
        real = np.repeat([1.0, -1.0], [360, 40])
        generated = np.repeat([-1.0, 1.0], [280, 120])
        generator = np.random.default_rng(0)
        right_of_400 = [
            (generator.choice(real, (2000, 400)) >= 0).sum(axis=1),
            (generator.choice(generated, (2000, 400)) < 0).sum(axis=1),
        ]
        expected = np.percentile(sum(right_of_400) / 800, [2.5, 97.5])
        # Widths of 0.05; the two methods differ by the order of 1 / n.
        interval = at_threshold(real, generated, 0)["acc_interval"]
        np.testing.assert_allclose(interval, expected, rtol=0, atol=0.005)

    @pytest.mark.slow
    @pytest.mark.parametrize("case", ["plain", "ties"])
    @pytest.mark.parametrize("at_once", [10**6, 1_000])
    def test_ranking_intervals_are_a_plain_bootstraps(
        self, case: str, at_once: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(metrics, "_RESAMPLES_AT_ONCE", at_once)
        real, generated = CASES[case]
        generator = np.random.default_rng(1)
        slow = [
            _oracle(generator.choice(real, len(real)), generator.choice(generated, len(generated)))
            for _ in range(150)
        ]
        result = ranking(real, generated, seed=0)
        for name in RANKING:
            low, high = result[f"{name}_interval"]
            values = [resample[name] for resample in slow]
            # The 2.5 % quantile of 150 normal draws has a standard error of 0.22 of theirs,
            # which is a quarter of the width: 4 such errors are 0.22 of the width.
            expected = np.percentile(values, [2.5, 97.5])
            np.testing.assert_allclose([low, high], expected, rtol=0, atol=0.23 * (high - low))
            # Mean and spread are known better than quantiles.
            assert (high - low) / 3.92 == pytest.approx(np.std(values), rel=0.25)

    @pytest.mark.slow
    def test_auroc_interval_covers_the_truth_19_times_in_20(self) -> None:
        generator = np.random.default_rng(0)
        truth = stats.norm.cdf(1 / 2**0.5)
        covered = 0
        for seed in range(200):
            real, generated = generator.normal(1, 1, 60), generator.normal(0, 1, 60)
            low, high = ranking(real, generated, seed, 200)["auroc_interval"]
            covered += low <= truth <= high
        assert stats.binomtest(covered, 200, 0.95).pvalue > 1e-3

    @either_case
    def test_every_interval_has_a_width_and_holds_its_value(
        self, real: Floats, generated: Floats
    ) -> None:
        result = ranking(real, generated, 0, 200)
        for name in RANKING:
            low, high = result[f"{name}_interval"]
            assert 0 <= low < high <= 1
            if name == "auroc":  # a bootstrap's need not hold the value of a biased metric
                assert low <= result[name] <= high

    def test_auroc_interval_worked_by_hand(self) -> None:
        # Placements of reals 1, 1/2, of generated 1, 1/2: AUROC 3/4, each variance 1/8, of means
        # 1/16, together 1/8. On the logit scale log 3 -+ 1.96 sqrt(1/8) / (3/16).
        result = ranking(np.array([1.0, 3.0]), np.array([0.0, 2.0]), 0, 2)
        half = 1.959964 * 0.125**0.5 / 0.1875
        expected = special.expit(np.log(3) + np.array([-half, half]))
        assert result["auroc_interval"] == pytest.approx(expected, abs=1e-6)

    def test_a_nearly_perfect_auroc_stays_inside_of_one(self) -> None:
        real, generated = np.arange(1.0, 51), -np.arange(50.0)
        real[0] = -0.5
        low, high = ranking(real, generated, 0, 2)["auroc_interval"]
        assert low < 1 - 1 / 2500 < high < 1

    def test_one_resample_is_one(self) -> None:
        real, generated = np.array([0.0, 2.0, 3.0]), np.array([1.0, -1.0, -2.0])
        # One resample does not differ, so Wilson's interval of the smaller class stands in.
        found = ranking(real, generated, seed=0, resamples=1)
        assert found["ap_generated_interval"] == pytest.approx(
            list(widened(found["ap_generated"], 3))
        )

    def test_the_seed_decides_the_resamples(self) -> None:
        case = CASES["plain"]
        assert ranking(*case, seed=0) == ranking(*case, seed=0)
        assert ranking(*case, seed=0)["eer_interval"] != ranking(*case, seed=1)["eer_interval"]


class TestAgainstChance:
    def test_auroc_and_interval_are_those_of_a_bootstrap(self) -> None:
        real, generated = CASES["plain"]
        found = against_chance(real, generated)
        logits, labels = _joined(real, generated)
        assert found["auroc"] == pytest.approx(oracle.roc_auc_score(labels, logits))
        draws = np.random.default_rng(0)
        resampled = [
            oracle.roc_auc_score(labels, np.r_[draws.choice(real, 80), draws.choice(generated, 70)])
            for _ in range(500)
        ]
        assert found["interval"] == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.02)
        assert found["chance"] is False

    @pytest.mark.parametrize(
        ("middle", "chance"), [(0.0, True), (0.1, True), (-2.0, True), (1.5, False)]
    )
    def test_an_interval_that_reaches_a_half_or_lies_below_is_chance(
        self, middle: float, chance: bool
    ) -> None:
        found = against_chance(_normal(60, middle), _normal(60, 0, seed=1))
        assert found["chance"] is chance
        assert (found["interval"][0] <= 0.5) is chance

    def test_a_perfect_ranking_of_two_images_tells_nothing(self) -> None:
        assert against_chance(np.array([3.0]), np.array([-3.0]))["chance"] is True

    def test_one_class_alone_has_a_reason(self) -> None:
        found = against_chance(np.array([1.0, 2.0]), np.empty(0))
        assert found["auroc"] is found["interval"] is found["chance"] is None
        assert found["reason"]


class TestMissingClasses:
    @pytest.mark.parametrize(
        ("real", "generated", "missing", "defined"),
        [([], [1.0], "real", "tnr"), ([1.0], [], "generated", "tpr")],
    )
    def test_what_needs_the_missing_class_is_none_with_a_reason(
        self, real: list[float], generated: list[float], missing: str, defined: str
    ) -> None:
        result = at_threshold(np.array(real), np.array(generated), 0)
        undefined = "tpr" if defined == "tnr" else "tnr"
        assert result[undefined] is None
        assert result[f"{undefined}_interval"] is None
        assert f"no {missing} image" in result[f"{undefined}_reason"]
        assert result[defined] == result["acc"] is not None
        assert result["acc_interval"] == pytest.approx(result[f"{defined}_interval"])
        result = ranking(np.array(real), np.array(generated), 0)
        for name in RANKING:
            assert result[name] is None
            assert result[f"{name}_interval"] is None
            assert f"no {missing} image" in result[f"{name}_reason"]

    def test_without_any_image_all_is_none_with_a_reason(self) -> None:
        none = np.empty(0)
        result = at_threshold(none, none, 0) | ranking(none, none, 0)
        for name in ("acc", "tpr", "tnr", *RANKING):
            assert result[name] is None
            assert result[f"{name}_interval"] is None
            assert result[f"{name}_reason"]


class TestThreshold:
    @pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.5, 0.99])
    @pytest.mark.parametrize("n", [1, 2, 5, 19, 20, 21, 99, 100, 101, 400])
    @pytest.mark.parametrize("decimals", [15, 1, 0], ids=["distinct", "ties", "many ties"])
    def test_highest_that_calls_no_more_than_the_rate_generated(
        self, decimals: int, n: int, rate: float
    ) -> None:
        logits = _normal(n, 0, seed=n).round(decimals)
        threshold = source_threshold(logits, rate)
        allowed = Fraction(str(rate)) * n
        assert (logits < threshold).sum() <= allowed
        assert (logits < np.nextafter(threshold, np.inf)).sum() > allowed

    @pytest.mark.parametrize("rate", FALSE_POSITIVE_RATES)
    def test_rounding_never_takes_a_false_alarm_away(self, rate: float) -> None:
        for n in range(1, 2001):
            logits = np.arange(n, dtype=np.float64)
            assert source_threshold(logits, rate) == Fraction(str(rate)) * n // 1

    def test_float32_logits_are_called_as_they_were_counted(self) -> None:
        logits = _normal(200, 0).astype(np.float32)
        threshold = source_threshold(logits, 0.05)
        assert at_threshold(logits, logits[:0], threshold)["tpr"] == 0.95

    @pytest.mark.parametrize("rate", [-0.01, 1.0, float("nan")])
    def test_rates_out_of_range_are_refused(self, rate: float) -> None:
        with pytest.raises(ValueError, match=r"false_positive_rate must be in \[0, 1\)"):
            source_threshold(np.zeros(3), rate)

    def test_no_images_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no real validation image"):
            source_threshold(np.empty(0), 0.05)


def _platt(real: Floats, generated: Floats) -> tuple[Floats, Floats]:
    n, m = len(real), len(generated)
    targets = np.r_[np.full(n, (n + 1) / (n + 2)), np.full(m, 1 / (m + 2))]
    return np.concatenate([real, generated]), targets


class TestTemperature:
    @pytest.mark.parametrize("name", ["plain", "ties", "perfect"])
    @pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
    def test_it_is_where_scipy_finds_the_least_nll(self, name: str, scale: float) -> None:
        real, generated = (scale * logits for logits in CASES[name])
        logits, targets = _platt(real, generated)

        def nll(log_temperature: float) -> float:
            scaled = logits / np.exp(log_temperature)
            return float((np.logaddexp(0, scaled) - targets * scaled).sum())

        found = minimize_scalar(nll, bounds=(-7, 7), method="bounded", options={"xatol": 1e-9})
        assert np.log(fit_temperature(real, generated)) == pytest.approx(found.x, abs=1e-5)

    @pytest.mark.parametrize("name", ["plain", "perfect"])
    def test_its_inverse_is_scikit_learns_slope(self, name: str) -> None:
        logits, targets = _platt(*CASES[name])
        # Each image as one of both classes, weighted by its target.
        model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
        model.fit(
            np.r_[logits, logits][:, None],
            np.repeat([1, 0], len(logits)),
            np.r_[targets, 1 - targets],
        )
        assert 1 / fit_temperature(*CASES[name]) == pytest.approx(model.coef_[0, 0], rel=1e-4)

    def test_it_mends_scores_that_are_too_sure(self) -> None:
        generator = np.random.default_rng(0)
        logits = generator.normal(0, 2, 40_000)
        real = generator.random(len(logits)) < special.expit(logits)
        assert fit_temperature(3 * logits[real], 3 * logits[~real]) == pytest.approx(3, rel=0.05)

    def test_scores_that_say_nothing_or_the_opposite_give_one_half(self) -> None:
        assert fit_temperature(*CASES["reversed"]) == pytest.approx(TEMPERATURES[1])

    def test_float32_logits_do(self) -> None:
        real, generated = (logits.astype(np.float32) for logits in CASES["plain"])
        assert fit_temperature(real, generated) == pytest.approx(fit_temperature(*CASES["plain"]))

    def test_a_missing_class_is_refused(self) -> None:
        with pytest.raises(ValueError, match="both classes"):
            fit_temperature(np.ones(3), np.empty(0))


class TestSpectra:
    def test_distance_is_that_to_the_nearest_source_in_its_spreads(self) -> None:
        spectra = {
            "near": {"mean": [1.0, 2.0], "std": [0.5, 1.0]},
            "far": {"mean": [9.0, 9.0], "std": [1.0, 1.0]},
        }
        distances = nearest(np.array([[2.0, 2.0], [9.0, 8.0]]), spectra)
        # Only the last frequency is in the upper half: (2 - 2) / 1 and (8 - 9) / 1.
        np.testing.assert_allclose(distances, [0, 1])

    def test_distance_is_of_fine_detail_and_not_of_large_shapes(self) -> None:
        y, x = np.mgrid[:64, :64]
        noise = np.random.default_rng(0).normal(128, 20, (50, 64, 64))
        shading = 60 * np.sin(2 * np.pi * (x + y) / 64)
        softened = ndimage.gaussian_filter(noise[40:], (0, 0.5, 0.5))

        def of(images: Floats) -> Floats:
            return profiles(np.repeat(images.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3))

        usual = of(noise[:40])
        spectra = {"usual": {"mean": usual.mean(0).tolist(), "std": usual.std(0).tolist()}}
        held_out, soft, shaded = (
            nearest(of(images), spectra) for images in (noise[40:], softened, noise[40:] + shading)
        )
        assert soft.min() > 1.5 * held_out.max()
        assert np.median(shaded) < held_out.max()

    def test_profiles_are_those_of_each_image(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
        for image, profile in zip(images, profiles(images), strict=True):
            np.testing.assert_allclose(profile, radial_profile(mean_log_power(image[None]))[1])

    @pytest.mark.parametrize("size", [32, 33])
    @pytest.mark.parametrize(("down", "right"), [(0, 8), (5, 0), (6, -11), (13, 13)])
    def test_a_sinusoid_peaks_at_its_frequency(self, size: int, down: int, right: int) -> None:
        y, x = np.mgrid[:size, :size]
        wave = 127 + 100 * np.cos(2 * np.pi * (down * y + right * x) / size)
        images = np.repeat(wave[None, ..., None], 3, axis=3).round().astype(np.uint8)
        power = mean_log_power(images)
        assert power.shape == (size, size)
        peaks = np.argwhere(power > power.max() - 1e-6) - size // 2
        assert sorted(peaks.tolist()) == sorted([[down, right], [-down, -right]])

    def test_white_noise_is_flat_at_its_level(self) -> None:
        n, size = 200, 32
        images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)
        power = mean_log_power(images)
        # A frequency's power is exponentially distributed: the mean of its log lies gamma below
        # the log of its mean, and its log's standard deviation is pi / sqrt(6).
        variance = (256**2 - 1) / 12 / 3
        mean_power = variance * (np.hanning(size) ** 2).sum() ** 2
        level = np.log10(mean_power) - np.euler_gamma / np.log(10)
        error = np.pi / 6**0.5 / np.log(10) / n**0.5
        # Around frequency 0 the mean was taken out; at the four frequencies that are real
        # numbers, the power has another distribution.
        y, x = np.mgrid[:size, :size] - size // 2
        usual = (np.hypot(y, x) > 3) & (np.abs(y) < size // 2 - 1) & (np.abs(x) < size // 2 - 1)
        np.testing.assert_allclose(power[usual], level, rtol=0, atol=5 * error)
        frequencies, profile = radial_profile(power)
        np.testing.assert_allclose(profile[frequencies > 0.1], level, rtol=0, atol=3 * error)

    @pytest.mark.parametrize("size", [16, 17, 64])
    def test_profile_of_a_radial_function_is_that_function(self, size: int) -> None:
        frequency = np.fft.fftshift(np.fft.fftfreq(size))
        radius = np.hypot(frequency[:, None], frequency[None, :])
        frequencies, profile = radial_profile(radius)
        np.testing.assert_allclose(frequencies, np.arange(size // 2 + 1) / size)
        np.testing.assert_allclose(profile, frequencies, rtol=0, atol=0.5 / size)
        np.testing.assert_allclose(radial_profile(np.full((size, size), 7.0))[1], 7.0)

    def test_spectrum_is_the_mean_over_images_and_leaves_them_alone(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
        before = images.copy()
        alone = [mean_log_power(image[None]) for image in images]
        np.testing.assert_allclose(mean_log_power(images), np.mean(alone, axis=0))
        np.testing.assert_array_equal(images, before)


def test_placements_are_shares_of_the_other_class() -> None:
    draws = np.random.default_rng(0)
    real, generated = draws.integers(0, 6, 30) / 2, draws.integers(0, 6, 20) / 2
    wins = (real[:, None] > generated) + (real[:, None] == generated) / 2
    of_real, of_generated = placements(real, generated)
    np.testing.assert_allclose(of_real, wins.mean(axis=1))
    np.testing.assert_allclose(of_generated, wins.mean(axis=0))
