"""Several runs together: means over seeds, and differences between ways to train.

All runs compared are scored on the same images, so two sources of chance are kept apart: which
images were drawn (intervals over images, of these very detectors) and which seed a detector was
trained with (the spread over seeds, and Student's t over seeds for differences).

Intervals over images are a bootstrap of the mean over seeds and, of AUROC, DeLong's.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from forensics.evaluation.metrics import Z_95, at_threshold, wilson

Floats = NDArray[np.float64]

RESAMPLES = 10_000


class Pair(NamedTuple):
    """Scores of one real and one generated source by the detectors of several seeds.

    Attributes:
        real: ``(seeds, n)`` logits.
        generated: ``(seeds, m)`` logits.
        thresholds: ``(seeds,)`` logits from which on an image is called real.
    """

    real: Floats
    generated: Floats
    thresholds: Floats


class _Means(NamedTuple):
    """A metric as the weighted mean of two classes' means.

    Attributes:
        values: of each class, ``(seeds, images)``.
        weights: of the classes, ``(2,)``.
        smooth: the values are no few levels but, of AUROC, placements.
    """

    values: list[Floats]
    weights: Floats
    smooth: bool

    def by_seed(self) -> Floats:
        """The metric of each seed, ``(seeds,)``."""
        return np.asarray(self.weights @ np.stack([v.mean(1) for v in self.values]))

    def used(self) -> list[Floats]:
        """Values of the classes that count."""
        return [v for v, weight in zip(self.values, self.weights, strict=True) if weight]


def _means(pair: Pair, metric: str) -> _Means:
    if metric == "auroc":
        by_class = [_placements(r, g) for r, g in zip(pair.real, pair.generated, strict=True)]
        values = [np.stack(of_class) for of_class in zip(*by_class, strict=True)]
        return _Means(values, np.array([0.5, 0.5]), smooth=True)
    right = [
        (pair.real >= pair.thresholds[:, None]).astype(float),
        (pair.generated < pair.thresholds[:, None]).astype(float),
    ]
    counts = np.array([pair.real.shape[1], pair.generated.shape[1]])
    weights = {"acc": counts / counts.sum(), "tpr": np.array([1, 0]), "tnr": np.array([0, 1])}
    return _Means(right, weights[metric], smooth=False)


def _placements(real: Floats, generated: Floats) -> tuple[Floats, Floats]:
    """Share of the other class each image lies on the right side of, ties counting half.

    The mean of either class's is the AUROC.
    """

    def below(values: Floats, others: Floats) -> Floats:
        ordered = np.sort(others)
        both = [np.searchsorted(ordered, values, side) for side in ("left", "right")]
        return np.asarray(np.mean(both, axis=0) / len(others))

    return below(real, generated), 1 - below(generated, real)


def over_seeds(pair: Pair, metric: str, seed: int) -> dict[str, Any]:
    """A metric's mean over seeds.

    Args:
        pair: scores of both classes, each with at least one image and one seed.
        metric: ``acc``, ``tpr``, ``tnr`` or ``auroc``.
        seed: of the bootstrap.

    Returns:
        ``mean``; ``low`` and ``high``, its 95 % interval over images; ``by_seed``; ``std`` over
        seeds, None with one seed. Where no image differs from any other of its class, those
        intervals would have no width, and the ones of `forensics.evaluation.metrics` stand
        instead; an AUROC of 0 or 1 has that of a share in the smaller class.
    """
    means = _means(pair, metric)
    by_seed = means.by_seed()
    if all(np.ptp(values) == 0 for values in means.used()):
        low, high = _of_one_seed(pair, metric)
    else:
        low, high = np.clip(_interval(means, seed), 0, 1).tolist()
    return {
        "mean": float(by_seed.mean()),
        "low": low,
        "high": high,
        "std": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        "by_seed": by_seed.tolist(),
    }


def difference(first: Pair, second: Pair, metric: str, seed: int) -> dict[str, Any]:
    """How much higher a metric is of the second than of the first, image by image, seed by seed.

    Args:
        first: scores of one way to train.
        second: of another, on the same images, with the same seeds, in the same order.
        metric: as in `over_seeds`.
        seed: of the bootstrap.

    Returns:
        ``difference``, the mean over seeds; ``low`` and ``high``, its 95 % interval over images,
        for these very detectors; ``seeds_low`` and ``seeds_high``, Student's over seeds, for
        detectors trained with any seed; ``p``, two-sided, of the paired t-test over seeds. The
        last three are None with a ``p_reason`` where seeds cannot tell.
    """
    before, after = _means(first, metric), _means(second, metric)
    changes = before._replace(
        values=[b - a for a, b in zip(before.values, after.values, strict=True)]
    )
    by_seed = changes.by_seed()
    low, high = _interval(changes, seed)
    result = {"difference": float(by_seed.mean()), "low": low, "high": high}
    if len(by_seed) < 2:
        return result | _untold("one seed says nothing of others")
    if np.ptp(by_seed) == 0:
        return result | _untold("the difference is the same for every seed")
    test = ttest_rel(after.by_seed(), before.by_seed())
    within = test.confidence_interval(0.95)
    return result | {
        "seeds_low": float(within.low),
        "seeds_high": float(within.high),
        "p": float(test.pvalue),
    }


def _of_one_seed(pair: Pair, metric: str) -> tuple[float, float]:
    """The interval of detectors that all say the same of all images of a class."""
    if metric == "auroc":
        count = min(pair.real.shape[1], pair.generated.shape[1])
        return wilson(count * int(pair.real[0, 0] > pair.generated[0, 0]), count)
    low, high = at_threshold(pair.real[0], pair.generated[0], pair.thresholds[0])[
        f"{metric}_interval"
    ]
    return low, high


def _untold(reason: str) -> dict[str, Any]:
    return {"seeds_low": None, "seeds_high": None, "p": None, "p_reason": reason}


def _interval(means: _Means, seed: int) -> tuple[float, float]:
    """The 95 % interval over images of a mean over seeds.

    Source: DeLong et al. 1988, equation 4, of AUROC and differences of it; one image of a class
    counts as knowing nothing.
    """
    by_image = [values.mean(0) for values in means.values]
    if means.smooth:
        variances = [v.var(ddof=1) / len(v) if len(v) > 1 else 0.25 for v in by_image]
        middle = float(means.by_seed().mean())
        half = Z_95 * float(np.sqrt(sum(variances)))
        return middle - half, middle + half
    draws = np.random.default_rng(seed)
    resampled = []
    for values in by_image:
        # A mean depends on nothing but how often each value is drawn, and correctness averaged
        # over a few seeds has few values: exact, and no more work for more images.
        levels, counts = np.unique(values, return_counts=True)
        drawn = draws.multinomial(len(values), counts / len(values), RESAMPLES)
        resampled.append(drawn @ levels / len(values))
    low, high = np.percentile(means.weights @ np.stack(resampled), [2.5, 97.5])
    return float(low), float(high)
