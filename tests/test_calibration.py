"""Probabilities from scores of any scale, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from forensics.evaluation.calibration import TEMPERATURES, fit_platt, source_threshold
from forensics.evaluation.results import calibrate

Floats = NDArray[np.float64]


def _scores(n: int, middle: float, spread: float = 1.0, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(middle, spread, n)


CASES: dict[str, tuple[Floats, Floats]] = {
    "overlapping": (_scores(80, 1), _scores(70, -1, seed=1)),
    "unequal numbers": (_scores(300, 0.5), _scores(9, -1, seed=1)),
    "large and off centre": (_scores(60, 5300, 400), _scores(60, 4800, 400, seed=1)),
    "tiny": (_scores(60, 1e-6, 1e-6), _scores(60, -1e-6, 1e-6, seed=1)),
    "negative, as distances": (-(_scores(90, 1) ** 2), -(_scores(90, 4, seed=1) ** 2)),
    "separated": (_scores(50, 8), _scores(50, -8, seed=1)),
    "one of each": (np.array([2.0]), np.array([-1.0])),
    "with an outlier": (_scores(80, 1), np.append(_scores(70, -1, seed=1), -1000.0)),
    "with ties": (np.array([0.0, 1, 1, 2]), np.array([0.0, 0, 1])),
}
either_case = pytest.mark.parametrize(("real", "generated"), CASES.values(), ids=list(CASES))


def _oracle(real: Floats, generated: Floats) -> tuple[float, float]:
    """scikit-learn's, each image once as real and once as generated, weighed by Platt's target."""
    n, m = len(real), len(generated)
    scores = np.concatenate([real, generated])
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    scale = np.abs(scores - scores.mean()).max()
    column = np.tile((scores - scores.mean()) / scale, 2)[:, None]
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000)
    labels = np.repeat([1, 0], n + m)
    model.fit(column, labels, sample_weight=np.concatenate([targets, 1 - targets]))
    slope, intercept = model.coef_[0, 0] / scale, model.intercept_[0]
    return float(scores.mean() - intercept / slope), float(1 / slope)


class TestFitPlatt:
    @either_case
    def test_offset_and_temperature_are_scikit_learns(
        self, real: Floats, generated: Floats
    ) -> None:
        offset, temperature = fit_platt(real, generated)
        expected = _oracle(real, generated)
        assert temperature == pytest.approx(expected[1], rel=1e-4)
        assert offset == pytest.approx(expected[0], abs=1e-4 * expected[1])

    @either_case
    def test_unit_and_origin_of_the_scores_do_not_matter(
        self, real: Floats, generated: Floats
    ) -> None:
        offset, temperature = fit_platt(real, generated)
        moved = fit_platt(40 * real - 7 * temperature, 40 * generated - 7 * temperature)
        assert moved[1] == pytest.approx(40 * temperature, rel=1e-3)
        assert moved[0] == pytest.approx(40 * offset - 7 * temperature, abs=0.04 * temperature)

    @either_case
    def test_single_precision_is_enough(self, real: Floats, generated: Floats) -> None:
        fitted = fit_platt(real.astype(np.float32), generated.astype(np.float32))
        assert fitted == pytest.approx(fit_platt(real, generated), rel=1e-3, abs=1e-9)

    def test_two_images_worked_by_hand(self) -> None:
        # Targets 2/3 and 1/3, so that logits are log 2 and -log 2 at 2 and -1: a line through both.
        offset, temperature = fit_platt(np.array([2.0]), np.array([-1.0]))
        assert offset == pytest.approx(0.5, abs=1e-4)
        assert temperature == pytest.approx(1.5 / math.log(2), rel=1e-4)

    def test_temperature_of_separated_scores_is_neither_0_nor_infinite(self) -> None:
        offset, temperature = fit_platt(np.array([1.0, 1.1]), np.array([-1.0, -1.1]))
        assert offset == pytest.approx(0, abs=1e-3)
        assert 0.1 < temperature < 10

    @pytest.mark.parametrize(
        ("real", "generated"),
        [
            ([1.0] * 20, [1.0] * 5),
            (list(range(20)), [9.5] * 5),
            ([-1.0, -2.0] * 10, [1.0, 2.0, 1.0, 2.0, 1.5]),
        ],
        ids=["all the same", "of one middle", "upside down"],
    )
    def test_scores_that_say_nothing_give_every_image_the_same_probability(
        self, real: list[float], generated: list[float]
    ) -> None:
        scores = np.array(real + generated)
        offset, temperature = fit_platt(np.array(real), np.array(generated))
        assert 0 < temperature <= TEMPERATURES[1] * (scores.std() or 1.0) * (1 + 1e-9)
        probabilities = expit((scores - offset) / temperature)
        share = (20 * 21 / 22 + 5 * 1 / 7) / 25  # of the targets
        assert probabilities == pytest.approx(np.full(25, share), abs=5e-3)

    def test_scores_that_are_upside_down_get_the_largest_temperature(self) -> None:
        real, generated = np.array([-1.0, -2.0] * 10), np.array([1.0, 2.0, 1.0, 2.0, 1.5])
        _, temperature = fit_platt(real, generated)
        assert temperature == pytest.approx(1000 * np.concatenate([real, generated]).std())

    @pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
    def test_missing_class_is_refused(self, n: int, m: int) -> None:
        with pytest.raises(ValueError, match="both classes"):
            fit_platt(np.arange(float(n)), np.arange(float(m)))


class TestCalibrate:
    def test_scores_of_any_scale_have_their_half_at_the_fitted_offset(self) -> None:
        real, generated = CASES["large and off centre"]
        calibration = calibrate(real, generated, centred=False)
        assert (calibration.offset, calibration.temperature) == fit_platt(real, generated)
        assert list(calibration.thresholds) == ["0.5", "source_0.05", "source_0.01"]
        assert calibration.probability_real(calibration.thresholds["0.5"]) == 0.5

    def test_logits_have_their_half_at_zero(self) -> None:
        calibration = calibrate(*CASES["unequal numbers"], centred=True)
        assert (calibration.offset, calibration.thresholds["0.5"]) == (0, 0)
        assert calibration.probability_real(0.0) == 0.5

    @pytest.mark.parametrize("centred", [False, True])
    def test_without_generated_images_there_are_thresholds_but_no_probability(
        self, centred: bool
    ) -> None:
        real, _ = CASES["overlapping"]
        calibration = calibrate(real, np.empty(0), centred=centred)
        assert calibration.thresholds == {
            "source_0.05": source_threshold(real, 0.05),
            "source_0.01": source_threshold(real, 0.01),
        }
        assert calibration.offset is calibration.temperature is None
        assert calibration.probability_real(0.0) is None
