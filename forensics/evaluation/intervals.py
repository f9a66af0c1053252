"""95 % intervals over images for proportions and for the AUROC."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import binomtest, rankdata

Floats = NDArray[np.float64]

Z_95 = 1.959963984540054


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion.

    Source: Wilson 1927, as in Brown, Cai and DasGupta 2001, equation 4.
    """
    low, high = binomtest(successes, count).proportion_ci(method="wilson")
    return float(low), float(high)


def weighted_shares(parts: Sequence[tuple[float, int, int]]) -> tuple[float, float, float]:
    """A weighted sum of independent proportions, and its 95 % interval within [0, 1].

    Args:
        parts: weight, successes and count, above zero, of each proportion.

    Source: Newcombe 1998, method 10; for more than two, Zou and Donner 2008.
    """
    value = below = above = 0.0
    for weight, successes, count in parts:
        share = successes / count
        low, high = wilson(successes, count)
        value += weight * share
        below += (weight * (share - low)) ** 2
        above += (weight * (high - share)) ** 2
    return value, max(0.0, value - below**0.5), min(1.0, value + above**0.5)


def widened(value: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share near ``value`` of ``count``, in place of one without width."""
    # 0.29 * 100 is a little less than 29.
    least, most = math.floor(value * count + 1e-9), math.ceil(value * count - 1e-9)
    return wilson(least, count)[0], wilson(most, count)[1]


def placements(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Share of the other class that each image is ranked correctly against; ties count half.

    Args:
        real_logits: ``(n,)`` finite logits of real images, n > 0.
        generated_logits: ``(m,)`` finite logits of generated images, m > 0.

    Returns:
        ``(n,)`` and ``(m,)``; the mean of either is the AUROC.

    Source: Sun and Xu 2014, for the ranks.
    """
    ranks = rankdata(np.concatenate([real_logits, generated_logits]))
    n, m = len(real_logits), len(generated_logits)
    return (ranks[:n] - rankdata(real_logits)) / m, 1 - (ranks[n:] - rankdata(generated_logits)) / n


def delong_variance(by_class: tuple[Floats, Floats], largest: float = 0.25) -> float:
    """Variance over images of a mean of placements, or of differences of them.

    Args:
        by_class: ``(n,)`` and ``(m,)``, a value of each image.
        largest: the largest variance that a value can have, taken for a class with one image: 0.25
            for a placement, in [0, 1], and 1 for a difference of two.

    Source: DeLong et al. 1988, equation 4.
    """
    return float(sum(v.var(ddof=1) / len(v) if len(v) > 1 else largest for v in by_class))


def auroc_interval(
    real_logits: NDArray[np.floating], generated_logits: NDArray[np.floating]
) -> tuple[float, float]:
    """The 95 % interval of the AUROC over images.

    DeLong's on the logit scale, which keeps it inside [0, 1]. Where the classes are ranked
    perfectly, or all images tie, that has no width; then Wilson's, with the smaller class's count.

    Args:
        real_logits: ``(n,)`` finite logits of real images, n > 0.
        generated_logits: ``(m,)`` finite logits of generated images, m > 0.

    Source: DeLong et al. 1988; Pepe 2003, section 5.2.4, for the scale.
    """
    by_class = placements(real_logits, generated_logits)
    value = float(by_class[0].mean())
    if all(np.ptp(of_class) == 0 for of_class in by_class):
        return widened(value, min(map(len, by_class)))
    half = Z_95 * math.sqrt(delong_variance(by_class)) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))
