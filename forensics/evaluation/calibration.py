"""Thresholds and calibration, fitted to validation images alone."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit

FALSE_POSITIVE_RATES = (0.05, 0.01)
"""Shares of real validation images that may be called generated."""

TEMPERATURES = (1e-3, 1e3)
"""Bounds of the temperature: beyond them probabilities are all 0 and 1, or all 0.5."""


def source_threshold(real_logits: NDArray[np.floating], false_positive_rate: float) -> float:
    """The highest threshold at no more than a given false-positive rate on validation real images.

    Images of unseen generators often score between those of seen generators and real images, so
    that 0.5 finds none of them while a threshold near the real images' lowest scores finds many.

    Args:
        real_logits: ``(n,)`` logits of real validation images, finite.
        false_positive_rate: largest share of them called generated, in [0, 1).

    Returns:
        A logit; an image is called real if its logit is at least this.

    Raises:
        ValueError: if there are no logits or the rate is out of range.
    """
    if len(real_logits) == 0:
        raise ValueError("no real validation image to set a threshold by")
    if not 0 <= false_positive_rate < 1:
        raise ValueError(f"false_positive_rate must be in [0, 1), not {false_positive_rate}")
    # In floating point, 0.29 * 100 is a little less than 29.
    allowed = math.floor(false_positive_rate * len(real_logits) + 1e-9)
    return float(np.sort(real_logits)[allowed])


def fit_temperature(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]
) -> float:
    """The temperature that minimises the NLL of ``sigmoid(logit / temperature)``.

    The targets are Platt's, slightly inside (0, 1). With targets 0 and 1, a detector without errors
    on validation images would get temperature 0, and every probability would be 0 or 1.

    Args:
        real_logits: ``(n,)`` finite logits of real validation images.
        generated_logits: ``(m,)`` finite logits of generated validation images.

    Returns:
        A number within `TEMPERATURES`; the upper bound if the scores are uninformative.

    Raises:
        ValueError: if a class has no image.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; Platt 1999, section 2.2, for targets.
    """
    n, m = len(real_logits), len(generated_logits)
    if n == 0 or m == 0:
        raise ValueError("a temperature needs validation images of both classes")
    logits = np.concatenate([real_logits, generated_logits]).astype(np.float64)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])

    def slope(log_inverse: float) -> float:
        return float(((expit(logits * math.exp(log_inverse)) - targets) * logits).sum())

    # The NLL is convex in 1 / temperature: its slope rises, with at most one root.
    low, high = (math.log(1 / temperature) for temperature in TEMPERATURES[::-1])
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return math.exp(-brentq(slope, low, high))


def fit_platt(
    real_scores: NDArray[np.floating], generated_scores: NDArray[np.floating]
) -> tuple[float, float]:
    """Offset and temperature that minimise the NLL of ``sigmoid((score - offset) / temperature)``.

    For scores of any scale; the temperature is positive, because higher scores mean real.

    Args:
        real_scores: ``(n,)`` finite scores of real validation images.
        generated_scores: ``(m,)`` finite scores of generated validation images.

    Returns:
        Offset and temperature; the latter at most 1000 standard deviations of the scores, reached
        if they are uninformative.

    Raises:
        ValueError: if a class has no image.

    Source: Platt 1999, section 2.2.
    """
    n, m = len(real_scores), len(generated_scores)
    if n == 0 or m == 0:
        raise ValueError("a calibration needs validation images of both classes")
    scores = np.concatenate([real_scores, generated_scores]).astype(np.float64)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    mean, std = scores.mean(), scores.std() or 1.0
    standard = (scores - mean) / std

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, intercept = line
        logits = slope * standard + intercept
        residual = expit(logits) - targets
        nll = np.logaddexp(0, logits) - targets * logits
        return float(nll.sum()), np.array([(residual * standard).sum(), residual.sum()])

    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), (None, None)]
    fitted = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=bounds, tol=1e-12)
    slope, intercept = fitted.x
    return float(mean - intercept * std / slope), float(std / slope)
