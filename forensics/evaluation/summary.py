"""Summary of a test over its generators: the mean and the worst, of seen and of unseen ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarise(pairs: Sequence[Mapping[str, Any]], thresholds: Sequence[str]) -> dict[str, Any]:
    """Balanced accuracy and AUROC over the test pairs of seen and of unseen generators.

    Args:
        pairs: the pairs of a real source and a generator, as in ``result.json``.
        thresholds: names of the thresholds.

    Returns:
        For ``seen`` and ``unseen``, None without such generators, or a dictionary with the number
        of ``pairs``; ``auroc``; and ``at_<threshold>``, balanced accuracy, the mean of TPR and TNR.
        Each of these has ``mean``, ``worst`` and ``worst_pair``, the names of its real source and
        generator.
    """
    return {
        role: _over([pair for pair in pairs if pair["seen"] is seen], thresholds)
        for role, seen in (("seen", True), ("unseen", False))
    }


def _over(pairs: Sequence[Mapping[str, Any]], thresholds: Sequence[str]) -> dict[str, Any] | None:
    if not pairs:
        return None
    aurocs = [pair["ranking"]["auroc"] for pair in pairs]
    rates = {
        name: [(pair[f"at_{name}"]["tpr"] + pair[f"at_{name}"]["tnr"]) / 2 for pair in pairs]
        for name in thresholds
    }
    return {"pairs": len(pairs), "auroc": _mean_and_worst(pairs, aurocs)} | {
        f"at_{name}": _mean_and_worst(pairs, values) for name, values in rates.items()
    }


def _mean_and_worst(pairs: Sequence[Mapping[str, Any]], values: Sequence[float]) -> dict[str, Any]:
    worst = int(np.argmin(values))
    return {
        "mean": float(np.mean(values)),
        "worst": values[worst],
        "worst_pair": [pairs[worst]["real"], pairs[worst]["generator"]],
    }
