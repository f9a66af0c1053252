"""Thresholds that no test image has a say in."""

import math

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM_RATES = (0.05, 0.01)
"""Shares of real validation images that may be called generated."""


def source_threshold(real_logits: NDArray[np.floating], false_alarm_rate: float) -> float:
    """The highest threshold that calls no more than a share of the given reals generated.

    Generators that were never trained on often score between those that were and the reals, so
    that 0.5 finds none of them while a threshold at the reals' own edge finds many.

    Args:
        real_logits: ``(n,)`` logits of real validation images, finite.
        false_alarm_rate: the share, in [0, 1).

    Returns:
        A logit; an image is called real if its own is at least this.

    Raises:
        ValueError: if there are no logits or the rate is out of range.
    """
    if len(real_logits) == 0:
        raise ValueError("no real validation image to set a threshold by")
    if not 0 <= false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate must lie in [0, 1), not {false_alarm_rate}")
    # 0.29 * 100 is a little less than 29.
    allowed = math.floor(false_alarm_rate * len(real_logits) + 1e-9)
    return float(np.sort(real_logits)[allowed])
