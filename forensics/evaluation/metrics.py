"""Metrics of one pair of a real and a generated source, with 95 % intervals.

TPR and TNR have Wilson's intervals, ACC Newcombe's combination of the two, AUROC DeLong's on the
logit scale: a bootstrap interval would have no width at 0 and at 100 %, values that detectors of
generated images often reach. All other metrics have a percentile bootstrap over images, drawn
within each class; each resample is a weighting of the images, so that one vectorised function
computes a metric of the sample and of all its resamples.

Real is the positive class, as everywhere; AP is the only metric of the generated class.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_curve

from forensics.evaluation.intervals import (
    Floats,
    auroc_interval,
    weighted_shares,
    widened,
    wilson,
)

AT_THRESHOLD = ("acc", "tpr", "tnr")
"""Metrics of `at_threshold`, in the order of tables; `RANKING` lists those of `ranking`."""
CALIBRATION_BINS = 15
_RESAMPLES_AT_ONCE = 4_000_000


def at_threshold(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating], threshold: float
) -> dict[str, Any]:
    """ACC, TPR and TNR if an image is called real at a logit of ``threshold`` or above.

    Args:
        real_logits: ``(n,)`` finite logits of real images.
        generated_logits: ``(m,)`` finite logits of generated images.
        threshold: a logit.

    Returns:
        ``acc``, ``tpr``, ``tnr``, and for each ``<name>_interval`` as ``[low, high]``, in [0, 1].
        Metrics without images are None, with a ``<name>_reason``.

    Source of ACC's interval: Newcombe 1998, method 10, for a weighted sum of two proportions.
    """
    metrics: dict[str, Any] = {}
    right = {
        "tpr": (int((real_logits >= threshold).sum()), len(real_logits)),
        "tnr": (int((generated_logits < threshold).sum()), len(generated_logits)),
    }
    for name, (successes, count) in right.items():
        if count == 0:
            of_class = "real" if name == "tpr" else "generated"
            metrics |= undefined(name, f"no {of_class} image")
            continue
        metrics |= {name: successes / count, f"{name}_interval": list(wilson(successes, count))}
    total = sum(count for _, count in right.values())
    if total == 0:
        return metrics | undefined("acc", "no image")
    acc = sum(successes for successes, _ in right.values()) / total
    _, *interval = weighted_shares([(n / total, k, n) for k, n in right.values() if n])
    return {"acc": acc, "acc_interval": interval} | metrics


def undefined(name: str, reason: str) -> dict[str, Any]:
    """An undefined metric, with the reason."""
    return {name: None, f"{name}_interval": None, f"{name}_reason": reason}


def _starts(ascending: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.r_[True, np.diff(ascending) > 0])


def _bins(probabilities: Floats) -> NDArray[np.int64]:
    """The bin of the calibration error that each probability is in."""
    return np.asarray(np.minimum(probabilities * CALIBRATION_BINS, CALIBRATION_BINS - 1), int)


class _Ranked:
    """Ascending logits, to be weighted repeatedly.

    Equal logits are one group, because no threshold separates them.
    """

    def __init__(self, logits: Floats, labels: NDArray[np.bool_]) -> None:
        order = np.argsort(logits)
        self.logits, self.labels = logits[order], labels[order]
        self._starts = _starts(self.logits)
        self.probabilities = expit(self.logits)
        # The bins of sorted logits are sorted: each is a contiguous range.
        self.bins = _starts(_bins(self.probabilities))

    def weighted(self, weights: Floats) -> "_Weighted":
        """Apply weights ``(r, n)``, in sorted order, each row a weighting of all images."""
        real = np.add.reduceat(weights * self.labels, self._starts, axis=1)
        generated = np.add.reduceat(weights * ~self.labels, self._starts, axis=1)
        return _Weighted(self, weights, real.cumsum(axis=1), generated.cumsum(axis=1))


class _Weighted(NamedTuple):
    """Ranked logits under some weightings.

    Attributes:
        ranked: the logits.
        weights: ``(r, n)``, in sorted order.
        real: ``(r, groups)`` weight of real images in each group and all groups before it.
        generated: the same for generated images.
    """

    ranked: _Ranked
    weights: Floats
    real: Floats
    generated: Floats


def _auroc(images: _Weighted) -> Floats:
    """Probability that a real image scores above a generated one; ties count half; ``(r,)``."""
    _, _, real, generated = images
    before = np.pad(generated, ((0, 0), (1, 0)))[:, :-1]
    in_group = np.diff(real, axis=1, prepend=0)
    wins = (in_group * (before + generated) / 2).sum(axis=1)
    return np.asarray(wins / (real[:, -1] * generated[:, -1]))


def _ap_generated(images: _Weighted) -> Floats:
    """Average precision of finding the generated images, lowest logits first; ``(r,)``."""
    _, _, real, generated = images
    found = real + generated
    precision = np.divide(generated, found, out=np.zeros_like(found), where=found > 0)
    recall_steps = np.diff(generated, axis=1, prepend=0) / generated[:, -1:]
    return np.asarray((precision * recall_steps).sum(axis=1))


def _eer(images: _Weighted) -> Floats:
    """Equal error rate, by linear interpolation of the ROC curve; ``(r,)``."""
    _, _, real, generated = images
    # At a threshold just above a group, this group and all below it are called generated.
    missed_real = np.pad(real / real[:, -1:], ((0, 0), (1, 0)))
    missed_generated = 1 - np.pad(generated / generated[:, -1:], ((0, 0), (1, 0)))
    gap = missed_real - missed_generated  # rises from -1 to 1
    after = np.argmax(gap >= 0, axis=1)[:, None]
    gap_before, gap_after = (np.take_along_axis(gap, i, 1) for i in (after - 1, after))
    low, high = (np.take_along_axis(missed_real, i, 1) for i in (after - 1, after))
    return np.asarray((low + (high - low) * -gap_before / (gap_after - gap_before))[:, 0])


def _ece(images: _Weighted) -> Floats:
    """Expected calibration error of the probability of real, 15 equal bins; ``(r,)``.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3, for the positive class's probability.
    """
    ranked, weights, _, _ = images
    gaps = np.add.reduceat(weights * (ranked.probabilities - ranked.labels), ranked.bins, axis=1)
    return np.asarray(np.abs(gaps).sum(axis=1) / weights.sum(axis=1))


_RANKING: dict[str, Callable[[_Weighted], Floats]] = {
    "auroc": _auroc,
    "ap_generated": _ap_generated,
    "eer": _eer,
    "ece": _ece,
}
RANKING = tuple(_RANKING)
"""Metrics of `ranking`, in the order of tables."""


def ranking_values(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]
) -> dict[str, float]:
    """AUROC, AP of the generated class, EER and ECE.

    Args:
        real_logits: ``(n,)`` finite logits of real images, at least one.
        generated_logits: ``(m,)`` finite logits of generated images, at least one.
    """
    return _values(_ranked(real_logits, generated_logits))


def _ranked(real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]) -> _Ranked:
    n = len(real_logits)
    logits = np.concatenate([real_logits, generated_logits]).astype(np.float64)
    return _Ranked(logits, np.arange(len(logits)) < n)


def _values(ranked: _Ranked) -> dict[str, float]:
    once = ranked.weighted(np.ones((1, len(ranked.logits))))
    return {name: float(metric(once)[0]) for name, metric in _RANKING.items()}


def ranking(
    real_logits: NDArray[np.floating],
    generated_logits: NDArray[np.floating],
    seed: int,
    resamples: int = 1000,
) -> dict[str, Any]:
    """AUROC, AP of the generated class, EER and ECE with intervals.

    Args:
        real_logits: ``(n,)`` finite logits of real images.
        generated_logits: ``(m,)`` finite logits of generated images.
        seed: decides the resamples.
        resamples: number of bootstrap resamples.

    Returns:
        ``auroc``, ``ap_generated``, ``eer``, ``ece``, and for each ``<name>_interval`` as
        ``[low, high]``, in [0, 1]; None with a ``<name>_reason`` where a class is missing. The
        interval of AUROC is `auroc_interval`'s, the others are the bootstrap's or, if the resamples
        differ by less than one image's share, Wilson's for the same share of the smaller class.
    """
    n, m = len(real_logits), len(generated_logits)
    if n == 0 or m == 0:
        reason = f"needs both classes, no {'real' if n == 0 else 'generated'} image"
        return {k: v for name in _RANKING for k, v in undefined(name, reason).items()}
    ranked = _ranked(real_logits, generated_logits)
    values = _values(ranked)
    generator = np.random.default_rng(seed)
    resampled: dict[str, list[Floats]] = {name: [] for name in _RANKING if name != "auroc"}
    at_once = max(1, _RESAMPLES_AT_ONCE // (n + m))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        weights = np.empty((count, n + m))
        for of_class in (ranked.labels, ~ranked.labels):
            places = np.flatnonzero(of_class)
            for row in weights:
                # Number of times each image of the class is drawn; a multinomial is much slower.
                drawn = generator.integers(0, len(places), len(places))
                row[places] = np.bincount(drawn, minlength=len(places))
        resample = ranked.weighted(weights)
        for name, of_resamples in resampled.items():
            of_resamples.append(_RANKING[name](resample))
    intervals = {"auroc": auroc_interval(real_logits, generated_logits)}
    for name, of_resamples in resampled.items():
        every = np.concatenate(of_resamples)
        low, high = np.percentile(every, [2.5, 97.5]).tolist()
        narrow = np.ptp(every) < 1 / (n + m)
        intervals[name] = widened(values[name], min(n, m)) if narrow else (low, high)
    return {
        key: value
        for name in _RANKING
        for key, value in ((name, values[name]), (f"{name}_interval", list(intervals[name])))
    }


def oracle_threshold(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]
) -> float:
    """The threshold with the greatest TPR + TNR on the evaluated images themselves.

    An upper bound: no threshold chosen without the test images can do better on this sum.

    Args:
        real_logits: ``(n,)`` finite logits of real images, n > 0.
        generated_logits: ``(m,)`` finite logits of generated images, m > 0.
    """
    logits = np.concatenate([real_logits, generated_logits])
    called_real, found, thresholds = roc_curve(
        np.arange(len(logits)) < len(real_logits), logits, drop_intermediate=False
    )
    # At the first point no image is called real; of equally good points the last one is taken.
    best = len(thresholds) - 1 - np.argmax((found - called_real)[::-1])
    above_all = np.nextafter(logits.max(), np.inf, dtype=logits.dtype)
    return float(above_all if best == 0 else thresholds[best])


def reliability(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]
) -> list[dict[str, float]]:
    """Reliability of probabilities, in the bins of the calibration error.

    Returns:
        For each bin with an image: ``probability``, the mean probability of real; ``share_real``;
        and ``n``.
    """
    probabilities = expit(np.concatenate([real_logits, generated_logits]))
    labels = np.arange(len(probabilities)) < len(real_logits)
    bins = _bins(probabilities)
    return [
        {
            "probability": float(probabilities[bins == number].mean()),
            "share_real": float(labels[bins == number].mean()),
            "n": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]
