"""Statistics over several runs: means over seeds, and differences between variants.

All compared runs are scored on the same images, and two sources of variation are kept separate:
the sample of images (intervals over images, for these particular detectors) and the training seed
(the range over seeds and, from `MIN_SEEDS` seeds on, Student's t for differences).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_1samp

from forensics.evaluation.intervals import (
    Z_95,
    Floats,
    auroc_interval,
    delong_variance,
    placements,
    wilson,
)
from forensics.evaluation.metrics import AT_THRESHOLD, at_threshold

METRICS = (*AT_THRESHOLD, "auroc")
"""Metrics compared over seeds."""

MIN_SEEDS = 5
"""With fewer seeds, Student's interval is many times wider than the range over seeds."""

ROUNDING = 1e-12
"""Differences of shares below this are rounding: one image in 100,000 changes a share by 1e-5."""


class PairScores(NamedTuple):
    """Scores of one real and one generated source by the detectors of several seeds.

    Attributes:
        real: ``(seeds, n)`` logits.
        generated: ``(seeds, m)`` logits.
        thresholds: ``(seeds,)`` logits; an image is called real at or above them.
    """

    real: Floats
    generated: Floats
    thresholds: Floats


def over_seeds(pair: PairScores, metric: str) -> dict[str, Any]:
    """A metric's mean over seeds.

    Args:
        pair: scores of both classes, each with at least one image and one seed.
        metric: one of `METRICS`.

    Returns:
        ``mean``; ``low`` and ``high``, the means of the seeds' own 95 % intervals over images of
        `forensics.evaluation.metrics`: at least as wide as an interval of the mean, and never of
        zero width; ``by_seed``; ``std``, their `spread`.
    """
    found = np.array([_of_seed(*seed, metric) for seed in zip(*pair, strict=True)])
    mean, low, high = found.mean(axis=0).tolist()
    by_seed = found[:, 0]
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "std": spread(by_seed),
        "by_seed": by_seed.tolist(),
    }


def spread(by_seed: Floats) -> float | None:
    """Standard deviation over seeds; None for one or two, which say too little of it."""
    return float(by_seed.std(ddof=1)) if len(by_seed) > 2 else None


def _of_seed(
    real: Floats, generated: Floats, threshold: float, metric: str
) -> tuple[float, float, float]:
    """A metric of one detector, and its interval."""
    if metric == "auroc":
        return float(placements(real, generated)[0].mean()), *auroc_interval(real, generated)
    at = at_threshold(real, generated, threshold)
    low, high = at[f"{metric}_interval"]
    return at[metric], low, high


class _Means(NamedTuple):
    """A metric as the weighted mean of two classes' means.

    Attributes:
        real: ``(seeds, n)``, one value per real image.
        generated: ``(seeds, m)``, one value per generated image.
        weights: ``(2,)``, weights of the classes.
    """

    real: Floats
    generated: Floats
    weights: Floats


def _means(pair: PairScores, metric: str) -> _Means:
    if metric == "auroc":
        by_seed = [placements(r, g) for r, g in zip(pair.real, pair.generated, strict=True)]
        real, generated = (np.stack(of_class) for of_class in zip(*by_seed, strict=True))
        return _Means(real, generated, np.array([0.5, 0.5]))
    counts = np.array([pair.real.shape[1], pair.generated.shape[1]])
    weights = {"acc": counts / counts.sum(), "tpr": np.array([1, 0]), "tnr": np.array([0, 1])}
    return _Means(
        (pair.real >= pair.thresholds[:, None]).astype(float),
        (pair.generated < pair.thresholds[:, None]).astype(float),
        weights[metric],
    )


def difference(first: PairScores, second: PairScores, metric: str) -> dict[str, Any]:
    """Paired difference of a metric, second minus first, by image and by seed.

    Args:
        first: scores of one variant.
        second: scores of another variant for the same images and seeds, in the same order.
        metric: one of `METRICS`.

    Returns:
        ``difference``, the mean over seeds; ``low`` and ``high``, its 95 % interval over images,
        for these particular detectors; ``by_seed``, each seed's; ``seeds_low`` and
        ``seeds_high``, Student's 95 % interval over seeds, for detectors trained with any seed;
        ``p``, two-sided, of the paired t-test over seeds. The last three are None, with a
        ``p_reason``, for too few seeds or differences that are equal but for rounding.
    """
    before, after = _means(first, metric), _means(second, metric)
    changes = after._replace(
        real=after.real - before.real, generated=after.generated - before.generated
    )
    by_seed = changes.weights @ np.stack([changes.real.mean(1), changes.generated.mean(1)])
    low, high = _interval(changes, smooth=metric == "auroc")
    result = {
        "difference": float(by_seed.mean()),
        "low": low,
        "high": high,
        "by_seed": by_seed.tolist(),
        "seeds_low": None,
        "seeds_high": None,
        "p": None,
        "p_reason": None,
    }
    if len(by_seed) < MIN_SEEDS:
        return result | {"p_reason": f"fewer than {MIN_SEEDS} seeds"}
    if np.ptp(by_seed) < ROUNDING:
        return result | {"p_reason": "the difference is the same for every seed"}
    test = ttest_1samp(by_seed, 0)
    within = test.confidence_interval(0.95)
    return result | {
        "seeds_low": max(-1.0, float(within.low)),
        "seeds_high": min(1.0, float(within.high)),
        "p": float(test.pvalue),
    }


def _interval(changes: _Means, *, smooth: bool) -> tuple[float, float]:
    """The 95 % interval over images of a difference's mean over seeds, within [-1, 1].

    Sources: DeLong et al. 1988 for AUROC, whose values are ``smooth``; Bonett and Price 2012 for
    paired proportions: one image is added for each direction of change, so that the interval has
    width even if no image changes.
    """
    by_class = changes.real.mean(0), changes.generated.mean(0)
    if smooth:
        middle = float(np.mean([v.mean() for v in by_class]))
        if all(np.ptp(of_class) < ROUNDING for of_class in by_class):
            half = wilson(0, min(map(len, by_class)))[1]
        else:
            half = Z_95 * float(np.sqrt(delong_variance(by_class, largest=1.0)))
    else:
        more = [np.append(of_class, [1, -1]) for of_class in by_class]
        middle = float(changes.weights @ np.array([v.mean() for v in more]))
        variances = np.array([v.var() / len(v) for v in more])
        half = Z_95 * float(np.sqrt(changes.weights**2 @ variances))
    return max(-1.0, middle - half), min(1.0, middle + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values with Holm's correction, which controls the family-wise error rate.

    Args:
        p_values: p-values of one family of tests, in any order.

    Source: Holm 1979.
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]
